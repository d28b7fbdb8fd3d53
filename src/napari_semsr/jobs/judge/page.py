"""Pictures and sentences of the page that ``semsr judge`` writes.

What the page says of them stands in ``report.html``, which lies beside this module.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import DB, Box, Micrograph, in_digits
from napari_semsr.reporting import (
    AGAINST_TRUTH,
    FrequencyCurve,
    curves_png,
    grey_limits,
    image_png,
    making,
    spread,
    write_page,
)

if TYPE_CHECKING:
    from napari_semsr.jobs.judge.job import Judged, JudgedPicture

_DETAIL_PX = 160  # side of a detail on the SEM image; chosen: pixels can be seen
_DETAILS = ((0.33, 0.25), (0.67, 0.75))  # fixed places, so that none is picked
_SEM = "SEM image"


@dataclass(slots=True)
class Pictures:
    """PNGs of an area and of details in it, all in the SEM image's grey levels."""

    sem: Micrograph
    wholes: dict[str, bytes] = field(default_factory=dict)
    details: list[dict[str, bytes]] = field(default_factory=list)
    limits: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self.limits = grey_limits(self.sem.array())
        self.details = [{} for _ in _DETAILS]

    def add(self, name: str, grey: NDArray[Any]) -> None:
        """Draw a picture whose grey levels were matched to those of the SEM image."""
        look: Any = {"limits": self.limits}
        pixel, shape = self.sem.pixel_size_nm, grey.shape
        self.wholes[name] = image_png(grey, pixel, width_px=640, **look)
        side = min(_DETAIL_PX, *shape)
        for drawn, (y, x) in zip(self.details, _DETAILS, strict=True):
            corner = round(y * (shape[0] - side)), round(x * (shape[1] - side))
            part = grey[Box.of((side, side), corner).slices]
            drawn[name] = image_png(part, pixel, width_px=400, **look)


def write_report(path: Path, result: "Judged", pictures: Pictures) -> None:
    """Write the page."""
    pictures.add(_SEM, pictures.sem.array())
    write_page(
        path,
        Path(__file__).with_name("report.html"),
        result=result,
        headline=[(f"{k}, PSNR", f"{_gain(row)}") for k, row in result.models.items()],
        verdict=_verdict(result),
        wholes=pictures.wholes,
        details=pictures.details,
        detail_px=_DETAIL_PX,
        curves=_curves(result),
        provenance=_provenance(result),
    )


def _verdict(result: "Judged") -> list[str]:
    """Say in sentences what was gained."""
    linear = next(iter(list(result.baselines.values())[1:]), None)
    said = []
    for name, row in result.models.items():
        gained = f"{name} brings the input {_gain(row)} nearer to the SEM image"
        if (row.psnr_gain_db or 0.0) <= 0:
            gained = f"{name} brings no gain: it is {_gain(row)} off the input's PSNR"
        if linear is not None and linear.psnr_gain_db is not None:
            gained += f"; the best linear filter gains {_gain(linear)}"
        said.append(f"{gained}.")
    off = result.registration
    if said and off["error_nm"] is not None:
        said.append(
            f"The map between both is expected to be {in_digits(off['error_nm'])} nm "
            f"({off['error_px']:.2g} px) off."
        )
    return said


def _gain(row: "JudgedPicture") -> str:
    """Say a gain with its standard error."""
    return f"{spread((row.psnr_gain_db, row.psnr_gain_sd_db))} {DB}"


def _curves(result: "Judged") -> bytes:
    """Plot the correlation of every picture with the SEM image."""
    curves = [
        FrequencyCurve.of(row.name, row.frc, number)
        for number, row in enumerate(result.pictures)
    ]
    pixel = float(np.sqrt(np.prod(result.area["pixel_size_nm"])))
    return curves_png(curves, pixel, **AGAINST_TRUTH)


def _provenance(result: "Judged") -> list[tuple[str, object]]:
    """Tell what made the page: options, digests, versions."""
    made = result.provenance
    models = result.models.items()
    digests = [
        *((item.name, item.digest) for item in made.inputs),
        *((f"the model {k}", (row.model or {}).get("digest")) for k, row in models),
    ]
    return making(made.options, digests)
