"""Pictures and figures that the page of the demonstration shows.

What the page says of them is written in ``report.html``, which lies beside this module.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis import FrcMap
from napari_semsr.core import software_versions
from napari_semsr.demonstration.runs import (
    FieldFigures,
    Half,
    ScanHalf,
    Version,
    rms,
)
from napari_semsr.jobs import DEFAULT_MODEL
from napari_semsr.reporting import (
    FrequencyCurve,
    curves_png,
    errors_png,
    fixed,
    grey_limits,
    image_png,
    joints_png,
    lay_frames,
    map_png,
    resolution,
    signed,
    write_page,
)

_FRAMES_SHOWN = 4
_WEAKEST = 5
_JOINT_PX = 120
_CROP_PX = 128
_CROPS = ((0.30, 0.22), (0.45, 0.78))  # one on each half of the specimen
_SQRT_SEVENTH = (1 / 7) ** 0.5
_WORTH_DB = 0.2
_TRAINING = (
    "The bundled model was trained to take simulated blur, haze and noise off electron "
    "images, drawn and real; no superlens mosaic was among them."
)
_OWN = "Whether this model has seen superlens mosaics in training, its card must say."


def write_report(
    scan: ScanHalf, sem: Half, paths: dict[str, Path], options: dict[str, Any]
) -> None:
    """Write the page."""
    verdict, better = judge_mosaic(scan.measured, options["model"])
    write_page(
        paths["report"],
        Path(__file__).with_name("report.html").read_text(encoding="utf-8"),
        **_stitching(scan),
        scan=scan,
        mosaic=_field(scan),
        electron=_field(sem),
        verdict=verdict,
        better=better,
        paths=paths,
        provenance=_provenance((scan, sem), options),
        version=software_versions()["napari-semsr"],
    )


def _stitching(scan: ScanHalf) -> dict[str, Any]:
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
    return {
        "frames": [(n, image_png(i, pixel, **look)) for n, i in raw.items()],
        "laid": [
            (
                name,
                image_png(image, pixel, limits=grey_limits(image)),
                image_png(image[worst], pixel, limits=grey_limits(image)),
            )
            for name, image in laid.items()
        ],
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


def _worst_joint(scan: ScanHalf, centres: NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns around the joint whose nominal shift was most in error."""
    solution = scan.stitched.solution
    error = scan.placement.nominal_px - solution.positions_px
    used = [(p.first, p.second) for p in solution.pairs if p.used] or [(0, 0)]
    first, second = np.array(used).T
    worst = int(np.nanargmax(np.hypot(*(error[second] - error[first]).T)))
    middle = (centres[first[worst]] + centres[second[worst]]) / 2
    return _window(middle, scan.mosaic.shape, _JOINT_PX)


def _field(half: Half) -> dict[str, Any]:
    """Show one half: whole fields, crops at full size, curves, maps."""
    found, truth = half.measured, half.measured.truth.image
    limits, shape, pixel = grey_limits(truth.array()), truth.shape, truth.pixel_size_nm

    def grey(item: Version, box: Any, width_px: int) -> tuple[str, bytes]:
        image = item.image.array() * item.metrics.gain + item.metrics.offset
        return item.label, image_png(
            image[box], pixel, limits=limits, width_px=width_px
        )

    corners = [(round(shape[0] * y), round(shape[1] * x)) for y, x in _CROPS]
    boxes = [_window(corner, shape, _CROP_PX) for corner in corners]
    crossed = [(f"{v.label} and truth", v.cross) for v in found.versions if v.cross]
    correlations = [
        FrequencyCurve(
            name, frc.frequency_per_px, frc.correlation, frc.resolution_px, colour
        )
        for colour, (name, frc) in enumerate(crossed, start=1)
    ]
    spectra = [
        FrequencyCurve(
            item.label,
            item.spectrum.frequency_per_px,
            np.asarray(item.spectrum.power) * (item.metrics.gain or 1.0) ** 2,
            colour=colour,
        )
        for colour, item in enumerate((found.truth, *found.versions[:3]))
    ]
    agreement: Any = {"ylabel": "correlation", "threshold": ("√(1/7)", _SQRT_SEVENTH)}
    power: Any = {"ylabel": "power (grey levels² px²)", "log": True}
    return {
        "measured": found,
        "report": half.made.report,
        "gain": psnr_gain(found),
        "shape": shape,
        "pixel_nm": truth.mean_pixel_size_nm or 0.0,
        "wholes": [grey(item, ..., 720) for item in (found.degraded, found.enhanced)],
        "crops": [[grey(item, box, 400) for item in found.versions] for box in boxes],
        "crop_px": _CROP_PX,
        "crossed": crossed,
        "correlations": curves_png(correlations, truth.mean_pixel_size_nm, **agreement),
        "maps": _maps(found),
        "spectra": curves_png(spectra, truth.mean_pixel_size_nm, **power),
    }


def _maps(measured: FieldFigures) -> list[tuple[str, FrcMap, bytes]]:
    """Name and draw three maps of local resolution on one colour scale."""
    names = (
        measured.pair_label,
        f"{measured.degraded.label} against truth",
        "Enhanced against truth",
    )
    values = np.concatenate([np.ravel(found.measured) for found in measured.maps])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
    ends = (float(low), max(float(high), float(low) * 1.05))
    look: Any = {"limits": ends, "label": "resolution (nm)"}
    return [
        (name, found, map_png(found.measured, found.map.pixel_size_nm, **look))
        for name, found in zip(names, measured.maps, strict=True)
    ]


def psnr_gain(measured: FieldFigures) -> float | None:
    """Decibels that the enhancement brings, against the truth; None where unknown."""
    after, before = measured.enhanced.metrics.psnr_db, measured.degraded.metrics.psnr_db
    return None if after is None or before is None else after - before


def judge_mosaic(measured: FieldFigures, model: str) -> tuple[str, bool]:
    """Say what the model does to a superlens mosaic, and whether that is a gain."""
    gain, before, after = psnr_gain(measured), measured.degraded, measured.enhanced
    better = gain is not None and gain >= _WORTH_DB
    ssim = " → ".join(fixed(item.metrics.ssim, 3) for item in (before, after))
    resolved = " → ".join(resolution(item.cross) for item in (before, after))
    told = f"PSNR {signed(gain, 2)} dB, SSIM {ssim}, resolution {resolved}"
    outcome = "still gains" if better else "brings no gain"
    said = [
        _TRAINING if model == DEFAULT_MODEL else _OWN,
        f"On this mosaic it {outcome}: {told}, all against the truth.",
    ]
    if not better:
        said.append("Do not use it on such mosaics.")
    classical, network = measured.baseline.metrics.psnr_db, after.metrics.psnr_db
    if classical is not None and network is not None:
        ahead, known = network - classical, "Wiener filter told the blur's width"
        if ahead >= 0:
            said.append(f"It is {ahead:.2f} dB ahead of a {known}.")
        else:
            said.append(f"A {known} is {-ahead:.2f} dB ahead of it.")
    return " ".join(said), better


def _provenance(
    halves: Sequence[Half], options: dict[str, Any]
) -> list[tuple[str, object]]:
    """Tell what made the page: options, digests of models and inputs, versions."""
    made = [half.made.provenance for half in halves]
    asked = options | _flat(made[0].options)
    return [
        *((f"Option {name}", value) for name, value in asked.items()),
        ("Model digest", made[0].model_digest),
        *((f"Digest of {i.name}", i.digest) for one in made for i in one.inputs),
        *((f"Version of {name}", v) for name, v in software_versions().items()),
    ]


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Lay nested options side by side, those that nobody chose left out."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= {f"{name} {key}": item for key, item in _flat(value).items()}
        elif value is not None:
            found[name] = value
    return found


def _window(
    centre: Sequence[float] | NDArray[Any], shape: tuple[int, int], side: int
) -> tuple[slice, slice]:
    """Rows and columns of a square around a place, moved into the image."""
    y, x = (
        int(min(max(0, middle - side // 2), max(0, size - side)))
        for middle, size in zip(centre, shape, strict=True)
    )
    return slice(y, y + side), slice(x, x + side)
