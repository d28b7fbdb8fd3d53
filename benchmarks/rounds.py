"""Whether a session that goes on for long grows: rounds of opening, running, removing.

An image is opened, enhanced by a small model, mapped by FRC and transformed, then all
layers are removed, many times in one window (on a virtual screen where there is no
other)::

    python benchmarks/rounds.py
    python benchmarks/rounds.py --rounds 10 --warm 3
    python benchmarks/rounds.py --rounds 100 --close

With ``--close`` a round is another: the panel of Enhance is opened, runs, and is closed
with what it made.

After each round memory in use, threads, open files, temporary files, objects of Qt and
jobs are counted. Those of the first rounds do not count: caches fill then (of napari's
shaders, matplotlib's fonts, torch's allocator). Later memory may grow by no more than
`ALLOWED_MB` in all, a tenth of what a viewer takes: the C library keeps what lies
between blocks that stay. All else may not grow.

Exit code 1 means that something did.
"""

import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _shared import on_a_screen, read_options
from live import settle

ALLOWED_MB = 60.0
_LONGEST_S = 300.0


class Session:
    """A viewer with the panels of the story, and what is counted of it."""

    def __init__(self, model: Path, *, close: bool = False) -> None:
        import napari

        from napari_semsr.widgets.enhance.panel import EnhancePanel
        from napari_semsr.widgets.measure.frc_map import FrcMapPanel
        from napari_semsr.widgets.measure.spectrum import SpectrumPanel

        self.viewer = napari.Viewer(show=True)
        self.model, self.panels = model, []
        if close:
            return
        kinds = (EnhancePanel, FrcMapPanel, SpectrumPanel)
        self.panels = [self.open(kind) for kind in kinds]
        self.panels[0].model.add_file(model)

    def open(self, kind: Any) -> Any:
        """Open a panel."""
        panel = kind(self.viewer)
        self.viewer.window.add_dock_widget(panel, name=panel.title)
        return panel

    def play(self, image: Any) -> None:
        """Open an image, run the panels on it, and remove all layers."""
        for panel in self.panels:
            self.run(panel, image)
        if len(self.viewer.layers) < 2 * len(self.panels):
            raise SystemExit([panel.status.text() for panel in self.panels])
        self.tidy()

    def play_closing(self, image: Any) -> None:
        """Open an image and the panel of Enhance, run it, and close both."""
        from napari_semsr.widgets.enhance.panel import EnhancePanel

        panel = self.open(EnhancePanel)
        panel.model.add_file(self.model)
        self.run(panel, image)
        if len(self.viewer.layers) < 2:
            raise SystemExit(panel.status.text())
        self.viewer.window.remove_dock_widget(panel)
        panel.close()
        panel.deleteLater()
        self.tidy()

    def run(self, panel: Any, image: Any) -> None:
        """Open an image and run a panel on it."""
        from napari_semsr.widgets.layers import create_layer_keywords

        self.viewer.add_image(image.data, **create_layer_keywords(image))
        panel.run_button.click()
        settle(_LONGEST_S, lambda: not panel.is_busy)
        settle(0.2)

    def tidy(self) -> None:
        """Remove all layers, and what napari says."""
        from qtpy.QtWidgets import QApplication

        self.viewer.layers.clear()
        for item in QApplication.allWidgets():
            if type(item).__name__ == "NapariQtNotification":
                item.close()  # by themselves they go where the window is active
        settle(0.3)

    def count(self, folder: Path) -> dict[str, float]:
        """Count what may not grow."""
        import psutil
        from napari.layers import Layer
        from qtpy.QtCore import QEvent, QObject
        from qtpy.QtWidgets import QApplication

        from napari_semsr.core import release_free_memory
        from napari_semsr.widgets.base.runner import has_active_jobs

        # processEvents leaves them to a loop that is entered, as napari's own
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
        release_free_memory()
        process = psutil.Process()
        window = sum(
            len(item.findChildren(QObject)) for item in QApplication.topLevelWidgets()
        )
        return {
            "MB": process.memory_info().rss / 1e6,
            "threads": process.num_threads(),
            "open files": process.num_fds() if hasattr(process, "num_fds") else 0,
            "temporary files": sum(1 for _ in folder.rglob("*")),
            "objects of Qt": window,
            "jobs": float(has_active_jobs()),
            "layers alive": sum(isinstance(i, Layer) for i in gc.get_objects()),
        }


def play(rounds: int, warm: int, folder: Path, *, close: bool = False) -> int:
    """Play the rounds, print what was counted, and judge."""
    from tests.tiny_models import write_tiny_model
    from tests.widgets.scenes import exposures_of

    models = folder / "models"
    models.mkdir()
    session = Session(write_tiny_model(models), close=close)
    image = exposures_of()[0]
    counts = []
    for number in range(rounds):
        begun = time.perf_counter()
        session.play_closing(image) if close else session.play(image)
        counts.append(session.count(folder))
        said = ", ".join(f"{value:.0f} {key}" for key, value in counts[-1].items())
        print(f"round {number + 1} ({time.perf_counter() - begun:.0f} s): {said}")
    session.viewer.close()
    first, last = counts[warm - 1], counts[-1]
    grown = {key: last[key] - first[key] for key in first}
    said = ", ".join(f"{value:+.0f} {key}" for key, value in grown.items())
    print(f"from round {warm} to {rounds}: {said} (MB: at most {ALLOWED_MB:+.0f})")
    return int(grown.pop("MB") > ALLOWED_MB or max(grown.values()) > 0)


def main() -> int:
    """Play in a folder of its own for temporary files."""
    chosen = read_options(__doc__, "--rounds=50 --warm=10 --close")
    on_a_screen(__file__)
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_CONFIG"] = str(Path(place) / "settings.yaml")
        tempfile.tempdir = place
        return play(chosen.rounds, chosen.warm, Path(place), close=chosen.close)


if __name__ == "__main__":
    sys.exit(main())
