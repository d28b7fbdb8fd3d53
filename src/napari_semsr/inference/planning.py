"""Decide how a field is run: tiles, precision, statistics, geometry of the output."""

from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.provenance import Provenance
from napari_semsr.core.tiling import TilePlan, plan_tiles
from napari_semsr.inference.geometry import Frame, core_side, output_frame, unit_side
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.pixel_fit import PixelFit, Trained, fit_pixels
from napari_semsr.inference.scaling import Scaling
from napari_semsr.io.zarr_store import OmeZarrStore, create_store
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import LoadedModel
from napari_semsr.models.receptive_field import Probe

__all__ = [
    "Frame",
    "choose_tiles",
    "chunk_of",
    "create_output",
    "fit_of",
    "identity_of",
    "output_frame",
]


def choose_tiles(
    shape: tuple[int, int],
    card: ModelCard,
    probe: Probe,
    *,
    tile: int | None = None,
    constant: bool = False,
) -> TilePlan:
    """Cut a field into tiles for a network.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the field.
    card : ModelCard
        Scale and stride of the network.
    probe : Probe
        What was measured on it.
    tile : int, optional
        Side of a core; rounded up to the stride. The default is 512 pixels, or what
        gives output chunks of 1024: on a CPU, cores of 1024 take a sixth less time
        and twice the memory.
    constant : bool, default=False
        Give all windows one size, for batches on a GPU.

    Returns
    -------
    TilePlan
        A core, scaled, is a chunk of the output.
    """
    return plan_tiles(
        shape,
        core=core_side(shape, scale=card.scale, stride=card.stride, tile=tile),
        halo=probe.halo or 0,
        stride=card.stride,
        minimum=probe.smallest,
        constant=constant,
    )


def chunk_of(plan: TilePlan, scale: int) -> tuple[int, int]:
    """Give the output chunk of a plan.

    Parameters
    ----------
    plan : TilePlan
        The tiles.
    scale : int
        Output pixels per input pixel.

    Returns
    -------
    tuple of int
        Rows and columns of a chunk, cut to the output like the store cuts it.
    """
    side = plan.core * scale
    return min(side, plan.shape[0] * scale), min(side, plan.shape[1] * scale)


def create_output(
    path: Path,
    micrograph: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    *,
    provenance: Provenance | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> OmeZarrStore:
    """Make, or reopen, the store that `enhance_to_store` fills.

    Parameters
    ----------
    path : pathlib.Path
        Folder to make; its name ends in ``.zarr``.
    micrograph : Micrograph
        The input.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions
        How it is run.
    provenance : Provenance, optional
        What makes the image.
    overwrite : bool, default=False
        Replace an existing store.
    resume : bool, default=False
        Go on with an interrupted store of the same making.

    Returns
    -------
    OmeZarrStore
        Its write units are the tiles' cores.

    Raises
    ------
    WriteError
        If the path cannot be written, or an existing store is of another making.
    """
    card = loaded.card
    fit = fit_of(micrograph, card, options)
    frame = output_frame(micrograph, card.scale, fit)
    chunk = unit_side(
        frame, fit, scale=card.scale, stride=card.stride, tile=options.tile
    )
    return create_store(
        path,
        shape=frame.shape,
        dtype=np.dtype(options.dtype or np.float32),
        chunk=chunk,
        pixel_size_nm=frame.pixel_size_nm,
        origin=frame.origin,
        spacing_px=frame.spacing_px,
        name=micrograph.name,
        provenance=provenance,
        overwrite=overwrite,
        resume=resume,
    )


def fit_of(
    micrograph: Micrograph, card: ModelCard, options: EnhanceOptions
) -> PixelFit:
    """Compare a field's pixel size with that of a model.

    Parameters
    ----------
    micrograph : Micrograph
        The field.
    card : ModelCard
        The model's card.
    options : EnhanceOptions
        Whether the field may be resampled.

    Returns
    -------
    PixelFit
        What is done.
    """
    trained = Trained.from_card(card.model_dump())
    return fit_pixels(micrograph.pixel_size_nm, trained, options.resample)


def identity_of(
    micrograph: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    scaling: Scaling,
    resampling: list[str] | None = None,
) -> dict[str, Any]:
    """Tell what must be equal for a run to be resumed, in JSON types.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    loaded : LoadedModel
        The network.
    options : EnhanceOptions
        How it is run.
    scaling : Scaling
        As measured; it stands for the grey values of the input.
    resampling : list of str, optional
        From `Regrid.record`.

    Returns
    -------
    dict
        Values by what they are called in a sentence.
    """
    chosen = options.model_dump(mode="json", exclude={"batch", "memory_gb"})
    measured = (scaling.low, scaling.high, scaling.mean)
    return {
        "input": [*micrograph.shape, micrograph.dtype.str, *measured],
        "model": loaded.digest,
        "resampling": resampling,
        **{f"option {name}": value for name, value in chosen.items()},
    }
