"""Arguments that several verbs share: how to open an image, how to write one."""

import argparse
from collections.abc import Collection

from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.services.opening import OpenOptions

__all__ = ["add_image", "add_opening", "add_output", "add_second", "opening_from"]


def add_image(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add the positional path of an image.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The verb's parser.
    name : str
        Name of the argument, lower case; shown in capitals.
    text : str
        Its help.
    """
    parser.add_argument(name, metavar=name.upper(), type=_path, help=text)


def add_second(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add the positional path of a second image that may be left out.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The verb's parser.
    name : str
        Name of the argument, lower case; shown in capitals.
    text : str
        Its help.
    """
    parser.add_argument(name, metavar=name.upper(), type=_path, nargs="?", help=text)


def add_output(
    parser: argparse.ArgumentParser, text: str, *, required: bool = True
) -> None:
    """Add ``-o`` and ``--overwrite``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The verb's parser.
    text : str
        Help of the output.
    required : bool, default=True
        Whether the verb needs one.
    """
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=_path, required=required, help=text
    )
    add_overwrite(parser)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The verb's parser.
    """
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing output"
    )


def add_opening(
    parser: argparse.ArgumentParser, *, exclude: Collection[str] = ()
) -> None:
    """Add the flags that say how to read an image.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The verb's parser.
    exclude : collection of str, optional
        Fields of `OpenOptions` to leave out.
    """
    add_options(parser, OpenOptions, title="reading", exclude=exclude)


def opening_from(arguments: argparse.Namespace) -> OpenOptions:
    """Make reading options of what was typed.

    Parameters
    ----------
    arguments : argparse.Namespace
        Parsed arguments.

    Returns
    -------
    OpenOptions
        Validated.
    """
    return options_from(arguments, OpenOptions)


def _path(text: str) -> str:
    """Refuse an empty path, which would mean the current folder."""
    if not text.strip():
        msg = "a path must not be empty"
        raise argparse.ArgumentTypeError(msg)
    return text
