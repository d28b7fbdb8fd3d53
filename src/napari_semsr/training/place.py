"""Training of a small network on one area imaged by a light microscope and an SEM.

The network (`PlaceNet`) is trained from scratch on whole images on
one grid, in memory, by Adam at a constant rate. The result is the mean of its weights
over the last tenth of the steps, which is a good model at any time, so that the
training may be stopped at any step.

Most patches come from copies of the area with objects removed and added
(`pairing.add_defects`), whose changed pixels weigh more: otherwise the network draws
the usual structure even where it is missing. Their optical image is predicted by a
second network of that kind, trained from SEM to light, or by a linear filter if that
explains more; if neither explains enough, no copies are made.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import Tensor, nn

from napari_semsr import analysis, core, models
from napari_semsr.io import write_atomically
from napari_semsr.pairing import add_defects
from napari_semsr.restoration import fit_linear_filter
from napari_semsr.training.learner import check_finite
from napari_semsr.training.patches import scale_to_unit_range

ARCHITECTURE = "place"
STEPS = 960
"""Default number of training steps, determined with `benchmarks/adapt.py`."""
_BURST_S = 0.5  # between two calls of `should_stop`; chosen: feels immediate
_EVALUATION = 0.05  # share of the time that evaluation may take; chosen
_TRIAL = 0.05  # share of the time for numbers of threads that were slower; chosen
_MEAN = 9.0  # averages about the last 1 / (1 + 9) of the steps
_SAVE_S = 10.0  # between two saved states; chosen: the time that an interruption loses
_MIN_KNOWN = 0.5  # least share of a patch with SEM; chosen
_COPY_PX = 1 << 21  # pixels of a copy; chosen: bounds the memory to 200 MB
_FLOOR = 1e-12  # of the mean square, for SEM that equals light
_FORMAT = 2
_LIGHT_STEPS = 240  # of the network from SEM to light; chosen: 92 % explained in 15 s
_BLURS_PX = (0.0, 0.7, 1.4)  # of its SEM images; chosen: it is applied to outputs, too
_TESTED = 5  # the first row in so many tests it


class AreaOptions(core.Options):
    """Options for training on one area; the defaults are not from a publication."""

    # copies of the area with objects removed and added
    copies: int = Field(default=6, ge=0, le=64)
    # share of their pixels that is changed, and the weight of such pixels in the loss
    defect_share: float = Field(default=0.07, gt=0, le=0.5)
    defect_weight: float = Field(default=3.0, ge=1)
    # share of the optical image's variance that SEM must explain for copies to be made
    least_explained: float = Field(default=0.5, ge=0, le=1)
    # share of patches cut from copies
    from_copies: float = Field(default=0.85, ge=0, le=1)
    # side of a patch, and its border that the loss omits
    patch_px: int = Field(default=64, ge=32, le=512, multiple_of=2)
    border_px: int = Field(default=8, ge=0)
    # patches in one step
    batch: int = Field(default=6, ge=1)
    # of Adam, constant
    learning_rate: float = Field(default=2e-3, gt=0)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class AreaImages:
    """Optical and SEM images of one area on the same grid.

    Attributes
    ----------
    low, high : (Y, X) numpy.ndarray
        Optical and SEM image. NaN where they show nothing.
    held_out : (Y, X) numpy.ndarray of bool, optional
        Pixels excluded from training; the progress reports evaluate there.
    """

    low: core.RealArray
    high: core.RealArray
    held_out: core.BoolArray = field(default_factory=lambda: np.zeros((1, 1), bool))

    def __post_init__(self) -> None:
        if len(shapes := {self.low.shape, self.high.shape}) > 1:
            sizes = " and ".join(" x ".join(map(str, s)) for s in sorted(shapes))
            msg = f"Both images of an area must be on the same grid, got {sizes} px."
            raise core.ShapeError(msg, code="sizes-differ")

    @property
    def training_high(self) -> core.RealArray:
        """SEM image with NaN at the held-out pixels."""
        return np.where(self.held_out, np.nan, self.high)


@dataclass(frozen=True, slots=True)
class AreaProgress(core.Progress):
    """Progress of training on one area.

    Attributes
    ----------
    steps : int
        Steps done.
    seconds : float
        Time spent, including earlier runs that were resumed.
    gain_db : float or None
        PSNR of the model on the held-out pixels minus that of the optical image, both
        after the best gain and offset; None if nothing is held out, or it was not
        measured since the last report.
    gain_below_cutoff_db : float or None
        The same below the optical cut-off, without frequencies that light does not
        transmit; also None if the cut-off is unknown.
    images : tuple of numpy.ndarray
        Output of the model for the bounding box of each held-out part, in the grey
        values of the optical image; empty if it was not measured.
    """

    steps: int = field(kw_only=True)
    seconds: float = field(kw_only=True)
    gain_db: float | None = field(default=None, kw_only=True)
    gain_below_cutoff_db: float | None = field(default=None, kw_only=True)
    images: tuple[core.Float32Array, ...] = field(default=(), kw_only=True)


# what a state, a result and a model card have of a training
_RECORDED = (
    *("steps", "seconds", "curve"),
    *("light_explained", "copies", analysis.EXPLAINED),
)


@dataclass(frozen=True, slots=True)
class AreaFitResult:
    """Network trained on one area.

    Attributes
    ----------
    network : torch.nn.Module
        With the mean weights, in evaluation mode, on the CPU.
    levels : tuple of float
        Grey values of the optical image that the network receives as 0 and 1.
    steps : int
        Steps done.
    seconds : float
        Time spent.
    curve : list of dict
        ``steps, seconds, loss, gain_db, gain_below_cutoff_db`` of each report with an
        evaluation.
    light_explained : float or None
        Share of the optical image's variance, in a part of the training area, that a
        network or filter predicts from SEM; None if none was fitted.
    copies : int
        Copies with objects removed and added that it was trained on; 0 if too little of
        the optical image is explained.
    explained : dict or None
        `ExplainedDetail` of the held-out optical image, predicted from the output of
        the model; None without a cut-off, or if nothing is held out.
    state : dict
        State that `fit_area` can resume.
    """

    network: nn.Module
    levels: core.FloatPair
    steps: int
    seconds: float
    curve: list[dict[str, object]]
    light_explained: float | None
    copies: int
    explained: dict[str, Any] | None
    state: dict[str, Any] = field(repr=False)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild the trained network from a saved state."""
        network = models.build_network(ARCHITECTURE, {})
        network.load_state_dict(state["averaged"])
        numbers = {name: state[name] for name in _RECORDED}
        levels = tuple(state["levels"])
        return cls(network=network.eval(), levels=levels, state=state, **numbers)

    def create_card(self, name: str, **fields: Any) -> models.ModelCard:
        """Create the model card; `fields` are additional fields of `ModelCard`."""
        probe_result = models.probe_network(self.network, stride=2)
        effective = models.measure_effective_fields(
            self.network, stride=2, halo=probe_result.halo
        )
        training = {name: self.state[name] for name in (*_RECORDED, "options")}
        return models.ModelCard(
            name=name,
            architecture=ARCHITECTURE,
            stride=2,
            receptive_field=probe_result.halo or 0,
            effective_field=effective,
            **{
                "input_scaling": "levels",
                "input_levels": self.levels,
                **fields,
                "training": {**training, **fields.get("training", {})},
            },
        )


def explain_detail(
    model: models.LoadedModel,
    light_weights: Mapping[str, Tensor],
    images: Iterable[core.RealArray],
) -> analysis.ExplainedDetail | None:
    """Measure how much of the finest detail of optical images a model explains.

    Parameters
    ----------
    model : LoadedModel
        Model trained by `fit_area`.
    light_weights : mapping of str to torch.Tensor
        Weights of the network from SEM to light that was trained with it.
    images : iterable of (Y, X) numpy.ndarray
        Optical images, in units of the range that the model receives; the block in the
        middle of each is compared.

    Returns
    -------
    ExplainedDetail or None
        As in the training; None if the images are too small or the model states none.

    Raises
    ------
    CheckpointError
        If model card or weights are damaged.
    """
    place = analysis.ExplainedDetail.from_model_card(model.card.training)
    if place is None:
        return None
    network = models.build_network(ARCHITECTURE, {}).eval()
    try:
        network.load_state_dict(dict(light_weights))
    except RuntimeError as error:
        raise analysis.create_damaged_card_error("its training area") from error
    black, white = place.light_range
    side = analysis.get_detail_side(place.cut_off_px)
    pairs = []
    for light in images:
        predicted = _apply_network(network, _apply_network(model.module, light))
        y, x = ((n - side) // 2 for n in light.shape)
        inner = np.s_[y : y + side, x : x + side]
        pairs.append((light[inner], predicted[inner] * (white - black) + black))
    return analysis.ExplainedDetail.from_planes(
        pairs, place.cut_off_px, place.light_range
    )


def save_area_state(path: Path, state: dict[str, object]) -> None:
    """Save a training state of `fit_area` atomically."""
    with write_atomically(path) as partial:
        torch.save({"format": _FORMAT, **state}, partial)


def load_area_state(path: Path) -> dict[str, Any]:
    """Load a state saved by `save_area_state` without executing code in the file.

    Raises a `CheckpointError` if it cannot be read.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state.pop("format") == _FORMAT:
            return dict(state)
    except Exception as error:
        msg = f"Cannot read the training state {path}; train again (`overwrite`)."
        raise core.CheckpointError(msg, code="file-damaged") from error
    msg = f"The training state {path} was written by another version; train again."
    raise core.CheckpointError(msg, code="other-version")


def fit_area(
    images: Sequence[AreaImages],
    options: AreaOptions | None = None,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    threads: int = 2,
    device: str = "cpu",
    state: dict[str, object] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    report_every_s: float = 3.0,
    levels: core.FloatPair | None = None,
    cut_off_nm: float | None = None,
    pixel_size_nm: core.FloatPair | None = None,
    save: Callable[[dict[str, object]], None] = lambda _state: None,
) -> core.Job[AreaFitResult]:
    """Train a network on one area, from scratch or from a saved state.

    For the same options and steps the result is the same, however often it reports,
    stops and resumes; with more than one thread, up to rounding.

    Parameters
    ----------
    images : sequence of AreaImages
        Training images; several if SEM shows several parts.
    options : AreaOptions, optional
        Options of the training.
    seconds : float, optional
        Time after which the training ends, without its preparation; the time of
        earlier runs counts.
    steps : int, optional
        Steps after which it ends, if reached first; 960 if neither is given.
    threads : int, default=2
        Largest number of threads; fewer are used while that is faster, as on a busy
        machine.
    device : str, default="cpu"
        PyTorch device.
    state : dict, optional
        `AreaFitResult.state` of an earlier run with the same images and options, to
        resume.
    should_stop : callable, optional
        Called every half second; True ends the training with the current model.
    report_every_s : float, default=3.0
        Seconds between two evaluations on the held-out part; more if they would take
        more than a twentieth of the time.
    levels : tuple of float, optional
        Grey values of the optical image that the network receives as 0 and 1; by
        default the percentiles 0.1 and 99.9 of the images.
    cut_off_nm, pixel_size_nm : float and tuple of float, optional
        Shortest period that the light transmitted, and pixel size ``(y, x)``: with
        both, the gain below the cut-off is evaluated, too.
    save : callable, optional
        Receives the state every ten seconds, and when the job ends or is closed.

    Returns
    -------
    AreaFitResult
        The trained model.

    Yields
    ------
    Progress
        A `AreaProgress` every half second.

    Raises
    ------
    ShapeError
        If no patch of the images is usable.
    CheckpointError
        If the state belongs to other options.
    SemsrError
        If the loss is not finite.
    """
    options = options or AreaOptions()
    if seconds is None and steps is None:
        steps = STEPS
    yield core.Progress(0, 0, "preparing the area")
    trainer = _AreaTrainer(
        list(images), options, torch.device(device), (seconds, steps), levels
    )
    if cut_off_nm is not None and pixel_size_nm is not None:
        trainer.optics = cut_off_nm, pixel_size_nm
    if state is not None:
        trainer.load_state_dict(state)
    yield from trainer.prepare(
        partial(fit_area, threads=threads, device=device, should_stop=should_stop)
    )
    pace = _ThreadTuner(threads)
    last_save = now = time.monotonic()
    began, next_evaluation = now - trainer.seconds, now + report_every_s
    try:
        while not (should_stop() or trainer.is_done()):
            evaluation: _Evaluation = {}, ()
            with pace.use_fastest_count():
                before = trainer.steps
                trainer.run_burst(began)
                pace.record_time(trainer.steps - before)
                now = time.monotonic()
                if trainer.is_done() or now >= next_evaluation:
                    evaluation = trainer.evaluate()
                    took = time.monotonic() - now
                    now += took
                    next_evaluation = now + max(report_every_s, took / _EVALUATION)
            if now - last_save >= _SAVE_S:
                save(trainer.state_dict())
                last_save = now
            yield trainer.create_report(*evaluation)
    finally:
        save(trainer.state_dict())
    return trainer.current_fit()


_Evaluation = tuple[dict[str, float | None], tuple[core.Float32Array, ...]]
"""Gains on held-out areas, and the outputs there."""


class _ThreadTuner:
    """Selector of the thread count that currently gives the fastest steps.

    The threads of a step wait for each other: if other programs use the cores, a step
    with two takes much longer than with one. So one, half and all are tried, and those
    that were slower are tried again from time to time.
    """

    def __init__(self, most: int) -> None:
        self._step_s: dict[int, float] = dict.fromkeys((1, (most + 1) // 2, most), 0.0)
        self._due = dict.fromkeys(self._step_s, 0.0)  # when each is tried again
        self._count, self._start_time = 1, 0.0

    @contextmanager
    def use_fastest_count(self) -> Iterator[None]:
        """Set the number of threads for the next burst, and restore it afterwards."""
        self._start_time = time.monotonic()
        fastest = min(self._step_s, key=lambda count: self._step_s[count])
        due = (
            n for n, at in self._due.items() if n != fastest and at <= self._start_time
        )
        self._count = next(due, fastest) if self._step_s[fastest] else fastest
        usual = torch.get_num_threads()
        torch.set_num_threads(self._count)
        try:
            yield
        finally:
            torch.set_num_threads(usual)

    def record_time(self, steps: int) -> None:
        """Record the duration of the last burst."""
        now = time.monotonic()
        took = now - self._start_time
        self._step_s[self._count] = took / max(1, steps)
        self._due[self._count] = now + took / _TRIAL


@dataclass(frozen=True, slots=True)
class _TrainingPlanes:
    """Images from which patches are cut, and the corners of usable patches."""

    planes: Tensor  # (3, Y, X) light and SEM in units of their ranges, and weights
    corners: NDArray[np.intp]  # of patches, as flat pixel indices


class _AreaTrainer:
    """Network, optimiser, averaged weights and data of a training run."""

    def __init__(
        self,
        images: list[AreaImages],
        options: AreaOptions,
        device: torch.device,
        limits: tuple[float | None, int | None],
        levels: core.FloatPair | None,
    ) -> None:
        self.images, self.options, self.device = images, options, device
        self.most_seconds, self.most_steps = limits
        # cut-off and pixel size in nm, if the gain below the cut-off is evaluated
        self.optics: tuple[float, core.FloatPair] | None = None
        self.steps, self.seconds = 0, 0.0
        self.curve: list[dict[str, object]] = []
        self.levels = levels or _compute_common_range([i.low for i in images])
        self.sem_levels = _compute_common_range([i.training_high for i in images])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = models.build_network(ARCHITECTURE, {})
        layout = models.get_memory_layout(device)
        self.network: nn.Module = network.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.averaged_network = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=options.learning_rate
        )
        self.originals: list[_TrainingPlanes] = []
        self.copies: list[_TrainingPlanes] = []
        self.predict_light: Callable[[core.RealArray], core.RealArray] | None = None
        # the network from SEM to light, its weights, and the range of its output
        self.explain: Callable[[core.RealArray], core.RealArray] | None = None
        self.light_weights: dict[str, Tensor] | None = None
        self.light_range: core.FloatPair = (0.0, 1.0)
        self.light_explained: float | None = None
        self.explained: dict[str, Any] | None = None
        self._losses: list[float] = []

    # Data.

    def prepare(self, fit: Callable[..., core.Job[AreaFitResult]]) -> core.Job[None]:
        """Scale the images to their ranges and create the copies.

        `fit` is `fit_area` for another network.
        """
        units = [
            (
                scale_to_unit_range(i.low, self.levels),
                scale_to_unit_range(i.training_high, self.sem_levels),
            )
            for i in self.images
        ]
        self.originals = [self._create_planes(low, high) for low, high in units]
        if not any(part.corners.size for part in self.originals):
            msg = (
                f"No usable training patches: no square of {self.options.patch_px} px "
                "is fully covered by the optical image and at least half covered by "
                "the SEM image."
            )
            raise core.ShapeError(msg, code="nothing-to-train")
        if not self.options.copies or not self.options.from_copies:
            return
        yield from self._fit_light(units, fit)
        predict, share = self.predict_light, self.light_explained or 0.0
        if predict is None or share < self.options.least_explained:
            return
        for number in range(self.options.copies):
            yield core.Progress(number, self.options.copies, "copying the area")
            for part, (low, high) in enumerate(units):
                seed = (self.options.seed, number, part)
                rng, side = np.random.default_rng([*seed, 1]), int(_COPY_PX**0.5)
                starts = [int(rng.integers(max(0, n - side) + 1)) for n in low.shape]
                box = tuple(slice(start, start + side) for start in starts)
                how = {"share": self.options.defect_share}
                defects = add_defects(low[box], high[box], predict, seed, **how)
                planes = defects.low, defects.high, defects.change_mask
                self.copies.append(self._create_planes(*planes))

    def _fit_light(
        self,
        units: Sequence[tuple[core.Float32Array, core.Float32Array]],
        fit: Callable[..., core.Job[AreaFitResult]],
    ) -> core.Job[None]:
        """Choose what predicts a part of the light from SEM best: filter or network."""
        tests = []  # SEM image, optical image and tested pixels of each part
        for low, high in units:
            known = np.isfinite(low) & np.isfinite(high)
            rows = np.flatnonzero(known.any(axis=1))
            tested = np.zeros_like(known)
            tested[rows[: len(rows) // _TESTED]] = True
            sem = np.where(known, high, np.float32(np.nanmean(high)))
            tests.append((sem, np.where(known, low, np.float32(np.nan)), tested))
        if self.light_weights is None:
            job = fit(
                [
                    AreaImages(ndimage.gaussian_filter(sem, blur), light, tested)
                    for sem, light, tested in tests
                    for blur in _BLURS_PX
                ],
                self.options.replace(copies=0),
                steps=_LIGHT_STEPS,
                report_every_s=math.inf,
                levels=(0.0, 1.0),
            )
            found = yield from core.map_progress(
                job,
                lambda one: core.Progress(one.done, one.total, "learning the optics"),
            )
            self.light_weights = found.network.state_dict()
        network = models.build_network(ARCHITECTURE, {}).eval().to(self.device)
        network.load_state_dict(self.light_weights)
        black, white = _compute_common_range(
            [np.where(tested, np.nan, light) for _, light, tested in tests]
        )

        def predict(sem: core.RealArray) -> core.RealArray:
            return _apply_network(network, sem) * (white - black) + black

        self.explain, self.light_range = predict, (black, white)
        linear = fit_linear_filter([(high, low) for low, high in units])
        self.light_explained = 0.0
        for call in (linear.apply, predict):
            pairs = [(light[tested], call(sem)[tested]) for sem, light, tested in tests]
            light, predicted = (np.concatenate(one) for one in zip(*pairs, strict=True))
            known = np.isfinite(light) & np.isfinite(predicted)
            error = np.var((light - predicted)[known], dtype=float)
            share = 1 - error / max(np.var(light[known], dtype=float), _FLOOR)
            if share > self.light_explained:
                self.light_explained, self.predict_light = float(share), call

    def _create_planes(
        self,
        low: core.Float32Array,
        high: core.Float32Array,
        changed_area: core.BoolArray | None = None,
    ) -> _TrainingPlanes:
        """Stack optical image, SEM image and weights, and find the usable patches."""
        side, edge = self.options.patch_px, self.options.border_px
        finite = np.isfinite(low)
        weight = (finite & np.isfinite(high)).astype(np.float32)
        if min(low.shape) < side:
            return _TrainingPlanes(torch.empty(3, 0, 0), np.empty(0, np.intp))
        full = _compute_window_sums(finite, side) == side**2
        counts = _compute_window_sums(weight > 0, side - 2 * edge)
        rows, columns = full.shape
        counts = counts[edge : edge + rows, edge : edge + columns]
        y, x = np.nonzero(full & (counts >= _MIN_KNOWN * (side - 2 * edge) ** 2))
        if changed_area is not None:
            weight *= np.where(changed_area, np.float32(self.options.defect_weight), 1)
        planes = np.stack([np.nan_to_num(low), np.nan_to_num(high), weight])
        tensor = torch.from_numpy(planes.astype(np.float32)).to(self.device)
        return _TrainingPlanes(tensor, y * low.shape[1] + x)

    def sample_batch(self) -> Tensor:
        """Cut the patches of a step, (B, 3, side, side), with random orientations."""
        options = self.options
        rng = np.random.default_rng([options.seed, self.steps])
        side, cut = options.patch_px, []
        for _ in range(options.batch):
            uses_copies = self.copies and rng.random() < options.from_copies
            planes = self.copies if uses_copies else self.originals
            planes = [one for one in planes if one.corners.size] or self.originals
            sizes = np.array([one.corners.size for one in planes], float)
            one = planes[int(rng.choice(len(planes), p=sizes / sizes.sum()))]
            at = int(one.corners[rng.integers(one.corners.size)])
            y, x = divmod(at, one.planes.shape[2])
            patch = one.planes[:, y : y + side, x : x + side]
            turns, mirror = divmod(int(rng.integers(8)), 2)
            patch = torch.rot90(patch, turns, (1, 2))
            cut.append(patch.flip(2) if mirror else patch)
        return torch.stack(cut)

    # Steps.

    def run_burst(self, began: float) -> None:
        """Train for half a second or until the end of training."""
        start = time.monotonic()
        while not self.is_done():
            self.train_step()
            now = time.monotonic()
            self.seconds = now - began
            if now - start >= _BURST_S:
                return

    def train_step(self) -> None:
        """Train on one batch."""
        low, high, weight = (part[:, None] for part in self.sample_batch().unbind(1))
        layout = models.get_memory_layout(self.device)
        output = self.network(low.contiguous(memory_format=layout))
        edge = self.options.border_px
        part = np.s_[..., edge : -edge or None, edge : -edge or None]
        square = (weight * (output - high) ** 2)[part].sum((1, 2, 3))
        loss = (square / weight[part].sum((1, 2, 3)) + _FLOOR).mean().log()
        check_finite("loss is", loss, self.steps, low, high)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        self._losses.append(float(loss.detach()))
        share = (1 + _MEAN) / (self.steps + _MEAN)
        with torch.no_grad():
            both = self.averaged_network.parameters(), self.network.parameters()
            for mean, value in zip(*both, strict=True):
                mean.lerp_(value, share)

    def is_done(self) -> bool:
        """Return whether the time or step limit is reached."""
        late = self.most_seconds is not None and self.seconds >= self.most_seconds
        return late or (self.most_steps is not None and self.steps >= self.most_steps)

    # Results.

    @torch.no_grad()
    def evaluate(self) -> _Evaluation:
        """Return the gains on held-out areas (None without any) and the outputs."""
        before, after, previews = 0.0, 0.0, []
        lights: list[tuple[core.RealArray, core.RealArray]] = []
        below = np.zeros(2)  # squared errors before and after
        for one in self.images:
            if not one.held_out.any():
                continue
            rows, columns = ndimage.find_objects(one.held_out.astype(np.uint8))[0]
            part = core.Box(rows.start, rows.stop, columns.start, columns.stop)
            wide = part.grow(_CONTEXT_PX)
            wide = wide.intersection(core.Box.from_shape(one.held_out.shape))
            box, inner = wide.slices, part.relative_to(wide).slices
            low = scale_to_unit_range(one.low[box], self.levels)
            low = np.where(np.isfinite(low), low, np.float32(np.nanmean(low)))
            image = _apply_network(self.averaged_network, low)
            truth = one.high[box].astype(float)
            usable = one.held_out[box] & np.isfinite(one.low[box]) & np.isfinite(truth)
            if self.explain is not None:
                known = np.where(usable, low, np.float32(np.nan))
                lights.append((known[inner], self.explain(image)[inner]))
            before += _sum_squared_errors(low[usable], truth[usable])
            after += _sum_squared_errors(image[usable], truth[usable])
            if self.optics is not None and usable[inner].all():
                planes = (plane[inner].astype(float) for plane in (low, image, truth))
                light, output, target = (
                    analysis.split_frequencies(plane, *self.optics)[0]
                    for plane in planes
                )
                for number, plane in enumerate((light, output)):  # as `measure_metrics`
                    gain, _ = analysis.fit_gain_and_offset(plane, target)
                    below[number] += np.square(gain * plane - target).sum()
            else:
                below += np.nan
            black, white = self.levels
            span = np.float32(white - black)
            previews.append(image[inner] * span + np.float32(black))
        if lights and self.optics is not None:
            cut_off_px = self.optics[0] / math.sqrt(math.prod(self.optics[1]))
            found = analysis.ExplainedDetail.from_planes(
                lights, cut_off_px, self.light_range
            )
            self.explained = None if found is None else asdict(found)
        gains = {
            "gain_db": _compute_gain(before, after),
            "gain_below_cutoff_db": _compute_gain(*below.tolist()),
        }
        return gains, tuple(previews)

    def create_report(
        self, gains: dict[str, float | None], images: tuple[core.Float32Array, ...]
    ) -> AreaProgress:
        """Return the progress of the training."""
        loss = float(np.mean(self._losses)) if self._losses else math.nan
        if gains.get("gain_db") is not None:
            row = {"steps": self.steps, "seconds": round(self.seconds, 1)}
            self.curve.append({**row, "loss": loss, **gains})
            self._losses.clear()
        text = f"loss {loss:.3f}"
        if self.curve:
            key, name = analysis.choose_gain(self.curve[-1])
            text = f"{name} {self.curve[-1][key]:+.2f} {core.DB}"
        done, total, left = self.steps, self.most_steps or 0, None
        if self.most_seconds is not None:
            left = max(0.0, self.most_seconds - self.seconds)
            if self.most_steps is None:
                done = int(min(self.seconds, self.most_seconds))
                total = math.ceil(self.most_seconds)
        return AreaProgress(
            *(done, total, f"training, {text}", left),
            steps=self.steps,
            seconds=self.seconds,
            gain_db=gains.get("gain_db"),
            gain_below_cutoff_db=gains.get("gain_below_cutoff_db"),
            images=images,
        )

    def current_fit(self) -> AreaFitResult:
        """Return the current model with the state for resuming."""
        sums = torch.stack([p.sum() for p in self.averaged_network.parameters()])
        check_finite("weights are", sums, self.steps)
        return AreaFitResult.from_state(copy.deepcopy(self.state_dict()))

    def state_dict(self) -> dict[str, object]:
        """Return the state for `load_state_dict`."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "curve": self.curve,
            "levels": list(self.levels),
            "light": self.light_weights,
            "options": self.options.model_dump(mode="json"),
            "images": _digest_images(self.images),
            "light_explained": self.light_explained,
            "copies": self.options.copies if self.copies else 0,
            analysis.EXPLAINED: self.explained,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        same = state["options"] == self.options.model_dump(mode="json")
        same &= state.get("images") == _digest_images(self.images)
        if not same or not np.allclose(state["levels"], self.levels):
            msg = (
                "The saved state belongs to other images or options; resume with the "
                "original ones, or train again (`overwrite`)."
            )
            raise core.CheckpointError(msg, code="other-run")
        self.network.load_state_dict(state["network"])
        self.averaged_network.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
        self.curve = list(state["curve"])
        self.explained = state.get(analysis.EXPLAINED)
        self.light_weights = state.get("light")  # not of an earlier version


@torch.no_grad()
def _apply_network(network: nn.Module, image: core.RealArray) -> core.Float32Array:
    """Apply a network to an image (Y, X) of any size."""
    (rows, columns), parameter = image.shape, next(network.parameters())
    even = np.pad(image, ((0, rows % 2), (0, columns % 2)), mode="edge")
    planes = torch.from_numpy(even)[None, None].to(parameter)
    layout = models.get_memory_layout(parameter.device)
    output = network(planes.contiguous(memory_format=layout))
    return np.asarray(output[0, 0, :rows, :columns].float().cpu())


def _compute_gain(before: float, after: float) -> float | None:
    """Convert two sums of squared errors to a gain in dB; None without errors."""
    return 10 * math.log10(before / after) if before > 0 and after > 0 else None


def _digest_images(images: Sequence[AreaImages]) -> str:
    """Compute the digest of the images of a training, which identifies its state."""
    digest = hashlib.sha256()
    for image in images:
        for array in (image.low, image.high, image.held_out):
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _compute_common_range(images: Sequence[core.RealArray]) -> core.FloatPair:
    """Return the pooled 0.1 and 99.9 percentiles of all images."""
    greys = np.concatenate([image.ravel() for image in images])
    low, high = core.measure_percentiles(greys[None])
    return low, high if high > low else low + 1.0


def _compute_window_sums(values: core.BoolArray, side: int) -> NDArray[np.int64]:
    """Count the true pixels in each square of the given side, indexed by its corner."""
    table = np.pad(values.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    rows = table[side:] - table[:-side]
    return np.asarray(rows[:, side:] - rows[:, :-side])


_CONTEXT_PX = 96  # around a held-out part; chosen: more than the receptive field


def _sum_squared_errors(image: core.RealArray, truth: NDArray[Any]) -> float:
    """Sum the squared errors of pixels after fitting gain and offset."""
    gain, offset = analysis.fit_gain_and_offset(image[None].astype(float), truth[None])
    return float(((gain * image + offset - truth) ** 2).sum())
