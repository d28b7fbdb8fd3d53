"""The sizes of particles of an image, or of the objects of a label image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy import ndimage
from skimage import measure, segmentation

from napari_semsr import core
from napari_semsr.analysis import ParticleOptions, find_particles
from napari_semsr.core import Quantity, figure, length_figures, lengths, option
from napari_semsr.io import TABLE_SUFFIXES, write_sheet
from napari_semsr.jobs.images import calibrated_of, jsonable, rows_of
from napari_semsr.jobs.verb import ImageIn, ImageMeasure, Output, Run, Verb

_KEYS = {
    "label": Quantity("Label"),
    **lengths("y", "y"),
    **lengths("x", "x"),
    "area_nm2": Quantity("Area", "nm²", also="area_px"),
    "area_px": Quantity("Area", "px²"),
    **lengths("equivalent_diameter", "Equivalent diameter"),
    "equivalent_diameter_sd_nm": Quantity("Error of the diameter", "nm"),
    "eccentricity": Quantity("Eccentricity of an ellipse of its moments"),
}
_MAX_PARTS = 2  # average objects per label; chosen: grey levels have more
# A clear particle shares less than this part of its outline with others, and fills
# more than this share of the ellipse of its moments (a square 0.955, a triangle 0.83)
_MAX_BESIDE, _MIN_FILL, _BESIDE_PX = 0.5, 0.95, 2
# Share of the diameters that clear particles have: 0.43 and more of real powders and
# balls, 0.36 and less of 34 of 41 real surfaces, grains and tissues (docs/gaps.md)
_MIN_CLEAR, _MIN_COUNT = 0.4, 10  # of fewer particles, a share is uncertain


class ParticleSizeOptions(ParticleOptions):
    """Options of the particle measurement."""

    labels: bool = option(
        False,
        "Label image",
        "The image is a label image with 0 as background, or a mask, whose connected "
        "parts are the objects.",
    )


def _length(
    key: str, label: str, get: Callable[[Any], Any], **more: Any
) -> tuple[property, property, property]:
    """Return properties for a length of all particles: in nm, its error, in px."""

    def found(result: "ParticleSizes", unit: str) -> float | None:
        known = result.diameters(unit)
        return float(get(known)) if known else None

    def error(result: "ParticleSizes") -> float | None:
        length = found(result, "nm")
        return length and (length * result.size_error or None)

    sd = figure(error, f"{label}, error", "nm")
    nm, px = length_figures(found, key, label, sd=f"{key}_sd_nm", **more)
    return nm, sd, px


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleSizes(ImageMeasure):
    """Sizes of particles that are completely in the field, as discs of their areas.

    `clear` is the fraction, by diameter, of particles that are round or convex and
    isolated, None for labels; `size_error` is the relative error of the pixel
    size, which all lengths share; `counts` are histogram counts between `edges`.
    """

    particles: Annotated[int, Quantity("Particles", large=True)]
    cut: Annotated[int, Quantity("Cut by the border, excluded")]
    smaller: Annotated[int, Quantity("Too small, excluded")]
    counted: Annotated[float, Quantity("Share of the field with values", form=".1%")]
    covered: Annotated[float, Quantity("Covered by particles", form=".1%")]
    clear: Annotated[float | None, Quantity("Clearly outlined", form=".0%")]
    size_error: float
    rows: Annotated[
        list[dict[str, Any]], core.record_quantity("Each particle", keys=_KEYS)
    ]
    edges_nm: list[float] | None
    edges_px: list[float]
    counts: list[int]
    output: str | None

    median_nm, median_sd_nm, median_px = _length(
        "median", "Median diameter", np.median, large=True
    )
    mean_nm, mean_sd_nm, mean_px = _length("mean", "Mean diameter", np.mean)
    spread_nm, spread_sd_nm, spread_px = _length(
        "spread",
        "S.d. of diameters",
        lambda known: np.std(known, ddof=1) if len(known) > 1 else np.nan,
    )
    lower_quartile_nm, lower_quartile_sd_nm, lower_quartile_px = _length(
        "lower_quartile", "Lower quartile", lambda known: np.quantile(known, 0.25)
    )
    upper_quartile_nm, upper_quartile_sd_nm, upper_quartile_px = _length(
        "upper_quartile", "Upper quartile", lambda known: np.quantile(known, 0.75)
    )

    def diameters(self, unit: str) -> list[float]:
        """Return the diameters in nm or px; in nm, empty if there is no pixel size."""
        found = (row[f"equivalent_diameter_{unit}"] for row in self.rows)
        return [size for size in found if size is not None]

    def discs(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Return centres ``(y, x)`` (N, 2) and diameters (N,) in px for plots."""
        keys = ("y_px", "x_px", "equivalent_diameter_px")
        values = np.array([[row[key] for key in keys] for row in self.rows])
        values = values.reshape(-1, 3)
        return values[:, :2], values[:, 2]

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """Return a row for each particle."""
        unit = "nm" if self.diameters("nm") else "px"
        heads = {f"{key} ({unit})": f"{key}_{unit}" for key in ("y", "x")}
        heads[f"diameter ({unit})"] = f"equivalent_diameter_{unit}"
        heads = {"label": "label", **heads, "eccentricity": "eccentricity"}
        sizes_listed = {
            k: [row[name] for row in self.rows] for k, name in heads.items()
        }
        return {"Particles": sizes_listed} if self.rows else {}


def _labels(image: core.Micrograph) -> tuple[Any, Any]:
    """Relabel the objects of a label image from 1; also return the original labels."""
    values = np.nan_to_num(image.array(), nan=0, posinf=0, neginf=0)
    numbers, labels = np.unique(np.append(0, values), return_inverse=True)
    labels = labels[1:].reshape(values.shape)
    parts, count = measure.label(labels, connectivity=2, return_num=True)
    whole = numbers[0] == 0 and np.array_equal(numbers, np.rint(numbers))
    if numbers.size == 2 and count > 1 and whole:  # a mask
        return parts, np.arange(count + 1)
    if not whole or count > _MAX_PARTS * (numbers.size - 1):
        msg = (
            "A label image must have a whole number for each object and 0 elsewhere, "
            f"got grey levels in {image.name}; omit `labels` to find particles."
        )
        raise core.ShapeError(msg, code="not-labels")
    return labels, numbers.astype(int)


def _clear_share(labels: Any, found: dict[str, Any]) -> float | None:
    """Return the share of the diameters of particles that are compact and isolated."""
    outline = segmentation.find_boundaries(labels, connectivity=2, mode="inner")
    reach = 2 * _BESIDE_PX + 1
    others = np.where(labels > 0, labels, np.iinfo(labels.dtype).max)
    beside = ndimage.maximum_filter(labels, reach) != labels
    beside |= ndimage.minimum_filter(others, reach) != labels
    length = np.bincount(labels[outline], minlength=labels.max() + 1)
    touching = np.bincount(labels[outline & beside], minlength=length.size)
    axes = found["axis_major_length"] * found["axis_minor_length"]
    clear = touching[found["label"]] < _MAX_BESIDE * length[found["label"]]
    clear &= found["area"] > _MIN_FILL * np.pi / 4 * axes
    sizes = np.sqrt(found["area"])
    return float(sizes[clear].sum() / sizes.sum()) if sizes.size else None


def _measure(
    run: Run[ParticleSizeOptions], image: core.Micrograph
) -> core.Job[ParticleSizes]:
    """Measure areas in pixels; missing pixels cut particles like borders."""
    calibrated_of(image, None)  # warns of a missing pixel size
    if run.options.labels:
        (labels, numbers), smaller = _labels(image), 0
    else:
        labels, smaller = yield from find_particles(image, run.options)
        numbers = np.arange(labels.max() + 1)
    pitch = core.mean_pitch(image.scale)
    kinds = ["label", "centroid", "area", "eccentricity"]
    kinds += ["axis_major_length", "axis_minor_length"]
    found = measure.regionprops_table(labels, properties=kinds, spacing=pitch)
    diameters = np.sqrt(found["area"] * 4 / np.pi)
    missing = ~np.isfinite(image.array())
    edge = ndimage.binary_dilation(missing, np.ones((3, 3)), border_value=1)
    large = diameters >= run.options.min_diameter_px
    whole = large & ~np.isin(found["label"], labels[edge])
    found = {name: values[whole] for name, values in found.items()}
    clear = None if run.options.labels else _clear_share(labels, found)
    if clear is not None and clear < _MIN_CLEAR and whole.sum() >= _MIN_COUNT:
        core.warn(
            f"Only {clear:.0%} of the particles found in {image.name}, by diameter, "
            "are round or convex and isolated: check the outlines; the image may "
            "show none, or darker ones (`dark`).",
            "particles-doubtful",
        )
    y, x = (found[f"centroid-{axis}"] / pitch[axis] for axis in (0, 1))
    nm, error = image.mean_pixel_size_nm or np.nan, core.length_error(image)
    (y0, x0), (dy, dx) = image.origin, image.pixel_size_nm or (np.nan, np.nan)
    columns = {
        "label": numbers[found["label"]],
        "y_nm": y0 + y * dy,
        "x_nm": x0 + x * dx,
        "area_nm2": found["area"] * nm**2,
        "equivalent_diameter_nm": diameters[whole] * nm,
        "equivalent_diameter_sd_nm": diameters[whole] * nm * (error or np.nan),
        "eccentricity": found["eccentricity"],
        "y_px": y,
        "x_px": x,
        "area_px": found["area"],
        "equivalent_diameter_px": diameters[whole],
    }
    table = jsonable(columns)
    if run.target is not None:
        write_sheet(run.target, table)
    counts, edges = np.histogram(diameters[whole], "sturges")
    return ParticleSizes(
        **run.facts(image),
        particles=int(whole.sum()),
        cut=int((large & ~whole).sum()),
        smaller=smaller + int((~large).sum()),
        counted=1 - float(missing.mean()),
        covered=float(found["area"].sum() / max(1, (~missing).sum())),
        clear=clear,
        size_error=error,
        rows=rows_of(table),
        edges_nm=None if np.isnan(nm) else (edges * nm).tolist(),
        edges_px=edges.tolist(),
        counts=counts.tolist(),
        output=run.output,
    )


PARTICLES = Verb(
    "particles",
    (ImageIn("image", "an image of particles, or a label image"),),
    ParticleSizeOptions,
    ParticleSizes,
    _measure,
    output=Output(
        (
            "path of the table of one image, with a row for each particle (.csv or "
            ".parquet)"
        ),
        is_required=False,
        ending=TABLE_SUFFIXES[0],
        also=TABLE_SUFFIXES[1:],
    ),
    title="particles",
    makes_table=True,
    curves=(
        core.Curve(
            "Diameters",
            "edges_{unit}",
            "counts",
            "diameter ({unit})",
            "share of particles",
            shares=True,
        ),
    ),
    example="""
    >>> y, x = np.mgrid[:64, :96]
    >>> disc = 100.0 * (np.hypot(y - 32, x - 40) < 12)
    >>> found = semsr.particles(disc, pixel_size_nm=2)
    >>> found.particles, round(found.median_nm, 1), found.cut
    (1, 47.4, 0)
    """,
)
