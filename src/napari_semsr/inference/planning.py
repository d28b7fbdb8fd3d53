"""Decide how a field is run: tiles, precision, statistics, geometry of the output."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.core.errors import DeviceMemoryError, OptionError
from napari_semsr.core.micrograph import Micrograph, PixelSize, parse_pixel_size
from napari_semsr.core.provenance import Provenance
from napari_semsr.core.tiling import TilePlan, plan_tiles, round_up
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import Predictor
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
    "identity_of",
    "output_frame",
    "resolve_norm",
]

_CORE = 512
_LARGEST_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """Shape and calibration of an enhanced image.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    origin, spacing_px : tuple of float
        As in `Micrograph`.
    """

    shape: tuple[int, int]
    pixel_size_nm: PixelSize | None
    origin: tuple[float, float]
    spacing_px: tuple[float, float]


def output_frame(micrograph: Micrograph, scale: int) -> Frame:
    """Lay the finer grid of an enhanced image over the pixels of its input.

    Parameters
    ----------
    micrograph : Micrograph
        The input.
    scale : int
        Output pixels per input pixel on each axis.

    Returns
    -------
    Frame
        The outer borders of both images coincide, so that the centre of pixel (0, 0)
        moves for scales above one.
    """
    rows, columns = micrograph.shape
    pitch = micrograph.scale
    first, second = (
        origin - p / 2 + p / scale / 2
        for origin, p in zip(micrograph.origin, pitch, strict=True)
    )
    fine = pitch[0] / scale, pitch[1] / scale
    calibrated = micrograph.pixel_size_nm is not None
    return Frame(
        shape=(rows * scale, columns * scale),
        pixel_size_nm=parse_pixel_size(fine) if calibrated else None,
        origin=micrograph.origin if scale == 1 else (first, second),
        spacing_px=micrograph.spacing_px if calibrated else fine,
    )


def _core(shape: tuple[int, int], card: ModelCard, tile: int | None) -> int:
    """Side of a core: what was asked for, or the largest whose chunk is sensible."""
    whole = round_up(max(shape), card.stride)
    if tile is not None:
        return min(round_up(tile, card.stride), whole)
    wanted = min(_CORE, _LARGEST_CHUNK // card.scale)
    fitting = wanted // card.stride * card.stride
    return min(max(card.stride, fitting), whole)


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
        core=_core(shape, card, tile),
        halo=probe.halo or 0,
        stride=card.stride,
        minimum=probe.smallest,
        constant=constant,
    )


def resolve_norm(predictor: Predictor, options: EnhanceOptions, plan: TilePlan) -> str:
    """Decide where live normalisations take their statistics.

    Parameters
    ----------
    predictor : Predictor
        The network on its device.
    options : EnhanceOptions
        What the user asked for.
    plan : TilePlan
        The tiles.

    Returns
    -------
    {"none", "exact", "tile"}
        ``none``: tiles are exact as they are. ``exact``: the field is run whole.
        ``tile``: each tile by its own statistics.

    Raises
    ------
    OptionError
        If the asked-for way does not exist for this network.
    DeviceMemoryError
        If the field must be run whole and does not fit.
    """
    found = predictor.probe
    if not found.norms and found.halo is not None:
        return "none"
    if options.norm == "frozen":
        msg = (
            "Frozen statistics are not available for this network, got --norm frozen: "
            "use exact, which runs the field whole, or tile, which leaves seams."
        )
        raise OptionError(msg)
    if options.norm == "tile":
        if found.halo is None:
            msg = (
                f"Tiles need a bounded receptive field, and {predictor.card.name} has "
                "none: use --norm exact, which runs the field whole."
            )
            raise OptionError(msg)
        return "tile"
    if not predictor.fits(plan.padded_shape):
        need = predictor.peak_bytes(plan.padded_shape) / 2**30
        msg = (
            f"The normalisation layers of {predictor.card.name} need the field whole, "
            f"{need:.1f} GiB on {predictor.device}, and that is not free: crop the "
            "field, or use --norm tile, which leaves seams."
        )
        raise DeviceMemoryError(msg)
    return "exact"


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
    frame = output_frame(micrograph, loaded.card.scale)
    core = _core(micrograph.shape, loaded.card, options.tile)
    return create_store(
        path,
        shape=frame.shape,
        dtype=np.dtype(options.dtype or np.float32),
        chunk=core * loaded.card.scale,
        pixel_size_nm=frame.pixel_size_nm,
        origin=frame.origin,
        spacing_px=frame.spacing_px,
        name=micrograph.name,
        provenance=provenance,
        overwrite=overwrite,
        resume=resume,
    )


def identity_of(
    micrograph: Micrograph,
    loaded: LoadedModel,
    options: EnhanceOptions,
    scaling: Scaling,
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

    Returns
    -------
    dict
        Values by what they are called in a sentence.
    """
    chosen = options.model_dump(mode="json", exclude={"batch"})
    measured = (scaling.low, scaling.high, scaling.mean)
    return {
        "input": [*micrograph.shape, micrograph.dtype.str, *measured],
        "model": loaded.digest,
        **{f"option {name}": value for name, value in chosen.items()},
    }
