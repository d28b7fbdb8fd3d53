"""Restore a plane by a classical method, tile by tile, into a store or a file."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.analysis import Change, measure_change
from napari_semsr.core import (
    FloatPair,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    ReadError,
    TilePlan,
    parse_pixel_size,
    to_dtype,
    warn,
)
from napari_semsr.io import (
    OmeZarrStore,
    ReadOptions,
    output_kind,
    read_text,
    store_of,
    write_blocks,
)
from napari_semsr.jobs.enhance import overall_change, plane_by_plane
from napari_semsr.jobs.images import (
    Image,
    Result,
    check_tiled_target,
    image_in,
    jsonable,
    made_by,
    name_of,
    open_image,
    paths_of,
    record_file,
    record_input,
)
from napari_semsr.restoration import (
    RestoredTile,
    RestoreOptions,
    Restorer,
    choose,
    parse_psf,
)

# The blur that a file tells: the image of a point, or a simulated microscope.

_FWHM_PER_SIGMA = 2.354820045
_REACH = 3.0  # of a lens's rings, in widths; chosen: 95 % of its light


def _read_psf(text: str, image: Micrograph) -> tuple[str, Micrograph | None]:
    """Read the file of a blur: the option, with the width that a JSON file tells."""
    choice = parse_psf(text)
    if choice.kind != "file":
        return text, None
    if Path(choice.path).suffix.lower() != ".json":
        return text, open_image(choice.path)
    told = _read_json(Path(choice.path))
    try:
        width_px, pixel_nm = float(told["psf_fwhm_px"]), float(told["pixel_size_nm"][0])
        known = 0 < width_px < np.inf and 0 < pixel_nm < np.inf
    except (KeyError, TypeError, ValueError, IndexError):
        known = False
    if not known or told.get("optics", "gaussian") not in ("gaussian", "pupil"):
        msg = (
            "The file of a microscope must hold psf_fwhm_px, a pixel_size_nm that is "
            "known, and optics of pupil or gaussian, as truth/microscope.json of a "
            f"calibrated simulation does; {choice.path} does not: give the width of "
            "the blur, such as --psf 1.3px."
        )
        raise OptionError(msg)
    if told.get("optics") != "pupil":
        return f"{width_px * pixel_nm / _FWHM_PER_SIGMA!r}nm", None
    size = image.pixel_size_nm or (pixel_nm, pixel_nm)
    return text, _of_pupil(told, size, pixel_nm, choice.path)


def _of_pupil(
    told: dict[str, Any], size: FloatPair, pixel_nm: float, name: str
) -> Micrograph:
    """Give what the lens of a simulation makes of a point, in focus and in its middle.

    `size`: pixel of the image to restore; `pixel_nm`: of the camera.
    """
    from napari_semsr.simulation import OPTICS, MicroscopeOptions, point_spread

    optics = MicroscopeOptions.parse({k: told[k] for k in OPTICS if k in told})
    if not np.isclose(*size):
        msg = f"The microscope's pixels are square, got {size[0]:g} x {size[1]:g} nm."
        raise OptionError(msg)
    side = 2 * int(np.ceil(_REACH * optics.fwhm_nm / size[0])) + 1
    kernel = point_spread(
        optics, [(0.0, 1.0)], size[0], side, box_px=pixel_nm / size[0]
    )
    return Micrograph(kernel, parse_pixel_size(size), Path(name).name)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON ({error}); check the name."
        raise ReadError(msg) from error
    return found if isinstance(found, dict) else {}


_KINDS = "uif"
_TILES = "Restoring tiles"
_ESTIMATED = (  # without its width, which differs between planes: it is said once
    "The blur was estimated, which cannot tell blur from a soft sample; give --psf "
    "when it is known, or use Richardson-Lucy, which errs less."
)


@dataclass(frozen=True, slots=True)
class RestoredFile(Result):
    """What was restored, and how.

    Attributes
    ----------
    output : str
        Path of the file or store.
    method : str
        The method.
    parameters : dict
        Its numbers: the blur, the noise, iterations, the halo, and whether tiles equal
        the whole (`exact`) or by how much they may differ (`tolerance`, over the range
        of grey values).
    tiles : int
        Number of tiles.
    shape : tuple of int
        Rows and columns; planes before them for a stack.
    dtype : str
        Type of the grey values in the output.
    clipped : int
        Pixels that had no place in it.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None when unknown.
    provenance : Provenance
        Input, options, versions.
    change : Change or None
        By how much the image was changed.
    """

    output: str
    method: str
    parameters: dict[str, Any]
    tiles: int
    shape: tuple[int, ...]
    dtype: str
    clipped: int
    pixel_size_nm: FloatPair | None
    provenance: Provenance = field(metadata={"json": False})
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class _RestorePlan:
    """An image and how it will be restored."""

    source: Micrograph
    restorer: Restorer
    plan: TilePlan
    dtype: np.dtype[Any]
    parameters: dict[str, Any]
    provenance: Provenance


def restore_plane(
    image: Image,
    output: str | os.PathLike[str],
    *,
    options: RestoreOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Job[RestoredFile]:
    """Undo the blur of one plane by a classical method."""
    yield Progress(0, 0, "checking")
    target = check_tiled_target(
        output, inputs=paths_of(image), overwrite=overwrite, resume=resume
    )
    chosen = options or RestoreOptions()
    made = yield from _prepare(image, chosen, opening)
    again = overwrite or output_kind(target) != "ome-zarr"

    def make(place: Path) -> OmeZarrStore:
        return store_of(
            made.source.replace(provenance=made.provenance),
            place,
            dtype=made.dtype,
            chunk=made.plan.core,
            overwrite=again,
            resume=resume,
        )

    written = yield from write_blocks(
        target, make, lambda store: _fill(store, made), resumable=True
    )
    clipped, change = written.told
    return RestoredFile(
        output=str(target),
        method=chosen.method,
        parameters=made.parameters,
        tiles=len(made.plan),
        shape=written.shape,
        dtype=written.dtype,
        clipped=clipped,
        pixel_size_nm=written.pixel_size_nm,
        provenance=made.provenance,
        change=change,
    )


def restore_in_memory(
    image: Image,
    *,
    options: RestoreOptions | None = None,
    opening: ReadOptions | None = None,
) -> Job[Micrograph]:
    """Undo an image's blur in memory.

    Parameters
    ----------
    image : Micrograph or path
        What to restore.
    options : RestoreOptions, optional
        Method and blur.
    opening : ReadOptions, optional
        How to read a file.

    Returns
    -------
    Micrograph
        Calibrated, with its history; ``metadata["restore"]`` holds the parameters.

    Yields
    ------
    Progress
        Measuring, tiles.
    """
    chosen = options or RestoreOptions()
    made = yield from _prepare(image, chosen, opening)
    result = np.empty(made.source.shape, made.dtype)
    for piece in made.restorer.tiles(made.source.data, made.plan):
        result[piece.tile.core.slices] = to_dtype(piece.values, made.dtype)[0]
        yield _step(piece, made.plan)
    about = {**made.source.metadata, "restore": made.parameters}
    return made.source.replace(data=result, provenance=made.provenance, metadata=about)


def _prepare(
    image: Image, options: RestoreOptions, opening: ReadOptions | None
) -> Job[_RestorePlan]:
    """Open an image and measure what its restoration needs."""
    dtype = _dtype_of(options)
    yield Progress(0, 0, f"reading {name_of(image)}")
    source = open_image(image, opening)
    asked, kernel = _read_psf(options.psf, source)
    yield Progress(0, 0, "measuring blur and noise")
    restorer = choose(source, options.replace(psf=asked), kernel)
    if restorer.psf.kind == "estimated" and restorer.taps is not None:
        warn(_ESTIMATED)
    plan = restorer.plan(source.shape)
    tolerance = restorer.tolerance(source.data, plan)
    reading = (opening or ReadOptions()).model_dump(mode="json")
    said = {**options.model_dump(mode="json"), "reading": reading}
    guides = []
    if parse_psf(options.psf).kind == "file":
        # no input: two images do not share a source by it
        guides.append(record_file(options.psf, "psf"))
        said["psf_digest"] = guides[0].digest
    record = yield from record_input(image, source, opening)
    provenance = made_by("restore", said, record, guides=guides)
    parameters = jsonable({**restorer.parameters(), "tolerance": tolerance})
    return _RestorePlan(source, restorer, plan, dtype, parameters, provenance)


def _dtype_of(options: RestoreOptions) -> np.dtype[Any]:
    """Understand the type that was asked for."""
    try:
        found = np.dtype(options.dtype or np.float32)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in _KINDS:
        msg = (
            "Grey values are stored as an integer or floating type such as uint8 or "
            f"float32, got {options.dtype!r}."
        )
        raise OptionError(msg)
    return found


def _fill(store: OmeZarrStore, made: _RestorePlan) -> Job[tuple[int, Change | None]]:
    """Restore what a store lacks; count clipped pixels, measure the change."""
    pieces = made.restorer.tiles(made.source.data, made.plan, store.pending())
    clipped = yield from store.fill((piece.values for piece in pieces), _TILES)
    if not store.complete:
        store.note("restore", made.parameters)
    return clipped, (yield from measure_change(made.source, image_in(store)))


def _step(piece: RestoredTile, plan: TilePlan) -> Progress:
    """Say how far the tiles are."""
    row, column = piece.tile.index
    return Progress(row * plan.grid[1] + column + 1, len(plan), _TILES)


# An image, or a stack plane by plane: what panels and commands call.


def restore_job(
    image: Image | Sequence[Micrograph],
    output: str | os.PathLike[str],
    *,
    options: RestoreOptions | None = None,
    opening: ReadOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Job[RestoredFile]:
    """Undo an image's blur by a classical method, a stack's plane by plane.

    Parameters
    ----------
    image : Micrograph, path, or sequence of Micrograph
        What to restore; several images in memory are the planes of a stack.
    output : path
        Ends in ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``; a stack needs a TIFF.
    options : RestoreOptions, optional
        Method and blur.
    opening : ReadOptions, optional
        How to read a file; its `plane` picks one plane of a stack.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Go on with an output that was interrupted.

    Returns
    -------
    RestoredFile
        What was done; the parameters of a stack are those of its first plane.

    Yields
    ------
    Progress
        Measuring, tiles, pyramid.

    Raises
    ------
    ReadError, WriteError, OptionError
        If the image cannot be read, the output not be made, or the blur not be used.
    """
    return (
        yield from plane_by_plane(
            partial(restore_plane, options=options),
            image,
            output,
            lambda made: {
                "tiles": sum(item.tiles for item in made),
                "clipped": sum(item.clipped for item in made),
                "change": overall_change([item.change for item in made]),
            },
            opening=opening,
            overwrite=overwrite,
            resume=resume,
        )
    )
