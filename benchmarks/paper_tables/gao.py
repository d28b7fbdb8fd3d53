"""Gao's tables: sets A, B and C made of clear images.

Images, degradations and peers are those of ``benchmarks/classical.py``: 8-bit images,
16 px of border left out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _restoration import clear_images, inner, oracle, true_kernel
from _shared import standard_error
from classical import restored as by_classic
from numpy.typing import NDArray
from restorer import clear_images as judged_images

from napari_semsr.analysis import fit_gain_and_offset
from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import load_model
from napari_semsr.restoration import RestoreOptions
from napari_semsr.simulation import degrade as gao
from paper_tables.plan import FOLDER, ROOT

Image = NDArray[np.float64]
Method = Callable[[Image], Image]
Pair = tuple[Image, Image]
SETS: dict[str, gao.Kind] = {"A": "blur", "B": "fog", "C": "hybrid"}
WHITE = 255.0
_DATA = ROOT.parent / "shared" / "data"
_ORACLE = "oracle linear filter"
_RECIPE = FOLDER / "gao-a.yaml"  # names the images that are held out


def develop_images(side: int) -> list[NDArray[np.uint8]]:
    """Read the middles of the images that `recipes/data/sem-images.yaml` holds out."""
    return clear_images(_RECIPE, side)


def final_images(side: int) -> list[NDArray[np.uint8]]:
    """Read the middles of the images that ``restorer.py --set judge`` judges on."""
    found = judged_images(_DATA, "judge", side)
    return [image.astype(np.uint8) for _, image in found]


def gao_sets(clear: list[NDArray[np.uint8]], seed: int) -> dict[str, list[Pair]]:
    """Degrade clear images; degraded and clear images of each set."""

    def pair(index: int, kind: gao.Kind) -> Pair:
        made = gao.degrade_plane(clear[index], kind, seed=seed + index)
        return made.image.astype(float), clear[index].astype(float)

    return {
        name: [pair(index, kind) for index in range(len(clear))]
        for name, kind in SETS.items()
    }


def by_model(name: str | Path) -> Method:
    """Give what a bundled or trained model does to an image."""
    loaded = load_model(name)

    def apply(low: Image) -> Image:
        image = Micrograph(low.astype(np.uint8))
        made = run(enhance_in_memory(image, loaded, EnhanceOptions(dtype="float32")))
        return made.array().astype(float)

    return apply


def wiener(kind: gao.Kind) -> Method:
    """Give the Wiener filter of ``semsr restore``, with the true kernel of a set."""
    options = RestoreOptions(method="wiener", psf="kernel.tif")
    kernel = Micrograph(true_kernel(kind), name="kernel")
    return lambda low: by_classic(Micrograph(low.astype(np.uint8)), options, kernel)


def _psnr_db(image: Image, truth: Image) -> float:
    """Give the PSNR; 138 dB for equal images, which have none."""
    error = float(np.mean((image - truth) ** 2))
    return float(10 * np.log10(WHITE**2 / max(error, 1e-9)))


def score(image: Image, truth: Image) -> dict[str, float]:
    """Give the PSNR of an image as it is, and after an affine match to the truth."""
    near, wanted = inner(np.clip(np.rint(image), 0, WHITE)), inner(truth)
    gain, offset = fit_gain_and_offset(inner(image), wanted)
    fitted = np.clip(np.rint(gain * inner(image) + offset), 0, WHITE)
    return {"psnr": _psnr_db(near, wanted), "psnr_matched": _psnr_db(fitted, wanted)}


def summary(rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> dict[str, Any]:
    """Give means over images, and gains over the degraded ones.

    Means; ``gain`` in matched PSNR; of each mean the standard error over images
    (``_se``; None for a single image); ``worst_gain``; the number of images.
    """
    values = {name: [row[name] for row in rows] for name in ("psnr", "psnr_matched")}
    pairs = zip(rows, before, strict=True)
    values["gain"] = [row["psnr_matched"] - old["psnr_matched"] for row, old in pairs]
    found: dict[str, Any] = {
        name: float(np.mean(each)) for name, each in values.items()
    }
    found |= {f"{name}_se": standard_error(each) for name, each in values.items()}
    return {**found, "worst_gain": float(min(values["gain"])), "images": len(rows)}


def measure_sets(
    sets: dict[str, list[Pair]],
    models: dict[str, dict[str, Path | str]],
    say: Callable[[str], None],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Judge the Wiener filter, the best linear filter and models on every set.

    By set and method: `summary` of each.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name, pairs in sets.items():
        methods: dict[str, Method] = {"degraded": lambda low: low}
        methods["Wiener, true kernel"] = wiener(SETS[name])
        methods |= {k: by_model(model) for k, model in models[name].items()}
        before = [score(low, truth) for low, truth in pairs]
        rows = table[name] = {}
        for called, method in methods.items():
            say(f"set {name}: {called}")
            scores = [score(method(low), truth) for low, truth in pairs]
            rows[called] = summary(scores, before)
        say(f"set {name}: {_ORACLE}")
        best = [score(oracle(low, truth), truth) for low, truth in pairs]
        rows[_ORACLE] = summary(best, before)
    return table
