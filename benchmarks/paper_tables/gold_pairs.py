"""Real gold on carbon to learn from: the pairs of ``dwell_pairs/time``, registered.

Fast scans (100 ns a pixel) beside slow ones (30 us) of the same places, by
``scripts/register_scans.py``, and cut to patches by ``semsr pairs``. What is there
already is not made again.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tifffile

from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.jobs import pairs_job
from napari_semsr.pairing import PairOptions
from paper_tables.plan import ROOT

__all__ = ["make_gold_pairs"]

SCANS = ROOT.parent / "shared" / "data" / "dwell_pairs"
PATCH_PX = 64
PIXEL_NM = 5.8
HELD_OUT = 0.1  # of the patches; the pairs of `line` judge


def make_gold_pairs(store: Path, say: Callable[[str], None]) -> bool:
    """Make a store of real pairs, if it is not there.

    Parameters
    ----------
    store : pathlib.Path
        Store of pairs.
    say : callable
        Told what happens.

    Returns
    -------
    bool
        Whether there is one: the images are not part of the package.
    """
    if store.exists():
        return True
    if not (SCANS / "time").is_dir():
        say(f"gold-real is left out: its images are not in {SCANS}")
        return False
    scans = store.parent / "scans"
    say("registering real scans of gold")
    script = ROOT / "scripts" / "register_scans.py"
    subprocess.run([sys.executable, script, SCANS, scans], check=True)
    slow = sorted(scans.glob("*-slow.tif"))
    fast = [path.with_name(path.name.replace("-slow", "-fast")) for path in slow]
    size = parse_pixel_size(PIXEL_NM)
    lows, highs = (
        [
            Micrograph(tifffile.imread(path), size, path.stem.rpartition("-")[0])
            for path in side
        ]
        for side in (fast, slow)
    )
    options = PairOptions(
        patch=PATCH_PX, validation=HELD_OUT, test=0.0, match="name", second_scan=True
    )
    made = run(pairs_job(lows, highs, store, options=options))
    say(f"{made.train} real pairs to learn from")
    return True
