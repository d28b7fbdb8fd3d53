from .degrade import (
    BLUR_SIGMA_PX as BLUR_SIGMA_PX,
    BLUR_SIZE_PX as BLUR_SIZE_PX,
    KINDS as KINDS,
    DegradationRanges as DegradationRanges,
    blur_width_px as blur_width_px,
    degrade_plane as degrade_plane,
    gaussian_kernel as gaussian_kernel,
    random_scene as random_scene,
    smooth_field as smooth_field,
)
from .faults import (
    FaultRanges as FaultRanges,
    FaultyScene as FaultyScene,
    random_faults as random_faults,
)
from .phantoms.draw import (
    PHANTOMS as PHANTOMS,
    draw as draw,
)
from .phantoms.gold import (
    COARSE_NM as COARSE_NM,
    FINE_NM as FINE_NM,
    GoldOptions as GoldOptions,
    gold_rng as gold_rng,
    random_gold_options as random_gold_options,
    random_gold_pair as random_gold_pair,
)
from .phantoms.specimen import Specimen as Specimen
from .sem import (
    EffectOptions as EffectOptions,
    add_effects as add_effects,
    expose as expose,
)
from .superlens.microscope import (
    OPTICS as OPTICS,
    MicroscopeOptions as MicroscopeOptions,
)
from .superlens.optics import (
    focus_depth_nm as focus_depth_nm,
    point_spread as point_spread,
)
from .superlens.pairs import (
    SPREAD_PX as SPREAD_PX,
    RandomLook as RandomLook,
    SsumPair as SsumPair,
    SsumPairOptions as SsumPairOptions,
    pair_of_surface as pair_of_surface,
    random_ssum_pairs as random_ssum_pairs,
    ssum_validation as ssum_validation,
    surface_shape as surface_shape,
)
from .superlens.scan import (
    Scan as Scan,
    ScanOptions as ScanOptions,
    simulate_scan as simulate_scan,
)
from .superlens.specimens import (
    SAMPLE_KINDS as SAMPLE_KINDS,
    random_surface as random_surface,
)
from .superlens.view import (
    View as View,
    ViewOptions as ViewOptions,
    take_view as take_view,
)
