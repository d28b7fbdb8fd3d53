from .adapt.areas import (
    AdaptRefused as AdaptRefused,
    SharedArea as SharedArea,
    share_area as share_area,
)
from .adapt.evaluate import ADAPTED_MODEL as ADAPTED_MODEL
from .adapt.job import (
    ADAPT as ADAPT,
    STOP as STOP,
    Adapted as Adapted,
    AdaptOptions as AdaptOptions,
    AdaptProgress as AdaptProgress,
    AppliedImage as AppliedImage,
)
from .adapt.page import held_out_pictures as held_out_pictures
from .batch.job import (
    BATCH as BATCH,
    BatchOptions as BatchOptions,
    BatchReport as BatchReport,
)
from .batch.steps import (
    plan_batch as plan_batch,
    steps_of as steps_of,
    verbs_of as verbs_of,
)
from .blend import (
    blend_levels as blend_levels,
    difference_of as difference_of,
    input_levels as input_levels,
)
from .calibrate import (
    CALIBRATE as CALIBRATE,
    CalibrationReport as CalibrationReport,
    ScaleBarReport as ScaleBarReport,
)
from .check.job import (
    MODELS_CHECK as MODELS_CHECK,
    CheckOptions as CheckOptions,
    ModelCheck as ModelCheck,
)
from .check.removals import (
    SUPERLENS as SUPERLENS,
    fine_circuits as fine_circuits,
    paired_removals as paired_removals,
)
from .check_record import (
    LINEAR as LINEAR,
    MODEL as MODEL,
    DiscRecord as DiscRecord,
    RemovalCount as RemovalCount,
    Removals as Removals,
)
from .convert import (
    CONVERT as CONVERT,
    Converted as Converted,
    save_job as save_job,
    save_together as save_together,
)
from .crop import (
    CROP as CROP,
    CropOptions as CropOptions,
    Cropped as Cropped,
    cut_gaps as cut_gaps,
)
from .degrade import (
    DEGRADE as DEGRADE,
    DegradeOptions as DegradeOptions,
)
from .enhance import (
    ENHANCE as ENHANCE,
    MISFIT as MISFIT,
    UNFAMILIAR as UNFAMILIAR,
    EnhancedFile as EnhancedFile,
    find_unfinished as find_unfinished,
    learnt_from_instrument as learnt_from_instrument,
    map_unfamiliar as map_unfamiliar,
)
from .enhance_growing import GrowingEnhancement as GrowingEnhancement
from .exchange import ImportOptions as ImportOptions
from .figure import (
    FIGURE as FIGURE,
    FigureOptions as FigureOptions,
)
from .follow import (
    Followed as Followed,
    follow_scan as follow_scan,
    frame_folder as frame_folder,
)
from .images import (
    REPLACING as REPLACING,
    OverwritePolicy as OverwritePolicy,
    Result as Result,
    check_image_target as check_image_target,
    check_target_folder as check_target_folder,
    derived_from as derived_from,
    digest_image as digest_image,
    digest_values as digest_values,
    digests_of as digests_of,
    jsonable as jsonable,
    open_image as open_image,
    rewrite as rewrite,
)
from .index import (
    ACTIONS as ACTIONS,
    FUNCTIONS as FUNCTIONS,
    MEASURES as MEASURES,
    PANELS as PANELS,
    VERBS as VERBS,
    actions_of as actions_of,
    verb_of as verb_of,
)
from .info import INFO as INFO
from .judge import (
    JUDGE as JUDGE,
    Judged as Judged,
    JudgeOptions as JudgeOptions,
)
from .leakage import (
    TRAINED_ON as TRAINED_ON,
    learnt_from_light as learnt_from_light,
)
from .live import LiveMosaic as LiveMosaic
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
    CurveFound as CurveFound,
)
from .measure.repeatability import RepeatabilityReport as RepeatabilityReport
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
    find_halves as find_halves,
    spectrum_look as spectrum_look,
)
from .measure.table import (
    MeasuredTable as MeasuredTable,
    is_many as is_many,
    measure_of as measure_of,
    measure_table_job as measure_table_job,
)
from .models import (
    DEFAULT_MODEL as DEFAULT_MODEL,
    MODELS_IMPORT as MODELS_IMPORT,
    MODELS_INFO as MODELS_INFO,
    MODELS_LIST as MODELS_LIST,
    MOSAIC_MODEL as MOSAIC_MODEL,
    ModelFile as ModelFile,
    find_model as find_model,
    on_shelf as on_shelf,
    own_gain_db as own_gain_db,
    runs_folder as runs_folder,
)
from .pairs import (
    PAIRS as PAIRS,
    PairsMade as PairsMade,
    fitting_options as fitting_options,
)
from .plan.call import (
    Call as Call,
    CallOutput as CallOutput,
    Plan as Plan,
)
from .plan.execution import (
    RECORD as RECORD,
    CallRecord as CallRecord,
    Results as Results,
    execute as execute,
)
from .preview import (
    PreviewDesk as PreviewDesk,
    preview_job as preview_job,
)
from .register import (
    REGISTER as REGISTER,
    Registered as Registered,
    RegisterOptions as RegisterOptions,
    rival_in_words as rival_in_words,
)
from .replay import (
    REPLAY as REPLAY,
    ReplayReport as ReplayReport,
)
from .report.job import (
    REPORT as REPORT,
    PanelFindings as PanelFindings,
    ReportMade as ReportMade,
    ReportOptions as ReportOptions,
)
from .restore import (
    RESTORE as RESTORE,
    RestoredFile as RestoredFile,
)
from .samples import (
    draw_specimen as draw_specimen,
    expose as expose,
    gold_pair as gold_pair,
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
    CutRequest as CutRequest,
    OwnImage as OwnImage,
    RecipeFacts as RecipeFacts,
    Trained as Trained,
    TrainOptions as TrainOptions,
    bundled_recipes as bundled_recipes,
    compared_figures as compared_figures,
    held_out_figures as held_out_figures,
    recipe_facts as recipe_facts,
)
from .train_process import (
    TrainRequest as TrainRequest,
    TrainStep as TrainStep,
    train_in_subprocess as train_in_subprocess,
    train_to_shelf as train_to_shelf,
)
from .verb import (
    Group as Group,
    ImageIn as ImageIn,
    MapMade as MapMade,
    Output as Output,
    Run as Run,
    Verb as Verb,
)
