"""Curves of the demonstration: ring correlation and radial spectra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis import FrcMap, FrcResult
from napari_semsr.core import software_versions
from napari_semsr.demonstration.measure import Measured, Version
from napari_semsr.demonstration.runs import Half, ScanHalf
from napari_semsr.jobs import DEFAULT_MODEL, EnhancedFile, jsonable
from napari_semsr.reporting import (
    Curve,
    Facts,
    Gallery,
    Joint,
    Picture,
    Table,
    Text,
    curves_png,
    errors_png,
    fixed,
    image_png,
    joints_png,
    lay_frames,
    length,
    map_png,
    resolution,
    signed,
)

_COLOURS = {"truth": 0, "degraded": 1, "baseline": 2, "enhanced": 3}
_SQRT_SEVENTH = (1 / 7) ** 0.5
_ABOUT_FRC = (
    "Fourier ring correlation asks up to which spatial frequency two images agree. Two "
    "exposures of one place give the resolution of the exposures without any truth "
    "(threshold 1/7). Against the truth, which has no noise, the threshold is √(1/7), "
    "and for the image as it was taken both ways should agree within their intervals."
)
_ABOUT_SELF = (
    "Two enhanced images are not compared with each other: a network draws the same "
    "texture twice, so their agreement would prove nothing. The truth judges them. "
    "Where an enhanced image agrees with it beyond the input's own resolution, the "
    "network has inferred edges from what it saw in training; that holds for specimens "
    "like those, and is not resolution of the microscope."
)


def show_resolution(measured: Measured) -> list[Text | Table | Picture]:
    """Show curves and crossings of Fourier ring correlation.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    pixel = measured.truth.image.mean_pixel_size_nm
    explained = Text((_ABOUT_FRC, _ABOUT_SELF))
    pairs = [(measured.pair_label, measured.pair)]
    versions = (measured.degraded, measured.baseline, measured.enhanced)
    pairs += [(f"{v.label} and truth", v.cross) for v in versions if v.cross]
    rows = tuple(
        (
            name,
            resolution(found),
            _interval(found),
            fixed(found.resolution_px, 2),
            _said(found),
        )
        for name, found in pairs
    )
    header = ("Compared", "Resolution", "95 % interval", "Pixels", "Note")
    curves = [
        Curve(
            f"{item.label} and truth",
            item.cross.frequency_per_px,
            item.cross.correlation,
            _mark(item.cross),
            _COLOURS[role],
        )
        for role, item in (
            ("degraded", measured.degraded),
            ("baseline", measured.baseline),
            ("enhanced", measured.enhanced),
        )
        if item.cross is not None
    ]
    png = curves_png(
        curves, pixel, ylabel="correlation", threshold=("√(1/7)", _SQRT_SEVENTH)
    )
    alt = (
        "Fourier ring correlation with the truth over spatial frequency. "
        + "; ".join(f"{name}: {resolution(found)}" for name, found in pairs[1:])
    )
    caption = (
        "Dots on the threshold mark the resolutions; they come from a likelihood fit, "
        "which is steadier than the first crossing of single rings. Upper axis: the "
        "period in nm."
    )
    return [explained, Table(header, rows), Picture(png, alt, caption)]


def show_spectra(measured: Measured) -> list[Text | Picture]:
    """Show the radial power of all versions.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    by_role = (
        ("truth", measured.truth),
        ("degraded", measured.degraded),
        ("baseline", measured.baseline),
        ("enhanced", measured.enhanced),
    )
    curves = [
        Curve(
            item.label,
            item.spectrum.frequency_per_px,
            np.asarray(item.spectrum.power) * (item.metrics.gain or 1.0) ** 2,
            None,
            _COLOURS[role],
        )
        for role, item in by_role
    ]
    png = curves_png(
        curves,
        measured.truth.image.mean_pixel_size_nm,
        ylabel="power (grey levels² px²)",
        log=True,
    )
    alt = (
        "Radially averaged power spectra of the truth, the image as taken, the Wiener "
        "filter and the enhanced image, over spatial frequency"
    )
    told = (
        "Power at each spatial frequency, averaged over all directions, after the gain "
        "that fits each version to the truth. A good restoration follows the truth as "
        "far as the signal goes; power above the truth is noise or invention."
    )
    return [Text((told,)), Picture(png, alt, "Upper axis: the period in nm.")]


def _interval(found: FrcResult) -> str:
    """Say an interval."""
    if found.interval_nm is None:
        return "\N{EN DASH}"
    low, high = found.interval_nm
    return f"{fixed(low, 1)}\N{EN DASH}{fixed(high, 1)} nm"


def _said(found: FrcResult) -> str:
    """Say why there is no resolution, or by which threshold there is one."""
    if found.reason is not None:
        return str(found.reason)
    return "threshold √(1/7)" if "√" in found.method else f"threshold {found.criterion}"


def _mark(found: FrcResult) -> float | None:
    """Frequency of the crossing."""
    return None if found.resolution_px is None else 1 / found.resolution_px


# Pictures of the demonstration: whole fields, then crops at full size.

_CROP_PX = 128


def show_fields(measured: Measured) -> list[Gallery | Text]:
    """Show whole fields, then crops at full size.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    wholes = (measured.degraded, measured.enhanced)
    low, high = np.percentile(measured.truth.image.array(), (0.5, 99.5))
    limits = (float(low), max(float(high), float(low) + 1e-6))
    fields = tuple(
        Picture(
            _grey(item, limits, width_px=720),
            f"{item.label}: the whole field, with a scale bar",
            item.label,
        )
        for item in wholes
    )
    blocks: list[Gallery | Text] = [Gallery(fields, columns=2)]
    for number, (y, x) in enumerate(_places(measured.truth.image.shape), start=1):
        box = (slice(y, y + _CROP_PX), slice(x, x + _CROP_PX))
        pictures = tuple(
            Picture(
                _grey(item, limits, box=box, width_px=400),
                f"{item.label}: crop {number}, {_CROP_PX} px wide, with a scale bar",
                item.label,
            )
            for item in measured.versions()
        )
        blocks.append(Gallery(pictures, columns=4))
    note = (
        "All pictures show one range of grey levels: the truth's, after the gain and "
        "offset that bring each version nearest to it."
    )
    return [*blocks, Text((note,))]


def _places(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners of two crops, one on each half of the specimen."""
    rows, columns = shape
    side = _CROP_PX
    wanted = [(0.30, 0.22), (0.45, 0.78)]
    return [
        (
            min(max(0, round(rows * y) - side // 2), max(0, rows - side)),
            min(max(0, round(columns * x) - side // 2), max(0, columns - side)),
        )
        for y, x in wanted
    ]


def _grey(
    item: Version,
    limits: tuple[float, float],
    *,
    width_px: int,
    box: tuple[slice, slice] | None = None,
) -> bytes:
    """Draw a version or a part of it on the grey scale of the truth."""
    data = item.image.array() * item.metrics.gain + item.metrics.offset
    return image_png(
        data if box is None else data[box],
        item.image.pixel_size_nm,
        limits=limits,
        width_px=width_px,
    )


# The numbers of the demonstration, for a machine to read.


def scan_figures(half: ScanHalf) -> dict[str, Any]:
    """Collect the numbers of the stitching.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    dict
        Frames, joints and positions against the truth.
    """
    placement = half.placement
    return {
        **half.stitched.to_json(),
        "placed": int(placement.placed.sum()),
        "nominal_error_px": distance_rms(placement.nominal_error_px),
        "solved_error_px": distance_rms(placement.solved_error_px),
        "expected_error_px": distance_rms(half.stitched.solution.sigma_px),
        "measured_part": jsonable(half.box),
    }


def distance_rms(steps_px: NDArray[np.float64]) -> float:
    """Root mean square length of steps.

    Parameters
    ----------
    steps_px : (N, 2) numpy.ndarray
        NaN is left away.

    Returns
    -------
    float
        In px.
    """
    return float(np.sqrt(np.nanmean((steps_px**2).sum(axis=1))))


def figures_of(half: Half) -> dict[str, Any]:
    """Collect the numbers of one half.

    Parameters
    ----------
    half : Half
        What was made and measured.

    Returns
    -------
    dict
        By version and kind, for a machine to read.
    """
    measured = half.measured
    keys = (
        *("psnr_db", "ssim", "nrmse"),
        *("average_gradient", "contrast", "spatial_frequency"),
    )
    return {
        "versions_of_the_field": {
            item.label: {
                **{key: getattr(item.metrics, key) for key in keys},
                "resolution_nm": item.cross and item.cross.resolution_nm,
                "reason": item.cross and item.cross.reason,
            }
            for item in measured.versions()
        },
        "two_exposures": {
            "resolution_nm": measured.pair.resolution_nm,
            "interval_nm": measured.pair.interval_nm,
            "reason": measured.pair.reason,
        },
        "maps": {
            "two_exposures": _map_figures(measured.map_pair),
            "degraded_against_truth": _map_figures(measured.map_degraded),
            "enhanced_against_truth": _map_figures(measured.map_enhanced),
        },
        "enhance": half.made.to_json(),
    }


def _map_figures(found: FrcMap) -> dict[str, Any]:
    """Numbers of one map."""
    return {
        "blocks": found.blocks,
        "failed": found.failed,
        "median_nm": found.median_nm,
        "p10_nm": found.p10_nm,
        "p90_nm": found.p90_nm,
        "reasons": found.reason_counts,
    }


# Sections of the demonstration on how frames become a mosaic.

_SHOWN = 4
_MOSAIC_CROP_PX = 120


def show_frames(half: ScanHalf) -> list[Text | Gallery]:
    """Show some raw frames.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    options, frames = half.options, half.frames
    rows, columns = options.frames_grid
    chosen = np.linspace(0, len(frames) - 1, _SHOWN).round().astype(int)
    limits = grey_limits(np.stack([frames.read(int(i)) for i in chosen]))
    pictures = tuple(
        Picture(
            image_png(
                frames.read(int(i)), frames.pixel_size_nm, limits=limits, width_px=320
            ),
            f"Raw frame {frames.names[i]}: a round field, dark at its rim, noisy",
            frames.names[i],
        )
        for i in chosen
    )
    told = (
        f"{rows} {_TIMES} {columns} frames of {options.frame_px} px. The light falls "
        f"to {100 * options.rim:.0f} % at the rim and drifts by "
        f"{100 * options.illumination_drift:.0f} % over the scan; the stage misses by "
        f"up to {options.jitter_px:g} px on each axis; {options.photons:.0f} photons "
        f"make white; the microscope blurs by {options.resolution_nm or 0:g} nm (full "
        "width at half maximum), more where the sample is out of focus. Each field is "
        "taken twice, which gives two scans with independent noise."
    )
    return [Text((told,)), Gallery(pictures, columns=4)]


def show_positions(half: ScanHalf) -> list[Text | Gallery]:
    """Show the frames at nominal and at solved positions, and the mosaic.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    solution, frames, mosaic = half.stitched.solution, half.frames, half.mosaic
    lit = solution.flat.valid
    placed = half.placement.placed[:, None]
    nominal = np.where(placed, half.placement.nominal_px, np.nan)
    laid = [
        lay_frames(frames, corners, lit, mosaic.shape)
        for corners in (nominal, solution.positions_px)
    ]
    titles = ("Raw, nominal positions", "Raw, solved positions", "Mosaic")
    images = (*laid, mosaic.array())
    boxes = (None, _worst_joint(half))
    galleries = [
        Gallery(
            tuple(
                Picture(
                    image_png(
                        image if box is None else image[box],
                        mosaic.pixel_size_nm,
                        limits=grey_limits(image),
                        width_px=480,
                    ),
                    title if box is None else f"{title}: a joint, enlarged",
                    title if box is None else f"{title}, enlarged",
                )
                for title, image in zip(titles, images, strict=True)
            ),
            columns=3,
        )
        for box in boxes
    ]
    told = (
        "First, raw frames where the stage says that they lie, one on top of another. "
        "Second, the same frames where the joints put them. Third, the mosaic: shading "
        "and gain are measured on the frames themselves and divided out, and frames "
        "are blended by signal to noise. Below, the same three where the stage was "
        "most in error."
    )
    return [Text((told,)), *galleries]


def _worst_joint(half: ScanHalf) -> tuple[slice, slice]:
    """Rows and columns around the joint whose nominal shift was most in error."""
    solved, nominal = half.stitched.solution.positions_px, half.placement.nominal_px
    used = [(p.first, p.second) for p in half.stitched.solution.pairs if p.used]
    if not used:
        used = [(0, 0)]
    first, second = np.array(used).T
    wrong = (nominal - solved)[second] - (nominal - solved)[first]
    worst = int(np.nanargmax(np.hypot(*wrong.T)))
    middle = (solved[first[worst]] + solved[second[worst]]) / 2
    centre = middle + (np.array(half.stitched.frame_shape) - 1) / 2
    y, x = (
        int(min(max(0, c - _MOSAIC_CROP_PX // 2), max(0, n - _MOSAIC_CROP_PX)))
        for c, n in zip(centre, half.mosaic.shape, strict=True)
    )
    return slice(y, y + _MOSAIC_CROP_PX), slice(x, x + _MOSAIC_CROP_PX)


def grey_limits(image: NDArray[Any]) -> tuple[float, float]:
    """Choose the grey values to show as black and white.

    Parameters
    ----------
    image : numpy.ndarray
        Grey values; NaN is left away.

    Returns
    -------
    tuple of float
        The 0.5 and 99.5 percentiles.
    """
    low, high = (float(v) for v in np.nanpercentile(image, (0.5, 99.5)))
    return low, max(high, low + 1e-6)


# Sections of the demonstration on joints, and on positions against the truth.

_WEAKEST = 5
_TIMES = "\N{MULTIPLICATION SIGN}"


def show_joints(half: ScanHalf) -> list[Text | Picture | Facts | Table]:
    """Show joints with their quality, and positions against the truth.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    solution, mosaic = half.stitched.solution, half.mosaic
    centres = solution.positions_px + (np.array(half.stitched.frame_shape) - 1) / 2
    joints = [
        Joint(centres[[p.first, p.second]], p.quality, p.used, p.ambiguous)
        for p in solution.pairs
        if solution.placed[[p.first, p.second]].all()
    ]
    image = mosaic.array()
    joined = joints_png(image, joints, mosaic.pixel_size_nm, limits=grey_limits(image))
    placement = half.placement
    cloud = errors_png(placement.nominal_error_px, placement.solved_error_px)
    told = (
        "Each line joins two frames that overlap. Coloured joints are used, orange "
        "ones fit at another place too, dotted red ones were not believed: their "
        "overlap is too small or too plain, and the other joints decide."
    )
    return [
        Text((told, *half.stitched.warnings)),
        Picture(joined, "The mosaic with its joints, coloured by correlation"),
        _facts(half),
        _error_table(half),
        Picture(
            cloud,
            "Errors of nominal and of solved positions, each on its own scale",
            "Every dot is a frame; the mean is taken off, since a mosaic may start "
            "anywhere. Mind the scales.",
        ),
        _weakest(half),
    ]


def _facts(half: ScanHalf) -> Facts:
    """Say what the stitching says of itself."""
    made, solution = half.stitched, half.stitched.solution
    quality = [p.quality for p in solution.pairs if p.used] or [float("nan")]
    stage = made.stage_pixel_size_nm
    told = (
        "\N{EN DASH}"
        if stage is None
        else " \N{MULTIPLICATION SIGN} ".join(fixed(v, 2) for v in stage)
    )
    stated = made.pixel_size_nm or (float("nan"),) * 2
    return Facts(
        (
            ("Frames placed", f"{int(solution.placed.sum())} of {made.frames}"),
            ("Joints used", f"{made.pairs_used}, and {made.pairs_rejected} not"),
            ("Median correlation of joints", fixed(float(np.median(quality)), 3)),
            ("Residual of the joints", f"{fixed(made.residual_px, 3)} px RMS"),
            ("Shading left", f"{fixed(made.shading_percent, 2)} % of the mean"),
            ("Pixel size as stated", f"{fixed(stated[0], 2)} nm"),
            ("Pixel size by the stage", f"{told} nm (y {_TIMES} x)"),
            ("Time to stitch", f"{fixed(made.seconds, 1)} s"),
        )
    )


def _error_table(half: ScanHalf) -> Table:
    """Give positions against the truth, beside what noise alone would leave."""
    pixel = half.mosaic.mean_pixel_size_nm or float("nan")
    rows = []
    named = (
        ("Nominal", half.placement.nominal_error_px),
        ("Solved", half.placement.solved_error_px),
    )
    for name, errors in named:
        far = np.hypot(errors[:, 0], errors[:, 1])
        rms = float(np.sqrt(np.nanmean(far**2)))
        most = float(np.nanmax(far))
        cells = (fixed(rms, 3), fixed(most, 3), fixed(rms * pixel, 2))
        rows.append((f"{name} positions", *cells))
    sigma = half.stitched.solution.sigma_px
    expected = float(np.sqrt(np.nanmean((sigma**2).sum(axis=1))))
    last = (fixed(expected, 3), "\N{EN DASH}", fixed(expected * pixel, 2))
    rows.append(("Solved, as the program expects", *last))
    header = ("Distance from the truth", "RMS (px)", "Largest (px)", "RMS (nm)")
    return Table(header, tuple(rows), marked=1)


def _weakest(half: ScanHalf) -> Table:
    """List the joints that agree least, the used ones."""
    solution = half.stitched.solution
    used = sorted((p for p in solution.pairs if p.used), key=lambda p: p.quality)
    rows = tuple(
        (
            f"{_stem(solution.names[p.first])} and {_stem(solution.names[p.second])}",
            fixed(p.quality, 3),
            fixed(p.score, 1),
            fixed(p.residual_px, 3),
            fixed(p.sigma_px, 3),
        )
        for p in used[:_WEAKEST]
    )
    header = ("Joint", "Correlation", "Score", "Residual (px)", "Expected (px)")
    caption = (
        f"The {len(rows)} used joints that agree least. A score below "
        f"{fixed(solution.threshold, 1)} would not have been believed."
    )
    return Table(header, rows, caption)


def _stem(name: str) -> str:
    """Name of a frame without its suffix."""
    return name.rpartition(".")[0] or name


# Sections of the demonstration on what was run, and on what.


def show_run(made: EnhancedFile) -> list[Text | Facts]:
    """Tell what the engine says of itself.

    Parameters
    ----------
    made : EnhancedFile
        What the enhancement wrote and cost.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    report = made.report
    pairs = (
        ("Model", str(report.model)),
        ("Tiles", str(report.tiles)),
        ("Time", f"{fixed(report.seconds, 2)} s"),
        ("Speed", f"{fixed(report.megapixels_per_second, 2)} megapixel/s"),
        ("Peak memory", f"{fixed(report.peak_memory_mb, 0)} MB"),
        ("Device, precision", f"{report.device}, {report.precision}"),
        ("Tile mismatch", _tiny(report.tile_mismatch)),
        ("Seam index", fixed(report.seam_index, 3)),
    )
    told = (
        "Tiles carry a halo as wide as the network's measured receptive field, so the "
        "result does not depend on where they are cut. Tile mismatch is how far two "
        "neighbours differ on the same pixels, over the range of grey levels; a seam "
        "index near 1 means that steps across tile borders are like those beside them."
    )
    return [Text((told,)), Facts(pairs)]


def show_provenance(halves: Sequence[Half], options: dict[str, Any]) -> Facts:
    """Tell what made the page.

    Parameters
    ----------
    halves : sequence of Half
        What was made.
    options : dict
        What the demonstration was asked for.

    Returns
    -------
    Facts
        Options, digests of models and inputs, versions.
    """
    asked = {**options, **_flat(halves[0].made.provenance.options)}
    pairs = [(f"Option {name}", str(value)) for name, value in asked.items()]
    pairs.append(("Model digest", str(halves[0].made.provenance.model_digest)))
    for half in halves:
        pairs += [
            (f"Digest of {item.name}", str(item.digest))
            for item in half.made.provenance.inputs
        ]
    pairs += [(f"Version of {n}", v) for n, v in software_versions().items()]
    return Facts(tuple(pairs))


def _tiny(value: float | None) -> str:
    """Say a share that may be zero or very small."""
    if value is None:
        return "\N{EN DASH}"
    return "0" if value == 0 else f"{value:.1e}"


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Lay nested options side by side, those that nobody chose left out."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= {f"{name} {key}": item for key, item in _flat(value).items()}
        elif value is not None:
            found[name] = value
    return found


# Maps and metrics of the demonstration, with the figures behind them.


def show_maps(measured: Measured) -> list[Text | Gallery | Table]:
    """Show three maps of local resolution on one colour scale.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    named = (
        (measured.pair_label, measured.map_pair),
        (f"{measured.degraded.label} against truth", measured.map_degraded),
        ("Enhanced against truth", measured.map_enhanced),
    )
    limits = _map_limits([found for _, found in named])
    pictures = tuple(
        Picture(
            map_png(
                np.asarray(found.measured),
                found.map.pixel_size_nm,
                limits=limits,
                label="resolution (nm)",
            ),
            f"{name}: map of local resolution, median {length(found.median_nm)}",
            name,
        )
        for name, found in named
    )
    rows = tuple(
        (
            name,
            str(found.blocks),
            str(found.failed),
            _reasons(found),
            length(found.p10_nm),
            length(found.median_nm),
            length(found.p90_nm),
        )
        for name, found in named
    )
    first = measured.map_pair
    told = (
        f"Each pixel is a square block with sides of {first.block} px, one every "
        f"{first.step} px. Bright is fine, dark is coarse; hatched blocks have no "
        "valid crossing, and none of them is filled; beyond-nyquist means that both "
        "images agree up to the finest period that the pixels can hold."
    )
    header = ("Map", "Blocks", "Without", "Reasons", "10 %", "Median", "90 %")
    return [Text((told,)), Gallery(pictures, columns=3), Table(header, rows)]


def _reasons(found: FrcMap) -> str:
    """Count the blocks that have no crossing, by reason."""
    counts = found.reason_counts.items()
    told = ", ".join(f"{count} {name}" for name, count in counts if count)
    return told or "\N{EN DASH}"


def _map_limits(maps: Sequence[FrcMap]) -> tuple[float, float]:
    """Choose one colour scale for all maps."""
    kept = [np.asarray(found.measured).ravel() for found in maps]
    values = np.concatenate(kept)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    return low, max(high, low * 1.05)


def show_metrics(measured: Measured) -> list[Text | Table]:
    """Show the table of metrics.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    header = ("Version", "PSNR (dB)", "SSIM", "NRMSE", "AG", "CON", "SF", "Resolution")
    rows = tuple(_metrics_row(item) for item in measured.versions())
    told = (
        "PSNR, SSIM and NRMSE against the truth after an affine match of grey levels, "
        f"data range {measured.data_range:g}. AG (average gradient), CON (contrast) "
        "and SF (spatial frequency) need no truth and rise with noise as well as with "
        "sharpness. The Wiener filter was told the width of the blur; the model was "
        "not."
    )
    table = Table(header, rows, marked=2)
    return [Text((told,)), table]


def _metrics_row(item: Version) -> tuple[str, ...]:
    """Figures of one version."""
    found = item.metrics
    return (
        item.label,
        fixed(found.psnr_db, 2),
        fixed(found.ssim, 3),
        fixed(found.nrmse, 3),
        fixed(found.average_gradient, 2),
        fixed(found.contrast, 1),
        fixed(found.spatial_frequency, 2),
        "\N{EN DASH}" if item.cross is None else resolution(item.cross),
    )


# What the demonstration says of the model, sentence by sentence from its figures.

_WORTH_DB = 0.2
_TRAINING = (
    "The bundled model was trained to take simulated blur, haze and noise off electron "
    "images, drawn and real; no superlens mosaic was among them."
)
_OWN = "Whether this model has seen superlens mosaics in training, its card must say."
_CAUTION = (
    "This is one drawn sample under a simulated microscope. For an instrument it "
    "proves nothing: measure there too, against electron images of the same place, or "
    "train on such pairs."
)


def psnr_gain(measured: Measured) -> float | None:
    """Decibels that the enhancement brings, against the truth.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    float or None
        None where one of both is unknown.
    """
    after, before = measured.enhanced.metrics.psnr_db, measured.degraded.metrics.psnr_db
    return None if after is None or before is None else after - before


def judge_mosaic(measured: Measured, model: str) -> Text:
    """Say what the model does to a superlens mosaic, and warn where it is no gain.

    Parameters
    ----------
    measured : Measured
        Figures of the mosaic.
    model : str
        What was asked for.

    Returns
    -------
    Text
        A warning where the enhanced mosaic is not clearly nearer to the truth.
    """
    gain = psnr_gain(measured)
    better = gain is not None and gain >= _WORTH_DB
    lines = [_TRAINING if model == DEFAULT_MODEL else _OWN]
    if better:
        lines.append(f"On this mosaic it still gains: {_figures(measured)}.")
    else:
        lines.append(
            f"On this mosaic it brings no gain: {_figures(measured)}. Do not use it on "
            "such mosaics."
        )
    beside = _beside_wiener(measured)
    return Text((" ".join([*lines, *beside]), _CAUTION), warning=not better)


def _figures(measured: Measured) -> str:
    """Say before and after, against the truth."""
    before, after = measured.degraded, measured.enhanced
    return (
        f"PSNR {signed(psnr_gain(measured), 2)} dB, SSIM "
        f"{fixed(before.metrics.ssim, 3)} → {fixed(after.metrics.ssim, 3)}, resolution "
        f"{resolution(before.cross)} → {resolution(after.cross)}, all against the truth"
    )


def _beside_wiener(measured: Measured) -> list[str]:
    """Say whether a filter that is told the blur does better."""
    classical, network = measured.baseline.metrics, measured.enhanced.metrics
    if classical.psnr_db is None or network.psnr_db is None:
        return []
    ahead = network.psnr_db - classical.psnr_db
    if ahead >= 0:
        return [f"It is {ahead:.2f} dB ahead of a Wiener filter told the blur's width."]
    return [f"A Wiener filter told the blur's width is {-ahead:.2f} dB ahead of it."]
