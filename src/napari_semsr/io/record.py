"""What this package writes beside the pixels, in every format it can write.

The record carries what a format itself cannot hold exactly: name, pixel size to
the last digit, origin, and the provenance. It is one JSON object.
"""

import json
from dataclasses import dataclass
from typing import Any

from napari_semsr.core import (
    Micrograph,
    OptionError,
    PixelSize,
    Provenance,
    parse_pixel_size,
)

RECORD_KEY = "napari-semsr"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """Name, calibration and history of an image."""

    name: str  # What the image was called
    pixel_size_nm: PixelSize | None  # ``(y, x)`` exactly as it was
    origin: tuple[float, float]  # As in `Micrograph`
    spacing_px: tuple[float, float]  # As in `Micrograph`
    provenance: Provenance | None  # What made the image

    def to_dict(self) -> dict[str, Any]:
        """Make the JSON object."""
        made = None
        size = None if self.pixel_size_nm is None else list(self.pixel_size_nm)
        if self.provenance is not None:
            made = self.provenance.model_dump(mode="json")
        return {
            "record": _FORMAT,
            "name": self.name,
            "pixel_size_nm": size,
            "origin": list(self.origin),
            "spacing_px": list(self.spacing_px),
            "provenance": made,
        }

    def to_json(self) -> str:
        """Make one line of ASCII JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> "Record | None":
        """Read a record back."""
        try:
            return cls.from_dict(json.loads(text))
        except ValueError:
            return None

    @classmethod
    def from_dict(cls, values: object) -> "Record | None":
        """Read a record from a JSON object."""
        if not isinstance(values, dict) or values.get("record") != _FORMAT:
            return None
        try:
            made = values.get("provenance")
            origin, spacing = values["origin"], values["spacing_px"]
            return cls(
                name=str(values["name"]),
                pixel_size_nm=parse_pixel_size(values["pixel_size_nm"]),
                origin=(float(origin[0]), float(origin[1])),
                spacing_px=(float(spacing[0]), float(spacing[1])),
                provenance=None if made is None else Provenance.model_validate(made),
            )
        except (LookupError, TypeError, ValueError, OptionError):
            return None


def record_of(image: Micrograph) -> Record:
    """Collect what must be written beside the pixels of an image."""
    return Record(
        name=image.name,
        pixel_size_nm=image.pixel_size_nm,
        origin=image.origin,
        spacing_px=image.spacing_px,
        provenance=image.provenance,
    )
