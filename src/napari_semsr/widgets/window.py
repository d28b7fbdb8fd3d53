"""Start here: the window with all steps in order, and the commands of the palette."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from napari import current_viewer
from napari.layers import Image, Layer
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy import QtWidgets
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]
from qtpy.QtGui import QResizeEvent

from napari_semsr.core import Job, Progress
from napari_semsr.io import FOLDER_KEY
from napari_semsr.widgets import base, hooks
from napari_semsr.widgets.layers import have_same_grid, is_made_from, list_grey_layers


class WorkStep(NamedTuple):
    """Step of the workflow, with one or more panels."""

    key: str
    title: str  # label of its button, short: several fit into 320 px
    hint: str  # one line
    panels: tuple[str, ...]  # titles; the first is shown first


STEPS = (
    WorkStep(
        "open",
        "Images",
        "Open an image, or stitch frames into a mosaic.",
        ("Open", "Stitch"),
    ),
    WorkStep(
        "register",
        "Register",
        "Register the mosaic and an SEM image of part of it, or train a network on "
        "them.",
        ("Register", "Train"),
    ),
    WorkStep("enhance", "Enhance", "Remove blur and noise.", ("Enhance",)),
    WorkStep(
        "measure",
        "Measure",
        "Measure resolution, quality and sizes.",
        ("Resolution", "Spectrum and quality", "Compare", "Profile", "Particles"),
    ),
    WorkStep(
        "save", "Save", "Save layers, figures and the project.", ("Save", "Figure")
    ),
)
_SAMPLES = {
    "SEM image": hooks.degraded_and_truth,
    "Two exposures": hooks.two_exposures,
    "Superlens scan": hooks.superlens_scan,
    "Optical and SEM": hooks.optical_and_sem,
}
"""Samples on the first page, by their names in the manifest."""

_CHECK_MARK = "\N{CHECK MARK} "
_MARGIN = 6  # like that of the panels
_LETTERS = (1, 0.9, 0.8, 0.7)  # relative font sizes; chosen: the last is readable


class ButtonRow(base.WrappingRow):
    """Row of exclusive buttons that wraps onto as many lines as needed."""

    button_chosen = QtSignal(int)
    """Emits the index of the button that was pressed."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.buttons: list[QtWidgets.QPushButton] = []
        self._group = QtWidgets.QButtonGroup(self)
        for number, (text, tooltip) in enumerate(texts):
            button = base.create_button(text, self._on_button_pressed, tooltip)
            button.setCheckable(True)
            self._group.addButton(button, number)
            self.insert_widget(number, button)
            self.buttons.append(button)
        base.set_widget_visible(self, len(texts) > 1)

    def _on_button_pressed(self) -> None:
        self.button_chosen.emit(self._group.checkedId())


class StepRow(ButtonRow):
    """Row of buttons on one line, with a smaller font if the dock is too narrow."""

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 - Qt's name
        """Fit the font size to the new width."""
        super().resizeEvent(event)
        self.fit()

    def fit(self) -> None:
        """Use the largest font size that keeps all buttons on one line."""
        points = self.font().pointSizeF()
        for share in _LETTERS:
            style = f"QPushButton {{ font-size: {share * points:.1f}pt; }}"
            if (style := "" if share == 1 else style) != self.styleSheet():
                self.setStyleSheet(style)
            if self.sizeHint().width() <= self.width():
                return


def _can_register(images: Sequence[Image], one: Image, other: Image) -> bool:
    """Return whether two of the images may show one area, and are not registered.

    Neither is made of the other, and none is made of both.
    """
    return not (
        is_made_from(one, other)
        or is_made_from(other, one)
        or have_same_grid(one, other)
        or any(is_made_from(i, one) and is_made_from(i, other) for i in images)
    )


def _create_margin_layout(*widgets: QtWidgets.QWidget) -> QtWidgets.QVBoxLayout:
    """Lay out widgets vertically, with the margins of panels."""
    column = QtWidgets.QVBoxLayout()
    column.setContentsMargins(_MARGIN, 0, _MARGIN, 0)
    for widget in widgets:
        column.addWidget(widget)
    return column


class StartPage(QtWidgets.QWidget):
    """Page shown while no image is open, with samples and links to the manual."""

    frames_chosen = QtSignal(object)
    """Emits the selected folder of frames."""

    def __init__(self, open_sample: Callable[[str], object]) -> None:
        super().__init__()
        text = "Nothing is open. Choose a file below, or a folder of frames."
        tip, ask = "Choose a folder of frames to stitch.", self._ask_frame_folder
        self.frames_button = base.create_button("Folder of frames…", ask, tip)
        tip, show = "Open a ten-minute tutorial with a sample.", base.open_manual
        self.help_button = base.create_button(
            "First steps", lambda: show("first-steps.md"), tip
        )
        tip = "Simulate it; takes a few seconds."
        self.buttons = [
            base.create_button(name, partial(open_sample, name), tip)
            for name in _SAMPLES
        ]
        first = base.WrappingRow(self.frames_button, self.help_button)
        texts = base.RichTextLabel(text), base.RichTextLabel("Or open a sample:")
        samples = base.WrappingRow(*self.buttons)
        base.stack_widgets(self, texts[0], first, texts[1], samples)

    def _ask_frame_folder(self) -> None:
        if folder := base.ask_existing_folder(self, "Folder of frames"):
            self.frames_chosen.emit(folder)


def _simulate_sample(name: str) -> Job[list[hooks.LayerData]]:
    """Simulate a sample, and return the data of its layers."""
    yield Progress(0, 0, f"simulating the sample {name}")
    return _SAMPLES[name]()


class StepPage(QtWidgets.QWidget):
    """Page with the panels of one step, each created on first use."""

    page_changed = QtSignal()
    """Emitted when another panel is shown."""
    ran = QtSignal(str)
    """Emits the step when one of its panels has run."""

    def __init__(self, viewer: Viewer, step: WorkStep) -> None:
        super().__init__()
        self.step = step
        self.panels: dict[str, base.VerbPanel] = {}  # panels that were shown, by title
        self._viewer = viewer
        self.kinds = ButtonRow([(title, step.hint) for title in step.panels])
        self.kinds.button_chosen.connect(self._show_numbered)
        self.stack = QtWidgets.QStackedLayout()
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(_create_margin_layout(self.kinds))
        column.addLayout(self.stack, stretch=1)

    @property
    def panel(self) -> base.VerbPanel | None:
        """Current panel, or None if no panel has been shown yet."""
        widget = self.stack.currentWidget()
        return widget if isinstance(widget, base.VerbPanel) else None

    def _show_numbered(self, number: int) -> None:
        self.show_kind(self.step.panels[number])

    def _report_run(self) -> None:
        self.ran.emit(self.step.key)

    def show_kind(self, title: str | None = None) -> None:
        """Show a panel; by default, the last one shown."""
        if title is None:
            if self.panel is not None:
                return
            title = self.step.panels[0]
        if title not in self.panels:
            panel = base.create_panel(self._viewer, base.PANELS[title][0])
            self.panels[title] = panel
            panel.sharing.figure_button.hide()  # the window has one for all steps
            self.stack.addWidget(panel)
            panel.ran.connect(self._report_run)
        self.stack.setCurrentWidget(self.panels[title])
        self.kinds.buttons[self.step.panels.index(title)].setChecked(True)
        self.page_changed.emit()


class StepsWindow(base.DockContent):
    """Widget that guides the user through the steps, passing results between panels."""

    title = "Start here"
    page_changed = QtSignal()
    """Emitted when another step or panel is shown."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        # otherwise napari adds a stretch below, larger for each window of a session
        policies = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policies.Preferred, policies.Expanding)
        self._ran: set[str] = set()
        texts = [(step.title, step.hint) for step in STEPS]
        self.steps = StepRow(texts)
        self.steps.button_chosen.connect(self.show_step)
        self.hint = base.RichTextLabel()
        self.beginning = StartPage(self._open_sample)
        self.beginning.frames_chosen.connect(self._show_frames)
        tip = "Continue with the result of this step."
        self.next_button = base.create_button("Next", self.show_next, tip)
        tip = "Save all visible images as one figure for a paper."
        self.figure_button = base.create_button("Save figure…", self._save_figure, tip)
        self.pages = [StepPage(viewer, step) for step in STEPS]
        holder = QtWidgets.QWidget()  # napari looks for widgets in its docks
        self.stack = QtWidgets.QStackedLayout(holder)
        for page in self.pages:
            self.stack.addWidget(page)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, _MARGIN, 0, _MARGIN)
        column.addLayout(_create_margin_layout(self.steps, self.hint, self.beginning))
        column.addWidget(holder, stretch=1)
        foot = base.WrappingRow(self.next_button, self.figure_button)
        column.addLayout(_create_margin_layout(foot))
        viewer.layers.events.inserted.connect(self._on_layer_inserted)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self.show_step(0)
        visible = [layer for layer in viewer.layers if layer.visible]
        if any(FOLDER_KEY in layer.metadata for layer in visible):
            self.pages[0].show_kind("Stitch")
        for page in self.pages:
            page.page_changed.connect(self.page_changed)
            page.page_changed.connect(self._update_step_marks)
            page.ran.connect(self._on_run_finished)
        base.get_session(viewer).watch_steps(self)

    # -- going from step to step ------------------------------------------------

    @property
    def page(self) -> StepPage:
        """Page of the current step."""
        return self.pages[self.stack.currentIndex()]

    def show_step(self, number: int) -> None:
        """Show the step with the given number."""
        self.stack.setCurrentIndex(number)
        self.page.show_kind()
        self.steps.buttons[number].setChecked(True)
        self.hint.setText(STEPS[number].hint)
        self._update_step_marks()
        self.page_changed.emit()

    def show_panel(self, title: str) -> base.VerbPanel | None:
        """Show the panel with the given title, in any step; return None if missing."""
        for number, page in enumerate(self.pages):
            if title in page.step.panels:
                page.show_kind(title)
                self.show_step(number)
                return page.panel
        return None

    def _save_figure(self) -> None:
        if self.page.panel is not None:
            self.page.panel.sharing.save_figure()

    def _open_sample(self, name: str, _: bool = False) -> None:
        """Simulate a sample in the background, and add its layers."""
        if (panel := self.page.panel) is not None:

            def add_layers(layer_data: list[hooks.LayerData]) -> Iterator[None]:
                for one in layer_data:
                    self.viewer.add_layer(Layer.create(*one))
                    yield
                panel.messages.show_status(f"Opened {name}.")

            simulate = partial(_simulate_sample, name)
            panel.controls.start(simulate, add_layers, "Open sample")

    def _show_frames(self, folder: Path) -> None:
        """Show a folder of frames in the stitching step."""
        panel: Any = self.show_panel("Stitch")
        panel.folder.value = folder
        self.beginning.hide()

    def state(self) -> dict[str, object]:
        """Return the current step, the panel of each step, and the finished steps."""
        shown = {page.step.key: page.panel for page in self.pages}
        panels_shown = {key: one.title for key, one in shown.items() if one is not None}
        steps_done = sorted(self._ran)
        return {"step": self.page.step.key, "panels": panels_shown, "done": steps_done}

    def show_state(self, state: dict[str, Any]) -> None:
        """Restore a `state`, ignoring unknown entries."""
        panels = state.get("panels") or {}
        for page in self.pages:
            # earlier projects have ``module:class`` of the panel
            name = str(panels.get(page.step.key)).rpartition(":")[2]
            if (title := base.find_title(name)) in page.step.panels:
                page.show_kind(title)
        keys = [step.key for step in STEPS]
        self._ran |= {*keys} & {*(state.get("done") or ())}
        self._update_step_marks()
        if state.get("step") in keys:
            self.show_step(keys.index(state["step"]))

    def show_next(self) -> None:
        """Show the next step that the open layers allow."""
        self.show_step(min([*self._find_later_steps(), len(STEPS) - 1]))

    def _find_later_steps(self) -> list[int]:
        """Return the later steps that the open layers allow."""
        numbers = range(self.stack.currentIndex() + 1, len(STEPS))
        images = self._get_open_images()
        pairs = combinations(images, 2)
        has_pair = any(_can_register(images, *pair) for pair in pairs)
        return [n for n in numbers if STEPS[n].key != "register" or has_pair]

    def _get_open_images(self) -> list[Image]:
        """Return the open grey images that are not frames."""
        grey = list_grey_layers(self.viewer)
        return [layer for layer in grey if FOLDER_KEY not in layer.metadata]

    def _on_layer_inserted(self, event: Event) -> None:
        """Show the stitching panel if frames are opened, and update the progress."""
        layer = event.value
        frames = FOLDER_KEY in layer.metadata and layer.visible  # or stitched
        if frames and base.is_alive(self):
            self.show_step(0)
            self.page.show_kind("Stitch")
        self._update_step_marks()

    def _on_layer_removed(self, _: object = None) -> None:
        """Reset the progress when no layer is left."""
        if not self.viewer.layers:
            self._ran.clear()
        self._update_step_marks()

    # -- progress ------------------------------------------------------------------

    def _on_run_finished(self, key: str) -> None:
        self._ran.add(key)
        self._update_step_marks()
        self.page_changed.emit()

    def _update_step_marks(self, _: object = None) -> None:
        """Show which steps are finished, and which one is next."""
        if not base.is_alive(self):
            return
        has_opened, later = bool(self._get_open_images()), self._find_later_steps()
        first = self.stack.currentIndex() == 0
        self.beginning.setVisible(first and not self.viewer.layers)
        self.next_button.setVisible(bool(later) and (has_opened or not first))
        panel = self.page.panel
        is_figure = panel is not None and panel.title == "Figure"  # which has its own
        self.figure_button.setVisible(has_opened and not is_figure)
        if later:
            self.next_button.setText(f"Next: {STEPS[later[0]].title}")
        for page, button in zip(self.pages, self.steps.buttons, strict=True):
            step = page.step
            is_done = step.key in self._ran or (step is STEPS[0] and has_opened)
            asks = any(panel.asks_question for panel in page.panels.values())
            mark = _CHECK_MARK if is_done and not asks else ""
            button.setText(f"{mark}{step.title}")
        self.steps.fit()


# Commands of the palette open the panel that has what they name.


def __getattr__(name: str) -> Callable[[], None]:
    """Return the command that opens a panel, named ``open_`` plus one of its names."""
    title = base.find_title(name.removeprefix("open_"))
    if title is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return partial(_open_panel, title)


def _open_panel(panel: str) -> Any:
    viewer = current_viewer()
    return None if viewer is None else base.open_panel(viewer, panel)


def denoise() -> None:
    """Open the Train panel to train a denoiser on the active layer only."""
    panel = _open_panel("Train")
    if panel is not None:
        panel.take_noisy(panel.viewer.layers.selection.active)
