"""How long the window freezes while a scan is followed, without and with *Enhance*.

One scan is followed in one window of napari (on a virtual screen where there is no
other), in turn without and with *Enhance as it grows*, frames a second apart; another
process brings them::

    python benchmarks/window_following.py --grid 4x5 --frame 256 --model sem-2x

A freeze is the longest gap between two ticks of a Qt timer of 20 ms from the third
frame to the last one, less the time for which the main thread waited for a core. After
the last frame the window stays open for `--after` seconds. `behind_s` is the longest
time from the last byte of a frame until it is counted as taken, in the window.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _shared import BRING, in_line, on_a_screen, read_options
from live import Pulse, settle
from window_stitching import make_scan


def follow(
    panel: Any, scan: Path, place: Path, model: str, args: Any
) -> dict[str, float]:
    """Follow one scan, and end it without a solution."""
    from qtpy.QtCore import QTimer

    follower, count = panel.follower, len(list(scan.glob("*.tif")))
    panel.folder.value = place
    follower.enhance.value = bool(model)
    if model:
        follower.model.value = model
    follower.press()
    settle(300, lambda: "waiting for" in panel.status.text())
    words = [sys.executable, "-c", BRING, str(scan), str(place), str(args.every)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    pulse, timer, taken = Pulse(), QTimer(), {}

    def tick() -> None:
        match = re.search(r"(\d+) frames taken", panel.status.text())
        if match:
            taken.setdefault(int(match[1]), time.time())
        if max(taken, default=0) > 2:
            pulse.tick()

    timer.setInterval(20)
    timer.timeout.connect(tick)
    timer.start()
    settle(600, lambda: max(taken, default=0) == count)
    half = time.perf_counter() + args.after
    settle(args.after + 1, lambda: time.perf_counter() > half)
    timer.stop()
    came = [float(line) for line in child.communicate()[0].split()]
    late = [taken[n] - at for n, at in enumerate(came, 1) if n in taken]
    gaps = sorted(gap[1] for gap in pulse.gaps)
    row = {"freeze_ms": gaps[-1], "p99_ms": gaps[int(0.99 * len(gaps))]}
    row |= {"late_s": median(late), "behind_s": max(late)}
    if args.picture:
        path = args.picture / f"following-{model or 'plain'}.png"
        panel.viewer.window.screenshot(str(path), canvas_only=False, flash=False)
    panel.controls.cancel()
    settle(300, lambda: not panel.is_busy)
    settle(300, lambda: not follower.is_following)
    return row


def main() -> int:
    """Print a row for each run."""
    args = read_options(
        __doc__,
        "--grid=4x5 --frame=256 --rounds=2 --model=sem-2x --every=1.0 --after=5.0",
        picture=(Path, "folder for pictures of the window"),
    )
    on_a_screen(__file__)
    import napari

    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(1360, 860)
    _, panel = viewer.window.add_plugin_dock_widget("napari-semsr", "Stitch")
    with tempfile.TemporaryDirectory(prefix="semsr-window-") as scratch:
        place = Path(scratch)
        scan = make_scan(place / "scan", args.grid, args.frame)
        for number in range(args.rounds):
            for model in ("", args.model):
                folder = place / f"{number}{model}"
                row = follow(panel, scan, folder, model, args)
                row |= {"round": number, "model": model, "frames": args.grid}
                print(in_line(row), json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
