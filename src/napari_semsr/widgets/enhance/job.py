"""What the Enhance panel runs, and what it says of it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_semsr.core import Job, Micrograph, Progress
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import EnhancedFile, describe_job, enhance_job
from napari_semsr.widgets.open_mosaic import Opened, open_levels

if TYPE_CHECKING:
    from napari_semsr.inference import LiveField


@dataclass(frozen=True, slots=True)
class EnhanceOutcome:
    """What was made, opened again."""

    made: EnhancedFile
    opened: Opened


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result goes."""

    path: Path  # ends in ``.ome.zarr``
    existing: str = "refuse"  # what to do with a store that is there already
    temporary: bool = False  # removed when the run does not end


def enhance_layer(
    micrograph: Micrograph,
    target: Target,
    *,
    model: str,
    options: Any,
    live: "LiveField",
    scheduler: str | None = None,
) -> Job[EnhanceOutcome]:
    """Enhance an image into a store, and open what was written."""
    yield Progress(0, 0, "loading the model (the first time takes some seconds)")
    try:
        made = yield from enhance_job(
            micrograph,
            target.path,
            model=model,
            options=options,
            overwrite=target.existing == "replace",
            resume=target.existing == "resume",
            live=live,
            scheduler=scheduler,
        )
    except BaseException:
        if target.temporary and not live.done:
            shutil.rmtree(target.path, ignore_errors=True)
        raise
    facts = yield from describe_job(made.output)
    levels = int(facts.facts.get("levels") or 1)
    opened = yield from open_levels(Path(made.output), ReadOptions(), levels=levels)
    return EnhanceOutcome(made, opened)


def figures(report: Any, output: str) -> Mapping[str, str]:
    """Say a run in words and numbers."""
    many = report.tiles > 1
    mismatch = f"{report.tile_mismatch:.2e} of the range"
    seam = f"{report.seam_index:.3f} (1: no seam)"
    return {
        "Tiles": f"{report.tiles} of {report.tile_px} px, halo {report.halo_px} px",
        "Time": f"{report.seconds:.2f} s",
        "Speed": f"{report.megapixels_per_second:.2f} MP/s",
        "Peak memory": f"{report.peak_memory_mb:.0f} MB",
        "Device": f"{report.device}, {report.precision}",
        "Normalisation": str(report.norm),
        "Tile mismatch": mismatch if many else "none: one tile",
        "Seam index": seam if many else "none: one tile",
        "Store": output,
    } | ({"Notes": " ".join(report.notes)} if report.notes else {})
