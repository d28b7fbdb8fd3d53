"""Pictures and figures that the page of the demonstration shows.

What the page says of them is written in ``report.html``, which lies beside this module.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis import FrcMap, code_of
from napari_semsr.core import DB
from napari_semsr.demonstration.fields import (
    WIENER,
    FieldFigures,
    Half,
    Version,
)
from napari_semsr.demonstration.place import LINEAR, TUNED, PlaceRun
from napari_semsr.demonstration.runs import ScanRun, rms
from napari_semsr.reporting import (
    AGAINST_TRUTH,
    POWER,
    FrequencyCurve,
    curves_png,
    errors_png,
    grey_limits,
    image_png,
    joints_png,
    lay_frames,
    making,
    map_png,
    overlay_png,
    spread,
    write_page,
)

_FRAMES_SHOWN = 4
_WEAKEST = 5
_JOINT_PX = 120
_CROP_PX = 128
_CROPS = ((0.30, 0.22), (0.45, 0.78))  # one on each half of the specimen
_LINEAR = (WIENER, LINEAR)  # not among the first pictures; the first table has them
_CURVES = 5  # that a plot holds, as many as it has colours


def write_report(
    scan: ScanRun,
    place: PlaceRun,
    sem: Half,
    paths: dict[str, Path],
    options: dict[str, Any],
) -> None:
    """Write the page."""
    write_page(
        paths["report"],
        Path(__file__).with_name("report.html"),
        **_stitching(scan),
        scan=scan,
        place=place,
        mosaic=_field(scan.measured),
        judged=_field(place.measured),
        electron=_field(sem.measured),
        verdict=verdict(place),
        aligned=overlay_png(
            place.mosaic.array(),
            place.sem.array(),
            place.sem.pixel_size_nm,
            boxes={"learnt from": place.taught, "judged": place.judged},
        ),
        apart=place.apart_px,
        reports=[item.report for item in (place.untouched, place.tuned)],
        restored=sem.made.report,
        paths=paths,
        provenance=_provenance(place, sem, options),
    )


def verdict(place: PlaceRun) -> list[str]:
    """Say what the network and its training on this place brought, and what not."""
    found = place.measured
    named = {item.label: item for item in found.versions}
    network, linear = named[place.untouched.report.model], named[LINEAR]
    tuned = named[TUNED]
    gain, simple = (item.gain_over(found.before) for item in (network, linear))
    brought = (
        f"On the half that nothing learnt from, {network.label} brings the mosaic "
        f"{spread(gain)} {DB} nearer to the SEM image; the best linear filter brings "
        f"{spread(simple)} {DB}."
    )
    trained = place.trained
    taught = (
        f"{trained.steps} steps of fine-tuning on the other half of this place, with "
        f"{place.pairs.train} pairs,"
    )
    more = tuned.gain_over(network)
    if not trained.kept:
        taught += " made nothing better on pairs that were held out: it was not kept."
    elif (more[0] or 0) > 0:
        taught += f" bring another {spread(more)} {DB}."
    else:
        taught += (
            " made held-out pairs of that half better, but not the half that judges: "
            f"{spread(more)} {DB}."
        )
    return [brought, taught]


def _stitching(scan: ScanRun) -> dict[str, Any]:
    """Show frames, where they lie, and how far to trust that."""
    frames, mosaic, pixel = scan.frames, scan.mosaic.array(), scan.mosaic.pixel_size_nm
    solution, placement = scan.stitched.solution, scan.placement
    chosen = np.linspace(0, len(frames) - 1, _FRAMES_SHOWN).round().astype(int)
    raw = {frames.names[i]: frames.read(int(i)) for i in chosen}
    look: Any = {"limits": grey_limits(np.stack([*raw.values()])), "width_px": 320}

    nominal = np.where(placement.placed[:, None], placement.nominal_px, np.nan)
    lit, shape = solution.flat.valid, mosaic.shape
    laid = {
        "Raw, nominal positions": lay_frames(frames, nominal, lit, shape),
        "Raw, solved positions": lay_frames(frames, solution.positions_px, lit, shape),
        "Mosaic": mosaic,
    }
    centres = solution.positions_px + (np.array(scan.stitched.frame_shape) - 1) / 2
    worst = _worst_joint(scan, centres)
    joints = [p for p in solution.pairs if solution.placed[[p.first, p.second]].all()]
    used = sorted((p for p in solution.pairs if p.used), key=lambda p: p.quality)
    before, after = placement.nominal_error_px, placement.solved_error_px

    def drawn(box: Any) -> list[tuple[str, bytes]]:
        return [
            (name, image_png(image[box], pixel, limits=grey_limits(image)))
            for name, image in laid.items()
        ]

    return {
        "frames": [(n, image_png(i, pixel, **look)) for n, i in raw.items()],
        "laid": drawn(...),
        "enlarged": drawn(worst),
        "joined": joints_png(mosaic, centres, joints, pixel),
        "placed": int(placement.placed.sum()),
        "quality": np.median([p.quality for p in used] or [np.nan]),
        "errors": [
            ("Nominal positions", rms(before), np.nanmax(np.hypot(*before.T))),
            ("Solved positions", rms(after), np.nanmax(np.hypot(*after.T))),
            ("Solved, as the program expects", rms(solution.sigma_px), None),
        ],
        "pixel_nm": scan.mosaic.mean_pixel_size_nm or np.nan,
        "cloud": errors_png(before, after),
        "weakest": used[:_WEAKEST],
        "stems": [name.rpartition(".")[0] or name for name in frames.names],
    }


def _worst_joint(scan: ScanRun, centres: NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns around the joint whose nominal shift was most in error."""
    solution = scan.stitched.solution
    error = scan.placement.nominal_px - solution.positions_px
    used = [(p.first, p.second) for p in solution.pairs if p.used] or [(0, 0)]
    first, second = np.array(used).T
    worst = int(np.nanargmax(np.hypot(*(error[second] - error[first]).T)))
    middle = (centres[first[worst]] + centres[second[worst]]) / 2
    return _window(middle, scan.mosaic.shape, _JOINT_PX)


def _field(found: FieldFigures) -> dict[str, Any]:
    """Show one field: whole, crops at full size, curves, maps."""
    aim = found.aim.image
    limits, shape, pixel = grey_limits(aim.array()), aim.shape, aim.pixel_size_nm
    pitch, aim_label = aim.mean_pixel_size_nm, found.aim.label.replace("Truth", "truth")

    def grey(item: Version, box: Any, width_px: int) -> tuple[str, bytes]:
        image = item.image.array()[box]
        return item.label, image_png(image, pixel, limits=limits, width_px=width_px)

    corners = [(round(shape[0] * y), round(shape[1] * x)) for y, x in _CROPS]
    boxes = [_window(corner, shape, _CROP_PX) for corner in corners]
    crops = [[grey(item, box, 400) for item in found.versions] for box in boxes]
    many = len(found.versions) > _CURVES
    drawn = [v for v in found.versions[:-1] if not (many and v.label == WIENER)]
    correlations = [
        FrequencyCurve.of(f"{item.label} and {aim_label}", item.cross, colour)
        for colour, item in enumerate(drawn, start=1)
        if item.cross is not None
    ]
    spectra = [
        FrequencyCurve(
            item.label,
            item.spectrum.frequency_per_px,
            np.asarray(item.spectrum.power),
            colour=colour,
        )
        for colour, item in enumerate((found.aim, *drawn))
    ]
    return {
        "measured": found,
        "aim": aim_label,
        "shape": shape,
        "pixel_nm": pitch or 0.0,
        "wholes": [grey(item, ..., 720) for item in (found.before, found.after)],
        "crops": crops,
        "glance": [[one for one in row if one[0] not in _LINEAR] for row in crops],
        "crop_px": _CROP_PX,
        "correlations": curves_png(correlations, pitch, **AGAINST_TRUTH),
        "maps": _maps(found),
        "spectra": curves_png(spectra, pitch, **POWER),
    }


def _maps(measured: FieldFigures) -> list[tuple[str, FrcMap, bytes]]:
    """Draw maps of local resolution on one colour scale."""
    maps = list(measured.maps.values())
    values = np.concatenate([np.ravel(found.measured) for _, found in maps])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
    ends = (float(low), max(float(high), float(low) * 1.05))
    look: Any = {"limits": ends, "label": "resolution (nm)"}
    return [
        (
            name,
            found,
            map_png(
                found.measured,
                found.map.pixel_size_nm,
                finer=found.reasons == code_of("beyond-nyquist"),
                **look,
            ),
        )
        for name, found in maps
    ]


def _provenance(
    place: PlaceRun, sem: Half, options: dict[str, Any]
) -> list[tuple[str, object]]:
    """Tell what made the page: options, digests of models and inputs, versions."""
    made = [item.provenance for item in (place.untouched, place.tuned, sem.made)]
    digests = [(f"the model {one.model_name}", one.model_digest) for one in made]
    digests += [(item.name, item.digest) for one in made for item in one.inputs]
    return making(options | made[0].options, digests)


def _window(
    centre: Sequence[float] | NDArray[Any], shape: tuple[int, int], side: int
) -> tuple[slice, slice]:
    """Rows and columns of a square around a place, moved into the image."""
    y, x = (
        int(min(max(0, middle - side // 2), max(0, size - side)))
        for middle, size in zip(centre, shape, strict=True)
    )
    return slice(y, y + side), slice(x, x + side)
