"""Pictures of `superlens.py`: examples, and depth of field."""

from pathlib import Path
from typing import Any

import numpy as np
from _shared import picture
from numpy.typing import NDArray

Image = NDArray[np.float64]
_COLOURS = {
    "optical": "tab:gray",
    "linear": "tab:blue",
    "stack": "tab:green",
    "enhanced": "tab:red",
    "truth": "black",
}


def draw_figures(
    folder: Path, name: str, result: dict[str, Any], shown: dict[str, dict[str, Image]]
) -> None:
    """Write the examples, and a picture of depth of field where it was measured."""
    _examples(folder / f"{name}-examples.jpg", shown)
    if "depth" in result:
        _depth(folder / f"{name}-depth.png", result["depth"])


def _examples(path: Path, shown: dict[str, dict[str, Image]]) -> None:
    """Optical, enhanced and electron image of a part of each sample."""
    names = ("optical", "enhanced", "truth")
    with picture(path, 3, len(shown), figsize=(2 * len(shown), 6.3)) as (_, axes):
        for column, (kind, images) in enumerate(shown.items()):
            for row, name in enumerate(names):
                image = images[name]
                rows = image.shape[0]
                part = image[rows // 4 : 3 * rows // 4, rows // 4 : 3 * rows // 4]
                low, high = np.percentile(part, (0.5, 99.5))
                axis = axes[row, column]
                axis.imshow(part, cmap="gray", vmin=low, vmax=high)
                axis.set_xticks([])
                axis.set_yticks([])
                if row == 0:
                    axis.set_title(kind, fontsize=8)
                if column == 0:
                    axis.set_ylabel("electron image" if name == "truth" else name)


def _depth(path: Path, found: dict[str, Any]) -> None:
    """Draw resolved gaps and cross-FRC against height."""
    at = [float(h) for h in found["heights"]]
    with picture(path, 1, 2, figsize=(8, 3.2)) as (_, axes):
        for name in found["range_nm"]:
            rows = [row[name] for row in found["heights"].values()]
            axes[0].plot(
                at, [r["resolved"] for r in rows], color=_COLOURS[name], label=name
            )
            axes[1].plot(
                at,
                [1e3 / r["resolution_nm"] if r["resolution_nm"] else 0 for r in rows],
                color=_COLOURS[name],
            )
        axes[0].set_ylabel("share of 100 nm gaps resolved")
        axes[1].set_ylabel("cross-FRC to the electron image (1/µm)")
        axes[1].axhline(5, color="k", lw=0.6, ls=":")
        for axis in axes:
            axis.set_xlabel("height above the focus (nm)")
        axes[0].legend(fontsize=7)
