from .degrade import (
    KINDS as KINDS,
    DegradationRanges as DegradationRanges,
    FaultyScene as FaultyScene,
    black_and_white as black_and_white,
    blur_width_px as blur_width_px,
    degrade_plane as degrade_plane,
    gaussian_kernel as gaussian_kernel,
    random_scene as random_scene,
    smooth_field as smooth_field,
)
from .drawings import (
    PHANTOMS as PHANTOMS,
    draw as draw,
)
from .faults import (
    FaultRanges as FaultRanges,
    random_faults as random_faults,
)
from .gold import (
    COARSE_NM as COARSE_NM,
    FINE_NM as FINE_NM,
    GoldOptions as GoldOptions,
    gold_rng as gold_rng,
    random_gold_options as random_gold_options,
    random_gold_pair as random_gold_pair,
)
from .microscope import (
    OPTICS as OPTICS,
    MicroscopeOptions as MicroscopeOptions,
)
from .optics import (
    focus_depth_nm as focus_depth_nm,
    point_spread as point_spread,
)
from .pairs import (
    SPREAD_PX as SPREAD_PX,
    RandomLook as RandomLook,
    SsumPair as SsumPair,
    SsumPairOptions as SsumPairOptions,
    pair_of_surface as pair_of_surface,
    random_ssum_pairs as random_ssum_pairs,
    ssum_validation as ssum_validation,
    surface_shape as surface_shape,
)
from .samples import (
    HELD_OUT_SEED as HELD_OUT_SEED,
    SAMPLE_KINDS as SAMPLE_KINDS,
    random_surface as random_surface,
)
from .scan import (
    Scan as Scan,
    ScanOptions as ScanOptions,
    simulate_scan as simulate_scan,
)
from .sem import (
    EffectOptions as EffectOptions,
    add_effects as add_effects,
    expose as expose,
)
from .specimen import (
    ObjectOptions as ObjectOptions,
    Specimen as Specimen,
    draw_object as draw_object,
)
from .view import (
    ViewOptions as ViewOptions,
    take_view as take_view,
)
