"""What ``sem-2x`` makes of real SEM images that it never saw, taken at half the pitch.

Run: ``python benchmarks/magnify.py`` (needs the images that the recipe names), or
``python benchmarks/magnify.py --pictures STORE`` for real pairs.

The held-out images stand for the truth. Each is blurred or not, averaged over 2 x 2
pixels, given Poisson noise or not, rounded to 8 bits, and brought back to its size.
PSNR and SSIM on 8-bit images, 16 px of border left out, means over the images; *worst*
is the least gain over cubic splines on any image. Peers are those of
``benchmarks/gold.py``; the oracle is the best linear filter in hindsight: 11 x 11
coarse pixels for each of the four fine ones, fitted to the truth of that very image.

Real pairs, one place scanned at both pitches, are the validation set of the store that
``recipes/sem-2x-pictures.yaml`` learns from (``--pictures STORE``): whole pictures that
it never saw, aligned and cut by ``semsr pairs``. Whole coarse pictures are enlarged,
then their tiles are judged: PSNR after the best gain and offset and, for each method
alike, shift of up to half a fine pixel. In hindsight, the Gaussian is the best for each
tile, the linear filter of 11 x 11 coarse pixels the best for each picture; *2nd
percentile* and *worst* are of the gain over the Gaussian. Standard errors are those of
means over pictures, which are what is independent. ``--final`` makes STORE of the
pictures that are kept for the end, and judges those.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _shared import Rows, middle, read_options, standard_error
from gold import BORDER, Image, by_kernel, keys, lanczos, linear_fit, network, splines
from scipy import ndimage

from napari_semsr.analysis import measure_metrics
from napari_semsr.core import Micrograph, run
from napari_semsr.io import read
from napari_semsr.jobs import PAIRS
from napari_semsr.models import list_bundled_models
from napari_semsr.pairing import PairOptions, PairStore, open_pairs
from napari_semsr.training import load_recipe
from napari_semsr.training.scenes import load_clear_image
from napari_semsr.training.validation import (
    ValidationPair,
    Validator,
    compute_affine_psnr_db,
)

SEED = 41
PICTURES = Path("../shared/data/magnification_pairs")
FINAL = ("36", "37", "38", "39", "40")
TILE = 88  # coarse pixels; as recipes/sem-2x-pictures.yaml has them
SIGMAS_PX = np.arange(0, 3.01, 0.2)


@dataclass(frozen=True)
class Scan:
    """How the coarse image is taken: blur in fine pixels, electrons at white."""

    name: str
    sigma_px: float
    electrons: float

    def take(self, truth: Image, seed: int) -> Image:
        """Make the coarse image on the 0-255 scale."""
        blurred = ndimage.gaussian_filter(truth, self.sigma_px, mode="reflect")
        rows, columns = (n // 2 for n in truth.shape)
        coarse = blurred.reshape(rows, 2, columns, 2).mean((1, 3))
        if self.electrons:
            rng = np.random.default_rng([SEED, seed])
            coarse = rng.poisson(coarse / 255 * self.electrons)
            coarse = coarse * (255 / self.electrons)
        return np.clip(np.rint(coarse), 0, 255)


SCANS = (
    Scan("averaged over 2 x 2", 0.0, 0),
    Scan("blur 0.6 px, 1500 electrons", 0.6, 1500),
    Scan("blur 1.0 px, 300 electrons", 1.0, 300),
)


def score(image: Image, truth: Image) -> tuple[float, float]:
    """PSNR and SSIM of an image rounded to 8 bits."""
    inner = (slice(BORDER, -BORDER),) * 2
    eight = np.clip(np.rint(image), 0, 255)[inner].astype(np.uint8)
    found = measure_metrics(
        Micrograph(eight), Micrograph(truth[inner].astype(np.uint8))
    )
    return float(found.psnr_db or 0.0), float(found.ssim or 0.0)


def truths(recipe: Path, side: int) -> list[Image]:
    """Read the middles of the held-out images, of even sides, on the 0-255 scale."""
    chosen = load_recipe(recipe)
    found = []
    for entry in chosen.data.held_out:
        crop = middle(load_clear_image(Path(chosen.data.root), entry), side)
        rows, columns = (n // 2 * 2 for n in crop.shape)
        found.append(np.rint(crop[:rows, :columns] * 255).astype(float))
    return found


def final_store(folder: Path, store: Path) -> None:
    """Align and cut the pictures that are kept for the end."""
    every = {path.name.removesuffix("_low.png") for path in folder.glob("*_low.png")}
    options = PairOptions(
        patch=TILE,
        align=True,
        min_correlation=0.9,
        validation=0,
        test=0,
        leave_out=",".join(sorted(every - set(FINAL))),
    )
    lows, highs = folder / "*_low.png", folder / "*_high.png"
    run(PAIRS.job(lows, highs, store, options=options))


def tiles(
    folder: Path, store: PairStore, name: str
) -> Iterator[tuple[Image, list[tuple[tuple[slice, slice], Image]]]]:
    """Give each coarse picture of a set, and the places and truths of its tiles."""
    places = np.asarray(store.group[f"{name}/low_places"][:])
    truths = np.asarray(store.get_arrays(name)[1][:], float)
    for number in np.unique(places[:, 0]):
        source = store.record["sources"]["low"][number]
        low = read(folder / f"{source['name']}.png").array().astype(float)
        found = []
        for which in np.flatnonzero(places[:, 0] == number):
            y, x = 2 * (places[which, 1:] + np.round(source["origin"]).astype(int))
            side = truths.shape[-1]
            found.append(((slice(y, y + side), slice(x, x + side)), truths[which]))
        yield low, found


def gaussian(low: Image) -> list[Image]:
    """Blur an enlarged image by each width."""
    return [ndimage.gaussian_filter(splines(low), sigma) for sigma in SIGMAS_PX]


def halved(area: tuple[slice, slice]) -> tuple[slice, slice]:
    """Give the coarse pixels of a tile."""
    rows, columns = (slice(s.start // 2, s.stop // 2) for s in area)
    return rows, columns


def measure_pictures(
    folder: Path, store: PairStore, name: str, models: list[str], rows: Rows
) -> None:
    """Judge every tile of the real pairs of a set by every method."""
    methods = {"cubic splines": lambda low: [splines(low)], "best Gaussian": gaussian}
    methods["best linear filter"] = lambda low: [fitted(low)]  # to this very picture
    for model in models:
        enlarge = network(model)
        methods[Path(model).stem] = lambda low, enlarge=enlarge: [enlarge(low)]
    for number, (low, places) in enumerate(tiles(folder, store, name)):
        fitted = linear_fit((low[halved(area)], truth) for area, truth in places)
        for each, method in methods.items():
            images = method(low)
            for tile, (area, truth) in enumerate(places):
                best = max(near(image[area], truth) for image in images)
                row = {"picture": number, "method": each, "tile": tile}
                rows.add(row | {"psnr_db": round(best, 3)})


def pictures_table(rows: Iterable[dict[str, Any]]) -> str:
    """Write the table of real pairs."""
    psnr: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        of_method = psnr.setdefault(row["method"], {})
        of_method.setdefault(row["picture"], []).append(row["psnr_db"])
    pictures = psnr["cubic splines"]
    table = [
        f"{sum(map(len, pictures.values()))} tiles of {len(pictures)} pictures\n",
        "| method | PSNR, dB | over splines | over Gaussian | 2nd percentile | worst |",
        "|---|---|---|---|---|---|",
    ]
    for each, found in psnr.items():
        told = [f"{np.mean(np.concatenate([*found.values()])):.2f}"]
        for other in ("cubic splines", "best Gaussian"):
            gains = [np.subtract(found[at], psnr[other][at]) for at in found]
            error = standard_error(gain.mean() for gain in gains)
            told.append(f"{np.concatenate(gains).mean():+.2f} ± {error:.2f}")
        gain = np.concatenate(gains)
        told += [f"{np.percentile(gain, 2):+.2f}", f"{gain.min():+.2f}"]
        table.append(f"| {each} | {' | '.join(told)} |")
    return "\n".join(table)


def near(image: Image, truth: Image) -> float:
    """PSNR of a tile after the best gain, offset and shift of half a pixel."""
    judge = Validator([], margin=BORDER, shift_px=0.5)
    return compute_affine_psnr_db(
        *judge.align_and_crop(image, ValidationPair("real", image, truth))
    )


def main() -> None:
    """Print one table for each way of taking the coarse image."""
    own = [name for name in list_bundled_models() if name == "sem-2x"]
    arguments = read_options(
        __doc__,
        "--side=512 --rows=FILE",
        recipe=Path("recipes/sem-restore.yaml"),
        model=({"nargs": "*", "default": own}, "names or files"),
        pictures=({"type": Path, "metavar": "STORE"}, "of real pairs"),
        folder=(PICTURES, "of the pictures"),
        final=(False, "those kept for the end"),
    )
    if arguments.pictures is not None:
        if arguments.final:
            final_store(arguments.folder, arguments.pictures)
        name = "train" if arguments.final else "validation"
        store = open_pairs(arguments.pictures)
        rows = Rows(arguments.rows, "picture", "method", "tile")
        measure_pictures(arguments.folder, store, name, arguments.model, rows)
        print(pictures_table(rows))
        return
    clear = truths(arguments.recipe, arguments.side)
    fixed = {
        "cubic splines": splines,
        "bicubic": by_kernel(keys),
        "Lanczos": by_kernel(lanczos),
    }
    fixed |= {Path(name).stem: network(name) for name in arguments.model}
    for scan in SCANS:
        print(f"\n{scan.name} ({len(clear)} images)\n")
        print("| method | PSNR, dB | gain | worst | SSIM |\n|---|---|---|---|---|")
        coarse = [scan.take(truth, index) for index, truth in enumerate(clear)]
        base = np.array([])
        for name in [*fixed, "oracle linear filter"]:
            scores = []
            for low, truth in zip(coarse, clear, strict=True):
                method = fixed.get(name) or linear_fit([(low, truth)])
                scores.append(score(method(low), truth))
            psnr, ssim = np.array(scores).T
            base = psnr if not base.size else base
            gain = psnr - base
            print(
                f"| {name} | {psnr.mean():.2f} | {gain.mean():+.2f} "
                f"| {gain.min():+.2f} | {ssim.mean():.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
