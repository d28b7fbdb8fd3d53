"""What the demonstration writes, and where."""

from pathlib import Path

from napari_semsr.core import WriteError
from napari_semsr.io import check_target
from napari_semsr.jobs import check_target_folder

MAPS = ("exposures", "before", "after")
"""Maps of local resolution: of two exposures, and against the truth."""

_FILES = {
    "report": "report.html",
    "figures": "figures.json",
    "scan": "scan",
    "scan_again": "scan-again",
    "mosaic": "mosaic/mosaic.ome.zarr",
    "mosaic_again": "mosaic/mosaic-again.ome.zarr",
    "mosaic_enhanced": "mosaic/enhanced.ome.zarr",
    "mosaic_baseline": "mosaic/wiener.ome.tif",
    "mosaic_truth": "mosaic/truth.ome.tif",
    "positions": "mosaic/solved-positions.csv",
    "sem_truth": "sem/truth.tif",
    "sem_first": "sem/exposure-1.tif",
    "sem_second": "sem/exposure-2.tif",
    "sem_baseline": "sem/wiener.tif",
    "sem_enhanced": "sem/enhanced.ome.zarr",
}
for _half in ("mosaic", "sem"):
    _FILES |= {f"{_half}_map_{m}": f"{_half}/frc-map-{m}.ome.tif" for m in MAPS}


def demo_paths(folder: Path) -> dict[str, Path]:
    """Name what the demonstration writes, by role."""
    return {role: folder / name for role, name in _FILES.items()}


def prepare_folder(folder: Path, *, overwrite: bool) -> dict[str, Path]:
    """Refuse a folder that cannot be filled, before anything is computed."""
    paths = demo_paths(check_target_folder(folder, overwrite=overwrite))
    for role in ("report", "figures", "positions"):
        if paths[role].is_dir():
            msg = f"{paths[role]} is a folder where a file shall go: move it away."
            raise WriteError(msg)
    try:
        for place in sorted({path.parent for path in paths.values()}):
            place.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{error.filename} cannot be made a folder ({reason}): choose another."
        raise WriteError(msg) from error
    for path in paths.values():
        if path.suffix in (".tif", ".zarr"):
            check_target(path, overwrite=True)
    return paths
