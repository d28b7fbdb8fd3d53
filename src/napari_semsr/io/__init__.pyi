from .arrays import (
    image_of_array as image_of_array,
    is_array as is_array,
)
from .arrivals import (
    ArrivedFrame as ArrivedFrame,
    FrameFolder as FrameFolder,
)
from .calibration import (
    read_calibration as read_calibration,
    with_calibration as with_calibration,
    write_calibration as write_calibration,
)
from .czi import count_scenes as count_scenes
from .files import (
    COVERAGE as COVERAGE,
    StoreLock as StoreLock,
    as_on_disk as as_on_disk,
    check_target as check_target,
    companion_path as companion_path,
    decoding as decoding,
    file_stem as file_stem,
    half_paths as half_paths,
    is_there as is_there,
    label_path as label_path,
    left_behind as left_behind,
    move as move,
    no_file as no_file,
    output_kind as output_kind,
    own_name as own_name,
    read_object as read_object,
    read_text as read_text,
    remove_target as remove_target,
    renaming as renaming,
    replacing as replacing,
    scratch as scratch,
    writing as writing,
)
from .formats import (
    Source as Source,
    Written as Written,
    count_planes as count_planes,
    describe as describe,
    filled_in as filled_in,
    filling_store as filling_store,
    read as read,
    read_companions as read_companions,
    stored_type as stored_type,
    write as write,
    write_blocks as write_blocks,
)
from .frames import (
    FRAMES_OPTIONS as FRAMES_OPTIONS,
    HEIGHTS as HEIGHTS,
    SCENES_KEY as SCENES_KEY,
    choose_frames as choose_frames,
    natural_key as natural_key,
    open_frames as open_frames,
    read_heights as read_heights,
)
from .layers import (
    BAR_KEY as BAR_KEY,
    DRAWN_KEY as DRAWN_KEY,
    FOLDER_KEY as FOLDER_KEY,
    HELPER_KEY as HELPER_KEY,
    LIVE_KEY as LIVE_KEY,
    NETWORK_KEY as NETWORK_KEY,
    PROJECT_KEY as PROJECT_KEY,
    READ_KEY as READ_KEY,
    ROWS_KEY as ROWS_KEY,
    SAVED_KEY as SAVED_KEY,
    SHAPE_KEY as SHAPE_KEY,
    SINGLE_PX as SINGLE_PX,
    STORE_KEY as STORE_KEY,
    STRENGTH_KEY as STRENGTH_KEY,
    holds_frames as holds_frames,
    layer_attributes as layer_attributes,
    list_images as list_images,
    scan_layers as scan_layers,
    stack_planes as stack_planes,
    without_rows as without_rows,
)
from .log import note_error as note_error
from .napari_hooks import get_reader as get_reader, is_ours as is_ours
from .png import write_picture as write_picture
from .positions import write_fiji as write_fiji
from .project import (
    PROJECT_SUFFIX as PROJECT_SUFFIX,
    OpenedProject as OpenedProject,
    Project as Project,
    ProjectInput as ProjectInput,
    ProjectLayer as ProjectLayer,
    adopt as adopt,
    is_project as is_project,
    note_input as note_input,
    note_recent as note_recent,
    open_project as open_project,
    plain as plain,
    plain_attributes as plain_attributes,
    project_folder as project_folder,
    read_array as read_array,
    read_project as read_project,
    recent_projects as recent_projects,
    write_array as write_array,
    write_project as write_project,
)
from .read_image import (
    CUT_KEY as CUT_KEY,
    LEVEL_KEY as LEVEL_KEY,
    SERIES_KEY as SERIES_KEY,
    ReadOptions as ReadOptions,
    TypedSize as TypedSize,
    as_grey as as_grey,
    companions as companions,
    count_series as count_series,
    display_name as display_name,
    luminance as luminance,
    parse_length_nm as parse_length_nm,
    suggest_databar as suggest_databar,
)
from .sheets import (
    SHEET_SUFFIXES as SHEET_SUFFIXES,
    TABLE_SUFFIXES as TABLE_SUFFIXES,
    Cell as Cell,
    check_sheet as check_sheet,
    csv_text as csv_text,
    guarded_cell as guarded_cell,
    read_sheet as read_sheet,
    write_rows as write_rows,
    write_sheet as write_sheet,
)
from .tiff.write import (
    check_pages as check_pages,
    page_axes as page_axes,
    write_fei as write_fei,
    write_pages as write_pages,
)
from .transforms import (
    TRANSFORM_SUFFIXES as TRANSFORM_SUFFIXES,
    Side as Side,
    StoredTransform as StoredTransform,
    read_landmarks as read_landmarks,
    read_transform as read_transform,
    write_landmarks as write_landmarks,
    write_transform as write_transform,
)
from .zarr.growing import (
    GrowingMosaic as GrowingMosaic,
    GrowingWindow as GrowingWindow,
    is_live as is_live,
)
from .zarr.image import (
    fill_from as fill_from,
    store_of as store_of,
    warn_of_missing_blocks as warn_of_missing_blocks,
)
from .zarr.series import write_series as write_series
from .zarr.store import (
    OmeZarrStore as OmeZarrStore,
    create_store as create_store,
    halve as halve,
    level_shapes as level_shapes,
    peek as peek,
)
