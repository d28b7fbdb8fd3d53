"""Sections of the demonstration on how frames become a mosaic."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.services.demo_scan import ScanHalf
from napari_semsr.services.report_blocks import Gallery, Picture, Text
from napari_semsr.services.report_images import image_png
from napari_semsr.services.report_scan import lay_frames

__all__ = ["grey_limits", "show_frames", "show_positions"]

_SHOWN = 4
_CROP_PX = 120
_TIMES = "\N{MULTIPLICATION SIGN}"


def show_frames(half: ScanHalf) -> list[Text | Gallery]:
    """Show some raw frames.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    options, frames = half.options, half.frames
    rows, columns = options.frames_grid
    chosen = np.linspace(0, len(frames) - 1, _SHOWN).round().astype(int)
    limits = grey_limits(np.stack([frames.read(int(i)) for i in chosen]))
    pictures = tuple(
        Picture(
            image_png(
                frames.read(int(i)), frames.pixel_size_nm, limits=limits, width_px=320
            ),
            f"Raw frame {frames.names[i]}: a round field, dark at its rim, noisy",
            frames.names[i],
        )
        for i in chosen
    )
    told = (
        f"{rows} {_TIMES} {columns} frames of {options.frame_px} px. The light falls "
        f"to {100 * options.rim:.0f} % at the rim and drifts by "
        f"{100 * options.illumination_drift:.0f} % over the scan; the stage misses by "
        f"up to {options.jitter_px:g} px on each axis; {options.photons:.0f} photons "
        f"make white; the microscope blurs by {options.resolution_nm or 0:g} nm (full "
        "width at half maximum), more where the sample is out of focus. Each field is "
        "taken twice, which gives two scans with independent noise."
    )
    return [Text((told,)), Gallery(pictures, columns=4)]


def show_positions(half: ScanHalf) -> list[Text | Gallery]:
    """Show the frames at nominal and at solved positions, and the mosaic.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    solution, frames, mosaic = half.stitched.solution, half.frames, half.mosaic
    lit = solution.flat.valid
    placed = half.placement.placed[:, None]
    nominal = np.where(placed, half.placement.nominal_px, np.nan)
    laid = [
        lay_frames(frames, corners, lit, mosaic.shape)
        for corners in (nominal, solution.positions_px)
    ]
    titles = ("Raw, nominal positions", "Raw, solved positions", "Mosaic")
    images = (*laid, mosaic.array())
    boxes = (None, _worst_joint(half))
    galleries = [
        Gallery(
            tuple(
                Picture(
                    image_png(
                        image if box is None else image[box],
                        mosaic.pixel_size_nm,
                        limits=grey_limits(image),
                        width_px=480,
                    ),
                    title if box is None else f"{title}: a joint, enlarged",
                    title if box is None else f"{title}, enlarged",
                )
                for title, image in zip(titles, images, strict=True)
            ),
            columns=3,
        )
        for box in boxes
    ]
    told = (
        "First, raw frames where the stage says that they lie, one on top of another. "
        "Second, the same frames where the joints put them. Third, the mosaic: shading "
        "and gain are measured on the frames themselves and divided out, and frames "
        "are blended by signal to noise. Below, the same three where the stage was "
        "most in error."
    )
    return [Text((told,)), *galleries]


def _worst_joint(half: ScanHalf) -> tuple[slice, slice]:
    """Rows and columns around the joint whose nominal shift was most in error."""
    solved, nominal = half.stitched.solution.positions_px, half.placement.nominal_px
    used = [(p.first, p.second) for p in half.stitched.solution.pairs if p.used]
    if not used:
        used = [(0, 0)]
    first, second = np.array(used).T
    wrong = (nominal - solved)[second] - (nominal - solved)[first]
    worst = int(np.nanargmax(np.hypot(*wrong.T)))
    middle = (solved[first[worst]] + solved[second[worst]]) / 2
    centre = middle + (np.array(half.stitched.frame_shape) - 1) / 2
    y, x = (
        int(min(max(0, c - _CROP_PX // 2), max(0, n - _CROP_PX)))
        for c, n in zip(centre, half.mosaic.shape, strict=True)
    )
    return slice(y, y + _CROP_PX), slice(x, x + _CROP_PX)


def grey_limits(image: NDArray[Any]) -> tuple[float, float]:
    """Choose the grey values to show as black and white.

    Parameters
    ----------
    image : numpy.ndarray
        Grey values; NaN is left away.

    Returns
    -------
    tuple of float
        The 0.5 and 99.5 percentiles.
    """
    low, high = (float(v) for v in np.nanpercentile(image, (0.5, 99.5)))
    return low, max(high, low + 1e-6)
