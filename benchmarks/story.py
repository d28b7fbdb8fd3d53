"""The main story by mouse: from frames or a file to a saved store and figure.

A window of napari is opened (on a virtual screen where there is no other), and the
buttons and menus that a user presses are pressed by a mouse, each press counted::

    python benchmarks/story.py [IMAGE.tif …]

Stories: the sample scan, and the same frames as a folder, to a figure; the sample of a
mosaic and its SEM image, to the enhanced mosaic; the demonstration's
second scan, then two exposures; six PNG frames of a camera that says nothing of them,
with a black and a doubled one, where the pixel size alone is asked for; and, for each
image that is given, its way through the model that restores it to a saved file. Mosaics
are mapped themselves. The scans from the second one on end with a project that holds
every layer, and a figure.

Entries of a submenu that opens below the mouse are no click, and neither is the Enter
that ends the typing of a path in a dialog of files. Wall-clock times need a quiet
machine. Exit code 1 means that a story took too many clicks or too long, showed an
error, wrote a warning into the console, or left no store or figure behind.
"""

import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from _shared import read_options
from live import settle

CLICKS, TO_FIGURE, TO_ENHANCED, SECONDS = 15, 9, 5, 180.0
TRAINING_S = 120.0  # of Train, as it is set
PATIENCE_S = 900.0
WINDOW = 1360, 860
PLUGIN = "Superlens SEM"


@dataclass
class Told:
    """What a story took, and what it showed."""

    name: str
    clicks: int = 0
    seconds: float = 0.0
    most: int = CLICKS
    longest: float = SECONDS
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # in the console
    said: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong, in few clicks and soon enough."""
        soon = self.clicks <= self.most and self.seconds <= self.longest
        return soon and not (self.errors or self.warnings or self.faults)


def wait_for(met: Callable[[], bool], what: str) -> None:
    """Wait until something has happened."""
    settle(PATIENCE_S, met)
    if not met():
        msg = f"{what} did not happen within {PATIENCE_S:.0f} s."
        raise TimeoutError(msg)
    settle()


class Hand:
    """A mouse in one window of napari, whose clicks are counted."""

    def __init__(self, viewer: Any, told: Told) -> None:
        self.viewer, self.told = viewer, told
        self.steps: Any = None
        self.alone: Any = None  # the panel that was opened without them

    def click(self, widget: Any, place: Any = None) -> None:
        """Click on a widget, in its middle if no place is given."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        if not (widget.isVisible() and widget.isEnabled()):
            msg = f"{widget} cannot be clicked: hidden or disabled."
            raise RuntimeError(msg)
        self.told.clicks += 1
        where = widget.rect().center() if place is None else place
        QTest.mouseClick(
            widget,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            where,
        )
        settle()

    def choose(self, *path: str) -> None:
        """Click on a menu, go along its submenus, and click on an entry."""
        menu = self._menu_bar()
        for place, text in enumerate(path):
            (action,) = (
                item
                for item in menu.actions()
                if item.text().replace("&", "").startswith(text)
            )
            if place in (0, len(path) - 1):
                self.click(menu, menu.actionGeometry(action).center())
            else:
                menu.setActiveAction(action)
                settle()
            menu = action.menu()

    def _menu_bar(self) -> Any:
        from qtpy.QtWidgets import QApplication, QMainWindow

        (window,) = (
            item
            for item in QApplication.topLevelWidgets()
            if isinstance(item, QMainWindow) and item.isVisible()
        )
        return window.menuBar()

    def type_path(self, button: Any, path: Path) -> None:
        """Click on a button that asks for a path, type one, and press Enter."""
        from qtpy.QtCore import Qt, QTimer
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit

        clock = QTimer()
        clock.setInterval(100)

        def type_it() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QFileDialog):
                return
            clock.stop()
            line = dialog.findChild(QLineEdit, "fileNameEdit")
            line.setText(str(path))
            QTest.keyClick(line, Qt.Key.Key_Return)

        clock.timeout.connect(type_it)
        clock.start()
        self.click(button)
        clock.stop()

    def type_number(self, box: Any, number: str) -> None:
        """Click on a box, and type a number in place of what it shows."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        self.click(box)
        box.selectAll()
        QTest.keyClicks(box, number)
        QTest.keyClick(box, Qt.Key.Key_Tab)
        settle()

    # -- in the window of steps ------------------------------------------------

    @property
    def panel(self) -> Any:
        """The panel of the step that is shown, or the one that is open alone."""
        return self.steps.page.panel if self.steps else self.alone

    def open_panel(self, title: str) -> None:
        """Open a panel by the menu."""
        self.choose("Plugins", PLUGIN, title)
        (self.alone,) = (
            item
            for name, item in self.viewer.window.dock_widgets.items()
            if name.startswith(title)
        )
        settle(0.5)

    def open_steps(self) -> None:
        """Open the window of all steps by the menu."""
        from napari_semsr.widgets.window import StepsWindow

        self.choose("Plugins", PLUGIN, "Start here")
        (self.steps,) = (
            item
            for item in self.viewer.window.dock_widgets.values()
            if isinstance(item, StepsWindow)
        )
        settle(0.5)

    def show(self, kind: str) -> None:
        """Choose a panel of the step."""
        page = self.steps.page
        self.click(page.kinds.buttons[page.step.panels.index(kind)])

    def wait(self) -> None:
        """Wait until nothing runs."""
        panel = self.panel
        wait_for(
            lambda: not (panel.is_busy or panel.session.runner.is_busy),
            f"the end of {panel.title}",
        )

    def run(self) -> None:
        """Click on the button that starts a panel, and wait for its end."""
        panel, ran = self.panel, []
        self.wait()
        note = partial(ran.append, True)
        panel.ran.connect(note)
        self.click(panel.run_button)
        self.wait()
        panel.ran.disconnect(note)
        self.told.said.append(f"{panel.title}: {panel.status.text()}")
        if not ran:
            self.told.faults.append(self.told.said[-1])
        if "no pixel size" in panel.warning_label.text():
            self.told.faults.append(f"{panel.title} asks for a pixel size")

    def go_on(self) -> None:
        """Click on Next."""
        self.click(self.steps.next_button)
        settle(0.3)

    def enhance(self, model: str) -> None:
        """Enhance by the model that is proposed, or answer the question for one."""
        from qtpy.QtWidgets import QPushButton

        if self.panel.model.value is None:
            answers = self.panel.model.answers.findChildren(QPushButton)
            self.click(answers[["sem-restore", "ssum-sem"].index(model)])
        proposed = self.panel.model.value
        if proposed != model:
            self.told.faults.append(f"{proposed} was proposed, not {model}")
        self.run()

    def begin_with(self, sample: str) -> None:
        """Open a sample that is offered while nothing is open."""
        buttons = self.steps.beginning.buttons
        (button,) = (item for item in buttons if item.text() == sample)
        self.click(button)
        self.wait()

    def save_figure(self, folder: Path, button: Any = None) -> None:
        """Save a figure of what is seen, by the window if no button is given."""
        button = self.steps.figure_button if button is None else button
        self.type_path(button, folder / "story.png")
        self.wait()
        if not (folder / "story.png").is_file():
            self.told.faults.append("there is no figure")

    def save(self, folder: Path) -> None:
        """Keep all in a project, and what is seen as a figure."""
        panel = self.panel
        self.type_path(panel.run_button, folder / "story.semsr")
        self.wait()
        self.told.said.append(f"{panel.title}: {panel.status.text()}")
        self.save_figure(folder)
        if not (folder / "story.semsr" / "project.json").is_file():
            self.told.faults.append("there is no project")
        if not any((folder / "story.semsr").rglob("*.ome.zarr")):
            self.told.faults.append("no store was saved")


def sample_scan(hand: Hand, folder: Path, *, model: str = "ssum-sem") -> None:
    """Go from the sample scan to a mosaic, to its map, and to a figure."""
    hand.told.most = TO_FIGURE
    hand.open_steps()
    hand.begin_with("Superlens scan")
    _to_map(hand, model)
    hand.save_figure(folder)


def scan_folder(
    hand: Hand, folder: Path, *, scan: Path, model: str = "ssum-sem"
) -> None:
    """Go from a folder of frames to a mosaic, to its map, and to a figure."""
    hand.told.most = TO_FIGURE
    hand.open_steps()
    hand.type_path(hand.steps.beginning.frames_button, scan)
    hand.wait()
    _to_map(hand, model)
    hand.save_figure(folder)


def own_place(hand: Hand, folder: Path) -> None:
    """Go from a mosaic and an SEM image to the enhanced mosaic."""
    hand.told.most, hand.told.longest = TO_ENHANCED, SECONDS + TRAINING_S
    hand.choose("File", "Open Sample", PLUGIN, "Optical and SEM")
    wait_for(lambda: len(hand.viewer.layers) > 1, "the opening of both images")
    hand.open_panel("Train")
    hand.run()


def frames(
    hand: Hand,
    folder: Path,
    *,
    scan: Path,
    model: str = "ssum-sem",
    pixel: str = "",
    exposures: bool = True,
) -> None:
    """Go from a folder of frames to a mosaic, and to its map.

    `pixel`: its side in nm, where the folder does not say it.
    """
    hand.open_steps()
    hand.show("Stitch")
    hand.type_path(hand.panel.folder.choose_btn.native, scan)
    if pixel:
        hand.wait()
        hand.type_number(hand.panel.pixel_size.height_box.native, pixel)
    _to_map(hand, model)
    if exposures:
        _map_exposures(hand)
    hand.go_on()
    hand.save(folder)


def one_image(hand: Hand, folder: Path, *, image: Path, model: str) -> None:
    """Go from a file that napari was started with to its enhanced image, saved."""
    hand.told.most = TO_ENHANCED
    hand.viewer.open(str(image), plugin="napari-semsr")
    hand.open_panel("Enhance")
    hand.enhance(model)
    saved = folder / "story.ome.tif"
    hand.type_path(hand.panel.save_button, saved)
    hand.wait()
    if not saved.is_file():
        hand.told.faults.append("the enhanced image was not saved")


def _to_map(hand: Hand, model: str) -> None:
    """Open or stitch, enhance, and map what was opened or stitched."""
    hand.run()
    hand.go_on()
    hand.enhance(model)
    hand.go_on()
    hand.run()


def _map_exposures(hand: Hand) -> None:
    """Open two exposures of one field, and map what both show."""
    hand.choose("File", "Open Sample", PLUGIN, "Two exposures")
    chosen = hand.panel.first.value, hand.panel.second.value
    if [str(item) for item in chosen] != ["second exposure", "first exposure"]:
        hand.told.faults.append(f"of two exposures {chosen} were proposed")
    hand.run()


# -- what the stories begin with


def simulated_scan(folder: Path, *, noise_seed: int) -> Path:
    """Simulate the demonstration's scan: its second one with a noise seed of 1."""
    from napari_semsr.core import run
    from napari_semsr.demonstration import DemoOptions
    from napari_semsr.jobs import SIMULATE

    made, options = folder / f"scan-{noise_seed}", DemoOptions().create_scan_options()
    other = options.replace(noise_seed=noise_seed, sem_view=False)
    run(SIMULATE.job(out_dir=made, options=other))
    return made


def six_frames(folder: Path, *, frame_px: int = 256) -> Path:
    """Simulate six frames, a black and a doubled one, as PNG without metadata."""
    import numpy as np
    from PIL import Image

    from napari_semsr.core import run
    from napari_semsr.io import open_frames
    from napari_semsr.jobs import SIMULATE, SimulateOptions

    source, made = folder / "source", folder / "six"
    options = SimulateOptions(
        phantom="particles", frames_grid=(2, 3), frame_px=frame_px, overlap=0.4
    )
    run(SIMULATE.job(out_dir=source, options=options))
    taken = run(open_frames(source))
    made.mkdir()
    planes = [np.asarray(taken.read(index), float) for index in range(len(taken))]
    high = max(plane.max() for plane in planes)
    greys = [np.clip(255 * p / high, 0, 255).astype(np.uint8) for p in planes]
    greys[3:3] = [greys[2]]
    greys.insert(5, np.zeros_like(greys[0]))
    for index, grey in enumerate(greys):
        Image.fromarray(grey).save(made / f"frame {index}.png")
    return made


# -- telling


@contextmanager
def window(told: Told) -> Iterator[Hand]:
    """Open a window, and note the errors that it shows, and warnings."""
    import napari
    from napari.utils.notifications import notification_manager

    def note(notification: Any) -> None:
        kind = str(notification.severity).lower()
        if kind in ("error", "critical"):
            told.errors.append(str(notification.message))
        elif kind == "warning":
            told.warnings.append(str(notification.message))

    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(*WINDOW)
    settle(0.5)
    notification_manager.notification_ready.connect(note)
    try:
        with _console(told):
            yield Hand(viewer, told)
    finally:
        notification_manager.notification_ready.disconnect(note)
        _close(viewer)


@contextmanager
def _console(told: Told) -> Iterator[None]:
    """Note the warnings of Python, of what logs, and of Qt."""
    from qtpy.QtCore import qInstallMessageHandler

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.warnings.append(record.getMessage())

    def show(message: Any, category: Any, *_: Any, **__: Any) -> None:
        told.warnings.append(f"{category.__name__}: {message}")

    def hear(_: Any, __: Any, message: str) -> None:
        told.warnings.append(f"Qt: {message}")

    handler, before = Log(logging.WARNING), warnings.showwarning
    logging.getLogger().addHandler(handler)
    warnings.showwarning = show
    qt = qInstallMessageHandler(hear)
    try:
        yield
    finally:
        qInstallMessageHandler(qt)
        warnings.showwarning = before
        logging.getLogger().removeHandler(handler)


def _close(viewer: Any) -> None:
    """Close a window whatever is left unsaved in it."""
    from napari_semsr.widgets.base import get_session

    get_session(viewer).ask = lambda *_: "discard"
    viewer.close()
    settle()


def tell(
    name: str,
    story: Callable[[Hand, Path], None],
    folder: Path,
    picture: Path | None = None,
) -> Told:
    """Go through a story, and note what it took."""
    told = Told(name)
    folder.mkdir(parents=True)
    with window(told) as hand:
        began = time.monotonic()
        try:
            story(hand, folder)
        except (RuntimeError, TimeoutError, ValueError) as error:
            told.faults.append(f"{type(error).__name__}: {error}")
        told.seconds = time.monotonic() - began
        if picture is not None:
            place = str(picture / f"{folder.name}.png")
            hand.viewer.window.screenshot(place, canvas_only=False, flash=False)
    return told


def main() -> int:
    """Tell every story; 1 when one fails."""
    args = read_options(
        __doc__,
        "images*",
        only=(str, "part of the name of the stories to tell"),
        pictures=(Path, "where to keep the last view"),
    )
    with tempfile.TemporaryDirectory(prefix="semsr-story-") as scratch:
        place = Path(scratch)
        os.environ["NAPARI_CONFIG"] = str(place / "settings.yaml")
        os.environ["SEMSR_MODELS"] = str(place / "models")  # none but the bundled
        os.environ["XDG_STATE_HOME"] = str(place / "state")
        stories: dict[str, Callable[[], Callable[[Hand, Path], None]]] = {
            "sample scan, to a figure": lambda: sample_scan,
            "folder of frames, to a figure": lambda: partial(
                scan_folder, scan=simulated_scan(place, noise_seed=2)
            ),
            "mosaic and SEM image, to the enhanced mosaic": lambda: own_place,
            "the demonstration's second scan": lambda: partial(
                frames, scan=simulated_scan(place, noise_seed=1)
            ),
            "six PNG frames": lambda: partial(
                frames, scan=six_frames(place), pixel="20", exposures=False
            ),
        }
        for image in args.images:
            stories[image.name] = partial(
                partial, one_image, image=image.resolve(), model="sem-restore"
            )
        failed = 0
        print("| story | clicks | seconds | errors | warnings | |")
        print("|---|---|---|---|---|---|")
        for number, (name, ready) in enumerate(stories.items()):
            if args.only and args.only not in name:
                continue
            told = tell(name, ready(), place / f"story-{number}", args.pictures)
            verdict = "passed" if told.passed else "FAILED"
            counts = f"{len(told.errors)} | {len(told.warnings)}"
            row = f"{told.clicks} of {told.most} | {told.seconds:.0f} | {counts}"
            print(f"| {name} | {row} | {verdict} |", flush=True)
            for line in (*told.said, *told.errors, *told.warnings, *told.faults):
                print(f"    {line}", file=sys.stderr, flush=True)
            failed += not told.passed
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
