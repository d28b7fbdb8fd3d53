"""What light says of the objects that an enhanced image shows.

Objects are pieces of the bright and dark parts of the image. With the network F from
SEM to light, and d, what an object adds to F of the image, light answers by alpha =
<light - F(image), d> / <d, d>: 0 if the object is there, -1 if it is not. Objects whose
alpha is below a quantile of that of real ones are contradicted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

Image = NDArray[np.floating]
Labels = NDArray[np.integer]
_LEVEL_PX, _FLOOR_PX, _PEAKS_PX, _HALF_PX = 12.0, 21, 3, 32
_LEAST = 0.1  # of the contrast, for a part to be bright or dark
_AT_ONCE = 64


def cut_pieces(image: Image) -> tuple[Labels, int]:
    """Label the bright pieces, then the dark ones; return the number of the former."""
    soft = ndimage.gaussian_filter(image, 1.0)
    lifted = soft - ndimage.gaussian_filter(image, _LEVEL_PX)
    least = _LEAST * float(np.diff(np.percentile(soft, (2, 98)))[0])
    labels, bright = np.zeros(image.shape, int), 0
    for sign in (1, -1):
        part = sign * lifted > least
        peaks = peak_local_max(
            sign * lifted, min_distance=_PEAKS_PX, labels=part, exclude_border=False
        )
        markers = np.zeros(image.shape, int)
        markers[tuple(peaks.T)] = np.arange(len(peaks)) + 1 + labels.max()
        bright = bright or len(peaks)
        labels += watershed(-sign * lifted, markers, mask=part)
    return labels, bright


def fill_pieces(image: Image, bright: int, labels: Labels) -> Image:
    """Give the level that each pixel has without its piece."""
    soft = ndimage.gaussian_filter(image, 1.0)
    low, high = (
        ndimage.gaussian_filter(rank(soft, _FLOOR_PX), 5.0)
        for rank in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return np.where(labels > bright, high, low)


def ask(
    light: Image,
    image: Image,
    predict: Callable[[Image], Image],
    pieces: tuple[Labels, int],
    chosen: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Return alpha of the chosen pieces; `predict` takes images (N, Y, X)."""
    labels, bright = pieces
    filled = fill_pieces(image, bright, labels)
    rest = light - predict(image[None])[0]
    boxes = ndimage.find_objects(labels)
    alphas = []
    for start in range(0, len(chosen), _AT_ONCE):
        planes, windows = [], []
        for number in chosen[start : start + _AT_ONCE]:
            corner = [
                int(np.clip((s.start + s.stop) // 2, _HALF_PX, n - _HALF_PX)) - _HALF_PX
                for s, n in zip(boxes[number - 1], image.shape, strict=True)
            ]
            window = tuple(slice(c, c + 2 * _HALF_PX) for c in corner)
            own = ndimage.gaussian_filter((labels[window] == number).astype(float), 0.7)
            planes += [image[window], image[window] + own * (filled - image)[window]]
            windows.append(window)
        found = predict(np.stack(planes).astype(np.float32)).astype(float)
        for window, change in zip(windows, found[::2] - found[1::2], strict=True):
            square = max(float((change**2).sum()), 1e-12)
            alphas.append(float((rest[window] * change).sum()) / square)
    return np.array(alphas)


def is_real(
    image: Image, truth: Image, pieces: tuple[Labels, int]
) -> NDArray[np.bool_]:
    """Check which pieces (N) the truth shows, too, with half of their contrast."""
    labels, bright = pieces
    filled, index = fill_pieces(image, bright, labels), np.arange(labels.max()) + 1
    change = image - filled
    own = ndimage.sum((truth - filled) * change, labels, index)
    return np.asarray(own >= ndimage.sum(change**2, labels, index) / 2)
