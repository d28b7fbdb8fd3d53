"""Differences between the model and the linear filter: the areas to inspect first."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_semsr.analysis import fit_gain_and_offset
from napari_semsr.core import (
    Affine,
    Box,
    DisplaySettings,
    Float32Array,
    Grid,
    Job,
    Micrograph,
    Options,
    Progress,
    Provenance,
    WarpedImage,
    find_stray_pixels,
    read_box,
)
from napari_semsr.io import read_json_object
from napari_semsr.jobs.adapt.register import MOSAIC_IN
from napari_semsr.jobs.images import (
    Result,
    get_image_name,
    open_image,
    overwrite_image,
)
from napari_semsr.jobs.verb import FileInput, ImageInput, Output, Run, Verb
from napari_semsr.restoration import LinearFit

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
