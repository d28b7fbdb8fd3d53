"""List of a mosaic's overlaps, for inspecting and correcting them one by one."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QWidget

from napari_semsr.core import FloatArray, OptionError
from napari_semsr.io import HELPER_KEY, replace_atomically
from napari_semsr.jobs import StitchedFile
from napari_semsr.stitching import Corrections, PairReport
from napari_semsr.widgets import base, host, layers

_STEP, _FINE_STEP = 1.0, 0.1  # px per press of an arrow key, without and with Shift
_VIEW_SHARE = 0.8  # fraction of the view that an overlap fills
_KEYS = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}
_DASH = "\N{EN DASH}"
_HELP = (
    "Click an overlap to show its two frames in green and magenta; matching areas are "
    "white. The arrow keys move the magenta frame by 1 px, or by 0.1 px with Shift."
)


def get_corrections_path(mosaic: Path) -> Path:
    """Return the path of a mosaic's corrections file."""
    stem = mosaic.name.removesuffix(".zarr").removesuffix(".ome")
    return mosaic.with_name(f"{stem}.corrections.json")


def write_corrections(path: Path, corrections: Corrections) -> None:
    """Write corrections in the format of `semsr stitch --corrections`."""
    text = json.dumps(corrections.model_dump(mode="json"), indent=1)
    with replace_atomically(path) as place:
        place.write_text(f"{text}\n", encoding="utf-8")


def shorten_file_names(names: Sequence[str]) -> list[str]:
    """Shorten file names so that two names and a state fit into one list row.

    Leaves out suffixes, and the letters with which all begin; equal names are kept.
    """
    stems = [name.rpartition(".")[0] or name for name in names]
    prefix = os.path.commonprefix(stems)  # noqa: RUF071 - of characters
    prefix = prefix.rstrip("0123456789")
    labels = [stem.removeprefix(prefix) for stem in stems]
    return labels if all(labels) and len({*labels}) == len(names) else list(names)


class CorrectionList(QWidget):
    """List of a mosaic's overlaps and their corrections."""

    def __init__(self, panel: base.VerbPanel, solve: Callable[[], object]) -> None:
        super().__init__()
        self._panel = panel
        self._mosaic_file: StitchedFile | None = None
        self._mosaic: Image | None = None
        self._layers_hidden: list[Layer] = []  # while two frames are shown
        # the second one can be moved
        self._frames_shown: tuple[Image, Image] | None = None
        # centre and zoom
        self._view_before: FloatArray | None = None
        self._frames = (0, 0)  # the rows of the list, in the order shown
        self._nudge = np.zeros(2)
        self._rows: list[PairReport] = []
        self.corrections = Corrections()
        self.table = base.SelectableTable(_HELP, "Overlaps")
        self.table.setSelectionMode(self.table.SelectionMode.SingleSelection)
        self.table.installEventFilter(self)
        self.table.itemSelectionChanged.connect(self._show_selected_overlap)
        self.about = base.RichTextLabel(_HELP)
        entries: dict[str, tuple[Callable[[], object], str]] = {
            "Accept": (self.accept, "Use this overlap, and show the next one."),
            "Reject": (self.strike, "Exclude this overlap, and show the next one."),
            "Move other": (self.swap, "Move the other frame with the arrow keys."),
            "Drop frame": (self.drop, "Exclude the magenta frame from the mosaic."),
            "Fix in place": (self.fix, "Fix the magenta frame where it is shown."),
            "Reset": (self.reset, "Discard the corrections of this overlap."),
            "Show mosaic": (self.show_whole, "Hide the two frames."),
            "Reset all": (self.clear, "Discard all corrections."),
            "Solve again": (solve, "Recompute the positions with the corrections."),
        }
        self.buttons = {
            text: base.create_button(text, call, tooltip)
            for text, (call, tooltip) in entries.items()
        }
        buttons = [*self.buttons.values()]
        rows = (base.WrappingRow(*buttons[n : n + 3]) for n in (0, 3, 6))
        base.stack_widgets(self, self.table, self.about, *rows)

    # -- the list ----------------------------------------------------------------

    def show_mosaic(self, mosaic_file: StitchedFile, mosaic: Image) -> None:
        """List the overlaps of a mosaic, starting with the largest misfit."""
        self.leave()
        if mosaic_file.solution.base is None:
            self.corrections = Corrections()
        self._mosaic_file, self._mosaic = mosaic_file, mosaic
        self._rows = sorted(
            mosaic_file.solution.pairs,
            key=lambda pair: -np.nan_to_num(pair.residual_px, nan=-1.0),
        )
        self.table.blockSignals(True)
        self.table.clearSelection()
        self.table.scrollToTop()
        labels = shorten_file_names(mosaic_file.solution.names)
        frames = [(labels[pair.first], labels[pair.second]) for pair in self._rows]
        misfits = [f"{pair.residual_px:.2f}" for pair in self._rows]
        self.table.fill(
            {
                "Overlap": [f" {_DASH} ".join(names) for names in frames],
                "Misfit (px)": [text.replace("nan", _DASH) for text in misfits],
                "State": [""] * len(frames),
            }
        )
        self.table.blockSignals(False)
        self._show_overlap_states()

    def _get_names(self, *frames: int) -> list[str]:
        """Return the names of frames, or of the two displayed ones."""
        if not frames and self._frames_shown is None:
            msg = "Choose an overlap in the list first."
            raise OptionError(msg, code="missing-value")
        file = self._mosaic_file
        names = [] if file is None else file.solution.names
        return [names[frame] for frame in frames or self._frames]

    def _show_overlap_states(self) -> None:
        """Show the correction of each overlap or, if none, whether it is used."""
        corrections = self.corrections
        pairs_struck = [{*pair} for pair in corrections.strike]
        pairs_joined = [{one.first, one.second} for one in corrections.join]
        for row, pair in enumerate(self._rows):
            names = self._get_names(pair.first, pair.second)
            state = "used" if pair.used else pair.reason or "not used"
            if {*names} in pairs_struck:
                state = "rejected"
            elif {*names} in pairs_joined:
                state = "set by hand"
            elif names_dropped := [name for name in names if name in corrections.drop]:
                state = f"{names_dropped[0]} dropped"
            elif names_fixed := [name for name in names if name in corrections.place]:
                state = f"{', '.join(names_fixed)} fixed"
            self.table.columns["State"][row] = state
            for column in range(3):
                item = self.table.item(row, column)
                if item is not None:
                    item.setText(state if column == 2 else item.text())
                    item.setToolTip(f"{f' {_DASH} '.join(names)}: {state}")
        self._show_description()

    def _show_description(self) -> None:
        if self._frames_shown is None:
            own = self.corrections
            count = sum(map(len, (own.strike, own.drop, own.place, own.join)))
            self.about.setText(f"{_HELP} Corrections: {count}." if count else _HELP)
            return
        y, x = self._nudge
        fixed_name, moved_name = self._get_names()
        # the list has no room for a long state
        state = "".join(f"; {item.text()}" for item in self.table.selectedItems()[2:])
        self.about.setText(
            f"{fixed_name} is green, {moved_name} magenta, moved by ({y:+.1f}, "
            f"{x:+.1f}) px{state}."
        )

    # -- two frames in the viewer -----------------------------------------------

    def leave(self) -> None:
        """Remove the two frames, and restore the previous view."""
        self._panel.history.remove_layers(self._frames_shown or ())
        for layer in self._layers_hidden:
            layer.visible = True
        viewer = self._panel.viewer
        if self._view_before is not None and viewer.dims.ndisplay == 2:
            layers.restore_view(viewer, self._view_before)
        self._view_before = None
        if self._frames_shown is not None and self._mosaic in viewer.layers:
            viewer.layers.selection.active = self._mosaic
        self._frames_shown, self._layers_hidden = None, []
        self._nudge = np.zeros(2)

    def _show_selected_overlap(self) -> None:
        if items := self.table.selectedItems():  # of one row
            pair = self._rows[items[0].row()]
            self._show_frames(pair.first, pair.second)

    def _show_frames(self, first: int, second: int) -> None:
        """Show two frames superimposed in green and magenta, at full resolution."""
        mosaic_file, mosaic = self._mosaic_file, self._mosaic
        viewer = self._panel.viewer
        if mosaic_file is None or mosaic is None or mosaic not in viewer.layers:
            return
        self.leave()
        self._frames = (first, second)
        positions = self._get_frame_corners(mosaic_file)
        frames = mosaic_file.solution.state.frames
        planes = []
        for index in self._frames:
            image, weight = frames.correct(index)
            planes.append(np.where(weight > 0, image, np.float32(0)))
        limits = np.quantile(np.stack(planes), (0.01, 0.995)).tolist()
        self._view_before = layers.get_view(viewer)
        self._layers_hidden = [layer for layer in viewer.layers if layer.visible]
        for layer in self._layers_hidden:
            layer.visible = False
        scale, layers_shown = np.array(mosaic.scale)[-2:], []
        identity = layers.get_identity(mosaic)
        marks = {HELPER_KEY: self._panel.title, layers.MARK_KEY: identity}
        names, colours = self._get_names(*self._frames), ("green", "magenta")
        with self._panel.history.make_removals_final():
            each = zip(names, planes, positions, colours, strict=True)
            for name, plane, corner, colour in each:
                layer = viewer.add_image(
                    plane,
                    name=f"{name} ({colour})",
                    colormap=colour,
                    blending="additive",
                    contrast_limits=(limits[0], max(limits[1], limits[0] + 1e-6)),
                    scale=scale,
                    translate=np.array(mosaic.translate)[-2:] + corner * scale,
                    units=mosaic.units[-2:],
                    axis_labels=("y", "x"),
                    metadata={**marks},
                )
                layers_shown.append(layer)
                self._bind_arrows(layer)
        self._frames_shown = layers_shown[0], layers_shown[1]
        viewer.layers.selection.active = layers_shown[1]
        self._look_at(positions)
        self._show_description()

    def _bind_arrows(self, layer: Image) -> None:
        """Let the arrow keys move the magenta frame while a frame is selected."""
        for key, (y, x) in _KEYS.items():
            for modifier, step in (("", _STEP), ("Shift-", _FINE_STEP)):

                def move(_: object, y: float = y * step, x: float = x * step) -> None:
                    self._move_frame(y, x)

                layer.bind_key(f"{modifier}{key}", move, overwrite=True)

    def _get_frame_corners(self, mosaic_file: StitchedFile) -> FloatArray:
        """Return the corners (2, 2) of both frames, as solved or as moved by hand.

        If one of them has no position, the overlap's own shift is used.
        """
        pair = self._frames
        corners = mosaic_file.solution.positions_px[list(pair)].copy()
        shift = corners[1] - corners[0]
        for one in self._rows:
            if not np.isfinite(shift).all() and {one.first, one.second} == {*pair}:
                sign = 1 if one.first == pair[0] else -1
                shift = sign * np.nan_to_num(one.shift_px)
        names = self._get_names(*pair)
        for item in self.corrections.join:
            if {item.first, item.second} == {*names}:
                sign = 1 if item.first == names[0] else -1
                shift = sign * np.array(item.shift_px)
        if not np.isfinite(corners[0]).all():
            corners[0] = np.nan_to_num(corners[1]) - shift
        corners[1] = corners[0] + shift
        return np.asarray(corners)

    def _look_at(self, corners: FloatArray) -> None:
        """Zoom to the overlap of two frames, to full resolution or closer."""
        if self._frames_shown is None or self._mosaic_file is None:
            return
        viewer, layer = self._panel.viewer, self._frames_shown[0]
        if viewer.dims.ndisplay != 2:
            return
        side = np.array(self._mosaic_file.frame_shape)
        low, high = corners.max(axis=0), corners.min(axis=0) + side
        middle = (low + high) / 2 - corners[0] - 0.5
        half = np.maximum(high - low, 1) / 2
        layers.show_box(viewer, layer, (middle - half, middle + half), _VIEW_SHARE)
        camera = host.get_camera(viewer)
        corners = layers.pixels_to_view(viewer, layer, [(0, 0), (1, 1)])
        camera.zoom = max(camera.zoom, 1 / float(np.ptp(corners, axis=0).min()))

    # -- corrections ------------------------------------------------------------

    def eventFilter(self, source: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Move the magenta frame with the arrow keys while the list has focus."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            name = Qt.Key(event.key()).name.removeprefix("Key_")
            if name in _KEYS and self._frames_shown is not None:
                fine = event.modifiers() & Qt.KeyboardModifier.ShiftModifier
                step = _FINE_STEP if fine else _STEP
                self._move_frame(*(step * along for along in _KEYS[name]))
                return True
        return bool(super().eventFilter(source, event))

    def _move_frame(self, y: float, x: float) -> None:
        """Move the magenta frame, and update the shift of the overlap accordingly."""
        if self._frames_shown is None or self._mosaic_file is None:
            return
        fixed_layer, moved_layer = self._frames_shown
        scale, before = np.array(moved_layer.scale), moved_layer.translate
        moved_layer.translate = np.array(before) + np.array((y, x)) * scale
        shift = (moved_layer.translate - fixed_layer.translate) / scale
        first, second = names = self._get_names()
        places = [round(float(value), 6) for value in shift]
        join = {"first": first, "second": second, "shift_px": places}
        if self._update_correction(names, join=join):
            self._nudge = self._nudge + np.array((y, x))
        else:
            moved_layer.translate = before
        self._show_description()

    def _update_correction(self, pair: list[str], **entry: Any) -> bool:
        """Replace the correction of an overlap or frame; return whether it is valid.

        `entry`: one ``strike``, ``join``, ``drop`` or ``place`` of `Corrections`, or
        none to discard those of the overlap.
        """
        record = self.corrections.model_dump(mode="json")
        pair_replaced, name_dropped = {*pair}, entry.get("drop")

        def concerns(join: Mapping[str, object]) -> bool:
            ends = {join["first"], join["second"]}
            return ends == pair_replaced or name_dropped in ends

        record["join"] = [join for join in record["join"] if not concerns(join)]
        if "drop" in entry:
            record["place"].pop(name_dropped, None)
            record["drop"] = sorted({*record["drop"], name_dropped})
        elif "place" in entry:
            record["drop"] = [n for n in record["drop"] if n not in entry["place"]]
            record["place"] |= entry["place"]
        else:
            record["strike"] = [i for i in record["strike"] if {*i} != pair_replaced]
            if "join" in entry:
                record["drop"] = [n for n in record["drop"] if n not in pair_replaced]
                record["join"].append(entry["join"])
            if "strike" in entry:
                record["strike"].append(entry["strike"])
        try:
            self.corrections = Corrections.parse(record)
        except OptionError as error:
            self._panel.messages.show_problem(str(error))
            return False
        self._show_overlap_states()
        return True

    def _show_next_overlap(self) -> None:
        """Show the next overlap in the list."""
        row = self.table.currentRow() + 1
        if row < self.table.rowCount():
            self.table.selectRow(row)

    def accept(self) -> None:
        """Use the displayed overlap, as found or as moved by hand."""
        with self._panel.messages.show_errors():
            pair, joins = self._get_names(), self.corrections.join
            if not any({one.first, one.second} == {*pair} for one in joins):
                self._update_correction(pair)
            self._show_next_overlap()

    def reset(self) -> None:
        """Discard the corrections of the displayed overlap."""
        with self._panel.messages.show_errors():
            self._update_correction(self._get_names())
            self._show_frames(*self._frames)

    def show_whole(self) -> None:
        """Show the mosaic instead of two frames."""
        self.table.clearSelection()
        self.leave()
        self._show_description()

    def strike(self) -> None:
        """Exclude the displayed overlap when solving for positions."""
        with self._panel.messages.show_errors():
            pair = self._get_names()
            self._update_correction(pair, strike=pair)
            self._show_next_overlap()

    def swap(self) -> None:
        """Swap the frames, so that the arrow keys move the other one."""
        with self._panel.messages.show_errors():
            self._get_names()
            self._show_frames(*self._frames[::-1])

    def drop(self) -> None:
        """Exclude the magenta frame from the mosaic."""
        with self._panel.messages.show_errors():
            pair = self._get_names()
            self._update_correction(pair, drop=pair[1])

    def fix(self) -> None:
        """Fix the magenta frame at its displayed position."""
        with self._panel.messages.show_errors():
            pair = self._get_names()
            mosaic_file, mosaic = self._mosaic_file, self._mosaic
            if self._frames_shown is None or mosaic_file is None or mosaic is None:
                return
            solution, layer = mosaic_file.solution, self._frames_shown[1]
            at = (layer.translate - mosaic.translate[-2:]) / layer.scale
            if solution.base is not None:  # corrections are in its coordinates
                shift = solution.base.positions_px - solution.positions_px
                at = at + np.nanmedian(shift, axis=0)
            y, x = at.tolist()
            self._update_correction(pair, place={pair[1]: {"y_px": y, "x_px": x}})

    def clear(self) -> None:
        """Discard all corrections."""
        self.corrections = Corrections()
        self._show_overlap_states()
        self.show_whole()
