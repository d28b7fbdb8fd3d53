"""Small boxes of a field, enhanced just as a run of the whole field would do it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.intensity import to_dtype
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.tiling import Box
from napari_semsr.inference.haze import find_haze
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.regrid import show
from napari_semsr.inference.scaling import measure_scaling
from napari_semsr.inference.tasks import Run
from napari_semsr.models.checkpoint import LoadedModel

__all__ = ["BoxPreview", "preview_boxes"]


@dataclass(frozen=True, slots=True)
class BoxPreview:
    """Everything that a box needs, measured on the whole field.

    Attributes
    ----------
    run : Run
        The field, its plan and its grey values.
    predictor : Predictor
        The network on its device.
    exact : bool
        Whether a box shows what the run will show. It does not where normalisation
        layers take their statistics from the whole field.
    """

    run: Run
    predictor: Predictor
    exact: bool

    def enhance(self, box: Box) -> tuple[Box, NDArray[Any]]:
        """Enhance one box.

        Parameters
        ----------
        box : Box
            In pixels of the input; moved onto the grid of the model and into the field.

        Returns
        -------
        Box
            What was enhanced, in pixels of the input.
        numpy.ndarray
            Its pixels, `scale` times finer.
        """
        place = self._settle(box)
        tile = self.run.around(place)
        window, missing = self.run.read(tile.window)
        result = self.predictor.predict(window, self.run.scaling)
        made, inner = self.run.deliver(place, result, tile.window, missing)
        return place, to_dtype(made[inner.slices], self.run.target.dtype)[0]

    def _settle(self, box: Box) -> Box:
        """Move a box onto the stride and into the field, cutting what is too large."""
        stride = self.run.outputs.stride
        spans = []
        for first, last, size in zip(
            (box.y0, box.x0), (box.y1, box.x1), self.run.outputs.shape, strict=True
        ):
            start = min(max(first, 0), max(0, size - (last - first)))
            start -= start % stride
            spans.append((start, min(start + last - first, size)))
        return Box(*spans[0], *spans[1])


def preview_boxes(
    micrograph: Micrograph, loaded: LoadedModel, options: EnhanceOptions | None = None
) -> BoxPreview:
    """Measure what boxes of a field need.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions, optional
        How it is run.

    Returns
    -------
    BoxPreview
        Enhances boxes one after the other.
    """
    chosen, card = options or EnhanceOptions(), loaded.card
    predictor = Predictor(loaded, device=chosen.device, precision=chosen.precision)
    found = predictor.probe
    if chosen.resample == "keep":  # a box lies on the field's own grid all the same
        chosen = chosen.replace(resample="auto")
    shown = show(micrograph, card, found, chosen)
    data, back = shown.data, card.grey == "input"
    scaling = measure_scaling(data, card.input_percentiles, back=back)
    haze = find_haze(data, loaded.module, scaling) if chosen.haze else None
    run = Run(
        data=data,
        target=np.empty((0, 0), np.dtype(chosen.dtype or np.float32)),
        loaded=loaded,
        plan=shown.plan,
        scaling=scaling,
        haze=haze,
        device=chosen.device,
        precision=chosen.precision,
        regrid=shown.regrid,
    )
    return BoxPreview(run, predictor, not found.norms and found.halo is not None)
