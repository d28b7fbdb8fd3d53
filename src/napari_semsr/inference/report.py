"""What a run of the engine says of itself; importable without torch."""

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

__all__ = ["EnhanceReport", "MemoryWatch"]

_PERIOD_S = 0.05


@dataclass(frozen=True, slots=True)
class EnhanceReport:
    """Figures of one run.

    Attributes
    ----------
    tiles : int
        Tiles of the field.
    resumed : int
        Those of them that an earlier run had finished.
    tile_px, halo_px : int
        Side of a core and context around it, in input pixels; in those of the model's
        grid where the result is left on it.
    seconds : float
        Time from the first look at the field to the last tile.
    megapixels_per_second : float
        Input pixels enhanced in this run, over `seconds`.
    peak_memory_mb : float
        Largest resident memory of this process during the run.
    device : str
        Where the network ran.
    precision : {"fp32", "bf16"}
        Its arithmetic.
    model : str
        Name of the model.
    norm : {"none", "exact", "frozen", "tile"}
        Where live normalisations took their statistics; ``none`` without such layers.
    tile_mismatch : float
        RMS difference between neighbouring tiles' predictions of the same pixels at
        their borders (up to 256 of each line), over the output's 1-99 % range
        (sampled); 0 where there is one tile.
    seam_index : float
        Mean absolute step across tile borders over that between the pixels one row
        further in; 1 where there is one tile. A report, not a proof.
    clipped : int
        Pixels that the output's type could not hold.
    haze_gain : tuple of float or None
        Least and largest gain that lifted haze; None when it was not looked for.
    seen_pixel_size_nm : tuple of float or None
        ``(y, x)`` pixel size that the network saw: the field's own, or the one that the
        field was resampled to; None when the field has none.
    norm_error : float or None
        Estimated root mean square error of ``frozen`` statistics, over the standard
        deviation of the output; None for other ways.
    notes : tuple of str
        What else the user should know: how it was run, memory that was short.
    """

    tiles: int
    resumed: int
    tile_px: int
    halo_px: int
    seconds: float
    megapixels_per_second: float
    peak_memory_mb: float
    device: str
    precision: str
    model: str
    norm: str
    tile_mismatch: float
    seam_index: float
    clipped: int
    haze_gain: tuple[float, float] | None = None
    seen_pixel_size_nm: tuple[float, float] | None = None
    norm_error: float | None = None
    notes: tuple[str, ...] = ()


class MemoryWatch:
    """Watch the resident memory of this process while a block runs.

    Attributes
    ----------
    peak_mb : float
        Largest value seen, in 10^6 bytes.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = 0.0
        self._first = 0

    @property
    def grown_bytes(self) -> int:
        """What this process holds now beyond what it held when the block began."""
        return max(0, int(self._process.memory_info().rss) - self._first)

    def _look(self) -> None:
        self.peak_mb = max(self.peak_mb, self._process.memory_info().rss / 1e6)

    def _watch(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self._look()

    def __enter__(self) -> Self:
        self._first = int(self._process.memory_info().rss)
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
