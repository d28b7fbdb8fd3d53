"""Commands as values, and the services of their runs.

One `Verb` defines the command with its help, summary and JSON, the Python function with
its signature, the form and values of a panel, a step of a batch or replay, a row of a
table, and a page of the reference.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union

from pydantic.fields import FieldInfo

from napari_semsr import models
from napari_semsr.core import (
    LEVELS,
    ORIGIN_KEY,
    SIZE_ERROR_KEY,
    Box,
    Curve,
    Float32Array,
    FloatPair,
    InputRecord,
    IntPair,
    Job,
    Message,
    Micrograph,
    OptionError,
    Options,
    Progress,
    Provenance,
    Quantity,
    WriteError,
    code_of,
    describe_pixel_size,
    figure,
    record_quantity,
    size_basis,
    warn,
)
from napari_semsr.io import (
    ReadOptions,
    Source,
    with_calibration,
    write,
)
from napari_semsr.jobs.images import (
    Image,
    OverwritePolicy,
    Result,
    as_guide,
    check_apart,
    check_image_target,
    check_not_input,
    check_target_file,
    check_target_folder,
    collect_warnings,
    databar_note,
    keep_map,
    levels_note,
    made_by,
    name_of,
    open_image,
    open_source,
    paths_of,
    record_input,
    size_alike,
)
from napari_semsr.jobs.index import ACTIONS, FUNCTIONS, VERBS
from napari_semsr.jobs.leakage import warn_if_trained_on

_OF_IMAGES = (None, ".ome.tif", ".ome.zarr")  # suffixes of images; None: not written
_PAIRS = ".zarr"
O = TypeVar("O", bound=Options)  # noqa: E741
R = TypeVar("R", bound=Result)
T = TypeVar("T")


def size_figure(**more: object) -> property:
    """Return a property of a result that shows its pixel size with its uncertainty."""

    def get(result: Any) -> str:
        error = getattr(result, "pixel_size_sd_nm", None)
        return describe_pixel_size(result.pixel_size_nm, error)

    return figure(get, "Pixel size", **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized(Result):
    """Measurements of one image or of several with equal pixel size."""

    pixel_size_nm: Annotated[FloatPair | None, Quantity("Pixel size", shown=False)]
    pixel_size_sd_nm: FloatPair | None

    pixel_size = size_figure(tabled=False)

    @property
    def pixel_size_basis(
        self,
    ) -> Annotated[str, record_quantity("Basis of the pixel size")]:
        """Whether the pixel size is recorded or calibrated; None if unknown."""
        return size_basis(self.pixel_size_nm, self.pixel_size_sd_nm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeasure(Sized):
    """Measurements of images."""

    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapMade(ImageMeasure):
    """A map, written or in memory, and its measurements."""

    output: str | None  # path, if it was written
    unit: str
    shape: IntPair
    map: Micrograph | None = field(default=None, metadata={"json": False})

    @property
    def map_in(self) -> Annotated[str, Quantity("Map in", tabled=False)]:
        """Quantity that the map shows."""
        words = {"grey": LEVELS, "percent": "% of the range"}
        return words.get(self.unit, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMade(Result):
    """A resulting image: its path, or the image itself if it was not written."""

    output: str | None
    shape: tuple[int, ...]  # rows and columns; planes before them for a stack
    dtype: Annotated[str, Quantity("Type")]
    pixel_size_nm: FloatPair | None
    clipped: int = 0  # pixels clipped to the data type
    image: Micrograph | None = field(default=None, metadata={"json": False})

    pixel_size = size_figure()
    clipped_pixels = figure(lambda result: result.clipped or None, "Clipped pixels")


@dataclass(frozen=True, slots=True)
class ImageIn:
    """An image that a command reads."""

    name: str
    help: str
    optional: bool = False
    flag: str = ""  # command option; empty for a positional argument
    metavar: str = "IMAGE"
    role: str = ""  # name in histories, if different
    column: str = ""  # name in result tables, if different
    takes: object = None  # further types that its function accepts
    many: bool = False
    pairs: bool = False  # accepts pairs of images, too
    also: tuple[str, ...] = ()  # further column names in tables
    label: str = ""  # in a panel; by default derived from the name
    batch: str = ""  # default in a step of a batch: "{input}"
    side: str = ""  # prefix of its own reading options
    stack: bool = False  # may be a stack, processed plane by plane
    guide: bool = False  # guides the command; its data are not part of the result
    # function for its reading options, if they are special
    reading: Callable[[Any, ReadOptions], ReadOptions] | None = None

    @property
    def title(self) -> str:
        """Label in a panel."""
        return self.label or self.name.replace("_", " ").capitalize()

    @property
    def tooltip(self) -> str:
        """Description as a sentence."""
        return f"{self.help[:1].upper()}{self.help[1:]}."


@dataclass(frozen=True, slots=True)
class FileIn:
    """Another input of a command: a file, folder or name."""

    name: str
    help: str
    optional: bool = True
    flag: str = ""  # command option; empty for a positional argument
    metavar: str = "FILE"
    many: bool = False
    takes: object = None  # further types that its function accepts
    takes_name: bool = False  # accepts a name instead of a file
    default: str | None = None
    batch: str = ""
    role: str = ""  # name in histories, if different
    # computes its digest from the call's values, if not from a file
    digest: Callable[..., Job[str]] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a command."""

    help: str
    name: str = "output"
    is_required: bool = True
    one_needs_it: bool = False  # only for a single image
    flag: str = "-o"  # of the command; empty for a positional argument
    metavar: str = "OUT"
    default: str = ""  # of the command
    # suffix in a batch, if written; a folder has none, pairs have ".zarr"
    ending: str | None = ".ome.tif"
    also: tuple[str, ...] = ()  # further allowed suffixes
    beside: tuple[str, ...] = ()  # suffixes of companion files with the same stem
    grows: bool = False  # a folder whose contents the command checks
    remade: bool = False  # overwritten by a resumed run, too
    goes_on: bool = False  # input of the next step of a batch
    may_stay_in_memory: bool = False  # its function may return it in memory instead
    # further images written next to it, by the part named in histories
    parts: Callable[[Path], Mapping[str, Path]] = lambda _: {}

    @property
    def is_image(self) -> bool:
        """Whether it is an image in any format; otherwise it has listed suffixes."""
        return self.ending in _OF_IMAGES

    def check(
        self,
        place: str | os.PathLike[str],
        inputs: Sequence[Path],
        existing: OverwritePolicy,
    ) -> Path:
        """Raise an error for a path where it cannot or must not be written."""
        replaces = existing.overwrite or (existing.resume and self.remade)
        how: dict[str, Any] = {"inputs": inputs, "overwrite": replaces}
        if self.ending == "":
            check_not_input(Path(place), inputs)
            empty = not (replaces or self.grows)
            return check_target_folder(place, empty=empty, parents=self.grows)
        if self.is_image and Path(place).suffix.lower() not in self.also:
            return check_image_target(place, resume=existing.resume, **how)
        if self.ending == _PAIRS:
            if not Path(place).name.lower().endswith(_PAIRS):
                msg = (
                    f"Pairs are stored in a folder that ends in {_PAIRS}, got {place}."
                )
                raise WriteError(msg, code="suffix-unknown")
            place_checked = check_image_target(place, **how)
        else:
            endings = self.also if self.is_image else (self.ending or "", *self.also)
            place_checked = check_target_file(place, suffixes=endings, **how)
        for ending in self.beside:
            check_target_file(
                place_checked.with_suffix(ending), suffixes=(ending,), **how
            )
        return place_checked


CALIBRATION = FileIn(
    "calibration",
    "pixel size and its standard deviation, as `calibrate()` wrote them",
    metavar="JSON",
)
"""Added to option groups that have both."""
_IN_FILE = ("known_distortion",)  # a `Calibration` object


MAP_OUT = Output(
    "path of the map of one image; its suffix sets the format",
    is_required=False,
    one_needs_it=True,
)
"""Output of commands that map one image; many images have a row each instead."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of a command's options, passed on under one name."""

    name: str
    title: str
    options: type[Options]
    exclude: tuple[str, ...] = ()  # options that the command line lacks
    before: str = ""  # prefix of their names, for one image's options

    def arguments(self, exclude: Iterable[str] = ()) -> dict[str, FieldInfo | FileIn]:
        """Return its options by name."""
        all_arguments: dict[str, FieldInfo | FileIn] = {**self.options.model_fields}
        all_arguments = {
            name: info for name, info in all_arguments.items() if name not in exclude
        }
        if "pixel_size_sd_nm" in all_arguments:
            all_arguments[CALIBRATION.name] = CALIBRATION
        return {f"{self.before}{name}": item for name, item in all_arguments.items()}


_WITH_BARS = "crop", "calibrate"  # commands that may omit the bar


@dataclass(slots=True)
class Run(Generic[O]):
    """One run of a command: its inputs, reading options and outputs."""

    verb: str
    image_inputs: dict[
        str, Any
    ]  # by the names of the command's images; a list for many
    options: O
    opening: ReadOptions
    target: Path | None = None
    existing: OverwritePolicy = field(default_factory=OverwritePolicy)
    inputs: list[Path] = field(default_factory=list)  # images to read
    parameters: dict[str, Any] = field(default_factory=dict)  # files, groups
    targets: dict[str, Path] = field(default_factory=dict)  # by names of outputs
    images: dict[str, Micrograph] = field(default_factory=dict)  # opened
    sources: dict[str, Source] = field(default_factory=dict)  # their source files
    readings: dict[str, ReadOptions] = field(default_factory=dict)  # of some images
    roles: dict[str, str] = field(default_factory=dict)  # roles of images in histories
    guides: tuple[str, ...] = ()  # images that only guide the command
    records: dict[str, InputRecord] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(map(name_of, self.image_inputs.values()))

    @property
    def place(self) -> Path:
        """Return the path of a required output."""
        if self.target is None:
            msg = f"{self.verb} needs an output."
            raise OptionError(msg, code="missing-value")
        return self.target

    @property
    def output(self) -> str | None:
        """Path of the output, None if not written."""
        return None if self.target is None else str(self.target)

    def on(self, image: Image | None, target: Path | None, **how: Any) -> "Run[O]":
        """Return the same run for one image, such as a plane, and another output."""
        images = {} if image is None else {next(iter(self.image_inputs)): image}
        fresh: dict[str, Any] = {"images": {}, "records": {}}
        if images and image is not next(iter(self.image_inputs.values())):
            fresh["sources"] = {}
        return replace(self, image_inputs=images, target=target, **fresh, **how)

    def open(self, *roles: str) -> None:
        """Open the images, or some of them."""
        for role in roles or self.image_inputs:
            image_given = self.image_inputs[role]
            image = (
                image_given
                if isinstance(image_given, Micrograph)
                else self.source(role)
            )
            image_opened = self.images[role] = open_image(image, self.reading(role))
            dtype = getattr(self.options, "dtype", None)
            if role == next(iter(self.image_inputs)) and (
                note := levels_note(image_opened, dtype)
            ):
                warn(note)
            if isinstance(image_given, Micrograph) or self.verb in _WITH_BARS:
                continue
            if note := databar_note(name_of(image_given), image_opened):
                warn(note)
        alike = [role for role in self.images if role not in self.readings]
        opened_so = size_alike([self.images[role] for role in alike], self.opening)
        self.images |= zip(alike, opened_so, strict=True)

    def source(self, role: str) -> Source:
        """Open the file of an image, once."""
        if role not in self.sources:
            self.sources[role] = open_source(self.image_inputs[role])
        return self.sources[role]

    def reading(self, role: str) -> ReadOptions:
        """Return the reading options of an image."""
        return self.readings.get(role, self.opening)

    def record(self, role: str) -> Job[InputRecord]:
        """Record an image for the history of the result, once."""
        if role not in self.records:
            image, image_opened = self.image_inputs[role], self.images[role]
            role_name = self.roles.get(role) or role
            image_given = self.sources.get(role, image)
            job = record_input(
                image_given, image_opened, self.reading(role), role=role_name
            )
            self.records[role] = yield from job
        return self.records[role]

    def warn_if_trained_on(self) -> None:
        """Warn if a model that made one of the images was trained on the same area."""
        images = [
            (self.sources.get(role, image), self.images[role])
            for role, image in self.image_inputs.items()
        ]
        warn_if_trained_on(images, self.opening)

    @property
    def size_error(self) -> dict[str, object]:
        """Error and origin of the pixel size of its first image."""
        first = self.images.get(next(iter(self.image_inputs), ""))
        facts = {} if first is None else first.metadata
        return {k: facts[k] for k in (SIZE_ERROR_KEY, ORIGIN_KEY) if k in facts}

    def history(
        self, *guides: InputRecord, inputs: Sequence[InputRecord] = (), **more: object
    ) -> Job[Provenance]:
        """Compose the provenance of the output, with further `inputs`.

        It lists the images that were opened; `more` describes the run.
        """
        records: list[InputRecord] = []
        lead_records: list[InputRecord] = []
        for role in (role for role in self.image_inputs if role in self.images):
            record = yield from self.record(role)
            if role in self.guides:  # guides do not count as a shared source of images
                lead_records.append(as_guide(record, role))
            else:
                records.append(record)
        options_told = {
            **self.options.model_dump(mode="json"),
            "reading": self.opening.model_dump(mode="json"),
            **({} if "pixel_size_nm" in more else self.size_error),
            **more,
        }
        return made_by(
            self.verb, options_told, *records, *inputs, guides=[*lead_records, *guides]
        )

    def write(self, image: Micrograph) -> None:
        """Write an image, if it has an output path."""
        if self.target is not None:
            write(image, self.target, overwrite=self.existing.overwrite)

    def keep(
        self,
        blocks: Callable[[list[Box]], Iterator[Float32Array]],
        about: Micrograph,
        part: str | None = None,
    ) -> Job[Micrograph | None]:
        """Write a map with its history, or return it if it has no output path."""
        history = (yield from self.history()).model_copy(update={"part": part})
        about = about.replace(provenance=history, look=about.look)
        return (yield from keep_map(blocks, about, self.target))

    def collect(self, job: Job[T]) -> Job[tuple[T, tuple[str, ...]]]:
        """Run a job; return its result and its warnings, as the user reads them."""
        sentences: list[str] = []
        result = yield from collect_warnings(job, sentences)
        translate = self.parameters.get("translate", str)
        warnings = (Message(translate(text), code_of(text)) for text in sentences)
        return result, tuple(dict.fromkeys(warnings))

    def facts(self, image: Micrograph) -> dict[str, Any]:
        """Return the fields of `ImageMeasure`: image names and the pixel size."""
        return {"images": self.names, **size_of(image)}


def size_of(image: Micrograph) -> dict[str, Any]:
    """Return the fields of `Sized`."""
    return {
        "pixel_size_nm": image.pixel_size_nm,
        "pixel_size_sd_nm": image.pixel_size_sd_nm,
    }


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[O, R]):
    """A command: its inputs, options, outputs, result and job."""

    name: str
    images: tuple[ImageIn, ...]
    options: type[O]
    result: type[R]
    run: Callable[..., Job[R]]  # accepts a `Run`, and the opened images or None
    title: str = "options"  # order of the options in the help
    files: tuple[FileIn, ...] = ()
    output: Output | None = None
    outputs: tuple[Output, ...] = ()  # further outputs
    groups: tuple[Group, ...] = ()
    reads: bool = True  # has reading options
    opens: bool = True  # opens its images before it runs; otherwise its job opens them
    not_read: tuple[str, ...] = ()  # reading options that the command line lacks
    resumes: bool = False
    replaces: bool = False  # files to overwrite on request, other than an output
    makes_table: bool = False  # also accepts many images, with a row for each
    curves: tuple[Curve, ...] = ()  # plots of its result in panels and reports
    gives: Any = None  # return type of its function, if not the result
    value: str = ""  # attribute of the result that is returned
    example: str = ""  # doctest of the function

    @property
    def summary(self) -> str:
        """One sentence that describes it."""
        return (VERBS | ACTIONS)[self.name]

    @property
    def function(self) -> str:
        """Name of its function."""
        return next(name for name, verb in FUNCTIONS.items() if verb == self.name)

    @property
    def sides(self) -> tuple[str, ...]:
        """Prefixes of the reading options of single images."""
        return tuple(item.side for item in self.images if item.side)

    @property
    def inputs(self) -> tuple[ImageIn | FileIn, ...]:
        """Its images, positional ones first, in order."""
        all_inputs: tuple[ImageIn | FileIn, ...] = (*self.images, *self.files)
        return tuple(sorted(all_inputs, key=lambda item: bool(item.flag)))

    @property
    def all_outputs(self) -> tuple[Output, ...]:
        """All its outputs."""
        return (*(() if self.output is None else (self.output,)), *self.outputs)

    @property
    def sets(self) -> tuple[Group, ...]:
        """Its option groups, by the names in its job; those of one image last."""
        groups = [Group("options", self.title, self.options, _IN_FILE), *self.groups]
        if self.reads:
            not_read = () if self.sides else self.not_read
            groups.append(Group("opening", "reading", ReadOptions, not_read))
        for side, image in zip(self.sides, self.images, strict=False):
            name = image.name.upper()
            title = f"reading {name} alone, overriding those of both"
            groups.append(Group("", title, ReadOptions, before=f"{side}_"))
        return tuple(groups)

    @property
    def arguments(self) -> "dict[str, ImageIn | FileIn | Output | FieldInfo]":
        """All arguments of its command and of a batch step, by name."""
        all_arguments: dict[str, Any] = {}
        for group in reversed(self.sets):  # own options before those of reading
            all_arguments |= group.arguments(group.exclude)
        return all_arguments | {
            item.name: item for item in (*self.inputs, *self.all_outputs)
        }

    @property
    def makes_image(self) -> bool:
        """Whether its output is an image, which can be reproduced."""
        out = self.output
        return out is not None and out.is_image

    @property
    def returns(self) -> Any:
        """Return type of its function, possibly a union."""
        keeps_image = self.output is not None and self.output.may_stay_in_memory
        kinds = self.result, *self.result.INSTEAD.values()
        return self.gives or Union[(*([Micrograph] if keeps_image else []), *kinds)]

    def result_of(self, values: Mapping[str, object]) -> type[Result]:
        """Return the type of its result for some option values by name."""
        others = self.result.INSTEAD.items()
        return next((kind for name, kind in others if values.get(name)), self.result)

    @property
    def hidden_options(self) -> dict[str, None]:
        """Reading options with the names of the command's own options, left at None."""
        own = self.options.model_fields
        return {name: None for name in ReadOptions.model_fields if name in own}

    def value_of(self, result: R) -> object:
        """Return what the function returns for a result: its image, if any."""
        if self.value:
            return getattr(result, self.value)
        image = getattr(result, "image", None)
        gives_image = isinstance(image, Micrograph) and self.returns is not self.result
        return image if gives_image else result

    def parse(self, values: Mapping[str, object]) -> dict[str, Any]:
        """Create its option groups from values by name; other values are ignored."""
        sets = {one.name: one.options for one in self.sets if not one.before}
        values_given = with_calibration(values, sets.values())
        parts = {}
        for name, model in sets.items():
            own = {
                key: values_given[key]
                for key in model.model_fields
                if key in values_given
            }
            parts[name] = model.parse(
                own | (self.hidden_options if name == "opening" else {})
            )
        if self.sides:
            both = ("opening", f"{self.sides[1]}_opening")
            parts |= zip(both, self._openings(values), strict=True)
        return parts

    def parse_options(self, options: Mapping[str, object]) -> dict[str, Any]:
        """Create its option groups from options by name; raise an error for others.

        Raises
        ------
        OptionError
            If a name is not an option of the command, its groups or reading.
        """
        defaults = {name: one.before for one in self.sets for name in one.arguments()}
        unknown = sorted(set(options) - {*defaults})
        if unknown:
            also = (
                "; reading options may also have the prefix "
                f"{'_ or '.join(self.sides)}_"
            )
            names = ", ".join(
                sorted(name for name, side in defaults.items() if not side)
            )
            more = also if self.sides else ""
            msg = f"Options are {names}{more}, got {', '.join(unknown)}."
            raise OptionError(msg, code="unknown-option")
        return self.parse(options)

    def _openings(self, values: Mapping[str, object]) -> Iterator[ReadOptions]:
        """Return the reading options of each of two images."""
        names = (*ReadOptions.model_fields, CALIBRATION.name)
        both, *alone = (
            with_calibration(
                {name: values[side + name] for name in names if side + name in values},
                [ReadOptions],
            )
            for side in ("", *(f"{side}_" for side in self.sides))
        )
        for own in alone:
            if "pixel_size_nm" in own:  # the error of another pixel size does not apply
                own.setdefault("pixel_size_sd_nm", None)
            yield ReadOptions.parse({**both, **own})

    def start(self, values: Mapping[str, object], **how: object) -> Job[R]:
        """Create its job from values by name, including options."""
        items = (*self.inputs, *self.all_outputs)
        files = {one.name: values[one.name] for one in items if one.name in values}
        return self.job(**files, **self.parse(values), **how)

    def job(
        self,
        *inputs: object,
        options: O | Any = None,
        opening: ReadOptions | Any = None,
        overwrite: bool | Any = False,
        resume: bool | Any = False,
        **values: Any,
    ) -> Job[R]:
        """Check the outputs, open the images, and run.

        It yields `Progress` and returns the result. In `inputs`, the output comes last.
        A resumable command keeps finished parts, unless `keep` is False.
        """
        yield Progress(0, 0, "reading")
        first = [item.name for item in self.inputs if not item.flag]
        first += [] if self.output is None else [self.output.name]
        if len(inputs) > len(first):
            msg = (
                f"{self.name} takes {', '.join(first)} as positional arguments, "
                "others by name"
            )
            raise TypeError(msg)
        values |= dict(zip(first, inputs, strict=False))
        usual = {item.name: item.default for item in self.files}
        values = usual | {k: v for k, v in values.items() if v is not None}
        run = self._run(values, options or self.options.parse({}), opening)
        keeps = self.resumes and values.pop("keep", True)
        run.existing = OverwritePolicy(overwrite, resume, keeps)
        check_devices((run.options, *values.values()))
        self._check_outputs(run, values)
        if self.opens:
            run.open()
        images_open = (run.images.get(item.name) for item in self.images if self.opens)
        return (yield from self.run(run, *images_open))

    def anew(self, *inputs: object, **how: object) -> Job[R]:
        """Run and overwrite existing outputs."""
        return self.job(*inputs, overwrite=True, **how)

    def _run(
        self, values: dict[str, Any], options: O, opening: ReadOptions | None
    ) -> Run[O]:
        """Separate the images, with the reading options of each, from the values."""
        images = {item.name: values.pop(item.name, None) for item in self.images}
        images_given = {
            name: image for name, image in images.items() if image is not None
        }
        options = options.settle()
        run = Run(
            self.name,
            images_given,
            options,
            opening or ReadOptions(),
            parameters=values,
        )
        for item in self.images:
            if item.reading is not None:
                run.readings[item.name] = item.reading(options, run.opening)
        for side in self.sides[1:]:
            run.readings[side] = values.pop(f"{side}_opening", None) or ReadOptions()
        run.roles = {item.name: item.role for item in self.images}
        run.guides = tuple(item.name for item in self.images if item.guide)
        return run

    def _check_outputs(self, run: Run[O], values: dict[str, Any]) -> None:
        """Raise an error for outputs that cannot or must not be written."""
        files = [values.get(item.name) for item in self.files]
        by = [one for one in files if isinstance(one, (str, os.PathLike))]
        run.inputs = paths_of(*_each(run.image_inputs.values()), *by)
        for output in self.all_outputs:
            place = values.pop(output.name, None)
            if place is not None:
                place_checked = output.check(place, run.inputs, run.existing)
                run.targets[output.name] = place_checked
        if self.output is not None:
            run.target = run.targets.get(self.output.name)
        for one, other in combinations(run.targets.values(), 2):
            check_apart(one, other)


def check_devices(sets: Iterable[object]) -> None:
    """Raise an error for an unavailable device, before anything is read.

    Training checks its own device, as the recipe may set it.
    """
    for one in sets:
        name = getattr(one, "device", "auto")
        if name not in ("auto", "cpu") and not hasattr(one, "devices"):
            models.find_device(name)


def _each(images: Iterable[object]) -> Iterator[Any]:
    """Iterate over images, including those in lists and pairs."""
    for image in images:
        if isinstance(image, (list, tuple)):
            yield from _each(image)
        else:
            yield image
