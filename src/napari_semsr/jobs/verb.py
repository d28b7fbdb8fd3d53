"""Declare commands by functions, and run them.

`command` turns a function into a `Verb`: its parameters, docstring and result are the
only declaration, from which the parser, the panel's form, the Python function, a step
of a replay, a row of a table and a page of the reference are made. A call passes
through, in this order:

1. `Verb.parse` or `parse_options`: option groups, from values by name;
2. `Verb.job`: checks the device and the outputs, and opens the images;
3. the function, with its arguments and the `Run`, which records the images, composes
   the history and writes the result; `_run_on_planes`, around it, for a stack.

Below, the kinds of arguments come first, then these in the same order.
"""

import inspect
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, get_args, get_type_hints

from pydantic.fields import FieldInfo

from napari_semsr import core, io, models
from napari_semsr.jobs import images, index
from napari_semsr.jobs.images import Image, OverwritePolicy
from napari_semsr.jobs.leakage import warn_if_trained_on

_OF_IMAGES = (None, ".ome.tif", ".ome.zarr")  # suffixes of images; None: not written
_PAIRS = ".zarr"
O = TypeVar("O", bound=core.Options)  # noqa: E741
R = TypeVar("R", bound=images.Result)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image that a command reads."""

    name: str = ""  # by default that of the parameter
    help: str = ""
    optional: bool = False
    flag: str = ""  # command option; empty for a positional argument
    metavar: str = "IMAGE"
    column: str = ""  # name in result tables, if different
    many: bool = False
    also: tuple[str, ...] = ()  # further column names in tables
    label: str = ""  # in a panel; by default derived from the name
    several: bool = False  # several files have one output each, in a folder
    side: str = ""  # prefix of its own reading options
    stack: bool = False  # may be a stack, processed plane by plane

    @property
    def title(self) -> str:
        """Label of the image in a panel."""
        return self.label or self.name.replace("_", " ").capitalize()

    @property
    def tooltip(self) -> str:
        """Description of the image as a sentence."""
        return f"{self.help[:1].upper()}{self.help[1:]}."


@dataclass(frozen=True, slots=True)
class FileInput:
    """A non-image input of a command: a file, folder or name."""

    name: str = ""  # by default that of the parameter
    help: str = ""
    optional: bool = True
    flag: str = ""  # command option; empty for a positional argument
    metavar: str = "FILE"
    many: bool = False
    takes_name: bool = False  # accepts a name instead of a file
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a command."""

    help: str
    name: str = "output"
    is_required: bool = True
    flag: str = "-o"  # of the command; empty for a positional argument
    metavar: str = "OUT"
    # suffix, if written; a folder has none, pairs have ".zarr"
    ending: str | None = ".ome.tif"
    also: tuple[str, ...] = ()  # further allowed suffixes
    remade: bool = False  # overwritten by a resumed run, too
    may_stay_in_memory: bool = False  # its function may return it in memory instead

    @property
    def is_image(self) -> bool:
        """Whether the output may have any image format, not only listed suffixes."""
        return self.ending in _OF_IMAGES

    def check_path(
        self,
        place: str | os.PathLike[str],
        inputs: Sequence[Path],
        existing: OverwritePolicy,
    ) -> Path:
        """Raise an error if the output cannot or must not be written to a path."""
        path = Path(place)
        overwrite = existing.overwrite or (existing.resume and self.remade)
        if self.ending == "":
            images.check_output_not_input(path, inputs)
            # the command checks what the folder contains
            return images.check_target_folder(path, empty=False, parents=True)
        if self.is_image and path.suffix.lower() not in self.also:
            return images.check_image_target(
                path,
                inputs=inputs,
                overwrite=overwrite,
                resume=existing.resume,
                also=self.also,
            )
        if self.ending != _PAIRS:
            endings = self.also if self.is_image else (self.ending or "", *self.also)
            return images.check_target_file(
                path, suffixes=endings, inputs=inputs, overwrite=overwrite
            )
        if not path.name.lower().endswith(_PAIRS):
            msg = f"The path of the pair store must end in {_PAIRS}, got {place}."
            raise core.WriteError(msg, code="suffix-unknown")
        return images.check_image_target(path, inputs=inputs, overwrite=overwrite)


CALIBRATION = FileInput(
    "calibration",
    "pixel size and its standard deviation, as `calibrate()` wrote them",
    metavar="JSON",
)
"""Calibration file, accepted together with options for a pixel size and its error."""
_IN_FILE = ("known_distortion",)  # a `Calibration` object


MAP_OUT = Output("path of the map of one image; its suffix sets the format")
"""Map output for a single image; several images yield a table with one row each
instead.
"""


IMAGE_OUT = Output(
    "file of the result; its suffix sets the format", may_stay_in_memory=True
)
"""Output image, written or returned."""


MODEL_IN = FileInput(
    "model",
    "model in the library, or a .safetensors file",
    metavar="MODEL",
    takes_name=True,
    default=models.DEFAULT_MODEL,
)
"""Model input of a command."""


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """Group of command options passed under one name."""

    name: str = ""  # by default that of the parameter
    title: str = ""
    options: type[core.Options] = core.Options
    exclude: tuple[str, ...] = ()  # options that the command line lacks
    before: str = ""  # prefix of their names, for one image's options

    def arguments(
        self, exclude: Iterable[str] = ()
    ) -> dict[str, FieldInfo | FileInput]:
        """Return the options of the group, keyed by name."""
        found: dict[str, FieldInfo | FileInput] = {
            f"{self.before}{name}": info
            for name, info in self.options.model_fields.items()
            if name not in exclude
        }
        if f"{self.before}pixel_size_sd_nm" in found:
            found[f"{self.before}{CALIBRATION.name}"] = CALIBRATION
        return found


_EXAMPLES = "Examples\n--------\n"


def command(
    name: str = "", **facts: Any
) -> "Callable[[Callable[..., core.Job[R]]], Verb[Any, R]]":
    """Declare a command by a function: its parameters, docstring and result.

    The function takes the run, then images, files and outputs in the order of the
    command line, annotated with `ImageInput`, `FileInput` or `Output`, and its sets of
    options; what follows ``*`` has a flag. The docstring ends with the example.

    Parameters
    ----------
    name : str, optional
        Name of the command; by default that of the function.
    **facts : object
        Further fields of the `Verb`.

    Returns
    -------
    callable
        Turns the function into the `Verb`.
    """

    def declare(function: Callable[..., core.Job[R]]) -> Verb[Any, R]:
        hints = get_type_hints(function, include_extras=True)
        _, *parameters = inspect.signature(function).parameters.values()
        *_, result = get_args(hints["return"])
        items = [_declare_item(one, hints[one.name]) for one in parameters]
        outputs = [one for one in items if isinstance(one, Output)]
        groups = [one for one in items if isinstance(one, OptionGroup)]
        own = next((one for one in groups if one.name == "options"), OptionGroup())
        named = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
        main = next((one for one in outputs if one.name not in named), None)
        return Verb(
            name or function.__name__.replace("_", "-"),
            tuple(one for one in items if isinstance(one, ImageInput)),
            own.options,
            facts.pop("result", None) or next(iter(get_args(result)), result),
            function,
            files=tuple(one for one in items if isinstance(one, FileInput)),
            output=main,
            outputs=tuple(one for one in outputs if one is not main),
            groups=tuple(one for one in groups if one is not own),
            **facts,
        )

    return declare


def _declare_item(
    parameter: inspect.Parameter, hint: object
) -> ImageInput | FileInput | Output | OptionGroup | None:
    """Complete the declaration of an argument by its name, default and place."""
    more: dict[str, Any] = {"name": parameter.name}
    for kind in (hint, *get_args(hint)):
        if inspect.isclass(kind) and issubclass(kind, core.Options):
            return OptionGroup(title=parameter.name, options=kind, **more)
    item: object = next(iter(getattr(hint, "__metadata__", ())), None)
    if not isinstance(item, ImageInput | FileInput | Output):
        return None
    if parameter.kind is parameter.KEYWORD_ONLY:
        flag = f"--{parameter.name.replace('_', '-')}"
        more["flag"] = flag if item.flag in ("", "-o") else item.flag
    if isinstance(item, Output):
        is_required = item.may_stay_in_memory or parameter.default is not None
        return replace(item, is_required=is_required, **more)
    has_default = parameter.default is not parameter.empty
    has_default = has_default or getattr(item, "default", None) is not None
    return replace(item, optional=has_default, **more)


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[O, R]):
    """A command: its inputs, options, outputs, result and job."""

    name: str
    images: tuple[ImageInput, ...]
    options: type[O]
    result: type[R]
    function: Callable[..., core.Job[R]]  # that declares it
    title: str = "options"  # order of the options in the help
    files: tuple[FileInput, ...] = ()
    output: Output | None = None
    outputs: tuple[Output, ...] = ()  # further outputs
    groups: tuple[OptionGroup, ...] = ()
    reads: bool = True  # has reading options
    opens: bool = True  # opens its images before it runs; otherwise its job opens them
    not_read: tuple[str, ...] = ()  # reading options that the command line lacks
    resumes: bool = False
    makes_table: bool = False  # also accepts many images, with a row for each
    # plots of its result in panels and reports
    curves: tuple[core.CurveDeclaration, ...] = ()
    gives: object = None  # return type of its function, if not the result
    value: str = ""  # attribute of the result that is returned
    # sums up the results of the planes of a stack, on each of which the function runs
    sum_up: Callable[[Sequence[R]], dict[str, object]] | None = None

    @property
    def summary(self) -> str:
        """One-sentence description of the command."""
        return index.read_summary(self.name)

    @property
    def function_name(self) -> str:
        """Name of the command's function."""
        functions = index.FUNCTIONS.items()
        return next(name for name, verb in functions if verb == self.name)

    @property
    def example(self) -> str:
        """Doctest of the command's function."""
        return (inspect.getdoc(self.function) or "").partition(_EXAMPLES)[2]

    @property
    def reading_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the per-image reading options."""
        return tuple(item.side for item in self.images if item.side)

    @property
    def inputs(self) -> tuple[ImageInput | FileInput, ...]:
        """Image and file inputs, positional ones first."""
        all_inputs: tuple[ImageInput | FileInput, ...] = (*self.images, *self.files)
        return tuple(sorted(all_inputs, key=lambda item: bool(item.flag)))

    @property
    def roles(self) -> tuple[tuple[str, ...], ...]:
        """Names that the column of each image may have, the preferred one first."""
        return tuple((one.column or one.name, *one.also) for one in self.images)

    @property
    def image_columns(self) -> tuple[str, ...]:
        """Column of each image in tables."""
        return tuple(role[0] for role in self.roles)

    @property
    def required_image_count(self) -> int:
        """Number of required images."""
        return sum(not one.optional for one in self.images)

    @property
    def all_outputs(self) -> tuple[Output, ...]:
        """All outputs of the command."""
        return (*(() if self.output is None else (self.output,)), *self.outputs)

    @property
    def overwrites(self) -> bool:
        """Whether it may overwrite files: its outputs, or those it checks itself."""
        return bool(self.all_outputs) or "existing" in self.parameters

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the function that declares the command."""
        return inspect.signature(self.function).parameters

    @property
    def option_groups(self) -> tuple[OptionGroup, ...]:
        """Option groups of the command, with per-image groups last."""
        own = OptionGroup("options", self.title, self.options, _IN_FILE)
        groups = [own, *self.groups]
        if self.reads:
            not_read = () if self.reading_prefixes else self.not_read
            groups.append(OptionGroup("opening", "reading", io.ReadOptions, not_read))
        for side, image in zip(self.reading_prefixes, self.images, strict=False):
            name = image.name.upper()
            title = f"reading options for {name} only, overriding those for both images"
            groups.append(OptionGroup("", title, io.ReadOptions, before=f"{side}_"))
        return tuple(groups)

    @property
    def arguments(self) -> "dict[str, ImageInput | FileInput | Output | FieldInfo]":
        """All arguments of the command, keyed by name."""
        options = {
            name: item
            for group in reversed(self.option_groups)  # own ones before reading
            for name, item in group.arguments(group.exclude).items()
        }
        items = (*self.inputs, *self.all_outputs)
        return {**options, **{item.name: item for item in items}}

    @property
    def makes_image(self) -> bool:
        """Whether the output is a reproducible image."""
        out = self.output
        return out is not None and out.is_image

    @property
    def return_type(self) -> Any:
        """Return type of the command's function, possibly a union."""
        if self.output is not None and self.output.may_stay_in_memory:
            return self.gives or core.Micrograph | self.result
        return self.gives or self.result

    @property
    def hidden_options(self) -> dict[str, None]:
        """Reading options replaced by command options, all set to None."""
        own = self.options.model_fields
        return {name: None for name in io.ReadOptions.model_fields if name in own}

    def get_read_options(
        self, image: str, options: O, opening: io.ReadOptions
    ) -> io.ReadOptions:
        """Return how an image is read: the command may have options for it alone."""
        names = {name: f"{image}_{name}" for name in io.ReadOptions.model_fields}
        own = {
            name: getattr(options, long)
            for name, long in names.items()
            if long in self.options.model_fields
        }
        return io.ReadOptions(**own) if own else opening

    def get_return_value(self, result: R) -> object:
        """Return the function's return value for a result: its image, if any."""
        if self.value:
            return getattr(result, self.value)
        image = getattr(result, "image", None)
        is_image = isinstance(image, core.Micrograph)
        return image if is_image and self.return_type is not self.result else result

    def parse(self, values: Mapping[str, object]) -> dict[str, Any]:
        """Create the option groups from named values, ignoring unknown names."""
        sets = {one.name: one.options for one in self.option_groups if not one.before}
        values_given = dict(values)
        if values.get(CALIBRATION.name) is not None:
            values_given = io.apply_calibration(values, sets.values())
        parts = {}
        for name, model in sets.items():
            own = {k: values_given[k] for k in model.model_fields if k in values_given}
            hidden = self.hidden_options if name == "opening" else {}
            parts[name] = model.parse(own | hidden)
        if self.reading_prefixes:
            names = (*io.ReadOptions.model_fields, CALIBRATION.name)
            both, *alone = (
                io.apply_calibration(
                    {n: values[side + n] for n in names if side + n in values},
                    [io.ReadOptions],
                )
                for side in ("", *(f"{side}_" for side in self.reading_prefixes))
            )
            groups = ("opening", f"{self.reading_prefixes[1]}_opening")
            for group, own in zip(groups, alone, strict=True):
                if "pixel_size_nm" in own:  # another one, to which no error applies
                    own.setdefault("pixel_size_sd_nm", None)
                parts[group] = io.ReadOptions.parse({**both, **own})
        return parts

    def list_values(self, **sets: core.Options | None) -> dict[str, object]:
        """Return the values, as JSON, that `parse` converts to these option groups.

        Defaults, and options that the command lacks, are left out.
        """
        first, *others = self.reading_prefixes or ("",)
        prefixes = {f"{side}_opening": f"{side}_" for side in others}
        prefixes["opening"] = f"{first}_" if first else ""
        if (other := sets.get("options")) is not None:  # may be of another command
            own = other.model_dump(include={*self.options.model_fields})
            sets["options"] = self.options.parse(own)
        values: dict[str, object] = {}
        for group, one in sets.items():
            own = one.model_dump(mode="json", exclude_defaults=True) if one else {}
            values |= {prefixes.get(group, "") + name: own[name] for name in own}
        return values

    def parse_options(self, options: Mapping[str, object]) -> dict[str, Any]:
        """Create the option groups from named options, rejecting unknown names.

        Raises
        ------
        OptionError
            If a name is not an option of the command, its groups or reading.
        """
        prefixes = {
            name: one.before for one in self.option_groups for name in one.arguments()
        }
        unknown = sorted(set(options) - {*prefixes})
        for name in unknown:
            shown = f"The option {name} of {self.function_name}"
            if former := index.describe_former_name(f"{self.name} --{name}", shown):
                raise core.OptionError(former)
        if not unknown:
            return self.parse(options)
        names = ", ".join(sorted(name for name, side in prefixes.items() if not side))
        if self.reading_prefixes:
            sides = "_ or ".join(self.reading_prefixes)
            names += f"; reading options may also be prefixed with {sides}_"
        near = get_close_matches(unknown[0], prefixes, 1)
        start = "Unknown option" + "s" * (len(unknown) > 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        msg = (
            f"{start} {', '.join(unknown)} of {self.function_name}{hint}; valid "
            f"options are {names}."
        )
        raise core.OptionError(msg, code="unknown-option")

    def start(self, values: Mapping[str, object], **how: object) -> core.Job[R]:
        """Create the job from named values, including options."""
        items = (*self.inputs, *self.all_outputs)
        files = {one.name: values[one.name] for one in items if one.name in values}
        return self.job(**files, **self.parse(values), **how)

    def call(
        self, values: Mapping[str, object], existing: OverwritePolicy
    ) -> core.Job[R]:
        """Create the job from named values, also those that only its function takes."""
        more = {name: one for name, one in values.items() if name not in self.arguments}
        if self.resumes:
            more["keep"] = existing.keep
        how = {"overwrite": existing.overwrite, "resume": existing.resume}
        return self.start(values, **how, **more)

    def job(
        self,
        *inputs: object,
        options: O | Any = None,
        opening: io.ReadOptions | Any = None,
        overwrite: bool | Any = False,
        resume: bool | Any = False,
        **values: Any,
    ) -> core.Job[R]:
        """Check the outputs, open the images, and run.

        It yields `Progress` and returns the result. In `inputs`, the output comes last.
        A resumable command keeps finished parts, unless `keep` is False.
        """
        yield core.Progress(0, 0, "reading")
        first = [item.name for item in self.inputs if not item.flag]
        first += [] if self.output is None else [self.output.name]
        if len(inputs) > len(first):
            msg = (
                f"{self.name} takes only {', '.join(first)} as positional arguments; "
                "pass others by name"
            )
            raise TypeError(msg)
        values |= dict(zip(first, inputs, strict=False))
        usual = {item.name: item.default for item in self.files}
        values = usual | {k: v for k, v in values.items() if v is not None}
        keeps = self.resumes and values.pop("keep", True)
        run = Run(
            self.name,
            self._take_images(values),
            (options or self.options.parse({})).reset_unused_options(),
            opening or io.ReadOptions(),
            existing=OverwritePolicy(overwrite, resume, keeps),
            parameters=values,
        )
        check_devices((run.options, *values.values()))
        for item in self.images:  # those that are read unlike the others
            reading = self.get_read_options(item.name, run.options, run.opening)
            if reading is not run.opening:
                run.readings[item.name] = reading
        for side in self.reading_prefixes[1:]:
            run.readings[side] = values.pop(f"{side}_opening", None) or io.ReadOptions()
        files = [values.get(item.name) for item in self.files]
        run.inputs = [
            Path(one)
            for one in (*_iterate_images(run.image_inputs.values()), *files)
            if isinstance(one, (str, os.PathLike))
        ]
        self._set_targets(run, values)
        if self.opens:
            run.open_images()
        if self.sum_up is not None:
            return (yield from _run_on_planes(run, self._call_function, self.sum_up))
        return (yield from self._call_function(run))

    def _set_targets(self, run: "Run[O]", values: dict[str, Any]) -> None:
        """Remove the outputs from named values, and check them."""
        for output in self.all_outputs:
            place = values.pop(output.name, None)
            if place is not None:
                target = output.check_path(place, run.inputs, run.existing)
                run.targets[output.name] = target
                io.remove_leftovers(target.parent, target.name)
        if self.output is not None:
            run.target = run.targets.get(self.output.name)
        for one, other in combinations(run.targets.values(), 2):
            images.check_outputs_differ(one, other)

    def _call_function(self, run: "Run[O]") -> core.Job[R]:
        """Call the function with the values of a run as its arguments."""
        given = {**run.parameters, **run.targets, **run.image_inputs, **run.images}
        given |= {"options": run.options, "existing": run.existing}
        if self.output is not None:
            given[self.output.name] = run.target
        _, *names = self.parameters
        return self.function(run, **{name: given.get(name) for name in names})

    def rerun(self, *inputs: object, **how: object) -> core.Job[R]:
        """Run the command, overwriting existing outputs."""
        return self.job(*inputs, overwrite=True, **how)

    def _take_images(self, values: dict[str, Any]) -> dict[str, Any]:
        """Remove the images from named values, and return them."""
        images = {}
        for item in self.images:
            image = values.pop(item.name, None)
            if item.many and isinstance(image, (core.Micrograph, str, os.PathLike)):
                image = [image]
            if image is not None:
                images[item.name] = image
        return images


def get_verb(name: str) -> Verb[core.Options, images.Result] | None:
    """Import a command; return None if unknown or if it has several actions."""
    place, _, function = index.PLACES.get(name, "").rpartition(".")
    if not function:
        return None
    module = import_module(f".{place}", "napari_semsr.jobs")
    verb: Verb[core.Options, images.Result] = getattr(module, function)
    return verb


def check_devices(sets: Iterable[object]) -> None:
    """Raise an error for an unavailable device, before anything is read.

    Training checks its own device, as the recipe may set it.
    """
    for one in sets:
        name = getattr(one, "device", "auto")
        if name not in ("auto", "cpu") and not hasattr(one, "devices"):
            models.find_device(name)


def _iterate_images(images: Iterable[object]) -> Iterator[object]:
    """Yield images, including those in lists."""
    for image in images:
        if isinstance(image, (list, tuple)):
            yield from _iterate_images(image)
        else:
            yield image


_WITH_BARS = "crop", "calibrate"  # commands that may omit the bar


@dataclass(slots=True)
class Run(Generic[O]):
    """One run of a command: its inputs, reading options and outputs."""

    verb: str
    # by the names of the command's images; a list for many
    image_inputs: dict[str, Any]
    options: O
    opening: io.ReadOptions
    target: Path | None = None
    existing: OverwritePolicy = field(default_factory=OverwritePolicy)
    inputs: list[Path] = field(default_factory=list)  # images to read
    parameters: dict[str, object] = field(default_factory=dict)  # files, groups
    targets: dict[str, Path] = field(default_factory=dict)  # by names of outputs
    images: dict[str, core.Micrograph] = field(default_factory=dict)  # opened
    sources: dict[str, io.Source] = field(default_factory=dict)  # their source files
    readings: dict[str, io.ReadOptions] = field(default_factory=dict)  # of some images
    roles: dict[str, str] = field(default_factory=dict)  # roles of images in histories
    records: dict[str, core.InputRecord] = field(default_factory=dict)

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of the input images."""
        return tuple(map(images.get_image_name, self.image_inputs.values()))

    @property
    def output(self) -> str | None:
        """Output path, or None if the output is not written."""
        return None if self.target is None else str(self.target)

    def copy_for_plane(
        self,
        image: Image,
        target: Path | None,
        opening: io.ReadOptions,
        existing: OverwritePolicy,
    ) -> "Run[O]":
        """Return a copy of the run for one plane, or one image, and its output."""
        name, before = next(iter(self.image_inputs.items()))
        return replace(
            self,
            image_inputs={name: image},
            target=target,
            opening=opening,
            existing=existing,
            images={},
            records={},
            sources=self.sources if image is before else {},
        )

    def get_image_name(self, role: str) -> str:
        """Return the name of an image that its user knows."""
        return images.get_image_name(self.image_inputs[role])

    def open_image(self, role: str = "image") -> core.Micrograph:
        """Open the images, and return one of them."""
        self.open_images()
        return self.images[role]

    def get_images(self, *roles: str) -> tuple[core.Micrograph, ...]:
        """Return opened images."""
        return tuple(self.images[role] for role in roles)

    def open_images(self) -> None:
        """Open all images."""
        for role, given in self.image_inputs.items():
            is_open = isinstance(given, core.Micrograph)
            source = given if is_open else self.get_source(role)
            image = images.open_image(source, self.get_read_options(role))
            notes = []
            if not self.images:
                dtype = getattr(self.options, "dtype", None)
                notes.append(images.create_grey_level_note(image, dtype))
            if not is_open and self.verb not in _WITH_BARS:
                name = images.get_image_name(given)
                notes.append(images.create_databar_note(name, image))
            for note in filter(None, notes):
                core.warn(note)
            self.images[role] = image
        alike = [role for role in self.images if role not in self.readings]
        corrected = images.correct_pixel_sizes(self.get_images(*alike), self.opening)
        self.images |= zip(alike, corrected, strict=True)

    def get_source(self, role: str) -> io.Source:
        """Return the source of an image, opening its file only once."""
        if role not in self.sources:
            self.sources[role] = images.open_source(self.image_inputs[role])
        return self.sources[role]

    def get_read_options(self, role: str) -> io.ReadOptions:
        """Return the reading options of an image."""
        return self.readings.get(role, self.opening)

    def record_image(self, role: str) -> core.Job[core.InputRecord]:
        """Record an image for the history of the result, only once."""
        if role not in self.records:
            self.records[role] = yield from images.record_input(
                self.sources.get(role, self.image_inputs[role]),
                self.images[role],
                self.get_read_options(role),
                role=self.roles.get(role, role),
            )
        return self.records[role]

    def warn_if_trained_on(self) -> None:
        """Warn if an image was made by a model trained on the same area."""
        pairs = [
            (self.sources.get(role, image), self.images[role])
            for role, image in self.image_inputs.items()
        ]
        warn_if_trained_on(pairs, self.opening)

    def compose_history(
        self,
        *guides: core.InputRecord,
        inputs: Sequence[core.InputRecord] = (),
        led_by: str = "",
        **more: object,
    ) -> core.Job[core.Provenance]:
        """Compose the provenance of the output, including additional `inputs`.

        It lists the images that were opened; the data of the one that the run is
        `led_by` are not part of the result. `more` describes the run.
        """
        records, lead_records = [], []
        for role in (role for role in self.image_inputs if role in self.images):
            record = yield from self.record_image(role)
            if role == led_by:  # which does not count as a shared source of images
                update = {"role": role, "provenance": None}
                lead_records.append(record.model_copy(update=update))
            else:
                records.append(record)
        recorded_options = {
            **self.options.model_dump(mode="json"),
            "reading": self.opening.model_dump(mode="json"),
        }
        first = self.images.get(next(iter(self.image_inputs), ""))
        if first is not None:
            if "pixel_size_nm" not in more:
                recorded_options |= get_size_record(first)
            recorded_options |= first.unrecorded_instrument
        return images.compose_provenance(
            self.verb,
            recorded_options | more,
            *records,
            *inputs,
            guides=[*lead_records, *guides],
        )

    def write_image(self, image: core.Micrograph) -> None:
        """Write an image if the run has an output path."""
        if self.target is not None:
            io.write(image, self.target, overwrite=self.existing.overwrite)


def get_size_record(image: core.Micrograph) -> dict[str, object]:
    """Return the pixel-size error and source of an image, as histories record them."""
    keys = core.SIZE_ERROR_KEY, core.ORIGIN_KEY
    return {key: image.metadata[key] for key in keys if key in image.metadata}


class PixelSizeFields(TypedDict):
    """Fields of a result with a pixel size."""

    pixel_size_nm: core.FloatPair | None
    pixel_size_sd_nm: core.FloatPair | None


def get_pixel_size_fields(image: core.Micrograph) -> PixelSizeFields:
    """Return the pixel size of an image as result fields."""
    return {
        "pixel_size_nm": image.pixel_size_nm,
        "pixel_size_sd_nm": image.pixel_size_sd_nm,
    }


# Run on each plane of a stack.


def _run_on_planes(
    run: Run[O],
    job: Callable[[Run[O]], core.Job[R]],
    sum_up: Callable[[Sequence[R]], dict[str, object]],
) -> core.Job[R]:
    """Run a job on an image, or on every plane of a stack; `sum_up` adds the results.

    Each plane of a stack has its own scaling and goes to a hidden store next to the
    output, so that an interrupted run can be resumed; the stores are removed once the
    stack is complete.
    """
    if run.target is None:
        return (yield from job(run))
    target, image = run.target, run.image_inputs["image"]
    is_stack = isinstance(image, Sequence) and not isinstance(image, str)
    axes: dict[str, int] = {}  # none for a single plane
    if is_stack:
        axes = {"plane": len(image)}
    elif not isinstance(image, core.Micrograph) and run.opening.plane is None:
        is_there = Path(image).exists()
        axes = run.get_source("image").read_axes(run.opening) if is_there else {}
    planes = math.prod(axes.values())
    if planes == 1:
        if is_stack:
            run = run.copy_for_plane(image[0], target, run.opening, run.existing)
        return (yield from job(run))
    _check_stack_outputs(run, target, axes)
    existing = OverwritePolicy(not run.existing.resume, run.existing.resume)
    results: list[Any] = []
    for plane in range(planes):
        one = run.copy_for_plane(
            image[plane] if is_stack else image,
            target.with_name(f".{target.name}.{plane}.part.ome.zarr"),
            run.opening if is_stack else run.opening.replace(plane=plane),
            existing,
        )

        def count_planes(step: core.Progress, plane: int = plane) -> core.Progress:
            message = f"{step.message} (plane {plane + 1} of {planes})"
            done, total = plane * step.total + step.done, planes * step.total
            return replace(step, done=done, total=total, message=message)

        results.append((yield from core.map_progress(job(one), count_planes)))
    yield core.Progress(0, 0, f"writing {target.name}")
    history = results[0].provenance
    inputs = tuple(record for item in results for record in item.provenance.inputs)
    if not is_stack:  # the records of planes include their index
        inputs = (images.create_stack_record(inputs[0], run.opening),)
    reading = {"reading": run.opening.model_dump(mode="json")}
    update = {"options": {**history.options, **reading}, "inputs": inputs}
    history = history.model_copy(update=update)
    # `open_image` would name it after the temporary file
    first = io.read(results[0].output).replace(provenance=history)
    pages = (images.open_image(item.output).array() for item in results)
    io.write_pages(first, axes, pages, target)
    for item in results:
        shutil.rmtree(item.output)
    combined_result: R = replace(
        results[0],
        output=str(target),
        shape=(*io.get_page_axes(axes).values(), *first.shape),
        provenance=history,
        **sum_up(results),
    )
    return combined_result


def _check_stack_outputs(run: Run[O], target: Path, axes: dict[str, int]) -> None:
    """Raise an error for outputs that a stack cannot be written to."""
    planes = math.prod(axes.values())
    for name, place in run.targets.items():
        if place != target:
            msg = (
                f"A {name.replace('_', ' ')} requires a single plane, got a stack of "
                f"{planes} planes: choose one plane (`plane`)."
            )
            raise core.OptionError(msg, code="several-planes")
    if io.get_output_format(target) not in ("ome-tiff", "tiff"):
        msg = (
            f"A stack of {planes} planes can only be written as .ome.tif or .tif, got "
            f"{target.name}: change the suffix, or choose one plane (`plane`)."
        )
        raise core.WriteError(msg, code="format-unsupported")
    io.check_page_axes(axes, target)
