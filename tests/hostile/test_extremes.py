"""Every verb takes or refuses, in a sentence, images at the ends of what is stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import napari_semsr as semsr
from tests.hostile.commands import LINES, put_back, say

pytestmark = pytest.mark.filterwarnings("ignore")
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
    "8x8": lambda: _grey()[:8, :8],
    "constant": lambda: np.full(_SHAPE, 7, "u1"),
    "step": lambda: (np.indices(_SHAPE)[1] > 40).astype("u1") * 255,
    "spike": lambda: np.where(np.indices(_SHAPE).sum(0) == 70, 1e14, 0).astype("f4"),
    "nan": lambda: np.full(_SHAPE, np.nan, "f4"),
    "inf": lambda: np.full(_SHAPE, np.inf, "f4"),
    "one-nan": lambda: _with(np.nan),
    "one-low": lambda: _with(-np.inf, "f2"),
    "one-marked": lambda: _with(-3.4e38),
    "one-huge": lambda: _with(1e300, "f8"),
    "half-gone": lambda: np.where(np.indices(_SHAPE)[0] < 36, np.nan, _grey()),
    "mostly-gone": lambda: _covered(0.95),
    "huge": lambda: _grey() * np.float32(1e36),
    "tiny": lambda: _grey() * np.float32(1e-42),
    "negative": lambda: -_grey(),
    "bool": lambda: _grey() > 100,
    "int64": lambda: (_grey().astype("f8") * 1e15).astype("i8"),
    "complex": lambda: (_grey() * (1 + 1j)).astype("c8"),
    "big-endian": lambda: _grey().astype(">u2"),
    "pages": lambda: np.stack([_grey().astype("u1")] * 3),
    "colour": lambda: np.stack([_grey(), _grey() + 9, _grey()], -1).astype("u1"),
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
        how: Any = {"photometric": "rgb" if name == "colour" else "minisblack"}
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


@pytest.mark.broad
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_takes_or_refuses_every_image(verb, place):
    write_images(place)
    whole = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for number, image in enumerate(IMAGES):
        words = lines(verb, image)  # in turns the first, the second, or both
        say(verb, *words[number % len(words)], "--json")
        put_back(place, whole)


@pytest.mark.parametrize("mark", [-3.4e38, 1e25])
def test_one_marked_pixel_moves_no_frame(mark, tmp_path):
    rng = np.random.default_rng(0)
    drawn = ndimage.gaussian_filter(rng.normal(size=(160, 220)), 2)
    drawn = 100 + 40 * drawn / drawn.std()
    marked = (drawn + rng.normal(0, 5, drawn.shape)).astype(np.float32)
    marked[80, 100] = mark
    places = []
    for name, missing in (("marked", mark), ("missing", np.nan)):
        drawn = np.where(marked == np.float32(mark), np.float32(missing), marked)
        (tmp_path / name).mkdir()
        for index, columns in enumerate((slice(0, 140), slice(80, 220))):
            tifffile.imwrite(tmp_path / name / f"f{index}.tif", drawn[:, columns])
        target = tmp_path / f"{name}.tif"
        made = semsr.stitch(tmp_path / name, target, grid=(1, 2), overlap=0.4)
        places.append(made.positions[1]["x_px"])
        assert np.nanmax(np.abs(semsr.read(target).array())) < 1e3
    assert places[0] == places[1] == pytest.approx(80, abs=0.1)
