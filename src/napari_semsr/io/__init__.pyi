from .arrays import (
    array_to_image as array_to_image,
    is_array as is_array,
)
from .arrivals import (
    FrameFolder as FrameFolder,
    NewFrame as NewFrame,
)
from .calibration import (
    apply_calibration as apply_calibration,
    read_calibration as read_calibration,
    write_calibration as write_calibration,
)
from .czi import count_scenes as count_scenes
from .files import (
    COVERAGE as COVERAGE,
    StoreLock as StoreLock,
    check_target as check_target,
    companion_path as companion_path,
    convert_decoding_errors as convert_decoding_errors,
    convert_write_errors as convert_write_errors,
    file_stem as file_stem,
    find_leftover_paths as find_leftover_paths,
    get_display_name as get_display_name,
    half_paths as half_paths,
    label_path as label_path,
    match_disk_spelling as match_disk_spelling,
    missing_file_error as missing_file_error,
    move as move,
    output_format as output_format,
    path_exists as path_exists,
    read_json_object as read_json_object,
    read_text as read_text,
    remove_target as remove_target,
    replace_atomically as replace_atomically,
    temporary_path as temporary_path,
    write_atomically as write_atomically,
)
from .formats import (
    Source as Source,
    WrittenOutput as WrittenOutput,
    count_planes as count_planes,
    describe as describe,
    finalise_store as finalise_store,
    output_store_path as output_store_path,
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
    natural_sort_key as natural_sort_key,
    open_frames as open_frames,
    read_heights as read_heights,
    select_frames as select_frames,
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
    create_scan_layers as create_scan_layers,
    crop_rows as crop_rows,
    is_scan as is_scan,
    layer_attributes as layer_attributes,
    list_images as list_images,
    stack_planes as stack_planes,
)
from .log import log_error as log_error
from .napari_hooks import get_reader as get_reader, is_preferred as is_preferred
from .png import write_screenshot as write_screenshot
from .positions import write_fiji_positions as write_fiji_positions
from .project import (
    PROJECT_SUFFIX as PROJECT_SUFFIX,
    OpenedProject as OpenedProject,
    Project as Project,
    ProjectInput as ProjectInput,
    ProjectLayer as ProjectLayer,
    add_recent_project as add_recent_project,
    copy_with_links as copy_with_links,
    is_project as is_project,
    list_recent_projects as list_recent_projects,
    open_project as open_project,
    project_folder as project_folder,
    read_array as read_array,
    read_project as read_project,
    record_input as record_input,
    to_json_attributes as to_json_attributes,
    to_json_value as to_json_value,
    write_array as write_array,
    write_project as write_project,
)
from .read_image import (
    CUT_KEY as CUT_KEY,
    LEVEL_KEY as LEVEL_KEY,
    SERIES_KEY as SERIES_KEY,
    ReadOptions as ReadOptions,
    TypedSize as TypedSize,
    convert_if_grey as convert_if_grey,
    count_series as count_series,
    detect_databar as detect_databar,
    list_companion_files as list_companion_files,
    luminance as luminance,
    parse_length_nm as parse_length_nm,
    remove_suffixes as remove_suffixes,
)
from .sheets import (
    SHEET_SUFFIXES as SHEET_SUFFIXES,
    TABLE_SUFFIXES as TABLE_SUFFIXES,
    Cell as Cell,
    check_sheet as check_sheet,
    escape_formula as escape_formula,
    format_csv as format_csv,
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
    ImageIdentity as ImageIdentity,
    StoredTransform as StoredTransform,
    read_landmarks as read_landmarks,
    read_transform as read_transform,
    write_landmarks as write_landmarks,
    write_transform as write_transform,
)
from .zarr.growing import (
    GrowingMosaic as GrowingMosaic,
    GrowingWindow as GrowingWindow,
    is_live_mosaic as is_live_mosaic,
)
from .zarr.image import (
    create_image_store as create_image_store,
    fill_store as fill_store,
    warn_about_missing_blocks as warn_about_missing_blocks,
)
from .zarr.series import write_series as write_series
from .zarr.store import (
    OmeZarrStore as OmeZarrStore,
    create_store as create_store,
    halve as halve,
    level_shapes as level_shapes,
    read_store_state as read_store_state,
)
