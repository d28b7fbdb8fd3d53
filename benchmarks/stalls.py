"""For how long a panel keeps the main thread: when it opens, runs, shows its result.

A window is opened (on a virtual screen where there is no other), and each panel is
opened, left alone for 5 s, run on samples, and run again, as the first of its session::

    python benchmarks/stalls.py
    python benchmarks/stalls.py --only "FRC map"

A stall is the longest gap between two ticks of a Qt timer of 5 ms. It is told less the
time for which the main thread waited for a core, in brackets with it. For comparison
another process has napari show, one by one, the very layers that the first run added:
ready, in memory, with their colour bar. What both take depends on the machine and on
what else it does, hence each is measured several times in turn, and the least counts.

Exit code 1 means that the goal was missed: what comes between the click and the result
of a first run takes longer than the goal, and than napari alone by more than 50 ms.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _shared import read_options
from live import ROOT, Pulse, show, spin

GOAL_MS, MORE_MS = 200.0, 50.0
PANELS = ("Enhance", "FRC map", "Spectrum", "Metrics and histogram", "Stitch mosaic")
_LONGEST_S = 300.0
_READ_S = 5.0  # to look at a panel before its button is pressed


class Watch:
    """A viewer with the sample of a panel, whose main thread is watched."""

    def __init__(self, panel: str) -> None:
        import napari
        from qtpy.QtCore import QTimer

        from napari_semsr.widgets.samples import superlens_scan

        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1360, 860)
        self.viewer.open_sample("napari-semsr", "exposures")
        if panel == "Stitch mosaic":
            for data, keywords, kind in superlens_scan():
                getattr(self.viewer, f"add_{kind}")(data, **keywords)
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


def watch_panel(name: str, layers: Path) -> float:
    """Open a panel, run it twice and keep its layers; give its first run's stall."""
    watch = Watch(name)
    viewer = watch.viewer
    opened: list[Any] = []

    def open_panel() -> None:
        opened.append(viewer.window.add_plugin_dock_widget("napari-semsr", name)[1])

    watch.stall("opening", open_panel, lambda: True)
    watch.stall("left alone", lambda: spin(_READ_S), lambda: True)
    panel = opened[0]
    if name == "FRC map":
        panel.first.value, panel.second.value = viewer.layers[:2]
    spin(_LONGEST_S, lambda: not panel.busy)
    before = list(viewer.layers)
    first = watch.stall("first run", panel.run_button.click, lambda: not panel.busy)
    added = [_ready(layer) for layer in viewer.layers if layer not in before]
    layers.write_bytes(pickle.dumps(added))
    watch.stall("next run", panel.run_button.click, lambda: not panel.busy)
    show(f"  {panel.status.text()}")
    viewer.close()
    return first


def _ready(layer: Any) -> tuple[Any, dict[str, Any], str, bool]:
    """Take what napari needs to show a layer, and whether it has a colour bar."""
    import numpy as np

    data, state, kind = layer.as_layer_data_tuple()
    if state.get("multiscale"):
        data = [np.asarray(level) for level in data]
    elif kind != "shapes":
        data = np.asarray(data)
    state["metadata"], state["units"] = {}, [str(unit) for unit in layer.units]
    if kind == "labels":  # their colour map itself cannot be handed over
        state["colormap"] = dict(layer.colormap.color_dict)
    bar = getattr(layer, "colorbar", None)
    return data, state, kind, bar is not None and bar.visible


def watch_napari(name: str, layers: Path) -> float:
    """Let napari show ready layers; give the longest stall."""
    from napari.layers import Layer

    watch = Watch(name)
    viewer, longest = watch.viewer, 0.0
    for data, state, kind, bar in pickle.loads(layers.read_bytes()):  # noqa: S301
        layer = Layer.create(data, state, kind)

        def add(layer: Layer = layer) -> None:
            viewer.add_layer(layer)

        def show_bar(layer: Any = layer) -> None:
            layer.colorbar.visible = layer.name_overlay.visible = True

        longest = max(longest, watch.stall(f"napari: {kind}", add, lambda: True))
        if bar:
            found = watch.stall("napari: colour bar", show_bar, lambda: True)
            longest = max(longest, found)
    viewer.close()
    return longest


def judge(name: str, rounds: int) -> bool:
    """Measure a panel and napari in turn; tell whether the goal was missed."""
    least: dict[str, float] = {}
    show(name)
    with tempfile.TemporaryDirectory() as folder:
        layers, found = Path(folder) / "layers", Path(folder) / "found"
        for _ in range(rounds):
            for who in ("panel", "napari"):
                words = ["--only", name, "--watch", who, layers, found]
                done = subprocess.run([sys.executable, __file__, *map(str, words)])
                if done.returncode:
                    raise SystemExit(done.returncode)
                took = float(found.read_text())
                least[who] = min(took, least.get(who, took))
    limit = max(GOAL_MS, least["napari"] + MORE_MS)
    show(
        f"  least of {rounds}: first run {least['panel']:.0f} ms, napari alone "
        f"{least['napari']:.0f} ms (goal {limit:.0f} ms)"
    )
    return least["panel"] > limit


def main() -> int:
    """Watch each panel in processes of its own, and judge."""
    chosen = read_options(
        __doc__,
        "--rounds=3",
        only={"choices": PANELS},
        watch=({"nargs": 3}, argparse.SUPPRESS),
    )
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        screen = str(ROOT / "scripts" / "with_display.sh")
        os.execv(screen, [screen, sys.executable, __file__, *sys.argv[1:]])  # noqa: S606
    if chosen.watch is None:
        begun, names = time.perf_counter(), [chosen.only] if chosen.only else PANELS
        missed = [judge(name, chosen.rounds) for name in names]
        show(f"took {time.perf_counter() - begun:.0f} s")
        return int(any(missed))
    who, layers, found = chosen.watch
    watch = watch_panel if who == "panel" else watch_napari
    with tempfile.TemporaryDirectory() as settings:
        os.environ["NAPARI_CONFIG"] = str(Path(settings) / "settings.yaml")
        Path(found).write_text(str(watch(chosen.only, Path(layers))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
