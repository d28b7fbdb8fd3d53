"""Measure particle sizes in an image, or object sizes in a label image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from napari_semsr import core
from napari_semsr.analysis import ParticleOptions, measure_particles
from napari_semsr.core import (
    Quantity,
    create_length_properties,
    create_property,
    declare_length,
    option,
)
from napari_semsr.io import TABLE_SUFFIXES, write_sheet
from napari_semsr.jobs.images import (
    convert_columns_to_rows,
    get_calibrated_image,
    to_json_value,
)
from napari_semsr.jobs.verb import ImageInput, ImageMeasurement, Output, Run, Verb

_COLUMNS = {
    "label": Quantity("Label"),
    **declare_length("y", "y"),
    **declare_length("x", "x"),
    "area_nm2": Quantity("Area", "nm²", also="area_px"),
    "area_px": Quantity("Area", "px²"),
    **declare_length("equivalent_diameter", "Equivalent diameter"),
    "equivalent_diameter_sd_nm": Quantity("Error of the diameter", "nm"),
    "eccentricity": Quantity("Eccentricity"),
}
# Share of the diameters that clear particles have: 0.43 and more of real powders and
# balls, 0.36 and less of 34 of 41 real surfaces, grains and tissues (docs/gaps.md)
_MIN_CLEAR, _MIN_COUNT = 0.4, 10  # of fewer particles, a share is uncertain


class ParticleSizeOptions(ParticleOptions):
    """Options for measuring particles."""

    labels: bool = option(
        False,
        "Label image",
        "Treat the image as a label image with background 0, or as a mask whose "
        "connected components are the objects.",
    )


def _create_statistic_properties(
    key: str, label: str, compute: Callable[[Any], Any], **more: Any
) -> tuple[property, property, property]:
    """Create properties for a diameter statistic: in nm, its error, and in px."""

    def value(result: "ParticleSizes", unit: str) -> float | None:
        diameters = result.get_diameters(unit)
        return float(compute(diameters)) if diameters else None

    def error(result: "ParticleSizes") -> float | None:
        return (value(result, "nm") or 0.0) * result.size_error or None

    nm, px = create_length_properties(value, key, label, sd=f"{key}_sd_nm", **more)
    return nm, create_property(error, f"{label}, error", "nm"), px


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleSizes(ImageMeasurement):
    """Equivalent-area diameters of particles completely inside the field.

    `clear` is the fraction, by diameter, of particles that are round or convex and
    isolated, None for labels; `size_error` is the relative error of the pixel
    size, which all lengths share; `counts` are histogram counts between `edges`.
    """

    TABLES: ClassVar = {"Particles": "rows"}

    particles: Annotated[int, Quantity("Particles", large=True)]
    cut: Annotated[int, Quantity("Cut by the border, excluded")]
    smaller: Annotated[int, Quantity("Too small, excluded")]
    counted: Annotated[float, Quantity("Share of the field with values", form=".1%")]
    covered: Annotated[float, Quantity("Covered by particles", form=".1%")]
    clear: Annotated[float | None, Quantity("Clearly outlined", form=".0%")]
    size_error: float
    rows: Annotated[
        list[dict[str, Any]], core.declare_quantity("Each particle", keys=_COLUMNS)
    ]
    edges_nm: list[float] | None
    edges_px: list[float]
    counts: list[int]
    output: str | None

    median_nm, median_sd_nm, median_px = _create_statistic_properties(
        "median", "Median diameter", np.median, large=True
    )
    mean_nm, mean_sd_nm, mean_px = _create_statistic_properties(
        "mean", "Mean diameter", np.mean
    )
    spread_nm, spread_sd_nm, spread_px = _create_statistic_properties(
        "spread",
        "S.d. of diameters",
        lambda sizes: np.std(sizes, ddof=1) if len(sizes) > 1 else np.nan,
    )
    lower_quartile_nm, lower_quartile_sd_nm, lower_quartile_px = (
        _create_statistic_properties(
            "lower_quartile", "Lower quartile", lambda sizes: np.quantile(sizes, 0.25)
        )
    )
    upper_quartile_nm, upper_quartile_sd_nm, upper_quartile_px = (
        _create_statistic_properties(
            "upper_quartile", "Upper quartile", lambda sizes: np.quantile(sizes, 0.75)
        )
    )

    def get_diameters(self, unit: str) -> list[float]:
        """Return the diameters in nm or px; empty for nm without a pixel size."""
        sizes = (row[f"equivalent_diameter_{unit}"] for row in self.rows)
        return [size for size in sizes if size is not None]

    def discs(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Return centres ``(y, x)`` (N, 2) and diameters (N,) in px for plots."""
        keys = ("y_px", "x_px", "equivalent_diameter_px")
        values = np.array([[row[key] for key in keys] for row in self.rows])
        values = values.reshape(-1, 3)
        return values[:, :2], values[:, 2]


def _measure_particles(
    run: Run[ParticleSizeOptions], image: core.Micrograph
) -> core.Job[ParticleSizes]:
    """Measure particles, warn about unclear outlines, and write the table."""
    get_calibrated_image(image, None)  # warns of a missing pixel size
    particles = yield from measure_particles(
        image, run.options, is_labels=run.options.labels
    )
    count, clear, sizes = len(particles.labels), particles.clear, particles.diameters_px
    if clear is not None and clear < _MIN_CLEAR and count >= _MIN_COUNT:
        core.warn(
            f"Only {100 * clear:.0f} % of the particles found in {image.name}, "
            "weighted by diameter, are round or convex and isolated: check the "
            "outlines. The image may contain no particles, or only dark ones (`dark`).",
            "particles-doubtful",
        )
    nm, error = image.mean_pixel_size_nm or np.nan, core.compute_length_error(image)
    pixel_nm = image.pixel_size_nm or (np.nan, np.nan)
    y_nm, x_nm = (image.origin + particles.centres_px * pixel_nm).T
    values = {
        "label": particles.labels,
        **dict(zip(("y_px", "x_px"), particles.centres_px.T, strict=True)),
        "y_nm": y_nm,
        "x_nm": x_nm,
        "area_nm2": particles.areas_px * nm**2,
        "area_px": particles.areas_px,
        "equivalent_diameter_nm": sizes * nm,
        "equivalent_diameter_px": sizes,
        "equivalent_diameter_sd_nm": sizes * nm * (error or np.nan),
        "eccentricity": particles.eccentricities,
    }
    table = to_json_value({name: values[name] for name in _COLUMNS})
    if run.target is not None:
        write_sheet(run.target, table)
    counts, edges = np.histogram(sizes, "sturges")
    return ParticleSizes(
        **run.get_result_fields(image),
        particles=count,
        cut=particles.cut,
        smaller=particles.too_small,
        counted=particles.known_px / math.prod(image.shape),
        covered=float(particles.areas_px.sum() / max(1, particles.known_px)),
        clear=clear,
        size_error=error,
        rows=convert_columns_to_rows(table),
        edges_nm=None if np.isnan(nm) else (edges * nm).tolist(),
        edges_px=edges.tolist(),
        counts=counts.tolist(),
        output=run.output,
    )


PARTICLES = Verb(
    "particles",
    (ImageInput("image", "an image of particles, or a label image"),),
    ParticleSizeOptions,
    ParticleSizes,
    _measure_particles,
    output=Output(
        "path of the table of one image, with a row for each particle (.csv or "
        ".parquet)",
        is_required=False,
        ending=TABLE_SUFFIXES[0],
        also=TABLE_SUFFIXES[1:],
    ),
    title="particles",
    makes_table=True,
    curves=(
        core.CurveDeclaration(
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
