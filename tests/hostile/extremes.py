"""Whole images at the ends of what can be stored, to be given to every verb."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.hostile.commands import LINES

_SHAPE = (72, 80)


def _grey() -> NDArray[np.float32]:
    """Draw a pattern with noise."""
    noise = np.random.default_rng(0).integers(0, 20, _SHAPE)
    return (np.indices(_SHAPE).sum(0) % 17 * 10 + noise).astype(np.float32)


def _with(value: float, dtype: str = "f4") -> NDArray[Any]:
    """Draw the pattern with one other grey value."""
    made = _grey().astype(dtype)
    made[30, 40] = value
    return made


def _covered(share: float) -> NDArray[np.float32]:
    """Draw the pattern with so many of its pixels missing."""
    missing = np.random.default_rng(1).random(_SHAPE) < share
    return np.where(missing, np.float32(np.nan), _grey())


IMAGES: dict[str, Callable[[], NDArray[Any]]] = {
    "1x1": lambda: np.ones((1, 1), "u1"),
    "one-row": lambda: _grey()[:1].astype("u1"),
    "one-column": lambda: _grey()[:, :1].astype("u1"),
    "2x2": lambda: _grey()[:2, :2].astype("u1"),
    "8x8": lambda: _grey()[:8, :8],
    "constant": lambda: np.full(_SHAPE, 7, "u1"),
    "zero": lambda: np.zeros(_SHAPE, "f4"),
    "step": lambda: (np.indices(_SHAPE)[1] > 40).astype("u1") * 255,
    "spike": lambda: np.where(np.indices(_SHAPE).sum(0) == 70, 1e14, 0).astype("f4"),
    "nan": lambda: np.full(_SHAPE, np.nan, "f4"),
    "inf": lambda: np.full(_SHAPE, np.inf, "f4"),
    "one-nan": lambda: _with(np.nan),
    "one-inf": lambda: _with(np.inf),
    "one-low": lambda: _with(-np.inf, "f2"),
    "one-marked": lambda: _with(-3.4e38),
    "one-huge": lambda: _with(1e300, "f8"),
    "half-gone": lambda: np.where(np.indices(_SHAPE)[0] < 36, np.nan, _grey()),
    "mostly-gone": lambda: _covered(0.95),
    "huge": lambda: _grey() * np.float32(1e36),
    "tiny": lambda: _grey() * np.float32(1e-42),
    "negative": lambda: -_grey(),
    "bool": lambda: _grey() > 100,
    "int8": lambda: (_grey() / 2).astype("i1"),
    "int64": lambda: (_grey().astype("f8") * 1e15).astype("i8"),
    "uint64": lambda: (_grey().astype("f8") * 5e16).astype("u8"),
    "complex": lambda: (_grey() * (1 + 1j)).astype("c8"),
    "big-endian": lambda: _grey().astype(">u2"),
    "pages": lambda: np.stack([_grey().astype("u1")] * 3),
    "colour": lambda: np.stack([_grey(), _grey() + 9, _grey()], -1).astype("u1"),
    "alpha": lambda: np.stack([_grey(), *[_grey() + 9] * 3], -1).astype("u1"),
}
"""Images by name: sizes, values, types and axes of all kinds."""

_OPEN = ("models", "demo", "doctor", "train", "simulate")
VERBS = tuple(verb for verb in LINES if verb not in _OPEN)
"""Verbs whose lines name an image or a scan."""
_FIRST = {"first.tif", "grating.tif", "made.tif"}
_SECOND = {"second.tif", "truth.tif"}


def write_images(folder: Path) -> None:
    """Write all images, and of each a scan of two frames."""
    for name, make in IMAGES.items():
        image = make()
        colour = name in ("colour", "alpha")
        how: Any = {"photometric": "rgb" if colour else "minisblack"}
        tifffile.imwrite(folder / f"{name}.tif", image, **how)
        scan = folder / f"scan-{name}"
        scan.mkdir()
        cut = min(image.shape[:2]) > 40
        for index, part in enumerate((np.s_[:, :50], np.s_[:, 30:])):
            frame = image[part] if cut else image[..., ::-1] if index else image
            tifffile.imwrite(scan / f"f{index}.tif", frame, **how)


def lines(verb: str, image: str) -> list[list[str]]:
    """Give the lines of a verb in which an image is the first, the second, or both."""
    line = [f"scan-{image}" if word == "scan" else word for word in LINES[verb]]
    found = []
    for replaced in (_FIRST, _SECOND, _FIRST | _SECOND):
        words = [f"{image}.tif" if word in replaced else word for word in line]
        if words not in found:
            found.append(words)
    return found
