"""One place by light and by electrons: registered, learnt from, and judged.

The mosaic is brought onto the pixels of the electron image. One half of what both show
gives pairs, on which the network goes on learning; the other half judges it. No pixel
is in both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_semsr.core import (
    Affine,
    Box,
    FloatArray,
    Grid,
    Job,
    Micrograph,
    Progress,
    RegistrationError,
    Warped,
)
from napari_semsr.demonstration.fields import (
    WIENER,
    FieldFigures,
    enhance_by_tiles,
    measure_field,
    wiener,
    write_maps,
)
from napari_semsr.demonstration.runs import ScanRun, gap_free_box, rms
from napari_semsr.io import Side, StoredTransform, read_transform
from napari_semsr.jobs import (
    CROP,
    PAIRS,
    REGISTER,
    TRAIN,
    CropOptions,
    EnhancedFile,
    PairsMade,
    Registered,
    RegisterOptions,
    Trained,
    TrainOptions,
    derived_from,
    open_image,
    rewrite,
)
from napari_semsr.pairing import PairOptions
from napari_semsr.registration import RegistrationRefused
from napari_semsr.restoration import fit_linear_filter

LINEAR = "Best linear filter"
TUNED = "Fine-tuned"

_FWHM = 2 * float(np.sqrt(2 * np.log(2)))
_TAPS = 21  # taps along each side, as the benchmarks of restoration have it
_APART_PX = 32  # between both halves; chosen: farther than blur and filter reach
_PATCH_PX = 128  # as the recipe
_STEP_PX = 32  # chosen: as many patches as differ by a quarter of a side
_VALIDATION = 0.2  # chosen: what picks the best step, of a small field
_LOOKS = 64  # along each side, places at which the map is compared with the true one


@dataclass(frozen=True, slots=True)
class PlaceRun:
    """The mosaic on an electron image of the same place."""

    registered: Registered
    true_error_nm: float  # of the map, root mean square over what both show
    sem: Micrograph  # on pixels of the mosaic's size
    mosaic: Micrograph  # on the same grid
    taught: Box  # which pixels gave pairs
    judged: Box  # and which judge
    pairs: PairsMade
    trained: Trained
    untouched: EnhancedFile
    tuned: EnhancedFile
    measured: FieldFigures

    @property
    def apart_px(self) -> int:
        """Pixels between both halves, which neither uses."""
        return max(self.judged.y0 - self.taught.y1, self.judged.x0 - self.taught.x1)


def run_place(
    paths: dict[str, Path],
    scan: ScanRun,
    *,
    model: str,
    steps: int,
    registering: RegisterOptions,
) -> Job[PlaceRun]:
    """Register a mosaic to an electron image, train on one half, judge on the other."""
    yield Progress(0, 0, "averaging the electron image over the mosaic's pixels")
    view = open_image(paths["scan"] / "sem" / "view.tif")
    sem = _averaged(view, scan.mosaic.scale)
    rewrite(sem, paths["place_sem"])
    try:
        registered = yield from REGISTER.anew(
            paths["mosaic"],
            paths["place_sem"],
            output=paths["place_mosaic"],
            options=registering,
            transform_out=paths["place_map"],
        )
    except RegistrationRefused as refused:
        msg = f"This sample cannot be registered: {refused} Take another seed."
        raise RegistrationError(msg) from refused
    stored = read_transform(paths["place_map"])
    mosaic = open_image(paths["place_mosaic"])
    error = _true_error_nm(paths, scan, stored, mosaic)
    box = gap_free_box(np.isfinite(mosaic.array()))
    taught, judged = halves(box)
    pairs = yield from _cut_pairs(paths, stored, taught)
    trained = yield from TRAIN.anew(
        "fine-tune",
        paths["place_training"],
        pairs=paths["place_pairs"],
        start_from=model,
        options=TrainOptions(steps=steps, name="fine-tuned"),
    )
    source = paths["place_mosaic"]
    untouched = yield from enhance_by_tiles(source, paths["place_enhanced"], model)
    tuned = yield from enhance_by_tiles(source, paths["place_tuned"], trained.model)
    yield Progress(0, 0, "filtering, to compare")
    _filter(paths, scan, taught, box)
    shown = {
        "Mosaic": "place_mosaic",
        WIENER: "place_wiener",
        LINEAR: "place_linear",
        untouched.report.model: "place_enhanced",
        TUNED: "place_tuned",
        "SEM image": "place_sem",
    }
    images = {}
    for label, role in shown.items():
        images[label] = yield from _part(paths[role], judged)
    measured = yield from measure_field(
        images,
        mapped={
            "mosaic_against_sem": "Mosaic",
            "enhanced_against_sem": untouched.report.model,
            "tuned_against_sem": TUNED,
        },
    )
    write_maps(measured, paths, "place")
    return PlaceRun(
        registered, error, sem, mosaic, taught, judged, pairs, trained, untouched,
        tuned, measured,
    )  # fmt: skip


def halves(box: Box) -> tuple[Box, Box]:
    """Cut a field across its longer side into two, which lie some pixels apart."""
    rows, columns = box.shape
    side = (max(rows, columns) - _APART_PX) // 2
    if rows > columns:
        return replace(box, y1=box.y0 + side), replace(box, y0=box.y1 - side)
    return replace(box, x1=box.x0 + side), replace(box, x0=box.x1 - side)


def map_error_nm(
    grid: Grid,
    covered: Callable[[FloatArray], FloatArray],
    found: Callable[[FloatArray], FloatArray],
    true: Callable[[FloatArray], FloatArray],
) -> float:
    """Root mean square distance of two maps, over places (N, 2) that are covered."""
    lines = (
        np.linspace(start, stop, _LOOKS)
        for start, stop in zip(grid.corner, grid.end, strict=True)
    )
    places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    places = places[covered(places).astype(bool)]
    return rms(found(places) - true(places))


def _averaged(view: Micrograph, pixel: tuple[float, float]) -> Micrograph:
    """Bring an image to larger pixels, in its own plane."""
    whole = Grid.of(view)
    rows, columns = (
        int((end - corner) / pitch)
        for corner, end, pitch in zip(whole.corner, whole.end, pixel, strict=True)
    )
    grid = Grid((rows, columns), pixel, whole.corner)
    return view.replace(
        data=Warped(view, grid, Affine()).read().astype(np.float32),
        name="sem",
        pixel_size_nm=pixel,
        origin=grid.centre(Box.of(grid.shape)),
        provenance=derived_from("convert", {"pixel_size_nm": list(pixel)}, image=view),
    )


def _true_error_nm(
    paths: dict[str, Path], scan: ScanRun, stored: StoredTransform, mosaic: Micrograph
) -> float:
    """Tell how far the found map is from the one that the view was drawn by."""
    true = read_transform(paths["scan"] / "truth" / "view.json").transform
    begins = scan.placement.origin_px * np.array(scan.mosaic.scale)
    shown, grid = np.isfinite(mosaic.array()), Grid.of(mosaic)

    def covered(places: FloatArray) -> FloatArray:
        at = ((places - grid.corner) / grid.pitch).astype(int)
        y, x = np.minimum(at, np.array(grid.shape) - 1).T
        inside: FloatArray = shown[y, x]
        return inside

    back = stored.transform.inverse()
    return map_error_nm(grid, covered, back, lambda places: true(places) - begins)


def _part(image: Path, box: Box) -> Job[Micrograph]:
    """Cut a part out of an image, which stays where it lies."""
    corners = (box.y0, box.x0, box.y1, box.x1)
    made = yield from CROP.job(image, options=CropOptions(box=corners))
    part: Micrograph = CROP.given(made)
    return part


def _cut_pairs(
    paths: dict[str, Path], stored: StoredTransform, taught: Box
) -> Job[PairsMade]:
    """Cut pairs from one half, through the map of the whole."""
    part = yield from _part(paths["place_sem"], taught)
    here = StoredTransform(
        stored.transform, stored.moving, Side.of(part), stored.quality
    )
    side = min(_PATCH_PX, *(n // 4 * 4 for n in part.shape))
    options = PairOptions(patch=side, step=_STEP_PX, validation=_VALIDATION, test=0.0)
    return (
        yield from PAIRS.anew(
            paths["mosaic"],
            part,
            paths["place_pairs"],
            options=options,
            transform=here,
        )
    )


def _filter(paths: dict[str, Path], scan: ScanRun, taught: Box, box: Box) -> None:
    """Write what the learnt linear filter and Wiener's make of the whole mosaic."""
    whole = open_image(paths["place_mosaic"])
    mosaic = whole.array()
    sem = open_image(paths["place_sem"]).array()
    kernel = fit_linear_filter([(mosaic[taught.slices], sem[taught.slices])], _TAPS)[0]
    inner = whole.replace(data=mosaic[box.slices])
    sigma = scan.options.fwhm_nm / _FWHM / whole.scale[0]  # of the blur in focus
    blur = wiener(inner, sigma_px=sigma)
    made = {
        "place_linear": ndimage.correlate(inner.array(), kernel, mode="mirror"),
        "place_wiener": blur.array(),
    }
    for role, part in made.items():
        data = np.full(mosaic.shape, np.nan, np.float32)
        data[box.slices] = part
        image = whole.replace(data=data, name=role.partition("_")[2], provenance=None)
        rewrite(image, paths[role])
