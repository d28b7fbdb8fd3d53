"""A first guess of the field's radial distortion, from the overlaps.

Frames that are distorted by some per cent differ by many pixels within one overlap:
joints blur, and places are too far off for a linear fit. Here the overlaps of some
pairs are cut into blocks that are correlated one by one. A distortion moves their peaks
by a known pattern, and the one at which all add up best is the guess; the rest is found
together with the positions (`napari_semsr.stitching.refine.measure_rim`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_semsr.core import Box, Float32Array, FloatArray, IntPair, rim_displacement
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import overlap_boxes

_MOST = 0.1  # either way; chosen: three times what a microsphere is expected to have
_PAIRS = 12  # chosen: each says enough by itself, a dozen outvotes a foreign frame
_BLOCK = 32  # px; chosen: of 3 % at the rim, peaks blur by up to 3 px within a block
_BLOCKS = 24  # of a pair; chosen: more of a large frame say the same again
# Pixels at the rim; chosen: what is less is found with the positions, and noise moves
# the guess by about one.
_LEAST_PX = 2
# Of the mean gain of the pairs over none, in its standard deviations; chosen: pairs
# that disagree would cost a second search for nothing.
_SURE = 2.0
_LEAST_PAIRS = 3  # chosen: fewer have no scatter to speak of


def guess_distortion(
    prepared: CorrectedFrames, shifts: dict[IntPair, IntPair], reach: int
) -> float:
    """Distortion at which the overlaps of some pairs agree best; 0 for hardly any.

    `shifts`: whole-pixel shift of the second frame of a pair less that of the first,
    right to within `reach` px.
    """
    rim = min(prepared.frame_shape) / 2
    farthest = int(_MOST * rim)
    amounts = np.arange(-farthest, farthest + 1.0)
    chosen = list(shifts)[:: -(-len(shifts) // _PAIRS) or 1]
    if len(chosen) < _LEAST_PAIRS:
        return 0.0
    scores = np.array(
        [_score(prepared, pair, shifts[pair], reach, amounts) for pair in chosen]
    )
    best = int(np.argmax(scores.sum(axis=0)))
    gain = scores[:, best] - scores[:, farthest]
    sure = gain.mean() * np.sqrt(len(gain)) > _SURE * gain.std(ddof=1)
    if not sure or abs(amounts[best]) < _LEAST_PX:
        return 0.0
    return float(amounts[best] / rim)


def _score(
    prepared: CorrectedFrames,
    pair: IntPair,
    shift: IntPair,
    reach: int,
    amounts: FloatArray,
) -> FloatArray:
    """Best common correlation of a pair's blocks for each displacement of the rim."""
    shape = prepared.frame_shape
    boxes = overlap_boxes(shape, shift)
    if boxes is None or min(boxes[1].shape) < _BLOCK // 2:
        return np.zeros(len(amounts))
    corners, size = _blocks(boxes[1])
    y, x = (corners + (np.array(size) - 1) / 2).T
    there = np.stack(rim_displacement(y, x, shape))
    here = np.stack(rim_displacement(y + shift[0], x + shift[1], shape))
    # (amounts, blocks, 2)
    moves = np.rint(np.multiply.outer(amounts, (there - here).T)).astype(int)
    around = int(np.abs(moves).max()) + reach
    lags = _correlated(
        prepared.banded(pair[0]), prepared.banded(pair[1]), corners, size, shift, around
    )
    best = np.empty(len(amounts))
    for which, move in enumerate(moves):
        total = np.zeros((2 * reach + 1, 2 * reach + 1))
        for (y, x), lag in zip(move + around - reach, lags, strict=True):
            total += lag[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
        best[which] = total.max()
    return best


def _blocks(box: Box) -> tuple[NDArray[np.int64], IntPair]:
    """Corners, (B, 2), of blocks that fill a box evenly, and their common shape."""
    counts = [max(1, side // _BLOCK) for side in box.shape]
    size = (box.shape[0] // counts[0], box.shape[1] // counts[1])
    cells = np.indices(counts).reshape(2, -1).T
    corners = cells * np.array(size) + np.array((box.y0, box.x0))
    return corners[:: -(-len(corners) // _BLOCKS)], size


def _correlated(
    first: Float32Array,
    second: Float32Array,
    corners: NDArray[np.int64],
    size: IntPair,
    shift: IntPair,
    around: int,
) -> FloatArray:
    """Correlate blocks of the second frame with their surroundings in the first.

    Returns (B, 2 * around + 1, 2 * around + 1), lags from -`around` about `shift`.
    """
    padded = np.pad(first, around)
    shape = tuple(side + 2 * around for side in size)
    windows = np.zeros((len(corners), *shape), np.float32)
    blocks = np.zeros_like(windows)
    for window, block, (y, x) in zip(windows, blocks, corners, strict=True):
        block[: size[0], : size[1]] = second[y : y + size[0], x : x + size[1]]
        part = padded[y + shift[0] :, x + shift[1] :][: shape[0], : shape[1]]
        window[: part.shape[0], : part.shape[1]] = part
    power = np.sqrt(np.vdot(windows, windows) * np.vdot(blocks, blocks))
    fast = [fft.next_fast_len(side, real=True) for side in shape]
    spectra = fft.rfft2(windows, s=fast) * fft.rfft2(blocks, s=fast).conj()
    lags = fft.irfft2(spectra, s=fast)[:, : 2 * around + 1, : 2 * around + 1]
    return np.asarray(lags / max(float(power), 1e-30))
