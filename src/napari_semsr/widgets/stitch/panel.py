"""Stitch mosaic: a folder of frames in, one calibrated mosaic and its joints out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit
from qtpy.QtWidgets import QLineEdit, QPushButton

from napari_semsr.core import Acquisition, Job, OptionError, Progress
from napari_semsr.io import FOLDER_KEY, scan_layers
from napari_semsr.jobs import (
    StitchedFile,
    StitchFolderOptions,
    open_scan,
    stitch_job,
)
from napari_semsr.widgets.base import (
    Form,
    Note,
    OptionsForm,
    Panel,
    Row,
    new_store_path,
)
from napari_semsr.widgets.calibrate import PixelSizeEdit
from napari_semsr.widgets.layers import show_scale_bar
from napari_semsr.widgets.open_mosaic import Opened, add_opened, open_store
from napari_semsr.widgets.stitch.show import (
    add_shapes_layers,
    facts,
    summary,
    trouble,
)

if TYPE_CHECKING:
    import napari.viewer

_EXISTING = {"refuse": False, "replace it": True}
_FLAT_FILE = "file"
_MADE_FROM = "semsr stitched from"
_ROWS = {
    "order": Row(
        "Order", "How the grid was filled: row by row, or every second row backwards."
    ),
    "overlap": Row(
        "Overlap (share)",
        "Share of a frame that its neighbour repeats; measured when not known.",
        step=0.05,
    ),
    "max_shift_px": Row(
        "Stage error (px)",
        "Largest error of a nominal position; found when not given.",
        step=5,
    ),
    "blend": Row(
        "Blending",
        "Weighted mean of all frames, or the best frame at each pixel.",
        {"weighted mean": "feather", "best frame": "seam"},
    ),
    "match_gain": Row("Match brightness", "Match the brightness of the frames."),
    "rotation": Row(
        "Turn and scale frames", "Also find a small turn and scale of each frame."
    ),
    "significance": Row(
        "Certainty of joints",
        "Joints must stand this far above unrelated pairs of frames.",
        step=0.5,
    ),
}


@dataclass(frozen=True, slots=True)
class StitchOutcome:
    """What was made, opened again."""

    made: StitchedFile
    opened: Opened


def _stitch_to_layers(
    folder: Path,
    target: Path,
    *,
    options: StitchFolderOptions,
    positions: Path | None = None,
    overwrite: bool = False,
) -> Job[StitchOutcome]:
    """Stitch a folder into a store, and open what was written."""
    made = yield from stitch_job(
        folder, target, positions=positions, options=options, overwrite=overwrite
    )
    return StitchOutcome(made, (yield from open_store(made.output)))


def _look(folder: Path) -> Job[Acquisition]:
    """Open a scan to say what it is."""
    yield Progress(0, 0, f"looking into {folder.name}")
    return (yield from open_scan(folder))


def _frames(folder: Path) -> Job[list[Any]]:
    """Lay the frames of a scan at their nominal places."""
    acquisition = yield from open_scan(folder)
    yield Progress(0, 0, "laying the frames down")
    return scan_layers(acquisition, folder)


class StitchMosaicPanel(Panel):
    """Joins the frames of a folder to one mosaic."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Stitch mosaic", "Stitch")
        self.folder = FileEdit(name="folder", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.show_button = QPushButton("Show frames at nominal positions")
        self.show_button.clicked.connect(self.show_frames)
        self.about = Note("Choose a folder of frames to see what it holds.")
        self.positions = FileEdit(
            name="positions", mode=FileDialogMode.OPTIONAL_FILE, filter="*.csv"
        )
        self.grid = QLineEdit()
        self.grid.setPlaceholderText("as the folder says, or 4x5")
        self.pixel_size = PixelSizeEdit()
        self.form = OptionsForm(StitchFolderOptions, _ROWS)
        flat_choices = {
            "from the frames": "auto",
            "none: frames are flat": "none",
            "a file": _FLAT_FILE,
        }
        self.flat = ComboBox(name="flat", choices=list(flat_choices.items()))
        self.flat_file = FileEdit(name="flat_file", mode=FileDialogMode.EXISTING_FILE)
        self.output = FileEdit(
            name="output", mode=FileDialogMode.OPTIONAL_FILE, filter="*.ome.zarr"
        )
        self.existing = ComboBox(name="existing", choices=list(_EXISTING.items()))
        self.figures, self.trouble = Note(), Note()
        self.plots: Any = None
        self._fill()
        self.folder.changed.connect(self.look)
        self.flat.changed.connect(self._show_flat_file)
        self._show_flat_file(self.flat.value)
        self._take_open_scan()

    def _fill(self) -> None:
        where, layout, save = Form(), Form(), Form()
        where.add(
            "folder",
            "Folder",
            self.folder,
            "Frames of one scan, with positions.csv and scan.json where there are any.",
        )
        where.add(
            "show", "", self.show_button, "Add the raw frames where they should lie."
        )
        layout.add(
            "positions",
            "Positions",
            self.positions,
            "A table frame,y_px,x_px or frame,y_nm,x_nm; empty takes the folder's own.",
        )
        layout.add(
            "grid",
            "Grid",
            self.grid,
            "Rows x columns, as in 4x5; positions of the folder are then not used.",
        )
        layout.add(
            "size", "", self.pixel_size, "As the scan says; correct it here if wrong."
        )
        layout.add(
            "flat", "Flat field", self.flat, "How the shading of the frames is found."
        )
        layout.add(
            "flat_file", "", self.flat_file, "Image of the bare illumination field."
        )
        save.add(
            "output",
            "Save as",
            self.output,
            "An .ome.zarr path; empty keeps the mosaic in a temporary folder that is "
            "removed when napari ends.",
        )
        save.add(
            "existing",
            "If it exists",
            self.existing,
            "Leave an existing store alone, or replace it.",
        )
        self._layout = layout
        self.add_group("Frames", where, self.about)
        self.add_group("How", layout, self.form)
        self.add_group("Mosaic", save)
        self.results = self.add_group("Result", self.trouble, self.figures)
        self.results.setVisible(False)

    def _show_flat_file(self, method: str) -> None:
        self._layout.show_row("flat_file", method == _FLAT_FILE)

    # -- looking at the scan ----------------------------------------------------

    def _take_open_scan(self) -> None:
        """Take the folder of frames that the viewer shows already."""
        for layer in reversed(self.viewer.layers):
            found = layer.metadata.get(FOLDER_KEY)
            if found is not None and Path(found).is_dir():
                self.folder.value = Path(found)
                return

    def typed_folder(self) -> Path:
        """Read the folder of the form."""
        value = self.folder.value
        if not isinstance(value, Path) or value == Path() or not value.exists():
            msg = f"A folder of frames must be chosen first, got {str(value)!r}."
            raise OptionError(msg)
        return value

    def look(self, folder: Path | None = None) -> None:
        """Say what a folder holds."""
        chosen = folder or self.folder.value
        if isinstance(chosen, Path) and chosen != Path() and chosen.is_dir():
            self.start(lambda: _look(chosen), self._show_facts, "Look into folder")

    def _show_facts(self, acquisition: Acquisition) -> None:
        self.about.setText(facts(acquisition))
        self.pixel_size.value = acquisition.pixel_size_nm
        self.show_status(f"{acquisition.name} can be stitched.")

    def show_frames(self) -> None:
        """Add the raw frames at their nominal places."""
        try:
            folder = self.typed_folder()
        except OptionError as error:
            self.show_problem(str(error))
            return
        self.start(lambda: _frames(folder), self._add_frames, "Show frames")

    def _add_frames(self, layers: list[Any]) -> None:
        for data, attributes, kind in layers:
            getattr(self.viewer, f"add_{kind}")(data, **attributes)
        show_scale_bar(self.viewer)
        known = len(layers) > 1
        self.show_status(
            "The frames lie where the scan says."
            if known
            else "No positions are known, so that the frames are a stack."
        )

    # -- stitching --------------------------------------------------------------

    def options(self) -> StitchFolderOptions:
        """Read the form."""
        method = str(self.flat.value)
        if method == _FLAT_FILE:
            path = self.flat_file.value
            if not isinstance(path, Path) or not path.is_file():
                msg = "A flat field file must be chosen, or another method."
                raise OptionError(msg)
            method = str(path)
        options: StitchFolderOptions = self.form.options(
            grid=self.grid.text(),
            pixel_size_nm=self.pixel_size.value,
            flat_field=method,
        )
        return options

    def job(self) -> tuple[Callable[[], Job[Any]], Callable[[Any], None]]:
        """Read the form."""
        folder, options = self.typed_folder(), self.options()
        typed = _typed(self.output)
        overwrite = bool(self.existing.value)
        target = typed or new_store_path(f"{folder.name}-mosaic")
        if not target.name.endswith(".ome.zarr"):
            target = target.with_name(f"{target.name}.ome.zarr")
        table_path = _typed(self.positions)

        def show(outcome: StitchOutcome) -> None:
            self.show_outcome(outcome, folder)

        def make() -> Job[StitchOutcome]:
            return _stitch_to_layers(
                folder,
                target,
                options=options,
                positions=table_path,
                overwrite=overwrite,
            )

        return make, show

    def _remove_earlier(self, folder: Path) -> None:
        """Take away the layers of an earlier run on the same folder."""
        for layer in list(self.viewer.layers):
            if layer.metadata.get(_MADE_FROM) == str(folder):
                self.viewer.layers.remove(layer)

    def show_outcome(self, outcome: StitchOutcome, folder: Path) -> None:
        """Add mosaic, outlines and joints; draw the plots; write the figures.

        Layers of an earlier run on the same folder are replaced.
        """
        made, mosaic = outcome.made, outcome.opened.micrograph
        name = mosaic.name.removesuffix(" mosaic")
        for layer in self.viewer.layers:
            if FOLDER_KEY in layer.metadata:
                layer.visible = False
        self._remove_earlier(folder)
        image = add_opened(self.viewer, outcome.opened)
        for layer in (image, *add_shapes_layers(self.viewer, made, mosaic, name)):
            layer.metadata[_MADE_FROM] = str(folder)
        self.viewer.layers.selection.active = image
        show_scale_bar(self.viewer)
        self._draw(made)
        self.trouble.setText(trouble(made))
        self.figures.setText(summary(made))
        self.reveal(self.results)
        placed = made.frames - len(made.left_out)
        self.show_status(
            f"{placed} of {made.frames} frames joined in {made.seconds:.1f} s."
        )

    def _draw(self, made: StitchedFile) -> None:
        from napari_semsr.widgets.base import PlotCanvas
        from napari_semsr.widgets.stitch.show import draw_stitching

        if self.plots is None:
            self.plots = PlotCanvas(self.viewer, rows=2)
            self.add_plot(self.results, self.plots, place=2)
        draw_stitching(self.plots, made)


def _typed(edit: FileEdit) -> Path | None:
    """Path of an optional field."""
    text = str(edit.value or "").strip()
    return None if text in ("", ".") else Path(text)
