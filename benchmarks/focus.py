"""How sharp and how right heights are that are joined, against the drawn sample.

``python benchmarks/focus.py`` prints the figures of docs/validation/stitching.md: the
fit of the mosaic to the sample seen in focus everywhere, that of each single height,
and the error of the heights. ``--power`` and ``--around`` try other weights.
"""

import numpy as np
from _scans import taken
from _shared import read_options
from scipy import ndimage

from napari_semsr.core import Box, run
from napari_semsr.jobs import SimulateOptions
from napari_semsr.simulation import simulate_scan
from napari_semsr.stitching import (
    StitchOptions,
    find_sharpest,
    fuse,
    plan_focus,
    solve_mosaic,
)

BORDER = 30  # px, where frames end
CASES = {
    "fracture, 5 heights": {"phantom": "fracture", "relief_nm": 702, "focal_series": 5},
    "particles, 6 heights": {"phantom": "particles", "focal_series": 6},
}


def measure(options: SimulateOptions) -> None:
    """Print the figures of one scan."""
    scan = run(simulate_scan(options))
    steps = list(scan.simulate_height_scans(options.focal_series))
    heights = [taken(scan).replace(frames=step.frames) for step in steps]
    number, z_nm = find_sharpest(heights), [step.focus_nm for step in steps]
    # the frames have no distortion: what matters here is what heights make of them
    undistorted = StitchOptions(distortion="none")
    solution = run(solve_mosaic(heights[number], undistorted))
    plan, shifts = run(plan_focus(heights, z_nm, number, solution))
    lean = np.array([step.shift_px for step in steps])
    found = np.array([shift.shift_px or (np.nan, np.nan) for shift in shifts])
    off = np.hypot(*(found - lean + lean[number]).T)
    scene = scan.scene
    width = scene.fwhm_px * scene.oversampling / 2.355
    corner = scan.true_px[solution.is_placed].min(axis=0) + lean[number]
    y, x = (
        at + first
        for at, first in zip(np.indices(plan.shape, dtype=float), corner, strict=True)
    )
    sharp, relief = (
        scene.sample(ndimage.spline_filter(plane), y, x)[BORDER:-BORDER, BORDER:-BORDER]
        for plane in (
            ndimage.gaussian_filter(scene.sharp, width),
            scene.surface.height_nm,
        )
    )
    inner = Box.from_shape(plan.shape).grow((-BORDER, -BORDER))
    image, _, height = plan.compute_block(inner)
    singles = [fit_db(one.compute_block(inner)[0], sharp) for one in plan.plans]
    error = (height - relief)[np.isfinite(height)]
    print(f"  laid on each other to   {np.nanmax(off):.3f} px at worst")
    print(f"  single heights          {', '.join(f'{v:.2f}' for v in singles)} dB")
    print(f"  all heights             {fit_db(image, sharp):.2f} dB")
    print(
        f"  heights                 median error {np.median(abs(error)):.0f} nm, mean "
        f"{error.mean():+.0f} nm, known {np.isfinite(height).mean():.0%}"
    )


def fit_db(image: np.ndarray, wanted: np.ndarray) -> float:
    """PSNR with gain and offset fitted, over the range of what is wanted."""
    known = np.isfinite(image)
    x, y = image[known].astype(float), wanted[known]
    gain, offset = np.polyfit(x, y, 1)
    return 10 * np.log10(np.ptp(y) ** 2 / np.mean((gain * x + offset - y) ** 2))


def main() -> None:
    """Measure all cases."""
    given = read_options(__doc__, power=fuse._SHARPEST, around=fuse._AROUND)
    fuse._SHARPEST, fuse._AROUND = given.power, given.around
    for seed in (1, 3):
        for name, case in CASES.items():
            print(f"{name}, seed {seed}")
            sizes = {"frames_grid": (3, 3), "frame_px": 160, "overlap": 0.4}
            measure(SimulateOptions(**case, **sizes, seed=seed))


if __name__ == "__main__":
    main()
