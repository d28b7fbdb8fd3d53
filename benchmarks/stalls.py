"""For how long a panel keeps the main thread: when it opens, runs, shows its result.

A window is opened (on a virtual screen where there is no other), and each panel is
opened, run on samples, and run again, as the first of its session::

    python benchmarks/stalls.py
    python benchmarks/stalls.py --only "FRC map"

A stall is the longest gap between two ticks of a Qt timer of 5 ms. It is told less the
time for which the main thread waited for a core, in brackets with it. For comparison
napari adds, removes and adds again a layer as large as the sample by itself.

Exit code 1 means that the goal was missed: what comes between the click and the result
of a first run takes longer than the goal, and longer than twice what napari takes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from live import ROOT, Pulse, show, spin

GOAL_MS = 200.0
PANELS = ("Enhance", "FRC map", "Spectrum", "Metrics and histogram", "Stitch mosaic")
_LONGEST_S = 300.0


class Watch:
    """A viewer whose main thread is watched."""

    def __init__(self) -> None:
        import napari
        from qtpy.QtCore import QTimer

        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1360, 860)
        self.pulse = Pulse()
        self.timer = QTimer()
        self.timer.setInterval(5)
        self.timer.timeout.connect(lambda: self.pulse.tick())
        self.timer.start()
        spin(1)

    def stall(
        self, name: str, act: Callable[[], object], until: Callable[[], bool]
    ) -> float:
        """Do something, wait for it, and print and give the longest stall."""
        spin(0.5)
        self.pulse = Pulse()
        self.pulse.tick()
        act()
        spin(_LONGEST_S, until)
        spin(1)
        wall, free, cpu = self.pulse.worst()
        show(f"  {name:22s} {free:6.0f} ms ({wall:.0f} with waits, {cpu:.0f} computed)")
        return free


def watch_panel(name: str) -> float:
    """Open a panel and run it twice; give the longest stall of its first run."""
    from napari_semsr.widgets.samples import superlens_scan

    watch = Watch()
    viewer = watch.viewer
    viewer.open_sample("napari-semsr", "exposures")
    show(name)
    data = viewer.layers[0].data.copy()

    def add() -> None:
        viewer.add_image(data, name="plain")

    ready = watch.stall("napari adds a layer", add, lambda: True)
    viewer.layers.remove("plain")
    opened: list[Any] = []

    def open_panel() -> None:
        opened.append(viewer.window.add_plugin_dock_widget("napari-semsr", name)[1])

    if name == "Stitch mosaic":
        for frames, keywords, _ in superlens_scan():
            viewer.add_image(frames, **keywords)
    watch.stall("opening", open_panel, lambda: True)
    panel = opened[0]
    if name == "FRC map":
        panel.first.value, panel.second.value = viewer.layers[:2]
    spin(_LONGEST_S, lambda: not panel.busy)
    first = watch.stall("first run", panel.run_button.click, lambda: not panel.busy)
    watch.stall("next run", panel.run_button.click, lambda: not panel.busy)
    show(f"  {panel.status.text()}")
    viewer.close()
    return first / max(GOAL_MS, 2 * ready)


def main() -> int:
    """Watch each panel in a process of its own, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PANELS)
    chosen = parser.parse_args()
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        screen = str(ROOT / "scripts" / "with_display.sh")
        os.execv(screen, [screen, sys.executable, __file__, *sys.argv[1:]])  # noqa: S606
    if chosen.only is None:
        words = [sys.executable, __file__, "--only"]
        return max(subprocess.run([*words, name]).returncode for name in PANELS)
    with tempfile.TemporaryDirectory() as settings:
        os.environ["NAPARI_CONFIG"] = str(Path(settings) / "settings.yaml")
        begun = time.perf_counter()
        missed = watch_panel(chosen.only) > 1
        show(f"  took {time.perf_counter() - begun:.0f} s")
        return int(missed)


if __name__ == "__main__":
    sys.exit(main())
