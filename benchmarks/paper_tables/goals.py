"""What was aimed for, beside what was measured: the page's first table."""

from collections.abc import Iterator
from typing import Any

from paper_tables.markdown import DASH, paragraphs, table
from paper_tables.theirs import GAO_TABLE_1, HAAN, SUN_GAIN_DB

__all__ = ["goals"]

_HEAD = """
## What was aimed for

Gains in matched PSNR. The oracle is the best linear filter of that very image, in
hindsight.
"""
_HALF = 0.5
_BLIND_SHARE = 0.8
_SSUM_GAIN_DB, _SSUM_SSIM, _SSUM_RATIO = 4.0, 0.15, 1.3

Row = tuple[str, str, str, bool]


def goals(results: dict[str, Any], *, narrow: bool) -> str:
    """Write what was aimed for, what was measured, and whether that is enough.

    Parameters
    ----------
    results : dict
        What was measured, by part.
    narrow : bool
        Whether the trained models are short forms, of which less is asked.
    """
    rows = [
        [what, wanted, got, "yes" if reached else "no"]
        for what, wanted, got, reached in _all(results, narrow)
    ]
    if not rows:
        return ""
    return paragraphs(_HEAD, table(("what", "aim", "measured", "reached"), rows))


def _all(results: dict[str, Any], narrow: bool) -> Iterator[Row]:
    sets = results.get("gao", {})
    yield from _unpaired(sets, narrow)
    yield from _blind(sets)
    yield from _superlens(results.get("superlens", {}).get("in focus", {}))
    yield from _gold(results.get("gold", {}))


def _decibels(value: float) -> str:
    return f"{value:+.2f} dB"


def _unpaired(sets: Any, narrow: bool) -> Iterator[Row]:
    """Compare with the paper's own gains; with half of them in the short form."""
    share, text = (_HALF, "half of the paper's gain") if narrow else (1.0, "its gain")
    form = "a learnt blur (short form)" if narrow else "the paper's system"
    for name, rows in sets.items():
        own = rows.get(f"gao-{name.lower()}")
        if own is None:
            continue
        theirs = GAO_TABLE_1[name]
        gain = theirs["their CycleGAN"][1] - theirs["degraded"][1]
        yield (
            f"Gao et al., unpaired, {form}, set {name}: {text}",
            _decibels(share * gain),
            _decibels(own["gain"]),
            own["gain"] >= share * gain,
        )


def _blind(sets: Any) -> Iterator[Row]:
    """Say what the bundled restorer, which knows no set, gains."""
    for name, rows in sets.items():
        own, best = rows.get("sem-restore"), rows.get(_ORACLE)
        if own is None or best is None:
            continue
        wanted = best["gain"] * (_BLIND_SHARE if name == "A" else 1.0)
        more = f"{_BLIND_SHARE:g} of" if name == "A" else "more than"
        yield (
            f"`sem-restore`, blind, set {name}: {more} the oracle's gain",
            _decibels(wanted),
            _decibels(own["gain"]),
            own["gain"] >= wanted,
        )


_ORACLE = "oracle linear filter"


def _superlens(rows: Any) -> Iterator[Row]:
    """Say what the bundled superlens model gains over the optical image."""
    own, before = rows.get("ssum-sem"), rows.get("optical")
    if own is None or before is None:
        return
    gain, more = own["gain_db"], own["ssim"] - before["ssim"]
    yield (
        f"`ssum-sem` in focus, over the optical image (Sun: {_decibels(SUN_GAIN_DB)})",
        _decibels(_SSUM_GAIN_DB),
        _decibels(gain),
        gain >= _SSUM_GAIN_DB,
    )
    wanted, got = f"+{_SSUM_SSIM:.2f}", f"{more:+.3f}"
    yield "`ssum-sem`, SSIM", wanted, got, more >= _SSUM_SSIM
    first, then = before["resolution_nm"], own["resolution_nm"]
    ratio = first / then if first and then else None
    yield (
        "`ssum-sem`, cross-FRC to the truth, better by a factor",
        f"{_SSUM_RATIO:g}",
        DASH if ratio is None else f"{ratio:.2f}",
        ratio is not None and ratio >= _SSUM_RATIO,
    )


def _gold(rows: Any) -> Iterator[Row]:
    """Say what de Haan's task asks for."""
    missed, error = HAAN["network"]
    for name, text in (("sem-2x", "bundled"), ("de-haan-gold", "de Haan's system")):
        own = rows.get(name)
        if own is None:
            continue
        got = own["undetected_percent"], own["width_error_nm"]
        yield (
            f"`{name}`, {text}: undetected gaps, error of width",
            f"{missed:g} %, {error:g} nm",
            f"{got[0]:.1f} %, {got[1]:.2f} nm",
            got[0] <= missed and got[1] <= error,
        )
