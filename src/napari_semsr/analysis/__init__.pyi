from .decorrelation import (
    Decorrelation as Decorrelation,
    DecorrelationOptions as DecorrelationOptions,
    measure_decorrelation as measure_decorrelation,
)
from .error_map import (
    AlignedPair as AlignedPair,
    ErrorMapOptions as ErrorMapOptions,
    ErrorSums as ErrorSums,
    FittedPair as FittedPair,
    fit_blur_and_gain as fit_blur_and_gain,
)
from .familiarity import (
    BLOCK_PX as BLOCK_PX,
    EXPLAINED as EXPLAINED,
    FAMILIARITY as FAMILIARITY,
    UNLIKE_PERCENT as UNLIKE_PERCENT,
    BlockFeatures as BlockFeatures,
    ExplainedDetail as ExplainedDetail,
    Falloff as Falloff,
    compute_unfamiliar_percentage as compute_unfamiliar_percentage,
    create_damaged_card_error as create_damaged_card_error,
    get_detail_side as get_detail_side,
)
from .frc.blocks import has_shared_noise as has_shared_noise
from .frc.correlation import (
    FrcOptions as FrcOptions,
    FrcResult as FrcResult,
    describe_nyquist_ratio as describe_nyquist_ratio,
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
    get_reason_code as get_reason_code,
)
from .gaps import (
    Gap as Gap,
    GapOptions as GapOptions,
    Gaps as Gaps,
    Particle as Particle,
    WidthHistogram as WidthHistogram,
    measure_gaps as measure_gaps,
)
from .grating import (
    CalibrateOptions as CalibrateOptions,
    measure_grating as measure_grating,
)
from .light import (
    CutOff as CutOff,
    find_cut_off as find_cut_off,
    format_cut_off_note as format_cut_off_note,
    format_cut_off_warning as format_cut_off_warning,
    split_frequencies as split_frequencies,
)
from .metrics import (
    Histogram as Histogram,
    Metrics as Metrics,
    MetricsOptions as MetricsOptions,
    choose_gain as choose_gain,
    compute_psnr_gain as compute_psnr_gain,
    fit_gain_and_offset as fit_gain_and_offset,
    measure_histogram as measure_histogram,
    measure_metrics as measure_metrics,
    structural_similarity as structural_similarity,
    sum_section_errors as sum_section_errors,
)
from .misfit import (
    Misfit as Misfit,
    compute_block_means as compute_block_means,
    map_misfit as map_misfit,
    measure_misfit as measure_misfit,
    split_into_blocks as split_into_blocks,
)
from .profile.fits import (
    Estimate as Estimate,
)
from .profile.line import (
    LineReader as LineReader,
    Profile as Profile,
    ProfileOptions as ProfileOptions,
    check_line_bounds as check_line_bounds,
    read_profile as read_profile,
)
from .profile.readings import (
    RAYLEIGH_DIP as RAYLEIGH_DIP,
    ProfileReadings as ProfileReadings,
    measure_profile as measure_profile,
)
from .scale_bar import (
    find_scale_bar as find_scale_bar,
)
from .spectrum import (
    RadialSpectrum as RadialSpectrum,
    SpectrumOptions as SpectrumOptions,
    measure_spectrum as measure_spectrum,
)
