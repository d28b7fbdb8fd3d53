"""Second half of the demonstration: an electron image, degraded and enhanced."""

from dataclasses import dataclass
from pathlib import Path

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.demo_files import write_image
from napari_semsr.services.demo_measure import Case, Measured, measure_case
from napari_semsr.services.demo_wiener import estimate_wiener
from napari_semsr.services.enhance import EnhancedFile, enhance
from napari_semsr.services.opening import open_image
from napari_semsr.services.samples import Exposure, draw_specimen, expose

__all__ = ["Half", "run_sem"]

TILE_PX = 256


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the demonstration.

    Attributes
    ----------
    measured : Measured
        Images, curves and maps.
    made : EnhancedFile
        What the enhancement wrote and cost.
    """

    measured: Measured
    made: EnhancedFile


def run_sem(paths: dict[str, Path], *, model: str, size: int, seed: int) -> Job[Half]:
    """Draw a specimen, take it twice, enhance it by tiles, and measure.

    Parameters
    ----------
    paths : dict
        Files by role.
    model : str
        On the shelf, or a file.
    size : int
        Rows of the field.
    seed : int
        Of specimen, haze and noise.

    Returns
    -------
    Half
        What was made and measured.

    Yields
    ------
    Progress
        Every step.
    """
    from napari_semsr.inference.options import EnhanceOptions

    yield Progress(0, 0, "drawing a specimen and taking it twice")
    truth, first, second = _take(paths, size, seed)
    made = yield from enhance(
        paths["sem_first"],
        paths["sem_enhanced"],
        model=model,
        options=EnhanceOptions(tile=TILE_PX),
        overwrite=True,
    )
    enhanced = open_image(paths["sem_enhanced"])
    yield Progress(0, 0, "restoring by a Wiener filter, to compare")
    baseline = estimate_wiener(first)
    write_image(baseline, paths["sem_baseline"])
    case = Case(truth, first, second, baseline, enhanced)
    measured = yield from measure_case(case)
    yield Progress(0, 0, "writing maps")
    write_image(measured.map_pair.map, paths["sem_map"])
    write_image(measured.map_degraded.map, paths["sem_map_before"])
    write_image(measured.map_enhanced.map, paths["sem_map_after"])
    return Half(measured, made)


def _take(
    paths: dict[str, Path], size: int, seed: int
) -> tuple[Micrograph, Micrograph, Micrograph]:
    """Write specimen and exposures, and open them again with their pixel size."""
    truth = draw_specimen((size, size * 7 // 5), seed=seed)
    write_image(truth, paths["sem_truth"])
    for number, role in enumerate(("sem_first", "sem_second"), start=1):
        name = f"exposure {number}"
        taken = expose(truth, Exposure(), seed=seed, noise_seed=number, name=name)
        write_image(taken, paths[role])
    roles = ("sem_truth", "sem_first", "sem_second")
    opened = [open_image(paths[role]) for role in roles]
    if any(item.pixel_size_nm is None for item in opened):
        msg = f"The pixel size was lost on the way through {paths['sem_truth'].parent}."
        raise WriteError(msg)
    return opened[0], opened[1], opened[2]
