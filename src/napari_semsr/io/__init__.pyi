from .files import (
    SUFFIXES as SUFFIXES,
    check_target as check_target,
    output_kind as output_kind,
    remove_target as remove_target,
    replacing as replacing,
)
from .formats import (
    describe as describe,
    read as read,
    write as write,
)
from .napari_hooks import (
    FOLDER_KEY as FOLDER_KEY,
    nominal_corners as nominal_corners,
    read_scan_layers as read_scan_layers,
    scan_layers as scan_layers,
)
from .options import ReadOptions as ReadOptions
from .record import (
    RECORD_KEY as RECORD_KEY,
    record_of as record_of,
)
from .scans.frames import (
    natural_key as natural_key,
    open_frames as open_frames,
    read_frames as read_frames,
)
from .zarr.metadata import (
    halve as halve,
    level_origin as level_origin,
    level_shapes as level_shapes,
)
from .zarr.store import (
    OmeZarrStore as OmeZarrStore,
    create_store as create_store,
    done_of as done_of,
    noted as noted,
    recorded as recorded,
)
