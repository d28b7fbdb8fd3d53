"""What tests of panels share: viewers without pixels, waiting, pictures kept."""

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_semsr.widgets import host
from tests.children import LIMIT_MS, LIMIT_S

pytest.importorskip("napari", reason="needs napari and a Qt binding")

from napari.components import ViewerModel
from npe2 import PluginManifest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QLocale, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QAbstractButton, QApplication, QFileDialog

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.inference.tiles import TileWorker
from napari_semsr.widgets.base.panel import VerbPanel
from napari_semsr.widgets.base.results import set_project_folder
from napari_semsr.widgets.base.runner import is_alive
from napari_semsr.widgets.layers import create_layer_keywords
from tests.widgets.scenes import exposures_of


class PatientBot(QtBot):
    """Waits until it hangs: usually it gives up after five seconds."""

    waitUntil, waitSignal, waitExposed, waitActive = (  # noqa: N815 - Qt's names
        partialmethod(wait, timeout=LIMIT_MS)
        for wait in (
            *(QtBot.waitUntil, QtBot.waitSignal),
            *(QtBot.waitExposed, QtBot.waitActive),
        )
    )


@pytest.fixture
def qtbot(qapp: Any, request: pytest.FixtureRequest) -> QtBot:
    return PatientBot(request)


@pytest.fixture(scope="session")
def display() -> None:
    """Skip what needs a real window where there is no display."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("needs a display; run under xvfb-run")


@pytest.fixture
def german() -> Iterator[None]:
    """Numbers with a decimal comma, as Qt shows them."""
    before = QLocale()
    QLocale.setDefault(QLocale(QLocale.Language.German, QLocale.Country.Germany))
    yield
    QLocale.setDefault(before)


@pytest.fixture
def model() -> ViewerModel:
    """A viewer without a window."""
    return ViewerModel()


@pytest.fixture
def look_at(model: ViewerModel) -> Callable[..., None]:
    """Fill the view with some pixels of a layer that is not turned."""

    def fill(layer: Any, y0: int, y1: int, x0: int, x1: int) -> None:
        middle = np.zeros(layer.ndim)
        middle[-2:] = (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2
        size = y1 - y0, x1 - x0
        if hasattr(model, "canvas"):
            model.canvas.size = size
        else:  # napari before 0.9
            model._canvas_size = size  # noqa: SLF001
        camera = host.get_camera(model)
        camera.center = (0, *layer.data_to_world(middle)[-2:])
        camera.zoom = 1 / layer.scale[-1]

    return fill


@pytest.fixture
def registered(npe2pm: Any) -> None:
    """Let napari open and save by our readers and writers."""
    npe2pm.register(PluginManifest.from_distribution("napari-semsr"))


@pytest.fixture
def no_project() -> Iterator[None]:
    """Leave no project behind into which results would go."""
    yield
    set_project_folder(None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[QUrl]:
    """List what is opened in the web browser, and open none."""
    urls: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: not urls.append(url))
    return urls


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Answer every dialog with a path, and the kind of a suffix or else the first."""

    def answer(path: Path, suffix: str = "") -> Path:
        def ask(_: Any, __: str, ___: str = "", filters: str = "") -> tuple[str, str]:
            kinds = filters.split(";;")
            (kind,) = [k for k in kinds if f"*{suffix})" in k] if suffix else kinds[:1]
            return str(path), kind

        for name in ("getSaveFileName", "getOpenFileName"):
            monkeypatch.setattr(QFileDialog, name, ask)
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(path))
        return path

    return answer


@pytest.fixture
def hold(qapp: Any) -> Iterator[Callable[[Any], Any]]:
    """Let a widget go with its test, unless it has gone before."""
    held: list[Any] = []

    def keep(widget: Any) -> Any:
        held.append(widget)
        return widget

    yield keep
    for widget in filter(is_alive, held):
        widget.close()
        widget.deleteLater()


@pytest.fixture
def finish(qtbot: Any) -> Callable[[VerbPanel], None]:
    """Wait until a panel's job has ended."""

    def wait(panel: VerbPanel) -> None:
        qtbot.waitUntil(lambda: not panel.is_busy, timeout=LIMIT_MS)

    return wait


@pytest.fixture
def run_panel(finish: Callable[[VerbPanel], None]) -> Callable[..., str]:
    """Press Run or a button, wait for the end, return what the panel says."""

    def press(panel: VerbPanel, button: QAbstractButton | None = None) -> str:
        (button or panel.run_button).click()
        finish(panel)
        return panel.status.text()

    return press


@pytest.fixture
def keep_picture(tmp_path: Path) -> Callable[[Any, str], np.ndarray]:
    """Photograph a viewer's window; kept where SEMSR_ARTEFACTS says."""

    def shoot(viewer: Any, name: str) -> np.ndarray:
        folder = Path(os.environ.get("SEMSR_ARTEFACTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        QApplication.processEvents()
        path = folder / f"{name}.png"
        picture = viewer.window.screenshot(str(path), canvas_only=False, flash=False)
        assert path.stat().st_size > 0
        return np.asarray(picture)

    return shoot


@pytest.fixture
def exposures() -> tuple[Micrograph, Micrograph]:
    """One field with independent noise in two exposures, 10 nm pixels."""
    return exposures_of()


@pytest.fixture
def add() -> Callable[..., Any]:
    """Add a micrograph to a viewer as our panels do."""

    def put(viewer: Any, micrograph: Micrograph) -> Any:
        return viewer.add_image(micrograph.data, **create_layer_keywords(micrograph))

    return put


class Computed(list):
    """Places of the tiles that were begun; as many are computed as are allowed."""

    def __init__(self) -> None:
        self._allowed = math.inf
        self._changed = threading.Condition()

    def allow(self, tiles: float = math.inf) -> None:
        """Let so many tiles be computed in all; the next is begun and waits."""
        with self._changed:
            self._allowed = tiles
            self._changed.notify_all()

    def begin(self, places: Sequence[tuple[int, int]]) -> None:
        """Note tiles, and wait until they are allowed."""
        with self._changed:
            self.extend(places)
            self._changed.wait_for(lambda: len(self) <= self._allowed, LIMIT_S)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Computed]:
    """List the tiles that are computed, and let a test say how many may be."""
    made, enhance = Computed(), TileWorker.enhance

    def counted(self: TileWorker, places: Sequence[tuple[int, int]]) -> Any:
        made.begin(places)
        return enhance(self, places)

    monkeypatch.setattr(TileWorker, "enhance", counted)
    yield made
    made.allow()


@pytest.fixture(autouse=True)
def _no_worker_left() -> Iterator[None]:
    """Fail a test that leaves a thread of ours running."""
    yield
    from superqt.utils import WorkerBase

    WorkerBase.await_workers(msecs=LIMIT_MS)
    left = [item for item in WorkerBase._worker_set if item.is_running]  # noqa: SLF001
    assert not left, f"workers left running: {left}"
