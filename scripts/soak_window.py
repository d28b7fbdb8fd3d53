"""Use the panels in a real window, close it as a user does, and look at the exit.

Run: ``scripts/with_display.sh python scripts/soak_window.py [--times N]``. In each run,
which is a process of its own, napari opens, a simulated scan is stitched, the mosaic is
enhanced with every bundled model and mapped by FRC, and the window is closed through
the window system: the questions of napari and of the plugin are answered by clicks.
Each run has a line with its exit code, whether a traceback was printed, and its
seconds; if something went wrong, what it printed follows. Ends with 1 if a run failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 600.0
LIMIT_S = 1800.0
TRACES = ("Traceback (most", "Exception ignored", "Fatal Python error", "QThread:")


def settle(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let Qt handle events for some time, or until something has happened."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.01)


def press_run(panel: Any) -> None:
    """Click on the button of a panel, and wait for its end."""
    ran: list[bool] = []

    def note() -> None:
        ran.append(True)

    settle(PATIENCE_S, lambda: not panel.is_busy)
    panel.ran.connect(note)
    panel.run_button.click()
    settle(0.2)
    settle(PATIENCE_S, lambda: not panel.is_busy)
    settle(0.5)
    panel.ran.disconnect(note)
    if not ran:
        msg = f"{panel.title} made nothing: {panel.status.text()}"
        raise RuntimeError(msg)


def use_panels(viewer: Any, scan: Path) -> None:
    """Stitch a scan, enhance the mosaic with each bundled model, and map it."""
    from napari_semsr.models import list_bundled_models
    from napari_semsr.widgets.base import open_panel

    stitch = open_panel(viewer, "Stitch")
    stitch.folder.value = scan
    press_run(stitch)
    mosaic = viewer.layers["scan mosaic"]
    enhance = open_panel(viewer, "Enhance")
    for name in list_bundled_models():
        enhance.layer.value = mosaic
        enhance.model.choose(name)
        press_run(enhance)
    resolution = open_panel(viewer, "Resolution")
    resolution.first.value = mosaic
    press_run(resolution)
    viewer.window.screenshot(str(scan.parent / "window.png"), canvas_only=False)


def answer_questions() -> None:
    """Click on what closes the window without saving, if a question is open."""
    from qtpy.QtWidgets import QApplication, QDialog, QMessageBox

    box = QApplication.activeModalWidget()
    if isinstance(box, QMessageBox):
        box.button(QMessageBox.StandardButton.Discard).click()
    elif isinstance(box, QDialog):
        box.accept()


def run_once(folder: Path) -> int:
    """Use the panels in the loop of events that napari runs; 1 if something failed."""
    import napari
    from napari.utils.notifications import notification_manager
    from qtpy.QtCore import QTimer

    from napari_semsr.core import run
    from napari_semsr.jobs import SIMULATE, SimulateOptions

    scan = folder / "scan"
    options = SimulateOptions(
        phantom="particles", frames_grid=(2, 2), frame_px=192, overlap=0.6
    )
    run(SIMULATE.job(out_dir=scan, options=options))
    viewer = napari.Viewer()
    window = viewer.window._qt_window
    failed: list[str] = []

    def note(notification: Any) -> None:
        if str(notification.severity).lower() in ("error", "critical"):
            failed.append(str(notification.message))

    notification_manager.notification_ready.connect(note)
    answers = QTimer()
    answers.timeout.connect(answer_questions)

    def use() -> None:
        try:
            settle(1.0)
            use_panels(viewer, scan)
        except Exception:  # noqa: BLE001 - whatever it is, the window is to be closed
            failed.append(traceback.format_exc())
        answers.start(200)
        QTimer.singleShot(0, lambda: window.windowHandle().close())

    QTimer.singleShot(0, use)
    napari.run()
    for problem in failed:
        print(problem)
    return int(bool(failed))


def soak(times: int) -> int:
    """Start each run, and print a line of it; 1 if one failed."""
    bad = 0
    for number in range(1, times + 1):
        with tempfile.TemporaryDirectory(prefix="semsr-soak-") as scratch:
            places = {
                name: str(Path(scratch) / place)
                for name, place in (
                    ("NAPARI_CONFIG", "settings.yaml"),
                    ("SEMSR_MODELS", "models"),
                    ("SEMSR_RUNS", "runs"),
                    ("XDG_STATE_HOME", "state"),
                )
            }
            began = time.monotonic()
            try:
                done = subprocess.run(
                    [sys.executable, "-X", "faulthandler", __file__, "--in", scratch],
                    env=os.environ | places,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=LIMIT_S,
                )
                code, output = str(done.returncode), done.stdout
            except subprocess.TimeoutExpired as error:
                code, output = f"none within {LIMIT_S:.0f} s", str(error.stdout or "")
        trace = any(sign in output for sign in TRACES)
        seconds = time.monotonic() - began
        print(
            f"run {number} of {times}: exit code {code}, "
            f"traceback {'yes' if trace else 'no'}, {seconds:.0f} s",
            flush=True,
        )
        if trace or code != "0":
            bad += 1
            print(output, flush=True)
    return int(bad > 0)


def main() -> int:
    """Run as often as is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--in", dest="folder", type=Path, help="of one run, here")
    args = parser.parse_args()
    return soak(args.times) if args.folder is None else run_once(args.folder)


if __name__ == "__main__":
    sys.exit(main())
