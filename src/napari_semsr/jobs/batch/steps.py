"""Read and check a steps file: each step is a command with its options.

Everything is checked here, before the first image is processed: unknown commands and
options, missing files, outputs outside the folder, and outputs that collide.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from napari_semsr.core import (
    OptionError,
    Options,
    Provenance,
    ReadError,
    SemsrError,
    WriteError,
    as_text,
    code_of,
    columns_of,
    display_of,
    one_line,
    read_bytes,
    refuse_user_only,
    sentence_of,
)
from napari_semsr.io import (
    SHEET_SUFFIXES,
    Cell,
    as_on_disk,
    file_stem,
    is_there,
)
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.index import VERBS, verb_of
from napari_semsr.jobs.measure import find_images, rows_of_images
from napari_semsr.jobs.models import find_model, model_that_made
from napari_semsr.jobs.plan import (
    Call,
    CallOutput,
    File,
    Input,
    Plan,
    PlanTask,
    known_verb,
    plan_of,
)
from napari_semsr.jobs.verb import FileIn, ImageIn, Output, Verb
from napari_semsr.restoration import parse_psf

STATE = ".batch"
"""Folder in the output folder that records which steps are finished."""

TABLE = "table.csv"
"""The table in the output folder."""

REPORT = "report"
"""Prefix of the report's page names, and the command that makes them."""

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
    """The steps of one image."""

    image: str = ""
    last: str | None = None  # the final image, in the output folder


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A checked steps file."""

    folder: Path
    images: tuple[ImageTask, ...]
    columns: tuple[str, ...]  # columns of the table, from the steps' results
    report: dict[str, object] | None  # options of the report, None if there is none
    title: str

    @property
    def table(self) -> Path:
        """Path of the table."""
        return self.folder / TABLE


# The file.


class _Loader(yaml.SafeLoader):
    """Load plain values only: no aliases, which could expand, and no duplicate keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; aliases and deep nesting are errors."""
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
        """Construct a mapping; duplicate keys are errors."""
        keys = [str(getattr(key, "value", "")) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            msg = f"the key {twice!r} occurs twice in one table"
            raise yaml.YAMLError(msg)
        return super().construct_mapping(node, deep)


def read_steps(path: Path) -> object:
    """Read a steps file into plain values."""
    try:
        text = read_bytes(path, _LARGEST).decode("utf-8-sig")
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "too deep"
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or reason.splitlines()[0]
        line = f" in line {where.line + 1}" if where is not None else ""
        msg = f"{path} cannot be read as steps: {problem}{line}."
        raise ReadError(msg) from error


# Steps as written in the file.


@dataclass(frozen=True)
class _Step:
    """A step of the file."""

    number: int  # 0 for the report
    name: str
    verb: Verb[Options, Result]
    options: Mapping[Any, object]

    @property
    def label(self) -> str:
        """The step's name in messages."""
        if not self.number:
            return f"The entry {self.name}"
        alias = f" {self.name}" if self.name != self.verb.name else ""
        return f"Step {self.number}{alias} ({self.verb.name})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Table columns of its outputs and its results."""
        output, prefix = self.verb.output, self.name.replace("-", "_")
        names = _numbers(self.verb, self.verb.result_of(self.values))
        if output is not None and output.name in self.values:
            names = ("output", *names)
        return tuple(f"{prefix}_{name}" for name in names)

    @cached_property
    def arguments(self) -> Mapping[str, ImageIn | FileIn | Output | FieldInfo]:
        """The arguments of its command."""
        return self.verb.arguments

    @cached_property
    def values_given(self) -> dict[str, object]:
        """Its options by argument name; unknown ones raise an error."""
        names_by_spelling = _spellings(self.verb)
        values: dict[str, object] = {}
        for key, value in self.options.items():
            spelt = _spelt(key)
            if spelt in _BY_ITSELF and spelt not in names_by_spelling:
                raise self.leave(key)
            if spelt not in names_by_spelling:
                near = difflib.get_close_matches(spelt, names_by_spelling, n=1)
                see = f"see semsr {self.verb.name} -h."
                hint = f"did you mean {near[0]}?" if near else see
                fault = f"has no option {str(key)!r:.60}; {hint}"
                raise self.wrong(fault, "unknown-option")
            name, *keys = names_by_spelling[spelt]
            if keys and not isinstance(value, bool):
                fault = f"must set {key} to true or false, got {value!r:.60}."
                raise self.wrong(fault, "wrong-type")
            values[name] = (keys[0] if value else None) if keys else value
        refuse_user_only(values, _persons(self.arguments), self.label)
        return values

    @cached_property
    def values(self) -> dict[str, object]:
        """Its options, with the image and output that a step may omit."""
        inputs = [item for item in self.verb.inputs if not item.flag]
        has_names = bool(inputs) and not getattr(inputs[0], "takes_name", False)
        usual = tuple(item.batch for item in inputs if item.batch)
        usual = usual or ("{previous}",) * has_names
        usual_values = dict(zip((item.name for item in inputs), usual, strict=False))
        output = self.verb.output
        if output is not None and output.ending is not None:
            usual_values[output.name] = f"{self.name}/{{name}}{output.ending}"
        return usual_values | self.values_given

    def check(self, values: Mapping[str, object], image: str = "") -> None:
        """Check the options with the command's own checks."""
        try:
            self.verb.parse(values)
        except Exception as error:
            where = f"{self.label}, image {image}" if image else self.label
            msg = f"{where}: {sentence_of(error)}"
            raise OptionError(msg, code=code_of(error)) from error

    def wrong(self, fault: str, code: str = OptionError.code) -> OptionError:
        """Return the error for a fault of this step."""
        return OptionError(f"{self.label} {fault}", code=code)

    def leave(self, key: object) -> OptionError:
        """Return the error for an option that the batch sets."""
        return self.wrong(f"must not set {key}: the batch sets it.", "unknown-option")


def _spellings(verb: Verb[Options, Result]) -> dict[str, tuple[Any, ...]]:
    """Map the spellings of arguments to the value that a bare flag means."""
    spellings: dict[str, tuple[object, ...]] = {
        name: (name,) for name in verb.arguments
    }
    for item in (*verb.inputs, *verb.all_outputs):
        by_name = isinstance(item, ImageIn) and not item.many  # shown in the help, too
        if item.flag.startswith("--") or not (item.flag or by_name):
            spellings.setdefault(
                _spelt(item.flag or item.metavar.lower()), (item.name,)
            )
    for name, info in verb.arguments.items():
        if isinstance(info, FieldInfo):
            flags = dict(display_of(info).flags or {})
            if info.annotation is bool and info.default:
                flags[f"no_{name}"] = False
            spellings |= {_spelt(flag): (name, value) for flag, value in flags.items()}
    return spellings


def _spelt(name: object) -> str:
    """Convert a flag to its argument name."""
    return str(name).removeprefix("--").replace("-", "_")


def _persons(arguments: Mapping[str, object]) -> set[str]:
    """Return the options that are set only on the command line."""
    fields = {k: v for k, v in arguments.items() if isinstance(v, FieldInfo)}
    return {name for name, info in fields.items() if display_of(info).user_only}


NO_STEPS = {
    "adapt": "it trains a model, which the next steps need as a file",
    "batch": "a batch cannot run batches",
    "demo": "it simulates its own samples",
    "models": "it manages models, not images",
}
"""Why some commands cannot be steps of a batch."""


def _numbers(verb: Verb[Options, Result], kind: type[Result]) -> tuple[str, ...]:
    """Return the column names of a command's results."""
    return columns_of(kind) if verb.makes_table else kind.NUMBERS


def _steps(entries: object) -> list[_Step]:
    """Read the list of steps."""
    if not isinstance(entries, (list, tuple)) or not entries:
        msg = f"steps must be a list of commands and options, got {entries!r:.60}."
        raise OptionError(msg, code="wrong-type")
    if len(entries) > _MAX_STEPS:
        msg = f"There must be at most {_MAX_STEPS} steps, got {len(entries)}."
        raise OptionError(msg, code="out-of-range")
    steps: list[_Step] = []
    for number, entry in enumerate(entries, start=1):
        steps.append(_step(number, entry, [step.name for step in steps]))
    return steps


def _step(number: int, entry: object, names_in_use: Sequence[str]) -> _Step:
    """Read one step: a command, optionally with options and a name."""
    table = {entry: None} if isinstance(entry, str) else entry
    if not isinstance(table, Mapping):
        msg = f"Step {number} must be a command with its options, got {entry!r:.60}."
        raise OptionError(msg, code="wrong-type")
    verbs = [key for key in table if key != "name"]
    if len(verbs) != 1 or not isinstance(verbs[0], str):
        verb_names = one_line(", ".join(map(str, verbs))) or "none"
        msg = (
            f"Step {number} must be one command, with its options below it, got "
            f"{verb_names}."
        )
        raise OptionError(msg, code="wrong-type")
    verb, options = _checked_verb(number, verbs[0]), table[verbs[0]]
    if not isinstance(options, (Mapping, type(None))):
        msg = (
            f"Step {number} ({verb.name}) must have its options as a table, "
            f"name: value, got {options!r:.60}."
        )
        raise OptionError(msg, code="wrong-type")
    name = table.get("name")
    if name is None:
        more = (f"{verb.name}-{count}" for count in range(2, _MAX_STEPS + 1))
        name = next(one for one in (verb.name, *more) if one not in names_in_use)
    if not isinstance(name, str) or not _STEP_NAME.fullmatch(name):
        msg = (
            f"The name of step {number} must have at most 40 lower-case letters, "
            f"digits, '-' and '_', got {name!r:.60}."
        )
        raise OptionError(msg, code="name-invalid")
    if name.replace("-", "_") in {one.replace("-", "_") for one in names_in_use}:
        msg = f"Two steps have the name {name}; give step {number} another name."
        raise OptionError(msg, code="names-alike")
    return _Step(number, name, verb, options or {})


def _checked_verb(number: int, name: str) -> Verb[Options, Result]:
    """Return a command by name; raise an error if it cannot be a step."""
    if name not in VERBS:
        verb_names = [one for one in VERBS if one not in NO_STEPS]
        near = difflib.get_close_matches(name, verb_names, n=_NEAR)
        suggestion = f"did you mean {' or '.join(near)}?"
        hint = suggestion if near else f"the commands are {', '.join(verb_names)}."
        msg = f"Step {number} names {name!r:.60}, which is not a command; {hint}"
        raise OptionError(msg, code="verb-unknown")
    verb = verb_of(name)
    if verb is None or name in NO_STEPS:
        msg = f"Step {number} names {name}, which cannot be a step: {NO_STEPS[name]}."
        raise OptionError(msg, code="verb-unsuitable")
    return verb


# Placeholders.


def _check_columns(columns: Sequence[str], steps: Sequence[_Step]) -> None:
    """Raise an error for input columns whose names are reserved."""
    names_in_use = {"input", "previous", "warnings", "error"}
    names_in_use |= {name for step in steps for name in step.columns}
    for name in columns:
        if name in names_in_use or name.startswith(_STEP_MARK) or not name:
            msg = (
                f"The table of inputs has a column {name!r:.60}, which is reserved "
                "for the batch: rename it."
            )
            raise OptionError(msg, code="name-taken")


# Images.


@dataclass(frozen=True, slots=True)
class _Input:
    """An input image."""

    path: Path
    name: str
    cells: Mapping[str, str] = field(default_factory=dict)  # further columns
    root: Path = field(default_factory=Path)  # base of relative paths in cells


def _path_text(path: Path) -> str:
    """Shorten a path for a message."""
    return one_line(str(path), _PATH_LENGTH)


def _inputs(inputs_path: Path, folder: Path) -> list[_Input]:
    """Find the input images; raise an error for any in the output folder."""
    whole = folder.resolve()
    if inputs_path.is_file() and inputs_path.suffix.lower() in SHEET_SUFFIXES:
        images = list(_read_table(inputs_path))
    else:
        paths = [path.absolute() for path in find_images(inputs_path)]
        paths_outside = [path for path in paths if whole not in path.resolve().parents]
        if paths and not paths_outside:
            msg = (
                f"The images of {_path_text(inputs_path)} are in the output folder "
                f"{_path_text(folder)}."
            )
            raise OptionError(msg, code="output-is-input")
        images = [_Input(path, _name_of(path)) for path in paths_outside]
    if len(images) > _MAX_INPUTS:
        msg = f"A batch takes at most {_MAX_INPUTS} images, got {len(images)}."
        raise OptionError(msg, code="out-of-range")
    by_name: dict[str, _Input] = {}
    for one in images:
        if not one.path.exists():
            msg = f"Input image {_path_text(one.path)} does not exist."
            raise ReadError(msg, code="file-missing")
        if whole == one.path.resolve() or whole in one.path.resolve().parents:
            msg = (
                f"The input {_path_text(one.path)} is in the output folder "
                f"{_path_text(folder)}."
            )
            raise OptionError(msg, code="output-is-input")
        other = by_name.setdefault(one.name.casefold(), one)
        if other is not one:
            msg = (
                f"Two inputs have the name {one.name}, {_path_text(other.path)} and "
                f"{_path_text(one.path)}: give them names in a table with the columns "
                "image and name."
            )
            raise OptionError(msg, code="names-alike")
    return images


def _name_of(path: Path) -> str:
    """Return the file name of an image without its suffix."""
    name = path.name
    for ending in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if name.lower().endswith(ending):
            return file_stem(name[: -len(ending)])
    return file_stem(path.stem if path.is_file() or path.suffix == ".zarr" else name)


def _read_table(path: Path) -> Iterator[_Input]:
    """Read the rows of a table; paths in it are relative to its folder."""
    root = path.absolute().parent
    for _, cells in rows_of_images(path, [("image",)]):
        image = as_on_disk(root / cells.pop("image"))
        name = cells.pop("name", "")
        yield _Input(image, file_stem(name) if name else _name_of(image), cells, root)


# Steps of one image.


class _Maker:
    """Builds the tasks of an image: fills placeholders and finds files."""

    def __init__(
        self, image: _Input, folder: Path, base: Path, steps: Sequence[_Step]
    ) -> None:
        self.image = image
        self.folder = folder
        self.base = base  # folder that paths in the steps file refer to
        self.steps = {step.name: step for step in steps}
        self.paths: dict[str, str] = {}  # outputs by step name
        self.previous: Input = File(path=str(image.path))

    def image_task(self) -> ImageTask:
        """Build the task of the image."""
        image, folder = self.image, str(self.folder)
        plan = Plan(calls=tuple(map(self.call, self.steps.values())))
        cells: dict[str, Cell] = {k: cell or None for k, cell in image.cells.items()}
        last = getattr(self.previous, "call", None)
        last = None if last is None else self.paths[last]
        state = self.folder / STATE / f"{image.name}.json"
        image_facts = image.name, plan, folder, state, cells
        return ImageTask(*image_facts, image=str(image.path), last=last)

    def call(self, step: _Step) -> Call:
        """Build the call of a step."""
        inputs, options, outputs = (
            dict[str, object](),
            dict[str, object](),
            dict[str, str](),
        )
        for name, step_value in sorted(step.values.items()):
            value = self._value(step, name, step_value)
            if value is None:
                continue  # not given, or an empty cell of the table
            if isinstance(step.arguments[name], Output):
                outputs[name] = value
            elif _is_input(value):
                inputs[name] = value
            else:
                options[name] = value
        read = (item for item in step.verb.inputs if not item.optional)
        outputs_written = (
            o for o in step.verb.all_outputs if o.is_required or o.one_needs_it
        )
        for one in (*read, *outputs_written):
            if one.name not in inputs | options | outputs:
                raise step.wrong(f"needs {one.name}: {one.help}.", "missing-value")
        files = {k: self._text(v) for k, v in inputs.items() if not _is_list(v)}
        step.check(options | files, self.image.name)
        output = step.verb.output
        if output is not None and output.name in outputs:
            self.paths[step.name] = outputs[output.name]
            if output.goes_on:
                self.previous = CallOutput(call=step.name)
        how = {"verb": step.verb.name, "options": options, "outputs": outputs}
        return Call.parse({"name": step.name, "inputs": inputs, **how})

    def _value(self, step: _Step, name: str, value_given: object) -> Any:
        """Convert a value to what the command takes: a list, one value, or text."""
        value, item = self._fill_value(step, name, value_given), step.arguments[name]
        if isinstance(item, FieldInfo):
            if _is_list(value):
                value = [self._text(v) if _is_input(v) else v for v in value]
            return value if _is_input(value) else as_text(item, value)
        many = getattr(item, "many", False)
        if _is_list(value) and not many:
            raise step.wrong(
                f"must have one file as {name}, got {len(value)}.", "wrong-type"
            )
        if value is None or not many:
            return value
        return tuple(value if _is_list(value) else [value])

    def _text(self, one: object) -> str:
        """Convert part of a value to text; a file becomes its path."""
        if isinstance(one, CallOutput):
            return str(self.folder / self.paths[one.call])
        return one.path if isinstance(one, File) else str(one)

    def _fill_value(self, step: _Step, name: str, value: Any) -> Any:
        """Fill the placeholders of a value; None if they are empty."""
        if _is_list(value):
            each = [self._fill_value(step, name, one) for one in value]
            return [one for one in each if one is not None] or None
        item = step.arguments[name]
        option = isinstance(item, FieldInfo)
        simple = isinstance(value, (str, int, float, os.PathLike, type(None)))
        if not simple or (isinstance(value, bool) and not option):
            kinds = "a text, a number or a list of these"
            fault = f"must have {kinds} as {name}, got {value!r:.60}."
            raise step.wrong(fault, "wrong-type")
        if value is None or (option and isinstance(value, (int, float))):
            return value
        pieces = self._pieces(step, str(value), plain=isinstance(item, Output))
        pieces = [one for one in pieces if one != ""]
        if not pieces:
            return None
        text = "".join(map(self._text, pieces))
        if isinstance(item, Output):
            return self._output(step, name, text)
        if _is_input(pieces):
            whole = text if option else File(path=text)
            return whole if pieces[1:] else pieces[0]
        return self._find_file(step, name, item, text)

    def _pieces(self, step: _Step, text: str, *, plain: bool) -> list[object]:
        """Fill a text's placeholders with names and files; cells stay `plain` text."""
        return [
            self._fill_place(step, part, plain=plain) if number % 2 else part
            for number, part in enumerate(_PLACEHOLDER.split(text))
        ]

    def _fill_place(self, step: _Step, place: str, *, plain: bool) -> Input | str:
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
            path = as_on_disk(image.root / cell)
            a_file = path.suffix != "" or path.is_dir()
            file = cell != "" and not plain and a_file and is_there(path)
            return File(path=str(path)) if file else cell
        name = place.removeprefix(_STEP_MARK)
        if not place.startswith(_STEP_MARK) or name not in self.steps:
            place_names = ["input", "previous", "name", *image.cells]
            place_names += [f"{_STEP_MARK}{other}" for other in self.steps]
            places_text = ", ".join(f"{{{one}}}" for one in place_names)
            fault = f"names {{{one_line(place)}}}, but may name {places_text}."
        elif name in self.paths:
            return CallOutput(call=name)
        elif self.steps[name].number >= step.number:
            fault = (
                f"needs {{{place}}}, which no earlier step makes: steps run in order "
                "and must not form a cycle."
            )
        else:
            fault = (
                f"needs {{{place}}}, but that step writes no file; give it an output, "
                "or name another."
            )
        raise step.wrong(fault, "unknown-value")

    def _find_file(
        self, step: _Step, name: str, item: ImageIn | FileIn | FieldInfo, text: str
    ) -> File | str:
        """Return the file that a text names, relative to the steps' folder."""
        path = as_on_disk(self.base / text)
        file = not isinstance(item, FieldInfo) and not getattr(
            item, "takes_name", False
        )
        file = file or (name == "psf" and _names_kernel(text))
        file = file or (name == "flat_field" and text not in ("auto", "none"))
        model = isinstance(item, FileIn) and name == "model"
        there = is_there(path) and (path.suffix != "" or (file and not model))
        if model and not there:
            return File(path=str(find_model(text)))
        if there:
            return File(path=str(path))
        if file:
            name_text = f"{name} {one_line(text)}"
            msg = (
                f"{step.label} needs {name_text}, but this file does not exist: "
                f"{_path_text(path)}."
            )
            raise ReadError(msg, code="file-missing")
        return text

    def _output(self, step: _Step, name: str, text: str) -> str:
        """Return the path of an output; raise an error if it is outside the folder."""
        parts = PurePosixPath(text.replace("\\", "/")).parts
        windows = PureWindowsPath(text)
        place = self.folder.joinpath(*parts)
        outside = not parts or ".." in parts or windows.drive or windows.root
        whole = self.folder.resolve()
        if outside or not _is_path(place) or whole not in place.resolve().parents:
            usual = f"{step.name}/{{name}}.ome.tif"
            fault = f"inside the output folder, as {usual} does, got {text!r:.80}."
            raise step.wrong(f"must write its {name} {fault}", "outside-folder")
        below = "/".join(parts)
        pages = rf"{REPORT}(-\d+)?\.(html|json)"
        own = below.casefold() == TABLE or re.fullmatch(pages, below, re.IGNORECASE)
        if own or parts[0].casefold() == STATE:
            fault = f"must not write {one_line(text)}, which the batch writes."
            raise step.wrong(fault, "name-taken")
        return below


def _names_kernel(text: str) -> bool:
    """Whether a blur is given as a file; the command checks its content."""
    with suppress(OptionError):
        return parse_psf(text).kind == "file"
    return False


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _is_input(value: Any) -> bool:
    """Whether an argument takes files or outputs of steps."""
    each = value if _is_list(value) else [value]
    return any(isinstance(one, (File, CallOutput)) for one in each)


def _check_outputs(images: Sequence[ImageTask]) -> None:
    """Raise an error for outputs that would be written twice or inside one another."""
    owners: dict[str, str] = {}
    for image in images:
        for step in image.plan.calls:
            for text in step.outputs.values():
                key = text.casefold()
                owner = f"step {step.name} of {image.name}"
                other = owners.setdefault(key, owner)
                if other is not owner:
                    msg = (
                        f"The output {one_line(text)} would be written twice, by "
                        f"{other} and by {owner}: put {{name}} into it, or use "
                        "different text."
                    )
                    raise OptionError(msg, code="outputs-coincide")
    for key, owner in owners.items():
        above = next(
            (p for p in map(str, PurePosixPath(key).parents) if p in owners), None
        )
        if above is not None:
            msg = (
                f"The output {one_line(key)} of {owner} would be inside "
                f"{one_line(above)} of {owners[above]}."
            )
            raise OptionError(msg, code="outputs-coincide")


def plan_batch(
    steps: str | os.PathLike[str] | Mapping[str, object],
    *,
    inputs: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> BatchPlan:
    """Read the steps, find their images, and check everything."""
    content: object
    if isinstance(steps, Mapping):
        content, base, title = steps, Path.cwd(), "Batch"
    else:
        path = Path(steps)
        content, base, title = read_steps(path), path.absolute().parent, path.stem
    if not isinstance(content, Mapping):
        msg = f"A steps file must have inputs, output and steps, got {content!r:.60}."
        raise OptionError(msg, code="wrong-type")
    keys = ("inputs", "output", "steps", "report")
    for key in content:
        if key not in keys:
            msg = f"A steps file has no entry {key!r:.60}; it has {', '.join(keys)}."
            raise OptionError(msg, code="unknown-option")
    where = _path_from("inputs", content, base, inputs)
    folder = _path_from("output", content, base, output)
    report = content.get("report", False)
    if not isinstance(report, (bool, Mapping)):
        msg = (
            f"report must be true, false or a table of its options, got {report!r:.60}."
        )
        raise OptionError(msg, code="wrong-type")
    if folder.exists() and not folder.is_dir():
        msg = (
            "The output of a batch must be a folder, got the file "
            f"{_path_text(folder)}."
        )
        raise WriteError(msg, code="output-is-file")
    steps_found = _steps(content.get("steps"))
    images = _inputs(where, folder)
    _check_columns([*images[0].cells], steps_found)
    makers = (_Maker(image, folder, base, steps_found) for image in images)
    tasks = tuple(maker.image_task() for maker in makers)
    _check_outputs(tasks)
    names = tuple(name for step in steps_found for name in step.columns)
    report_options = _report_options(report if isinstance(report, Mapping) else {})
    return BatchPlan(folder, tasks, names, report_options if report else None, title)


def _report_options(options: Mapping[str, object]) -> dict[str, object]:
    """Read the options of the report, except its path and its content."""
    step, values = _Step(0, REPORT, known_verb(REPORT), options), dict[str, object]()
    for name, value in step.values_given.items():
        item = step.arguments[name]
        if not isinstance(item, FieldInfo):
            raise step.leave(name)
        values[name] = as_text(item, value)
    step.check(values)
    return values


def _path_from(
    name: str,
    content: Mapping[str, object],
    base: Path,
    path: str | os.PathLike[str] | None,
) -> Path:
    """Return a path in the steps file, relative to its folder, or its replacement."""
    if path is not None and str(path).strip():
        return Path(path).absolute()
    value = content.get(name)
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        msg = f"A steps file must have a path as {name}; got {value!r:.60}."
        raise OptionError(msg, code="missing-value")
    if not _is_path(base / value):
        msg = f"A steps file has {value!r:.60} as {name}, which is not a valid path."
        raise OptionError(msg, code="wrong-type")
    return base / value


def _is_path(path: Path) -> bool:
    """Whether a path is valid, existing or not."""
    try:
        path.exists()
        path.resolve()
    except PermissionError:
        return True  # opening it reports the fault
    except (OSError, RuntimeError, ValueError):
        return False
    return True


# Steps from a history, to apply to other images.


def steps_of(history: Provenance) -> tuple[list[dict[str, Any]], str]:
    """Extract the steps of a batch from a history, in the form of a steps file.

    Returns the last calls that each take one image, and the name of the command before
    them, or ``""``. Raises `CheckpointError` if the model of a step no longer exists.
    """
    steps_found = _steps_back(history)
    steps = [{call.verb: _said_by(call, step)} for call, step in steps_found]
    before = steps_found[0][1].inputs[0].provenance if steps_found else history
    return steps, "" if before is None else before.job


def verbs_of(history: Provenance) -> list[str]:
    """Return the commands of those steps, even if their models are missing."""
    return [call.verb for call, _ in _steps_back(history)]


def _steps_back(history: Provenance) -> list[tuple[Call, Provenance]]:
    """Return the last calls that take one image each, first call first."""
    calls: list[tuple[Call, Provenance]] = []
    for step in history.steps():
        verb = verb_of(step.job) if step.job in VERBS else None
        if (
            verb is None
            or step.job in NO_STEPS
            or not verb.makes_image
            or step.part is not None
        ):
            break
        try:
            call = plan_of(step, Path(step.job)).calls[-1]
        except SemsrError:
            break
        images = [item.name for item in verb.images if item.name in call.inputs]
        if len(images) != 1 or len(step.inputs) != 1:  # it has another input
            break
        calls.insert(0, (call, step))
    return calls


def _said_by(call: Call, history: Provenance) -> dict[str, object]:
    """Return the options of a call in the form of a step."""
    verb, first_input = known_verb(call.verb), history.inputs[0]
    sets = verb.parse(call.options)
    options, reading = _unusual(verb, sets["options"]), sets["opening"]
    if history.model_name is not None and "model" in verb.arguments:
        options["model"] = model_that_made(history)
    if first_input.provenance is not None and first_input.path is None:
        # an image in memory has its data bar removed; a file is read again
        before = plan_of(history, Path(history.job)).calls[:-1]
        if reading.databar_rows in {one.options.get("databar_rows") for one in before}:
            reading = reading.replace(databar_rows=None)
    return options | _unusual(verb, reading)


def _unusual(verb: Verb[Options, Result], options: Options) -> dict[str, object]:
    """Return the options that differ from their defaults and that a step may set."""
    arguments = verb.arguments
    option_values = options.model_dump(mode="json", exclude_defaults=True)
    option_names = option_values.keys() & arguments.keys() - _persons(arguments)
    return {
        k.replace("_", "-"): value
        for k, value in option_values.items()
        if k in option_names
    }
