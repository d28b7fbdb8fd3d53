"""Describe a file."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core import (
    FLAT,
    Figure,
    Job,
    Micrograph,
    Options,
    Progress,
    ReadError,
    capture_warnings,
    format_pixel_size,
    format_shape,
    warn,
)
from napari_semsr.io import create_missing_file_error, describe, read
from napari_semsr.jobs.images import Result, to_json_value
from napari_semsr.jobs.verb import FileInput, Run, Verb, get_pixel_size_fields

_DECODED_FORMATS = ("TIFF", "PNG", "JPEG", "BMP")
_LARGEST_LOOK = 1 << 26  # px; chosen: images up to this size are read whole
_MAX_METADATA = 24  # entries in a summary; chosen: fits on a screen


@dataclass(frozen=True, slots=True)
class Description(Result):
    """Description of a file: shape, dtype, pixel size, vendor and metadata."""

    path: str
    facts: dict[str, Any] = field(metadata=FLAT)

    def figures(self) -> dict[str, Figure]:
        """Return the properties and the first metadata entries."""
        facts = dict(self.facts)
        metadata = facts.pop("metadata", None) or {}
        network, sd = facts.pop("network", None), facts.pop("pixel_size_sd_nm", None)
        rows = {"path": self.path}
        rows |= {"made by network": f"{network}: an estimate"} if network else {}
        for name, value in facts.items():
            rows[name] = "none" if value is None else str(value)
            if name == "pixel_size_nm":
                rows[name] = format_pixel_size(value, sd)
            elif name == "shape" and isinstance(value, list):
                rows[name] = format_shape(value)
        metadata_shown = list(metadata.items())[:_MAX_METADATA]
        rows |= {f"  {name}": str(value) for name, value in metadata_shown}
        if len(metadata) > len(metadata_shown):
            more = (
                f"{len(metadata) - len(metadata_shown)} more; use `json` to list them "
                "all"
            )
            rows["  and"] = more
        return {name: Figure(value) for name, value in rows.items()}


def _describe_file(run: Run[Options]) -> Job[Description]:
    """Describe a file without reading its pixels."""
    path = Path(run.parameters["path"])
    yield Progress(0, 1, f"reading {path.name}")
    if not path.exists():
        raise create_missing_file_error(path)
    facts = to_json_value(describe(path, dataset=run.opening.dataset))
    sentences = list(facts["metadata"].get("warnings", ()))
    with capture_warnings(sentences.append):
        facts |= _measure_printed_bar(path, facts)
    for sentence in dict.fromkeys(sentences):
        warn(sentence)
    if run.opening.pixel_size_nm is not None:
        image = Micrograph(np.zeros((1, 1))).calibrate(
            run.opening.pixel_size_nm, run.opening.pixel_size_sd_nm
        )
        facts |= to_json_value(get_pixel_size_fields(image))
        facts["pixel_size_from"] = image.pixel_size_from
    return Description(str(run.parameters["path"]), facts)


def _measure_printed_bar(path: Path, facts: dict[str, Any]) -> dict[str, float | None]:
    """Measure a printed scale bar if the file has no pixel size.

    Its label is not read: the keys for it are null.
    """
    from napari_semsr.analysis import find_scale_bar

    nothing: dict[str, float | None] = dict.fromkeys(
        ("suggested_bar_px", "suggested_label", "suggested_pixel_size_nm")
    )
    has_size = facts.get("pixel_size_nm") is not None
    if has_size or facts["format"] not in _DECODED_FORMATS:
        return nothing
    if math.prod(facts["stored_shape"]) > _LARGEST_LOOK:
        return nothing
    try:
        image = read(path, channel=0, plane=0, crop_databar=False, colour="luminance")
    except ReadError:
        return nothing  # the rest of the description is still returned
    bar = find_scale_bar(image.data)
    if bar is None:
        return nothing
    return {**nothing, "suggested_bar_px": bar.length_px}


INFO = Verb(
    "info",
    (),
    Options,
    Description,
    _describe_file,
    files=(
        FileInput(
            "path",
            "an image, an OME-Zarr store or a folder of frames",
            optional=False,
            metavar="PATH",
        ),
    ),
    not_read=(
        "series",
        "level",
        "channel",
        "time",
        "z",
        "plane",
        "crop_databar",
        "colour",
    ),
    example="""
    >>> image = semsr.Micrograph(np.eye(48, 64), (7.7, 7.7))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/field.ome.tif")
    ...     facts = semsr.info(f"{folder}/field.ome.tif").facts
    >>> facts["shape"], facts["dtype"], facts["pixel_size_nm"]
    ([48, 64], 'float64', [7.7, 7.7])
    """,
)
