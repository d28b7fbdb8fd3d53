from .blend import (
    blend_levels as blend_levels,
    difference_of as difference_of,
    input_levels as input_levels,
)
from .calibrate import (
    CalibrationReport as CalibrationReport,
    calibrate_job as calibrate_job,
)
from .check.job import (
    CheckOptions as CheckOptions,
    DiscRecord as DiscRecord,
    ModelCheck as ModelCheck,
    check_model_job as check_model_job,
)
from .crop import (
    CropOptions as CropOptions,
    Cropped as Cropped,
    crop_in_memory as crop_in_memory,
    crop_job as crop_job,
    cut_gaps as cut_gaps,
)
from .degrade import (
    DegradedFile as DegradedFile,
    DegradeOptions as DegradeOptions,
    degrade_image as degrade_image,
    degrade_job as degrade_job,
)
from .enhance import (
    MISFIT as MISFIT,
    EnhancedFile as EnhancedFile,
    enhance_in_memory as enhance_in_memory,
    enhance_job as enhance_job,
    learnt_from_instrument as learnt_from_instrument,
    unfinished as unfinished,
)
from .exchange import ImportOptions as ImportOptions
from .figure import (
    FigureMade as FigureMade,
    FigureOptions as FigureOptions,
    figure_job as figure_job,
)
from .images import (
    DTYPES as DTYPES,
    Converted as Converted,
    Description as Description,
    Result as Result,
    check_image_target as check_image_target,
    check_target_folder as check_target_folder,
    convert_job as convert_job,
    derived_from as derived_from,
    describe_job as describe_job,
    jsonable as jsonable,
    open_image as open_image,
    save_job as save_job,
)
from .judge.job import (
    Judged as Judged,
    JudgedPicture as JudgedPicture,
    JudgeOptions as JudgeOptions,
    judge_job as judge_job,
)
from .measure.error_map import (
    ErrorMapReport as ErrorMapReport,
    error_map_job as error_map_job,
)
from .measure.grey import (
    GapReport as GapReport,
    HistogramOptions as HistogramOptions,
    HistogramReport as HistogramReport,
    MetricsReport as MetricsReport,
    gaps_job as gaps_job,
    histogram_job as histogram_job,
    metrics_job as metrics_job,
)
from .measure.profile import (
    ProfileReport as ProfileReport,
    in_nm as in_nm,
    length_in_nm as length_in_nm,
    profile_job as profile_job,
)
from .measure.repeatability import (
    RepeatabilityReport as RepeatabilityReport,
    repeatability_job as repeatability_job,
)
from .measure.resolution import (
    DecorrelationReport as DecorrelationReport,
    FrcMapReport as FrcMapReport,
    FrcReport as FrcReport,
    SpectrumReport as SpectrumReport,
    decorrelation_job as decorrelation_job,
    find_halves as find_halves,
    frc_job as frc_job,
    frc_map_job as frc_map_job,
    spectrum_job as spectrum_job,
    spectrum_look as spectrum_look,
)
from .measure.table import (
    MEASURES as MEASURES,
    MeasuredTable as MeasuredTable,
    file_state as file_state,
    find_images as find_images,
    is_many as is_many,
    measure_table_job as measure_table_job,
    path_in_table as path_in_table,
)
from .models import (
    DEFAULT_MODEL as DEFAULT_MODEL,
    MOSAIC_MODEL as MOSAIC_MODEL,
    ArchitectureList as ArchitectureList,
    ModelFile as ModelFile,
    ModelList as ModelList,
    export_model_job as export_model_job,
    find_model as find_model,
    import_model_job as import_model_job,
    list_architectures_job as list_architectures_job,
    list_models_job as list_models_job,
    model_info_job as model_info_job,
    on_shelf as on_shelf,
    runs_folder as runs_folder,
)
from .pairs import (
    PairsMade as PairsMade,
    fitting_options as fitting_options,
    pairs_job as pairs_job,
)
from .preview import (
    PreviewDesk as PreviewDesk,
    preview_job as preview_job,
)
from .register import (
    Registered as Registered,
    RegisteredImage as RegisteredImage,
    RegisterOptions as RegisterOptions,
    both_openings as both_openings,
    register_in_memory as register_in_memory,
    register_job as register_job,
)
from .replay.job import (
    ReplayReport as ReplayReport,
    replay_job as replay_job,
)
from .report.job import (
    FoundBefore as FoundBefore,
    ReportMade as ReportMade,
    ReportOptions as ReportOptions,
    report_job as report_job,
)
from .restore import (
    RestoredFile as RestoredFile,
    restore_in_memory as restore_in_memory,
    restore_job as restore_job,
)
from .samples import (
    Exposure as Exposure,
    draw_specimen as draw_specimen,
    expose as expose,
    gold_pair as gold_pair,
)
from .scale_bar import (
    ScaleBarReport as ScaleBarReport,
    scale_bar_job as scale_bar_job,
)
from .simulate import (
    SimulatedScan as SimulatedScan,
    SimulateOptions as SimulateOptions,
    simulate_job as simulate_job,
)
from .stitch import (
    StitchedFile as StitchedFile,
    StitchFolderOptions as StitchFolderOptions,
    open_scan as open_scan,
    stitch_job as stitch_job,
)
from .train import (
    CutRequest as CutRequest,
    OwnImage as OwnImage,
    RecipeFacts as RecipeFacts,
    Trained as Trained,
    TrainingPlace as TrainingPlace,
    bundled_recipes as bundled_recipes,
    images_to_cut as images_to_cut,
    recipe_facts as recipe_facts,
    train_job as train_job,
)
from .train_process import (
    TrainRequest as TrainRequest,
    TrainStep as TrainStep,
    train_to_shelf as train_to_shelf,
)
from .trust.learn import (
    TrustLearning as TrustLearning,
    TrustLearnt as TrustLearnt,
    learn_trust_job as learn_trust_job,
)
from .trust.map import (
    TrustOptions as TrustOptions,
    TrustReport as TrustReport,
    knows_errors as knows_errors,
    trust_job as trust_job,
)
from .trust.spots import (
    DoubtedObjects as DoubtedObjects,
    doubt_of as doubt_of,
)
