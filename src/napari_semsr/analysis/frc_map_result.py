"""What a map of local resolution holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.criteria import REASONS
from napari_semsr.core.micrograph import Micrograph

__all__ = ["Float32Array", "FrcMap"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrcMap:
    """Local resolution over a field.

    Attributes
    ----------
    map : Micrograph
        Resolution of each block, float32, in nm (in px when uncalibrated), filled if
        that was asked for; its pixel size is the step, its origin the centre of the
        first block.
    measured : (Y, X) numpy.ndarray of float32
        The same before filling: NaN where there is no crossing.
    filled : (Y, X) numpy.ndarray of bool
        Blocks whose number in `map` comes from a neighbour.
    reasons : (Y, X) numpy.ndarray of uint8
        0 where there is a crossing, else the place in `reason_names` plus one.
    reason_names : tuple of str
        The closed list of reasons.
    relative_sd : (Y, X) numpy.ndarray of float32
        Standard deviation of the resolution's logarithm.
    block, step : int
        Side of a block and distance between blocks, px.
    unit : str
        ``nm`` or ``px``: unit of `map`.
    method : str
        What was done, in words.
    field_reason : str or None
        Shared noise that is seen in all blocks pooled, although single blocks may be
        too small to show it; None when there is none.
    """

    map: Micrograph
    measured: Float32Array
    filled: NDArray[np.bool_]
    reasons: NDArray[np.uint8]
    relative_sd: Float32Array
    block: int
    step: int
    unit: str
    method: str
    field_reason: str | None = None
    reason_names: tuple[str, ...] = REASONS

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.reasons.size)

    @property
    def failed(self) -> int:
        """Number of blocks without a crossing."""
        return int(np.count_nonzero(self.reasons))

    @property
    def reason_counts(self) -> dict[str, int]:
        """Blocks for each reason that occurs."""
        counts = np.bincount(self.reasons.ravel(), minlength=len(REASONS) + 1)[1:]
        return {name: int(n) for name, n in zip(REASONS, counts, strict=True) if n}

    def percentile(self, share: float) -> float | None:
        """Percentile of the measured resolutions, blocks without one left out.

        Parameters
        ----------
        share : float
            Percentile in [0, 100].

        Returns
        -------
        float or None
            Resolution in `unit`; None when every block failed.
        """
        kept = self.measured[np.isfinite(self.measured)]
        return float(np.percentile(kept, share)) if kept.size else None

    def _nm(self, share: float) -> float | None:
        return self.percentile(share) if self.unit == "nm" else None

    @property
    def median_nm(self) -> float | None:
        """Median resolution in nm; None when uncalibrated or all blocks failed."""
        return self._nm(50)

    @property
    def p10_nm(self) -> float | None:
        """Tenth percentile in nm: the finest places."""
        return self._nm(10)

    @property
    def p90_nm(self) -> float | None:
        """Ninetieth percentile in nm: the coarsest places."""
        return self._nm(90)
