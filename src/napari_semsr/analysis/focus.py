"""Detection of out-of-focus scans by their loss of fine detail.

The power of an image between 0.3 and 0.6 of the optical cut-off is compared with that
between 0.05 and 0.1 of it. Out of focus, the transfer function of a lens falls between
zero and the cut-off, but not at either end. For apertures from 0.9 to 1.8 the fall
depends only on the distance from the focus: 1 dB at half the depth of focus, 4 dB at
the depth of focus (where the circle that holds half of a point's light is sqrt(2) times
as wide as in focus), 7 dB at 1.3 times and more than 20 dB at twice the depth.

The fine detail of the sample itself is not known from one scan. Two references are
used: another scan of the same kind of sample, recorded in a model, and the smoothest
sample with sharp edges, whose power falls with the third power of the frequency. A scan
with less fine detail than the latter at the depth of focus is out of focus; one with
more may be too, without a warning.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy import fft

from napari_semsr.analysis.familiarity import create_damaged_card_error
from napari_semsr.analysis.light import find_cut_off
from napari_semsr.analysis.metrics import compute_psnr_gain
from napari_semsr.core import Box, FloatArray, Micrograph, read_box

FOCUS = "focus"
"""Key in the `training` entry of a model card for the falloff of fine detail in the
training scan.
"""

# in units of the optical cut-off; chosen: least and largest loss out of focus, above
# shading and below frequencies hidden by noise
_COARSE, _FINE, _NOISE = (0.05, 0.1), (0.3, 0.6), (1.1, 1.6)
# Falloff in dB, from the transfer function of a lens (tests/analysis/test_focus.py): of
# sharp edges at the depth of focus, and the increase at that depth for any sample
_SHARP_EDGES_DB, _DEPTH_DB = 32.5, 4.0
_SURE = 2.0  # standard errors by which the loss must exceed its limit
_MIN_DETAIL = 100.0  # power over that of noise; chosen: then the falloff is measurable
# side of a block in periods of the cut-off; chosen: two periods of the coarsest detail,
# which the window separates from the mean
_SIDE, _MIN_SIDE = 40.0, 28.0
_APART = 1.5  # smallest side of an image over that of a block: four distinct blocks
_MOST = 5  # blocks along an axis; chosen: half a second


@dataclass(frozen=True, slots=True)
class Falloff:
    """Falloff from coarse to fine detail in dB, with its standard error."""

    falloff_db: float
    error_db: float

    @classmethod
    def from_image(
        cls, image: Micrograph, cut_off_nm: float | None = None
    ) -> Self | None:
        """Measure the falloff of an image (Y, X); None if it cannot be determined.

        That is so without an optical cut-off or a pixel size, if pixels are too coarse
        to separate noise from detail, if a side is less than 42 periods of the cut-off,
        if gaps are everywhere, or without coarse detail above the noise. By default
        `cut_off_nm` is taken from the history.
        """
        cut_off, pixel = find_cut_off(image, cut_off_nm), image.pixel_size_nm
        if cut_off is None or pixel is None:
            return None
        px = cut_off / math.sqrt(pixel[0] * pixel[1])
        side = int(min(_SIDE * px, min(image.shape) / _APART))
        if side < _MIN_SIDE * px or px < 2 * _NOISE[1]:
            return None
        axes = (np.fft.fftfreq(side, size) for size in pixel)
        ring = np.hypot(*np.meshgrid(*axes, indexing="ij")) * cut_off
        rings = [(low <= ring) & (ring < high) for low, high in (_COARSE, _FINE)]
        quiet = (_NOISE[0] <= ring) & (ring < _NOISE[1])
        window = np.outer(*[np.hanning(side)] * 2)
        powers, noises = [], []
        starts: list[FloatArray] = []  # of blocks that overlap by half if possible
        for length in image.shape:
            count = min(_MOST, max(2, math.ceil(2 * (length - side) / side) + 1))
            starts.append(np.linspace(0, length - side, count).round())
        for y, x in itertools.product(*starts):
            box = Box.from_shape((side, side), (int(y), int(x)))
            block = np.asarray(read_box(image.data, box), dtype=np.float64)
            if np.isfinite(block).all():
                power = np.abs(fft.fft2((block - block.mean()) * window)) ** 2
                powers.append([power[band].mean() for band in rings])
                noises.append(power[quiet].mean())
        if len(powers) < 4:
            return None
        noise = float(np.mean(noises))
        coarse, fine = (np.array(powers) - noise).T
        if not coarse.mean() > _MIN_DETAIL * noise:
            return None
        # a signal below a tenth of the noise cannot be measured
        fine = fine + max(0.0, 0.1 * noise - float(fine.mean()))
        level, error = compute_psnr_gain(fine, coarse)
        return None if level is None or error is None else cls(level, error)

    def is_out_of_focus(self, place: "Falloff | None" = None) -> bool:
        """Check whether the scan is defocused by more than the depth of focus.

        `place`: falloff of a scan of the same kind of sample; by default the scan is
        compared with the smoothest sample with sharp edges, at the depth of focus.
        """
        if place is None:
            return self.falloff_db - _SURE * self.error_db > _SHARP_EDGES_DB
        error = math.hypot(self.error_db, place.error_db)
        return self.falloff_db - place.falloff_db - _SURE * error > _DEPTH_DB

    def to_json(self) -> dict[str, float]:
        """Return a JSON record for the model card."""
        return {name: round(value, 3) for name, value in asdict(self).items()}

    @classmethod
    def from_model_card(cls, training: Mapping[str, Any]) -> Self | None:
        """Read the record from a model card's `training` entry; None if absent.

        Raises a `CheckpointError` if the record is damaged.
        """
        record = training.get(FOCUS)
        if record is None:
            return None
        try:
            falloff = cls(float(record["falloff_db"]), float(record["error_db"]))
        except (TypeError, ValueError, KeyError) as error:
            raise create_damaged_card_error("the focus of its training area") from error
        return falloff
