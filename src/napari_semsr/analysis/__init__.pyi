from .change import (
    Change as Change,
    block_means as block_means,
    common_field as common_field,
    measure_change as measure_change,
    read_on as read_on,
    spread_boxes as spread_boxes,
)
from .decorrelation import (
    Decorrelation as Decorrelation,
    DecorrelationOptions as DecorrelationOptions,
    measure_decorrelation as measure_decorrelation,
)
from .error_map import (
    ErrorField as ErrorField,
    ErrorMapOptions as ErrorMapOptions,
    ErrorPair as ErrorPair,
    ErrorTally as ErrorTally,
    fit_error as fit_error,
)
from .familiarity import (
    BLOCK_PX as BLOCK_PX,
    FAMILIARITY as FAMILIARITY,
    UNLIKE_PERCENT as UNLIKE_PERCENT,
    Familiarity as Familiarity,
    unfamiliar_percent as unfamiliar_percent,
)
from .focus import (
    FOCUS as FOCUS,
    Falloff as Falloff,
)
from .frc.blocks import shares_noise as shares_noise
from .frc.correlation import (
    FrcOptions as FrcOptions,
    FrcResult as FrcResult,
    compare_with_pixels as compare_with_pixels,
    measure_agreement as measure_agreement,
    measure_frc as measure_frc,
)
from .frc.map import (
    FrcMap as FrcMap,
    FrcMapOptions as FrcMapOptions,
    measure_frc_map as measure_frc_map,
)
from .frc.validity import (
    REASON_TEXTS as REASON_TEXTS,
    REASONS as REASONS,
    code_of as code_of,
)
from .gaps import (
    Gap as Gap,
    GapOptions as GapOptions,
    Gaps as Gaps,
    Particle as Particle,
    ParticleOptions as ParticleOptions,
    WidthHistogram as WidthHistogram,
    measure_gaps as measure_gaps,
)
from .grating import (
    CalibrateOptions as CalibrateOptions,
    measure_grating as measure_grating,
)
from .light import (
    CAUSE_WITH_REFERENCE as CAUSE_WITH_REFERENCE,
    CAUSE_WITHOUT_REFERENCE as CAUSE_WITHOUT_REFERENCE,
    CutOff as CutOff,
    beyond_cut_off as beyond_cut_off,
    cut_off_note as cut_off_note,
    find_cut_off as find_cut_off,
)
from .metrics import (
    Histogram as Histogram,
    LightGain as LightGain,
    Metrics as Metrics,
    MetricsOptions as MetricsOptions,
    light_gain as light_gain,
    match_affine as match_affine,
    measure_histogram as measure_histogram,
    measure_metrics as measure_metrics,
    part_errors as part_errors,
    psnr_gain as psnr_gain,
    structural_similarity as structural_similarity,
)
from .misfit import (
    Misfit as Misfit,
    map_misfit as map_misfit,
    measure_misfit as measure_misfit,
)
from .objects import (
    ObjectCount as ObjectCount,
    count_objects as count_objects,
    object_diameter as object_diameter,
    percent_interval as percent_interval,
)
from .particles import (
    measure_particles as measure_particles,
)
from .profile.fits import (
    Estimate as Estimate,
)
from .profile.line import (
    LineReader as LineReader,
    Profile as Profile,
    ProfileOptions as ProfileOptions,
    read_profile as read_profile,
    require_inside as require_inside,
)
from .profile.readings import (
    RAYLEIGH_DIP as RAYLEIGH_DIP,
    Readings as Readings,
    measure_profile as measure_profile,
)
from .repeatability import (
    RepeatField as RepeatField,
    RepeatTally as RepeatTally,
    ScanPair as ScanPair,
    match_scans as match_scans,
)
from .scale_bar import (
    find_scale_bar as find_scale_bar,
)
from .spectrum import (
    RadialSpectrum as RadialSpectrum,
    SpectrumOptions as SpectrumOptions,
    measure_spectrum as measure_spectrum,
    radial_spectrum as radial_spectrum,
)
