from .acquisition import (
    Acquisition as Acquisition,
    Fault as Fault,
    FrameOrder as FrameOrder,
    Frames as Frames,
    grid_cells as grid_cells,
)
from .background import (
    Returning as Returning,
    available_cores as available_cores,
    compact_memory as compact_memory,
    in_background as in_background,
    load_torch_libraries as load_torch_libraries,
    require_memory as require_memory,
    return_free_memory as return_free_memory,
)
from .calibration import (
    MOST_DISTORTION as MOST_DISTORTION,
    Z95 as Z95,
    BarCalibration as BarCalibration,
    Calibration as Calibration,
    FieldDistortion as FieldDistortion,
    describe_pixel_size as describe_pixel_size,
    distort as distort,
    length_error as length_error,
    rim_displacement as rim_displacement,
    size_basis as size_basis,
    spell_pixel_size as spell_pixel_size,
    undistort as undistort,
    widened as widened,
)
from .condition import (
    FAULTS as FAULTS,
    NO_BLUR as NO_BLUR,
    NO_NOISE as NO_NOISE,
    blur_of as blur_of,
    mirrored as mirrored,
    noise_of as noise_of,
    overruled as overruled,
)
from .errors import (
    Cancelled as Cancelled,
    CheckpointError as CheckpointError,
    DeviceMemoryError as DeviceMemoryError,
    IncompleteError as IncompleteError,
    OptionError as OptionError,
    ReadError as ReadError,
    RegistrationError as RegistrationError,
    SemsrError as SemsrError,
    ShapeError as ShapeError,
    WriteError as WriteError,
    legible as legible,
    one_line as one_line,
    sentence_of as sentence_of,
    shown as shown,
)
from .fourier import (
    Rings as Rings,
    mean_pitch as mean_pitch,
    plan_rings as plan_rings,
    tukey as tukey,
    window_plane as window_plane,
)
from .grids import (
    Area as Area,
    Grid as Grid,
    Resampling as Resampling,
    gap_free_box as gap_free_box,
    working_type as working_type,
)
from .intensity import (
    contrast_limits as contrast_limits,
    field_range as field_range,
    finite_mean as finite_mean,
    is_empty as is_empty,
    noise_level as noise_level,
    read_chunks as read_chunks,
    to_dtype as to_dtype,
    without_clipped as without_clipped,
)
from .micrograph import (
    SIZE_ERROR_KEY as SIZE_ERROR_KEY,
    DisplaySettings as DisplaySettings,
    InputRecord as InputRecord,
    Micrograph as Micrograph,
    PixelSize as PixelSize,
    Provenance as Provenance,
    digest_job as digest_job,
    digest_path as digest_path,
    optical_cut_off_nm as optical_cut_off_nm,
    parse_pixel_size as parse_pixel_size,
    processor_name as processor_name,
    software_versions as software_versions,
)
from .opening import (
    open_file as open_file,
    read_bytes as read_bytes,
)
from .options import (
    MORE as MORE,
    Options as Options,
    as_text as as_text,
    count_values as count_values,
    device_option as device_option,
    option as option,
    persons_options as persons_options,
    refuse_persons as refuse_persons,
    words_of as words_of,
)
from .progress import (
    Job as Job,
    Pace as Pace,
    Progress as Progress,
    Waiting as Waiting,
    hear_warnings as hear_warnings,
    retell as retell,
    run as run,
    spell_time as spell_time,
    warn as warn,
)
from .quantities import (
    DB as DB,
    FLAT as FLAT,
    LEVELS as LEVELS,
    SIGMA as SIGMA,
    Curve as Curve,
    Figure as Figure,
    Line as Line,
    Plot as Plot,
    Quantity as Quantity,
    against_truth as against_truth,
    cells_of as cells_of,
    columns_of as columns_of,
    declared_by as declared_by,
    declared_figures as declared_figures,
    figures_of as figures_of,
    in_digits as in_digits,
    in_figures as in_figures,
    lengths as lengths,
    plots_of as plots_of,
    quantities_of as quantities_of,
    recorded as recorded,
    shift_in_words as shift_in_words,
    spell_shape as spell_shape,
    spell_shift as spell_shift,
    value_of as value_of,
)
from .tiling import (
    BlockPlan as BlockPlan,
    Box as Box,
    Tile as Tile,
    TilePlan as TilePlan,
    plan_blocks as plan_blocks,
    plan_tiles as plan_tiles,
    read_box as read_box,
    reflect_indices as reflect_indices,
    round_up as round_up,
)
from .transforms import (
    Affine as Affine,
    Bending as Bending,
    Elastic as Elastic,
    Transform as Transform,
    Warped as Warped,
)
from .types import (
    BoolArray as BoolArray,
    Float32Array as Float32Array,
    FloatArray as FloatArray,
    FloatPair as FloatPair,
    IntPair as IntPair,
)
from .wording import (
    Labels as Labels,
    in_argument_words as in_argument_words,
    in_panel_words as in_panel_words,
    told_in_panel_words as told_in_panel_words,
)
from .zarr_folder import FolderStore as FolderStore
