"""Detect leakage of training data, which makes a model's metrics too good.

A model card records digests and areas of the training images, and so does the history
of the model's results.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from napari_semsr.core import Grid, Micrograph, Provenance, warn
from napari_semsr.io import ReadOptions, Source
from napari_semsr.jobs.images import Image, collect_digests, create_input_record

TRAINED_ON = "learnt_from"
"""Key of the training data recorded in a history step."""

LIGHT = "mosaic"
"""Role of the optical image in the training data of an adapted model."""

_SAMPLES = 64  # points along each side to sample an area; chosen: errors of 2 %


def warn_if_trained_on(
    images: list[tuple[Image | Source, Micrograph]], opening: ReadOptions | None = None
) -> None:
    """Warn if the model that made an image was trained on the same area."""
    for _, opened_image in images:
        for name, entries in _list_models(opened_image.provenance):
            shares = [
                share
                for sources_of_image, judged_name in images
                for share in _compute_trained_fractions(
                    sources_of_image, judged_name, entries, opening
                )
            ]
            known_shares = [share for share in shares if share is not None]
            share = max(known_shares, default=float(bool(shares)))  # unknown: all
            if share > 0:
                warn(
                    f"{opened_image.name} was made by the model {name}, which was "
                    f"trained on {100 * share:.0f} % of the area evaluated here, so "
                    "the metrics are too optimistic. Evaluate the model on another "
                    "area, or on a held-out area.",
                    "not-independent",
                    stacklevel=3,
                )
                return


def _list_models(
    history: Provenance | None,
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Yield the models in a history that record their training data."""
    if history is None:
        return
    if history.options.get(TRAINED_ON):
        yield history.model_name or "of its history", history.options[TRAINED_ON]
    for item in history.inputs:
        yield from _list_models(item.provenance)


def _compute_trained_fractions(
    image_given: Image | Source,
    evaluated_image: Micrograph,
    entries: list[dict[str, Any]],
    opening: ReadOptions | None,
) -> Iterator[float | None]:
    """Yield the fractions of an image that models were trained on; None if unknown."""
    record = create_input_record(image_given, evaluated_image, opening)
    digests = {*collect_digests(record)}
    for entry in entries:
        if entry["digest"] not in digests:
            continue
        is_calibrated = evaluated_image.pixel_size_nm is not None
        same_unit = (entry["unit"] == "nm") == is_calibrated
        areas = entry["areas"] if same_unit else None
        if areas is None:
            yield None
            continue
        grid = Grid.from_image(evaluated_image)
        at = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
        y, x = (c + at * (e - c) for c, e in zip(grid.corner, grid.end, strict=True))
        is_covered = np.zeros((_SAMPLES, _SAMPLES), bool)
        for y0, x0, y1, x1 in areas:
            is_covered |= np.outer((y >= y0) & (y < y1), (x >= x0) & (x < x1))
        yield float(is_covered.mean())


def get_training_digests(card: Mapping[str, Any]) -> set[str]:
    """Return the digests of the optical images that a model was adapted to."""
    entries = card.get("training", {}).get(TRAINED_ON) or ()
    records = [one for one in entries if isinstance(one, dict)]
    return {str(one.get("digest")) for one in records if one.get("role") == LIGHT}
