"""What stitching in the window costs beyond the command, and how long it freezes.

One scan is stitched by the command and in a window of napari (on a virtual screen where
there is no other) in turn, each in a process without other work: the command's whole
process, and the window from the press of *Stitch* until the mosaic is shown::

    python benchmarks/window_stitching.py --grid 8x8 --frame 512 --rounds 2

Processor times are compared, since other programs hardly change them. A freeze is the
longest gap between two ticks of a Qt timer of 20 ms, less the time for which the main
thread waited for a core: `freeze_ms` while the job runs, `showing_ms` while napari
adds the layers of the result and the plots are drawn. `main_s` is the processor time
of the main thread alone, and `--sample N` prints the N commonest places in which it was
found, sampled a hundred times a second.

Goals: 1.3 times the command's processor time; 100 ms. Exit code 1 means that one was
missed.
"""

import gc
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _shared import Rows, in_line, on_a_screen, read_options, usage_of, verdict
from live import Pulse

RATIO, FREEZE_MS = 1.3, 100.0
PATIENCE_S = 1800.0
DEPTH = 14  # calls of a sample


def make_scan(folder: Path, grid: str, frame: int) -> Path:
    """Simulate a scan of particles."""
    from napari_semsr.core import run
    from napari_semsr.jobs import SIMULATE, SimulateOptions

    rows, columns = map(int, grid.split("x"))
    options = SimulateOptions(
        phantom="particles", frames_grid=(rows, columns), frame_px=frame, jitter_px=3
    )
    run(SIMULATE.job(out_dir=folder, options=options))
    return folder


class Sampler(threading.Thread):
    """Notes where the main thread is, a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: list[tuple[float, str]] = []
        self._end, self._main = threading.Event(), threading.get_ident()

    def run(self) -> None:
        """Sample until the end."""
        while not self._end.wait(0.01):
            frame = sys._current_frames().get(self._main)
            names: list[str] = []
            while frame is not None and len(names) < DEPTH:
                code, frame = frame.f_code, frame.f_back
                names.append(f"{Path(code.co_filename).stem}:{code.co_name}")
            self.found.append((time.perf_counter(), " < ".join(names)))

    def end(self, most: int, freezes: Sequence[tuple[float, float, float]]) -> None:
        """Stop, and print the commonest places, of all and of the longest freezes."""
        self._end.set()
        spans = [(0.0, -1.0, float("inf")), *sorted(freezes)[-3:]]
        for length, begun, ended in spans:
            inside = Counter(name for at, name in self.found if begun < at <= ended)
            print(f"-- {length:.0f} ms: {inside.total()} samples", file=sys.stderr)
            for place, count in inside.most_common(most):
                print(f"{count:5d} {place}", file=sys.stderr)


class Watch:
    """A window while a scan is stitched in it: processor times and freezes."""

    def __init__(self) -> None:
        import napari
        from qtpy.QtCore import QEventLoop, QTimer

        self.viewer = napari.Viewer(show=True, show_welcome_screen=False)
        self.viewer.window.resize(1360, 860)
        self.panel: Any = None
        self.collections, self.collecting = [0.0], 0.0  # ms; since
        gc.callbacks.append(self.note_collection)
        self.loop, self.pulse, self.timer = QEventLoop(), Pulse(), QTimer()
        self.freezes: list[tuple[float, float, float]] = []  # ms, from, to
        self.last, self.returned = time.perf_counter(), float("inf")
        self.timer.setInterval(20)
        self.timer.timeout.connect(self.tick)
        self._quit = QTimer.singleShot

    def wait(self, seconds: float) -> None:
        """Let Qt work."""
        self._quit(int(1000 * seconds), self.loop.quit)
        self.loop.exec()

    def tick(self) -> None:
        """Note how long the window did not answer."""
        begun, self.last = self.last, time.perf_counter()
        self.pulse.tick()
        if self.pulse.gaps:
            self.freezes.append((self.pulse.gaps[-1][1], begun, self.last))
        # The job has ended, and its result is being shown.
        if self.panel and self.panel.runner.is_cancelling:
            self.returned = min(self.returned, begun)

    def note_collection(self, phase: str, about: dict[str, int]) -> None:
        """Note how long Python looked for garbage."""
        if phase == "stop":
            self.collections.append(1e3 * (time.perf_counter() - self.collecting))
        self.collecting = time.perf_counter()

    def add_alone(self, store: Path) -> dict[str, float]:
        """Add an image as large as a mosaic, and rectangles, without our plugin."""
        import numpy as np
        import zarr

        pixels = np.asarray(zarr.open_group(store, mode="r")["0"])
        steps = 10.0 * np.arange(36)[:, None, None]
        corners = steps + 100 * np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
        self.wait(1)
        self.timer.start()
        for add in (
            partial(self.viewer.add_image, pixels),
            partial(self.viewer.add_shapes, list(corners), shape_type="rectangle"),
        ):
            add()
            self.wait(1)
        return {"napari_ms": max(length for length, _, _ in self.freezes)}

    def stitch(self, scan: Path, output: Path, sample: int) -> dict[str, Any]:
        """Press *Stitch*, and give what that took."""
        _, self.panel = self.viewer.window.add_plugin_dock_widget(
            "napari-semsr", "Stitch"
        )
        self.panel.folder.value, self.panel.output.value = scan, output
        self.wait(1)
        while self.panel.is_busy:
            self.wait(0.5)
        self.panel.runner.busy_changed.connect(lambda busy: busy or self.loop.quit())
        self.timer.start()
        self.collections = [0.0]
        sampler = Sampler()
        if sample:
            sampler.start()
        wall, cpu, main = time.perf_counter(), time.process_time(), time.thread_time()
        self.panel.run_button.click()
        while self.panel.is_busy:
            self.wait(PATIENCE_S)
        self.wait(0.05)
        main, cpu = time.thread_time() - main, time.process_time() - cpu
        wall = time.perf_counter() - wall
        self.timer.stop()
        if sample:
            sampler.end(sample, self.freezes)
        runs = [length for length, _, end in self.freezes if end < self.returned]
        shown = [length for length, _, end in self.freezes if end >= self.returned]
        row = {"cpu_s": cpu, "main_s": main, "wall_s": wall}
        row |= {"freeze_ms": max(runs, default=0.0)}
        row |= {"showing_ms": max(shown, default=0.0)}
        row |= {"collection_ms": max(self.collections)}
        return row | {"status": self.panel.status.text()}


def main() -> int:
    """Print a row for each run; 1 when a goal was missed."""
    args = read_options(
        __doc__,
        "--grid=8x8 --frame=512 --rounds=2 --sample=0",
        window=({"nargs": 2, "type": Path, "help": "stitch SCAN to STORE in a window"}),
        alone=(Path, "add what is as large as STORE to a window without the plugin"),
        rows=(Path, "JSON lines to which results are added"),
    )
    if args.window or args.alone:
        on_a_screen(__file__)
        watch = Watch()
        if args.alone:
            print(json.dumps(watch.add_alone(args.alone)))
        else:
            print(json.dumps(watch.stitch(*args.window, args.sample)))
        sys.stdout.flush()
        return 0
    rows = Rows(args.rows)
    command, window = [], []
    with tempfile.TemporaryDirectory(prefix="semsr-window-") as scratch:
        place = Path(scratch)
        scan = make_scan(place / "scan", args.grid, args.frame)
        for number in range(args.rounds):
            line = [sys.executable, "-m", "napari_semsr", "stitch", scan]
            line += ["-o", place / f"c{number}.ome.zarr", "--halves", "--quiet"]
            used = usage_of(line)
            command.append(used.cpu_s)
            this, store = [sys.executable, __file__], place / f"w{number}.ome.zarr"
            call = [*this, "--sample", args.sample, "--window", scan, store]
            row = json.loads(usage_of(call).said.splitlines()[-1])
            window.append(row)
            alone = usage_of([*this, "--alone", store]).said
            row |= json.loads(alone.splitlines()[-1])
            row |= {"command_cpu_s": used.cpu_s, "command_wall_s": used.seconds}
            row |= {"grid": args.grid, "frame_px": args.frame}
            print(in_line(rows.add(row)), flush=True)
    ratio = sum(row["cpu_s"] for row in window) / sum(command)
    freeze = max(row["freeze_ms"] for row in window)
    good = ratio <= RATIO, freeze <= FREEZE_MS
    print(f"processor time {ratio:.2f} x the command's: {verdict(good[0])}")
    print(f"longest freeze {freeze:.0f} ms: {verdict(good[1])}")
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
