"""Whether the default restorer keeps the edges of noisy gold rods.

Run: ``python benchmarks/rods.py --data FOLDER [--model NAME]``.

FOLDER holds the real images, three of gold rods at 13 pA among them. Rods that lie
alone are found in the image as it is, smoothed. Their profiles across, through the
inner half of the length of each, are averaged over all rods, from the same places
before and after. A width is from half height to half height, an edge from 10 to 90 % of
it. Noise is that of differences between neighbours along a line, by their median, which
edges hardly move.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from _restoration import Image
from _shared import read_options
from restorer import HERE, Judge, restored
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read
from napari_semsr.models import load_model

RODS = tuple(f"partycool__sem_{number}.jpg" for number in (2, 5, 9))
DATABAR_ROWS = 140
SMOOTHED_PX = 4.0  # finds rods in heavy noise, and is less than half of their width
ALONE = 0.9  # of its convex hull that a rod fills; two that touch fill less
STEP_PX = 0.25


@dataclass(frozen=True)
class Rod:
    """Where a rod lies: its middle, its direction along, its length and width in px."""

    middle: Image
    along: Image
    length: float
    width: float


def rods_of(image: Image) -> list[Rod]:
    """Find rods that lie alone, of about the usual size."""
    smooth = ndimage.gaussian_filter(image, SMOOTHED_PX)
    found = regionprops(label(smooth > threshold_otsu(smooth)))
    usual = float(np.median([region.area for region in found]))
    rods = []
    for region in found:
        inside = region.bbox[0] > 0 and region.bbox[1] > 0
        inside &= region.bbox[2] < image.shape[0] and region.bbox[3] < image.shape[1]
        alike = 0.6 * usual < region.area < 1.6 * usual
        long = region.axis_major_length > 1.3 * region.axis_minor_length
        if inside and alike and long and region.solidity > ALONE:
            turn = region.orientation
            along = np.array([np.cos(turn), np.sin(turn)])
            sides = region.axis_major_length, region.axis_minor_length
            rods.append(Rod(np.array(region.centroid), along, *sides))
    return rods


def profile(image: Image, rods: list[Rod]) -> tuple[Image, Image]:
    """Average what lies across all rods; the offsets in px, and the grey levels."""
    reach = 1.5 * float(np.median([rod.width for rod in rods]))
    offsets = np.arange(-reach, reach + STEP_PX / 2, STEP_PX)
    lines = []
    for rod in rods:
        steps = np.arange(-rod.length / 4, rod.length / 4 + 0.5)
        across = np.array([-rod.along[1], rod.along[0]])
        places = (
            rod.middle[:, None, None]
            + rod.along[:, None, None] * steps[None, :, None]
            + across[:, None, None] * offsets[None, None, :]
        )
        lines.append(ndimage.map_coordinates(image, places, order=1, mode="nearest"))
    return offsets, np.concatenate(lines).mean(0)


def crossing(offsets: Image, levels: Image, level: float) -> tuple[float, float]:
    """Find where a profile first and last passes a level."""
    above = np.flatnonzero(levels >= level)
    first, last = above[0], above[-1]
    rise = np.interp(
        level, levels[first - 1 : first + 1], offsets[first - 1 : first + 1]
    )
    fall = np.interp(-level, -levels[last : last + 2], offsets[last : last + 2])
    return float(rise), float(fall)


def widths(offsets: Image, levels: Image) -> tuple[float, float]:
    """Width at half height, and the mean of both edges from 10 to 90 %, in px."""
    far = np.abs(offsets) > 0.85 * offsets[-1]
    ground = float(levels[far].mean())
    top = float(levels[np.abs(offsets) < 0.1 * offsets[-1]].mean())
    shares = (ground + share * (top - ground) for share in (0.1, 0.5, 0.9))
    low, half, high = (crossing(offsets, levels, level) for level in shares)
    edge = (high[0] - low[0] + low[1] - high[1]) / 2
    return half[1] - half[0], edge


def neighbour_noise(image: Image) -> float:
    """Noise between neighbouring pixels of a line, standard deviation of one."""
    steps = np.diff(image, axis=1)
    return float(np.median(np.abs(steps - np.median(steps)))) / 0.6745 / 2**0.5


def main() -> None:
    """Print a row for each image."""
    arguments = read_options(
        __doc__, "--model=sem-restore", data={"type": Path, "required": True}
    )
    goals = yaml.safe_load((HERE / "restorer_goals.yaml").read_text())["real"]
    goal = goals["gold rods"]
    judge = Judge(load_model(arguments.model), EnhanceOptions())
    print("| image | rods | noise, grey levels | falls by | width, px | edge, px |")
    print("|---|---:|---:|---:|---:|---:|")
    kept = []
    for name in RODS:
        path = arguments.data / "final" / name
        micrograph = read(path, colour="luminance", databar_rows=DATABAR_ROWS)
        before = np.asarray(micrograph.array(), dtype=float)
        after = restored(before, judge)
        rods = rods_of(before)
        noise = [neighbour_noise(image) for image in (before, after)]
        sizes = [widths(*profile(image, rods)) for image in (before, after)]
        change = sizes[1][0] / sizes[0][0] - 1
        edges = abs(sizes[1][1] - sizes[0][1]) / sizes[0][0]
        falls = noise[0] / noise[1]
        kept.append(
            falls >= goal["noise_falls_by"]
            and max(abs(change), edges) <= goal["edge_width_within"]
        )
        print(
            f"| {name} | {len(rods)} | {noise[0]:.1f} → {noise[1]:.1f} | {falls:.1f} "
            f"| {sizes[0][0]:.2f} → {sizes[1][0]:.2f} ({change:+.1%}) "
            f"| {sizes[0][1]:.2f} → {sizes[1][1]:.2f} |"
        )
    print(f"goals of the rods reached in {sum(kept)} of {len(kept)}")


if __name__ == "__main__":
    main()
