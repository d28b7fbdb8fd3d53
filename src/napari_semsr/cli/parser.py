"""The parser of ``semsr``: verbs are named here and configured by their own modules."""

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from napari_semsr.core.errors import OptionError

if TYPE_CHECKING:
    from napari_semsr.cli.verb import Verb

__all__ = ["VERBS", "build_parser", "load_verb"]

VERBS = {
    "info": "say what a file is: size, type, pixel size, vendor, metadata",
    "convert": "write any readable image in any writable format",
    "crop": "cut out a box, or what another image shows, on the grid of that image",
    "simulate": "make a folder of superlens frames whose truth is known",
    "stitch": "join a folder of frames to one calibrated mosaic",
    "degrade": "blur and haze an image as published test sets do, add noise and drift",
    "pairs": "cut aligned patches into disjoint training, validation and test sets",
    "train": "train a model from a recipe",
    "enhance": "sharpen and clean an image tile by tile with a model",
    "restore": "undo blur by a classical method: Wiener, Richardson-Lucy and others",
    "frc": "measure resolution by Fourier ring correlation",
    "frc-map": "map the resolution block by block",
    "spectrum": "radially averaged and 2-D power spectrum",
    "metrics": "compare an image with a reference: PSNR, SSIM, NRMSE and more",
    "gaps": "count and measure the gaps between particles",
    "histogram": "grey-level distributions and their distance",
    "models": "list, describe, export, import and check models",
    "demo": "frames to mosaic, enhanced and measured on drawn samples, with a report",
}
"""What each verb does, in the order of the help."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence, raised and not printed."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")
        msg = f"{sentence}; see `{self.prog} --help`."
        raise OptionError(msg)


def load_verb(name: str) -> "Verb[Any]":
    """Import the module that serves a verb.

    Parameters
    ----------
    name : str
        One of `VERBS`.

    Returns
    -------
    Verb
        What to do.
    """
    verb: Verb[Any] = import_module(f"napari_semsr.cli.{name.replace('-', '_')}").VERB
    return verb


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser, with the arguments of one verb or of all.

    Parameters
    ----------
    only : str, optional
        The verb that will run; the others stay bare names, so that nothing is imported
        for them. An empty string leaves all bare; None configures all.

    Returns
    -------
    argparse.ArgumentParser
        Raises `OptionError` where argparse would exit.
    """
    parser = _Parser(
        prog="semsr",
        description="Enhance and measure SEM and superlens images.",
        epilog="Lengths are nanometres; `semsr VERB --help` lists a verb's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, text in VERBS.items():
        one = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            allow_abbrev=False,
        )
        if only is None or only == name:
            load_verb(name).configure(one)
            _add_common(one)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every verb understands, before the verb or after it."""
    group = parser.add_argument_group("output")
    told = {
        "--json": "print one JSON object on stdout",
        "--quiet": "no progress and no warnings on stderr",
        "--debug": "show the traceback of an error",
    }
    for flag, text in told.items():
        group.add_argument(
            flag, action="store_true", default=argparse.SUPPRESS, help=text
        )
