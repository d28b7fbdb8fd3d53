"""Report page of an adapted model: its gain, invented objects, and scope."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import DB, Line, Plot
from napari_semsr.jobs.adapt.evaluate import ADAPTED_MODEL
from napari_semsr.jobs.adapt.look import compute_difference
from napari_semsr.jobs.adapt.train import SEM_IMAGE
from napari_semsr.jobs.check_record import LINEAR
from napari_semsr.reporting import (
    choose_grey_limits,
    draw_image_png,
    draw_plot_png,
    list_provenance,
    write_page,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_semsr.core import FloatPair
    from napari_semsr.jobs.adapt.job import Adapted

_WHOLE_PX, _DETAIL_PX = 480, 400
_DETAIL = 128  # side of the detail of the held-out part


def write_report(
    result: "Adapted",
    record: "Mapping[str, Any]",
    planes: "Mapping[str, NDArray[Any]]",
) -> None:
    """Write the report page from the record of the training and its images."""
    write_page(
        Path(result.report),
        Path(__file__).with_name("adapt.html"),
        result=result,
        held_out_shape=planes[SEM_IMAGE].shape,
        **draw_held_out_images(
            planes,
            record["pixel_size_nm"],
            record["curve"],
            result.held_out["linear_gain_db"],
        ),
        provenance=list_provenance(
            record["provenance"]["options"],
            [(one["name"], one["digest"]) for one in record["provenance"]["inputs"]],
        ),
    )


def draw_held_out_images(
    planes: "Mapping[str, NDArray[Any]]",
    pixel_size_nm: "FloatPair | None",
    curve: "Sequence[Mapping[str, Any]]",
    linear_gain_db: float | None,
) -> dict[str, Any]:
    """Draw the held-out part of an area: `wholes`, `details` and the `curve`.

    `planes` are the evaluated images of that part in the grey levels of the SEM image,
    by name, and the SEM image; `curve` has the gain of the training over its time.
    `look_here` shows where the model and the linear filter differ.
    """
    limits, pixel = choose_grey_limits(planes[SEM_IMAGE]), pixel_size_nm
    shape = planes[SEM_IMAGE].shape
    rows, columns = (min(_DETAIL, n) for n in shape)
    y, x = ((n - side) // 2 for n, side in zip(shape, (rows, columns), strict=True))

    def draw_plane(plane: Any, width_px: int) -> bytes:
        return draw_image_png(plane, pixel, limits=limits, width_px=width_px)

    differs = compute_difference(planes[ADAPTED_MODEL], planes[LINEAR])
    differs_png = draw_image_png(
        differs, pixel, limits=(0.0, float(differs.max()) or 1.0), width_px=_WHOLE_PX
    )
    curve_png = None
    rows_measured = [row for row in curve if row["gain_db"] is not None]
    if len(rows_measured) >= 2:
        seconds, gains = (
            np.array([row[name] for row in rows_measured])
            for name in ("seconds", "gain_db")
        )
        linear = np.full(2, linear_gain_db or np.nan)
        lines = (
            Line(ADAPTED_MODEL, seconds, gains),
            Line(LINEAR, seconds[[0, -1]], linear, kind="threshold"),
        )
        curve_png = draw_plot_png(Plot("Training", "time (s)", f"gain ({DB})", lines))
    return {
        "look_here": differs_png,
        "wholes": {
            name: draw_plane(plane, _WHOLE_PX) for name, plane in planes.items()
        },
        "details": {
            name: draw_plane(plane[y : y + rows, x : x + columns], _DETAIL_PX)
            for name, plane in planes.items()
        },
        "curve": curve_png,
    }
