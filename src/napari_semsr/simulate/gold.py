"""Gold on carbon, the SEM's resolution sample, at two magnifications.

The sample is what de Haan et al. [1]_ imaged: islands of gold of random size, packed
so that narrow gaps part them, on dark carbon. It is seen twice: at 7.1 nm per pixel,
and at 14.2 nm by a probe that is wider, in a scan whose rows jump a little and whose
pixels get few electrons. A pixel of the coarse image covers 2 x 2 of the fine one.

The fine image is free of noise unless it is asked for: truth to learn from and to be
judged by. (Theirs is a second scan, so that their errors hold its noise too.)

Contrast: gold emits more than carbon, flanks of islands more than their middles, grains
differ, and carbon has a faint mottle. Pitch, gaps, probe and dose are chosen so that
the coarse image, brought to the fine grid by cubic splines, misses about as many gaps,
and errs as much in their widths, as theirs (13.9 % and 3.8 nm): 13.6 % and 3.8 nm on
the 15283 gaps of the thirty fields of 224 px that they were tuned on, 14.4 % and 3.8 nm
on the 15696 of thirty others. From field to field the share goes from 8 to 20 %.

Seeds: what chooses a checkpoint is drawn by ``gold_rng("validation", index)``, what
compares models by ``gold_rng("judging", index)``: streams of chance of their own, which
no seed of training leads to.

.. [1] K. de Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from scipy import ndimage

from napari_semsr.core.errors import OptionError
from napari_semsr.core.options import Options
from napari_semsr.simulate.canvas import Canvas, Plane, cover
from napari_semsr.simulate.effects import drift, expose
from napari_semsr.simulate.islands import Islands, Packing, draw_islands

__all__ = [
    "COARSE_NM",
    "FINE_NM",
    "GoldOptions",
    "GoldPair",
    "gold_emission",
    "gold_pair_of",
    "gold_rng",
    "gold_truth",
    "random_gold_options",
    "random_gold_pair",
]

FINE_NM = 7.1
COARSE_NM = 2 * FINE_NM
_STREAMS = {"validation": 0x9E3779B97F4A7C15, "judging": 0xC2B2AE3D27D4EB4F}
_LEAST = {
    "pitch_nm": 60.0,
    "size_spread": 0.0,
    "edges": 0.0,
    "coarse_probe_nm": 0.0,
    "electrons": 1.0,
}
_TUNED = 0.5  # share of the tuned options among those to learn from
_VARIED = {
    "gap_nm": (7.0, 25.0),
    "gap_spread": (0.3, 0.7),
    "missing": (0.03, 0.4),
    "grains": (0.03, 0.35),
    "corner": (0.1, 0.3),
    "sidewall_nm": (8.0, 24.0),
    "line_jitter_px": (0.02, 0.2),
    "coarse_probe_nm": (8.5, 14.0),
    "electrons": (250.0, 6000.0),
}
_FWHM = 2 * np.sqrt(2 * np.log(2))
_LEAST_SIDE = 16
_PERCENTILES = (0.1, 99.9)


class GoldOptions(Options):
    """Sample, probe and dose; a range is drawn from anew for each field."""

    pitch_nm: tuple[float, float] = Field(
        default=(115.0, 270.0), description="mean distance of neighbouring islands"
    )
    size_spread: tuple[float, float] = Field(
        default=(0.3, 1.0), description="spread of the islands' sizes"
    )
    gap_nm: float = Field(default=9.4, gt=0, description="median width of the gaps")
    gap_spread: float = Field(
        default=0.63, ge=0, le=1.5, description="deviation of the width's logarithm"
    )
    touching: float = Field(
        default=0.02, ge=0, lt=1, description="share of borders without a gap"
    )
    missing: float = Field(
        default=0.2, ge=0, lt=1, description="share of cells without an island"
    )
    corner: float = Field(
        default=0.2, gt=0, le=1, description="rounding of corners, over the pitch"
    )
    sidewall_nm: float = Field(
        default=17.0, ge=0, description="width over which an island's flank falls"
    )
    edges: tuple[float, float] = Field(
        default=(0.2, 0.45), description="brightness added at an island's edge"
    )
    grains: float = Field(
        default=0.08, ge=0, lt=1, description="largest darkening of a grain"
    )
    fine_probe_nm: float = Field(
        default=8.5, ge=0, description="probe of the fine image, width at half maximum"
    )
    coarse_probe_nm: tuple[float, float] = Field(
        default=(8.5, 9.5), description="probe of the coarse image"
    )
    electrons: tuple[float, float] = Field(
        default=(1200.0, 2400.0),
        description="electrons of a white pixel of the coarse image",
    )
    fine_electrons: float = Field(
        default=0.0, ge=0, description="the same of the fine image; 0 for no noise"
    )
    line_jitter_px: float = Field(
        default=0.1, ge=0, description="deviation of the rows' jumps, coarse pixels"
    )
    drift_px: float = Field(
        default=0.0, ge=0, description="drift in the coarse scan, coarse pixels"
    )

    @field_validator("pitch_nm", "size_spread", "edges", "coarse_probe_nm", "electrons")
    @classmethod
    def _ordered(
        cls, value: tuple[float, float], info: ValidationInfo
    ) -> tuple[float, float]:
        """Keep ranges in order and within what can be drawn."""
        least = _LEAST[info.field_name or ""]
        if not least <= value[0] <= value[1]:
            msg = f"needs two numbers in order, {least:g} or more, got {value}"
            raise ValueError(msg)
        return value


@dataclass(frozen=True, slots=True)
class GoldPair:
    """One field at two magnifications.

    Attributes
    ----------
    low : (S, S) numpy.ndarray of float32
        Coarse image; its percentiles 0.1 and 99.9 are 0 and 1.
    high : (2 S, 2 S) numpy.ndarray of float32
        Fine image on the same grey scale. Pixel ``(i, j)`` of `low` covers rows
        ``2 i, 2 i + 1`` and columns ``2 j, 2 j + 1``.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def gold_rng(
    purpose: Literal["validation", "judging"], index: int
) -> np.random.Generator:
    """Source of chance for a field that trains nothing.

    Parameters
    ----------
    purpose : {"validation", "judging"}
        Whether it chooses a checkpoint, or compares finished models.
    index : int
        Which field, from 0.

    Returns
    -------
    numpy.random.Generator
        The same for the same arguments.
    """
    return np.random.default_rng([index, _STREAMS[purpose]])


def random_gold_options(rng: np.random.Generator) -> GoldOptions:
    """Draw a sample and a probe to learn from, over more than the tuned ranges.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the choice.

    Returns
    -------
    GoldOptions
        In half of the draws the tuned ones; else other sizes, gaps, bare patches,
        flanks, grains, wider coarse probes, fewer or more electrons. The probe of the
        fine image stays: it says how sharp a result should be.
    """
    if rng.random() < _TUNED:
        return GoldOptions()
    drawn = {name: _between(rng, *ends) for name, ends in _VARIED.items()}
    probe, dose = drawn.pop("coarse_probe_nm"), drawn.pop("electrons")
    return GoldOptions.parse(
        drawn
        | {
            "pitch_nm": (80.0, 350.0),
            "edges": (0.0, 0.7),
            "coarse_probe_nm": (probe, probe),
            "electrons": (dose, dose),
        }
    )


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw log-uniformly."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_gold_pair(
    side: int, rng: np.random.Generator, options: GoldOptions | None = None
) -> GoldPair:
    """Draw a random field and look at it twice.

    Parameters
    ----------
    side : int
        Rows and columns of the coarse image.
    rng : numpy.random.Generator
        Source of every random choice.
    options : GoldOptions, optional
        Sample, probe and dose.

    Returns
    -------
    GoldPair
        The coarse image and the fine one.

    Raises
    ------
    OptionError
        If the side is below 16 px.
    """
    chosen = options or GoldOptions()
    return gold_pair_of(gold_emission(side, rng, chosen), rng, chosen)


def gold_emission(
    side: int, rng: np.random.Generator, options: GoldOptions | None = None
) -> Plane:
    """Draw what a random field emits, before anything looks at it.

    Parameters
    ----------
    side : int
        Rows and columns of the coarse image.
    rng : numpy.random.Generator
        Source of every random choice.
    options : GoldOptions, optional
        Sample.

    Returns
    -------
    (2 side, 2 side) numpy.ndarray of float32
        Gold near 0.8, carbon near 0.1, on the fine grid.

    Raises
    ------
    OptionError
        If the side is below 16 px.
    """
    if side < _LEAST_SIDE:
        msg = f"A field of gold must be at least {_LEAST_SIDE} px wide, got {side}."
        raise OptionError(msg)
    return _emission(2 * side, options or GoldOptions(), rng)


def gold_truth(emitted: Plane, options: GoldOptions | None = None) -> Plane:
    """See an emission through the fine probe, without noise.

    Parameters
    ----------
    emitted : (Y, X) numpy.ndarray of float32
        Of `gold_emission`.
    options : GoldOptions, optional
        Probe.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        On the scale of the emission.
    """
    return _probed(emitted, (options or GoldOptions()).fine_probe_nm)


def gold_pair_of(
    emitted: Plane, rng: np.random.Generator, options: GoldOptions | None = None
) -> GoldPair:
    """Look twice at a given emission.

    Parameters
    ----------
    emitted : (2 S, 2 S) numpy.ndarray of float32
        Of `gold_emission`.
    rng : numpy.random.Generator
        Source of probe, jitter and noise.
    options : GoldOptions, optional
        Probe and dose.

    Returns
    -------
    GoldPair
        The coarse image and the fine one.
    """
    chosen = options or GoldOptions()
    side = emitted.shape[0] // 2
    high = gold_truth(emitted, chosen)
    wide = _probed(emitted, rng.uniform(*chosen.coarse_probe_nm))
    low = wide.reshape(side, 2, side, 2).mean((1, 3)).astype(np.float64)
    if chosen.drift_px > 0 or chosen.line_jitter_px > 0:
        low, _ = drift(low, chosen.drift_px, chosen.line_jitter_px, rng)
    dose = np.exp(rng.uniform(*np.log(chosen.electrons)))
    low = expose(low, dose, 0.0, rng)
    if chosen.fine_electrons > 0:
        exposed = expose(high.astype(np.float64), chosen.fine_electrons, 0.0, rng)
        high = exposed.astype(np.float32)
    bottom, top = np.percentile(low, _PERCENTILES)
    span = max(top - bottom, 1e-6)
    return GoldPair(
        ((low - bottom) / span).astype(np.float32),
        ((high - bottom) / span).astype(np.float32),
    )


def _probed(emitted: Plane, fwhm_nm: float) -> Plane:
    """See an emission on the fine grid through a Gaussian probe."""
    sigma = fwhm_nm / _FWHM / FINE_NM
    seen = ndimage.gaussian_filter(emitted, sigma, mode="mirror", truncate=3.0)
    return np.asarray(seen, dtype=np.float32)


def _packing(options: GoldOptions, rng: np.random.Generator) -> Packing:
    """Draw how the islands of one field lie."""
    pitch = float(np.exp(rng.uniform(*np.log(options.pitch_nm))))
    return Packing(
        pitch_nm=pitch,
        size_spread=float(rng.uniform(*options.size_spread)),
        gap_nm=options.gap_nm,
        gap_spread=options.gap_spread,
        touching=options.touching,
        missing=options.missing,
        corner_nm=options.corner * pitch,
        crooked_nm=0.06 * pitch,
    )


def _emission(side: int, options: GoldOptions, rng: np.random.Generator) -> Plane:
    """Emission of a random sample on the fine grid, gold near 0.8, carbon near 0.1."""
    islands = draw_islands(side, FINE_NM, _packing(options, rng), rng)
    canvas = Canvas((side, side), FINE_NM, 0.0)
    gold = _gold(islands, options, rng)
    inside = cover(-islands.depth_nm, options.sidewall_nm, FINE_NM)
    ground = rng.uniform(0.06, 0.16) * (1 + 0.15 * canvas.rough(30.0, rng))
    return np.asarray(ground + (gold - ground) * inside, dtype=np.float32)


def _gold(islands: Islands, options: GoldOptions, rng: np.random.Generator) -> Plane:
    """Brightness of the islands: grains, bright edges."""
    decay = rng.uniform(6.0, 16.0)
    edge = np.exp(np.minimum(-islands.depth_nm / np.float32(decay), 0))
    grain = 1 - options.grains * islands.grain
    lit = 0.75 * grain * (1 + rng.uniform(*options.edges) * edge)
    return np.asarray(lit, dtype=np.float32)
