"""Restore: undo a layer's blur by a classical method, into a calibrated store."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, FileEdit

from napari_semsr.core import Job, Micrograph
from napari_semsr.jobs import RestoredFile, restore_job
from napari_semsr.restoration import RestoreOptions
from napari_semsr.widgets.base import (
    Form,
    Note,
    OptionsForm,
    Panel,
    Row,
    new_store_path,
    require_room,
    table,
)
from napari_semsr.widgets.layers import show_scale_bar
from napari_semsr.widgets.open_mosaic import Opened, add_opened, open_store

if TYPE_CHECKING:
    import napari.viewer

_ITERATIVE = ("richardson-lucy", "blind")
_ROWS = {
    "method": Row(
        "Method",
        "Linear filters are quick; Richardson-Lucy keeps grey levels positive; blind "
        "also adjusts the blur.",
        {
            "Wiener": "wiener",
            "Wiener, unsupervised": "unsupervised-wiener",
            "constrained least squares": "cls",
            "Richardson-Lucy": "richardson-lucy",
            "blind": "blind",
        },
    ),
    "psf": Row(
        "Blur",
        "Sigma of a Gaussian with its unit, such as 1.5px or 12nm; the file of a "
        "kernel; or estimate. Give it when you know it: an estimate cannot tell blur "
        "from a soft sample.",
    ),
    "iterations": Row("Iterations", "More are sharper and noisier."),
    "tv": Row(
        "Total variation",
        "Weight of smoothness between edges; 0.002 is usual, 0 leaves it out.",
        step=0.001,
    ),
}


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What was made, opened again."""

    made: RestoredFile
    opened: Opened


def _restore_layer(
    micrograph: Micrograph,
    path: Path,
    options: RestoreOptions,
    *,
    overwrite: bool = False,
    temporary: bool = False,
) -> Job[RestoreOutcome]:
    """Restore an image into a store, and open what was written."""
    try:
        made = yield from restore_job(
            micrograph, path, options=options, overwrite=overwrite
        )
    except BaseException:
        if temporary:
            shutil.rmtree(path, ignore_errors=True)
        raise
    return RestoreOutcome(made, (yield from open_store(made.output)))


class RestorePanel(Panel):
    """Restores a layer by a classical method."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Restore", "Restore")
        self.layer = self.new_layer_box("layer")
        self.form = OptionsForm(RestoreOptions, _ROWS)
        self.output = FileEdit(
            name="output", mode=FileDialogMode.OPTIONAL_FILE, filter="*.ome.zarr"
        )
        self.replace = CheckBox(name="replace", text="Replace an existing store")
        self.figures = Note()
        self._fill()
        self.form.on_change("method", self._show_rows)
        self._show_rows(self.form.values()["method"])

    def _fill(self) -> None:
        which, where = Form(), Form()
        which.add("layer", "Layer", self.layer, "The grey image to restore.")
        where.add(
            "output",
            "Save as",
            self.output,
            "An .ome.zarr path; empty keeps the result in a temporary folder that is "
            "removed when napari ends.",
        )
        where.add("replace", "", self.replace, "Otherwise it is left alone.")
        self.add_group("Image", which)
        self.add_group("How", self.form, where)
        self.results = self.add_group("Result", self.figures)
        self.results.setVisible(False)

    def _show_rows(self, method: Any) -> None:
        for name in ("iterations", "tv"):
            self.form.show_row(name, method in _ITERATIVE)

    def job(self) -> tuple[Callable[[], Job[Any]], Callable[[Any], None]]:
        """Read the form."""
        micrograph = self.micrograph(self.layer.value)
        options: RestoreOptions = self.form.options()
        typed = str(self.output.value).strip()
        temporary = typed in ("", ".")
        if temporary:
            require_room(micrograph.shape, 1)
            path = new_store_path(f"{micrograph.name}-restored")
        else:
            path = Path(typed)
            if not path.name.endswith(".ome.zarr"):
                path = path.with_name(f"{path.name}.ome.zarr")
        overwrite = bool(self.replace.value)
        return (
            lambda: _restore_layer(
                micrograph, path, options, overwrite=overwrite, temporary=temporary
            ),
            lambda outcome: self.show_outcome(outcome, micrograph.name),
        )

    def show_outcome(self, outcome: RestoreOutcome, name: str) -> None:
        """Add the result as a layer, and write its parameters."""
        add_opened(self.viewer, outcome.opened, name=f"{name} restored")
        show_scale_bar(self.viewer)
        self.figures.setText(table(_figures(outcome.made)))
        self.reveal(self.results)
        self.show_status(f"Restored {name} by {outcome.made.method}.")


def _figures(made: RestoredFile) -> Mapping[str, str]:
    """Say a restoration in words and numbers."""
    told = made.parameters
    y, x = told["psf"]["sigma_px"]
    width = f"{y:.2f} px" if y == x else f"{y:.2f} px down, {x:.2f} px across"
    rows = {"Method": made.method, "Blur": f"{told['psf']['kind']}, {width}"}
    if told.get("noise_std") is not None:
        rows["Noise"] = f"{told['noise_std']:.3g} grey levels"
    if told.get("iterations") is not None:
        rows["Iterations"] = str(told["iterations"])
    rows["Tiles"] = f"{made.tiles}, halo {told['halo_px']} px"
    rows["Tiles against whole"] = (
        "equal" if told["exact"] else f"{told['tolerance']:.1e} of the range"
    )
    return rows | {"Store": made.output}
