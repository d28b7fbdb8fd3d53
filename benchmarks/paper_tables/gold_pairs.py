"""Real gold on carbon to learn from: the pairs of ``dwell_pairs/time``, aligned.

Fast scans (100 ns a pixel) beside slow ones (30 us) of the same places, cut to patches
by ``semsr pairs --align``. What is there already is not made again.
"""

from collections.abc import Callable
from pathlib import Path

from napari_semsr.core import run
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import PAIRS
from napari_semsr.pairing import PairOptions
from paper_tables.plan import ROOT

SCANS = ROOT.parent / "shared" / "data" / "dwell_pairs"
PATCH_PX = 64
PIXEL_NM = 5.8
DATABAR_ROWS = 39
HELD_OUT = 0.1  # of the patches; the pairs of `line` judge


def make_gold_pairs(store: Path, say: Callable[[str], None]) -> bool:
    """Make a store of real pairs, if it is not there."""
    if store.exists():
        return True
    scans = SCANS / "time"
    if not scans.is_dir():
        say(f"gold-real is left out: its images are not in {SCANS}")
        return False
    say("aligning real scans of gold")
    options = PairOptions(
        patch=PATCH_PX,
        validation=HELD_OUT,
        test=0.0,
        align=True,
        low_pixel_nm=PIXEL_NM,
        high_pixel_nm=PIXEL_NM,
    )
    opening = ReadOptions(colour="luminance", databar_rows=DATABAR_ROWS)
    fast, slow = (scans / f"*_{name}.tif" for name in ("100ns", "30us"))
    made = run(PAIRS.job(fast, slow, store, options=options, opening=opening))
    say(f"{made.train} real pairs to learn from")
    return True
