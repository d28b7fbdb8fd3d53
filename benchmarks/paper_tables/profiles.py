"""Line profiles, grey levels and spectra of a superlens field, measured and drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _shared import picture
from _superlens_fields import chip
from numpy.typing import NDArray
from superlens import Judge, in_focus

from napari_semsr.analysis import compute_radial_spectrum
from napari_semsr.core import Micrograph
from paper_tables.lens import CHIP_PITCH_NM, CHIP_RELIEF_NM, matched, show

Image = NDArray[np.float64]
LINE_PX = 100
BINS = 52
INDEX = 90  # a chip that no other part judges, unless it has as many fields
_BESIDE = {"linear": "oracle linear filter", "optical": "optical image"}


def measure_profiles(
    judges: dict[str, Judge], say: Callable[[str], None]
) -> dict[str, Any]:
    """Take a line, the grey levels and the radial spectrum of each image of a chip.

    ``pixel_nm``, ``frequency_per_um``, and by image ``line`` (grey levels, matched to
    the truth), ``greys`` (shares of pixels in bins from 0 to 255) and ``spectrum``
    (power).
    """
    say("superlens, profiles")
    first = next(iter(judges.values()))
    surface = chip(CHIP_PITCH_NM, INDEX, CHIP_RELIEF_NM)
    shown = show(in_focus(surface, first, INDEX), judges)
    images: dict[str, Any] = {}
    frequency: Image = np.zeros(0)
    truth = matched(shown, "truth")[1]
    row, column = busiest(truth)
    for name in shown.images:
        image = matched(shown, name)[0]
        spectrum = compute_radial_spectrum(Micrograph(image, (shown.pixel_nm,) * 2))
        frequency = np.arange(1, len(spectrum.power) + 1) / len(spectrum.power) / 2
        counts, _ = np.histogram(image, BINS, (0, 255))
        images[name] = {
            "line": np.round(image[row, column : column + LINE_PX], 1).tolist(),
            "greys": np.round(counts / image.size, 5).tolist(),
            "spectrum": [float(f"{v:.4g}") for v in spectrum.power],
        }
    return {
        "pixel_nm": shown.pixel_nm,
        "frequency_per_um": (frequency * 1000 / shown.pixel_nm).tolist(),
        "images": images,
    }


def busiest(truth: Image) -> tuple[int, int]:
    """Find where a line of `LINE_PX` pixels crosses most edges of the truth.

    Row, and the column where it begins.
    """
    steps = np.abs(np.diff(truth, axis=1, prepend=truth[:, :1]))
    totals = np.cumsum(np.pad(steps, ((0, 0), (1, 0))), axis=1)
    found = totals[:, LINE_PX:] - totals[:, :-LINE_PX]
    row, column = np.unravel_index(int(np.argmax(found)), found.shape)
    return int(row), int(column)


def draw_profiles(path: Path, found: dict[str, Any]) -> None:
    """Draw them side by side."""
    with picture(path, 1, 3, dpi=90, figsize=(11, 3.4)) as (_, axes):
        bins = (np.arange(BINS) + 0.5) * 255 / BINS
        for name, one in found["images"].items():
            style = {"label": _BESIDE.get(name, name), "lw": 1.0}
            if name in ("truth", "optical"):
                style |= {"color": "k" if name == "truth" else "0.6", "lw": 1.6}
            at = np.arange(len(one["line"])) * found["pixel_nm"]
            axes[0].plot(at, one["line"], **style)
            axes[1].semilogy(bins, np.maximum(one["greys"], 1e-5), **style)
            axes[2].semilogy(found["frequency_per_um"], one["spectrum"], **style)
        axes[0].set_xlabel("along the line (nm)")
        axes[0].set_ylabel("grey level, matched")
        axes[1].set_xlabel("grey level, matched")
        axes[1].set_ylabel("share of pixels")
        axes[2].set_xlabel("spatial frequency (1/µm)")
        axes[2].set_ylabel("power")
        axes[2].legend(fontsize=6)
