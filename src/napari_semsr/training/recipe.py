"""Recipes: YAML files that define model training, validated before a run starts."""

import itertools
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from napari_semsr import core
from napari_semsr.io import read_text
from napari_semsr.models import list_bundled_models, read_card, resolve_model_path
from napari_semsr.pairing import AugmentOptions
from napari_semsr.simulation import DegradationRanges, FaultRanges, SsumPairOptions

Source = Literal["images", "superlens", "gold"]
_WHOLE_SOURCES = ({"images"}, {"superlens"})  # for training on whole scenes


class ImageEntry(core.Options):
    """Entry for one clear image."""

    file: str  # path below the data root
    crop_bottom: int = Field(default=0, ge=0)  # rows of the data bar to leave out
    # factor by which the image is reduced first: that averages its own noise, which a
    # network would learn to preserve
    shrink: float = Field(default=1.0, ge=1, le=8)


class ScanEntry(core.Options):
    """Entry for two registered scans of one area: a fast, noisy one and a slow one."""

    # paths below the root of scans; the slow one is resampled to the grid of the fast
    # one, and NaN outside
    low: str
    high: str
    crop_bottom: int = Field(default=0, ge=0)  # rows of data bar to leave out of both


class DataOptions(core.Options):
    """Options of the data that a model is trained and evaluated on."""

    # store of pairs, made by ``semsr pairs``, relative to the recipe; replaces images
    # that are degraded
    pairs: str | None = None
    # share of a batch that comes from `sources` in addition to that store; needs a
    # `bank` and kind `supervised`
    drawn: float = Field(default=0.0, ge=0, lt=1)
    # relative shares of degraded ``images`` and of simulated instruments: ``superlens``
    # (with SEM), ``gold`` (SEM at two magnifications). Kind `restorer` takes images
    # only, or superlens only.
    sources: dict[Source, NonNegativeFloat] = Field(default={"images": 1.0})
    # samples, microscope and noise of the source ``superlens``
    superlens: SsumPairOptions = SsumPairOptions()
    augment: AugmentOptions = AugmentOptions()  # how the pairs of a store are varied
    # folder of the images, relative to the recipe; may be overridden when training
    root: str = "."
    # clear images; those for validation only select the checkpoint
    train: tuple[ImageEntry, ...] = ()
    validation: tuple[ImageEntry, ...] = ()
    # images used neither for training nor for validation, listed for benchmarks
    held_out: tuple[ImageEntry, ...] = ()
    # real pairs of a fast and a slow scan, their folder relative to the recipe, and the
    # share of scenes cut from them; for kind `restorer`
    scans: tuple[ScanEntry, ...] = ()
    scans_root: str = "."
    scanned: float = Field(default=0.0, ge=0, le=1)
    # share of clear scenes cut from the slow ones of `scans`, which show how soft good
    # real images are
    slow: float = Field(default=0.0, ge=0, le=1)
    # share of scenes that are simulated instead of cut from an image
    phantoms: float = Field(default=0.25, ge=0, le=1)
    # range of factors by which clear images are reduced besides, at any angle and drawn
    # log-uniformly; for kind `restorer` where more noise is added than they have, as
    # what they show beside it is no detail
    averaged: core.FloatPair | None = None
    # share of clear images that are blurred first, so that a network learns that edges
    # may be soft; otherwise it sharpens every edge
    soft: float = Field(default=0.3, ge=0, le=1)
    # largest Gaussian sigma of that blur
    soft_sigma_px: float = Field(default=1.5, gt=0)
    # shares of clear images whose grey values are changed by a power law, and whose
    # contrast is inverted
    bent: float = Field(default=0.3, ge=0, le=1)
    inverted: float = Field(default=0.2, ge=0, le=1)
    # share of clear scenes composed of two, so that a network learns that contrast may
    # vary across a sample
    patchwork: float = Field(default=0.0, ge=0, le=1)
    # side of a scene, which is degraded as a whole; a multiple of 16. Haze is estimated
    # from the whole scene.
    scene_px: int = Field(default=256, ge=32, le=4096, multiple_of=16)
    # side of the patches that the loss is computed on, and their number per scene
    patch_px: int = Field(default=128, ge=16, le=2048)
    patches_per_scene: int = Field(default=2, ge=1, le=64)
    # scenes made in advance by `workers` processes, stored on disk and sampled at
    # random; 0 makes a new scene for every step. For a GPU, which trains faster than
    # scenes are made. A scene of 512 px takes 1 MiB, or 0.1 if only the survey is
    # trained; all take 64 GiB at most.
    bank: int = Field(default=0, ge=0, le=100_000)
    # folder of banks, relative to the recipe, inside the folder of the run; None is its
    # folder ``banks``. A user may choose another folder when training, which runs that
    # need the same scenes can share.
    bank_folder: str | None = None

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if sum(self.sources.values()) <= 0:
            msg = "sources must name one whose share is above 0"
            raise ValueError(core.Message(msg, "sources-empty"))
        return self

    def find_duplicate_files(self) -> list[str]:
        """Return the names of files that occur in more than one image set."""
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


class KernelOptions(core.Options):
    """Options of the blur that replaces the second generator of a CycleGAN."""

    # standard deviation of a Gaussian
    sigma_px: float = Field(default=1.0, gt=0, le=50)
    # odd side of the square that it is cropped to
    size_px: int = Field(default=7, ge=1, le=301)
    # image or array (``.npy``) of a measured point-spread function, relative to the
    # recipe; replaces the Gaussian
    file: str | None = None
    # standard deviation of noise added after the blur, for grey values of 0 to 1. A
    # blur alone loses little, and the generator would learn to amplify detail below the
    # rounding of real 8-bit images (about 0.0015).
    noise: float = Field(default=0.0, ge=0, le=1)
    # fit the kernel, starting from the Gaussian, to the spectra of both sets of images
    # and by a discriminator
    learnt: bool = False

    @model_validator(mode="after")
    def _check_odd_size(self) -> Self:
        if self.size_px % 2 == 0:
            msg = f"size_px of the kernel must be odd, got {self.size_px}"
            raise ValueError(core.Message(msg, "kernel-invalid"))
        return self


class GanOptions(core.Options):
    """Options of the discriminators, loss terms and loss weights."""

    # discriminator network, and its arguments
    discriminator: str = "patch-gan"
    discriminator_options: dict[str, Any] = Field(default_factory=dict)
    # the discriminator sees the degraded image, too, as in Pix2Pix
    conditional: bool = False
    # form of the loss; the last is the relativistic average of ESRGAN
    adversarial: Adversarial = "least-squares"
    # loss between a prediction and its ground truth (`paired-gan`)
    content: Literal["l1", "mse"] = "l1"
    # weights of the generator's terms; the latter only for `paired-gan`
    adversarial_weight: float = Field(default=1.0, ge=0)
    content_weight: float = Field(default=100.0, ge=0)
    # shares of adversarial, content and total-variation term in the loss; their weights
    # are computed in the first steps and then fixed. Replaces the weights.
    shares: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    # number of steps over which the shares are measured
    calibration_steps: int = Field(default=200, ge=1)
    # initial steps with the content loss only; in a cycle, generators learn to copy
    # images of their output's kind, or `start_sigma_px`
    content_only_steps: int = Field(default=0, ge=0)
    # in a cycle: during `content_only_steps` the second generator learns a Gaussian
    # blur of this width on clear images, and the first one to undo it, so that neither
    # starts as a copy; 0 for copies
    start_sigma_px: float = Field(default=0.0, ge=0, le=2)
    # losses of cycle and identity, and the weights of cycle, identity and edges
    # (`cycle-gan`)
    cycle: Literal["l1", "ssim"] = "l1"
    cycle_weight: float = Field(default=10.0, ge=0)
    identity: Literal["l1", "mse"] = "l1"
    identity_weight: float = Field(default=5.0, ge=0)
    edge_weight: float = Field(default=0.0, ge=0)
    # share of the gradient of a cycle from clear images that reaches the second
    # generator, which starts that cycle; 1 in all papers. With 1 that generator learns
    # to preserve detail that it should lose; with 0 it may lose the content.
    back_share: float = Field(default=1.0, ge=0, le=1)
    # standard deviation of noise added halfway through a cycle, for grey values of 0 to
    # 1, so that no detail is hidden below the noise of real images
    cycle_noise: float = Field(default=0.0, ge=0, le=1)
    edge_operator: EdgeOperator = "sobel"  # of the edge term (`cycle-gan`)
    # the discriminator is trained at every n-th step
    discriminator_every: int = Field(default=1, ge=1)
    # its learning rate over the generator's
    discriminator_rate: float = Field(default=1.0, gt=0)
    # factors of the generators' adversarial loss, ½ by Gao's equation 9, and of the
    # discriminators'
    generator_factor: float = Field(default=1.0, gt=0)
    discriminator_factor: float = Field(default=0.5, gt=0)
    # number of generated images stored for it; 0 for the newest only
    history: int = Field(default=50, ge=0, le=1000)
    # network that makes degraded images (`cycle-gan`); by default like the other
    back_architecture: str | None = None
    back_options: dict[str, object] = Field(default_factory=dict)
    # a blur that replaces the second generator (`cycle-gan`)
    kernel: KernelOptions | None = None


HiddenReach = Annotated[int, Field(ge=0, le=16)]


class MaskingOptions(core.Options):
    """Options of the pixels that are masked and predicted by the network."""

    # one pixel is masked in each square of this side
    every_px: int = Field(default=3, ge=2, le=64)
    # rows and columns on either side of it that are masked, too, since their noise is
    # correlated; None measures this on the images
    reach: tuple[HiddenReach, HiddenReach] | None = None


SAME = "same"
FILES = ("start_from", "local_from", "data.pairs", "gan.kernel.file")
"""Options that contain the name of a file or a model."""

_MAX_STEPS = 10**9  # chosen: years of the shortest steps
_MAX_VALUES = 10_000  # chosen: our longest recipe has a hundred

Decay = Annotated[float, Field(ge=0, lt=1)]


class Recipe(core.Options):
    """Recipe for training a model: data, network and training."""

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    # kind of training: a pixel loss; an `InformedRestorer` on whole scenes with known
    # faults; generator and discriminator on pairs; two generators without pairs; noisy
    # patches only, masked pixels of which are predicted
    kind: Literal["supervised", "restorer", "paired-gan", "cycle-gan", "blind-spot"] = (
        "supervised"
    )
    description: str = ""
    limits: str = ""
    licence: str = "BSD-3-Clause"
    # network and its arguments; ``same`` takes those of `start_from`
    architecture: str = "two-scale"
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    data: DataOptions = DataOptions()
    # degradation of clear images: wider ranges than Gao's, and for kind `restorer` the
    # faults of a microscope
    degradations: DegradationRanges = DegradationRanges()
    faults: FaultRanges = FaultRanges()
    # parts of an `InformedRestorer` to train: all but the sharpener, the survey that
    # detects faults (a fifth of the work), the local part that corrects them, that part
    # and the survey of noise and blur where there is noise (elsewhere they remain what
    # they were), or the sharpener; the other parts stay fixed
    learns: Literal["all", "survey", "local", "noise", "sharpener"] = "all"
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    batch: int = Field(default=16, ge=1, le=4096)
    # bundled model, or model file relative to the recipe, whose weights are loaded
    # where names and shapes agree, with those of discriminators and the second
    # generator if the file has them
    start_from: str | None = None
    # model file for the weights of the local part, loaded after that, for networks with
    # a survey of the whole field
    local_from: str | None = None
    # stop at this step, before the schedule ends
    stop_after: int | None = Field(default=None, ge=1)
    # stop after this many validations without improvement
    early_stop: int | None = Field(default=None, ge=1)
    # optimiser steps; the learning rate rises over `warmup_steps`, is constant, and
    # falls to zero over `decay_steps`
    steps: int = Field(default=20000, ge=1, le=_MAX_STEPS)
    warmup_steps: int = Field(default=200, ge=0)
    decay_steps: int = Field(default=6000, ge=0)
    # time limit of the run; the schedule then follows the clock if that is ahead of the
    # steps. Such a run depends on the machine.
    minutes: float | None = Field(default=None, gt=0)
    # form of the decay; the last multiplies by `milestone_factor` at each of the steps
    # in `milestones`
    schedule: Literal["cosine", "linear", "milestones"] = "cosine"
    milestones: tuple[int, ...] = ()
    milestone_factor: float = Field(default=0.5, gt=0, le=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    # Adam's decay rates; largest norm of a gradient
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip_norm: float | None = Field(default=1.0, gt=0)
    # decay of the exponential moving average of the weights, which is then evaluated
    # and saved; 0 for none
    ema: Decay = 0.0
    # steps between validations; a killed run loses the steps since its last save, five
    # minutes and a step at most
    validate_every: int = Field(default=500, ge=1)
    # held-out figure that selects the checkpoint; `hidden_db` is the only one of
    # `blind-spot`; the expected gain, which needs no ground truth, is for `cycle-gan`
    measure: Literal[
        "gain_db", "ssim", "frc_per_px", "hidden_db", "expected_gain_db"
    ] = "gain_db"
    # whether the figures include the Fourier ring correlation with the ground truth
    cross_frc: bool = False
    # loss of kind `supervised`; `restorer` always uses ``log-mse``
    loss: Literal["l1", "mse", "log-mse"] = "l1"
    # largest shift, in pixels along each axis, by which the ground truth is aligned
    # with the output before they are compared, since real pairs have such registration
    # errors. For `supervised` and the content of `paired-gan`, and for held-out
    # figures.
    shift_px: float = Field(default=0.0, ge=0, le=1)
    gan: GanOptions = GanOptions()  # of the kinds with discriminators
    hidden: MaskingOptions = MaskingOptions()  # of kind `blind-spot`
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # compile the local network, which takes a minute at the start; worthwhile on a GPU
    compiled: bool = False
    # devices and machines that train together, each on its own batch: gradients are
    # averaged, as if the batch were that many times as large. They communicate over the
    # network, so only the user may set them, not a recipe.
    devices: int = core.option(1, user_only=True, ge=1, le=1024)
    nodes: int = core.option(1, user_only=True, ge=1, le=1024)
    workers: int = Field(default=1, ge=0, le=64)

    @model_validator(mode="before")
    @classmethod
    def _drop_former_option(cls, values: object) -> object:
        """Accept recipes of earlier versions that did not use `data_weight`."""
        if isinstance(values, dict) and values.get("data_weight") == 0:
            return {name: values[name] for name in values if name != "data_weight"}
        return values

    @property
    def is_adversarial(self) -> bool:
        """Whether discriminators are used."""
        return self.kind in ("paired-gan", "cycle-gan")

    @property
    def has_simulated_scenes(self) -> bool:
        """Whether scenes are simulated, instead of or in addition to stored pairs."""
        return self.data.pairs is None or self.data.drawn > 0

    @property
    def is_unpaired(self) -> bool:
        """Whether clear patches show different areas than the degraded ones."""
        return self.kind == "cycle-gan"

    def scale_to_steps(self, steps: int) -> Self:
        """Return the recipe with its schedule scaled to the given number of steps."""
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

    def reset_unused_options(self) -> Self:
        """Replace the architecture ``same`` with that specified by the start model."""
        if self.architecture != SAME or self.start_from is None:
            return self
        card = read_card(resolve_model_path(self.start_from))
        return self.replace(
            architecture=card.architecture, architecture_options=card.options
        )

    def to_card_record(self) -> dict[str, object]:
        """Return the recipe for a model card, without folder names."""
        folders = {"data": {"root", "scans_root", "bank_folder"}}
        plain = self.model_dump(mode="json", exclude=folders)
        for name in FILES:
            table, last = _find_option_table(plain, name)
            if table.get(last) is not None:
                table[last] = Path(table[last]).name
        return plain

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Raise an error if options contradict each other."""
        data, restores = self.data, self.kind == "restorer"
        channels = self.gan.discriminator_options.get("channels", 1)
        seen = 2 if self.gan.conditional and not self.is_unpaired else 1
        can_mix = data.pairs is not None and data.bank > 0 and self.batch > 1
        refusals = {
            core.Message(
                "the measure frc_per_px needs cross_frc: true", "measure-unsuitable"
            ): (self.measure == "frc_per_px" and not self.cross_frc),
            core.Message(
                "the measure expected_gain_db needs kind cycle-gan",
                "measure-unsuitable",
            ): (self.measure == "expected_gain_db" and not self.is_unpaired),
            core.Message(
                "kind blind-spot and the measure hidden_db need each other",
                "measure-unsuitable",
            ): ((self.kind == "blind-spot") != (self.measure == "hidden_db")),
            core.Message(
                f"option gan.discriminator_options needs channels: {seen} for kind "
                f"{self.kind} and gan.conditional: {self.gan.conditional}, got "
                f"{channels}",
                "options-contradict",
            ): (self.is_adversarial and channels != seen),
            core.Message(
                "option gan.adversarial: relativistic needs kind paired-gan",
                "options-contradict",
            ): (self.is_unpaired and self.gan.adversarial == "relativistic"),
            core.Message("architecture: same needs start_from", "missing-value"): (
                self.architecture == SAME and self.start_from is None
            ),
            core.Message(
                "kind restorer cannot use a store of pairs; set kind: supervised",
                "options-contradict",
            ): (restores and data.pairs is not None),
            core.Message(
                "shift_px needs pairs and kind supervised or paired-gan, got kind "
                f"{self.kind}",
                "options-contradict",
            ): (self.shift_px > 0 and self.kind not in ("supervised", "paired-gan")),
            core.Message(
                f"learns: {self.learns} needs kind restorer, got {self.kind}",
                "options-contradict",
            ): (self.learns != "all" and not restores),
            core.Message(
                "learns: noise needs the network that it changes; set start_from",
                "options-contradict",
            ): (self.learns == "noise" and self.start_from is None),
            core.Message(
                "kind restorer needs either images or superlens as its only source",
                "sources-unsuitable",
            ): (restores and set(data.sources) not in _WHOLE_SOURCES),
            core.Message(
                "option data.drawn needs kind supervised, data.pairs, data.bank and a "
                "batch of at least 2",
                "options-contradict",
            ): (data.drawn > 0 and not (can_mix and self.kind == "supervised")),
            core.Message(
                f"patch_px must not exceed scene_px, got {data.patch_px} and "
                f"{data.scene_px}",
                "patch-size-unsuitable",
            ): (self.has_simulated_scenes and data.patch_px > data.scene_px),
        }
        for sentence, holds in refusals.items():
            if holds:
                raise ValueError(sentence)
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe, and make its paths absolute.

    A recipe may name another file under ``include``, whose options are defaults, those
    of ``data`` one by one. Raises a `ReadError` if the file is missing or not YAML; an
    `OptionError` if a key is unknown, a value is out of range, or an option may only be
    set by the user.
    """
    values = _read_option_table(path)
    user_only = core.get_user_only_options(Recipe)
    usual = {name: Recipe.model_fields[name].default for name in user_only}
    option_names = [name for name in values if values[name] != usual.get(name)]
    core.check_user_only_options(option_names, user_only, f"The recipe {path.name}")
    plain = Recipe.parse(values).model_dump()
    for name in (*FILES, "data.root", "data.scans_root", "data.bank_folder"):
        table, last = _find_option_table(plain, name)
        value = table.get(last)
        is_model = (
            name in ("start_from", "local_from") and value in list_bundled_models()
        )
        if value is not None and not is_model:
            table[last] = str(_resolve_path(path.parent / value))
    return Recipe.parse(plain)


def _find_option_table(
    values: dict[str, object], name: str
) -> tuple[dict[str, Any], str]:
    """Return the table and key that a dotted option name refers to."""
    *above, last = name.split(".")
    table: object = values
    for part in above:
        table = table.get(part) if isinstance(table, dict) else None
    return (table if isinstance(table, dict) else {}), last


def _read_option_table(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a table of options, with included files as defaults."""
    above = (*above, path.resolve())
    try:
        values = yaml.safe_load(read_text(path))
        count = core.count_values(values)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        msg = f"Cannot read the recipe {path} as YAML: {reason}."
        is_absent = isinstance(error, FileNotFoundError)
        code = "file-missing" if is_absent else "recipe-invalid"
        raise core.ReadError(msg, code=code) from error
    if count > _MAX_VALUES:
        msg = (
            f"The recipe {path} has more than {_MAX_VALUES} values, counting repeated "
            "aliases; shorten it."
        )
        raise core.OptionError(msg, code="recipe-invalid")
    if not isinstance(values, dict):
        type_name = type(values).__name__
        msg = f"A recipe must be a YAML table of options, got {type_name} in {path}."
        raise core.OptionError(msg, code="recipe-invalid")
    other = values.pop("include", None)
    if other is None:
        return values
    source = path.parent / str(other)
    if _resolve_path(source) in above:
        msg = f"A recipe must not include itself, got {source} in {path}."
        raise core.OptionError(msg, code="recipe-invalid")
    base_values = _read_option_table(source, above)
    tables = [table.get("data") or {} for table in (base_values, values)]
    if not all(isinstance(table, dict) for table in tables):
        msg = f"data must be a table of options in both {path} and {source}."
        raise core.OptionError(msg, code="recipe-invalid")
    return {**base_values, **values, "data": {**tables[0], **tables[1]}}


def _resolve_path(path: Path) -> Path:
    """Resolve a file path from a recipe."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        msg = (
            "A recipe must contain valid file paths, got "
            f"{core.shorten_value(str(path))}: {error}."
        )
        raise core.OptionError(msg, code="recipe-invalid") from error
