"""How a viewer feels while a field is enhanced: first tile, stalls, cancel.

A window is opened (on a virtual screen where there is no other), a field is added and
*Enhance* is pressed, in a process that has enhanced before::

    python benchmarks/live.py

A stall is the longest gap between two ticks of a Qt timer of 5 ms while the view is
moved ten times a second. It is measured without a run and with one, several times in
turn; what a run adds is what counts. Wall-clock times need a quiet machine; a stall
less the time for which the main thread waited for a core, its processor time, and that
of the whole process up to the first tile, hardly do.

Exit code 1 means that a goal was missed.
"""

import operator
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from _shared import on_a_screen, read_options

FIRST_TILE_S, STALL_MS = 1.5, 50.0
CANCEL_SHOWN_S, CANCEL_ENDED_S = 0.3, 1.0


@dataclass
class Pulse:
    """Gaps between the ticks of a fast timer in the main thread.

    Each is (wall-clock time, the same without waiting for a core, processor time), in
    milliseconds. The second does not see that others use the machine.
    """

    gaps: list[tuple[float, float, float]] = field(default_factory=list)
    _last: tuple[float, float, float] | None = None

    def tick(self) -> None:
        """Note one gap."""
        now = time.perf_counter(), _waited(), time.thread_time()
        if self._last is not None:
            wall, wait, cpu = (
                1e3 * (n - o) for n, o in zip(now, self._last, strict=True)
            )
            self.gaps.append((wall, wall - wait, cpu))
        self._last = now

    def worst(self) -> tuple[float, ...]:
        """Give the longest of each kind."""
        return tuple(max(column) for column in zip(*self.gaps, strict=True))


def _waited() -> float:
    """Seconds for which the main thread was ready and had no core; Linux only."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def settle(seconds: float = 0.1, until: Callable[[], bool] = lambda: False) -> None:
    """Let Qt draw for some time, or until something has happened."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
        time.sleep(0.001)


class Desk:
    """A viewer on a noisy field."""

    def __init__(self, side: int, shown: int) -> None:
        import napari
        import numpy as np
        from qtpy.QtCore import QTimer

        from napari_semsr.core import Micrograph, parse_pixel_size
        from napari_semsr.widgets.layers import create_layer_keywords

        rng = np.random.default_rng(0)
        coarse = rng.integers(40, 215, (side // 16, side // 16))
        values = coarse.repeat(16, 0).repeat(16, 1) + rng.normal(0, 12, (side, side))
        data = values.clip(0, 255).astype(np.uint8)
        image = Micrograph(data, parse_pixel_size(10.0), "field")
        self.side, self.shown = side, shown
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1400, 950)
        self.viewer.add_image(image.data, **create_layer_keywords(image))
        _, self.panel = self.viewer.window.add_plugin_dock_widget(
            "napari-semsr", "Enhance"
        )
        self.pulse = Pulse()
        self.timer = QTimer()
        self.timer.setInterval(5)
        self.timer.timeout.connect(lambda: self.pulse.tick())
        self.timer.start()
        self.turn = 0

    def look(self, y: float, x: float) -> None:
        """Show a part at full resolution; (y, x) are shares of the field."""
        camera, extent = self.viewer.scene.camera, 10.0 * self.side
        camera.center, camera.zoom = (0, y * extent, x * extent), 0.1

    def wander(self, seconds: float) -> tuple[float, ...]:
        """Pan ten times a second, and give the longest stalls."""
        settle(0.5)
        self.pulse = Pulse()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.turn += 1
            self.look(0.3 + 0.02 * (self.turn % 20), 0.5 + 0.01 * (self.turn % 7))
            settle(0.1)
        return self.pulse.worst()

    def press(self) -> tuple[float, float]:
        """Press Enhance; give wall-clock and processor time until it returns."""
        begun = time.perf_counter(), time.thread_time()
        self.panel.run_button.click()
        return time.perf_counter() - begun[0], time.thread_time() - begun[1]

    def stop(self) -> tuple[float, float]:
        """Press Cancel; give the seconds until it shows, and until nothing runs."""
        begun = time.perf_counter()
        self.panel.cancel_button.click()
        settle(120, lambda: self.panel.status.text().startswith("Cancelling"))
        shown = time.perf_counter() - begun
        settle(120, lambda: not self.panel.runner.is_busy)
        return shown, time.perf_counter() - begun

    def clear(self) -> None:
        """Take away what was enhanced."""
        for layer in list(self.viewer.layers)[1:]:
            self.viewer.layers.remove(layer)


def processor_time() -> float:
    """Give the seconds of this process, less those of a software OpenGL."""
    import psutil

    total = 0.0
    for thread in psutil.Process().threads():
        name = Path(f"/proc/self/task/{thread.id}/comm")
        if not name.exists() or "llvmpipe" not in name.read_text():
            total += thread.user_time + thread.system_time
    return total


def watch_first_tile(desk: Desk) -> dict[str, float]:
    """Press Enhance and wait until an enhanced tile is drawn."""
    from napari_semsr.widgets.enhance.panel import LiveLayer

    drawn: list[float] = []
    tick = LiveLayer.on_timeout

    def told(self: Any) -> None:
        fresh = bool(self.live.done)
        tick(self)
        if fresh and not drawn:
            drawn.append(time.perf_counter())

    LiveLayer.on_timeout = told  # type: ignore[method-assign]
    begun, cpu = time.perf_counter(), processor_time()
    wall, thread = desk.press()
    settle(300, lambda: bool(drawn))
    spent = processor_time() - cpu
    LiveLayer.on_timeout = tick  # type: ignore[method-assign]
    return {
        "first_tile_s": drawn[0] - begun,
        "first_tile_cpu_s": spent,
        "click_ms": 1e3 * wall,
        "click_cpu_ms": 1e3 * thread,
    }


def feel(side: int, seconds: float, rounds: int) -> int:
    """Measure first tile, stalls and cancel, several times in turn."""
    desk = Desk(side, 900)
    settle(1)
    desk.look(0.5, 0.5)
    watch_first_tile(desk)  # imports torch, reads the weights: now it is warm
    desk.stop()
    desk.clear()
    idle, busy, clicks, stops = [], [], [], []
    for _ in range(rounds):
        idle.append(desk.wander(seconds))
        desk.look(0.5, 0.5)
        settle(1)
        clicks.append(watch_first_tile(desk))
        busy.append(desk.wander(seconds))
        stops.append(desk.stop())
        desk.clear()
    desk.viewer.close()
    print(f"{side}², default model, medians of {rounds} rounds")
    found = {key: median(click[key] for click in clicks) for key in clicks[0]}
    print(
        f"first enhanced tile on screen {found['first_tile_s']:.2f} s after the click "
        f"(goal {FIRST_TILE_S}), {found['first_tile_cpu_s']:.2f} s of processor time"
    )
    print(
        f"the click itself {found['click_ms']:.0f} ms, "
        f"{found['click_cpu_ms']:.0f} ms of the main thread"
    )
    extra = _stalls(idle, busy)
    shown, ended = (max(column) for column in zip(*stops, strict=True))
    print(
        f"a cancel shows after at most {shown:.2f} s (goal {CANCEL_SHOWN_S}), and "
        f"computing ends after {ended:.2f} s (goal {CANCEL_ENDED_S})"
    )
    took = found["first_tile_s"], extra, shown, ended
    goals = FIRST_TILE_S, STALL_MS, CANCEL_SHOWN_S, CANCEL_ENDED_S
    return int(any(map(operator.gt, took, goals)))


def _stalls(idle: list[tuple[float, ...]], busy: list[tuple[float, ...]]) -> float:
    """Print the longest stalls, and give what a run adds to them."""
    without, during = (
        [median(column) for column in zip(*found, strict=True)]
        for found in (idle, busy)
    )
    added = [d - w for d, w in zip(during, without, strict=True)]
    named = {"without": without, "with": during, "added by": added}
    for name, (wall, free, cpu) in named.items():
        print(
            f"longest stall {name} a run {wall:.0f} ms, {free:.0f} ms less waits for a "
            f"core, main thread {cpu:.0f} ms"
        )
    return added[0]


def main() -> int:
    """Measure, print, and judge."""
    chosen = read_options(__doc__, "--side=4096 --seconds=5.0 --rounds=3")
    on_a_screen(__file__)
    with tempfile.TemporaryDirectory() as settings:
        os.environ["NAPARI_CONFIG"] = str(Path(settings) / "settings.yaml")
        return feel(chosen.side, chosen.seconds, chosen.rounds)


if __name__ == "__main__":
    sys.exit(main())
