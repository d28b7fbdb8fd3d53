from .arrays import (
    array_to_image as array_to_image,
    is_array as is_array,
)
from .arrivals import (
    FrameFolder as FrameFolder,
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
    convert_decoding_errors as convert_decoding_errors,
    convert_write_errors as convert_write_errors,
    create_existing_file_error as create_existing_file_error,
    create_file_stem as create_file_stem,
    get_companion_path as get_companion_path,
    get_disk_spelling as get_disk_spelling,
    get_display_name as get_display_name,
    get_half_paths as get_half_paths,
    get_label_path as get_label_path,
    get_machine_name as get_machine_name,
    get_output_format as get_output_format,
    move as move,
    name_output_in_errors as name_output_in_errors,
    path_exists as path_exists,
    read_json_object as read_json_object,
    read_text as read_text,
    remove_leftovers as remove_leftovers,
    remove_target as remove_target,
    replace_atomically as replace_atomically,
    replace_output as replace_output,
    use_temporary_path as use_temporary_path,
    write_atomically as write_atomically,
)
from .formats import (
    Source as Source,
    WrittenOutput as WrittenOutput,
    count_planes as count_planes,
    create_missing_file_error as create_missing_file_error,
    describe as describe,
    digest_image_file as digest_image_file,
    finalise_store as finalise_store,
    get_output_store_path as get_output_store_path,
    get_stored_type as get_stored_type,
    read as read,
    read_companions as read_companions,
    write as write,
    write_blocks as write_blocks,
)
from .frames import (
    FRAMES_OPTIONS as FRAMES_OPTIONS,
    HEIGHTS as HEIGHTS,
    NO_POSITIONS as NO_POSITIONS,
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
    create_layer_attributes as create_layer_attributes,
    create_scan_layers as create_scan_layers,
    crop_bottom_rows as crop_bottom_rows,
    is_scan as is_scan,
    list_images as list_images,
    stack_planes as stack_planes,
)
from .log import log_error as log_error
from .napari_hooks import (
    get_reader as get_reader,
    is_preferred_reader as is_preferred_reader,
    read_paths as read_paths,
)
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
    get_project_folder as get_project_folder,
    is_project as is_project,
    list_recent_projects as list_recent_projects,
    open_project as open_project,
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
    count_series as count_series,
    detect_databar as detect_databar,
    list_companion_files as list_companion_files,
    luminance as luminance,
    parse_length_nm as parse_length_nm,
    remove_suffixes as remove_suffixes,
    try_convert_to_grey as try_convert_to_grey,
)
from .sheets import (
    SHEET_SUFFIXES as SHEET_SUFFIXES,
    TABLE_SUFFIXES as TABLE_SUFFIXES,
    Cell as Cell,
    check_sheet_path as check_sheet_path,
    escape_formula as escape_formula,
    format_csv as format_csv,
    read_sheet as read_sheet,
    write_csv as write_csv,
    write_sheet as write_sheet,
)
from .tiff.write import (
    check_page_axes as check_page_axes,
    convert_to_ome_type as convert_to_ome_type,
    get_page_axes as get_page_axes,
    write_fei_tiff as write_fei_tiff,
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
    warn_about_missing_blocks as warn_about_missing_blocks,
    write_image_to_store as write_image_to_store,
)
from .zarr.series import write_series as write_series
from .zarr.store import (
    OmeZarrStore as OmeZarrStore,
    compute_pyramid_shapes as compute_pyramid_shapes,
    create_store as create_store,
    downsample_block as downsample_block,
    read_store_state as read_store_state,
)
