"""Reading and validation of steps files, whose steps are commands with options.

Everything is checked here, before the first image is processed: unknown commands and
options, missing files, outputs outside the folder, and outputs that collide.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from napari_semsr.core import (
    Message,
    OptionError,
    Options,
    Provenance,
    ReadError,
    SemsrError,
    WriteError,
    check_user_only_options,
    describe_access_error,
    describe_error,
    format_one_line,
    get_columns,
    get_display,
    get_error_code,
    read_bytes,
    to_text,
)
from napari_semsr.io import (
    SHEET_SUFFIXES,
    Cell,
    create_file_stem,
    create_missing_file_error,
    get_disk_spelling,
    path_exists,
)
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.index import VERBS, get_verb
from napari_semsr.jobs.measure import find_images, read_image_rows
from napari_semsr.jobs.models import find_source_model
from napari_semsr.jobs.plan import (
    Call,
    CallOutput,
    File,
    Input,
    Plan,
    PlanTask,
    create_plan,
    require_verb,
)
from napari_semsr.jobs.verb import FileInput, ImageInput, Output, Verb
from napari_semsr.models import find_model
from napari_semsr.restoration import parse_psf

STATE = ".batch"
"""Folder in the output folder that records which steps are finished."""

TABLE = "table.csv"
"""Name of the table file in the output folder."""

REPORT = "report"
"""Name prefix of report pages, and the command that creates them."""

_LARGEST = 1 << 20  # bytes; chosen: about ten thousand lines
_DEEPEST = 16  # nesting depth; chosen: steps need five
_MAX_STEPS = 100  # chosen: longer lists are unreadable
_MAX_INPUTS = 100_000  # chosen: the limit of a table of measurements
_PATH_LENGTH = 300  # characters of a path in a message; chosen: a few lines
_NEAR = 3  # names that a message suggests

_STEP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_STEP_MARK = "step."
_BY_ITSELF = frozenset({"overwrite", "resume", "table"})  # of the command line only


@dataclass(frozen=True, slots=True)
class ImageTask(PlanTask):
    """Steps of one image."""

    image: str = ""
    last: str | None = None  # the final image, in the output folder


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Validated steps file."""

    folder: Path
    images: tuple[ImageTask, ...]
    columns: tuple[str, ...]  # columns of the table, from the steps' results
    report: dict[str, object] | None  # options of the report, None if there is none
    title: str

    @property
    def table_path(self) -> Path:
        """Path of the table."""
        return self.folder / TABLE


# The file.


class _StrictLoader(yaml.SafeLoader):
    """YAML loader for plain values only, without aliases or duplicate keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, rejecting aliases and deep nesting."""
        if self.check_event(yaml.AliasEvent):
            msg = "aliases (*) are not supported, repeat the text"
            raise yaml.YAMLError(msg)
        self.depth += 1
        if self.depth > _DEEPEST:
            msg = f"its tables and lists are nested more than {_DEEPEST} levels deep"
            raise yaml.YAMLError(msg)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Construct a mapping, rejecting duplicate keys."""
        keys = [str(getattr(key, "value", "")) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            msg = f"the key {twice!r} occurs twice in one table"
            raise yaml.YAMLError(msg)
        return super().construct_mapping(node, deep)


def read_steps(path: Path) -> object:
    """Read a steps file as plain values."""
    try:
        text = read_bytes(path, _LARGEST).decode("utf-8-sig")
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, FileNotFoundError):
            raise create_missing_file_error(path) from error
        reason = getattr(error, "strerror", None) or str(error) or "too deep"
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or reason.splitlines()[0]
        line = f" in line {where.line + 1}" if where is not None else ""
        fault = f"Cannot read {path} as a steps file: {problem}{line}."
        raise ReadError(
            describe_access_error(path, error) or Message(fault, "content-invalid")
        ) from error


# Steps as written in the file.


@dataclass(frozen=True)
class _BatchStep:
    """Step of a steps file."""

    number: int  # 0 for the report
    name: str
    verb: Verb[Options, Result]
    options: Mapping[Any, object]

    @property
    def label(self) -> str:
        """Label of the step in messages."""
        if not self.number:
            return f"The entry {self.name}"
        alias = f" {self.name}" if self.name != self.verb.name else ""
        return f"Step {self.number}{alias} ({self.verb.name})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Table columns of the step's outputs and results."""
        output, prefix = self.verb.output, self.name.replace("-", "_")
        kind = self.verb.result
        names = get_columns(kind) if self.verb.makes_table else kind.NUMBERS
        if output is not None and output.name in self.values:
            names = ("output", *names)
        return tuple(f"{prefix}_{name}" for name in names)

    @cached_property
    def arguments(self) -> Mapping[str, ImageInput | FileInput | Output | FieldInfo]:
        """Arguments of the step's command."""
        return self.verb.arguments

    @cached_property
    def given_values(self) -> dict[str, object]:
        """Step options by argument name; unknown options raise an error."""
        names_by_spelling = _map_spellings(self.verb)
        values: dict[str, object] = {}
        for key, value in self.options.items():
            spelt = _normalise_name(key)
            if spelt in _BY_ITSELF and spelt not in names_by_spelling:
                raise self.create_reserved_error(key)
            if spelt not in names_by_spelling:
                near = difflib.get_close_matches(spelt, names_by_spelling, n=1)
                see = f"see semsr {self.verb.name} -h."
                hint = f"did you mean {near[0]}?" if near else see
                fault = f"has no option {str(key)!r:.60}; {hint}"
                raise self.create_error(fault, "unknown-option")
            name, *keys = names_by_spelling[spelt]
            if keys and not isinstance(value, bool):
                fault = f"must set {key} to true or false, got {value!r:.60}."
                raise self.create_error(fault, "wrong-type")
            values[name] = (keys[0] if value else None) if keys else value
        check_user_only_options(values, _find_user_options(self.arguments), self.label)
        return values

    @cached_property
    def values(self) -> dict[str, object]:
        """Options of the step, with default values for image and output."""
        inputs = [item for item in self.verb.inputs if not item.flag]
        has_names = bool(inputs) and not getattr(inputs[0], "takes_name", False)
        usual = tuple(item.batch for item in self.verb.images if item.batch)
        usual = usual or ("{previous}",) * has_names
        usual_values = dict(zip((item.name for item in inputs), usual, strict=False))
        output = self.verb.output
        if output is not None and output.ending is not None:
            usual_values[output.name] = f"{self.name}/{{name}}{output.ending}"
        return usual_values | self.given_values

    def check(self, values: Mapping[str, object], image: str = "") -> None:
        """Check the options by parsing them as the command does."""
        try:
            self.verb.parse(values)
        except Exception as error:
            where = f"{self.label}, image {image}" if image else self.label
            msg = f"{where}: {describe_error(error)}"
            raise OptionError(msg, code=get_error_code(error)) from error

    def create_error(self, fault: str, code: str = OptionError.code) -> OptionError:
        """Create the error for a fault of this step."""
        return OptionError(f"{self.label} {fault}", code=code)

    def create_reserved_error(self, key: object) -> OptionError:
        """Create the error for an option that is set by the batch."""
        return self.create_error(
            (f"must not set {key}, which is set by the batch."), "unknown-option"
        )


def _map_spellings(verb: Verb[Options, Result]) -> dict[str, tuple[Any, ...]]:
    """Map the spellings of arguments to argument names and the values of bare flags."""
    spellings: dict[str, tuple[object, ...]] = {
        name: (name,) for name in verb.arguments
    }
    for item in (*verb.inputs, *verb.all_outputs):
        by_name = (
            isinstance(item, ImageInput) and not item.many
        )  # shown in the help, too
        if item.flag.startswith("--") or not (item.flag or by_name):
            spellings.setdefault(
                _normalise_name(item.flag or item.metavar.lower()), (item.name,)
            )
    for name, info in verb.arguments.items():
        if isinstance(info, FieldInfo):
            flags = dict(get_display(info).flags or {})
            if info.annotation is bool and info.default:
                flags[f"no_{name}"] = False
            spellings |= {
                _normalise_name(flag): (name, value) for flag, value in flags.items()
            }
    return spellings


def _normalise_name(name: object) -> str:
    """Convert a flag to an argument name."""
    return str(name).removeprefix("--").replace("-", "_")


def _find_user_options(arguments: Mapping[str, object]) -> set[str]:
    """Return the options that can only be set by the user."""
    fields = {k: v for k, v in arguments.items() if isinstance(v, FieldInfo)}
    return {name for name, info in fields.items() if get_display(info).user_only}


NO_STEPS = {
    "adapt": "it trains a model, which the next steps need as a file",
    "batch": "a batch cannot run batches",
    "demo": "it simulates its own samples",
    "models": "it manages models, not images",
}
"""Reasons why some commands cannot be batch steps."""


def _parse_steps(entries: object) -> list[_BatchStep]:
    """Parse the list of steps."""
    if not isinstance(entries, (list, tuple)) or not entries:
        msg = f"steps must be a list of commands with options, got {entries!r:.60}."
        raise OptionError(msg, code="wrong-type")
    if len(entries) > _MAX_STEPS:
        msg = f"A batch can have at most {_MAX_STEPS} steps, got {len(entries)}."
        raise OptionError(msg, code="out-of-range")
    steps: list[_BatchStep] = []
    for number, entry in enumerate(entries, start=1):
        steps.append(_parse_step(number, entry, [step.name for step in steps]))
    return steps


def _parse_step(number: int, entry: object, names_in_use: Sequence[str]) -> _BatchStep:
    """Parse one step: a command, optionally with options and a name."""
    table = {entry: None} if isinstance(entry, str) else entry
    if not isinstance(table, Mapping):
        msg = f"Step {number} must be a command with its options, got {entry!r:.60}."
        raise OptionError(msg, code="wrong-type")
    verbs = [key for key in table if key != "name"]
    if len(verbs) != 1 or not isinstance(verbs[0], str):
        verbs_given = format_one_line(", ".join(map(str, verbs))) or "none"
        msg = (
            f"Step {number} must be one command, with its options below it, got "
            f"{verbs_given}."
        )
        raise OptionError(msg, code="wrong-type")
    if verbs[0] not in VERBS:
        verb_names = [one for one in VERBS if one not in NO_STEPS]
        near = difflib.get_close_matches(verbs[0], verb_names, n=_NEAR)
        suggestion = f"did you mean {' or '.join(near)}?"
        hint = suggestion if near else f"the commands are {', '.join(verb_names)}."
        msg = f"Step {number} is {verbs[0]!r:.60}, which is not a command; {hint}"
        raise OptionError(msg, code="verb-unknown")
    verb, options = get_verb(verbs[0]), table[verbs[0]]
    if verb is None or verbs[0] in NO_STEPS:
        why = NO_STEPS[verbs[0]]
        msg = f"Step {number} is {verbs[0]}, which cannot be a step: {why}."
        raise OptionError(msg, code="verb-unsuitable")
    if not isinstance(options, (Mapping, type(None))):
        msg = (
            f"The options of step {number} ({verb.name}) must be a table of name: "
            f"value entries, got {options!r:.60}."
        )
        raise OptionError(msg, code="wrong-type")
    name = table.get("name")
    if name is None:
        more = (f"{verb.name}-{count}" for count in range(2, _MAX_STEPS + 1))
        name = next(one for one in (verb.name, *more) if one not in names_in_use)
    if not isinstance(name, str) or not _STEP_NAME.fullmatch(name):
        msg = (
            f"The name of step {number} must consist of at most 40 lower-case letters, "
            f"digits, '-' and '_', got {name!r:.60}."
        )
        raise OptionError(msg, code="name-invalid")
    if name.replace("-", "_") in {one.replace("-", "_") for one in names_in_use}:
        msg = f"Two steps have the name {name}; rename step {number}."
        raise OptionError(msg, code="names-alike")
    return _BatchStep(number, name, verb, options or {})


# Placeholders.


# Images.


@dataclass(frozen=True, slots=True)
class _InputImage:
    """Input image with the cells of its table row."""

    path: Path
    name: str
    cells: Mapping[str, str] = field(default_factory=dict)  # further columns
    root: Path = field(default_factory=Path)  # base of relative paths in cells


def _shorten_path(path: Path) -> str:
    """Shorten a path for a message."""
    return format_one_line(str(path), _PATH_LENGTH)


def _find_input_images(inputs_path: Path, folder: Path) -> list[_InputImage]:
    """Find the input images, and raise an error if they are in the output folder."""
    whole = folder.resolve()
    if inputs_path.is_file() and inputs_path.suffix.lower() in SHEET_SUFFIXES:
        root, images = inputs_path.absolute().parent, []
        for _, cells in read_image_rows(inputs_path, [("image",)]):
            image = get_disk_spelling(root / cells.pop("image"))
            name = cells.pop("name", "")
            stem = create_file_stem(name) if name else _get_image_name(image)
            images.append(_InputImage(image, stem, cells, root))
    else:
        paths = [path.absolute() for path in find_images(inputs_path)]
        paths_outside = [path for path in paths if whole not in path.resolve().parents]
        if paths and not paths_outside:
            msg = (
                f"The images of {_shorten_path(inputs_path)} are in the output folder "
                f"{_shorten_path(folder)}: choose another output folder."
            )
            raise OptionError(msg, code="output-is-input")
        images = [_InputImage(path, _get_image_name(path)) for path in paths_outside]
    if len(images) > _MAX_INPUTS:
        msg = f"A batch can process at most {_MAX_INPUTS} images, got {len(images)}."
        raise OptionError(msg, code="out-of-range")
    by_name: dict[str, _InputImage] = {}
    for one in images:
        if not one.path.exists():
            raise create_missing_file_error(one.path)
        if whole == one.path.resolve() or whole in one.path.resolve().parents:
            msg = (
                f"The input {_shorten_path(one.path)} is in the output folder "
                f"{_shorten_path(folder)}."
            )
            raise OptionError(msg, code="output-is-input")
        other = by_name.setdefault(one.name.casefold(), one)
        if other is not one:
            msg = (
                f"Two inputs have the same name {one.name}, "
                f"{_shorten_path(other.path)} and {_shorten_path(one.path)}: give them "
                "different names in a table with the columns image and name."
            )
            raise OptionError(msg, code="names-alike")
    return images


def _get_image_name(path: Path) -> str:
    """Return the file name of an image without its suffix."""
    name = path.name
    for ending in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if name.lower().endswith(ending):
            return create_file_stem(name[: -len(ending)])
    return create_file_stem(
        path.stem if path.is_file() or path.suffix == ".zarr" else name
    )


# Steps of one image.


class _TaskBuilder:
    """Builder of the task for an image, filling placeholders and finding files."""

    def __init__(
        self, image: _InputImage, folder: Path, base: Path, steps: Sequence[_BatchStep]
    ) -> None:
        self.image = image
        self.folder = folder
        self.base = base  # folder that paths in the steps file refer to
        self.steps = {step.name: step for step in steps}
        self.paths: dict[str, str] = {}  # outputs by step name
        self.previous: Input = File(path=str(image.path))

    def build_task(self) -> ImageTask:
        """Build the task for the image."""
        image, folder = self.image, str(self.folder)
        plan = Plan(calls=tuple(map(self.build_call, self.steps.values())))
        cells: dict[str, Cell] = {k: cell or None for k, cell in image.cells.items()}
        last = getattr(self.previous, "call", None)
        last = None if last is None else self.paths[last]
        state = self.folder / STATE / f"{image.name}.json"
        image_facts = image.name, plan, folder, state, cells
        return ImageTask(*image_facts, image=str(image.path), last=last)

    def build_call(self, step: _BatchStep) -> Call:
        """Build the call for a step."""
        inputs, options, outputs = (
            dict[str, object](),
            dict[str, object](),
            dict[str, str](),
        )
        for name, step_value in sorted(step.values.items()):
            value = self._convert_value(step, name, step_value)
            if value is None:
                continue  # not given, or an empty cell of the table
            if isinstance(step.arguments[name], Output):
                outputs[name] = value
            elif _has_inputs(value):
                inputs[name] = value
            else:
                options[name] = value
        read = (item for item in step.verb.inputs if not item.optional)
        outputs_written = (
            o for o in step.verb.all_outputs if o.is_required or o.one_needs_it
        )
        for one in (*read, *outputs_written):
            if one.name not in inputs | options | outputs:
                raise step.create_error(
                    f"needs {one.name}: {one.help}.", "missing-value"
                )
        files = {
            k: self._convert_to_text(v) for k, v in inputs.items() if not _is_list(v)
        }
        step.check(options | files, self.image.name)
        output = step.verb.output
        if output is not None and output.name in outputs:
            self.paths[step.name] = outputs[output.name]
            if output.goes_on:
                self.previous = CallOutput(call=step.name)
        how = {"verb": step.verb.name, "options": options, "outputs": outputs}
        return Call.parse({"name": step.name, "inputs": inputs, **how})

    def _convert_value(self, step: _BatchStep, name: str, value_given: object) -> Any:
        """Convert a value to the argument type: a list, a single value or text."""
        value, item = (
            self._fill_value_placeholders(step, name, value_given),
            step.arguments[name],
        )
        if isinstance(item, FieldInfo):
            if _is_list(value):
                value = [
                    self._convert_to_text(v) if _has_inputs(v) else v for v in value
                ]
            return value if _has_inputs(value) else to_text(item, value)
        many = getattr(item, "many", False)
        if _is_list(value) and not many:
            raise step.create_error(
                f"must have one file for {name}, got {len(value)}.", "wrong-type"
            )
        if value is None or not many:
            return value
        return tuple(value if _is_list(value) else [value])

    def _convert_to_text(self, one: object) -> str:
        """Convert part of a value to text; a file becomes its path."""
        if isinstance(one, CallOutput):
            return str(self.folder / self.paths[one.call])
        return one.path if isinstance(one, File) else str(one)

    def _fill_value_placeholders(self, step: _BatchStep, name: str, value: Any) -> Any:
        """Fill the placeholders of a value; return None if they are empty."""
        if _is_list(value):
            each = [self._fill_value_placeholders(step, name, one) for one in value]
            return [one for one in each if one is not None] or None
        item = step.arguments[name]
        option = isinstance(item, FieldInfo)
        simple = isinstance(value, (str, int, float, os.PathLike, type(None)))
        if not simple or (isinstance(value, bool) and not option):
            kinds = "a text, a number or a list of these"
            fault = f"must have {kinds} for {name}, got {value!r:.60}."
            raise step.create_error(fault, "wrong-type")
        if value is None or (option and isinstance(value, (int, float))):
            return value
        plain = isinstance(item, Output)  # table cells stay text in paths to write
        pieces = [
            self._get_placeholder_value(step, part, plain=plain) if number % 2 else part
            for number, part in enumerate(_PLACEHOLDER.split(str(value)))
        ]
        pieces = [one for one in pieces if one != ""]
        if not pieces:
            return None
        text = "".join(map(self._convert_to_text, pieces))
        if isinstance(item, Output):
            return self._get_output_path(step, name, text)
        if _has_inputs(pieces):
            whole = text if option else File(path=text)
            return whole if pieces[1:] else pieces[0]
        return self._find_file(step, name, item, text)

    def _get_placeholder_value(
        self, step: _BatchStep, place: str, *, plain: bool
    ) -> Input | str:
        """Return the value of a placeholder; raise an error if it is unknown."""
        image = self.image
        if place == "previous":
            return self.previous
        if place == "input":
            return File(path=str(image.path))
        if place == "name":
            return image.name
        if place in image.cells:
            cell = image.cells[place]
            path = get_disk_spelling(image.root / cell)
            a_file = path.suffix != "" or path.is_dir()
            file = cell != "" and not plain and a_file and path_exists(path)
            return File(path=str(path)) if file else cell
        name = place.removeprefix(_STEP_MARK)
        if not place.startswith(_STEP_MARK) or name not in self.steps:
            place_names = ["input", "previous", "name", *image.cells]
            place_names += [f"{_STEP_MARK}{other}" for other in self.steps]
            places_text = ", ".join(f"{{{one}}}" for one in place_names)
            fault = (
                f"uses {{{format_one_line(place)}}}, but may only use {places_text}."
            )
        elif name in self.paths:
            return CallOutput(call=name)
        elif self.steps[name].number >= step.number:
            fault = (
                f"needs {{{place}}}, but no earlier step creates it: steps run in "
                "order and must not form a cycle."
            )
        else:
            fault = (
                f"needs {{{place}}}, but that step writes no file; give the step an "
                "output, or choose another step."
            )
        raise step.create_error(fault, "unknown-value")

    def _find_file(
        self,
        step: _BatchStep,
        name: str,
        item: ImageInput | FileInput | FieldInfo,
        text: str,
    ) -> File | str:
        """Return a file path by name, relative to the folder of the steps file."""
        path = get_disk_spelling(self.base / text)
        file = not isinstance(item, FieldInfo) and not getattr(
            item, "takes_name", False
        )
        if name == "psf":
            with suppress(OptionError):  # the command checks the text
                file = file or parse_psf(text).kind == "file"
        file = file or (name == "flat_field" and text not in ("auto", "none"))
        model = isinstance(item, FileInput) and name == "model"
        there = path_exists(path) and (path.suffix != "" or (file and not model))
        if model and not there:
            return File(path=str(find_model(text)))
        if there:
            return File(path=str(path))
        if file:
            name_text = f"{name} {format_one_line(text)}"
            msg = (
                f"{step.label} needs {name_text}, but the file does not exist: "
                f"{_shorten_path(path)}."
            )
            raise ReadError(msg, code="file-missing")
        return text

    def _get_output_path(self, step: _BatchStep, name: str, text: str) -> str:
        """Return the path of an output; raise an error if it is outside the folder."""
        parts = PurePosixPath(text.replace("\\", "/")).parts
        windows = PureWindowsPath(text)
        place = self.folder.joinpath(*parts)
        outside = not parts or ".." in parts or windows.drive or windows.root
        whole = self.folder.resolve()
        if outside or not _is_valid_path(place) or whole not in place.resolve().parents:
            usual = f"{step.name}/{{name}}.ome.tif"
            fault = f"inside the output folder, for example {usual}, got {text!r:.80}."
            raise step.create_error(f"must write its {name} {fault}", "outside-folder")
        below = "/".join(parts)
        pages = rf"{REPORT}(-\d+)?\.(html|json)"
        own = below.casefold() == TABLE or re.fullmatch(pages, below, re.IGNORECASE)
        if own or parts[0].casefold() == STATE:
            fault = (
                f"must not write {format_one_line(text)}, which is reserved for the "
                "batch."
            )
            raise step.create_error(fault, "name-taken")
        return below


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _has_inputs(value: Any) -> bool:
    """Return whether an argument contains files or step outputs."""
    each = value if _is_list(value) else [value]
    return any(isinstance(one, (File, CallOutput)) for one in each)


def _check_outputs(images: Sequence[ImageTask]) -> None:
    """Raise an error for outputs that would be written twice or are nested."""
    owners: dict[str, str] = {}
    for image in images:
        for step in image.plan.calls:
            for text in step.outputs.values():
                key = text.casefold()
                owner = f"step {step.name} of {image.name}"
                other = owners.setdefault(key, owner)
                if other is not owner:
                    msg = (
                        f"The output {format_one_line(text)} would be written twice, "
                        f"by {other} and by {owner}: include {{name}} in it, or use "
                        "different names."
                    )
                    raise OptionError(msg, code="outputs-coincide")
    for key, owner in owners.items():
        above = next(
            (p for p in map(str, PurePosixPath(key).parents) if p in owners), None
        )
        if above is not None:
            msg = (
                f"The output {format_one_line(key)} of {owner} must not be inside "
                f"{format_one_line(above)} of {owners[above]}."
            )
            raise OptionError(msg, code="outputs-coincide")


def plan_batch(
    steps: str | os.PathLike[str] | Mapping[str, object],
    *,
    inputs: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> BatchPlan:
    """Read the steps file, find the input images, and check everything."""
    content: object
    if isinstance(steps, Mapping):
        content, base, title = steps, Path.cwd(), "Batch"
    else:
        path = Path(steps)
        content, base, title = read_steps(path), path.absolute().parent, path.stem
    if not isinstance(content, Mapping):
        what = "is empty" if content is None else "has no entries with names"
        msg = f"The steps file must define inputs, output and steps, but {what}."
        raise OptionError(msg, code="wrong-type")
    keys = ("inputs", "output", "steps", "report")
    for key in content:
        if key not in keys:
            msg = (
                f"The steps file has an unknown entry {key!r:.60}; valid entries are "
                f"{', '.join(keys)}."
            )
            raise OptionError(msg, code="unknown-option")
    where = _resolve_batch_path("inputs", content, base, inputs)
    folder = _resolve_batch_path("output", content, base, output)
    report = content.get("report", False)
    if not isinstance(report, (bool, Mapping)):
        msg = (
            f"report must be true, false or a table of its options, got {report!r:.60}."
        )
        raise OptionError(msg, code="wrong-type")
    if folder.exists() and not folder.is_dir():
        msg = (
            f"The output of a batch must be a folder, but {_shorten_path(folder)} is a "
            "file."
        )
        raise WriteError(msg, code="output-is-file")
    steps_found = _parse_steps(content.get("steps"))
    images = _find_input_images(where, folder)
    names_in_use = {"input", "previous", "warnings", "error"}
    names_in_use |= {name for step in steps_found for name in step.columns}
    for name in images[0].cells:
        if name in names_in_use or name.startswith(_STEP_MARK) or not name:
            msg = (
                f"The input table has a column {name!r:.60}, a name reserved for the "
                "batch: rename the column."
            )
            raise OptionError(msg, code="name-taken")
    makers = (_TaskBuilder(image, folder, base, steps_found) for image in images)
    tasks = tuple(maker.build_task() for maker in makers)
    _check_outputs(tasks)
    names = tuple(name for step in steps_found for name in step.columns)
    report_options = _read_report_options(report if isinstance(report, Mapping) else {})
    return BatchPlan(folder, tasks, names, report_options if report else None, title)


def _read_report_options(options: Mapping[str, object]) -> dict[str, object]:
    """Read the options of the report, except its path and content."""
    step, values = (
        _BatchStep(0, REPORT, require_verb(REPORT), options),
        dict[str, object](),
    )
    for name, value in step.given_values.items():
        item = step.arguments[name]
        if not isinstance(item, FieldInfo):
            raise step.create_reserved_error(name)
        values[name] = to_text(item, value)
    step.check(values)
    return values


def _resolve_batch_path(
    name: str,
    content: Mapping[str, object],
    base: Path,
    path: str | os.PathLike[str] | None,
) -> Path:
    """Return the given path, or resolve the one stated in the steps file."""
    if path is not None and str(path).strip():
        return Path(path).absolute()
    value = content.get(name)
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        content_text = "has none" if value is None else f"has {value!r:.60}"
        msg = f"The steps file must have a path for {name}, but {content_text}."
        raise OptionError(msg, code="missing-value")
    if not _is_valid_path(base / value):
        msg = f"The steps file has an invalid path for {name}: {value!r:.60}."
        raise OptionError(msg, code="wrong-type")
    return base / value


def _is_valid_path(path: Path) -> bool:
    """Return whether a path is valid, even if it does not exist."""
    try:
        path.exists()
        path.resolve()
    except PermissionError:
        return True  # opening it reports the fault
    except (OSError, RuntimeError, ValueError):
        return False
    return True


# Steps from a history, to apply to other images.


def extract_steps(history: Provenance) -> tuple[list[dict[str, Any]], str]:
    """Extract the steps of a batch from a history, in the format of a steps file.

    Returns the last calls that each take one image, and the name of the command before
    them, or ``""``. Raises `CheckpointError` if the model of a step no longer exists.
    """
    steps_found = _find_last_calls(history)
    steps = []
    for call, step in steps_found:
        verb, first_input = require_verb(call.verb), step.inputs[0]
        sets = verb.parse(call.options)
        options = _get_changed_options(verb, sets["options"])
        reading = sets["opening"]
        if step.model_name is not None and "model" in verb.arguments:
            options["model"] = find_source_model(step)
        if first_input.provenance is not None and first_input.path is None:
            # an image in memory has its data bar removed; a file is read again
            calls = create_plan(step, Path(step.job)).calls[:-1]
            if reading.databar_rows in {c.options.get("databar_rows") for c in calls}:
                reading = reading.replace(databar_rows=None)
        steps.append({call.verb: options | _get_changed_options(verb, reading)})
    before = steps_found[0][1].inputs[0].provenance if steps_found else history
    return steps, "" if before is None else before.job


def extract_command_names(history: Provenance) -> list[str]:
    """Return the commands of the steps in a history, even if models are missing."""
    return [call.verb for call, _ in _find_last_calls(history)]


def _find_last_calls(history: Provenance) -> list[tuple[Call, Provenance]]:
    """Return the last calls that take one image each, in order of execution."""
    calls: list[tuple[Call, Provenance]] = []
    for step in history.steps():
        verb = get_verb(step.job) if step.job in VERBS else None
        if (
            verb is None
            or step.job in NO_STEPS
            or not verb.makes_image
            or step.part is not None
        ):
            break
        try:
            call = create_plan(step, Path(step.job)).calls[-1]
        except SemsrError:
            break
        images = [item.name for item in verb.images if item.name in call.inputs]
        if len(images) != 1 or len(step.inputs) != 1:  # it has another input
            break
        calls.insert(0, (call, step))
    return calls


def _get_changed_options(
    verb: Verb[Options, Result], options: Options
) -> dict[str, object]:
    """Return the options with non-default values that a step may set."""
    arguments = verb.arguments
    option_values = options.model_dump(mode="json", exclude_defaults=True)
    option_names = option_values.keys() & arguments.keys() - _find_user_options(
        arguments
    )
    return {
        k.replace("_", "-"): value
        for k, value in option_values.items()
        if k in option_names
    }
