"""A verb as a value, and what every run of a verb needs.

From one `Verb` come the command with its help, summary and JSON, the function of the
Python interface with its signature, the form and the figures of a panel, a step of a
batch and of a replay, a row of a table, and its page of the manual.
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
from napari_semsr.jobs.leakage import tell_learnt

_OF_IMAGES = (None, ".ome.tif", ".ome.zarr")  # endings; pages, stores of pairs apart
_PAIRS = ".zarr"
O = TypeVar("O", bound=Options)  # noqa: E741
R = TypeVar("R", bound=Result)
T = TypeVar("T")


def size_figure(**more: Any) -> property:
    """Make the property of a result that tells its pixel size, and how sure it is."""

    def get(result: Any) -> str:
        error = getattr(result, "pixel_size_sd_nm", None)
        return describe_pixel_size(result.pixel_size_nm, error)

    return figure(get, "Pixel size", **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized(Result):
    """What was measured of an image with a pixel size, or of several of one."""

    pixel_size_nm: Annotated[FloatPair | None, Quantity("Pixel size", shown=False)]
    pixel_size_sd_nm: FloatPair | None

    pixel_size = size_figure(tabled=False)

    @property
    def pixel_size_basis(
        self,
    ) -> Annotated[str, record_quantity("Basis of the pixel size")]:
        """Whether it is stated, or was calibrated, if it is known."""
        return size_basis(self.pixel_size_nm, self.pixel_size_sd_nm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeasure(Sized):
    """What was measured of images."""

    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapMade(ImageMeasure):
    """A map, written or in memory, and what was measured for it."""

    output: str | None  # path, if it was written
    unit: str
    shape: IntPair
    map: Micrograph | None = field(default=None, metadata={"json": False})

    @property
    def map_in(self) -> Annotated[str, Quantity("Map in", tabled=False)]:
        """What its values are."""
        words = {"grey": LEVELS, "percent": "% of the range"}
        return words.get(self.unit, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMade(Result):
    """An image that was made: where it was written, or itself where it was not."""

    output: str | None
    shape: tuple[int, ...]  # rows and columns; planes before them for a stack
    dtype: Annotated[str, Quantity("Type")]
    pixel_size_nm: FloatPair | None
    clipped: int = 0  # pixels that had no place in the type
    image: Micrograph | None = field(default=None, metadata={"json": False})

    pixel_size = size_figure()
    clipped_pixels = figure(lambda made: made.clipped or None, "Clipped pixels")


@dataclass(frozen=True, slots=True)
class ImageIn:
    """An image that a verb reads."""

    name: str
    help: str
    optional: bool = False
    flag: str = ""  # of the command, where it is no positional argument
    metavar: str = "IMAGE"
    role: str = ""  # in histories, where not its name
    column: str = ""  # in our tables, where not its name
    takes: Any = None  # what its function takes besides an image
    many: bool = False
    pairs: bool = False  # and pairs of images among them, or one image by itself
    also: tuple[str, ...] = ()  # further names that a table may give it
    label: str = ""  # in a panel; made of the name by default
    batch: str = ""  # what a batch takes where a step says nothing: "{input}"
    side: str = ""  # before options of reading that are of it alone
    stack: bool = False  # it may be a stack, which goes plane by plane
    guide: bool = False  # the verb goes by it, and what is made does not show it
    # How it is read by the verb's options and those of reading, where otherwise
    reading: Callable[[Any, ReadOptions], ReadOptions] | None = None

    @property
    def title(self) -> str:
        """What a panel calls it."""
        return self.label or self.name.replace("_", " ").capitalize()

    @property
    def tooltip(self) -> str:
        """What it is, as a sentence."""
        return f"{self.help[:1].upper()}{self.help[1:]}."


@dataclass(frozen=True, slots=True)
class FileIn:
    """Another file, folder or name that a verb goes by."""

    name: str
    help: str
    optional: bool = True
    flag: str = ""  # of the command, where it is no positional argument
    metavar: str = "FILE"
    many: bool = False
    takes: Any = None  # what its function takes besides a path
    named: bool = False  # a name may stand in place of a file
    default: str | None = None
    batch: str = ""
    role: str = ""  # in histories, where not its name
    # Digests its content, with the call's values, if not that of a file
    digest: Callable[..., Job[str]] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a verb writes."""

    help: str
    name: str = "output"
    required: bool = True
    one_needs_it: bool = False  # where the verb takes many images, which do not
    flag: str = "-o"  # of the command; empty for a positional argument
    metavar: str = "OUT"
    default: str = ""  # of the command
    # Of what a batch has it write, if anything; a folder has none, of pairs ".zarr"
    ending: str | None = ".ome.tif"
    also: tuple[str, ...] = ()  # endings of other files that it may be
    beside: tuple[str, ...] = ()  # endings of files of its name that go with it
    grows: bool = False  # a folder that the verb itself looks into
    remade: bool = False  # by a run that goes on, too
    goes_on: bool = False  # as the image of a batch's next step
    kept: bool = False  # its function may keep it in memory instead
    # Further images that are written next to it, by the part that histories name
    parts: Callable[[Path], Mapping[str, Path]] = lambda _: {}

    @property
    def is_image(self) -> bool:
        """Whether it is an image by itself, in any format; else endings are told."""
        return self.ending in _OF_IMAGES

    def check(
        self,
        place: str | os.PathLike[str],
        inputs: Sequence[Path],
        existing: OverwritePolicy,
    ) -> Path:
        """Refuse a place where it cannot or must not be written."""
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
"""Stands beside every option set that holds both."""
_IN_FILE = ("known_distortion",)  # a calibration's own, which no text of a command is


MAP_OUT = Output(
    "where the map of one image goes; its suffix names the format",
    required=False,
    one_needs_it=True,
)
"""What verbs write that map one image, or many, of which each has a row instead."""


@dataclass(frozen=True, slots=True)
class Group:
    """A set of options of a verb, handed on under a name of its own."""

    name: str
    title: str
    options: type[Options]
    exclude: tuple[str, ...] = ()  # what its command does not take
    before: str = ""  # their names, of one image alone

    def arguments(self, exclude: Iterable[str] = ()) -> dict[str, FieldInfo | FileIn]:
        """Give what sets them, by its name."""
        all_arguments: dict[str, FieldInfo | FileIn] = {**self.options.model_fields}
        all_arguments = {
            name: info for name, info in all_arguments.items() if name not in exclude
        }
        if "pixel_size_sd_nm" in all_arguments:
            all_arguments[CALIBRATION.name] = CALIBRATION
        return {f"{self.before}{name}": item for name, item in all_arguments.items()}


_WITH_BARS = "crop", "calibrate"  # verbs that may leave the bar out, or be after it


@dataclass(slots=True)
class Run(Generic[O]):
    """One run of a verb: what it was given, how it reads, where it writes."""

    verb: str
    given: dict[str, Any]  # by the names of the verb's images, of several a list
    options: O
    opening: ReadOptions
    target: Path | None = None
    existing: OverwritePolicy = field(default_factory=OverwritePolicy)
    inputs: list[Path] = field(default_factory=list)  # that it reads
    named: dict[str, Any] = field(default_factory=dict)  # files, groups
    targets: dict[str, Path] = field(default_factory=dict)  # by names of outputs
    images: dict[str, Micrograph] = field(default_factory=dict)  # opened
    sources: dict[str, Source] = field(default_factory=dict)  # their files
    readings: dict[str, ReadOptions] = field(default_factory=dict)  # of some images
    roles: dict[str, str] = field(default_factory=dict)  # of images, in histories
    guides: tuple[str, ...] = ()  # images that it only goes by
    records: dict[str, InputRecord] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(map(name_of, self.given.values()))

    @property
    def place(self) -> Path:
        """Where a verb writes that always does."""
        if self.target is None:
            msg = f"{self.verb} needs an output."
            raise OptionError(msg, code="missing-value")
        return self.target

    @property
    def output(self) -> str | None:
        """Path of what is written, if it is."""
        return None if self.target is None else str(self.target)

    def on(self, image: Image | None, target: Path | None, **how: Any) -> "Run[O]":
        """Give the same run on one image, such as a plane, and for another place."""
        images = {} if image is None else {next(iter(self.given)): image}
        fresh: dict[str, Any] = {"images": {}, "records": {}}
        if images and image is not next(iter(self.given.values())):
            fresh["sources"] = {}
        return replace(self, given=images, target=target, **fresh, **how)

    def open(self, *roles: str) -> None:
        """Open the images, or some of them."""
        for role in roles or self.given:
            image_given = self.given[role]
            image = (
                image_given
                if isinstance(image_given, Micrograph)
                else self.source(role)
            )
            image_opened = self.images[role] = open_image(image, self.reading(role))
            dtype = getattr(self.options, "dtype", None)
            if role == next(iter(self.given)) and (
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
            self.sources[role] = open_source(self.given[role])
        return self.sources[role]

    def reading(self, role: str) -> ReadOptions:
        """Give how an image is read."""
        return self.readings.get(role, self.opening)

    def record(self, role: str) -> Job[InputRecord]:
        """Record an image for the history of what is made, once."""
        if role not in self.records:
            image, image_opened = self.given[role], self.images[role]
            role_name = self.roles.get(role) or role
            image_given = self.sources.get(role, image)
            job = record_input(
                image_given, image_opened, self.reading(role), role=role_name
            )
            self.records[role] = yield from job
        return self.records[role]

    def tell_learnt(self) -> None:
        """Warn where a model that made one of the images learnt from what they show."""
        images = [
            (self.sources.get(role, image), self.images[role])
            for role, image in self.given.items()
        ]
        tell_learnt(images, self.opening)

    @property
    def size_error(self) -> dict[str, Any]:
        """What its first image itself knows of its pixel size: error and origin."""
        first = self.images.get(next(iter(self.given), ""))
        facts = {} if first is None else first.metadata
        return {k: facts[k] for k in (SIZE_ERROR_KEY, ORIGIN_KEY) if k in facts}

    def history(
        self, *guides: InputRecord, inputs: Sequence[InputRecord] = (), **more: Any
    ) -> Job[Provenance]:
        """Compose the provenance of what is written, of further `inputs`, too.

        It tells of the images that were opened; `more` are facts of the run.
        """
        records: list[InputRecord] = []
        lead_records: list[InputRecord] = []
        for role in (role for role in self.given if role in self.images):
            record = yield from self.record(role)
            if role in self.guides:  # images do not share a source by what led them
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
        """Write an image, if there is a place for it."""
        if self.target is not None:
            write(image, self.target, overwrite=self.existing.overwrite)

    def keep(
        self,
        blocks: Callable[[list[Box]], Iterator[Float32Array]],
        about: Micrograph,
        part: str | None = None,
    ) -> Job[Micrograph | None]:
        """Write a map with its history, or give it where it has no place to go."""
        history = (yield from self.history()).model_copy(update={"part": part})
        about = about.replace(provenance=history, look=about.look)
        return (yield from keep_map(blocks, about, self.target))

    def collect(self, job: Job[T]) -> Job[tuple[T, tuple[str, ...]]]:
        """Run a job; give its result, and what it warned of in the user's words."""
        sentences: list[str] = []
        result = yield from collect_warnings(job, sentences)
        translate = self.named.get("translate", str)
        warnings = (Message(translate(text), code_of(text)) for text in sentences)
        return result, tuple(dict.fromkeys(warnings))

    def facts(self, image: Micrograph) -> dict[str, Any]:
        """Give what `ImageMeasure` holds: names, and the pixel size of an image."""
        return {"images": self.names, **size_of(image)}


def size_of(image: Micrograph) -> dict[str, Any]:
    """Give what `Sized` holds."""
    return {
        "pixel_size_nm": image.pixel_size_nm,
        "pixel_size_sd_nm": image.pixel_size_sd_nm,
    }


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[O, R]):
    """A verb: what it reads, its options, what it finds, and how."""

    name: str
    images: tuple[ImageIn, ...]
    options: type[O]
    result: type[R]
    run: Callable[..., Job[R]]  # Of a `Run`, and the opened images or None
    title: str = "options"  # of the options in the help
    files: tuple[FileIn, ...] = ()
    output: Output | None = None
    outputs: tuple[Output, ...] = ()  # what it writes besides
    groups: tuple[Group, ...] = ()
    reads: bool = True  # takes the options of reading
    opens: bool = True  # its images, before it runs; else it opens them itself
    not_read: tuple[str, ...] = ()  # of those, what its command does not take
    resumes: bool = False
    replaces: bool = False  # what is there, if it is told to, elsewhere than an output
    tabled: bool = False  # takes many images too, a row for each
    curves: tuple[Curve, ...] = ()  # of its result, drawn in panels and reports
    gives: Any = None  # the type of what its function gives, where not the result
    value: str = ""  # the part of the result that this is
    example: str = ""  # of the function

    @property
    def summary(self) -> str:
        """What it does."""
        return (VERBS | ACTIONS)[self.name]

    @property
    def function(self) -> str:
        """What its function is called."""
        return next(name for name, verb in FUNCTIONS.items() if verb == self.name)

    @property
    def sides(self) -> tuple[str, ...]:
        """What stands before options of reading that are of one image alone."""
        return tuple(item.side for item in self.images if item.side)

    @property
    def inputs(self) -> tuple[ImageIn | FileIn, ...]:
        """What it reads, those without a flag first, in their order."""
        all_inputs: tuple[ImageIn | FileIn, ...] = (*self.images, *self.files)
        return tuple(sorted(all_inputs, key=lambda item: bool(item.flag)))

    @property
    def written(self) -> tuple[Output, ...]:
        """All that it writes."""
        return (*(() if self.output is None else (self.output,)), *self.outputs)

    @property
    def sets(self) -> tuple[Group, ...]:
        """Its option sets, as its job names them; of one image alone last."""
        groups = [Group("options", self.title, self.options, _IN_FILE), *self.groups]
        if self.reads:
            not_read = () if self.sides else self.not_read
            groups.append(Group("opening", "reading", ReadOptions, not_read))
        for side, image in zip(self.sides, self.images, strict=False):
            name = image.name.upper()
            title = f"reading {name} alone, over what is given for both"
            groups.append(Group("", title, ReadOptions, before=f"{side}_"))
        return tuple(groups)

    @property
    def arguments(self) -> "dict[str, ImageIn | FileIn | Output | FieldInfo]":
        """All that its command and a step of a batch take, by its name."""
        all_arguments: dict[str, Any] = {}
        for group in reversed(self.sets):  # the verb's own before those of reading
            all_arguments |= group.arguments(group.exclude)
        return all_arguments | {
            item.name: item for item in (*self.inputs, *self.written)
        }

    @property
    def makes_image(self) -> bool:
        """Whether its output is an image by itself, which can be made again."""
        out = self.output
        return out is not None and out.is_image

    @property
    def returns(self) -> Any:
        """What its function gives: one type, or a union."""
        keeps_image = self.output is not None and self.output.kept
        kinds = self.result, *self.result.INSTEAD.values()
        return self.gives or Union[(*([Micrograph] if keeps_image else []), *kinds)]

    def result_of(self, values: Mapping[str, Any]) -> type[Result]:
        """Give the type of its result with some values of options, by their names."""
        others = self.result.INSTEAD.items()
        return next((kind for name, kind in others if values.get(name)), self.result)

    @property
    def hidden_options(self) -> dict[str, None]:
        """Options of reading whose names are those of the verb's own, left at none."""
        own = self.options.model_fields
        return {name: None for name in ReadOptions.model_fields if name in own}

    def value_of(self, result: R) -> Any:
        """Take from a result what the function gives: the image, if it has it."""
        if self.value:
            return getattr(result, self.value)
        image = getattr(result, "image", None)
        gives_image = isinstance(image, Micrograph) and self.returns is not self.result
        return image if gives_image else result

    def parse(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Make its option sets of values by their names, other values among them."""
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

    def parse_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Make its option sets of options by their names, and of nothing else.

        Raises
        ------
        OptionError
            If a name is none of its own options', of its groups', or of reading.
        """
        defaults = {name: one.before for one in self.sets for name in one.arguments()}
        unknown = sorted(set(options) - {*defaults})
        if unknown:
            also = (
                f", those of reading also with {'_ or '.join(self.sides)}_ before them"
            )
            names = ", ".join(
                sorted(name for name, side in defaults.items() if not side)
            )
            more = also if self.sides else ""
            msg = f"Options are {names}{more}, got {', '.join(unknown)}."
            raise OptionError(msg, code="unknown-option")
        return self.parse(options)

    def _openings(self, values: Mapping[str, Any]) -> Iterator[ReadOptions]:
        """Say how each of two images is read, by options for both and for one."""
        names = (*ReadOptions.model_fields, CALIBRATION.name)
        both, *alone = (
            with_calibration(
                {name: values[side + name] for name in names if side + name in values},
                [ReadOptions],
            )
            for side in ("", *(f"{side}_" for side in self.sides))
        )
        for own in alone:
            if "pixel_size_nm" in own:  # the spread of another size is none of this one
                own.setdefault("pixel_size_sd_nm", None)
            yield ReadOptions.parse({**both, **own})

    def start(self, values: Mapping[str, Any], **how: Any) -> Job[R]:
        """Make its job of values by their names, those of options among them."""
        items = (*self.inputs, *self.written)
        files = {one.name: values[one.name] for one in items if one.name in values}
        return self.job(**files, **self.parse(values), **how)

    def job(
        self,
        *inputs: Any,
        options: O | Any = None,
        opening: ReadOptions | Any = None,
        overwrite: bool | Any = False,
        resume: bool | Any = False,
        **values: Any,
    ) -> Job[R]:
        """Check the outputs, open the images, run.

        It yields `Progress` and returns the result. The output follows the inputs. A
        verb that can go on leaves what is finished, unless `keep` is False.
        """
        yield Progress(0, 0, "reading")
        first = [item.name for item in self.inputs if not item.flag]
        first += [] if self.output is None else [self.output.name]
        if len(inputs) > len(first):
            msg = f"{self.name} takes {', '.join(first)} by their place, others by name"
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

    def anew(self, *inputs: Any, **how: Any) -> Job[R]:
        """Run in place of what is there."""
        return self.job(*inputs, overwrite=True, **how)

    def _run(
        self, values: dict[str, Any], options: O, opening: ReadOptions | None
    ) -> Run[O]:
        """Take the images out of what was given, and tell how each is read."""
        images = {item.name: values.pop(item.name, None) for item in self.images}
        images_given = {
            name: image for name, image in images.items() if image is not None
        }
        options = options.settle()
        run = Run(
            self.name, images_given, options, opening or ReadOptions(), named=values
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
        """Refuse outputs that cannot or must not be written, before any work."""
        files = [values.get(item.name) for item in self.files]
        by = [one for one in files if isinstance(one, (str, os.PathLike))]
        run.inputs = paths_of(*_each(run.given.values()), *by)
        for output in self.written:
            place = values.pop(output.name, None)
            if place is not None:
                place_checked = output.check(place, run.inputs, run.existing)
                run.targets[output.name] = place_checked
        if self.output is not None:
            run.target = run.targets.get(self.output.name)
        for one, other in combinations(run.targets.values(), 2):
            check_apart(one, other)


def check_devices(sets: Iterable[Any]) -> None:
    """Refuse a device that is not here, of sets of options, before anything is read.

    Where to train is left to training, since the recipe has a say.
    """
    for one in sets:
        name = getattr(one, "device", "auto")
        if name not in ("auto", "cpu") and not hasattr(one, "devices"):
            models.find_device(name)


def _each(images: Iterable[Any]) -> Iterator[Any]:
    """Go through images, and those of lists and pairs of images among them."""
    for image in images:
        if isinstance(image, (list, tuple)):
            yield from _each(image)
        else:
            yield image
