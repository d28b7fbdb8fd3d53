"""Subcommands of ``semsr``: arguments, jobs and result summaries."""

import argparse
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from napari_semsr import core, jobs

_MAX_ROWS = 12  # rows of a table, or of failures, in a summary

# Flags are generated from the option models, so that options are declared once.


def add_options(parser: argparse.ArgumentParser, options: "jobs.OptionGroup") -> None:
    """Add one flag for each option of a group.

    Values are passed on as text: the group itself checks them, so that a command, a
    panel and a store refuse the same values with the same messages.
    """
    group = parser.add_argument_group(options.title)
    for dest, item in options.arguments(options.exclude).items():
        if isinstance(item, FieldInfo):
            _add_option(group, dest, dest.removeprefix(options.before), item)
        else:
            group.add_argument(
                _format_flag(dest),
                default=argparse.SUPPRESS,
                metavar=item.metavar,
                help=item.help,
            )


def _format_flag(dest: str) -> str:
    return f"--{dest.replace('_', '-')}"


def _add_option(
    group: argparse._ArgumentGroup, dest: str, name: str, info: FieldInfo
) -> None:
    flag, kind = _format_flag(dest), info.annotation
    text = (info.description or "").rstrip(".")
    text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    usual = info.get_default(call_default_factory=False)
    is_shown = usual not in (None, "") and usual is not False  # but a 0 is
    has_shown_default = is_shown and not info.is_required()
    if isinstance(usual, tuple):  # e.g. rows and columns, as on the command line
        usual = "x".join(map(str, usual))
    text = f"{text} (default: {usual})" if has_shown_default else text
    text = text.replace("%", "%%")
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        kind = kinds[0] if len(kinds) == 1 else str
    for other, value in (core.get_display(info).flags or {}).items():
        same = f"equivalent to {flag} {value}"
        how = {"action": "store_const", "const": value, "default": argparse.SUPPRESS}
        group.add_argument(_format_flag(other), dest=dest, help=same, **how)
    if kind is bool:
        action: Any = argparse.BooleanOptionalAction if info.default else "store_true"
        extra: dict[str, Any] = {"action": action}
    elif get_origin(kind) is Literal:
        extra = {"choices": [str(item) for item in get_args(kind)]}
    else:
        metavar = core.get_display(info).metavar
        numbers: dict[object, str] = {int: "N", float: "X"}
        placeholder = numbers.get(kind, name.split("_")[0].upper())
        extra = {"metavar": metavar or placeholder}
        if isinstance(metavar, tuple):
            extra["nargs"] = len(metavar)
        if bool in get_args(info.annotation):  # the flag may be given without a value
            extra |= {"nargs": "?", "const": True}
    group.add_argument(flag, dest=dest, default=argparse.SUPPRESS, help=text, **extra)


# Arguments, job and summary of a command.


def check_path(text: str) -> str:
    """Raise an error for an empty path, which would mean the current folder."""
    if not text.strip():
        msg = "a path must not be empty"
        raise argparse.ArgumentTypeError(msg)
    return text


def _add_input_argument(place: Any, item: Any, *, optional: bool) -> None:
    many, default = getattr(item, "many", False), getattr(item, "default", None)
    help_text = f"{item.help} (default: {default})" if default else item.help
    how: dict[str, object] = {"metavar": item.metavar, "help": help_text}
    if item.flag:
        how |= {"dest": item.name, "default": default, "required": not optional}
        how |= {"nargs": "+", "action": "extend"} if many else {}
        flags = (item.flag, f"--{item.name}") if len(item.flag) == 2 else (item.flag,)
        place.add_argument(*flags, **how)
        return
    if isinstance(item, jobs.ImageInput) and not many:
        how["metavar"] = item.name.upper()
    many = many or getattr(item, "several", False)
    if many or optional:
        how["nargs"] = "+" if many else "?"
    how |= {"default": default} if default else {}
    place.add_argument(item.name, type=check_path, **how)


class _OutputAction(argparse.Action):
    """Action for an output given as a positional argument or with -o."""

    place: argparse.Action | None = None  # the positional argument

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Store the output; -o makes the positional argument optional."""
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"the output is given twice, the second time as {values}")
        setattr(namespace, self.dest, values)
        if self.place is not None:
            self.place.nargs, self.place.required = "?", False
            self.place.default = argparse.SUPPRESS


def _add_output_argument(
    parser: argparse.ArgumentParser,
    group: argparse._ArgumentGroup,
    item: "jobs.Output",
    default: object,
) -> None:
    how: dict[str, Any] = {"metavar": item.metavar, "help": item.help}
    how["type"] = check_path
    if not item.flag:
        how["metavar"] = item.name.upper() if item.metavar == "OUT" else item.metavar
        if isinstance(default, Path):
            help_text = f"{item.help} (default: {default})"
            how |= {"nargs": "?", "default": str(default), "help": help_text}
        elif item.name == "output":
            how["action"] = _OutputAction
        place = parser.add_argument(item.name, **how)
        if item.name == "output":
            action = parser.add_argument("-o", "--output", **how)
            assert isinstance(action, _OutputAction)  # noqa: S101 - as asked for
            action.place = place
    elif item.flag == "-o":
        flags = ("-o", "--output")
        parser.add_argument(*flags, required=item.is_required, **how)
    else:
        group.add_argument(item.flag, dest=item.name, required=item.is_required, **how)


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand of ``semsr``.

    A command that measures also takes a folder, a glob or a table instead of an image.
    """

    verb: "jobs.Verb[core.Options, jobs.Result]"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command to its parser."""
        verb, group = self.verb, parser.add_argument_group("files")
        for place, item in enumerate(verb.inputs):
            # for a command that measures, a table names both images
            optional = item.optional or (verb.makes_table and place > 0)
            _add_input_argument(group if item.flag else parser, item, optional=optional)
        for output in verb.all_outputs:
            if output is verb.output and self._takes_several and not output.flag:
                flags, more = ("-o", "--output"), "the last path if not given"
                help_text = f"{output.help} ({more})"
                parser.add_argument(*flags, metavar="OUT", help=help_text)
                continue
            default = verb.parameters[output.name].default
            _add_output_argument(parser, group, output, default)
        if verb.overwrites or (verb.makes_table and not verb.all_outputs):
            help_text = "replace an existing output"
            parser.add_argument("--overwrite", action="store_true", help=help_text)
        if verb.resumes and not self._takes_several:
            help_text = "resume an interrupted output"
            parser.add_argument("--resume", action="store_true", help=help_text)
        for one in verb.option_groups:
            add_options(parser, one)
        if verb.makes_table:
            names = " and ".join(verb.image_columns)
            many = parser.add_argument_group(
                "many images",
                "Pass a folder, a quoted glob pattern, or a table (CSV) instead of an "
                f"image. The table header must contain {names}, and paths are relative "
                "to the table's folder.",
            )
            if not self._has_table:
                many.add_argument(
                    "--table",
                    metavar="OUT",
                    help="write a row for each image into this file, .csv or .parquet",
                )
            many.add_argument(
                "--resume",
                action="store_true",
                help="keep rows of the table whose files and options are the same",
            )
        self._add_several_options(parser)

    @property
    def _takes_several(self) -> bool:
        """Whether several images have one output each."""
        return any(item.several for item in self.verb.images)

    def _add_several_options(self, parser: argparse.ArgumentParser) -> None:
        if not self._takes_several:
            return
        several = parser.add_argument_group(
            "several images",
            "Pass images, a folder, or a quoted glob pattern, with -o FOLDER (a name "
            "without a suffix): each output in the folder is named as its image. An "
            "image that fails does not stop the others.",
        )
        several.add_argument(
            "--suffix",
            metavar="SUFFIX",
            help="format of the outputs in the folder, such as .ome.tif",
        )
        done = "skip images that are done"
        text = f"resume an interrupted output; {done}" if self.verb.resumes else done
        several.add_argument("--resume", action="store_true", help=text)

    @property
    def _has_table(self) -> bool:
        """Whether the command also writes a table for a single image."""
        return any(item.name == "table" for item in self.verb.all_outputs)

    def start(self, arguments: argparse.Namespace) -> "core.Job[jobs.Result]":
        """Return the job for parsed arguments, without running it."""
        verb, values = self.verb, {**vars(arguments)}
        how = {k: values.pop(k) for k in ("overwrite", "resume") if k in values}
        existing = jobs.OverwritePolicy(**how)
        if verb.makes_table:
            first = [values[item.name] for item in verb.images]
            if self._wants_table(first, values):
                return jobs.measure_table_job(
                    verb.name,
                    *first,
                    table=values["table"],
                    existing=existing,
                    **verb.parse(values),
                )
            self._check_single_image(first, values, existing)
        if self._takes_several:
            name = verb.images[0].name
            images = values.pop(name)
            output, several = self._choose_output(images, values)
            if several:
                return jobs.apply_to_images(
                    verb,
                    [one for image in images for one in jobs.find_images(image)],
                    output,
                    values,
                    suffix=values.pop("suffix"),
                    existing=existing,
                )
            if existing.resume and not verb.resumes:
                msg = "Only several images can be resumed; omit --resume."
                raise core.OptionError(msg, code="option-without-effect")
            values |= {name: images[0], "output": output}
        return verb.start(values, **how)

    def _wants_table(
        self, images: Sequence[object], values: Mapping[str, object]
    ) -> bool:
        """Return whether a table is to be made, which excludes other outputs."""
        many = any(image and jobs.is_image_collection(image) for image in images)
        if not many and (self._has_table or values["table"] is None):
            return False
        for output in self.verb.all_outputs:
            place = values[output.name]
            if place is not None and output.name != "table":
                msg = (
                    f"{output.flag} {place} cannot be used with many images; use "
                    "--table, or measure a single image."
                )
                raise core.OptionError(msg, code="options-contradict")
        return True

    def _check_single_image(
        self,
        images: Sequence[str | None],
        values: Mapping[str, object],
        existing: jobs.OverwritePolicy,
    ) -> None:
        """Raise an `OptionError` for options that are invalid for a single image."""
        if existing.resume:
            msg = "Only a table of images can be resumed; omit --resume."
            raise core.OptionError(msg, code="option-without-effect")
        missing = [
            item.name
            for item, image in zip(self.verb.images, images, strict=True)
            if image is None and not item.optional
        ]
        if missing:
            names = " and ".join(item.name for item in self.verb.images)
            msg = (
                f"The arguments {names} are required, but {missing[0]} is missing; the "
                "second argument may be omitted only for a table that lists both "
                "images."
            )
            raise core.OptionError(msg, code="missing-value")
        output = self.verb.output
        makes_map = output is not None and output.is_image and output.ending
        if makes_map and values["output"] is None:
            msg = (
                "A single image requires -o to write its map, or --table to write its "
                "row."
            )
            raise core.OptionError(msg, code="missing-value")

    def _choose_output(
        self, images: list[str], values: dict[str, Any]
    ) -> tuple[str, bool]:
        """Return the output, the last path if not given, and whether it is a folder."""
        output = given = values.pop("output")
        if given is None and len(images) == 2:
            output = images.pop()
        several = (
            len(images) > 1
            or values["suffix"] is not None
            # a folder of images, or a glob pattern that is not expanded
            or (not Path(images[0]).is_file() and jobs.is_image_collection(images[0]))
            or (given is not None and not Path(given).suffix)
        )
        if output is None or (several and given is None):
            msg = "The output is required: -o OUT for one image, -o FOLDER for several."
            raise core.OptionError(msg, code="missing-value")
        return output, several

    def summarise(self, result: "jobs.Result") -> str:
        """Return the summary of a result, starting with its output file."""
        if self.verb.makes_table and isinstance(result, jobs.MeasuredTable):
            return _format_summary(result)
        rows = [
            (name, str(figure)) for name, figure in core.get_figures(result).items()
        ]
        output = getattr(result, "output", getattr(result, "path", None))
        if self.verb.all_outputs and output is not None:
            size = getattr(result, "shape", None)
            where = f"{output} ({core.format_shape(size)})" if size else output
            rows.insert(0, ("Written", where))
        return "\n".join([format_columns(rows), *_format_tables(result)])


def _format_tables(result: "jobs.Result") -> Iterator[str]:
    """Yield the tables of a result as text."""
    for title, table in result.tables().items():
        texts = [
            [core.Figure(one) if isinstance(one, float | None) else one for one in row]
            for row in zip(*table.values(), strict=True)
        ]
        rows = [
            [core.escape_invisible_characters(str(one)) for one in row] for row in texts
        ]
        table_shown = [list(table), *rows[:_MAX_ROWS]]
        widths = [max(map(len, cells)) for cells in zip(*table_shown, strict=True)]
        yield f"\n{title}"
        for row in table_shown:
            cells = zip(row, widths, strict=True)
            yield "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip()
        more = len(rows) - _MAX_ROWS
        if more > 0:
            yield f"... and {more} more rows; use --json to list them all"


def _format_summary(result: "jobs.MeasuredTable") -> str:
    """Format the mean and standard deviation over images, and any failures."""
    counts = f"{result.measured} measured"
    counts += f", {result.kept} kept" if result.kept else ""
    failures = [row for row in result.rows if row["error"]]
    counts += f", {len(failures)} failed" if failures else ""
    rows = [("images", f"{result.images}: {counts}")]
    for name, numbers in result.summary.items():
        mean, sd = core.Figure(numbers["mean"]), core.Figure(numbers["sd"], form=".2g")
        few = numbers["images"] != result.images
        over = f"  (of {numbers['images']})" if few else ""
        spread = f" +- {sd}" if numbers["sd"] else ""
        rows.append((name, f"{mean}{spread}{over}"))
    reasons = [f"{count} {reason}" for reason, count in result.reasons.items()]
    rows += [("no result", ", ".join(reasons))] if reasons else []
    first = next(iter(result.rows[0])) if result.rows else ""
    for row in failures[:_MAX_ROWS]:
        rows.append(("failed", f"{row[first]}: {row['error']}"))
    if failures[_MAX_ROWS:]:
        more = len(failures) - _MAX_ROWS
        rows.append(("", f"... and {more} more; all are in the table"))
    if result.table is not None:
        rows.append(("table", result.table))
    return format_columns(rows)


def format_columns(rows: Iterable[tuple[str, str]]) -> str:
    """Format names and values in two columns."""
    pairs = [tuple(map(core.escape_invisible_characters, row)) for row in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in pairs)
