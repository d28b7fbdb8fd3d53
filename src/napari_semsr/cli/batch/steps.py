"""A steps file, read and checked: what is run of each image, as words of commands.

Everything that can be refused is refused here, before the first image is touched: verbs
and options that there are not, files that are missing, outputs that would leave the
folder or fall on each other.
"""

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from napari_semsr import jobs
from napari_semsr.cli.command import arguments_of, build_parser, load_verb
from napari_semsr.core import (
    OptionError,
    Options,
    Provenance,
    ReadError,
    WriteError,
    cells_of as cells_of_result,
    one_line,
    read_bytes,
    refuse_persons,
    sentence_of,
)
from napari_semsr.former import ARGUMENTS
from napari_semsr.io import SHEET_SUFFIXES, Cell, ReadOptions, file_stem, read_sheet
from napari_semsr.jobs import VERBS, verb_of

STATE = ".batch"
"""Folder in the output folder that says which steps are finished."""

TABLE = "table.csv"
"""The table in the output folder."""

REPORT = "report"
"""How the names of its pages begin."""

_LARGEST = 1 << 20  # bytes; chosen: a step for each line of ten thousand
_DEEPEST = 16  # tables and lists within each other; chosen: steps need five
_MOST_STEPS = 100  # chosen: nobody reads a longer list
_MOST_INPUTS = 100_000  # chosen: as many rows as a table of measures may have
_SAID = 300  # letters of a path in a sentence; chosen
_NEAR = 3  # names that a sentence offers

_STEP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FLAG = re.compile(r"-(?![\d.])")
"""How a word begins that a parser takes for a flag, not for a negative number."""

_STEP_MARK = "step."

_NO_STEPS = {
    "batch": "a batch does not run batches",
    "models": "it serves the shelf of models, and no image",
    "demo": "it draws its own samples",
}
_BY_ITSELF = frozenset({"help", "json", "quiet", "debug", "overwrite", "resume"})
_FILES = frozenset(
    {
        *("landmarks", "transform", "calibration", "pairs"),
        *("moving_calibration", "fixed_calibration", "second"),
    }
)
"""Options that always name a file; others do where their text names one."""


def _value(verb: str) -> jobs.Verb[Any, Any]:
    """Give a verb that may be a step."""
    value = verb_of(verb)
    assert value is not None  # noqa: S101 - others are refused
    return value


def _goes_on(verb: str) -> bool:
    """Tell whether the next step goes on with what a verb makes."""
    output = _value(verb).output
    return output is not None and output.goes_on


def _ending(verb: str) -> str | None:
    """Give how the name of what a verb makes ends, if it makes something."""
    output = _value(verb).output
    return None if output is None else output.ending


def _first(verb: str) -> tuple[str, ...]:
    """Give the images of a verb where a step names none."""
    inputs = _value(verb).inputs
    first = next((item for item in inputs if not item.flag), None)
    usual = () if getattr(first, "named", first is None) else ("{previous}",)
    return tuple(item.batch for item in inputs if item.batch) or usual


def _names_file(verb: str, action: argparse.Action, name: str) -> bool:
    """Tell whether an argument always names a file."""
    for item in _value(verb).inputs:
        if item.name == action.dest:
            return not getattr(item, "named", False)
    return name in _FILES


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what is given to a verb."""

    said: str  # to the verb
    kind: str = "text"  # or file, step, output
    value: str = ""  # path of the file, name of the step, place of the output


@dataclass(frozen=True, slots=True)
class StepTask:
    """A step of one image: words of a command, and what they stand for."""

    name: str
    verb: str
    words: tuple[str, ...]
    parts: tuple[tuple[str, tuple[Piece, ...]], ...]
    outputs: tuple[str, ...] = ()  # in the output folder, the step's own first
    output: str | None = None


@dataclass(frozen=True, slots=True)
class ImageTask:
    """All that is done to one image; a worker needs nothing else."""

    name: str
    image: str
    folder: str
    steps: tuple[StepTask, ...]
    given: dict[str, Cell] = field(default_factory=dict)  # further cells of a table

    @property
    def state(self) -> Path:
        """The file that says which steps are finished."""
        return Path(self.folder, STATE, f"{self.name}.json")

    @property
    def last(self) -> str | None:
        """What the image became, in the output folder."""
        made = [step.output for step in self.steps if _goes_on(step.verb)]
        return made[-1] if made else None


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What a steps file comes to."""

    folder: Path
    images: tuple[ImageTask, ...]
    columns: tuple[str, ...]  # of the table, what steps find
    report: tuple[str, ...] | None  # options of the report, if there is one, as words
    title: str

    @property
    def table(self) -> Path:
        """Where the table goes."""
        return self.folder / TABLE


# The file.


class _Loader(yaml.SafeLoader):
    """Plain values alone: no alias, by which a small file could grow, no key twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Make a node, neither an alias nor too deep."""
        if self.check_event(yaml.AliasEvent):
            msg = "an alias (*) is not read here, write the text twice"
            raise yaml.YAMLError(msg)
        self.depth += 1
        if self.depth > _DEEPEST:
            msg = f"its tables and lists lie more than {_DEEPEST} deep in each other"
            raise yaml.YAMLError(msg)
        made = super().compose_node(parent, index)
        self.depth -= 1
        return made

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Make a table, in which no key stands twice."""
        keys = [str(getattr(key, "value", "")) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            msg = f"the key {twice!r} stands twice in one table"
            raise yaml.YAMLError(msg)
        return super().construct_mapping(node, deep)


def read_steps(path: Path) -> Any:
    """Read a steps file as plain values."""
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


# Steps as the file has them.


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of the file."""

    number: int
    name: str
    verb: str
    options: Mapping[str, Any]

    @property
    def said(self) -> str:
        """How sentences call it."""
        if not self.number:
            return f"The entry {self.name}"
        alias = f" {self.name}" if self.name != self.verb else ""
        return f"Step {self.number}{alias} ({self.verb})"

    @property
    def prefix(self) -> str:
        """How its columns begin."""
        return self.name.replace("-", "_")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of what it finds, and of what it writes."""
        known = self.verb in jobs.MEASURES
        own = _value(self.verb).numbers
        names = jobs.measure_of(self.verb).columns if known else own
        return tuple(f"{self.prefix}_{name}" for name in names)


def _steps(given: Any) -> list[_Step]:
    """Read the list of steps."""
    if not isinstance(given, (list, tuple)) or not given:
        msg = f"steps must be a list of verbs with their options, got {given!r:.60}."
        raise OptionError(msg)
    if len(given) > _MOST_STEPS:
        msg = f"steps must be at most {_MOST_STEPS}, got {len(given)}."
        raise OptionError(msg)
    found: list[_Step] = []
    for number, entry in enumerate(given, start=1):
        found.append(_step(number, entry, [step.name for step in found]))
    return found


def _step(number: int, entry: Any, taken: Sequence[str]) -> _Step:
    """Read one step: a verb, or a verb with its options and perhaps a name."""
    table = {entry: None} if isinstance(entry, str) else entry
    if not isinstance(table, Mapping):
        msg = f"Step {number} must be a verb with its options, got {entry!r:.60}."
        raise OptionError(msg)
    verbs = [key for key in table if key != "name"]
    if len(verbs) != 1 or not isinstance(verbs[0], str):
        named = one_line(", ".join(map(str, verbs))) or "none"
        msg = (
            f"Step {number} must name one verb, with its options below it, got {named}."
        )
        raise OptionError(msg)
    verb, options = verbs[0], table[verbs[0]]
    _check_verb(number, verb)
    if not isinstance(options, (Mapping, type(None))):
        msg = (
            f"Step {number} ({verb}) must have its options as a table, name: value, "
            f"got {options!r:.60}."
        )
        raise OptionError(msg)
    name = table.get("name")
    if name is None:
        usual = (verb, *(f"{verb}-{count}" for count in range(2, _MOST_STEPS + 1)))
        name = next(one for one in usual if one not in taken)
    if not isinstance(name, str) or not _STEP_NAME.fullmatch(name):
        msg = (
            f"The name of step {number} must be of small letters, digits, '-' and '_', "
            f"40 at most, got {name!r:.60}."
        )
        raise OptionError(msg)
    if name.replace("-", "_") in {one.replace("-", "_") for one in taken}:
        msg = f"Two steps are called {name}; give step {number} another name."
        raise OptionError(msg)
    return _Step(number, name, verb, options or {})


def _check_verb(number: int, verb: str) -> None:
    """Refuse what is no verb, or none for images."""
    if verb not in VERBS:
        known = [one for one in VERBS if one not in _NO_STEPS]
        near = difflib.get_close_matches(verb, known, n=_NEAR)
        meant = f"did you mean {' or '.join(near)}?"
        hint = meant if near else f"there are {', '.join(known)}."
        msg = f"Step {number} names {verb!r:.60}, which is no verb; {hint}"
        raise OptionError(msg)
    if verb in _NO_STEPS:
        msg = f"Step {number} names {verb}, which cannot be a step: {_NO_STEPS[verb]}."
        raise OptionError(msg)


# What a verb takes.


@cache
def _taken(verb: str) -> tuple[argparse.Action, ...]:
    """List the arguments of a verb once."""
    return tuple(arguments_of(verb))


@cache
def _known(verb: str) -> dict[str, tuple[argparse.Action, str]]:
    """List the options of a verb by their names, with the flag of each."""
    found: dict[str, tuple[argparse.Action, str]] = {}
    for action in _taken(verb):
        if not action.option_strings:
            found[action.dest] = action, ""
            found[str(action.metavar).lower()] = action, ""
        for flag in action.option_strings:
            if flag.startswith("--"):
                found[flag[2:].replace("-", "_")] = action, flag
    for former, now in ARGUMENTS.get(verb, {}).items():
        found.setdefault(former, found[now])
    return found


@cache
def _parser(verb: str) -> argparse.ArgumentParser:
    """Build the parser of a verb once."""
    return build_parser(verb)


def parse_step(verb: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a step as the command does."""
    return _parser(verb).parse_args([verb, *words])


def overwrites(verb: str) -> bool:
    """Tell whether a verb has to be told that it may replace its output."""
    return "overwrite" in _known(verb)


def _is_output(verb: str, dest: str) -> bool:
    """Tell whether an argument names what a verb writes."""
    return any(dest == item.name for item in _value(verb).written)


def _arguments(step: _Step) -> dict[str, Any]:
    """Give what a step says, by the names of its verb's options; refuse others."""
    known = _known(step.verb)
    found: dict[str, Any] = {}
    for key, value in step.options.items():
        name = str(key).removeprefix("--").replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see semsr {step.verb} -h."
            msg = f"{step.said} has no option {str(key)!r:.60}; {hint}"
            raise OptionError(msg)
        dest = known[name][0].dest
        if dest in _BY_ITSELF or (dest == "table" and step.verb != "gaps"):
            msg = f"{step.said} must leave {key} to the batch, which sees to it."
            raise OptionError(msg)
        found[name] = value
    persons = {name for name in found if vars(known[name][0]).get("by_person")}
    refuse_persons(found, persons, step.said)
    return found


def _defaults(step: _Step, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the images and the output that a step need not name."""
    images = [
        action.dest
        for action in _taken(step.verb)
        if not action.option_strings and not _is_output(step.verb, action.dest)
    ]
    found: dict[str, Any] = dict(zip(images, _first(step.verb), strict=False))
    known = _known(step.verb)
    target = next((n for n in ("output", "out_dir") if n in known), None)
    ending = _ending(step.verb)
    if target is not None and ending is not None:
        found[target] = f"{step.name}/{{name}}{ending}"
    return {**found, **given}


# Placeholders.


def _texts(value: Any) -> Iterator[str]:
    """Give the texts of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _check_columns(columns: Sequence[str], steps: Sequence[_Step]) -> None:
    """Refuse columns of inputs that bear the name of something else."""
    taken = {"input", "previous", "warnings", "error"}
    taken |= {f"{step.prefix}_output" for step in steps}
    taken |= {name for step in steps for name in step.columns}
    for name in columns:
        if name in taken or name.startswith(_STEP_MARK) or not name:
            msg = (
                f"The table of inputs has a column {name!r:.60}, a name of the batch's "
                "own columns or placeholders: call it another."
            )
            raise OptionError(msg)


def _has_output(step: _Step) -> bool:
    """Tell whether a step writes something that others can name."""
    arguments = _defaults(step, _arguments(step))
    known = _known(step.verb)
    written = {known[n][0].dest for n in arguments if _is_output(step.verb, n)}
    return not written.isdisjoint(("output", "out_dir"))


def _check_places(steps: Sequence[_Step], columns: Sequence[str]) -> None:
    """Refuse placeholders that name nothing, or what is made only later."""
    names = {step.name: step for step in steps}
    known = ["input", "previous", "name", *columns]
    for step in steps:
        arguments = _arguments(step)
        for text in (one for value in arguments.values() for one in _texts(value)):
            for place in _PLACEHOLDER.findall(text):
                other = names.get(place.removeprefix(_STEP_MARK))
                if not place.startswith(_STEP_MARK) or other is None:
                    if place in known:
                        continue
                    offered = [*known, *(f"{_STEP_MARK}{n}" for n in names)]
                    told = ", ".join(f"{{{one}}}" for one in offered)
                    named = f"{{{one_line(place)}}}"
                    msg = f"{step.said} names {named}, but there are {told}."
                    raise OptionError(msg)
                if other.number >= step.number:
                    msg = (
                        f"{step.said} needs {{{place}}}, which is not made before it: "
                        "steps run in their order and must not go in a circle."
                    )
                    raise OptionError(msg)
                if not _has_output(other):
                    msg = (
                        f"{step.said} needs {{{place}}}, but that step writes no file; "
                        "give it an output, or name another."
                    )
                    raise OptionError(msg)


# Images.


@dataclass(frozen=True, slots=True)
class _Input:
    """An image that goes through the steps."""

    path: Path
    name: str
    cells: Mapping[str, str] = field(default_factory=dict)
    root: Path = field(default_factory=Path)  # from which cells count


def _told(path: Path) -> str:
    """Write a path into a sentence."""
    return one_line(str(path), _SAID)


def _inputs(given: Path, folder: Path) -> list[_Input]:
    """Find the images, none of which lies in the output folder."""
    whole = folder.resolve()
    if given.is_file() and given.suffix.lower() in SHEET_SUFFIXES:
        found = list(_of_table(given))
    else:
        paths = [path.absolute() for path in jobs.find_images(given)]
        kept = [path for path in paths if whole not in path.resolve().parents]
        if paths and not kept:
            msg = (
                f"The images of {_told(given)} lie in the output folder "
                f"{_told(folder)}."
            )
            raise OptionError(msg)
        found = [_Input(path, _name_of(path)) for path in kept]
    if len(found) > _MOST_INPUTS:
        msg = f"A batch takes at most {_MOST_INPUTS} images, got {len(found)}."
        raise OptionError(msg)
    for one in found:
        if not one.path.exists():
            msg = f"There is no image {_told(one.path)}, which inputs name."
            raise ReadError(msg)
        if whole == one.path.resolve() or whole in one.path.resolve().parents:
            msg = (
                f"The input {_told(one.path)} lies in the output folder "
                f"{_told(folder)}."
            )
            raise OptionError(msg)
    _check_names(found)
    return found


def _name_of(path: Path) -> str:
    """Name an image by its file, without the ending."""
    name = path.name
    for ending in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if name.lower().endswith(ending):
            return file_stem(name[: -len(ending)])
    return file_stem(path.stem if path.is_file() or path.suffix == ".zarr" else name)


def _check_names(found: Sequence[_Input]) -> None:
    """Refuse two images of one name, whose outputs would be the same."""
    seen: dict[str, _Input] = {}
    for one in found:
        other = seen.setdefault(one.name.casefold(), one)
        if other is not one:
            msg = (
                f"Two inputs are called {one.name}, {_told(other.path)} and "
                f"{_told(one.path)}: name them apart in a table with the columns "
                "image and name."
            )
            raise OptionError(msg)


def _of_table(path: Path) -> Iterator[_Input]:
    """Read the rows of a table; paths in it are counted from its folder."""
    sheet = read_sheet(path, "images")
    root = path.absolute().parent
    if "image" not in sheet.names:
        names = ", ".join(sheet.names) or "nothing"
        msg = f"{path} must have the column image, got {names}."
        raise ReadError(msg)
    if not sheet.rows:
        msg = f"{path} must name an image in each row, but has no row."
        raise ReadError(msg)
    for line, row in sheet.rows:
        cells = dict(zip(sheet.names, row, strict=False))
        if len(row) != len(sheet.names) or not cells["image"]:
            msg = (
                f"{path} line {line} must hold {len(sheet.names)} cells, of which "
                f"image names one, got {','.join(row)!r:.80}."
            )
            raise ReadError(msg)
        image = root / cells["image"]
        name = file_stem(cells["name"]) if cells.get("name") else _name_of(image)
        yield _Input(image, name, cells, root)


# Steps of one image.


def _texts_of(step: _Step, name: str, action: argparse.Action, value: Any) -> list[str]:
    """Write the values that an option is set to."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            msg = f"{step.said} must have {name} true or false, got {value!r:.60}."
            raise OptionError(msg)
        return ["true" if value else "false"]
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    for one in given:
        kind = (str, int, float, os.PathLike)
        if isinstance(one, bool) or not isinstance(one, kind):
            msg = (
                f"{step.said} must have a text, a number or a list of these as "
                f"{name}, got {one!r:.60}."
            )
            raise OptionError(msg)
    texts = [str(one) for one in given]
    several = action.nargs is not None or len(texts) == 1
    return texts if several else [",".join(texts)]


def _there(path: Path) -> bool:
    """Tell whether something is at a path, which may be no path at all."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


class _Maker:
    """Makes the tasks of an image: values put into places, files found, words said."""

    def __init__(self, image: _Input, folder: Path, base: Path) -> None:
        self.image = image
        self.folder = folder
        self.base = base  # from which the file's own paths count
        self.made: dict[str, str] = {}
        self.previous = Piece(str(image.path), "file", str(image.path))

    def task(self, step: _Step) -> StepTask:
        """Make the task of a step."""
        arguments = _defaults(step, _arguments(step))
        before, flags, parts, outputs = [], [], [], {}
        order = [action.dest for action in _taken(step.verb)]
        known = _known(step.verb)
        for name in sorted(arguments, key=lambda one: order.index(known[one][0].dest)):
            action, flag = known[name]
            pieces = self._values(step, name, action, arguments[name])
            if pieces is None:
                continue
            if _is_output(step.verb, action.dest):
                placed = self._output(step, name, pieces[0])
                outputs[action.dest] = placed.value
                pieces = [[placed]]
            parts += [(name, tuple(one)) for one in pieces]
            texts = ["".join(piece.said for piece in one) for one in pieces]
            if (not flag or action.nargs) and any(map(_FLAG.match, texts)):
                msg = f"{step.said} must have no {name} that begins with '-'."
                raise OptionError(msg)
            if flag:
                flags += _flagged(step, action, flag, texts)
            else:
                before += texts
        mine = outputs.get("output", outputs.get("out_dir"))
        made = StepTask(
            name=step.name,
            verb=step.verb,
            words=(*before, *flags),
            parts=tuple(parts),
            outputs=tuple(outputs.values()),
            output=mine,
        )
        self._check(step, made)
        if mine is not None:
            self.made[step.name] = mine
            if _goes_on(step.verb):
                self.previous = self._of_step(step.name)
        return made

    def _check(self, step: _Step, made: StepTask) -> None:
        """Let the verb itself refuse what it would refuse."""
        try:
            load_verb(step.verb).start(parse_step(step.verb, made.words)).close()
        except Exception as error:
            msg = f"{step.said}, image {self.image.name}: {sentence_of(error)}"
            raise OptionError(msg) from error

    def _of_step(self, name: str) -> Piece:
        return Piece(str(self.folder / self.made[name]), "step", name)

    def _values(
        self, step: _Step, name: str, action: argparse.Action, value: Any
    ) -> list[list[Piece]] | None:
        """Give what an option is set to, each value in pieces; None leaves it out."""
        if value is None:
            return None
        if action.nargs == 0:
            return [[Piece(_texts_of(step, name, action, value)[0])]]
        found = [self._pieces(one) for one in _texts_of(step, name, action, value)]
        if not any(piece.said for one in found for piece in one):
            return None  # an empty cell of a table
        if _is_output(step.verb, action.dest):
            return found
        return [self._found(step, name, action, one) for one in found]

    def _pieces(self, text: str) -> list[Piece]:
        """Put names and files into the places of a text."""
        pieces = []
        for number, part in enumerate(_PLACEHOLDER.split(text)):
            if number % 2:
                pieces.append(self._placed(part))
            elif part:
                pieces.append(Piece(part))
        return pieces

    def _placed(self, place: str) -> Piece:
        """Give what a placeholder stands for."""
        image = self.image
        if place == "previous":
            return self.previous
        if place == "input":
            return Piece(str(image.path), "file", str(image.path))
        if place == "name":
            return Piece(image.name)
        if place.startswith(_STEP_MARK):
            return self._of_step(place.removeprefix(_STEP_MARK))
        cell = image.cells[place]
        path = image.root / cell
        if cell and _there(path) and (path.suffix or path.is_dir()):
            return Piece(str(path), "file", str(path))
        return Piece(cell)

    def _found(
        self, step: _Step, name: str, action: argparse.Action, pieces: list[Piece]
    ) -> list[Piece]:
        """Take a text for the file that it names, counted from the steps' folder."""
        if any(piece.kind != "text" for piece in pieces):
            return pieces
        text = "".join(piece.said for piece in pieces)
        if action.dest == "model":
            path = self.base / text
            place = path if path.suffix and _there(path) else jobs.find_model(text)
            said = str(path) if place == path else text
            return [Piece(said, "file", str(place))]
        path = self.base / text
        file = _names_file(step.verb, action, name)
        if _there(path) and (file or path.suffix):
            return [Piece(str(path), "file", str(path))]
        if file:
            told = f"{name} {one_line(text)}"
            msg = f"{step.said} needs {told}, but there is no file {_told(path)}."
            raise ReadError(msg)
        return pieces

    def _output(self, step: _Step, name: str, pieces: list[Piece]) -> Piece:
        """Place an output in the output folder, which it must not leave."""
        text = "".join(piece.said for piece in pieces)
        parts = PurePosixPath(text.replace("\\", "/")).parts
        windows = PureWindowsPath(text)
        place = self.folder.joinpath(*parts)
        outside = not parts or ".." in parts or windows.drive or windows.root
        whole = self.folder.resolve()
        if outside or not _is_path(place) or whole not in place.resolve().parents:
            msg = (
                f"{step.said} must write its {name} inside the output folder, as "
                f"{step.name}/{{name}}.ome.tif does, got {text!r:.80}."
            )
            raise OptionError(msg)
        if parts[0] == STATE or (len(parts) == 1 and _is_reserved(parts[0])):
            told = one_line(text)
            msg = f"{step.said} must not write {told}, which the batch itself writes."
            raise OptionError(msg)
        return Piece(str(place), "output", "/".join(parts))


def _is_reserved(name: str) -> bool:
    """Tell names that the batch gives itself."""
    pages = re.fullmatch(rf"{REPORT}(-\d+)?\.(html|json)", name, re.IGNORECASE)
    return name.casefold() == TABLE or pages is not None


def _flagged(
    step: _Step, action: argparse.Action, flag: str, texts: Sequence[str]
) -> list[str]:
    """Write an option as words."""
    if action.nargs == 0:
        if texts[0] == "true":
            return [flag]
        negative = f"--no-{flag[2:]}"
        return [negative] if negative in action.option_strings else []
    if action.nargs is None:
        return [f"{flag}={texts[0]}"]
    return [flag, *texts]


def _check_outputs(images: Sequence[ImageTask]) -> None:
    """Refuse outputs that would be written twice, or one into another."""
    owners: dict[str, str] = {}
    for image in images:
        for step in image.steps:
            for text in step.outputs:
                key = text.casefold()
                owner = f"step {step.name} of {image.name}"
                other = owners.setdefault(key, owner)
                if other is not owner:
                    msg = (
                        f"The output {one_line(text)} would be written twice, by "
                        f"{other} and by {owner}: put {{name}} into it, or another "
                        "text."
                    )
                    raise OptionError(msg)
    for key, owner in owners.items():
        above = next(
            (p for p in map(str, PurePosixPath(key).parents) if p in owners), None
        )
        if above is not None:
            msg = (
                f"The output {one_line(key)} of {owner} would lie in "
                f"{one_line(above)} of {owners[above]}."
            )
            raise OptionError(msg)


def plan_batch(
    steps: str | os.PathLike[str] | Mapping[str, Any],
    *,
    inputs: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> BatchPlan:
    """Read steps, find their images, and refuse what cannot be run."""
    content: Any
    if isinstance(steps, Mapping):
        content, base, title = steps, Path.cwd(), "Batch"
    else:
        path = Path(steps)
        content, base, title = read_steps(path), path.absolute().parent, path.stem
    if not isinstance(content, Mapping):
        msg = (
            f"Steps must be a table with inputs, output and steps, got {content!r:.60}."
        )
        raise OptionError(msg)
    known = ("inputs", "output", "steps", "report")
    for key in content:
        if key not in known:
            msg = f"Steps have no entry {key!r:.60}; there are {', '.join(known)}."
            raise OptionError(msg)
    where = _named("inputs", content, base, inputs)
    folder = _named("output", content, base, output)
    report = content.get("report", False)
    if not isinstance(report, (bool, Mapping)):
        msg = (
            f"report must be true, false or a table of its options, got {report!r:.60}."
        )
        raise OptionError(msg)
    if folder.exists() and not folder.is_dir():
        msg = f"The output of a batch must be a folder, got the file {_told(folder)}."
        raise WriteError(msg)
    found = _steps(content.get("steps"))
    images = _inputs(where, folder)
    columns = [name for name in images[0].cells if name not in ("image", "name")]
    _check_columns(columns, found)
    _check_places(found, columns)
    tasks = tuple(_tasked(image, found, folder, base) for image in images)
    _check_outputs(tasks)
    names = tuple(
        name
        for step in found
        for name in (
            *([f"{step.prefix}_output"] if _has_output(step) else []),
            *step.columns,
        )
    )
    words = _report_words(report if isinstance(report, Mapping) else {})
    return BatchPlan(folder, tasks, names, words if report else None, title)


def _report_words(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the options of the report as words; where it lies is no option."""
    step, known, words = _Step(0, REPORT, REPORT, options), _known(REPORT), list[str]()
    for name, value in _arguments(step).items():
        action, flag = known[name]
        if not flag or _is_output(REPORT, action.dest):
            msg = f"{step.said} must leave {name} to the batch, which sees to it."
            raise OptionError(msg)
        words += _flagged(step, action, flag, _texts_of(step, name, action, value))
    arguments = parse_step(REPORT, ["image", "-o", f"{REPORT}.html", *words])
    load_verb(REPORT).start(arguments).close()
    return tuple(words)


def _named(
    name: str,
    content: Mapping[str, Any],
    base: Path,
    given: str | os.PathLike[str] | None,
) -> Path:
    """Give a path of the file, counted from its folder, or the one in its place."""
    if given is not None and str(given).strip():
        return Path(given).absolute()
    value = content.get(name)
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        msg = f"Steps must say {name}, a path; got {value!r:.60}."
        raise OptionError(msg)
    if not _is_path(base / value):
        msg = f"Steps say {value!r:.60} as {name}, which no system takes as a path."
        raise OptionError(msg)
    return base / value


def _is_path(path: Path) -> bool:
    """Tell whether the system takes a path, be there something or not."""
    try:
        path.exists()
        path.resolve()
    except PermissionError:
        return True  # whoever opens it says so
    except (OSError, RuntimeError, ValueError):
        return False
    return True


def _tasked(
    image: _Input, steps: Sequence[_Step], folder: Path, base: Path
) -> ImageTask:
    """Make all tasks of an image."""
    maker = _Maker(image, folder, base)
    given = {k: v or None for k, v in image.cells.items() if k not in ("image", "name")}
    return ImageTask(
        name=image.name,
        image=str(image.path),
        folder=str(folder),
        steps=tuple(maker.task(step) for step in steps),
        given=dict(given),
    )


def cells_of(step: StepTask, result: Any) -> dict[str, Cell]:
    """Give the cells of what a step found."""
    prefix = step.name.replace("-", "_")
    if isinstance(result, jobs.MeasuredTable):
        msg = f"The step {step.name} measures one image, got a folder or a table."
        raise OptionError(msg)
    if step.verb in jobs.MEASURES:
        found = cells_of_result(result)
    else:
        record = result.to_json()
        found = {name: record.get(name) for name in _value(step.verb).numbers}
    return {f"{prefix}_{name}": value for name, value in found.items()}


# Steps that were done, to be done to others.


def steps_of(made: Provenance) -> tuple[list[dict[str, Any]], str]:
    """Take the steps of a batch from a history, as a steps file has them.

    Gives the last of them that each take one image, and the verb before them that
    takes more or other things, or ``""``.
    """
    steps: list[dict[str, Any]] = []
    while (entry := _entry_of(made)) is not None:
        steps.insert(0, entry)
        before = made.inputs[0].provenance
        if before is None:
            reading = ReadOptions.parse(made.options.get("reading") or {})
            options = next(iter(entry.values()))
            options |= _flagged_values(made.job, reading)
            return steps, ""
        made = before
    return steps, made.job


def _entry_of(made: Provenance) -> dict[str, Any] | None:
    """Write one step; None for what is no step of one image."""
    if made.job not in VERBS or made.job in _NO_STEPS or len(made.inputs) != 1:
        return None
    verb = _value(made.job)
    if not verb.makes_image or made.part is not None:
        return None
    own = {k: v for k, v in made.options.items() if k in verb.options.model_fields}
    options = _flagged_values(made.job, verb.options.parse(own))
    if made.model_name is not None and any(one.name == "model" for one in verb.files):
        options["model"] = made.model_name
    return {made.job: options}


def _flagged_values(verb: str, options: Options) -> dict[str, Any]:
    """Write options that are not as usual by their flags; what has none is left out."""
    known = _known(verb)
    return {
        name.replace("_", "-"): value
        for name, value in options.model_dump(
            mode="json", exclude_defaults=True
        ).items()
        if name in known and not vars(known[name][0]).get("by_person")
    }
