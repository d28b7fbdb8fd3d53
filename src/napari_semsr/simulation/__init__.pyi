from .degrade import (
    KINDS as KINDS,
    DegradationRanges as DegradationRanges,
    DegradedScene as DegradedScene,
    compute_blur_width_px as compute_blur_width_px,
    create_smooth_field as create_smooth_field,
    degrade_plane as degrade_plane,
    degrade_randomly as degrade_randomly,
    gaussian_kernel as gaussian_kernel,
    get_grey_range as get_grey_range,
)
from .drawings import (
    PHANTOMS as PHANTOMS,
    draw_phantom as draw_phantom,
)
from .faults import (
    FaultRanges as FaultRanges,
    apply_random_faults as apply_random_faults,
)
from .gold import (
    COARSE_NM as COARSE_NM,
    FINE_NM as FINE_NM,
    GoldOptions as GoldOptions,
    create_gold_rng as create_gold_rng,
    random_gold_options as random_gold_options,
    random_gold_pair as random_gold_pair,
)
from .microscope import (
    OPTICS as OPTICS,
    MicroscopeOptions as MicroscopeOptions,
)
from .optics import (
    compute_psf as compute_psf,
    focus_depth_nm as focus_depth_nm,
)
from .pairs import (
    SPREAD_PX as SPREAD_PX,
    ImagingSettings as ImagingSettings,
    SsumPair as SsumPair,
    SsumPairOptions as SsumPairOptions,
    get_surface_shape as get_surface_shape,
    simulate_random_ssum_pairs as simulate_random_ssum_pairs,
    simulate_ssum_pair as simulate_ssum_pair,
    simulate_validation_pairs as simulate_validation_pairs,
)
from .samples import (
    HELD_OUT_SEED as HELD_OUT_SEED,
    SAMPLE_KINDS as SAMPLE_KINDS,
    create_random_surface as create_random_surface,
)
from .scan import (
    Scan as Scan,
    ScanOptions as ScanOptions,
    simulate_scan as simulate_scan,
)
from .sem import (
    EffectOptions as EffectOptions,
    add_effects as add_effects,
    add_noise as add_noise,
)
from .specimen import (
    ObjectOptions as ObjectOptions,
    Specimen as Specimen,
    draw_object as draw_object,
)
from .view import (
    ViewOptions as ViewOptions,
    simulate_view as simulate_view,
)
