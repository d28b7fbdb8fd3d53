"""Read the number that a microscope printed beside its scale bar.

A line of print near the bar is read by a small network of three convolutions along the
line, run here in NumPy; ``scripts/teach_scale_label.py`` makes its weights anew. What
it reads must be a length as bars have it, and must be read three times alike.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.scale_bar import ScaleBar
from napari_semsr.core import Box, read_box

CHARACTERS = "0123456789.nmµu?"
"""What the network tells apart; ``?`` is anything else. Ground comes before them."""

LINE_PX = 24
"""Rows of a line as the network sees it."""

_INKS = (18, 20, 22)  # rows that the print takes of these, one reading each
_INK = 0.5  # of the way from the ground to the bar: print
_EVEN = 0.12  # of that way: so little the ground departs from itself
_ROW = 0.25  # least part of a row of a data bar that is ground
_FAR = 2.5  # line heights between a bar and its number, at most; chosen
_SPACE = 0.9  # of the line height: letters this far apart are of two texts; chosen
_REACH = 0.12  # of the width of the image: where print is looked for
_TALLEST, _LEAST = 0.06, 6  # of the height of the image, and px, of a letter
_RIM = 2  # px that a bar's soft rim is wide
_SURE = 0.8  # least share of the network's belief for each character; chosen
_LENGTH = re.compile(r"(\d{1,4}(?:\.\d{1,2})?)(nm|µm|um|mm)")
_NM = {"nm": 1.0, "µm": 1e3, "um": 1e3, "mm": 1e6}
_COARSEST_NM = 1e4  # a pixel; a working distance in mm is no bar's number
_DIGITS = 2  # of a bar's number but zeros: 250, 1.5
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScaleLabel:
    """What is printed beside a scale bar.

    Attributes
    ----------
    text : str
        As it is read, such as ``10 µm``.
    length_nm : float
        The length that it states.
    sure : float
        Least belief of the network in a character, 0 to 1.
    """

    text: str
    length_nm: float
    sure: float


def read_scale_label(image: Any, bar: ScaleBar) -> ScaleLabel | None:
    """Read the length that is printed beside a bar.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray or dask.array.Array
        Grey values; only the surroundings of the bar are read.
    bar : ScaleBar
        As `find_scale_bar` found it in this image.

    Returns
    -------
    ScaleLabel or None
        None where no length is read, where it is read with doubt, or where two
        different ones stand near.
    """
    part, inner = _surroundings(image, bar)
    found = {}
    for line in _lines(part, inner, image.shape[0]):
        label = _read(line)
        if label is not None and label.length_nm / bar.length_px <= _COARSEST_NM:
            found[label.length_nm] = label
    return found.popitem()[1] if len(found) == 1 else None


def _surroundings(image: Any, bar: ScaleBar) -> tuple[Float32, Box]:
    """Cut what is near a bar, the ground 0 and the bar 1; where the bar lies in it."""
    height, width = image.shape
    y0, x0, y1, x1 = bar.box
    reach = max(48, round(_REACH * width))
    up = max(32, round(_REACH * height))
    box = Box(max(0, y0 - up), min(height, y1 + up), max(0, x0 - reach), 0)
    box = Box(box.y0, box.y1, box.x0, min(width, x1 + reach))
    part = np.nan_to_num(np.asarray(read_box(image, box), dtype=np.float32))
    inner = Box(y0 - box.y0, y1 - box.y0, x0 - box.x0, x1 - box.x0)
    row = part[inner.y0 : inner.y1, inner.x0 : inner.x1]
    ink = float(row.max() if bar.light else row.min())
    ground = float(
        np.median(part[max(0, inner.y0 - 3) : inner.y1 + 3, inner.x0 : inner.x1])
    )
    span = ink - ground if ink != ground else 1.0
    return np.clip((part - ground) / span, 0.0, 1.0).astype(np.float32), inner


@dataclass(frozen=True, slots=True)
class _Piece:
    """A connected piece of print."""

    y0: int
    y1: int
    x0: int
    x1: int


def _lines(part: Float32, inner: Box, whole: int) -> Iterator[Float32]:
    """Give the lines of print that may be a bar's number, from left to right."""
    from scipy import ndimage

    quiet = (part <= _EVEN).mean(axis=1) >= _ROW  # no specimen
    labels, _ = ndimage.label((part > _INK) & quiet[:, None], np.ones((3, 3)))
    tallest = max(24, round(_TALLEST * whole))
    pieces = []
    for rows, columns in ndimage.find_objects(labels):
        piece = _Piece(rows.start, rows.stop, columns.start, columns.stop)
        if piece.y1 - piece.y0 <= tallest and not _of_bar(piece, inner):
            pieces.append(piece)
    for texts in _texts(pieces):
        box = _Piece(
            min(one.y0 for one in texts),
            max(one.y1 for one in texts),
            min(one.x0 for one in texts),
            max(one.x1 for one in texts),
        )
        if box.y1 - box.y0 >= _LEAST and _is_near(box, inner):
            yield part[box.y0 : box.y1, box.x0 : box.x1]


def _of_bar(piece: _Piece, inner: Box) -> bool:
    """Whether a piece is the bar itself, or a part of a broken one."""
    flat = piece.y0 >= inner.y0 - _RIM and piece.y1 <= inner.y1 + _RIM
    inside = piece.x0 >= inner.x0 - _RIM and piece.x1 <= inner.x1 + _RIM
    wide = piece.x1 - piece.x0 > 3 * (piece.y1 - piece.y0)
    at_end = piece.x0 <= inner.x0 + _RIM or piece.x1 >= inner.x1 - _RIM
    return flat and inside and (wide or at_end)


def _texts(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Join letters that stand on one line, close to each other."""
    texts: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda one: one.x0):
        best = None
        for text in texts:
            top, bottom = min(p.y0 for p in text), max(p.y1 for p in text)
            tall = max(bottom - top, piece.y1 - piece.y0)
            gap = piece.x0 - max(p.x1 for p in text)
            shared = min(bottom, piece.y1) - max(top, piece.y0)
            if shared >= 0.5 * min(bottom - top, piece.y1 - piece.y0) and (
                gap <= _SPACE * tall
            ):
                best = text
        if best is None:
            texts.append([piece])
        else:
            best.append(piece)
    return texts


def _is_near(box: _Piece, inner: Box) -> bool:
    """Whether a text belongs to a bar: above, below, beside it, or in its gap."""
    tall = box.y1 - box.y0
    across = max(box.x0 - inner.x1, inner.x0 - box.x1, 0)
    along = max(box.y0 - inner.y1, inner.y0 - box.y1, 0)
    return along <= _FAR * tall and across <= _FAR * tall


def _read(line: Float32) -> ScaleLabel | None:
    """Read a line three times, at three sizes; None where that is no length."""
    texts, sure = set(), 1.0
    for ink in _INKS:
        text, belief = _spelt(as_line(line, ink))
        texts.add(text)
        sure = min(sure, belief)
    if len(texts) > 1 or sure < _SURE:
        return None
    match = _LENGTH.fullmatch(texts.pop())
    if match is None:
        return None
    number = match[1].replace(".", "").strip("0")
    if not number or len(number) > _DIGITS:
        return None
    text = f"{match[1]} {match[2].replace('um', 'µm')}"
    return ScaleLabel(text, float(match[1]) * _NM[match[2]], round(sure, 3))


def as_line(print_: Float32, ink: int) -> Float32:
    """Bring a line of print to the size that the network sees.

    Parameters
    ----------
    print_ : (Y, X) numpy.ndarray
        Print 1 on ground 0, cut to what is printed.
    ink : int
        Rows that it takes afterwards.

    Returns
    -------
    (24, X) numpy.ndarray
        With ground around.
    """
    from PIL import Image

    width = max(2, round(print_.shape[1] * ink / print_.shape[0]))
    size = (width, ink)
    image = Image.fromarray(np.ascontiguousarray(print_, dtype=np.float32))
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    above = (LINE_PX - ink) // 2
    return np.pad(small, ((above, LINE_PX - ink - above), (6, 6)))


def _spelt(line: Float32) -> tuple[str, float]:
    """Spell a line; the least belief in a character of it."""
    belief = _beliefs(line)
    best = belief.argmax(axis=1)
    text, sure, last, peak = "", 1.0, 0, 0.0
    for column, which in enumerate([*best.tolist(), 0]):
        if which != last:
            if last:
                text += CHARACTERS[last - 1]
                sure = min(sure, peak)
            last, peak = which, 0.0
        if which:
            peak = max(peak, float(belief[column, which]))
    return text, sure


def _beliefs(line: Float32) -> Float32:
    """Run the network: (pairs of columns, ground and characters)."""
    known = line
    weights = _weights()
    layers = sorted(name for name in weights if name.startswith("w"))
    for name in layers:
        kernel, offset = weights[name], weights["b" + name[1:]]
        reach = kernel.shape[2] // 2
        padded = np.pad(known, ((0, 0), (reach, reach)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2], axis=1)
        known = np.tensordot(kernel, seen, axes=([1, 2], [0, 2])) + offset[:, None]
        if name != layers[-1]:
            known = np.maximum(known, 0)
        if name == layers[0]:  # pairs of columns: later layers see twice as far
            even = known[:, : known.shape[1] // 2 * 2]
            known = np.maximum(even[:, ::2], even[:, 1::2])
    odds = np.exp(known - known.max(axis=0))
    found: Float32 = (odds / odds.sum(axis=0)).T
    return found


@cache
def _weights() -> dict[str, Float32]:
    """Load kernels (out, in, columns) and offsets."""
    place = files("napari_semsr.analysis").joinpath("scale_label.npz")
    with place.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}
