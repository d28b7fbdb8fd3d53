"""Report page of an adapted model, and the areas to inspect first."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.analysis import fit_gain_and_offset
from napari_semsr.core import (
    DB,
    Affine,
    Box,
    DisplaySettings,
    Float32Array,
    Grid,
    Job,
    Line,
    Micrograph,
    Options,
    Plot,
    Progress,
    Provenance,
    WarpedImage,
    find_stray_pixels,
    read_box,
)
from napari_semsr.io import read_json_object
from napari_semsr.jobs.adapt.areas import MOSAIC_IN
from napari_semsr.jobs.adapt.evaluate import ADAPTED_MODEL
from napari_semsr.jobs.adapt.train import SEM_IMAGE
from napari_semsr.jobs.check_record import LINEAR
from napari_semsr.jobs.images import (
    Result,
    get_image_name,
    open_image,
    overwrite_image,
)
from napari_semsr.jobs.verb import FileInput, ImageInput, Output, Run, Verb
from napari_semsr.reporting import (
    choose_grey_limits,
    draw_image_png,
    draw_plot_png,
    list_provenance,
    write_page,
)
from napari_semsr.restoration import LinearFit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_semsr.core import FloatPair
    from napari_semsr.jobs.adapt.job import Adapted


_ROWS = 1024  # filtered at once; chosen: some 100 MB of a mosaic of 10 000 px
_BRIGHTEST = (
    99.5  # percentile of the difference shown brightest; chosen: ignores outliers
)


def filter_mosaic(
    mosaic: Micrograph, linear: LinearFit, provenance: Provenance
) -> Job[Micrograph]:
    """Apply the linear filter to the whole mosaic, strip by strip.

    Missing pixels, and those within the filter's margin, are NaN.
    """
    rows, columns = mosaic.shape
    reach = linear.kernel.shape[0] // 2
    result = np.full((rows, columns), np.nan, dtype=np.float32)
    for top in range(0, rows, _ROWS):
        yield Progress(top, rows, "applying the linear filter")
        end = min(top + _ROWS, rows)
        wide = Box(top - reach, end + reach, -reach, columns + reach)
        strip = np.asarray(read_box(mosaic.data, wide), dtype=np.float32)
        if np.isfinite(strip).any():
            result[top:end] = linear.apply(strip)[reach:-reach, reach:-reach]
    about = provenance.model_copy(update={"part": "linear filter"})
    return mosaic.replace(data=result, provenance=about)


def create_difference_map(
    linear_image: Micrograph, model_image: Micrograph, provenance: Provenance
) -> Micrograph:
    """Map the absolute difference between the model and filter results.

    In grey levels of the SEM image, absolute, after the gain and offset that best match
    the model's result to the filter's; NaN where one of them is missing.
    """
    linear = linear_image.array()
    model = model_image.array().astype(np.float32)
    if model.shape != linear.shape:  # a model for another pixel size
        model = (
            WarpedImage(model_image, Grid.from_image(linear_image), Affine())
            .read()
            .astype(np.float32)
        )
    differences = compute_difference(model, linear)
    finite = differences[np.isfinite(differences)]
    top = float(np.percentile(finite, _BRIGHTEST)) if finite.size else 0.0
    return linear_image.replace(
        data=differences,
        provenance=provenance.model_copy(update={"part": "look here"}),
        look=DisplaySettings(limits=(0.0, top or 1.0), colormap="magma"),
    )


def compute_difference(model: Float32Array, linear: Float32Array) -> Float32Array:
    """Return the absolute difference of images (Y, X) in grey levels of the second."""
    finite = np.isfinite(model) & np.isfinite(linear)
    result = np.full(linear.shape, np.nan, dtype=np.float32)
    if finite.any():
        model_values, linear_values = (
            one[finite].astype(np.float64) for one in (model, linear)
        )
        gain, offset = fit_gain_and_offset(model_values, linear_values)
        result[finite] = np.abs(gain * model[finite] + offset - linear[finite])
    return result


def _compare_with_filter(run: Run[Options]) -> Job[Result]:
    """Filter a mosaic, and map where its enhanced version differs."""
    mosaic_given, result = (run.image_inputs[item.name] for item in LOOK_HERE.images)
    mosaic = open_image(mosaic_given, run.opening)
    mosaic = mosaic.replace(name=get_image_name(mosaic_given))
    if (strays := find_stray_pixels(mosaic.data)) is not None:
        mosaic = mosaic.replace(data=strays.fill(mosaic.data))
    record = read_json_object(Path(run.parameters["training"]))
    provenance = Provenance.model_validate(record["provenance"])
    linear = LinearFit(**record["linear"])
    linear = replace(linear, kernel=np.array(linear.kernel, dtype=np.float32))
    filtered_image = yield from filter_mosaic(mosaic, linear, provenance)
    overwrite_image(filtered_image, run.targets["linear"])
    difference = create_difference_map(filtered_image, open_image(result), provenance)
    overwrite_image(difference, run.targets["look_here"])
    return Result()


LOOK_HERE = Verb(
    "look-here",
    (replace(MOSAIC_IN, side=""), ImageInput("result", "its enhanced version")),
    Options,
    Result,
    _compare_with_filter,
    files=(FileInput("training", "the record of the training", optional=False),),
    outputs=(
        Output("the mosaic after the linear filter", name="linear"),
        Output("the difference of the enhanced mosaic from it", name="look_here"),
    ),
    opens=False,
)


_WHOLE_PX, _DETAIL_PX = 480, 400
_DETAIL = 128  # side of the detail of the held-out part


def write_report(
    result: "Adapted",
    record: "Mapping[str, Any]",
    planes: "Mapping[str, NDArray[Any]]",
) -> None:
    """Write the report page from the record of the training and its images."""
    write_page(
        Path(result.report),
        Path(__file__).with_name("adapt.html"),
        result=result,
        held_out_shape=planes[SEM_IMAGE].shape,
        **draw_held_out_images(
            planes,
            record["pixel_size_nm"],
            record["curve"],
            result.held_out["linear_gain_db"],
        ),
        provenance=list_provenance(
            record["provenance"]["options"],
            [(one["name"], one["digest"]) for one in record["provenance"]["inputs"]],
        ),
    )


def draw_held_out_images(
    planes: "Mapping[str, NDArray[Any]]",
    pixel_size_nm: "FloatPair | None",
    curve: "Sequence[Mapping[str, Any]]",
    linear_gain_db: float | None,
) -> dict[str, Any]:
    """Draw the held-out part of an area: `wholes`, `details` and the `curve`.

    `planes` are the evaluated images of that part in the grey levels of the SEM image,
    by name, and the SEM image; `curve` has the gain of the training over its time.
    `look_here` shows where the model and the linear filter differ.
    """
    limits, pixel = choose_grey_limits(planes[SEM_IMAGE]), pixel_size_nm
    shape = planes[SEM_IMAGE].shape
    rows, columns = (min(_DETAIL, n) for n in shape)
    y, x = ((n - side) // 2 for n, side in zip(shape, (rows, columns), strict=True))

    def draw_plane(plane: Any, width_px: int) -> bytes:
        return draw_image_png(plane, pixel, limits=limits, width_px=width_px)

    differs = compute_difference(planes[ADAPTED_MODEL], planes[LINEAR])
    differs_png = draw_image_png(
        differs, pixel, limits=(0.0, float(differs.max()) or 1.0), width_px=_WHOLE_PX
    )
    curve_png = None
    rows_measured = [row for row in curve if row["gain_db"] is not None]
    if len(rows_measured) >= 2:
        seconds, gains = (
            np.array([row[name] for row in rows_measured])
            for name in ("seconds", "gain_db")
        )
        linear = np.full(2, linear_gain_db or np.nan)
        lines = (
            Line(ADAPTED_MODEL, seconds, gains),
            Line(LINEAR, seconds[[0, -1]], linear, kind="threshold"),
        )
        curve_png = draw_plot_png(Plot("Training", "time (s)", f"gain ({DB})", lines))
    return {
        "look_here": differs_png,
        "wholes": {
            name: draw_plane(plane, _WHOLE_PX) for name, plane in planes.items()
        },
        "details": {
            name: draw_plane(plane[y : y + rows, x : x + columns], _DETAIL_PX)
            for name, plane in planes.items()
        },
        "curve": curve_png,
    }
