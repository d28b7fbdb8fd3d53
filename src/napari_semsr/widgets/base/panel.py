"""Base of all panels: a scrolling form, Run and Cancel, progress, status."""

import html
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Select
from magicgui.widgets.bases import CategoricalWidget
from napari.components import ViewerModel
from napari.layers import Image, Labels as LabelLayer, Layer
from napari.utils.events import Event
from napari.utils.notifications import show_error, show_info, show_warning
from napari.viewer import Viewer
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QEvent,
    Qt,
    QUrl,
    Signal as QtSignal,
)
from qtpy.QtGui import (  # type: ignore[attr-defined]
    QHideEvent,
    QKeySequence,
    QShortcut,
    QShowEvent,
)
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QGroupBox,
    QLineEdit,
    QListWidget,
    QProgressBar,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_semsr.core import (
    Figure,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    SemsrError,
    format_pixel_size,
)
from napari_semsr.io import FOLDER_KEY, HELPER_KEY, LIVE_KEY, NETWORK_KEY, STORE_KEY
from napari_semsr.jobs import (
    REPORT,
    ConvertedFile,
    FigureOptions,
    PanelFindings,
    ReportMade,
    Verb,
    save_image,
)
from napari_semsr.widgets import host
from napari_semsr.widgets.base.docking import tabify_widget
from napari_semsr.widgets.base.findings import (
    MADE_BY,
    Columns,
    Findings,
    Numbers,
    copy_to_clipboard,
)
from napari_semsr.widgets.base.folding import (
    TEXTS,
    CollapsibleSection,
    RichTextLabel,
    ScrollBox,
    WrappingRow,
    create_link,
    set_up_scroll_area,
    stack_widgets,
)
from napari_semsr.widgets.base.form import (
    Form,
    Labels,
    convert_names_to_panel_labels,
    create_button,
)
from napari_semsr.widgets.base.history import MADE_KEY, get_removed_layers
from napari_semsr.widgets.base.manual import find_manual_section, open_manual, show_file
from napari_semsr.widgets.base.results import (
    add_luminance_layer,
    apply_stated_pixel_size,
    crop_databar,
    describe_databar,
    get_databar_row_count,
    get_stated_pixel_size,
    is_coloured,
    is_saved_by_user,
    is_unsaved,
)
from napari_semsr.widgets.base.runner import (
    JobRequest,
    JobRunner,
    Parts,
    check_path_unused,
    create_timer,
    destroy_widget_after_jobs,
    is_alive,
)
from napari_semsr.widgets.base.saving import (
    ask_output_file,
    ask_save_path,
    check_output_not_source,
    check_stack_format,
    draw_figure,
    record_saved_path,
)
from napari_semsr.widgets.base.session import (
    describe_unsaved_content,
    get_session,
    set_form_values,
)
from napari_semsr.widgets.base.temporary import is_temporary
from napari_semsr.widgets.base.together import RUN_KEY
from napari_semsr.widgets.layers import (
    SOURCES_KEY,
    disable_cache,
    format_layer_and_plane,
    format_plane_name,
    get_display_settings,
    get_displayed_plane,
    get_identity,
    get_network_name,
    get_source_identities,
    is_map,
    list_grey_layers,
    list_image_layers,
    list_planes,
    micrograph_from_layer,
)

if TYPE_CHECKING:
    from napari_semsr.widgets.base.plots import PlotCanvas

RUN, CANCEL, HELP = "Ctrl+Return", "Escape", "F1"
HIDE, FLIP = "Ctrl+Shift+H", "Ctrl+Shift+B"


def bind_key(
    widget: QWidget, key: str, call: Callable[[], object], *, anywhere: bool = False
) -> QShortcut:
    """Bind a key to a function while a widget has the focus or is visible."""
    context = Qt.ShortcutContext.WidgetWithChildrenShortcut
    if anywhere:  # the canvas has the focus while the user looks at a result
        context = Qt.ShortcutContext.WindowShortcut
    shortcut = QShortcut(QKeySequence(key), widget)
    shortcut.setContext(context)
    shortcut.activated.connect(call)
    shortcut.activatedAmbiguously.connect(call)  # two panels are visible
    return shortcut


class ResultSwitch:
    """Switch that hides and restores the layers added by a panel."""

    def __init__(self, viewer: ViewerModel, panel: str) -> None:
        self._viewer, self._panel = viewer, panel
        # the layer or layers that they were made from
        self.under: Layer | list[Layer] | None = None
        self._before: dict[Layer, bool] = {}

    def toggle_input(self) -> None:
        """Show the input instead of the result, or switch back."""
        self.toggle_results(self.under if isinstance(self.under, Layer) else None)

    def toggle_results(self, under: Layer | None = None) -> None:
        """Hide the results, or show them again."""
        layers = self._viewer.layers
        before, self._before = self._before, {}
        if before:
            for item in before.keys() & set(layers):
                item.visible = before[item]
            return
        layers_made = (
            item for item in layers if item.metadata.get(MADE_KEY) == self._panel
        )
        layers_shown = [item for item in layers_made if item.visible]
        if not layers_shown:
            return
        self._before = dict.fromkeys(layers_shown, True)
        if under is not None and under in layers:
            self._before[under] = under.visible
            under.visible = True
        for item in layers_shown:
            item.visible = False


_MINIMUM_WIDTH = 320  # of a panel; chosen
_PLOTS = "napari_semsr.widgets.base.plots"
_LINES = 4  # lines of messages that are visible; chosen: most are shorter
_MAX_LINES = 12  # lines of unfolded messages; more scrolls
_LOOK_MS = 500  # ms between two checks whether the cause of an error is gone; chosen
# ms between two updates of progress. Each repaints the whole window, which takes 14 ms
# of a core without a GPU. napari's bar is not used: its animation repaints 27 times a
# second, and cost eight times as much as the stitching that it reported.
_STEP_MS = 250
_QUEUE, _CANCEL_QUEUED = "Queue", "Cancel queued"
_WHAT_TO_DO = "What to do"
_ESTIMATE = "The image content is an estimate, not a measurement."
_RUNNING = "A job is running; cancel it first."
_PAGES = {"Page for a browser (*.html)": ".html"}
_TABLES = {"Table for spreadsheets (*.csv)": ".csv"}
_PICTURES = {"PNG, 300 dpi (*.png)": ".png", "SVG, text as text (*.svg)": ".svg"}
_PAPERS = {
    "PDF (*.pdf)": ".pdf",
    "PNG (*.png)": ".png",
    "TIFF (*.tif)": ".tif",
}
_Part = TypeVar("_Part", bound=QWidget)
_Make = Callable[[], Job[object]]
_Show = Callable[[Any], Parts]
_Begin = Callable[[], Parts]
_Planes = dict[Image, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PanelTask:
    """Task started by Run; all callbacks except the job may be generators.

    The window repaints and responds at each ``yield``.
    """

    make: _Make  # returns the job
    show: _Show  # called with its result
    begin: _Begin | None = None  # called before the job starts


def is_plotting_imported() -> bool:
    """Return whether the plotting packages are imported."""
    return _PLOTS in sys.modules


def _run_job_with_plotting(make: _Make) -> Job[object]:
    """Import and warm up the packages that show a job's result, in the job's thread.

    matplotlib takes a second or more, and so do napari's imports for the first layer
    with labels or features.
    """
    if not is_plotting_imported():
        yield Progress(0, 0, "Starting matplotlib (once after napari starts)")
        importlib.import_module(_PLOTS).warm_up_plotting()
        LabelLayer(np.zeros((1, 1), np.uint8))
    return (yield from make())


def _get_modification_time(path: str) -> int | None:
    """Return the modification time of a path in ns, or None if it does not exist."""
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError):
        return None


class FindingsBar(WrappingRow):
    """Buttons that copy and save a panel's results."""

    def __init__(self, panel: "Panel") -> None:
        super().__init__()
        self._panel = panel
        self.copy_button = create_button(
            "Copy",
            self.copy_numbers,
            "Copy the numbers for pasting into a spreadsheet.",
        )
        self.save_button = create_button(
            "Save numbers…",
            self.save_numbers,
            "Save the numbers, and all curves of the plot, as a CSV table with units.",
        )
        self.plot_button = create_button(
            "Save plot…",
            self.save_plot,
            "Save the plot on a white background, as PNG (300 dpi) or SVG.",
        )
        self.figure_button = create_button(
            "Save figure…",
            panel.save_figure,
            "Save all visible images as one figure for a paper, with scale bar, "
            "colour bar and caption.",
        )
        self.page_button = create_button(
            "Report…",
            panel.report_findings,
            "Measure the layers again with all suitable methods, and write a "
            "printable page with images, numbers with their methods, and text for a "
            "Methods section.",
        )
        sharing = self.copy_button, self.save_button, self.plot_button
        pages = self.figure_button, self.page_button
        for place, button in enumerate((*sharing, *pages)):
            self.insert_widget(place, button)

    def refresh(self) -> None:
        """Show the buttons that apply to the current results."""
        findings = self._panel.findings()
        self.setVisible(bool(findings.numbers or findings.curves))
        self.plot_button.setVisible(findings.plot is not None)
        self.page_button.setVisible(self._panel.reports)

    def copy_numbers(self) -> None:
        """Copy the numbers."""
        self._panel.show_status(copy_to_clipboard(self._panel.findings().to_text()))

    def save_numbers(self) -> None:
        """Ask for a file name, and write numbers and curves."""
        findings = self._panel.findings()
        self._panel.save_file(
            "Save numbers", findings.title, _TABLES, findings.write_csv
        )

    def save_plot(self) -> None:
        """Ask for a file name, and save the plot."""
        findings = self._panel.findings()
        if findings.plot is not None:
            write = partial(
                findings.plot.save, origin=findings.origin, caption=findings.caption
            )
            self._panel.save_file("Save plot", findings.title, _PICTURES, write)


def _refresh_layer_choices(box: CategoricalWidget[Any]) -> None:
    """Update a layer list, keeping the selection even if a layer was renamed.

    magicgui identifies the choice by its name.
    """
    before, many = box.value, isinstance(box, Select)
    with box.changed.blocked():
        box.reset_choices()
        left = [item for item in (before if many else [before]) if item in box.choices]
        if many:
            box.value = left
        elif left:
            box.value = left[0]
    if box.value != before:
        box.changed.emit(box.value)


_in_view: set[QWidget] = set()
"""Panels that are shown without a dock.

A script may keep no reference to one. Python could then destroy it during a garbage
collection while Qt paints it, and Qt crashes.
"""


class Panel(QWidget):
    """Base class of the panels."""

    plots = False
    """Whether a result is plotted."""
    reports = True
    """Whether the panel offers a report on its layers (false if it writes its own
    report).
    """
    help_place = "panels.md"  # page and heading of the manual

    @property
    def asks_question(self) -> bool:
        """Whether the result asks the user a question, so the step is not finished."""
        return False

    ran = QtSignal()
    """Emitted when the result of Run is shown."""
    closed = QtSignal()
    """Emitted when the panel is removed from its dock."""

    queue: str | None = "computing"
    """Queue for jobs started by Run; jobs in the same queue run one after another."""

    def __init__(self, viewer: Viewer, title: str, run_label: str = "Run") -> None:
        super().__init__()
        self.viewer = viewer
        self.title = title
        self.setMinimumWidth(_MINIMUM_WIDTH)
        self._boxes: list[CategoricalWidget[Any]] = []
        self._input: CategoricalWidget[Any] | None = None
        self._active: Layer | None = None  # the last active one
        self._adding = False
        self._layers_shown: list[Layer] = []  # while a result is being shown
        self.unread: list[QWidget] = []  # parts of the form without effect on a run
        self._results_title = ""
        self._folds = False  # whether the numbers below the large one can be folded
        self._run_label, self._cancel_label = run_label, "Cancel"
        self.after_cancel = "no layer was added"
        self.plot: PlotCanvas | None = None
        self._findings = Findings(title)
        self._layers_read: _Planes = {}  # planes of the layers that were read
        self._source_planes: _Planes = {}  # planes of the layers of the result
        self.runner, self.saver, self.looker = (JobRunner(self) for _ in range(3))
        self._runners = self.runner, self.saver, self.looker
        self._connect_runners()
        self.own_layers: list[
            Image
        ] = []  # layers made by this panel that are in the viewer
        self._switch = ResultSwitch(viewer, title)
        self.all_planes: CheckBox | None = None
        self._build_layout()
        self.history, self.session = get_removed_layers(viewer), get_session(viewer)
        self.session.changed.connect(self._show_unsaved_content)
        bind_key(self, RUN, self.run_button.click)
        bind_key(self, RUN.replace("Return", "Enter"), self.run_button.click)
        bind_key(self, HELP, self.show_help)
        bind_key(self, HIDE, self._switch.toggle_results, anywhere=True)
        bind_key(self, FLIP, self._switch.toggle_input, anywhere=True)
        self._escape = bind_key(self, CANCEL, self.cancel_button.click)
        self._escape.setEnabled(False)  # Escape has other uses when nothing is running
        viewer.dims.events.connect(self._show_plane)
        events = viewer.layers.events
        for name in ("inserted", "removed", "reordered", "renamed"):
            getattr(events, name).connect(self._on_layers_changed)

    def _connect_runners(self) -> None:
        for runner in self._runners:
            runner.stepped.connect(self._show_step)
            runner.failed.connect(self._show_job_problem)
            runner.error_logged.connect(self._show_log_link)
            runner.warned.connect(self.show_warning)
            runner.busy_changed.connect(self._update_buttons)
        self.runner.busy_changed.connect(self._show_busy)
        self.runner.cancelled.connect(self._show_cancelled)
        self.looker.cancelled.connect(self._show_inspection_cancelled)
        self.saver.cancelled.connect(self._report_saving_cancelled)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Cancel the job and destroy the panel when it is removed from its dock.

        Closing a dock does not destroy its content, which only loses its parent.
        """
        parent_changed = event is not None and event.type() == QEvent.Type.ParentChange
        if parent_changed and self.parent() is None:
            self.cancel_all_jobs()
            destroy_widget_after_jobs(self)
        super().changeEvent(event)

    def cancel_all_jobs(self) -> None:
        """Cancel all jobs, and remove waiting ones from the queue."""
        for runner in self._runners:
            runner.cancel()
        self.closed.emit()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Tabify with the plugin's other docks, and register with the session."""
        super().showEvent(event)
        if self.isWindow():
            _in_view.add(self)
        tabify_widget(self, self.title)
        self.session.watch_panel(self)
        for box in self._boxes:  # a result shown while computed has a history now
            _refresh_layer_choices(box)
        self._show_databar()  # the input may have one by now
        self._update_offered_actions()

    def restore_values(self, values: dict[str, Any]) -> None:
        """Restore the form values that a project stores for this panel."""
        set_form_values(self, values)

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Release the reference to a panel without a dock."""
        super().hideEvent(event)
        _in_view.discard(self)

    def _build_layout(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 6, 6, 6)
        self.content = QWidget()
        self.body = QVBoxLayout(self.content)
        self.body.setContentsMargins(0, 0, 6, 0)
        self.databar_button = create_button(
            "Crop the data bar",
            self.crop_databar,
            "Remove the rows that look like a data bar.",
        )
        self.size_button = create_button(
            "Use the stated pixel size",
            self.apply_stated_sizes,
            (
                "Set the pixel sizes of the selected layers to those stated in their "
                "files."
            ),
        )
        self.grey_button = create_button(
            "Use the luminance",
            self.select_luminance,
            "Add the luminance of the selected layer as a grey layer.",
        )
        self.offers = self.databar_button, self.size_button, self.grey_button
        for button in self.offers:
            button.setVisible(False)
            # its text wraps and never widens the panel
            vertical = button.sizePolicy().verticalPolicy()
            button.setSizePolicy(QSizePolicy.Policy.Ignored, vertical)
            self.body.addWidget(button)
        self.body.addStretch(1)
        self.scroll_area = QScrollArea()
        set_up_scroll_area(self.scroll_area, self.content)
        outer.addWidget(self.scroll_area, stretch=1)
        outer.addLayout(self._build_footer())

    def _build_footer(self) -> QVBoxLayout:
        foot = QVBoxLayout()
        tooltip = f"{self.title}: start with the settings above ({RUN})."
        self.run_button = create_button(self._run_label, self.run, tooltip)
        tooltip = f"Stop after the current step ({CANCEL})."
        self.cancel_button = create_button(self._cancel_label, self.cancel, tooltip)
        self.cancel_button.setEnabled(False)
        tooltip = "Save the layer created by this panel in a format of your choice."
        self.save_button = create_button("Save…", self.save, tooltip)
        self.save_button.setVisible(False)
        tooltip = (
            f"Open the manual page of this panel ({HELP}).\n{HIDE} hides or shows the "
            f"results, and {FLIP} shows their input."
        )
        self.help_button = create_button("?", self.show_help, tooltip)
        fixed_policy = QSizePolicy.Policy.Fixed
        self.help_button.setSizePolicy(fixed_policy, fixed_policy)
        self.run_button.setProperty(TEXTS, [self._run_label, _QUEUE])
        self.cancel_button.setProperty(TEXTS, [self._cancel_label, _CANCEL_QUEUED])
        self.buttons = WrappingRow(
            self.run_button, self.cancel_button, self.save_button, self.help_button
        )
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(True)
        self.progress_bar.setVisible(False)
        for part in (
            self.progress_bar,
            self.save_button,
        ):  # fixed height: nothing moves
            policy = part.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            part.setSizePolicy(policy)
        self.unsaved_label = RichTextLabel()
        self.status, self.plane, self.warning_label = (
            RichTextLabel(),
            RichTextLabel(),
            RichTextLabel(),
        )
        texts = (self.status, self.warning_label, self.unsaved_label, self.plane)
        self.notes = ScrollBox(*texts, lines=_LINES, most_lines=_MAX_LINES)
        self._mending = create_timer(self, self._check_resolved_error, _LOOK_MS)
        self._causes: tuple[object, ...] | None = (
            None  # causes of the error that is shown
        )
        self._stepping = create_timer(
            self, self._set_updates_enabled, _STEP_MS, once=True
        )
        # above the buttons, which do not move when it is unfolded
        for row in (self.notes, self.progress_bar, self.buttons):
            foot.addWidget(row)
        return foot

    # -- parts for the panels ---------------------------------------------

    def add_group(self, title: str, *widgets: QWidget) -> QGroupBox:
        """Add a titled group to the scroll area."""
        group = QGroupBox(title)
        stack_widgets(group, *widgets).setContentsMargins(8, 12, 8, 8)
        self.body.insertWidget(self.body.count() - 1, group)
        return group

    def add_results(
        self,
        title: str,
        *widgets: QWidget,
        helpers: str = "",
        ticks: Sequence[QWidget] = (),
        below: Sequence[QWidget] = (),
    ) -> None:
        """Add the results group, hidden until there are results.

        `helpers` is the label of the tick box for the panel's helper layers, which is
        above the common buttons, with other `ticks`.
        """
        self.headline, self.remarks = RichTextLabel(), RichTextLabel()
        self.figures, self._results_title = RichTextLabel(), title
        tooltip = "Show all numbers of the result with their methods."
        self.all_figures = CollapsibleSection("All numbers", tooltip, self.figures)
        self.helpers = CheckBox(
            text=helpers,
            tooltip="Show the layers that explain the result.",
        )
        self.helpers.changed.connect(self._show_helper_layers)
        parts = (self.headline, self.remarks, self.all_figures)
        widgets = (*widgets, *parts, *ticks, self.helpers.native)
        self.sharing = FindingsBar(self)
        self.results = self.add_group(title, *widgets, self.sharing, *below)
        self.results.setVisible(False)
        self.unread.append(self.results)

    def _find_helper_layers(self) -> list[Layer]:
        layers = self.viewer.layers
        return [item for item in layers if item.metadata.get(HELPER_KEY) == self.title]

    def _show_helper_layers(self, is_shown: bool) -> None:
        for layer in self._find_helper_layers():
            layer.visible = is_shown

    @contextmanager
    def replace_earlier_layers(
        self,
        *of: Layer | str,
        path: Path | None = None,
        leader: Layer | None = None,
    ) -> Iterator[list[Layer]]:
        """Replace layers of an earlier run on the inputs with those added in the block.

        Yields the earlier ones, to be removed first. Layers that the user renamed or
        saved are kept, except one of the store `path`. The order of layers and the view
        are kept. `leader`: a result next to those of earlier runs, which the added
        layers explain.
        """
        layers = self.viewer.layers
        names = [one if isinstance(one, str) else get_identity(one) for one in of]
        run = {"by": self.title, "of": " and ".join(names)}
        places = {
            item.name: place
            for place, item in enumerate(layers)
            if item.metadata.get(RUN_KEY) == run | {"name": item.name}
            and (
                HELPER_KEY in item.metadata
                or not is_saved_by_user(item)
                or item.metadata.get(STORE_KEY) == str(path and path.resolve())
            )
        }
        camera, active = host.get_camera(self.viewer), layers.selection.active
        center, zoom = camera.center, camera.zoom
        layers_placed = (
            self._layers_shown if self._adding else layers
        )  # in one go, or in parts
        before = list(layers_placed)
        yield [layers[name] for name in places]
        layers_added = [
            item for item in layers_placed if item in layers and item not in before
        ]
        for item in layers_added:
            item.metadata[RUN_KEY] = run | {"name": item.name}
        if leader is not None:
            for item in layers:
                if (
                    item.metadata.get(RUN_KEY) == run
                ):  # the layers that explained it are replaced
                    del item.metadata[RUN_KEY]
            leader.metadata[RUN_KEY] = run
        for item in sorted(layers_added, key=lambda item: places.get(item.name, 0)):
            if item.name in places:
                layers.move(layers.index(item), places[item.name])
        if places:
            camera.center, camera.zoom = center, zoom
        self._show_helper_layers(bool(self.helpers.value))
        results = [item for item in layers_added if HELPER_KEY not in item.metadata]
        if results:
            layers.selection.active = results[-1]
        elif active is None or active in layers:  # helper layers are not the next input
            layers.selection.active = active

    def remove_earlier_layers(self, earlier: Sequence[Layer]) -> Iterator[None]:
        """Remove layers of an earlier run, one at a time."""
        for layer in earlier:
            with self.history.make_removals_final():
                self.history.remove_layers([layer])
            yield

    def clear_plot(
        self, *, rows: int = 1, height: int = 240, place: int = 0
    ) -> "PlotCanvas":
        """Return the cleared results plot, creating it on first use."""
        if self.plot is None:
            from napari_semsr.widgets.base.plots import PlotCanvas

            self.plot = PlotCanvas(self.viewer, rows=rows, height=height)
            cast("QVBoxLayout", self.results.layout()).insertWidget(place, self.plot)
        self.plot.clear()
        return self.plot

    def show_result(
        self,
        numbers: Numbers,
        sentence: str,
        *,
        curves: Mapping[str, Columns] | None = None,
        tables: Mapping[str, Columns] | None = None,
        more: str = "",
        network: str | None = None,
        reveal: bool = True,
    ) -> None:
        """Show numbers and rich text in the results, and set the status.

        The first number is shown large, and all of them are folded. `curves` are saved
        with the numbers, which state the `network` that made the result; `tables` are
        shown and copied, too. Results that follow the mouse do not `reveal` the group.
        """
        planes_measured = self._source_planes.items()
        networks_known = {
            format_layer_and_plane(*one): get_network_name(one[0])
            for one in planes_measured
        }
        origin = [f"{k}, {MADE_BY} {v}" if v else k for k, v in networks_known.items()]
        if network:
            origin.append(f"{MADE_BY} {network}")
        networks = (
            [network]
            if network
            else filter(None, dict.fromkeys(networks_known.values()))
        )
        names = ", ".join(networks)
        note = f"<p>Made by a network: <b>{names}</b>. {_ESTIMATE}</p>" if names else ""
        numbers = {
            name: self.translate(number) if isinstance(number, str) else number
            for name, number in numbers.items()
            if not is_temporary(str(number))  # a path that moves, or disappears
        }
        large_figures = [
            (k, v) for k, v in numbers.items() if isinstance(v, Figure) and v.large
        ]
        known_figures = [one for one in large_figures if one[1].value is not None]
        first = next(iter(known_figures + large_figures), None)
        large = "" if first is None else self.translate(_format_headline(*first))
        self.headline.setText(large)
        sheets = "".join(_format_wide_table(*item) for item in (tables or {}).items())
        self.remarks.setText(f"{note}{self.translate(more)}{sheets}")
        self.figures.setText(format_value_table(numbers) if numbers else "")
        self.all_figures.setVisible(bool(numbers))
        self.all_figures.header.setVisible(first is not None)
        if first is None:
            self.all_figures.set_expanded()
        elif not self._folds:
            self.all_figures.set_expanded(on=False)
        self._folds = first is not None
        # a plot without data is hidden
        plot = None if self.plot is None or self.plot.isHidden() else self.plot
        number = (numbers, curves or {}, plot, tables or {})
        self._findings = Findings(self.title, tuple(origin), *number)
        planes = dict.fromkeys(format_plane_name(*one) for one in planes_measured)
        self.results.setTitle(": ".join(filter(None, (self._results_title, *planes))))
        if reveal:
            self.reveal_results()
        self.show_status(sentence)

    def findings(self) -> Findings:
        """Return the latest results for copying and saving."""
        return self._findings

    def reveal_results(self) -> None:
        """Show the results group and scroll to its top."""
        self.results.setVisible(True)
        self.helpers.native.setVisible(bool(self._find_helper_layers()))
        self.sharing.refresh()
        bar = self.scroll_area.verticalScrollBar()
        width = self.content.width()
        self.content.resize(width, self.content.heightForWidth(width))
        if bar is not None:
            bar.setValue(self.results.y())

    def create_layer_box(
        self,
        name: str,
        label: str,
        tooltip: str,
        *,
        layers: Callable[[], Sequence[Layer]] | None = None,
        none: str | None = None,
    ) -> ComboBox:
        """Create a layer list that follows the viewer, by default of grey layers.

        The last image is first and is proposed; maps are last.
        """
        viewer = self.viewer

        def list_choices(_: object) -> list[tuple[str, Layer | None]]:
            layer_list = list_grey_layers(viewer) if layers is None else layers()
            first: list[tuple[str, Layer | None]] = [(none, None)] if none else []
            layer_list = sorted(layer_list, key=lambda item: not is_map(item))
            return first + [(item.name, item) for item in reversed(layer_list)]

        box = ComboBox(
            name=name,
            label=label,
            tooltip=tooltip,
            choices=list_choices,
        )
        self._register_layer_box(box)
        return box

    def create_image_boxes(self, verb: Verb[Any, Any]) -> list[ComboBox]:
        """Create a layer list for each image that a command reads."""
        return [
            self.create_layer_box(item.name, item.title, item.tooltip)
            for item in verb.images
        ]

    def create_layer_list(
        self, tooltip: str, height: int, *, name: str = "layers", label: str = ""
    ) -> Select:
        """Create a multiple-selection list of grey layers."""
        rows = Select(
            name=name,
            label=label or None,
            tooltip=f"{tooltip}; hold Ctrl to select several.",
            choices=lambda _: [
                (item.name, item) for item in reversed(list_grey_layers(self.viewer))
            ],
        )
        rows.native.setFixedHeight(height)
        self._register_layer_box(rows)
        return rows

    def _register_layer_box(self, box: CategoricalWidget[Any]) -> None:
        """Keep a list of layers up to date."""
        box.reset_choices()
        self._boxes.append(box)
        box.changed.connect(self._show_plane)
        box.changed.connect(self._update_offered_actions)
        self._show_plane()

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the lists; napari keeps only a weak reference to this panel."""
        if is_alive(self):
            if self._adding and event is not None and event.type == "inserted":
                about = event.value.metadata
                about.setdefault(MADE_KEY, self.title)
                about.setdefault(
                    SOURCES_KEY, get_source_identities(self._source_planes)
                )
                self._layers_shown.append(event.value)
            for box in self._boxes:
                _refresh_layer_choices(box)
            self._show_plane()
            self._update_offered_actions()
            self._show_unsaved_content()
            self._select_active_layer()
            self.clear_resolved_error()

    # -- stacks --------------------------------------------------------------

    def create_planes_box(self) -> CheckBox:
        """Create the all-planes tick box, shown if the input is a stack."""
        self.all_planes = CheckBox(
            name="all_planes",
            text="All planes",
            tooltip=(
                "Process all planes and create a stack instead of processing only the "
                "displayed plane."
            ),
        )
        self.all_planes.changed.connect(self._show_plane)
        return self.all_planes

    def uses_all_planes(self) -> bool:
        """Return whether to process all planes of the input."""
        takes_all = self.all_planes is not None and bool(self.all_planes.value)
        return takes_all and bool(self._get_stacks())

    def _get_stacks(self) -> list[Image]:
        """Return the chosen layers with more than one plane."""
        if not is_alive(self):
            return []
        boxes = self._boxes
        if self.all_planes is not None:  # other lists hold layers that are only shown
            boxes = [] if self._input is None else [self._input]
        values = [box.value for box in boxes]
        layers = [
            item
            for value in values
            for item in (value if isinstance(value, list | tuple) else [value])
        ]
        images = dict.fromkeys(item for item in layers if isinstance(item, Image))
        return [item for item in images if item.ndim > 2]

    def _show_plane(self, _: object = None) -> None:
        stacks = self._get_stacks()
        if self.all_planes is not None:
            self.all_planes.native.setVisible(bool(stacks))
        dims = self.viewer.dims
        planes = {
            item.name: format_plane_name(item, get_displayed_plane(item, dims))
            for item in stacks
        }
        sentences = [f"{plane} of {name} is used" for name, plane in planes.items()]
        if self.uses_all_planes():
            sentences = [f"all planes of {stacks[0].name} are used"]
        text = "; ".join(sentences)
        self.plane.setText(f"{text[:1].upper()}{text[1:]}." if text else "")

    # -- the active layer ----------------------------------------------------

    def follow_active_layer(self, box: CategoricalWidget[Any]) -> None:
        """Select the active layer in a box, now and whenever it changes."""
        self._input = box
        box.changed.connect(
            self._show_databar
        )  # except when its last choice is removed
        self.viewer.layers.events.removed.connect(self._show_databar)
        self.viewer.layers.selection.events.active.connect(self._select_active_layer)
        self._select_active_layer()
        if self._active is None:
            choices = [item for item in box.choices if item is not None]
            if candidates := [item for item in choices if self.accepts_layer(item)]:
                self.choose_input(candidates[0])
        self._show_plane()

    def _find_databar_layer(self) -> Layer | None:
        """Return the selected image if its lowest rows look like a data bar."""
        layer_chosen = None if self._input is None else self._input.value
        layers = layer_chosen if isinstance(layer_chosen, list) else [layer_chosen]
        return next((item for item in layers if get_databar_row_count(item)), None)

    def _show_databar(self, _: object = None) -> None:
        """Offer to crop the data bar of the selected image."""
        if is_alive(self):
            layer = self._find_databar_layer()
            self.databar_button.setVisible(layer in self.viewer.layers)
            if layer is not None:
                self.databar_button.setText(f"{describe_databar(layer)}: crop it")

    def crop_databar(self) -> None:
        """Replace the selected image by one without its data bar."""
        layer = self._find_databar_layer()
        if layer is not None:
            with self.show_errors():
                crop_databar(self.viewer, layer)

    # -- layers of other readers ----------------------------------------------

    def _get_selected_layers(self) -> list[Layer]:
        """Return the selected layers that are in the viewer."""
        values = [box.value for box in self._boxes]
        layers_chosen = [
            item
            for value in values
            for item in (value if isinstance(value, list | tuple) else [value])
        ]
        return [
            item for item in dict.fromkeys(layers_chosen) if item in self.viewer.layers
        ]

    def _update_offered_actions(self, _: object = None) -> None:
        """Offer to use the stated pixel sizes or luminance of the selected layers."""
        if not is_alive(self):
            return
        layers_chosen = self._get_selected_layers()
        sizes = {item: get_stated_pixel_size(item) for item in layers_chosen}
        lacking = {item: size for item, size in sizes.items() if size}
        self.size_button.setVisible(bool(lacking))
        for item, size in lacking.items():
            sentence = (
                f"The file of {item.name} states {format_pixel_size(size)} per pixel"
            )
            if len(lacking) > 1:
                sentence = f"The files of {len(lacking)} layers state pixel sizes"
            many = "them" if len(lacking) > 1 else "it"
            self.size_button.setText(f"{sentence}: use {many}")
        colour_layer = next(filter(is_coloured, layers_chosen), None)
        self.grey_button.setVisible(colour_layer is not None)
        if colour_layer is not None:
            self.grey_button.setText(
                f"{colour_layer.name} is a colour image: use its luminance"
            )

    def apply_stated_sizes(self) -> None:
        """Set the pixel sizes of the selected layers from their files."""
        for layer in self._get_selected_layers():
            apply_stated_pixel_size(self.viewer, layer)
        for box in self._boxes:  # the proposed layers may depend on it
            box.changed.emit(box.value)
        self.session.changed.emit()  # it has unsaved changes now

    def select_luminance(self) -> None:
        """Select the luminance of the first selected colour layer."""
        colour_layer = next(filter(is_coloured, self._get_selected_layers()), None)
        if not isinstance(colour_layer, Image):
            return
        boxes = [box for box in self._boxes if box.value is colour_layer]
        layer_made = add_luminance_layer(self.viewer, colour_layer)
        for box in boxes:
            box.value = layer_made

    def accepts_layer(self, layer: Layer) -> bool:
        """Return whether to select a layer in the list when it becomes active."""
        return not layer.metadata.get(LIVE_KEY)

    def choose_input(self, layer: Layer) -> None:
        """Select a layer as the panel's only input."""
        if self._input is not None:
            many = isinstance(self._input, Select)
            self._input.value = [layer] if many else layer

    def _select_active_layer(self, event: object = None) -> None:
        """Select the layer that became active, if nothing is running."""
        if not is_alive(self) or self._input is None or self.is_busy or self._adding:
            return
        active = self.viewer.layers.selection.active
        if active is None or active == self._active:  # napari passes a new proxy
            return
        if active in self._input.choices and self.accepts_layer(active):
            self._active = active
            self.choose_input(active)

    def read_layer(
        self, layer: Image | None, *, is_unturned: bool = False, colour: bool = False
    ) -> Micrograph:
        """Read the displayed plane of a layer, optionally ignoring its rotation.

        With `colour`, colour layers are read as their luminance.
        """
        dims = self.viewer.dims
        if layer is not None:
            disable_cache(layer)
            plane = () if self.uses_all_planes() else get_displayed_plane(layer, dims)
            self._layers_read[layer] = plane
        return micrograph_from_layer(
            layer, dims, is_unturned=is_unturned, colour=colour
        )

    # -- saving --------------------------------------------------------------

    @contextmanager
    def _record_added_layers(self) -> Iterator[None]:
        """Record the images that are added in this context."""
        before = list(self._layers_shown)
        self._adding = True  # results are not the next input
        try:
            yield
        finally:
            self._adding = False
            self._active = self.viewer.layers.selection.active
        new = [item for item in self._layers_shown if item not in before]
        images = [item for item in list_image_layers(self.viewer) if item in new]
        self.own_layers += [item for item in images if FOLDER_KEY not in item.metadata]
        if any(item.metadata.get(HELPER_KEY) == self.title for item in new):
            self._show_helper_layers(bool(self.helpers.value))  # before they are drawn
        self._show_unsaved_content()

    def _run_function_in_parts(self, act: Callable[[], Parts]) -> Iterator[None]:
        """Run a function that adds layers, processing Qt events after each step."""
        self._layers_shown.clear()
        with self._record_added_layers():
            parts = act() or iter(())
        more = True
        while more:
            with self._record_added_layers():
                more = next(parts, False) is None
            if more:
                yield
        self._layers_shown.clear()

    def _show_unsaved_content(self) -> None:
        """List layers that would be lost when napari closes; offer to save them."""
        if not is_alive(self):
            return
        self.own_layers = [
            item for item in self.own_layers if item in self.viewer.layers
        ]
        self.save_button.setVisible(bool(self.own_layers))
        names = [item.name for item in self.own_layers if is_unsaved(item)]
        self.unsaved_label.setText(describe_unsaved_content(names))

    def save(self) -> None:
        """Ask where to save the active layer or the last result, and save it."""
        active = self.viewer.layers.selection.active
        left = [item for item in self.own_layers if is_unsaved(item)] or self.own_layers
        layer = active if active in self.own_layers else left[-1]
        self.save_as(layer)

    def save_file(
        self,
        title: str,
        name: str,
        kinds: Mapping[str, str],
        write: Callable[[Path], object],
        sentence: str = "Saved as {}.",
    ) -> None:
        """Ask for a file name, write the file, and report its path as ``{}``."""
        path = ask_output_file(self, title, name, kinds)
        if path is not None:
            with self.show_errors():
                write(path)
                self.show_status(sentence.format(path))

    def save_as(self, layer: Image) -> None:
        """Ask where to save a layer, including all planes of a stack, and save it."""
        with self.show_errors():
            look, stack = get_display_settings(layer), layer.ndim > 2
            planes = list_planes(layer) if stack else [self.read_layer(layer)]
            planes = [plane.replace(look=look) for plane in planes]
            path = ask_save_path(self, layer)
            if path is not None:
                check_path_unused(path)
                check_output_not_source(planes[0], layer.metadata, path)
                check_stack_format(layer, path)
                image = planes if stack else planes[0]
                request = JobRequest(show=partial(self._report_saved_layer, layer))
                make = partial(save_image, image, path)
                self.saver.start(f"Save {layer.name}", make, request)

    def _report_saved_layer(self, layer: Image, saved_file: ConvertedFile) -> None:
        record_saved_path(layer.metadata, saved_file)
        self._show_unsaved_content()
        self.notify(f"{layer.name} was saved as {saved_file.output}.")

    def _report_saving_cancelled(self) -> None:
        self.show_status("Nothing was saved.")

    # -- figures -------------------------------------------------------------

    def save_figure(self) -> None:
        """Ask for a file name, and save the visible images as a figure for a paper."""
        with self.show_errors():
            images = [item for item in list_image_layers(self.viewer) if item.visible]
            if not images:
                msg = "A figure needs a visible image layer; show one first."
                raise OptionError(msg, code="nothing-visible")
            path = ask_output_file(
                self, "Save figure", f"{images[-1].name} figure", _PAPERS
            )
            if path is not None:
                parts = [self.read_displayed_layer(layer) for layer in images]
                self.start(
                    partial(draw_figure, parts, path, self.figure_options()),
                    lambda figure: self.notify(
                        f"The figure is saved as {figure.path}."
                    ),
                    "Save figure",
                )

    def figure_options(self) -> FigureOptions | None:
        """Return the options of a figure; None overlays maps on the measured images."""
        return None

    # -- reports -------------------------------------------------------------

    def report_findings(self) -> None:
        """Ask for a file name, and write a report on the latest measurement."""
        layers_shown = [
            item for item in self._source_planes if item in self.viewer.layers
        ]
        layers = [
            item for item in list_image_layers(self.viewer) if item in layers_shown
        ]
        layers.sort(key=layers_shown.index)
        reference = getattr(getattr(self, "reference", None), "value", None)
        layers.sort(key=lambda item: item is not reference)  # the reference is first
        findings = self.findings()
        rows = tuple((name, str(value)) for name, value in findings.numbers.items())
        panel_findings = PanelFindings(
            self.title,
            tuple(findings.origin),
            rows,
            findings.plot.to_png() if findings.plot is not None else None,
        )
        self.write_report(
            layers, [panel_findings] if rows or panel_findings.plot else []
        )

    def write_report(
        self, layers: Sequence[Image], findings: Sequence[PanelFindings] = ()
    ) -> None:
        """Ask for a file name and report on layers, two of equal shape as a pair."""
        with self.show_errors():
            images: list[Any] = [self.read_displayed_layer(layer) for layer in layers]
            name = f"{layers[0].name if layers else self.title} report"
            path = ask_output_file(self, "Save report", name, _PAGES)
            if path is None:
                return
            if len(images) == 2 and images[0].shape == images[1].shape:
                images = [tuple(images)]
            job = REPORT.rerun if path.exists() else REPORT.job
            make = partial(job, images, path, found=findings)
            self.start(make, self._show_report, "Report")

    def _show_report(self, report: ReportMade) -> None:
        show_file(report.path)
        many = "measure was" if report.refused == 1 else "measures were"
        refused_text = f" {report.refused} {many} refused; see there why."
        self.notify(
            f"The report was saved as {report.path}, with its numbers next to it."
            + (refused_text if report.refused else "")
        )

    def read_displayed_layer(self, layer: Image) -> Micrograph:
        """Read a layer with its displayed contrast and colours.

        From a stack, read the plane that was measured, or the one that is shown.
        """
        disable_cache(layer)
        plane = self._source_planes.get(layer) or get_displayed_plane(
            layer, self.viewer.dims
        )
        image = micrograph_from_layer(layer, plane=plane, colour=True)
        layer_name = format_layer_and_plane(layer, plane)
        image = image.replace(look=get_display_settings(layer), name=layer_name)
        about = layer.metadata.get(NETWORK_KEY)
        before = image.provenance
        if about is None or (before is not None and before.last_network()):
            return image
        digest = about.get("digest") or "digest not known"
        history = Provenance(
            job="shown", model_name=about["model"], model_digest=digest
        )
        return image.replace(provenance=history)

    # -- running -------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a job of this panel is running or saving."""
        return any(runner.is_busy for runner in self._runners)

    def job(self) -> PanelTask:
        """Read the form and return the task that Run starts."""
        raise NotImplementedError

    def get_output_path(self) -> Path | None:
        """Return the path chosen for the output."""
        return None

    def run(self) -> None:
        """Start or queue the job with the values of the form, or explain why not."""
        request = self._read_form_state()
        if self.queue is None and self.runner.is_busy:
            self.show_status(_RUNNING)
        elif self.runner.is_requested(request):
            self.show_status(
                "A run with these settings is already active; change a setting to "
                "queue another run."
            )
        else:
            with self.show_errors():
                self._start_run(request)

    def _read_form_state(self) -> tuple[Any, ...]:
        """Read everything that determines a run, including the displayed plane."""

        def find_widgets(kind: type[_Part]) -> list[_Part]:
            return [
                item
                for item in self.content.findChildren(kind)
                if not any(part.isAncestorOf(item) for part in self.unread)
            ]

        texts = [item.text() for item in find_widgets(QLineEdit)]
        texts += [item.currentText() for item in find_widgets(QComboBox)]
        ticks = [
            item.isChecked()
            for item in find_widgets(QAbstractButton)
            if not isinstance(item.parent(), CollapsibleSection)
        ]
        lists = find_widgets(QListWidget)
        rows = [[row.text() for row in item.selectedItems()] for item in lists]
        return texts, ticks, rows, self.viewer.dims.point[:-2]

    def _start_run(self, request_values: object) -> None:
        path = self.get_output_path()
        if path is not None:
            check_path_unused(path)
        self._layers_read.clear()
        work = self.job()
        under = None if self._input is None else self._input.value
        read = dict(self._layers_read)
        begin = partial(self._prepare_run, under, read, work.begin)
        make = partial(_run_job_with_plotting, work.make) if self.plots else work.make
        finish = partial(self._finish_job, work.show, is_run=True)
        request = JobRequest(
            self.queue, begin, finish, path, request_values, tuple(read)
        )
        self.runner.start(self.title, make, request)
        if self.runner.is_running and self.runner.waiting_count:
            sentence = (
                "Queued with the current settings: position "
                f"{self.runner.waiting_count}"
            )
            self.show_status(f"{sentence} after the running job.")
        self._update_buttons()

    def start(self, make: _Make, on_result: _Show, title: str | None = None) -> bool:
        """Start a job of this panel immediately, or report that one is running."""
        make = partial(_run_job_with_plotting, make) if self.plots else make
        finish = partial(self._finish_job, on_result, is_run=title is None)
        reads = tuple(self._layers_read)
        request = JobRequest(begin=self._clear_warnings, show=finish, reads=reads)
        has_started = self.runner.start(title or self.title, make, request)
        if not has_started:
            self.show_status(_RUNNING)
        return has_started

    def _prepare_run(
        self, under: Layer | list[Layer] | None, read: _Planes, prepare: _Begin | None
    ) -> Iterator[None]:
        """Prepare for a job that is about to start."""
        self._source_planes = read
        self._switch.under = under
        self._clear_warnings()
        self._update_buttons()
        if self._results_title:
            self.results.setTitle(f"{self._results_title}: earlier run")
        if prepare is not None:
            yield from self._run_function_in_parts(prepare)

    def record_sources(self, layers: Sequence[Image]) -> None:
        """Record the source layers of a result and their planes."""
        read, dims = self._layers_read, self.viewer.dims
        self._source_planes = {
            item: read.get(item, get_displayed_plane(item, dims)) for item in layers
        }

    def start_inspection(self, title: str, make: _Make, on_result: _Show) -> None:
        """Start an inspection job, replacing a running one and earlier warnings."""
        self.looker.cancel()
        self._clear_warnings()
        self.looker.start(
            title, make, JobRequest(f"looks of {id(self)}", show=on_result)
        )

    def _show_inspection_cancelled(self) -> None:
        if not self.looker.is_busy:
            self.show_status("The inspection was cancelled.")

    def cancel(self) -> None:
        """Remove the last waiting job from the queue, or stop the running one."""
        if self.runner.cancel_last_waiting():
            self.show_status("Removed from the queue; the job was not run.")
            self._update_buttons()
        else:
            self.stop()

    def stop(self) -> None:
        """Ask the running job to stop."""
        if self.is_busy:
            for runner in self._runners:
                runner.stop()
            self.cancel_button.setEnabled(False)
            self.show_status("Cancelling after this step …")

    def _finish_job(
        self, show: _Show, value: object, *, is_run: bool
    ) -> Iterator[None]:
        self._update_buttons()
        with self.show_errors():
            yield from self._run_function_in_parts(partial(show, value))
            if not self.isVisible():
                show_info(self.status.text())
            if is_run:
                self.ran.emit()

    def _show_step(self, step: Progress) -> None:
        """Show a progress step now, or together with the steps that follow soon."""
        soon = self._stepping.isActive()
        self._set_updates_enabled(on=not soon)
        self.progress_bar.setVisible(self.runner.is_running or not self.runner.is_busy)
        self._update_progress_bar(step.done, step.total)
        waiting_count = self.runner.waiting_count if self.runner.is_running else 0
        self._set_status(
            f"{step} · {waiting_count} queued" if waiting_count else str(step)
        )
        if not soon:
            self._stepping.start()

    def _set_updates_enabled(self, *, on: bool = True) -> None:
        for part in (self.notes, self.progress_bar):
            part.setUpdatesEnabled(on)

    def _show_busy(self, busy: bool) -> None:
        if busy:
            self.show_status("Starting …")
            layout = self.layout()
            if layout is not None:
                layout.activate()
            self.status.repaint()  # the next call may block the main thread briefly

    def _update_buttons(self, _: object = None) -> None:
        """Enable and label the buttons for the current state."""
        runner = self.runner
        queues = runner.is_busy and self.queue is not None
        self.run_button.setText(_QUEUE if queues else self._run_label)
        self.run_button.setEnabled(queues or not runner.is_busy)
        self.save_button.setEnabled(not self.saver.is_busy)
        many = runner.is_running and runner.waiting_count
        self.cancel_button.setText(_CANCEL_QUEUED if many else self._cancel_label)
        self.cancel_button.setEnabled(
            self.is_busy and bool(many or not runner.is_cancelling)
        )
        self._escape.setEnabled(self.cancel_button.isEnabled())
        if self.progress_bar.isHidden() == self.is_busy:
            self.progress_bar.setVisible(self.is_busy)
            self._update_progress_bar(0, 0)

    def _update_progress_bar(self, done_count: int, total: int) -> None:
        """Update the progress bar; it is empty if the total is unknown.

        Qt's indeterminate bar is animated, and repaints the whole window.
        """
        bar, is_drawn = self.progress_bar, self.progress_bar.updatesEnabled()
        bar.setUpdatesEnabled(False)  # painted once, not after each of these
        bar.setTextVisible(total > 0)
        bar.setRange(0, total or 1)
        bar.setValue(done_count if total else 0)
        bar.setUpdatesEnabled(is_drawn)

    def _show_cancelled(self) -> None:
        self.show_status(f"{self.title} was cancelled; {self.after_cancel}.")

    # -- messages --------------------------------------------------------------

    def show_help(self) -> None:
        """Open the manual page of this panel."""
        open_manual(self.help_place)

    def show_status(self, text: str) -> None:
        """Show a status message, replacing the last one."""
        self._set_updates_enabled()
        self._set_status(text)

    def _set_status(self, text: str) -> None:
        self._mending.stop()
        self.status.setText(self.translate(text))

    def show_problem(self, text: str) -> None:
        """Show an error in the panel and as a notification.

        It is removed when a value changes, a layer is added, removed or resized, or a
        file named in the form appears or disappears.
        """
        sentence, place = self.translate(text), find_manual_section(text)
        self._causes = self._find_error_causes()
        self._mending.start()
        self._set_updates_enabled()
        self.status.setText(sentence, "problem")
        label = _WHAT_TO_DO if place else "Troubleshooting"
        self.status.add_link(label, place or "troubleshooting.md")
        show_error(sentence)

    def _show_job_problem(self, text: str) -> None:
        """Show why a job failed, keeping the error during clean-up by the panel."""
        self.show_problem(text)
        self._causes = None

    def _find_error_causes(self) -> tuple[object, ...]:
        """Return possible causes of an error: the form, its files, other layers."""
        *typed_values, _ = self._read_form_state()
        files = [
            _get_modification_time(text) for text in typed_values[0] if os.sep in text
        ]
        layers = [
            (id(item), item.name, tuple(item.scale), len(item.data))
            for item in self.viewer.layers
            if self.title not in map(item.metadata.get, (MADE_KEY, HELPER_KEY))
        ]
        return typed_values, files, layers

    def clear_resolved_error(self) -> None:
        """Clear an error whose cause may have been resolved."""
        has_causes = self._mending.isActive() and self._causes is not None
        if has_causes and self._causes != self._find_error_causes():
            self.show_status("")

    def _check_resolved_error(self) -> None:
        if self._causes is None:
            self._causes = self._find_error_causes()
        self.clear_resolved_error()

    def _show_log_link(self, path: str) -> None:
        """Add a link to the log of failed jobs."""
        self.status.add_link("Open the log", QUrl.fromLocalFile(path).toString())

    def show_warning(self, text: str) -> None:
        """Show a warning about a result, until the next run."""
        sentence, place = self.translate(text), find_manual_section(text)
        link = "" if place is None else f" {create_link(_WHAT_TO_DO, place)}"
        line = f'<p class="warning">{html.escape(sentence, quote=False)}{link}</p>'
        if line not in self.warning_label.text():
            self.warning_label.setText(self.warning_label.text() + line)
            if not self.isVisible():
                show_warning(sentence)

    def _clear_warnings(self) -> None:
        self.warning_label.setText("")

    def get_labels(self) -> Labels:
        """Return the row and entry labels, keyed by option name."""
        labels_by_form = [form.get_labels() for form in self.findChildren(Form)]
        return {name: label for one in labels_by_form for name, label in one.items()}

    def translate(self, text: str) -> str:
        """Rephrase a job's message with the labels of this panel."""
        return convert_names_to_panel_labels(text, self.get_labels)

    @contextmanager
    def show_errors(self) -> Iterator[None]:
        """Show errors raised in this context instead of propagating them."""
        try:
            yield
        except SemsrError as error:
            self.show_problem(str(error))

    def notify(self, text: str) -> None:
        """Show a success message in the panel, or as a notification if it is hidden."""
        self.show_status(text)
        if not self.isVisible():
            show_info(text)


TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"


_LARGE = 20  # font size of the large number; chosen: twice that of other text
_ABREAST = 36  # characters of a table row with gaps; chosen: 320 px
_GAP = 2  # character widths between columns
_MAX_SHOWN = 20  # rows shown of a table; chosen: Copy and Save numbers have all


def _format_wide_table(title: str, columns: Columns) -> str:
    """Format a table with headers as rich text, splitting a wide one into parts.

    Each part starts with the first column.
    """
    cells, widths = {}, {}
    for head, column in columns.items():
        cells[head] = [
            str(item) if isinstance(item, str | int) else str(Figure(item))
            for item in column
        ]
        # headers and sentences wrap at spaces
        words = [word for text in (head, *cells[head]) for word in text.split()]
        widths[head] = max(map(len, words), default=0) + _GAP
    first, *others = cells
    parts = [[first]]
    for head in others:
        full = sum(widths[name] for name in (*parts[-1], head)) > _ABREAST
        if full and len(parts[-1]) > 1:
            parts.append([first])
        parts[-1].append(head)
    gap, parts_shown = "&nbsp;" * _GAP, []
    for part in parts:
        titles = "".join(f"<td><i>{html.escape(head)}</i>{gap}</td>" for head in part)
        columns_shown = (cells[head] for head in part)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}{gap}</td>' for cell in row)}</tr>"
            for row in list(zip(*columns_shown, strict=True))[:_MAX_SHOWN]
        )
        parts_shown.append(f"<table><tr>{titles}</tr>{rows}</table>")
    more, rest = len(cells[first]) - _MAX_SHOWN, ""
    if more > 0:
        rest = (
            f"<p>... and {more} more rows. Copy and Save numbers include all of "
            "them.</p>"
        )
    return f"<p><b>{html.escape(title)}</b></p>{'<p></p>'.join(parts_shown)}{rest}"


def _format_headline(name: str, figure: Figure) -> str:
    """Format a number in large type, with its unit and verdict."""
    beside = " ".join(filter(None, (figure.error_text, figure.unit)))
    number = f"<b>{html.escape(figure.value_text)}</b>"
    lines = [
        html.escape(name),
        f'<span style="font-size:{_LARGE}pt">{number}</span> {html.escape(beside)}',
        html.escape(figure.note, quote=False),
        f"<b>{html.escape(figure.verdict, quote=False)}</b>" if figure.verdict else "",
    ]
    return "".join(f"<div>{line}</div>" for line in lines if line)


def format_legend(colours: Mapping[str, str]) -> str:
    """Return a legend of coloured squares as rich text."""
    rows = (
        f'<span style="color:{colour}">\N{BLACK SQUARE}</span> {html.escape(text)}'
        for colour, text in colours.items()
    )
    return f"<p>{'<br>'.join(rows)}</p>" if colours else ""


def format_value_table(rows: Mapping[str, object], *, strong: bool = True) -> str:
    """Format names and values as a rich text table."""
    left, right = ("<b>", "</b>") if strong else ("", "")
    cells = "".join(
        f"<tr><td>{name}&nbsp;&nbsp;</td><td>{left}{value}{right}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
