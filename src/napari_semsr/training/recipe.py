"""Recipes: YAML files that say how a model is made, validated before any work."""

import itertools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, NonNegativeFloat, model_validator

from napari_semsr.core import (
    OptionError,
    Options,
    ReadError,
    count_values,
    option,
    refuse_user_only,
    shorten,
    user_only_options,
)
from napari_semsr.io import read_text
from napari_semsr.models import list_bundled, read_card, resolve
from napari_semsr.pairing import AugmentOptions
from napari_semsr.simulation import DegradationRanges, FaultRanges, SsumPairOptions

Source = Literal["images", "superlens", "gold"]
_WHOLE_SOURCES = ({"images"}, {"superlens"})  # whose scenes are learnt from as a whole


class ImageEntry(Options):
    """One clear image."""

    file: str  # path below the data root
    crop_bottom: int = Field(default=0, ge=0)  # rows of data bar to leave out
    # by how much the image is reduced first: that averages its own noise, which a
    # network would learn to keep
    shrink: float = Field(default=1.0, ge=1, le=8)


class ScanEntry(Options):
    """Two scans of one place, registered: a fast and noisy one, and a slow one."""

    # paths below the root of scans; the slow one is on the grid of the fast one, and
    # NaN where it shows nothing
    low: str
    high: str
    crop_bottom: int = Field(default=0, ge=0)  # rows of data bar to leave out of both


class DataOptions(Options):
    """What a model is trained and judged on."""

    # store of pairs, made by ``semsr pairs``, relative to the recipe; in place of
    # images that are degraded
    pairs: str | None = None
    # share of a batch that is drawn from `sources` all the same, beside that store; by
    # way of a `bank`, for kind `supervised`
    drawn: float = Field(default=0.0, ge=0, lt=1)
    # relative shares of scenes that are degraded ``images``, or what a simulated
    # instrument sees: ``superlens`` (and an electron microscope), ``gold`` (at two
    # magnifications). Kind `restorer` takes images alone, or superlens alone.
    sources: dict[Source, NonNegativeFloat] = Field(default={"images": 1.0})
    # samples, microscope and noise that the source ``superlens`` draws from
    superlens: SsumPairOptions = SsumPairOptions()
    augment: AugmentOptions = AugmentOptions()  # how the pairs of a store are varied
    # folder of the images, relative to the recipe; may be overridden when training
    root: str = "."
    # clear images; those for validation choose the checkpoint and train nothing
    train: tuple[ImageEntry, ...] = ()
    validation: tuple[ImageEntry, ...] = ()
    # images that neither train nor validate, named so that a benchmark may use them
    held_out: tuple[ImageEntry, ...] = ()
    # real pairs of a fast and a slow scan, their folder relative to the recipe, and the
    # share of scenes that are cut from them; for the kind `restorer`
    scans: tuple[ScanEntry, ...] = ()
    scans_root: str = "."
    scanned: float = Field(default=0.0, ge=0, le=1)
    # share of clear scenes that are cut from the slow ones of `scans`: how soft a real
    # image is that nothing ails
    slow: float = Field(default=0.0, ge=0, le=1)
    # share of scenes that are drawn instead of cut from an image
    phantoms: float = Field(default=0.25, ge=0, le=1)
    # share of clear images that are softened first, so that a network learns that an
    # edge may be soft by nature; otherwise it sharpens what was never sharper
    soft: float = Field(default=0.3, ge=0, le=1)
    # largest Gaussian sigma of that softening
    soft_sigma_px: float = Field(default=1.5, gt=0)
    # shares of clear images whose grey levels follow a power law, and whose contrast is
    # turned over
    bent: float = Field(default=0.3, ge=0, le=1)
    inverted: float = Field(default=0.2, ge=0, le=1)
    # share of clear scenes that are put together of two, so that a network learns that
    # contrast may differ across a sample by nature
    patchwork: float = Field(default=0.0, ge=0, le=1)
    # side of a scene, which is degraded as a whole; a multiple of 16. Haze is found
    # from all of it.
    scene_px: int = Field(default=256, ge=32, le=4096, multiple_of=16)
    # side of the patches that the loss is taken on, and how many to a scene
    patch_px: int = Field(default=128, ge=16, le=2048)
    patches_per_scene: int = Field(default=2, ge=1, le=64)
    # scenes that are made ahead by `workers` processes, kept on disk, and drawn from at
    # random; 0 makes a new scene for every step. For a GPU, which learns faster than
    # scenes are made. One of 512 px takes 1 MiB, and 0.1 where a survey learns alone;
    # all take 64 GiB at most.
    bank: int = Field(default=0, ge=0, le=100_000)
    # where banks are kept, relative to the recipe, inside the folder of the run; None
    # is its folder ``banks``. Runs that want the same scenes share those of a folder
    # that a person gives to the training.
    bank_folder: str | None = None

    @model_validator(mode="after")
    def _some_source(self) -> Self:
        if sum(self.sources.values()) <= 0:
            msg = "sources must name one whose share is above 0"
            raise ValueError(msg)
        return self

    def learnt_and_judged(self) -> list[str]:
        """Name files that are learnt from and judge, or that judge twice."""
        lists = {"learnt": self.train, "validation": self.validation}
        lists["held_out"] = self.held_out
        places = {
            name: {os.path.normpath(Path(self.root, entry.file)) for entry in entries}
            for name, entries in lists.items()
        }
        places["learnt"] |= {
            os.path.normpath(Path(self.scans_root, file))
            for entry in self.scans
            for file in (entry.low, entry.high)
        }
        twice = itertools.combinations(places.values(), 2)
        return sorted({Path(file).name for a, b in twice for file in a & b})


Adversarial = Literal["least-squares", "cross-entropy", "relativistic"]
EdgeOperator = Literal["sobel", "prewitt", "kirsch"]


class KernelOptions(Options):
    """A blur that stands for the second generator of a cycle, known or learnt."""

    # standard deviation of a Gaussian
    sigma_px: float = Field(default=1.0, gt=0, le=50)
    # odd side of the square that it is cut to
    size_px: int = Field(default=7, ge=1, le=301)
    # image or array (``.npy``) of a measured point-spread function, relative to the
    # recipe, in place of the Gaussian
    file: str | None = None
    # standard deviation of noise that is added after the blur, on the unit scale. A
    # blur alone loses little, and the generator would learn to raise detail of which a
    # real image, rounded to 8 bits (about 0.0015), has none left.
    noise: float = Field(default=0.0, ge=0, le=1)
    # the Gaussian is where it begins; what it is, is learnt from both sets of images,
    # as their spectra and a discriminator tell
    learnt: bool = False

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.size_px % 2 == 0:
            msg = f"size_px of the kernel must be odd, got {self.size_px}"
            raise ValueError(msg)
        return self


class GanOptions(Options):
    """Discriminators, terms of the loss, and their weights."""

    # which network judges images, and its arguments
    discriminator: str = "patch-gan"
    discriminator_options: dict[str, Any] = Field(default_factory=dict)
    # the discriminator sees the degraded image beside the clear one, as in Pix2Pix
    conditional: bool = False
    # how scores become a loss; the last is the relativistic average of ESRGAN
    adversarial: Adversarial = "least-squares"
    # how a prediction is compared with its truth (`paired-gan`)
    content: Literal["l1", "mse"] = "l1"
    # weights of the generator's terms; the latter in `paired-gan` alone
    adversarial_weight: float = Field(default=1.0, ge=0)
    content_weight: float = Field(default=100.0, ge=0)
    # shares of adversarial, content and total-variation term in the loss, from which
    # weights are found during the first steps and kept; replaces the weights
    shares: tuple[float, float, float] | None = None
    # over how many steps the shares are measured
    calibration_steps: int = Field(default=200, ge=1)
    # steps at the start in which the content alone counts; in a cycle, generators copy
    # images of the kind that they are to make, or learn `start_sigma_px`
    content_only_steps: int = Field(default=0, ge=0)
    # of a cycle: what `content_only_steps` teach on clear images. The way back learns a
    # Gaussian blur of this width, and the other generator to undo it, so that neither
    # begins as a copy; 0 for copies.
    start_sigma_px: float = Field(default=0.0, ge=0, le=2)
    # how what came back, and what was to stay, are compared (`cycle-gan`)
    cycle: Literal["l1", "ssim"] = "l1"
    # their weights, and that of the edges (`cycle-gan`)
    cycle_weight: float = Field(default=10.0, ge=0)
    identity: Literal["l1", "mse"] = "l1"
    identity_weight: float = Field(default=5.0, ge=0)
    edge_weight: float = Field(default=0.0, ge=0)
    # share of the gradient of a round trip from clear images that reaches the way back,
    # which begins it; 1 in all papers. All of it teaches that one to pass on the detail
    # that it should lose, and none lets it lose what an image shows.
    back_share: float = Field(default=1.0, ge=0, le=1)
    # standard deviation of noise on what is passed on halfway, on the unit scale, so
    # that no detail hides below the noise of real images
    cycle_noise: float = Field(default=0.0, ge=0, le=1)
    edge_operator: EdgeOperator = "sobel"  # how edges are found (`cycle-gan`)
    # the discriminator learns at every n-th step
    discriminator_every: int = Field(default=1, ge=1)
    # its learning rate over the generator's
    discriminator_rate: float = Field(default=1.0, gt=0)
    # factors of the generators' adversarial loss, ½ by Gao's equation 9, and of the
    # discriminators'
    generator_factor: float = Field(default=1.0, gt=0)
    discriminator_factor: float = Field(default=0.5, gt=0)
    # generated images that are remembered for it; 0 for the newest alone
    history: int = Field(default=50, ge=0, le=1000)
    # network that makes degraded images (`cycle-gan`); like the other if not given
    back_architecture: str | None = None
    back_options: dict[str, Any] = Field(default_factory=dict)
    # a physical blur in place of the second generator (`cycle-gan`)
    kernel: KernelOptions | None = None

    @model_validator(mode="after")
    def _positive_shares(self) -> Self:
        if self.shares is not None and min(self.shares) <= 0:
            msg = f"shares must be positive, got {self.shares}"
            raise ValueError(msg)
        return self


HiddenReach = Annotated[int, Field(ge=0, le=16)]


class HiddenOptions(Options):
    """Which pixels of a noisy image are hidden from a network that is to tell them."""

    # one pixel is hidden in each square of this side
    every_px: int = Field(default=3, ge=2, le=64)
    # rows and columns on either side of it that are hidden with it, since their noise
    # is like its own; None measures that on the images
    reach: tuple[HiddenReach, HiddenReach] | None = None


SAME = "same"
FILES = ("start_from", "local_from", "data.pairs", "gan.kernel.file")
"""Options that name a file or a model."""

_MOST_STEPS = 10**9  # chosen: years of the shortest
_MOST_VALUES = 10_000  # chosen: the longest recipe of ours has a hundred

Decay = Annotated[float, Field(ge=0, lt=1)]


class Recipe(Options):
    """How a model is made."""

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    # which training it is: a plain loss; an `InformedRestorer`, from whole scenes whose
    # faults are known; generator and discriminator on pairs; two generators without
    # pairs; the degraded patches alone, a pixel of which is told by those around it
    kind: Literal["supervised", "restorer", "paired-gan", "cycle-gan", "blind-spot"] = (
        "supervised"
    )
    description: str = ""
    limits: str = ""
    licence: str = "BSD-3-Clause"
    # network and its arguments; ``same`` is that of `start_from`
    architecture: str = "two-scale"
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    data: DataOptions = DataOptions()
    # what is done to clear images: Gao's sets drawn wider, and for the kind `restorer`
    # the faults of a microscope
    degradations: DegradationRanges = DegradationRanges()
    faults: FaultRanges = FaultRanges()
    # of the kind `restorer`: all but the sharpener, or what finds faults alone, a fifth
    # of the work, or what mends them alone, or what is told the blur alone; the other
    # parts stay as they are
    learns: Literal["all", "survey", "local", "sharpener"] = "all"
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    batch: int = Field(default=16, ge=1, le=4096)
    # bundled model, or model file relative to the recipe, whose weights are taken over
    # where names and shapes agree; with those of discriminators and the way back, if
    # the file has them
    start_from: str | None = None
    # model file whose weights the local part takes over after that, where the network
    # looks at the whole field first
    local_from: str | None = None
    # stop at this step, before the schedule ends
    stop_after: int | None = Field(default=None, ge=1)
    # stop when this many validations brought nothing better
    early_stop: int | None = Field(default=None, ge=1)
    # optimiser steps; the learning rate rises over the first, stays, and falls to zero
    # over the last
    steps: int = Field(default=20000, ge=1, le=_MOST_STEPS)
    warmup_steps: int = Field(default=200, ge=0)
    decay_steps: int = Field(default=6000, ge=0)
    # time that the run may take; the schedule then follows the clock where that is
    # further than the steps. Such a run depends on the machine.
    minutes: float | None = Field(default=None, gt=0)
    # form of the fall; the last multiplies by `milestone_factor` at each of the steps
    # in `milestones`
    schedule: Literal["cosine", "linear", "milestones"] = "cosine"
    milestones: tuple[int, ...] = ()
    milestone_factor: float = Field(default=0.5, gt=0, le=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    # Adam's decays; largest norm of a gradient
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip_norm: float | None = Field(default=1.0, gt=0)
    # decay of the running mean of the weights, which is then what is judged and saved;
    # 0 for none
    ema: Decay = 0.0
    # steps between validations; a killed run loses what it learnt since its last save,
    # five minutes and a step at most
    validate_every: int = Field(default=500, ge=1)
    # held-out figure that chooses the checkpoint; `hidden_db` for `blind-spot` alone,
    # which has no other, and the expected gain, which no truth is asked for, for
    # `cycle-gan` alone
    measure: Literal[
        "gain_db", "ssim", "frc_per_px", "hidden_db", "expected_gain_db"
    ] = "gain_db"
    # whether the Fourier ring correlation with the truth is among the figures
    cross_frc: bool = False
    # loss of the kind `supervised`; `restorer` has ``log-mse``
    loss: Literal["l1", "mse", "log-mse"] = "l1"
    # by what part of a pixel each truth is moved along each axis, so that it lies best
    # on what the network makes of its patch, before they are compared: real pairs are
    # registered no better than that. For `supervised` and the content of `paired-gan`;
    # held-out figures are taken alike.
    shift_px: float = Field(default=0.0, ge=0, le=1)
    # weight of the data term, for an `InformedRestorer`: the microscope that took a
    # scene must see in the output what it saw in the truth
    data_weight: float = Field(default=0.0, ge=0)
    gan: GanOptions = GanOptions()  # what the kinds with discriminators minimise
    hidden: HiddenOptions = HiddenOptions()  # which pixels the kind `blind-spot` hides
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # compile the local network, which takes a minute at the start and pays on a GPU
    compiled: bool = False
    # processors and machines that learn together, each from a batch of its own: the
    # gradients of all are averaged, as if the batch were that many times as large. They
    # listen to each other, so that a person gives them, and no recipe.
    devices: int = option(1, user_only=True, ge=1, le=1024)
    nodes: int = option(1, user_only=True, ge=1, le=1024)
    workers: int = Field(default=1, ge=0, le=64)

    @property
    def adversarial(self) -> bool:
        """Whether discriminators take part."""
        return self.kind in ("paired-gan", "cycle-gan")

    @property
    def blind(self) -> bool:
        """Whether it learns from degraded patches alone."""
        return self.kind == "blind-spot"

    @property
    def draws(self) -> bool:
        """Whether scenes are drawn, in place of a store of pairs or beside it."""
        return self.data.pairs is None or self.data.drawn > 0

    @property
    def is_unpaired(self) -> bool:
        """Whether clear patches show another place than the degraded ones."""
        return self.kind == "cycle-gan"

    @property
    def whole_scenes(self) -> bool:
        """Whether whole scenes are learnt from, with their faults, not only patches."""
        return self.kind == "restorer"

    def with_steps(self, steps: int) -> Self:
        """Stretch the recipe to so many steps, all parts of its schedule alike."""
        share = steps / self.steps

        def scale_count(count: int) -> int:
            return round(count * share)

        stop = self.stop_after
        return self.replace(
            steps=steps,
            stop_after=None if stop is None else max(1, scale_count(stop)),
            warmup_steps=scale_count(self.warmup_steps),
            decay_steps=scale_count(self.decay_steps),
            milestones=tuple(scale_count(milestone) for milestone in self.milestones),
            validate_every=min(self.validate_every, steps),
            gan=self.gan.replace(
                content_only_steps=scale_count(self.gan.content_only_steps)
            ),
        )

    def settle(self) -> Self:
        """Fill in the architecture, where it is that of a model to start from."""
        if self.architecture != SAME or self.start_from is None:
            return self
        card = read_card(resolve(self.start_from))
        return self.replace(
            architecture=card.architecture, architecture_options=card.options
        )

    def without_folders(self) -> dict[str, Any]:
        """Write the recipe as a card may carry it: files are named without folders."""
        folders = {"data": {"root", "scans_root", "bank_folder"}}
        plain = self.model_dump(mode="json", exclude=folders)
        for name in FILES:
            table, last = _holder(plain, name)
            if table.get(last) is not None:
                table[last] = Path(table[last]).name
        return plain

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse options that contradict each other."""
        data, restores = self.data, self.kind == "restorer"
        beside = data.pairs is not None and data.bank > 0 and self.batch > 1
        refusals = {
            "the measure frc_per_px needs cross_frc: true": (
                self.measure == "frc_per_px" and not self.cross_frc
            ),
            "the measure expected_gain_db needs kind cycle-gan": (
                self.measure == "expected_gain_db" and not self.is_unpaired
            ),
            "kind blind-spot and the measure hidden_db need each other": (
                self.blind != (self.measure == "hidden_db")
            ),
            "architecture: same needs start_from, a model that has one": (
                self.architecture == SAME and self.start_from is None
            ),
            "kind restorer degrades images itself; for a store of pairs give kind: "
            "supervised": restores and data.pairs is not None,
            "shift_px is for pairs, kind supervised or paired-gan, got kind "
            f"{self.kind}": (
                self.shift_px > 0 and self.kind not in ("supervised", "paired-gan")
            ),
            f"learns: {self.learns} is for kind restorer alone, got {self.kind}": (
                self.learns != "all" and not restores
            ),
            "kind restorer learns from images alone, or from superlens alone": (
                restores and set(data.sources) not in _WHOLE_SOURCES
            ),
            "the share drawn is for kind supervised, beside pairs, with a bank and a "
            "batch of two or more": (
                data.drawn > 0 and not (beside and self.kind == "supervised")
            ),
            f"patch_px must not exceed scene_px, got {data.patch_px} and "
            f"{data.scene_px}": self.draws and data.patch_px > data.scene_px,
        }
        for sentence, holds in refusals.items():
            if holds:
                raise ValueError(sentence)
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe; paths in it are made absolute.

    It may name another file under ``include``, whose options hold where it gives none
    of its own; those of ``data`` one by one. A `ReadError` if the file is missing or is
    no YAML; an `OptionError` if a key is unknown or a value out of range, or a person's
    alone to give.
    """
    values = _values(path)
    persons = user_only_options(Recipe)
    usual = {name: Recipe.model_fields[name].default for name in persons}
    option_names = [name for name in values if values[name] != usual.get(name)]
    refuse_user_only(option_names, persons, f"The recipe {path.name}")
    return _absolute(Recipe.parse(values), path.parent)


def _holder(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Find the table that holds an option, named with dots, and its name there."""
    *above, last = name.split(".")
    table: Any = values
    for part in above:
        table = table.get(part) if isinstance(table, dict) else None
    return (table if isinstance(table, dict) else {}), last


def _values(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a table of options, and what it includes, which it may override."""
    above = (*above, path.resolve())
    try:
        values = yaml.safe_load(read_text(path))
        count = count_values(values)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        msg = f"The recipe {path} cannot be read as YAML: {reason}."
        is_absent = isinstance(error, FileNotFoundError)
        code = "file-missing" if is_absent else "recipe-invalid"
        raise ReadError(msg, code=code) from error
    if count > _MOST_VALUES:
        msg = (
            f"A recipe must hold at most {_MOST_VALUES} values, with what aliases "
            f"repeat, got more in {path}."
        )
        raise OptionError(msg, code="recipe-invalid")
    if not isinstance(values, dict):
        type_name = type(values).__name__
        msg = f"A recipe must be a YAML table of options, got {type_name} in {path}."
        raise OptionError(msg, code="recipe-invalid")
    other = values.pop("include", None)
    if other is None:
        return values
    source = path.parent / str(other)
    if _follow_links(source) in above:
        msg = f"A recipe must not include itself, got {source} in {path}."
        raise OptionError(msg, code="recipe-invalid")
    base_values = _values(source, above)
    tables = [table.get("data") or {} for table in (base_values, values)]
    if not all(isinstance(table, dict) for table in tables):
        msg = f"Option data must be a table of options, in {path} and in {source}."
        raise OptionError(msg, code="recipe-invalid")
    return {**base_values, **values, "data": {**tables[0], **tables[1]}}


def _follow_links(path: Path) -> Path:
    """Follow links on the way to a file that a recipe names."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"A recipe must name files, got {shorten(str(path))}: {error}."
        raise OptionError(msg, code="recipe-invalid") from error


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Make the paths of a recipe absolute, which are relative to its folder."""
    plain = recipe.model_dump()
    for name in (*FILES, "data.root", "data.scans_root", "data.bank_folder"):
        table, last = _holder(plain, name)
        value = table.get(last)
        model = name in ("start_from", "local_from") and value in list_bundled()
        if value is not None and not model:
            table[last] = str(_follow_links(folder / value))
    return Recipe.parse(plain)
