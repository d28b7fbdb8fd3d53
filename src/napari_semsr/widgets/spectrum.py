"""Spectrum: radial curves of several layers together, and centred planes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, Select
from numpy.typing import NDArray
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.widgets._form import Form
from napari_semsr.widgets._layers import grey_layers, same_unit
from napari_semsr.widgets._note import Note
from napari_semsr.widgets._panel import Panel
from napari_semsr.widgets._spectrum_layers import add_rings, add_spectrum_layer

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["Spectra", "SpectrumPanel", "transform", "write_csv"]

_LIST_HEIGHT = 110
_NOTE = (
    "The 2-D spectrum is laid to the right of its image and is as large as the "
    "image, so that the viewer keeps its nm scale bar. The bar does not hold for the "
    "spectrum: its yellow rings say which period and frequency they stand for."
)


@dataclass(frozen=True, slots=True)
class Spectra:
    """Spectra of several images.

    Attributes
    ----------
    images : tuple of Micrograph
        What was transformed.
    frequency, power : tuple of (K,) numpy.ndarray
        Radial curves; frequency in µm⁻¹ when calibrated, else in cycles per pixel.
    planes : tuple of (Y, X) numpy.ndarray
        Logarithm of the centred power; empty when not asked for.
    calibrated : bool
        Whether frequencies are in µm⁻¹.
    """

    images: tuple[Micrograph, ...]
    frequency: tuple[NDArray[Any], ...]
    power: tuple[NDArray[Any], ...]
    planes: tuple[NDArray[Any], ...]
    calibrated: bool


def transform(images: Sequence[Micrograph], *, planes: bool) -> Job[Spectra]:
    """Measure radial and centred spectra of several images.

    Parameters
    ----------
    images : sequence of Micrograph
        All calibrated, or none.
    planes : bool
        Whether centred planes are wanted too.

    Returns
    -------
    Spectra
        Curves and planes.

    Yields
    ------
    Progress
        One step for each image.
    """
    from napari_semsr.analysis.spectrum import centred_spectrum, radial_spectrum

    calibrated = same_unit(images) == "nm"
    frequency, power, centred = [], [], []
    for number, image in enumerate(images):
        yield Progress(number, len(images), f"transforming {image.name}")
        curve = radial_spectrum(image)
        pixel = image.mean_pixel_size_nm
        k = 1000.0 / pixel if pixel is not None else 1.0
        frequency.append(np.asarray(curve.frequency_per_px) * k)
        power.append(np.asarray(curve.power))
        if planes:
            centred.append(np.asarray(centred_spectrum(image).array()))
    yield Progress(len(images), len(images), "done")
    return Spectra(
        tuple(images), tuple(frequency), tuple(power), tuple(centred), calibrated
    )


def write_csv(path: Path, spectra: Spectra) -> None:
    """Write radial curves, one row for each ring of each image.

    Parameters
    ----------
    path : pathlib.Path
        The file; replaced if it exists, since the dialogue asked.
    spectra : Spectra
        The curves.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    unit = "frequency_per_um" if spectra.calibrated else "frequency_per_px"
    period = "period_nm" if spectra.calibrated else "period_px"
    k = 1000.0 if spectra.calibrated else 1.0
    lines = [f"image,{unit},{period},power"]
    for image, q, p in zip(
        spectra.images, spectra.frequency, spectra.power, strict=True
    ):
        name = '"' + image.name.replace('"', '""') + '"'
        lines += [
            f"{name},{a:.8g},{'' if a == 0 else format(k / a, '.8g')},{b:.8g}"
            for a, b in zip(q.tolist(), p.tolist(), strict=True)
        ]
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another folder."
        raise WriteError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


class SpectrumPanel(Panel):
    """Draws the radial spectra of layers together, and adds centred ones.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Spectrum", "Transform")
        self.spectra: Spectra | None = None
        self.plot: Any = None
        self.layers = Select(
            name="layers",
            choices=lambda _: [
                (item.name, item) for item in reversed(grey_layers(viewer))
            ],
        )
        self.layers.native.setFixedHeight(_LIST_HEIGHT)
        self.layers.reset_choices()
        self.follow(self.layers)
        self.planes = CheckBox(value=True, text="2-D spectrum as a layer")
        self.rings = CheckBox(value=True, text="Rings with their period")
        self.export_button = QPushButton("Export curves as CSV …")
        self.export_button.clicked.connect(lambda: self.export())
        self.export_button.setEnabled(False)
        self._fill()

    def _fill(self) -> None:
        form = Form()
        form.add(
            "layers",
            "",
            self.layers,
            "Layers whose spectra are drawn together; hold Ctrl to choose several.",
        )
        form.add("planes", "", self.planes, "Adds the centred log power spectrum.")
        form.add("rings", "", self.rings, "Draws rings of round periods onto it.")
        self.add_group("Layers", form, Note(_NOTE))
        self.results = self.add_group("Radial spectra", self.export_button)
        self.export_button.setToolTip("Frequency, period and power of every ring.")
        self.results.setVisible(False)

    def job(self) -> tuple[Callable[[], Job[Any]], Callable[[Any], None]]:
        """Read the form.

        Returns
        -------
        tuple of callable
            The transform, and what shows it.
        """
        chosen = list(self.layers.value)
        if not chosen:
            chosen = grey_layers(self.viewer)[-1:]
        images = [self.micrograph(layer) for layer in chosen or [None]]
        same_unit(images)
        planes = bool(self.planes.value)
        return lambda: transform(images, planes=planes), self.show_spectra

    def show_spectra(self, spectra: Spectra) -> None:
        """Draw the curves and add the layers.

        Parameters
        ----------
        spectra : Spectra
            What was transformed.
        """
        from napari_semsr.widgets.plots import Curve, PlotCanvas, draw_curves

        self.spectra = spectra
        if self.plot is None:
            self.plot = PlotCanvas(self.viewer, height=300)
            self.add_plot(self.results, self.plot)
        curves = [
            Curve(image.name, q, p)
            for image, q, p in zip(
                spectra.images, spectra.frequency, spectra.power, strict=True
            )
        ]
        draw_curves(self.plot, curves, calibrated=spectra.calibrated)
        pairs = zip(spectra.images, spectra.planes, strict=False)
        for place, (image, plane) in enumerate(pairs, start=1):
            layer = add_spectrum_layer(self.viewer, image, plane, place=place)
            if self.rings.value:
                add_rings(self.viewer, image, layer)
        if spectra.planes:
            self.viewer.reset_view()
        self.reveal(self.results)
        self.export_button.setEnabled(True)
        unit = "µm⁻¹" if spectra.calibrated else "cycles per pixel (no pixel size)"
        many = "spectrum" if len(curves) == 1 else "spectra"
        self.show_status(f"{len(curves)} radial {many}, frequencies in {unit}.")

    def export(self, path: Path | None = None) -> None:
        """Write the curves as CSV.

        Parameters
        ----------
        path : pathlib.Path, optional
            Where; a dialogue asks when it is not given.
        """
        if path is None:
            chosen, _ = QFileDialog.getSaveFileName(
                self, "Export curves", "spectra.csv", "CSV (*.csv)"
            )
            if not chosen:
                return
            path = Path(chosen)
        if self.spectra is None:
            self.show_problem("Spectra must be measured before they are exported.")
            return
        try:
            write_csv(path, self.spectra)
        except WriteError as error:
            self.show_problem(str(error))
            return
        self.notify(f"Wrote {path.name}.")
