from .canvas import (
    PHANTOMS as PHANTOMS,
    draw_phantom as draw_phantom,
)
from .degrade import (
    KINDS as KINDS,
    DegradationRanges as DegradationRanges,
    DegradedScene as DegradedScene,
    FaultRanges as FaultRanges,
    apply_random_degradation as apply_random_degradation,
    apply_random_faults as apply_random_faults,
    create_gaussian_kernel as create_gaussian_kernel,
    create_smooth_field as create_smooth_field,
    degrade_plane as degrade_plane,
    get_grey_range as get_grey_range,
)
from .gold import (
    COARSE_NM as COARSE_NM,
    FINE_NM as FINE_NM,
    GoldOptions as GoldOptions,
    create_gold_rng as create_gold_rng,
    create_random_gold_options as create_random_gold_options,
    simulate_random_gold_pair as simulate_random_gold_pair,
)
from .microscope import (
    OPTICS as OPTICS,
    MicroscopeOptions as MicroscopeOptions,
    compute_psf as compute_psf,
)
from .pairs import (
    ImagingSettings as ImagingSettings,
    SsumPair as SsumPair,
    SsumPairOptions as SsumPairOptions,
    get_surface_shape as get_surface_shape,
    simulate_random_ssum_pairs as simulate_random_ssum_pairs,
    simulate_ssum_pair as simulate_ssum_pair,
    simulate_validation_pairs as simulate_validation_pairs,
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
    HELD_OUT_SEED as HELD_OUT_SEED,
    PhantomOptions as PhantomOptions,
    Specimen as Specimen,
    draw_specimen as draw_specimen,
)
from .view import (
    SemViewOptions as SemViewOptions,
    simulate_sem_view as simulate_sem_view,
)
