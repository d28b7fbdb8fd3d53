"""Map how far a picture that a network made may be off, block by block."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np

from napari_semsr import inference, models
from napari_semsr.analysis import (
    REACH_PX,
    clues,
    common_field,
    distance_to_fields,
    error_scale,
    look_of_field,
    measure_misfit,
    read_on,
    spread_boxes,
)
from napari_semsr.core import (
    LEVELS,
    Box,
    CheckpointError,
    DisplaySettings,
    Float32Array,
    FloatArray,
    FloatPair,
    Grid,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Options,
    Progress,
    Provenance,
    Quantity,
    ShapeError,
    device_option,
    field_range,
    figure,
    gap_free_box,
    option,
    parse_pixel_size,
    recorded,
    warn,
)
from napari_semsr.io import ReadOptions, count_planes
from napari_semsr.jobs.images import (
    computed,
    digest_image,
    digest_values,
    keep_map,
    record_file,
)
from napari_semsr.jobs.models import find_model
from napari_semsr.jobs.verb import (
    MAP_OUT,
    FileIn,
    ImageIn,
    MapMade,
    Run,
    Verb,
)

_BLOCK = 512  # pixels along each side of what is mapped at once; chosen
LOOK_PX = 256  # side of the blocks by which a field is told from others; chosen
_LOOKS = 16  # of them, evenly spread; chosen
_SHOWN = 4  # of them, from which colours are chosen
_LEAST_LOOK_PX = 64  # the coarsest power that a look tells
_BINS = 2000  # of the bound, from 0 to `_MOST`, for its percentile
_MOST = 2.0  # of the range: no bound says more
_RANGE = "% of the range"
_USUAL = 0.5  # of the blocks beyond the limit; from there a field is unfamiliar
_UNLIKE = "the field is unlike those that taught the limit"
# Options that shape the result, and with whose defaults the bound was calibrated. The
# mean of a self-ensemble errs no more than its poses do on average.
_SHAPING = (
    *("strength", "denoise", "deblur", "dehaze", "haze", "noise_percent", "blur_px"),
    "norm",
)

AS_MEASURED, LOOK_TWICE, DOUBTFUL = "as measured", "look twice", "doubtful"
VERDICTS = {AS_MEASURED: "#4ca3dd", LOOK_TWICE: "#e69f00", DOUBTFUL: "#c34b78"}
"""What is thought of a place, and its colour; every eye tells them apart."""
# Where the bounds of these begin and end, of the range. Noise of quick electron scans
# is 4 to 8 % of theirs, and 90 % of it lies within 1.64 times as much: up to a tenth a
# network errs no more than a scan does. Two materials are some half of the range apart,
# so that by more than a quarter one is taken for the other.
_LIMITS = 0.1, 0.25
_MOST_SHOWN = 0.5  # of the range, in the map: one for all, so that maps compare
_TEN = 10
_STEP = 1e-4  # of the colours' way, over which one turns into the next


class TrustOptions(Options):
    """What is mapped."""

    show: Literal["bound", "spread"] = option(
        "bound",
        "Map",
        "bound: the likely error, below which the error is in the stated share of such "
        "places; spread: by how much the model differs from itself over flips and "
        "turns, which every model has",
        choices={"the likely error": "bound", "the spread over turns": "spread"},
    )
    unit: Literal["percent", "grey"] = option(
        "percent",
        "Unit",
        "unit of the map: per cent of the range that the model works on, or grey "
        "levels of the enhanced image",
        choices={"% of the range": "percent", "grey levels": "grey"},
    )
    device: str = device_option()


def _percent(kind: str, which: str, *told: str, **more: Any) -> property:
    """Make the property of a figure of a kind, which the model may not have."""
    return figure(lambda made: (made.kinds[kind] or {}).get(which), *told, **more)


# what a record tells of the bound, and of the spread and the misfit, which have less
_OF_KIND = {
    "mean": Quantity("Mean", "%", ".3g"),
    "p95": Quantity("95 % below", "%", ".3g"),
    **{name: Quantity(name.capitalize(), "% of places", ".0f") for name in VERDICTS},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustReport(MapMade):
    """How far an enhanced image may be off, block by block.

    `mean` and `p95` are of the map's pixels, in per cent of `range`, the grey levels
    between the percentiles of the input that the model works on. `kinds` are the same
    by name: ``bound`` (None where the model has none), ``spread``, and ``misfit``, what
    of the image the enhanced one does not explain, in per cent of its contrast (None
    where the image is hardly more than noise). In `share` of such places the error is
    below the bound. Where a field, or how it was enhanced, is not `familiar`, not like
    what the bound was calibrated on, or was not compared with it, the bound promises
    nothing, and `doubt` says why; `unfamiliar_fraction` is that of the field's
    blocks of 256 px which are farther than 19 of 20 of the calibration's fields. The
    bound of ``kinds`` says besides of what share of the places what is thought: as
    measured where it is below 10 %, doubtful above 25 %, else look twice.
    """

    pixel_size_sd_nm: FloatPair | None = field(metadata={"json": False})
    model: Annotated[str, Quantity("Model")]
    model_digest: Annotated[str, recorded("Model digest")]
    shown: Annotated[str, recorded("Shown")]
    mean: Annotated[float, recorded("Map, mean", _RANGE)]
    p95: Annotated[float, recorded("Map, 95 % below", _RANGE)]
    kinds: Annotated[dict[str, Any], recorded("Of each kind", keys=_OF_KIND)]
    share: Annotated[float | None, Quantity("Places that err less", form=".0%")]
    familiar: Annotated[bool | None, Quantity("Familiar", shown=False)]
    unfamiliar_fraction: Annotated[
        float | None, Quantity("Unfamiliar blocks", shown=False)
    ]
    doubt: Annotated[str | None, recorded("Doubt")] = None
    range: Annotated[FloatPair, recorded("Range", LEVELS)]

    bound_mean_percent = _percent(
        "bound", "mean", "Likely error", _RANGE, ".1f", verdict="verdict", large=True
    )

    def legend(self) -> dict[str, str]:
        """Say of the colours of the map what they mean, and of how many places."""
        bound = self.kinds["bound"]
        if self.shown != "bound" or bound is None:
            return {}
        ends = [f"{100 * limit:.0f} %" for limit in _LIMITS]
        parts = f"up to {ends[0]}", f"up to {ends[1]}", f"above {ends[1]}"
        return {
            colour: f"{name} ({part} of the range): {bound[name]:.0f} % of the places"
            for (name, colour), part in zip(VERDICTS.items(), parts, strict=True)
        }

    spread_mean_percent = _percent("spread", "mean", "Spread over turns", _RANGE, ".3g")
    spread_p95_percent = _percent("spread", "p95", "Spread, 95 % below", _RANGE, ".3g")

    @property
    def judged(self) -> str | None:
        """What is thought of it: one of `VERDICTS`; None where nothing was learnt."""
        mean = self.bound_mean_percent
        if mean is None:
            return None
        if self.doubt is not None:
            return DOUBTFUL
        places = int(np.searchsorted(_LIMITS, mean / 100, side="right"))
        return tuple(VERDICTS)[places]

    @property
    def verdict(self) -> str | None:
        """Say it, and how many places err more."""
        if self.judged is None or self.share is None:
            return None
        if self.doubt is not None:
            return f"{DOUBTFUL}, since {self.doubt}"
        one = round(1 / (1 - self.share))
        count = "ten" if one == _TEN else str(one)
        return f"{self.judged}; one in {count} places errs more than the map says"

    as_measured_percent = _percent(
        "bound", AS_MEASURED, "Places as measured", "%", ".0f"
    )
    look_twice_percent = _percent(
        "bound", LOOK_TWICE, "Places to look twice at", "%", ".0f"
    )
    doubtful_percent = _percent("bound", DOUBTFUL, "Doubtful places", "%", ".0f")
    bound_p95_percent = _percent(
        "bound", "p95", "Likely error, 95 % below", _RANGE, ".1f"
    )
    misfit_percent = _percent("misfit", "mean", "Misfit", "% of the contrast", ".3g")

    @property
    def kind_of_field(
        self,
    ) -> Annotated[str | None, Quantity("Kind of field", tabled=False)]:
        """Whether the bound holds for such a field."""
        if self.unfamiliar_fraction is None:
            return None
        like = "like" if self.unfamiliar_fraction < _USUAL else "unlike"
        said = f"{like} those that the likely error was calibrated on"
        said += f"; {self.unfamiliar_fraction:.0%} of its blocks are unlike them"
        return said if self.familiar else f"{said}, and nothing warrants it here"


_SIZES = ("pixel_size_nm", "pixel_size_sd_nm")


def _map_trust(run: Run[TrustOptions]) -> Job[TrustReport]:
    chosen = run.options
    _open(run)
    yield from _tell_another(run)
    before, after = run.images["image"], run.images["enhanced"]
    known = _Known.of(after, run.named.get("model"), chosen)
    yield Progress(0, 0, "measuring the range of grey levels")
    span = field_range(before.data, *known.loaded.card.input_percentiles)
    history = yield from known.history(run)
    tally = {"bound": _Tally(), "spread": _Tally()}
    folder = None if run.target is None else run.target.parent
    with tempfile.TemporaryFile(dir=folder) as scratch:  # for the spread
        spread = yield from _spread(before, after, known, scratch)
        asked = _TrustInputs.of(before, after, spread, span, known)
        unfamiliar = yield from asked.unfamiliar()
        factor = 100.0 if chosen.unit == "percent" else asked.grey
        blocks = partial(asked.blocks, chosen.show, tally, factor)
        about = _about(asked, chosen, factor).replace(provenance=history)
        made = yield from keep_map(blocks, about, run.target, block=_BLOCK)
    misfit = yield from measure_misfit(before, after)
    kinds: dict[str, Any] = {name: one.told() for name, one in tally.items()}
    if kinds["bound"] is not None:
        kinds["bound"] |= tally["bound"].shares()
    kinds["misfit"] = None if misfit is None else {"mean": 100 * misfit.share}
    shown = kinds[chosen.show] or {"mean": float("nan"), "p95": float("nan")}
    doubt = known.doubt(before, after, unfamiliar)
    if doubt is not None and chosen.show == "bound":
        message = f"Nothing warrants the likely error of {after.name}: {doubt}."
        if doubt == _UNLIKE:
            message = (
                f"{before.name} is unlike the fields that the likely error of "
                f"{known.loaded.card.name} was calibrated on, in {unfamiliar:.0%} of "
                "its blocks; nothing warrants what it says here."
            )
        warn(message)
    return TrustReport(
        **run.facts(about),
        mean=shown["mean"],
        p95=shown["p95"],
        output=run.output,
        model=known.loaded.card.name,
        model_digest=known.loaded.digest,
        shown=chosen.show,
        kinds=kinds,
        share=None if known.trust is None else known.trust.share,
        familiar=None if unfamiliar is None else doubt is None,
        unfamiliar_fraction=unfamiliar,
        doubt=doubt,
        range=span,
        unit=chosen.unit,
        shape=asked.field.shape,
        map=made,
    )


def _open(run: Run[TrustOptions]) -> None:
    """Open both images, of two stacks the same plane, as they were to be enhanced."""
    given, plane = run.given["enhanced"], run.opening.plane
    if plane is not None and not isinstance(given, Micrograph):
        several = Path(given).exists() and count_planes(Path(given)) > 1
        run.readings["enhanced"] = ReadOptions(plane=plane if several else None)
    run.open("enhanced")
    after = run.images["enhanced"]
    _check_grey(after)
    reading = _enhanced_by(after).get("reading")
    if run.opening == ReadOptions(plane=plane) and isinstance(reading, dict):
        if isinstance(run.given["image"], Micrograph):  # which has been read
            reading = {key: reading.get(key) for key in _SIZES}
        own = {} if plane is None else {"plane": plane}
        run.opening = ReadOptions.parse(reading | own)  # unless the user says how
    run.open("image")
    run.images["enhanced"] = _placed(run.images["image"], after)


def knows_errors(model: str | os.PathLike[str]) -> bool:
    """Tell whether something was learnt of a model's errors."""
    try:
        path = find_model(model)
        place = models.trust_path(path)
        trust = models.load_trust(place) if place.is_file() else None
    except CheckpointError:
        return False
    return trust is not None and trust.model_digest == models.file_digest(path)


@dataclass(frozen=True, slots=True)
class _Known:
    """A model, how it was run, and what is known of its errors."""

    path: Path
    loaded: "models.LoadedModel"
    options: inference.EnhanceOptions
    trust: "models.Trust | None"

    @classmethod
    def of(
        cls,
        after: Micrograph,
        model: str | os.PathLike[str] | None,
        options: TrustOptions,
    ) -> "_Known":
        path = _model_of(after, model)
        loaded = models.load_model(path)
        _check_made_by(after, loaded, asked=model is not None)
        trust = _trust_of(path, loaded, needed=options.show == "bound")
        fields = inference.EnhanceOptions.model_fields
        told = {k: v for k, v in _enhanced_by(after).items() if k in fields}
        how = inference.EnhanceOptions.parse(told).replace(device=options.device)
        return cls(path, loaded, how, trust)

    def doubt(
        self, before: Micrograph, after: Micrograph, unfamiliar: float | None
    ) -> str | None:
        """Say why the bound promises nothing here, if it does not."""
        if self.trust is None:
            return None
        usual, made = inference.EnhanceOptions(), after.provenance
        own = self.options
        if made is not None and made.network() and made.essence().job != "enhance":
            return f"the image was changed after the model ran ({made.essence().job})"
        changed = [
            f"{name.replace('_', ' ')} {getattr(own, name)}"
            for name in _SHAPING
            if getattr(own, name) not in (getattr(usual, name), "whole")
        ]
        if changed:
            said = ", ".join(changed)
            return f"it was enhanced with {said}, and the defaults taught the limit"
        card = self.loaded.card.model_dump()
        trained = inference.TrainedPixelSizes.from_card(card)
        fit = inference.fit_pixels(before.pixel_size_nm, trained, own.resample)
        if fit.steps is None and fit.seen_nm is not None and fit.note:
            return "the model ran on pixels of another size than it was trained for"
        if unfamiliar is None:
            return "no block of the field could be compared with those that taught it"
        return _UNLIKE if unfamiliar >= _USUAL else None

    def history(self, run: Run[TrustOptions]) -> Job[Provenance]:
        """Compose the history of the map, with the machine that runs the model."""
        guides = [record_file(self.path, "model")]
        if self.trust is not None:
            guides.append(record_file(models.trust_path(self.path), "trust"))
        made = yield from run.history(*guides)
        return made.model_copy(
            update=inference.made_by_model(self.options, self.loaded)
        )


def _enhanced_by(after: Micrograph) -> dict[str, Any]:
    """Give the options by which an image was enhanced, as far as it tells."""
    made = after.provenance
    if made is None or made.essence().job != "enhance":
        return {}
    jobs = [step.job for step in made.steps()]
    cropped = "crop" in jobs[: jobs.index("enhance")]  # as the image is, by itself
    return made.essence().options | ({"reading": None} if cropped else {})


def _check_grey(after: Micrograph) -> None:
    """Refuse an enhanced image in a type that no step of its history chose."""
    made = after.provenance
    if made is None or made.essence().job != "enhance" or after.dtype.kind == "f":
        return
    if str(after.dtype) not in {step.options.get("dtype") for step in made.steps()}:
        msg = (
            f"The grey values of {after.name} were stretched to {after.dtype} when it "
            "was written: give the enhanced image as .ome.tif or .ome.zarr."
        )
        raise OptionError(msg)


def _tell_another(run: Run[TrustOptions]) -> Job[None]:
    """Warn where the image is not the one that was enhanced, nor a part or copy."""
    before, after = run.images["image"], run.images["enhanced"]
    made = None if after.provenance is None else after.provenance.essence()
    if made is None or made.job != "enhance" or not made.inputs:
        return
    taken, record = made.inputs[0], (yield from run.record("image"))
    known = {*_copied(record)}
    if not known.isdisjoint(_copied(taken)):
        return
    if not isinstance(run.given["image"], Micrograph):
        known.add((yield from digest_values(before)))  # a layer may have been enhanced
    elif before.path is not None and Path(before.path).exists():
        known.add((yield from digest_image(Path(before.path))))
    elif taken.path is not None:
        return  # grey values do not tell of which file they are
    if known.isdisjoint(_copied(taken)):
        warn(
            f"{before.name} is not the image that {after.name} was made of, or was "
            "changed since: give that one, as the map says nothing of another."
        )


def _copied(record: InputRecord) -> Iterator[str]:
    """Give the digests of an image, and of what it is a part or copy of."""
    if record.digest is not None:
        yield record.digest.partition("#")[0]  # of a stack's planes the file's
    made = record.provenance
    if made is not None and made.job in ("crop", "convert") and made.inputs:
        yield from _copied(made.inputs[0])


def _placed(before: Micrograph, after: Micrograph) -> Micrograph:
    """Give an enhanced image without a pixel size that of its image, by its shape."""
    size = before.pixel_size_nm
    if size is None and after.pixel_size_nm is not None:
        msg = (
            f"Both images must have a pixel size, or none, and {before.name} alone has "
            "none; give pixel_size_nm."
        )
        raise ShapeError(msg)
    if size is None or after.pixel_size_nm is not None:
        return after
    finer = np.divide(size, np.divide(after.shape, before.shape))
    return after.replace(pixel_size_nm=parse_pixel_size(finer), origin=before.origin)


def _model_of(after: Micrograph, model: str | os.PathLike[str] | None) -> Path:
    if model is not None:
        return find_model(model)
    found = after.provenance.network() if after.provenance is not None else None
    if found is None:
        msg = (
            f"An enhanced image must tell its model, and {after.name} tells none; name "
            "the model."
        )
        raise OptionError(msg)
    try:
        return find_model(found[0])
    except CheckpointError:  # a file that is on no shelf, where it was then
        steps = after.provenance.steps() if after.provenance is not None else ()
        records = [one for step in steps for one in step.guides if one.role == "model"]
        paths = [Path(one.path) for one in records if one.path]
        there = next((path for path in paths if path.is_file()), None)
        if there is None:
            raise
        return there


def _check_made_by(
    after: Micrograph, loaded: "models.LoadedModel", *, asked: bool
) -> None:
    """Refuse a model that did not make an image, unless the user named it."""
    found = after.provenance.network() if after.provenance is not None else None
    if found is None or found[1] == loaded.digest:
        return
    said = f"{after.name} was made by {found[0]}, not by {loaded.card.name}"
    if found[0] == loaded.card.name:
        said = f"{after.name} was made by another file of {found[0]} than the one here"
    if not asked:
        msg = f"{said}; name that file as the model."
        raise CheckpointError(msg)
    warn(f"{said}: the map tells how far this one would be off.")


def _trust_of(
    path: Path, loaded: "models.LoadedModel", *, needed: bool
) -> "models.Trust | None":
    """Read what was learnt of a model's errors."""
    place = models.trust_path(path)
    name = loaded.card.name
    trust = models.load_trust(place) if place.is_file() else None
    if trust is not None and trust.model_digest == loaded.digest:
        return trust
    if not needed:
        return None
    msg = (
        f"Nothing was learnt of the errors of {name}: run semsr models trust {name}, "
        "or show the spread, which needs nothing."
    )
    if trust is not None:
        msg = (
            f"What was learnt of the errors of {name} is of another file of it; run "
            f"semsr models trust {name} --overwrite."
        )
    raise CheckpointError(msg)


def _spread(
    before: Micrograph, after: Micrograph, known: _Known, scratch: IO[bytes]
) -> Job[Micrograph]:
    """Run the model on the field in all its turns, tile by tile, into a file."""
    from dask.array.core import slices_from_chunks

    lazy = inference.spread_lazy(before, known.loaded, known.options)
    if lazy.shape != after.shape:
        msg = (
            f"The enhanced image must be what {known.loaded.card.name} makes of the "
            f"image, {lazy.shape[0]} x {lazy.shape[1]} px, got {after.shape[0]} x "
            f"{after.shape[1]} px."
        )
        raise ShapeError(msg)
    scratch.truncate(4 * after.shape[0] * after.shape[1])
    values = np.memmap(scratch, np.float32, "r+", shape=after.shape)
    places = slices_from_chunks(lazy.chunks)
    for number, place in enumerate(places):
        yield Progress(number, len(places), "turning and flipping the field")
        values[place] = lazy[place].compute(scheduler="synchronous")
    return after.replace(data=values, name="spread")


@dataclass(frozen=True, slots=True)
class _TrustInputs:
    """Images on one grid, and what was learnt of the model's errors."""

    images: tuple[Micrograph, Micrograph, Micrograph]  # before, after, spread
    lies: tuple[Grid, Grid, Grid]
    grid: Grid
    field: Box  # of the grid, which all show
    span: FloatPair  # grey levels before that are 0 and 1 to the model
    own: bool  # whether the enhanced image has grey levels of its own, 0 to 1
    trust: "models.Trust | None"

    @classmethod
    def of(
        cls,
        before: Micrograph,
        after: Micrograph,
        spread: Micrograph,
        span: FloatPair,
        known: _Known,
    ) -> "_TrustInputs":
        """Lay the images over each other."""
        lies = Grid.of(before), Grid.of(after)
        grid, place = common_field(*lies)
        if place is None:
            msg = f"{after.name} must show the place of {before.name}; they lie apart."
            raise ShapeError(msg)
        own = known.loaded.card.grey != "input"
        images = before, after, spread
        return cls(images, (*lies, lies[1]), grid, place, span, own, known.trust)

    def read(self, box: Box) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Read a part of all three, on the model's scale."""
        parts = [
            read_on(image, of, self.grid, box)
            for image, of in zip(self.images, self.lies, strict=True)
        ]
        low, high = self.span
        size = high - low or 1.0
        before = (parts[0] - low) / size
        if self.own:
            return before, parts[1], parts[2]
        return before, (parts[1] - low) / size, parts[2] / size

    def asked(self, box: Box) -> tuple[FloatArray, FloatArray | None]:
        """Give spread and bound of a part, NaN where nothing is known."""
        grown = box.grow(REACH_PX).intersection(self.field)
        parts = self.read(grown)
        known = np.isfinite(parts).all(axis=0)
        inner = box.within(grown).slices
        spread = np.where(known, parts[2], np.nan)[inner]
        if self.trust is None:
            return spread, None
        if not known.any():
            return spread, np.full_like(spread, np.nan)
        filled = [np.where(known, part, part[known].mean()) for part in parts]
        scale = error_scale(clues(*filled), np.array(self.trust.weights))
        bound = np.minimum(self.trust.factor * scale, _MOST)
        return spread, np.where(known, bound, np.nan)[inner]

    @property
    def grey(self) -> float:
        """From the model's scale to grey levels of the enhanced image."""
        return 1.0 if self.own else float(self.span[1] - self.span[0])

    def blocks(
        self, show: str, tally: dict[str, "_Tally"], factor: float, boxes: list[Box]
    ) -> Iterator[Float32Array]:
        """Map boxes, which count from the field's corner, and count their pixels."""
        moved = [box.moved((self.field.y0, self.field.x0)) for box in boxes]
        for spread, bound in computed(self.asked, moved):
            tally["spread"].add(spread)
            if bound is not None:
                tally["bound"].add(bound)
            shown = spread if show == "spread" or bound is None else bound
            yield (shown * factor).astype(np.float32)

    def brightest(self) -> float:
        """Tell where the colours of a spread are to end, from some of its blocks."""
        boxes = spread_boxes(self.field, _SHOWN, LOOK_PX)
        values = np.concatenate([self.asked(box)[0].ravel() for box in boxes])
        known = values[np.isfinite(values)]
        return max(float(np.percentile(known, 99.5)), 1e-3) if known.size else 1.0

    def unfamiliar(self) -> Job[float | None]:
        """Tell the share of blocks that are unlike the calibration's fields."""
        if self.trust is None:
            return None
        whole = spread_boxes(self.field, None, LOOK_PX)
        whole = [box for box in whole if min(box.shape) == LOOK_PX] or whole[:1]
        places = np.linspace(0, len(whole) - 1, min(len(whole), _LOOKS))
        boxes, looks = [whole[round(float(place))] for place in places], []
        for number, box in enumerate(boxes):
            yield Progress(number, len(boxes), "comparing the field with others")
            parts = np.array(self.read(box))
            free = np.asarray(np.isfinite(parts).all(axis=0))
            clear = gap_free_box(free, least=_LEAST_LOOK_PX)
            if clear is not None:
                looks.append(look_of_field(*parts[:, *clear.slices]))
        if not looks:
            return None
        far = distance_to_fields(np.array(looks), np.array(self.trust.fields))
        return float((far > self.trust.familiar).mean())


class _Tally:
    """Mean and percentile of what is mapped, counted as it comes."""

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self.bins = np.zeros(_BINS, np.int64)

    def add(self, values: FloatArray) -> None:
        known = values[np.isfinite(values)]
        self.count += known.size
        self.total += float(known.sum())
        places = np.minimum(known * (_BINS / _MOST), _BINS - 1).astype(int)
        self.bins += np.bincount(places, minlength=_BINS)

    def told(self) -> dict[str, float] | None:
        """Give mean and 95th percentile in per cent; None of nothing."""
        if not self.count:
            return None
        place = int(np.searchsorted(self.bins.cumsum(), 0.95 * self.count))
        p95 = (place + 0.5) * _MOST / _BINS
        return {"mean": 100 * self.total / self.count, "p95": 100 * p95}

    def shares(self) -> dict[str, float]:
        """Give in per cent how many places each verdict has."""
        ends = [0, *(round(limit * _BINS / _MOST) for limit in _LIMITS), _BINS]
        parts = [int(self.bins[low:high].sum()) for low, high in pairwise(ends)]
        shares = (100 * part / self.count for part in parts)
        return dict(zip(VERDICTS, shares, strict=True))


def _about(asked: _TrustInputs, options: TrustOptions, factor: float) -> Micrograph:
    """Give the map its place, its pixels and its look."""
    before, after, _ = asked.images
    finer = after if asked.grid.pitch == asked.lies[1].pitch else before
    look: dict[str, Any]
    name, unit = "likely error", "%" if options.unit == "percent" else "grey levels"
    if options.show == "spread":
        name, top, look = "spread", asked.brightest(), {"colormap": "magma"}
    else:  # a colour for each verdict, which lasts until just before the next begins
        top, ends = _MOST_SHOWN, [limit / _MOST_SHOWN for limit in _LIMITS]
        places = [0.0, *(end for limit in ends for end in (limit - _STEP, limit)), 1.0]
        twice = [
            (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)
            for colour in VERDICTS.values()
            for _ in range(2)
        ]
        look = {"colormap": "trust", "colours": tuple(twice), "places": tuple(places)}
    return finer.replace(
        data=np.broadcast_to(np.float32(0), asked.field.shape),
        name=f"{name} of {after.name} ({unit})",
        origin=asked.grid.centre(asked.field) if before.pixel_size_nm else (0.0, 0.0),
        metadata={},
        look=DisplaySettings(
            limits=(0.0, top * factor),
            opacity=0.6,  # what it judges lies under it
            interpolation="linear",
            colour_bar=True,
            **look,
        ),
    )


TRUST = Verb(
    "trust",
    (
        ImageIn("image", "what was enhanced", batch="{input}"),
        ImageIn(
            "enhanced",
            "what was made of it",
            batch="{previous}",
            reading=lambda *_: ReadOptions(),
        ),
    ),
    TrustOptions,
    TrustReport,
    _map_trust,
    opens=False,  # the enhanced image tells how the other is read
    files=(
        FileIn(
            "model",
            "what made it (default: the model that the enhanced image names)",
            flag="--model",
            metavar="MODEL",
        ),
    ),
    output=MAP_OUT,
    title="map",
    tabled=True,
    example="""
    >>> grey = np.random.default_rng(0).random((64, 64)).astype("float32")
    >>> image = semsr.Micrograph(grey, (20, 20), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.enhance(image, f"{folder}/made.ome.zarr", model="ssum-sem")
    ...     found = semsr.trust(image, made.output, show="spread")
    >>> found.model, found.map.shape
    ('ssum-sem', (64, 64))
    """,
)
