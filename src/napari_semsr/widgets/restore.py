"""Restore: undo a layer's blur by a classical method, into a calibrated store."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox

from napari_semsr.core import Job, Micrograph
from napari_semsr.jobs import RestoredFile, restore_job
from napari_semsr.restoration import RestoreOptions
from napari_semsr.widgets.base import (
    Form,
    Numbers,
    OptionsForm,
    Outcome,
    Panel,
    Quantity,
    Row,
    StackOutcome,
    Target,
    Work,
    add_opened,
    add_stack,
    new_store_path,
    require_room,
    stack_target,
    store_edit,
    typed_stack,
    typed_store,
    written,
    written_stack,
)
from napari_semsr.widgets.compare import CompareControls, told_of_change
from napari_semsr.widgets.layers import planes_of, result_name

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Image

_ITERATIVE = ("richardson-lucy", "blind")
_METHODS = {
    "Wiener": "wiener",
    "Wiener, unsupervised": "unsupervised-wiener",
    "constrained least squares": "cls",
    "Richardson-Lucy": "richardson-lucy",
    "blind": "blind",
}
_CALLED = {method: called for called, method in _METHODS.items()}
_ROWS = {
    "method": Row(
        "Method",
        "Linear filters are quick; Richardson-Lucy keeps grey levels positive; blind "
        "also adjusts the blur.",
        _METHODS,
    ),
    "psf": Row(
        "Blur",
        "Sigma of a Gaussian with its unit, such as 1.5px or 12nm; the file of a "
        "kernel; or estimate; for blind also flat7px, a flat kernel to start from. "
        "Give it when you know it: an estimate cannot tell blur from a soft sample.",
    ),
    "iterations": Row("Iterations", "More are sharper and noisier."),
    "tv": Row(
        "Total variation",
        "Weight of smoothness between edges; 0.002 is usual, 0 leaves it out.",
        step=0.001,
    ),
}


class RestorePanel(Panel):
    """Restores a layer by a classical method."""

    help_place = "restore.md"

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Restore", "Restore")
        self.layer = self.new_layer_box("layer", "Layer", "The grey image to restore.")
        self.form = OptionsForm(RestoreOptions, _ROWS)
        self.output = store_edit()
        self.replace = CheckBox(
            name="replace",
            text="Replace an existing store",
            tooltip="Otherwise it is left alone.",
        )
        self.add_group("Image", Form(self.layer, self.new_planes_box()))
        self.add_group("How", self.form, Form(self.output, self.replace))
        self.look = CompareControls(self)
        self.add_group("Compare", self.look)
        self.add_results("Result")
        self.form.on_change("method", self._show_rows)
        self._show_rows(self.form.values()["method"])
        self.layer.changed.connect(self.look.compare)
        self.take_input(self.layer)

    def _show_rows(self, method: Any) -> None:
        for name in ("iterations", "tv"):
            self.form.show_row(name, method in _ITERATIVE)

    def writes(self) -> Path | None:
        """Give the path that was chosen."""
        typed = typed_stack if self.takes_stack() else typed_store
        return typed(self.output)

    def job(self) -> Work:
        """Read the form."""
        source = self.layer.value
        micrograph = self.micrograph(source)
        options: RestoreOptions = self.form.options()
        if self.takes_stack():
            return self._stack_job(self.layer.value, options)
        path = typed_store(self.output)
        if path is None:
            require_room(micrograph.shape, 1)
        name = result_name(self.viewer, micrograph.name, options.method)
        store = path or new_store_path(name)
        overwrite, target = bool(self.replace.value), Target(store, temporary=not path)

        def make() -> Job[Outcome]:
            job = restore_job(micrograph, store, options=options, overwrite=overwrite)
            return written(job, target)

        return make, lambda outcome: self.show_outcome(outcome, source, micrograph)

    def _stack_job(self, layer: "Image", options: RestoreOptions) -> Work:
        """Read the rest of the form, for all planes."""
        planes, overwrite = planes_of(layer), bool(self.replace.value)
        name = result_name(self.viewer, layer.name, options.method)
        target = stack_target(self.output, name, planes)

        def make() -> Job[StackOutcome]:
            job = restore_job(planes, target.path, options=options, overwrite=overwrite)
            return written_stack(job, target)

        return make, lambda outcome: self.show_stack(outcome, layer)

    def show_stack(self, outcome: StackOutcome, layer: "Image") -> Iterator[None]:
        """Add the stack as a layer, and write the parameters of its first plane."""
        title = result_name(self.viewer, layer.name, outcome.made.method)
        made = add_stack(self.viewer, outcome, layer, title)
        yield
        self.look.finished_stack(made, layer, outcome.planes)
        said = (
            f"Restored {len(outcome.planes)} planes ({_CALLED[outcome.made.method]})."
        )
        change, hardly = told_of_change(outcome.made.change, "method")
        self.show_result({**change, **_figures(outcome.made)}, said + hardly)

    def show_outcome(
        self, outcome: Outcome, source: "Image", image: Micrograph
    ) -> Iterator[None]:
        """Add the result as a layer, and write its parameters."""
        name = image.name
        title = result_name(self.viewer, name, outcome.made.method)
        layer = add_opened(self.viewer, outcome.opened, name=title)
        yield
        self.look.finished(layer, source, image, outcome.opened)
        said = f"Restored {name} ({_CALLED[outcome.made.method]})."
        change, hardly = told_of_change(outcome.made.change, "method")
        self.show_result({**change, **_figures(outcome.made)}, said + hardly)


def _figures(made: RestoredFile) -> Numbers:
    """Say a restoration in words and numbers."""
    told = made.parameters
    y, x = told["psf"]["sigma_px"]
    width = f"{y:.2f} px" if y == x else f"{y:.2f} px down, {x:.2f} px across"
    rows: dict[str, Quantity | str] = {
        "Method": _CALLED[made.method],
        "Blur": f"{told['psf']['kind']}, {width}",
    }
    if told.get("noise_std") is not None:
        rows["Noise"] = Quantity(told["noise_std"], "grey levels", ".3g")
    if told.get("iterations") is not None:
        rows["Iterations"] = Quantity(told["iterations"])
    rows["Tiles"] = Quantity(made.tiles, note=f"with a halo of {told['halo_px']} px")
    rows["Tiles against whole"] = (
        "equal" if told["exact"] else f"{told['tolerance']:.1e} of the range"
    )
    return rows | {"Store": made.output}
