"""Learn where a model errs, from fields whose truth is known, and calibrate it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from napari_semsr import inference, models, training
from napari_semsr.analysis import (
    REACH_PX,
    block_means,
    bound_factor,
    clues,
    distance_to_fields,
    error_scale,
    fit_scale,
    look_of_field,
)
from napari_semsr.core import (
    FloatArray,
    Job,
    Micrograph,
    Options,
    Progress,
    Quantity,
    WriteError,
    device_option,
    field_range,
    option,
    parse_pixel_size,
    run,
    software_versions,
)
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.models import MODEL_IN, find_model
from napari_semsr.jobs.trust.map import LOOK_PX
from napari_semsr.jobs.verb import FileIn, Output, Run, Verb

_FAR = 0.95  # share of fields of its own kind that a field of another is beyond
_LEAST_FIELDS = 20


class TrustLearning(Options):
    """How a model's errors are learnt."""

    fields: int = option(
        300,
        "",
        "fields that the scale of the error is learnt from",
        ge=_LEAST_FIELDS,
        le=100_000,
    )
    calibration: int = option(
        300,
        "",
        "other fields, on which the bound is calibrated",
        ge=_LEAST_FIELDS,
        le=100_000,
    )
    samples: int = option(400, "", "pixels of a field that are learnt", ge=10, le=65536)
    share: float = option(0.9, "", "of pixels whose error is to be below", gt=0.5, lt=1)
    seed: int = option(1_000_000, "", "makes the fields repeatable", ge=0, lt=1 << 32)
    device: str = device_option()


@dataclass(frozen=True, slots=True)
class TrustLearnt(Result):
    """What was learnt of a model's errors: the file that `trust` reads, and its bound.

    `median_bound_percent` is the middle of the bounds of the calibration's pixels.
    """

    output: str
    model: Annotated[str, Quantity("Model")]
    model_digest: str
    fields: Annotated[int, Quantity("Learnt from", "fields", "d")]
    calibration: Annotated[int, Quantity("Calibrated on", "other fields", "d")]
    share: Annotated[float, Quantity("Share of places below", form=".0%")]
    factor: Annotated[float, Quantity("Bound", "times the scale", ".3g")]
    median_bound_percent: Annotated[
        float, Quantity("Half of the bounds below", "% of the range", ".3g")
    ]


def _learn(run: Run[TrustLearning]) -> Job[TrustLearnt]:
    """Learn how far what a model makes may be off.

    Fields are made as the model's own recipe makes them, by another seed.
    """
    chosen, folder = run.options, run.named["folder"]
    yield Progress(0, 0, "loading the model")
    path = find_model(run.named["model"])
    target = run.target
    if target is None:
        target = models.trust_path(path)
        if target.exists() and not run.existing.overwrite:
            msg = f"{target} exists already; give overwrite to replace it."
            raise WriteError(msg)
        there = target.parent if target.parent.exists() else target.parent.parent
        if not (there.is_dir() and os.access(there, os.W_OK)):
            msg = f"{target.parent} cannot be written to; give another output."
            raise WriteError(msg)
    loaded = models.load_model(path)
    truths = training.Truths(
        loaded.card,
        side=LOOK_PX,
        seed=chosen.seed,
        folder=None if folder is None else Path(folder),
    )
    whole = chosen.fields + chosen.calibration
    rng = np.random.default_rng(chosen.seed)
    seen, errors = [], []
    for number in range(chosen.fields):
        yield Progress(number, whole, "learning where the model errs")
        one = _Example.of(truths, number, loaded, chosen.device)
        places = rng.integers(0, one.error.size, chosen.samples)
        seen.append(one.seen[places])
        errors.append(one.error[places])
    weights = fit_scale(np.concatenate(seen), np.concatenate(errors))
    scales, errors, looks = [], [], []
    for number in range(chosen.fields, whole):
        yield Progress(number, whole, "calibrating on other fields")
        one = _Example.of(truths, number, loaded, chosen.device)
        scales.append(error_scale(one.seen, weights).astype(np.float32))
        errors.append(one.error.astype(np.float32))
        looks.append(one.look)
    factor = bound_factor(errors, scales, chosen.share)
    fields = np.array(looks, dtype=float).round(4)
    away = distance_to_fields(fields, fields, among=True)
    median = factor * float(np.median(np.concatenate(scales)))
    trust = models.Trust(
        model=loaded.card.name,
        model_digest=loaded.digest,
        weights=tuple(weights.tolist()),
        share=chosen.share,
        factor=factor,
        fields=tuple(map(tuple, fields.tolist())),
        familiar=float(np.quantile(away, _FAR)),
        training={
            "options": chosen.model_dump(mode="json"),
            "median_bound_percent": round(100 * median, 2),
            "versions": software_versions(),
        },
    )
    models.save_trust(target, trust)
    return TrustLearnt(
        output=str(target),
        model=loaded.card.name,
        model_digest=loaded.digest,
        share=chosen.share,
        factor=factor,
        median_bound_percent=100 * median,
        fields=chosen.fields,
        calibration=chosen.calibration,
    )


@dataclass(frozen=True, slots=True)
class _Example:
    """Pixels of a field, without its border, and what is known of them."""

    seen: FloatArray  # (N, 12)
    error: FloatArray  # (N,)
    look: FloatArray  # (26,)

    @classmethod
    def of(
        cls,
        truths: "training.Truths",
        number: int,
        loaded: "models.LoadedModel",
        device: str,
    ) -> "_Example":
        """Enhance a field as a user would, and compare it with its truth."""
        low, high = truths.pair(number)
        pixel: Any = loaded.card.pixel_size_nm
        size = None if pixel is None else parse_pixel_size(pixel[0])
        image = Micrograph(low, size)
        options = inference.EnhanceOptions(dtype="float32", device=device)
        made = run(inference.enhance_array(image, loaded, options)).array()
        lazy = inference.spread_lazy(image, loaded, options)
        spread = lazy.compute(scheduler="synchronous")
        first, last = field_range(low, *loaded.card.input_percentiles)
        finer = made.shape[0] // low.shape[0]
        span = (last - first) if loaded.card.grey == "input" else 1.0
        offset = first if loaded.card.grey == "input" else 0.0
        parts = [
            ((values - start) / over).astype(float)
            for values, start, over in (
                (low, first, last - first),
                (block_means(made, finer), offset, span),
                (block_means(spread, finer), 0.0, span),
            )
        ]
        error = np.abs(made - high).astype(float) / span
        inner = (slice(REACH_PX, -REACH_PX),) * 2
        known = clues(*parts)[inner]
        return cls(
            known.reshape(-1, known.shape[-1]),
            block_means(error, finer)[inner].ravel(),
            look_of_field(*parts),
        )


MODELS_TRUST = Verb(
    "models trust",
    (),
    TrustLearning,
    TrustLearnt,
    _learn,
    files=(
        MODEL_IN,
        FileIn(
            "folder",
            "folder of the clear images that the model's recipe names, for one that "
            "learnt from images",
            flag="--folder",
            metavar="FOLDER",
        ),
    ),
    output=Output(
        "a .json file; by default in the folder trust beside the model, where semsr "
        "trust looks for it",
        required=False,
        ending=".json",
    ),
    reads=False,
)
