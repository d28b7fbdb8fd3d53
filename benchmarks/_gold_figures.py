"""Figures of ``benchmarks/gold.py``: fields and spectra."""

from pathlib import Path
from typing import Any

import numpy as np
from _shared import picture
from numpy.typing import NDArray

from napari_semsr.simulation.gold import GoldPair

Image = NDArray[np.float64]
CROP = 96  # fine pixels


def draw_fields(path: Path, pair: GoldPair, made: dict[str, Image]) -> None:
    """Show a corner of the first field as every method gives it, and the truth."""
    start = pair.high.shape[0] // 2 - CROP // 2
    part = (slice(start, start + CROP),) * 2
    coarse = np.kron(pair.low, np.ones((2, 2)))
    panels = {"14.2 nm pixels": coarse, **made, "truth, 7.1 nm": pair.high}
    columns = min(len(panels), 5)
    rows = -(-len(panels) // columns)
    size = {"figsize": (2.6 * columns, 2.8 * rows), "squeeze": False}
    with picture(path, rows, columns, **size) as (_, axes):
        for axis in axes.ravel():
            axis.axis("off")
        for axis, (name, image) in zip(axes.ravel(), panels.items(), strict=False):
            axis.imshow(
                image[part], cmap="gray", vmin=0, vmax=1.05, interpolation="nearest"
            )
            axis.set_title(name, fontsize=9)


def draw_spectra(
    path: Path,
    records: dict[str, dict[str, Any]],
    bands: tuple[tuple[float, float], ...],
) -> None:
    """Plot amplitudes over the truth's, and the correlation with the truth."""
    with picture(path, 1, 2, figsize=(9.5, 3.6), sharex=True) as (_, axes):
        for name, record in records.items():
            axes[0].semilogy(
                record["frequency_per_px"], record["amplitude"], label=name
            )
            axes[1].plot(record["frequency_per_px"], record["correlation"], label=name)
        axes[0].axhline(1, color="0.6", lw=0.8)
        axes[0].set_ylim(0.01, 3)
        axes[0].set_ylabel("amplitude over the truth's")
        axes[1].set_ylabel("correlation with the truth")
        for axis in axes:
            axis.set_xlabel("spatial frequency, per fine pixel")
            axis.axvline(bands[1][1], color="0.6", lw=0.8, ls="--")
        axes[1].legend(fontsize=7)
