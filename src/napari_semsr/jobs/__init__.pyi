from .adapt.areas import (
    LINEAR as LINEAR,
    AdaptationError as AdaptationError,
    create_shared_area as create_shared_area,
)
from .adapt.job import (
    Adapted as Adapted,
    adapt as _adapt,
)
from .adapt.train import (
    STOP as STOP,
    AdaptOptions as AdaptOptions,
    AdaptProgress as AdaptProgress,
)
from .calibrate import (
    CalibrationReport as CalibrationReport,
    ScaleBarReport as ScaleBarReport,
    calibrate as _calibrate,
)
from .convert import (
    ConvertedFile as ConvertedFile,
    blend_levels as blend_levels,
    resample_levels as resample_levels,
    save_image as save_image,
    save_images as save_images,
    subtract_images as subtract_images,
)
from .crop import (
    CropOptions as CropOptions,
    Cropped as Cropped,
    crop as _crop,
    crop_to_gap_free_box as crop_to_gap_free_box,
)
from .degrade import (
    degrade as _degrade,
    simulate_exposure as simulate_exposure,
    simulate_gold_pair as simulate_gold_pair,
    simulate_specimen as simulate_specimen,
)
from .enhance import (
    MISFIT as MISFIT,
    UNFAMILIAR as UNFAMILIAR,
    PreviewChannel as PreviewChannel,
    create_unfamiliarity_map as create_unfamiliarity_map,
    enhance as _enhance,
    find_unfinished_result as find_unfinished_result,
    is_instrument_model as is_instrument_model,
    run_preview as run_preview,
)
from .figure import (
    FigureOptions as FigureOptions,
    figure as _figure,
)
from .follow import (
    FollowedScan as FollowedScan,
    follow_scan as follow_scan,
    open_frame_folder as open_frame_folder,
)
from .images import (
    REPLACING as REPLACING,
    OverwritePolicy as OverwritePolicy,
    Result as Result,
    check_image_target as check_image_target,
    check_target_folder as check_target_folder,
    collect_digests as collect_digests,
    compose_derived_provenance as compose_derived_provenance,
    digest_image as digest_image,
    digest_values as digest_values,
    open_image as open_image,
    to_json_value as to_json_value,
)
from .index import (
    ACTIONS as ACTIONS,
    FUNCTIONS as FUNCTIONS,
    VERBS as VERBS,
    describe_former_name as describe_former_name,
    read_summary as read_summary,
)
from .info import info as _info
from .leakage import (
    get_training_digests as get_training_digests,
)
from .live import LiveMosaic as LiveMosaic
from .many import (
    ManyImages as ManyImages,
    apply_to_images as apply_to_images,
)
from .measure.compare import (
    ErrorMapReport as ErrorMapReport,
    error_map as _error_map,
    metrics as _metrics,
)
from .measure.gaps import (
    gaps as _gaps,
)
from .measure.profile import (
    MeasuredCurve as MeasuredCurve,
    profile as _profile,
)
from .measure.resolution import (
    FrcJobOptions as FrcJobOptions,
    FrcMapJobOptions as FrcMapJobOptions,
    FrcReport as FrcReport,
    SpectrumReport as SpectrumReport,
    create_spectrum_display as create_spectrum_display,
    decorrelation as _decorrelation,
    find_halves as find_halves,
    frc as _frc,
    frc_map as _frc_map,
    spectrum as _spectrum,
)
from .measure.table import (
    MeasuredTable as MeasuredTable,
    find_images as find_images,
    get_measuring_command as get_measuring_command,
    is_image_collection as is_image_collection,
    measure_table_job as measure_table_job,
)
from .models import (
    ModelFile as ModelFile,
    export_model as _export_model,
    get_check_figures as get_check_figures,
    get_model_origin as get_model_origin,
    get_runs_folder as get_runs_folder,
    get_validation_gain_db as get_validation_gain_db,
    import_model as _import_model,
    list_models as _list_models,
    model_info as _model_info,
)
from .pairs import (
    CreatedPairs as CreatedPairs,
    choose_pair_options as choose_pair_options,
    pairs as _pairs,
)
from .register import (
    Registered as Registered,
    RegisterOptions as RegisterOptions,
    describe_alternative as describe_alternative,
    register as _register,
)
from .replay import (
    ReplayReport as ReplayReport,
    replay as _replay,
)
from .restore import (
    RestoredFile as RestoredFile,
    restore as _restore,
)
from .resume import (
    Step as Step,
    StepRecord as StepRecord,
    run_step as run_step,
)
from .simulate import (
    SimulateOptions as SimulateOptions,
    simulate as _simulate,
)
from .stitch import (
    StitchedFile as StitchedFile,
    StitchFolderOptions as StitchFolderOptions,
    open_scan as open_scan,
    stitch as _stitch,
)
from .train import (
    PairRequest as PairRequest,
    Trained as Trained,
    TrainingEnvironment as TrainingEnvironment,
    TrainOptions as TrainOptions,
    list_bundled_recipes as list_bundled_recipes,
    read_recipe as read_recipe,
    train as _train,
)
from .train_process import (
    TrainStep as TrainStep,
    list_resume_values as list_resume_values,
    train_and_import as train_and_import,
)
from .verb import (
    ImageInput as ImageInput,
    OptionGroup as OptionGroup,
    Output as Output,
    Run as Run,
    Verb as Verb,
    command as command,
    get_verb as get_verb,
)

ADAPT = _adapt
CALIBRATE = _calibrate
CROP = _crop
DEGRADE = _degrade
ENHANCE = _enhance
FIGURE = _figure
INFO = _info
ERROR_MAP = _error_map
GAPS = _gaps
METRICS = _metrics
PROFILE = _profile
DECORRELATION = _decorrelation
FRC = _frc
FRC_MAP = _frc_map
SPECTRUM = _spectrum
MODELS_EXPORT = _export_model
MODELS_IMPORT = _import_model
MODELS_INFO = _model_info
MODELS_LIST = _list_models
PAIRS = _pairs
REGISTER = _register
REPLAY = _replay
RESTORE = _restore
SIMULATE = _simulate
STITCH = _stitch
TRAIN = _train
