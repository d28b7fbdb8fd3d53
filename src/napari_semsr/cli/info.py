"""``semsr info PATH``: what a file is."""

import argparse

from napari_semsr.cli import text
from napari_semsr.cli.arguments import add_options, options_from
from napari_semsr.cli.inputs import add_image
from napari_semsr.cli.verb import Verb
from napari_semsr.core.progress import Job
from napari_semsr.services.describe import Description, describe
from napari_semsr.services.opening import OpenOptions

__all__ = ["VERB"]

_NOT_USED = {"series", "level", "channel", "plane", "crop_databar", "colour"}
_MOST_METADATA = 24


def _configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_image(parser, "path", "an image, an OME-Zarr store or a folder of frames")
    add_options(parser, OpenOptions, title="reading", exclude=_NOT_USED)


def _start(arguments: argparse.Namespace) -> Job[Description]:
    """Make the job."""
    return describe(arguments.path, options=options_from(arguments, OpenOptions))


def _summarise(result: Description) -> str:
    """Say what the file is."""
    facts = dict(result.facts)
    metadata = facts.pop("metadata", None) or {}
    rows = [("path", result.path)]
    rows += [(name, _value(name, value)) for name, value in facts.items()]
    rows += [(f"  {name}", str(value)) for name, value in list(metadata.items())][
        :_MOST_METADATA
    ]
    hidden = len(metadata) - _MOST_METADATA
    more = f"\n  and {hidden} more; --json shows all" if hidden > 0 else ""
    return text.columns(rows) + more


def _value(name: str, value: object) -> str:
    """Say one fact."""
    if name == "pixel_size_nm":
        return text.pixel_size(value if isinstance(value, list) else None)
    if isinstance(value, list) and name == "shape":
        return text.shape(value)
    return "none" if value is None else str(value)


VERB = Verb(_configure, _start, _summarise)
