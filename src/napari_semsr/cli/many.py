"""Many images in place of one: the table that every measuring verb can make."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    Command,
    R,
    add_image,
    add_opening,
    add_openings,
    add_options,
    add_overwrite,
    columns,
    options_from,
    path_word,
)
from napari_semsr.core import (
    Figure,
    Job,
    OptionError,
    figures_of,
    legible,
    spell_shape,
)
from napari_semsr.io import ReadOptions

_SHOWN = 12  # rows of failures, and of a table, in a summary


def command_of(verb: "jobs.Verb[Any, Any]") -> Command[Any]:
    """Make the command of a verb that is a value."""
    one: Command[Any] = Command(
        partial(_configure, verb),
        partial(_start, verb),
        partial(_say, verb),
        **({} if verb.prepare is None else {"prepare": verb.prepare}),
    )
    if not verb.tabled:
        return one
    output = None if verb.output is None else verb.output.one_needs_it
    names = [item.name for item in verb.images if not item.flag]
    files = [item.name for item in verb.files]
    own = "table" in [item.name for item in verb.written]
    how: dict[str, Any] = {"switches": files, "output": output, "own_table": own}
    return tabled(one, verb.name, names, **how)


def _configure(verb: "jobs.Verb[Any, Any]", parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a verb."""
    group = parser.add_argument_group("files")
    for place, item in enumerate(verb.inputs):
        # of a verb that measures, a table names both images
        optional = item.optional or (verb.tabled and place > 0)
        if isinstance(item, jobs.ImageIn) and not item.flag:
            how: dict[str, Any] = {"optional": optional, "many": item.many}
            how["metavar"] = item.metavar if item.many else ""
            add_image(parser, item.name, item.help, **how)
        else:
            _add_file(group if item.flag else parser, item, optional=optional)
    for written in verb.written:
        _add_written(parser, group, written)
    if verb.written or verb.replaces:
        add_overwrite(parser)
    if verb.resumes:
        said = "go on with an interrupted output"
        parser.add_argument("--resume", action="store_true", help=said)
    add_options(parser, verb.options, title=verb.title, exclude=verb.exclude)
    for more in verb.groups:
        add_options(parser, more.options, title=more.title, exclude=more.exclude)
    if verb.sides:
        sides = zip(verb.sides, verb.images, strict=True)
        add_openings(parser, **{side: item.name.upper() for side, item in sides})
    elif verb.reads:
        add_opening(parser, exclude=verb.not_read)


def _add_file(place: Any, item: Any, *, optional: bool) -> None:
    """Add an argument that names a file."""
    many = getattr(item, "many", False)
    how: dict[str, Any] = {"metavar": item.metavar, "help": item.help}
    default = getattr(item, "default", None)
    told = f"{item.help} (default: {default})" if default else item.help
    if item.flag:
        how |= {"dest": item.name, "default": default, "help": told}
        how |= {"nargs": "+", "action": "extend"} if many else {}
        flags = (item.flag, f"--{item.name}") if len(item.flag) == 2 else (item.flag,)
        place.add_argument(*flags, required=not optional, **how)
    else:
        how |= {"nargs": "+" if many else "?"} if many or optional else {}
        how |= {"default": default, "help": told} if default else {}
        place.add_argument(item.name, type=path_word, **how)


def _add_written(parser: Any, group: Any, item: "jobs.Output") -> None:
    """Add an argument that names an output."""
    how = {"metavar": item.metavar, "type": path_word, "help": item.help}
    if not item.flag:
        how["metavar"] = item.name.upper() if item.metavar == "OUT" else item.metavar
        if item.default:
            told = f"{item.help} (default: {item.default})"
            how |= {"nargs": "?", "default": item.default, "help": told}
        parser.add_argument(item.name, **how)
    elif item.flag == "-o":
        flags = ("-o", "--output")
        parser.add_argument(*flags, required=item.required, **how)
    else:
        group.add_argument(item.flag, dest=item.name, required=item.required, **how)


def _start(verb: "jobs.Verb[Any, Any]", arguments: argparse.Namespace) -> Job[Any]:
    """Make the job of a verb."""
    given = vars(arguments)
    first = [given[item.name] for item in verb.inputs if not item.flag]
    how = {item.name: given[item.name] for item in verb.inputs if item.flag}
    how |= {item.name: given[item.name] for item in verb.written}
    for name in ("overwrite", "resume"):
        if name in given and (name != "resume" or verb.resumes):
            how[name] = given[name]
    how["options"] = options_from(arguments, verb.options)
    how |= {more.name: options_from(arguments, more.options) for more in verb.groups}
    if verb.sides:
        how["opening"], how[f"{verb.sides[1]}_opening"] = jobs.both_openings(given)
    elif verb.reads:
        how["opening"] = options_from(arguments, ReadOptions, **verb.hidden)
    return verb.job(*first, **how)


def _say(verb: "jobs.Verb[Any, Any]", result: Any) -> str:
    """Write what was found, below where something was written."""
    rows = [(name, str(figure)) for name, figure in figures_of(result).items()]
    output = getattr(result, "output", getattr(result, "path", None))
    if verb.written and output is not None:
        size = getattr(result, "shape", None)
        rows.insert(
            0, ("Written", f"{output} ({spell_shape(size)})" if size else output)
        )
    return "\n".join([columns(rows), *_sheets(result)])


def _sheets(result: Any) -> Iterator[str]:
    """Write the tables of a result below its figures."""
    tables: dict[str, Any] = getattr(result, "tables", dict)()
    for title, table in tables.items():
        rows = [
            [_cell(one) for one in row] for row in zip(*table.values(), strict=True)
        ]
        shown = [list(table), *rows[:_SHOWN]]
        widths = [max(map(len, cells)) for cells in zip(*shown, strict=True)]
        yield f"\n{title}"
        for row in shown:
            cells = zip(row, widths, strict=True)
            yield "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip()
        if len(rows) > _SHOWN:
            yield f"and {len(rows) - _SHOWN} more; --json has all"


def _cell(value: Any) -> str:
    """Write a cell of a table."""
    return legible(str(Figure(value) if isinstance(value, float | None) else value))


def tabled(
    one: Command[R],
    measure: str,
    images: Sequence[str],
    *,
    switches: Sequence[str] = (),
    output: bool | None = None,
    own_table: bool = False,
) -> Command[Any]:
    """Let a measuring verb take a folder, a glob or a table in place of an image.

    `measure` is its name among those that measure, `images` are the arguments that
    name images, `switches` further ones that its job takes. `output` says whether it
    has ``-o`` and whether one image needs it, `own_table` that it has ``--table`` for
    one image, too.
    """
    many = _Tabled(one, measure, tuple(images), tuple(switches), output, own_table)
    return Command(many.configure, many.start, many.summarise)


@dataclass(frozen=True, slots=True)
class _Tabled:
    """What `tabled` was given."""

    one: Command[Any]
    measure: str
    images: tuple[str, ...]
    switches: tuple[str, ...]
    output: bool | None
    own_table: bool

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments, and those of a table."""
        self.one.configure(parser)
        named = " and ".join(jobs.measure_of(self.measure).names)
        group = parser.add_argument_group(
            "many images",
            "In place of an image: a folder, a glob in quotes, or a table (CSV) whose "
            f"header has {named}, with paths counted from its folder.",
        )
        if not self.own_table:
            group.add_argument(
                "--table",
                metavar="OUT",
                help="write a row for each image into this file, .csv or .parquet",
            )
        group.add_argument(
            "--resume",
            action="store_true",
            help="keep rows of the table whose files and options are the same",
        )
        if self._only_tables_overwrite:
            add_overwrite(parser)

    @property
    def _only_tables_overwrite(self) -> bool:
        """Whether one image has no output that may be replaced."""
        return self.output is None and not self.own_table

    def start(self, arguments: argparse.Namespace) -> Job[Any]:
        """Make the job of one image, or of many."""
        given = [getattr(arguments, name) for name in self.images]
        many = any(image is not None and jobs.is_many(image) for image in given)
        if not many and (arguments.table is None or self.own_table):
            self._require_one(arguments, given)
            alone = argparse.Namespace(**vars(arguments))
            if self._only_tables_overwrite:
                del alone.overwrite  # which its own job would not know
            return self.one.start(alone)
        if self.output is not None and arguments.output is not None:
            msg = (
                "A table of images is written by --table, and takes no -o, got "
                f"{arguments.output}; measure one image for its own output."
            )
            raise OptionError(msg)
        return jobs.measure_table_job(
            self.measure,
            given[0],
            given[1] if len(given) > 1 else None,
            table=arguments.table,
            existing=jobs.OverwritePolicy(arguments.overwrite, arguments.resume),
            **{name: getattr(arguments, name) for name in self.switches},
            options=options_from(arguments, jobs.measure_of(self.measure).verb.options),
            opening=options_from(arguments, ReadOptions),
        )

    def _require_one(
        self, arguments: argparse.Namespace, given: Sequence[str | None]
    ) -> None:
        """Refuse what one image lacks, or has no use for."""
        if arguments.resume:
            msg = "Only a table of images can be resumed; leave --resume out."
            raise OptionError(msg)
        missing = self.images[sum(one is not None for one in given) :]
        if len(given) - len(missing) < jobs.measure_of(self.measure).needed:
            msg = (
                f"The arguments {' and '.join(self.images)} must be given, got no "
                f"{missing[0]}; a table of both images comes alone."
            )
            raise OptionError(msg)
        if self.output and arguments.output is None:
            msg = "One image needs -o, where its map goes, or --table for its row."
            raise OptionError(msg)

    def summarise(self, result: Any) -> str:
        """Say the result of one image, or of many."""
        if isinstance(result, jobs.MeasuredTable):
            return _summarise(result)
        return self.one.summarise(result)


def _summarise(result: "jobs.MeasuredTable") -> str:
    """Say mean and standard deviation over images, and what could not be measured."""
    counts = f"{result.measured} measured"
    counts += f", {result.kept} kept" if result.kept else ""
    failed = [row for row in result.rows if row["error"]]
    counts += f", {len(failed)} failed" if failed else ""
    rows = [("images", f"{result.images}: {counts}")]
    for name, found in result.summary.items():
        mean, sd = Figure(found["mean"]), Figure(found["sd"], form=".2g")
        few = found["images"] != result.images
        over = f"  (of {found['images']})" if few else ""
        rows.append((name, f"{mean} +- {sd}{over}" if found["sd"] else f"{mean}{over}"))
    reasons = [f"{count} {reason}" for reason, count in result.reasons.items()]
    rows += [("no result", ", ".join(reasons))] if reasons else []
    first = next(iter(result.rows[0])) if result.rows else ""
    rows += [("failed", f"{row[first]}: {row['error']}") for row in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        rows.append(("", f"and {len(failed) - _SHOWN} more; the table has all"))
    if result.table is not None:
        rows.append(("table", result.table))
    return columns(rows)
