"""Evaluation of a model against simpler methods on the held-out part of an area."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis import (
    ObjectCount,
    compute_psnr_gain,
    count_objects,
    find_object_diameter,
    measure_metrics,
    sum_section_errors,
)
from napari_semsr.core import DB, FloatArray, Quantity, declare_quantity
from napari_semsr.jobs.adapt.areas import AdaptationError, SharedArea
from napari_semsr.jobs.check_record import LINEAR
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.judge import INPUT

ADAPTED_MODEL = "adapted model"
"""Name of the model in tables and in the report."""
_NAMES = {INPUT: "the optical image", LINEAR: "the linear filter"}
SURE = 2.0
"""Number of standard errors by which a model must be better to be kept."""


@dataclass(frozen=True, slots=True)
class Evaluation(Result):
    """Evaluation of one image of the held-out part against the SEM image.

    Gains are over the input, after the gain and offset that best match each image to
    the SEM image, with standard errors from 16 parts of each area. `objects` are
    counted by `analysis.count_objects`.
    """

    name: str = field(metadata={"json": False})
    psnr_db: Annotated[float | None, Quantity("PSNR", DB, ".2f")]
    gain_db: Annotated[
        float | None, Quantity("Over the input", DB, "+.2f", sd="gain_sd_db")
    ]
    gain_sd_db: float | None
    gain_below_cutoff_db: Annotated[
        float | None,
        Quantity("Below the cut-off", DB, "+.2f", sd="gain_below_cutoff_sd_db"),
    ]
    gain_below_cutoff_sd_db: float | None
    objects: Annotated[ObjectCount, declare_quantity("Objects")]
    images: tuple[NDArray[Any], ...] = field(default=(), metadata={"json": False})
    errors: "SquaredErrors" = field(
        default_factory=lambda: SquaredErrors(), metadata={"json": False}, repr=False
    )


@dataclass(frozen=True, slots=True)
class SquaredErrors:
    """Squared errors (N,) of the parts of all areas, in total and below the cut-off."""

    all: FloatArray = field(default_factory=lambda: np.empty(0))
    below: FloatArray | None = None

    @property
    def decisive_errors(self) -> FloatArray:
        """Errors used for the decision: those below the cut-off, if it is known."""
        return self.all if self.below is None else self.below


def evaluate(
    areas: Sequence[SharedArea],
    images: Mapping[str, Sequence[NDArray[Any]]],
    cut_off_nm: float | None,
    before: Mapping[str, Evaluation] | None = None,
) -> dict[str, Evaluation]:
    """Compare images of the held-out parts with the SEM images, `INPUT` first.

    Parameters
    ----------
    areas : sequence of SharedArea
        Areas that both images show.
    images : mapping of str to sequence of (Y, X) numpy.ndarray
        By name, one for the held-out part of each area.
    cut_off_nm : float or None
        Shortest period that the optical image can contain.
    before : mapping of str to Evaluated, optional
        Existing rows, which come first.
    """
    truths = [area.crop(area.held_out)[1] for area in areas]
    largest = max((t.array() for t in truths), key=lambda plane: min(plane.shape))
    diameter = find_object_diameter(largest)
    evaluations: dict[str, Evaluation] = dict(before or {})
    for name, planes in images.items():
        measured_images, matched_images = [], []
        for plane, truth in zip(planes, truths, strict=True):
            metrics = measure_metrics(
                truth.replace(data=plane, provenance=None),
                truth,
                match="affine",
                data_range=_get_grey_range(truths),
                cut_off_nm=cut_off_nm,
            )
            measured_images.append(metrics)
            matched_images.append(
                plane * np.float32(metrics.gain) + np.float32(metrics.offset)
            )
        split = [one.band_errors for one in measured_images]
        errors = SquaredErrors(
            np.concatenate(
                [
                    sum_section_errors(image, truth.array())
                    for image, truth in zip(matched_images, truths, strict=True)
                ]
            ),
            None
            if any(bands is None for bands in split)
            else np.concatenate([bands[0] for bands in split if bands is not None]),
        )
        first = next(iter(evaluations.values()), None)
        base = errors if first is None else first.errors
        below = (
            (None, None)
            if errors.below is None or base.below is None
            else compute_psnr_gain(errors.below, base.below)
        )
        pixels = sum(truth.array().size for truth in truths)
        mean = float(errors.all.sum()) / pixels
        evaluations[name] = Evaluation(
            name,
            20 * math.log10(_get_grey_range(truths)) - 10 * math.log10(mean)
            if mean
            else None,
            *compute_psnr_gain(errors.all, base.all),
            *below,
            reduce(
                add,
                (
                    count_objects(plane, truth.array(), diameter)
                    for plane, truth in zip(planes, truths, strict=True)
                ),
            ),
            tuple(matched_images),
            errors,
        )
    return evaluations


def _get_grey_range(truths: Sequence[Any]) -> float:
    """Return the grey-value range of all SEM images."""
    lows, highs = zip(
        *((t.array().min(), t.array().max()) for t in truths), strict=True
    )
    return float(max(highs)) - float(min(lows))


def require_gain(evaluations: Mapping[str, Evaluation], name: str) -> None:
    """Raise an error unless a model beats all other images by two standard errors.

    Raises
    ------
    AdaptRefused
        With the code ``no-gain``, and the figures of all.
    """
    model = evaluations[name]
    for rival, row in evaluations.items():
        if rival == name:
            continue
        gain, error = compute_psnr_gain(
            model.errors.decisive_errors, row.errors.decisive_errors
        )
        if gain is not None and gain > SURE * (error or 0.0):
            continue
        has = "no error" if gain is None else f"{gain:+.2f} ± {error or 0.0:.2f} dB"
        msg = (
            f"The trained model is not better than {_NAMES.get(rival, rival)} on the "
            f"held-out part ({has}, gain ± standard error) and is not kept: train "
            "longer (`minutes`), check the registration, or use an SEM image of a "
            "larger area."
        )
        figures = {key: each.to_json() for key, each in evaluations.items()}
        raise AdaptationError(msg, "no-gain", held_out=figures)
