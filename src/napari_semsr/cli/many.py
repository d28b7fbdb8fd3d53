"""Many images in place of one: the table that every measuring verb can make."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari_semsr import jobs
from napari_semsr.cli.verb import (
    R,
    Verb,
    add_overwrite,
    asked,
    columns,
    number,
)
from napari_semsr.core import Job, OptionError

_SHOWN = 12  # rows of failures in a summary


def tabled(
    one: Verb[R],
    measure: str,
    images: Sequence[str],
    *,
    switches: Sequence[str] = (),
    output: bool | None = None,
    own_table: bool = False,
) -> Verb[Any]:
    """Let a measuring verb take a folder, a glob or a table in place of an image.

    `measure` is its name among the jobs' ``MEASURES``, `images` are the arguments that
    name images, `switches` further ones that its job takes. `output` says whether it
    has ``-o`` and whether one image needs it, `own_table` that it has ``--table`` for
    one image, too.
    """
    many = _Tabled(one, measure, tuple(images), tuple(switches), output, own_table)
    return Verb(many.configure, many.start, many.summarise)


@dataclass(frozen=True, slots=True)
class _Tabled:
    """What `tabled` was given."""

    one: Verb[Any]
    measure: str
    images: tuple[str, ...]
    switches: tuple[str, ...]
    output: bool | None
    own_table: bool

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments, and those of a table."""
        self.one.configure(parser)
        named = " and ".join(jobs.MEASURES[self.measure].names)
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
            resume=arguments.resume,
            **{name: getattr(arguments, name) for name in self.switches},
            **asked(arguments, jobs.MEASURES[self.measure].options),
        )

    def _require_one(
        self, arguments: argparse.Namespace, given: Sequence[str | None]
    ) -> None:
        """Refuse what one image lacks, or has no use for."""
        if arguments.resume:
            msg = "Only a table of images can be resumed; leave --resume out."
            raise OptionError(msg)
        missing = self.images[sum(one is not None for one in given) :]
        if len(given) - len(missing) < jobs.MEASURES[self.measure].needed:
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
        mean, sd = number(found["mean"], 4), number(found["sd"], 2)
        few = found["images"] != result.images
        over = f"  (of {found['images']})" if few else ""
        rows.append((name, f"{mean} +- {sd}{over}" if found["sd"] else mean + over))
    reasons = [f"{count} {reason}" for reason, count in result.reasons.items()]
    rows += [("no result", ", ".join(reasons))] if reasons else []
    first = next(iter(result.rows[0])) if result.rows else ""
    rows += [("failed", f"{row[first]}: {row['error']}") for row in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        rows.append(("", f"and {len(failed) - _SHOWN} more; the table has all"))
    if result.table is not None:
        rows.append(("table", result.table))
    return columns(rows)
