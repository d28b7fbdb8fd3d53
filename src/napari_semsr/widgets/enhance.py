"""Enhance: run a model over a layer tile by tile, into a calibrated store."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit

from napari_semsr.core.errors import OptionError, SemsrError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.io.options import ReadOptions
from napari_semsr.services.describe import describe
from napari_semsr.services.enhance import EnhancedFile, enhance
from napari_semsr.widgets._cache import new_store_path, require_room
from napari_semsr.widgets._form import Form, OptionsForm, Row
from napari_semsr.widgets._layers import layer_keywords, show_scale_bar
from napari_semsr.widgets._model_card import ModelChooser
from napari_semsr.widgets._note import Note
from napari_semsr.widgets._panel import Panel
from napari_semsr.widgets._settings import preference
from napari_semsr.widgets._text import table
from napari_semsr.widgets.open_mosaic import Opened, open_levels

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["EnhanceOutcome", "EnhancePanel", "Target", "enhance_layer"]

_EXISTING = {"refuse": "refuse", "resume it": "resume", "replace it": "replace"}
_DEVICES = {"automatic": "auto", "CPU": "cpu", "GPU (CUDA)": "cuda"}
_ROWS = {
    "device": Row("Device", "Where the model runs; automatic takes a GPU.", _DEVICES),
    "tile": Row(
        "Tile (px)",
        "Side of a tile; automatic fits model and memory. The result is the same.",
        step=64,
    ),
    "precision": Row(
        "Precision",
        "Number format; automatic takes bf16 where it is faster.",
        {"automatic": "auto", "fp32": "fp32", "bf16": "bf16"},
    ),
    "norm": Row(
        "Normalisation",
        "How statistics of normalising layers are taken; exact leaves no seams.",
    ),
}


@dataclass(frozen=True, slots=True)
class EnhanceOutcome:
    """What was made, opened again.

    Attributes
    ----------
    made : EnhancedFile
        Path and figures.
    opened : Opened
        The image and its pyramid.
    """

    made: EnhancedFile
    opened: Opened


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result goes.

    Attributes
    ----------
    path : pathlib.Path
        Ends in ``.ome.zarr``.
    existing : {"refuse", "resume", "replace"}
        What to do with a store that is there already.
    temporary : bool
        Whether it is removed when the run does not end.
    """

    path: Path
    existing: str = "refuse"
    temporary: bool = False


def enhance_layer(
    micrograph: Micrograph, target: Target, *, model: str, options: Any
) -> Job[EnhanceOutcome]:
    """Enhance an image into a store, and open what was written.

    Parameters
    ----------
    micrograph : Micrograph
        The image.
    target : Target
        Where the store goes.
    model : str
        Name or path.
    options : EnhanceOptions
        Device, tile, precision, normalisation.

    Returns
    -------
    EnhanceOutcome
        Figures and pyramid.

    Yields
    ------
    Progress
        Loading, tiles, pyramid.
    """
    yield Progress(0, 0, "loading the model (the first time takes some seconds)")
    try:
        made = yield from enhance(
            micrograph,
            target.path,
            model=model,
            options=options,
            overwrite=target.existing == "replace",
            resume=target.existing == "resume",
        )
    except BaseException:
        if target.temporary:
            shutil.rmtree(target.path, ignore_errors=True)
        raise
    facts = yield from describe(made.output)
    levels = int(facts.facts.get("levels") or 1)
    opened = yield from open_levels(Path(made.output), ReadOptions(), levels=levels)
    return EnhanceOutcome(made, opened)


class EnhancePanel(Panel):
    """Enhances a layer with a model from the shelf.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Enhance", "Enhance")
        from napari_semsr.inference.options import EnhanceOptions

        self.layer = self.new_layer_box("layer")
        self.model = ModelChooser()
        self.form = OptionsForm(EnhanceOptions, _ROWS)
        self.form.set_values(
            device=preference("computing", "device"),
            tile=int(preference("computing", "tile_px")) or None,
            precision=preference("computing", "precision"),
        )
        self.output = FileEdit(
            name="output", mode=FileDialogMode.OPTIONAL_FILE, filter="*.ome.zarr"
        )
        self.existing = ComboBox(name="existing", choices=list(_EXISTING.items()))
        self.figures = Note()
        self._fill()
        self.layer.changed.connect(self._compare)
        self.model.changed.connect(self._show_norm)
        self._compare(self.layer.value)
        self._show_norm()

    def _fill(self) -> None:
        which = Form()
        which.add("layer", "Layer", self.layer, "The grey image to enhance.")
        where = Form()
        where.add(
            "output",
            "Save as",
            self.output,
            "An .ome.zarr path; empty keeps the result in a temporary folder that is "
            "removed when napari ends.",
        )
        where.add(
            "existing",
            "If it exists",
            self.existing,
            "Leave an existing store alone, go on with one that was interrupted, or "
            "replace it.",
        )
        self.add_group("Image", which)
        self.add_group("Model", self.model)
        self.add_group("How", self.form, where)
        self.results = self.add_group("Result", self.figures)
        self.results.setVisible(False)

    def _compare(self, layer: Any) -> None:
        try:
            size = self.micrograph(layer).mean_pixel_size_nm
        except SemsrError:
            size = None
        self.model.show_for(size)

    def _show_norm(self) -> None:
        self.form.show_row("norm", bool(self.model.card.get("norms")))

    def _target(self, micrograph: Micrograph) -> Target:
        typed = str(self.output.value).strip()
        if typed in ("", "."):
            require_room(micrograph.shape, int(self.model.card.get("scale", 1)))
            made = new_store_path(f"{micrograph.name}-enhanced")
            return Target(made, temporary=True)
        path = Path(typed)
        if not path.name.endswith(".ome.zarr"):
            path = path.with_name(f"{path.name}.ome.zarr")
        return Target(path, existing=str(self.existing.value))

    def job(self) -> tuple[Callable[[], Job[Any]], Callable[[Any], None]]:
        """Read the form.

        Returns
        -------
        tuple of callable
            The run, and what shows its result.
        """
        micrograph = self.micrograph(self.layer.value)
        model = self.model.value
        if model is None:
            msg = "A model must be chosen, but none is on the shelf; add a model file."
            raise OptionError(msg)
        options = self.form.options()
        target = self._target(micrograph)
        self.after_cancel = (
            "no layer was added"
            if target.temporary
            else "what is finished is kept, and 'resume it' goes on from there"
        )
        return (
            lambda: enhance_layer(micrograph, target, model=model, options=options),
            self.show_outcome,
        )

    def show_outcome(self, outcome: EnhanceOutcome) -> None:
        """Add the result as a layer, and write its figures.

        Parameters
        ----------
        outcome : EnhanceOutcome
            What was made.
        """
        micrograph = outcome.opened.micrograph
        data = [item.data for item in outcome.opened.levels]
        many = len(data) > 1
        keywords = layer_keywords(
            micrograph, levels=data, name=f"{_source(outcome)} enhanced"
        )
        self.viewer.add_image(data if many else data[0], multiscale=many, **keywords)
        show_scale_bar(self.viewer)
        report = outcome.made.report
        self.figures.setText(table(figures(report, outcome.made.output)))
        self.reveal(self.results)
        self.show_status(
            f"Enhanced in {report.seconds:.1f} s at "
            f"{report.megapixels_per_second:.2f} megapixels/s."
        )


def _source(outcome: EnhanceOutcome) -> str:
    """Name of the layer that was enhanced."""
    record = outcome.opened.micrograph.provenance
    if record is not None and record.inputs:
        return record.inputs[0].name
    return outcome.opened.micrograph.name


def figures(report: Any, output: str) -> Mapping[str, str]:
    """Say a run in words and numbers.

    Parameters
    ----------
    report : EnhanceReport
        What the engine measured.
    output : str
        Where the result is.

    Returns
    -------
    dict
        Names and values, for the panel.
    """
    many = report.tiles > 1
    mismatch = f"{report.tile_mismatch:.2e} of the range"
    seam = f"{report.seam_index:.3f} (1: no seam)"
    return {
        "Tiles": f"{report.tiles} of {report.tile_px} px, halo {report.halo_px} px",
        "Time": f"{report.seconds:.2f} s",
        "Speed": f"{report.megapixels_per_second:.2f} MP/s",
        "Peak memory": f"{report.peak_memory_mb:.0f} MB",
        "Device": f"{report.device}, {report.precision}",
        "Normalisation": str(report.norm),
        "Tile mismatch": mismatch if many else "none: one tile",
        "Seam index": seam if many else "none: one tile",
        "Store": output,
    } | ({"Notes": " ".join(report.notes)} if report.notes else {})
