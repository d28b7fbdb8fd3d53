"""Separate SEM view of the scanned area, with its own pixel size and axes.

Another instrument has another pixel size and another field; the sample on its stage is
rotated and may be mirrored. While the view is scanned row by row, the sample drifts,
and the field of the beam is distorted. One map from positions in the view to those in
the scan describes all of this, and the view is sampled with it: the ground truth is
exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr import core
from napari_semsr.simulation.scan import RandomStream, Scan
from napari_semsr.simulation.sem import EffectOptions, add_effects, compute_sem_contrast
from napari_semsr.simulation.specimen import declare_option

_MIN_FIELD = 0.1  # smallest share that is accepted as a view; chosen
_KNOTS = 4  # spline intervals of a bending across a view, on each axis; chosen
_BAND = 256  # rows sampled at once; chosen: limits the memory


class SemViewOptions(core.Options):
    """Options for an SEM image of the scanned area with its own axes."""

    view_pixel_nm: float | None = declare_option(
        None, "pixel of the view in nm; 0.8 of the pixel of the ground truth", gt=0
    )
    view_field: float | None = declare_option(
        None,
        "share of the scan's height and width in the view; 0.75, or less if a "
        "rotated view would extend beyond the sample",
        ge=_MIN_FIELD,
        le=1,
    )
    view_shift: float = declare_option(
        0.03,
        "largest offset of the view's centre from that of the scan on each axis, "
        "over the scan's height or width",
        ge=0,
        le=0.5,
    )
    view_turn_deg: float = declare_option(4.0, "clockwise rotation of the view's axes")
    view_mirror: bool = declare_option(False, "swap left and right of the view")
    view_shear: float = declare_option(
        0.01,
        "drift of the sample during the scan of the view, in a random direction, "
        "over the view's height: shears and stretches the view",
        ge=0,
        le=0.2,
    )
    view_bending_nm: float = declare_option(
        20.0, "largest displacement by a smooth bending of the view's field", ge=0
    )
    view_electrons: float = declare_option(
        100.0, "electrons per pixel of the view at white; 0 for no noise", ge=0
    )
    view_charging: float = declare_option(
        0.1,
        "strength of dark tails behind bright structures of the view, over the range",
        ge=0,
        le=2,
    )


@dataclass(frozen=True, slots=True)
class View:
    """An SEM image with its own axes, and its transform to the scan."""

    image: NDArray[np.uint8]  # (Y, X)
    pixel_nm: float
    # From nm in the view, whose first pixel's centre is (0, 0), to nm in the scan
    transform: core.Affine | core.Elastic


def simulate_sem_view(scan: Scan, options: SemViewOptions) -> View:
    """Image the simulated sample of a scan with a separate SEM.

    The map leads from the image to the plane of the scan; its origin is the centre of
    the first pixel of a frame at position (0, 0).
    """
    surface = scan.scene.surface
    if surface is None:
        msg = "An SEM image requires a simulated sample (`phantom`), got an image."
        raise core.OptionError(msg, code="heights-missing")
    # chosen: 0.8, so that the pixel grids differ
    pixel = options.view_pixel_nm or 0.8 * surface.pixel_nm
    shape, transform = _fit_sem_view(scan, options, pixel)
    contrast = compute_sem_contrast(surface)
    smooth = ndimage.spline_filter(contrast, order=3, output=np.float32)
    image = np.empty(shape)
    columns = np.arange(shape[1]) * pixel
    for top in range(0, shape[0], _BAND):
        rows = np.arange(top, min(top + _BAND, shape[0])) * pixel
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        y, x = np.moveaxis(transform(places), -1, 0) / _get_frame_pixel_nm(scan)
        image[top : top + rows.size] = scan.scene.sample(smooth, y, x)
    del smooth, places, y, x
    charging, electrons = options.view_charging, options.view_electrons
    effects = EffectOptions(charging=charging, photons=electrons)
    light, _ = add_effects(image, effects, seed=scan.options.seed)
    grey = np.clip(np.rint(255 * light), 0, 255).astype(np.uint8)
    return View(grey, pixel, transform)


def _fit_sem_view(
    scan: Scan, options: SemViewOptions, pixel: float
) -> tuple[core.IntPair, core.Affine | core.Elastic]:
    """Find the shape of a view within the sample, and its transform to the scan."""
    low, high = _get_scene_area(scan)
    share = options.view_field or 0.75  # as the option says
    while True:
        rows, columns = (max(1, round(n)) for n in share * (high - low) / pixel)
        placement = _create_transform(scan, options, (rows, columns), pixel)
        y, x = (np.arange(n) * pixel for n in (rows, columns))
        sides = [(y, x[0]), (y, x[-1]), (y[0], x), (y[-1], x)]
        ends = [np.stack(np.broadcast_arrays(*s), axis=-1) for s in sides]
        edge = placement(np.concatenate(ends))
        beyond = float(max((low - edge).max(), (edge - high).max()))
        if beyond <= 0:
            return (rows, columns), placement
        share *= 0.95  # chosen: too small a step to be noticed
        if options.view_field is not None or share < _MIN_FIELD:
            msg = (
                f"The view extends {beyond:.3g} nm beyond the sample: lower "
                "`view_field`, `view_shift` or `view_bending_nm`."
            )
            raise core.OptionError(msg, code="out-of-range")


def _get_scene_area(scan: Scan) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the first and last pixel centres of a scene, in scan coordinates (nm)."""
    scene, frame_nm = scan.scene, _get_frame_pixel_nm(scan)
    first = np.array(scene.origin_px)
    last = first + (np.array(scene.sharp.shape) - 1) / scene.oversampling
    return first * frame_nm, last * frame_nm


def _get_frame_pixel_nm(scan: Scan) -> float:
    """Return the pixel size of a frame of a simulated sample, in nm."""
    surface = scan.scene.surface
    return 0.0 if surface is None else surface.pixel_nm * scan.scene.oversampling


def _create_transform(
    scan: Scan, options: SemViewOptions, shape: core.IntPair, pixel: float
) -> core.Affine | core.Elastic:
    """Create a random transform of a view: centre, rotation, drift and bending."""
    low, high = _get_scene_area(scan)
    off, way = (scan.options.create_rng(RandomStream.VIEW, index) for index in (0, 1))
    goal = (low + high) / 2
    goal = goal + options.view_shift * (high - low) * off.uniform(-1, 1, 2)
    angle = way.uniform(0, 2 * np.pi)
    turn, is_mirrored = options.view_turn_deg, options.view_mirror
    linear = core.Affine.create_similarity(turn, is_mirrored=is_mirrored).linear
    # each row is shifted further by the drift of one row
    linear[:, 0] += options.view_shear * np.array([np.sin(angle), np.cos(angle)])
    centre = (np.array(shape) - 1) / 2 * pixel
    affine = core.Affine.from_matrix(linear, goal - linear @ centre)
    if options.view_bending_nm == 0:
        return affine
    # chosen: a bending of four intervals is smooth over 64 points
    lines = (np.linspace(0, (n - 1) * pixel, 64) for n in shape)
    places = affine(np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1))
    top_left, end = places.min(axis=(0, 1)), places.max(axis=(0, 1))
    spacing = (end - top_left) / _KNOTS
    (y, x), (down, across) = (top_left - spacing).tolist(), spacing.tolist()
    rng = scan.options.create_rng(RandomStream.VIEW, 2)
    values = rng.standard_normal((2, _KNOTS + 3, _KNOTS + 3))
    knots = (y, x), (down, across)
    moves = core.BSplineDisplacement(*knots, values).displacement(places)
    share = options.view_bending_nm / np.hypot(moves[..., 0], moves[..., 1]).max()
    bending = core.BSplineDisplacement(*knots, share * values)
    # below that local area, a bending nearly folds; chosen
    if bending.min_jacobian() < 0.5:
        high, wide = end - top_left
        what = f"A displacement of {options.view_bending_nm:g} nm nearly folds a view"
        msg = f"{what} of {high:.4g} x {wide:.4g} nm: lower `view_bending_nm`."
        raise core.OptionError(msg, code="out-of-range")
    return core.Elastic(affine, bending)
