from .adapt.areas import (
    LINEAR as LINEAR,
    AdaptationError as AdaptationError,
    SharedArea as SharedArea,
    create_shared_area as create_shared_area,
)
from .adapt.job import (
    ADAPT as ADAPT,
    Adapted as Adapted,
)
from .adapt.train import (
    STOP as STOP,
    AdaptOptions as AdaptOptions,
    AdaptProgress as AdaptProgress,
)
from .blend import (
    blend_levels as blend_levels,
    resample_levels as resample_levels,
    subtract_images as subtract_images,
)
from .calibrate import (
    CALIBRATE as CALIBRATE,
    CalibrationReport as CalibrationReport,
    ScaleBarReport as ScaleBarReport,
)
from .convert import (
    ConvertedFile as ConvertedFile,
    save_image as save_image,
    save_images as save_images,
)
from .crop import (
    CROP as CROP,
    CropOptions as CropOptions,
    Cropped as Cropped,
    crop_to_gap_free_box as crop_to_gap_free_box,
)
from .enhance import (
    ENHANCE as ENHANCE,
    MISFIT as MISFIT,
    UNFAMILIAR as UNFAMILIAR,
    PreviewChannel as PreviewChannel,
    create_unfamiliarity_map as create_unfamiliarity_map,
    find_unfinished_result as find_unfinished_result,
    is_instrument_model as is_instrument_model,
    run_preview as run_preview,
)
from .exchange import ImportOptions as ImportOptions
from .figure import (
    FIGURE as FIGURE,
    FigureOptions as FigureOptions,
)
from .follow import (
    FollowedScan as FollowedScan,
    follow_scan as follow_scan,
    open_frame_folder as open_frame_folder,
)
from .former import describe_former_name as describe_former_name
from .images import (
    KEEP_PARTS as KEEP_PARTS,
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
    overwrite_image as overwrite_image,
    to_json_value as to_json_value,
)
from .index import (
    ACTIONS as ACTIONS,
    FUNCTIONS as FUNCTIONS,
    VERBS as VERBS,
    get_actions as get_actions,
    get_verb as get_verb,
)
from .info import INFO as INFO
from .leakage import (
    get_training_digests as get_training_digests,
)
from .live import LiveMosaic as LiveMosaic
from .many import (
    ManyImages as ManyImages,
    apply_to_images as apply_to_images,
)
from .measure.error_map import (
    ERROR_MAP as ERROR_MAP,
    ErrorMapReport as ErrorMapReport,
)
from .measure.gaps import (
    GAPS as GAPS,
    GapReport as GapReport,
)
from .measure.grey import (
    METRICS as METRICS,
)
from .measure.profile import (
    PROFILE as PROFILE,
    MeasuredCurve as MeasuredCurve,
)
from .measure.resolution import (
    DECORRELATION as DECORRELATION,
    FRC as FRC,
    FRC_MAP as FRC_MAP,
    SPECTRUM as SPECTRUM,
    DecorrelationReport as DecorrelationReport,
    FrcJobOptions as FrcJobOptions,
    FrcMapJobOptions as FrcMapJobOptions,
    FrcMapReport as FrcMapReport,
    FrcReport as FrcReport,
    SpectrumReport as SpectrumReport,
    create_spectrum_display as create_spectrum_display,
    find_halves as find_halves,
)
from .measure.table import (
    MeasuredTable as MeasuredTable,
    find_images as find_images,
    get_measuring_command as get_measuring_command,
    is_image_collection as is_image_collection,
    measure_table_job as measure_table_job,
)
from .models import (
    MODELS_EXPORT as MODELS_EXPORT,
    MODELS_IMPORT as MODELS_IMPORT,
    MODELS_INFO as MODELS_INFO,
    MODELS_LIST as MODELS_LIST,
    ModelFile as ModelFile,
    get_check_figures as get_check_figures,
    get_model_origin as get_model_origin,
    get_runs_folder as get_runs_folder,
    get_validation_gain_db as get_validation_gain_db,
)
from .pairs import (
    PAIRS as PAIRS,
    CreatedPairs as CreatedPairs,
    choose_pair_options as choose_pair_options,
)
from .register import (
    REGISTER as REGISTER,
    Registered as Registered,
    RegisterOptions as RegisterOptions,
    describe_alternative as describe_alternative,
)
from .replay import (
    REPLAY as REPLAY,
    ReplayReport as ReplayReport,
)
from .restore import (
    RESTORE as RESTORE,
    RestoredFile as RestoredFile,
)
from .resume import (
    Step as Step,
    StepRecord as StepRecord,
    run_step as run_step,
)
from .samples import (
    simulate_exposure as simulate_exposure,
    simulate_gold_pair as simulate_gold_pair,
    simulate_specimen as simulate_specimen,
)
from .simulate import (
    SIMULATE as SIMULATE,
    SimulateOptions as SimulateOptions,
)
from .stitch import (
    STITCH as STITCH,
    StitchedFile as StitchedFile,
    StitchFolderOptions as StitchFolderOptions,
    open_scan as open_scan,
)
from .train import (
    HELD_OUT as HELD_OUT,
    TRAIN as TRAIN,
    PairRequest as PairRequest,
    RecipeInfo as RecipeInfo,
    Trained as Trained,
    TrainingEnvironment as TrainingEnvironment,
    TrainOptions as TrainOptions,
    create_comparison_figures as create_comparison_figures,
    create_validation_figures as create_validation_figures,
    list_bundled_recipes as list_bundled_recipes,
    read_recipe_info as read_recipe_info,
)
from .train_process import (
    TrainStep as TrainStep,
    list_resume_values as list_resume_values,
    train_and_import as train_and_import,
)
from .verb import (
    ImageInput as ImageInput,
    MapResult as MapResult,
    OptionGroup as OptionGroup,
    Output as Output,
    Run as Run,
    Verb as Verb,
    command as command,
)
