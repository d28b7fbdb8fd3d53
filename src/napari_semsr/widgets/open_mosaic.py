"""Open mosaic: look into a file, correct its pixel size, crop its bar, show it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit, SpinBox
from numpy.typing import NDArray
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_semsr.core import Job, Micrograph, OptionError, Progress, ReadError
from napari_semsr.io import ReadOptions, read
from napari_semsr.jobs import describe_job
from napari_semsr.widgets.base import (
    TIMES,
    Form,
    Note,
    OptionsForm,
    Panel,
    Row,
)
from napari_semsr.widgets.calibrate import CalibrateGroup, PixelSizeEdit, format_nm
from napari_semsr.widgets.layers import layer_keywords, show_scale_bar

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image

_ROWS = {
    "series": Row("Series", "Image of a file that holds several; the first is 0."),
    "level": Row("Level", "Level of a pyramid; 0 is full size, shown with the rest."),
    "channel": Row("Channel", "Channel to open; the first is 0."),
    "plane": Row("Plane", "Plane of a stack or time series; the first is 0."),
    "colour": Row(
        "Colour image",
        "What to do with a file whose channels really differ.",
        {"refuse it": "refuse", "take its luminance": "luminance"},
    ),
}
_COUNTS = {
    "series": "series",
    "level": "levels",
    "channel": "channels",
    "plane": "planes",
}

_FACTOR = 4  # of a coarse level over the one before
_STRIP_PX = 1 << 24
_SMALL = 2048


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened."""

    micrograph: Micrograph  # the finest level asked for
    levels: tuple[Micrograph, ...]  # finest first; one entry without a pyramid


def open_levels(path: Path, options: ReadOptions, *, levels: int = 1) -> Job[Opened]:
    """Open an image and, from level 0, the whole pyramid that is stored with it.

    `options`: which image of it, its pixel size and its data bar.
    """
    if not path.exists():
        msg = f"There is no file {path}; check the name."
        raise ReadError(msg)
    many = options.level == 0 and not options.databar_rows
    wanted = range(levels) if many and levels > 1 else range(1)
    found = []
    for level in wanted:
        yield Progress(level, len(wanted), f"opening {path.name}, level {level}")
        one = options if not level else options.replace(level=level, pixel_size_nm=None)
        found.append(read(path, **one.model_dump()))
    if len(found) == 1 and found[0].is_lazy and min(found[0].shape) >= _FACTOR:
        found += yield from coarse_levels(found[0])
    return Opened(found[0], tuple(found))


def open_store(path: str | Path) -> Job[Opened]:
    """Open a store that was just written, with its pyramid."""
    about = yield from describe_job(path)
    levels = int(about.facts.get("levels") or 1)
    return (yield from open_levels(Path(path), ReadOptions(), levels=levels))


def coarse_levels(micrograph: Micrograph) -> Job[list[Micrograph]]:
    """Shrink a lazy image strip by strip, to levels in memory of down to 2048 px.

    napari computes every chunk of a single-scale lazy layer when it is added. With
    coarse levels made beforehand, in the thread, it reads only what is looked at.
    """
    rows, columns = micrograph.shape
    step = max(1, _STRIP_PX // (columns * _FACTOR)) * _FACTOR
    starts = range(0, rows - rows % _FACTOR, step)
    strips = []
    for number, start in enumerate(starts):
        yield Progress(number, len(starts), f"making an overview of {micrograph.name}")
        part = micrograph.data[start : min(start + step, rows)]
        # Without callbacks: napari's dask cache is not made for two threads.
        strips.append(_shrink(np.asarray(part.compute(callbacks=()))))
    levels = [np.concatenate(strips)]
    while max(levels[-1].shape) > _SMALL and min(levels[-1].shape) >= _FACTOR:
        levels.append(_shrink(levels[-1]))
    return [micrograph.replace(data=level) for level in levels]


def _shrink(part: NDArray[Any]) -> NDArray[Any]:
    """Mean of blocks of `_FACTOR` by `_FACTOR` pixels, in the image's own type."""
    rows, columns = (n // _FACTOR for n in part.shape)
    cut = part[: rows * _FACTOR, : columns * _FACTOR]
    blocks = cut.reshape(rows, _FACTOR, columns, _FACTOR)
    mean = blocks.mean(axis=(1, 3), dtype=np.float64)
    if part.dtype.kind in "iu":
        mean = np.rint(mean)
    shrunk: NDArray[Any] = mean.astype(part.dtype)
    return shrunk


def add_opened(
    viewer: "napari.viewer.Viewer", opened: Opened, **keywords: Any
) -> "Image":
    """Show what was opened as a calibrated layer, with its pyramid."""
    data = [item.data for item in opened.levels]
    many = len(data) > 1
    keywords = layer_keywords(opened.micrograph, levels=data, **keywords)
    return viewer.add_image(data if many else data[0], multiscale=many, **keywords)


class OpenMosaicPanel(Panel):
    """Opens an image with its calibration, and corrects that of open layers."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Open mosaic", "Open")
        self.facts: dict[str, Any] = {}
        self._described: Path | None = None
        self.path = FileEdit(name="path", mode=FileDialogMode.EXISTING_FILE)
        self.store_button = QPushButton("Choose a store or folder …")
        self.store_button.clicked.connect(self._choose_folder)
        self.about = Note("Choose a file to see what it says about itself.")
        self.form = OptionsForm(ReadOptions, _ROWS)
        self.pixel_size = PixelSizeEdit()
        self.bar = SpinBox(name="bar", value=0, min=0, max=100_000)
        self.bar_note = Note()
        self.calibrate = CalibrateGroup(
            viewer, self.new_layer_box("layer"), self.show_status, self.show_problem
        )
        self._fill()
        self.path.changed.connect(self.look)

    def _fill(self) -> None:
        where = Form()
        where.add("path", "File", self.path, "Image, mosaic or store to open.")
        where.add(
            "store",
            "",
            self.store_button,
            "For an OME-Zarr store or a folder of frames.",
        )
        how = Form()
        how.add("size", "", self.pixel_size, "As the file says; correct it here.")
        how.add(
            "bar",
            "Data-bar rows",
            self.bar,
            "Rows cut off at the bottom, where the microscope printed its text.",
        )
        self.add_group("Image", where, self.about, self.form, how, self.bar_note)
        self.add_group("Calibrate a layer", self.calibrate)
        for name in ("series", "level", "channel", "plane"):
            self.form.show_row(name, False)

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Store or folder of frames")
        if folder:
            self.path.value = Path(folder)

    # -- looking into the file ----------------------------------------------

    def typed_path(self) -> Path:
        """Read the path of the form."""
        value = self.path.value
        return value if isinstance(value, Path) else Path()

    def look(self, path: Path | None = None) -> None:
        """Read what the file says about itself, and show it."""
        path = path or self.typed_path()
        if path == Path() or not path.exists():
            return
        self._described = None
        self.start(lambda: describe_job(path), self._show_facts, "Look into file")

    def _show_facts(self, description: Any) -> None:
        facts = self.facts = dict(description.facts)
        self._described = Path(description.path)
        shape = f" {TIMES} ".join(str(n) for n in facts.get("shape") or ())
        size = facts.get("pixel_size_nm")
        self.pixel_size.value = (
            None if size is None else (float(size[0]), float(size[1]))
        )
        lines = [
            f"{shape} px, {facts.get('dtype')}",
            f"Pixel size in the file: {format_nm(self.pixel_size.value)}",
        ]
        if facts.get("vendor"):
            lines.append(f"Microscope: {facts['vendor']}")
        self.about.setText("\n".join(lines))
        self._show_counts(facts)
        rows = int(facts.get("databar_rows") or 0)
        self.bar.value = rows
        self.bar_note.setText(_bar_text(rows, facts.get("suggested_databar_rows")))
        self.show_status(f"{self._described.name} can be opened.")

    def _show_counts(self, facts: dict[str, Any]) -> None:
        for name, many in _COUNTS.items():
            count = int(facts.get(many) or 1)
            self.form.widget(name).max = max(0, count - 1)
            if name in ("channel", "plane"):
                self.form.set_values(**{name: 0 if count > 1 else None})
            self.form.show_row(name, count > 1)

    # -- opening ---------------------------------------------------------------

    def options(self) -> ReadOptions:
        """Read the form.

        Gives validated; the pixel size only where it differs from the file's.
        """
        size = self.pixel_size.value
        stated = self.facts.get("pixel_size_nm")
        same = size is not None and stated is not None and tuple(stated) == tuple(size)
        rows, known = int(self.bar.value), int(self.facts.get("databar_rows") or 0)
        options: ReadOptions = self.form.options(
            pixel_size_nm=None if same else size,
            databar_rows=None if rows == known else rows,
        )
        return options

    def job(self) -> tuple[Callable[[], Job[Any]], Callable[[Any], None]]:
        """Read the form."""
        path = self.typed_path()
        if path == Path() or not path.exists():
            msg = f"A file must be chosen first, got {str(path)!r}."
            raise OptionError(msg)
        if path != self._described:
            self.facts = {}
        options, levels = self.options(), int(self.facts.get("levels") or 1)
        return lambda: open_levels(path, options, levels=levels), self.show_image

    def show_image(self, opened: Opened) -> None:
        """Add what was opened as a layer."""
        layer = add_opened(self.viewer, opened)
        show_scale_bar(self.viewer)
        self.calibrate.layer.value = layer
        rows, columns = opened.micrograph.shape
        size = format_nm(opened.micrograph.pixel_size_nm)
        self.show_status(
            f"Opened {opened.micrograph.name}: {rows} {TIMES} {columns} px, "
            f"pixel size {size}.{_mixed_text(self.viewer.layers.units)}"
        )


def _mixed_text(units: object) -> str:
    """Say why the scale bar has no unit, where napari finds none in common."""
    if units is not None:
        return ""
    return (
        " The scale bar shows no nm, since another layer has no pixel size; give it "
        "one under Calibrate a layer, or remove it."
    )


def _bar_text(rows: int, guess: int | None) -> str:
    """Say what is known of the data bar."""
    if rows:
        return f"The file's header says {rows} rows; change them if they are wrong."
    if guess:
        return f"The lowest {guess} rows look like a bar; type {guess} to crop them."
    return "No data bar was found."
