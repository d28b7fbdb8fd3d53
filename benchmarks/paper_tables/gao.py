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

from napari_semsr.analysis.metrics import (
    average_gradient,
    contrast,
    fit_gain_and_offset,
    spatial_frequency,
    structural_similarity,
)
from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import load_model
from napari_semsr.restoration import RestoreOptions
from napari_semsr.simulation import degrade as gao
from paper_tables.given import CLASSICAL, given_to_model
from paper_tables.plan import FOLDER, ROOT

Image = NDArray[np.float64]
Method = Callable[[Image], Image]
Pair = tuple[Image, Image]
SETS: dict[str, gao.Kind] = {"A": "blur", "B": "fog", "C": "hybrid"}
WHITE = 255.0
GAO_K2 = 0.02
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


def gao_sets(
    clear: list[NDArray[np.uint8]], seed: int, *, stretch: bool = True
) -> dict[str, list[Pair]]:
    """Degrade clear images; without the stretch, as the haze leaves them.

    Degraded and clear images of each set.
    """

    def pair(index: int, kind: gao.Kind) -> Pair:
        made = gao.degrade_plane(clear[index], kind, seed=seed + index, stretch=stretch)
        return made.image.astype(float), clear[index].astype(float)

    return {
        name: [pair(index, kind) for index in range(len(clear))]
        for name, kind in SETS.items()
        if stretch or kind != "blur"
    }


def by_model(name: str | Path) -> Method:
    """Give what a bundled or trained model does to an image."""
    loaded = load_model(name)

    def apply(low: Image) -> Image:
        image = Micrograph(low.astype(np.uint8))
        made = run(enhance_in_memory(image, loaded, EnhanceOptions(dtype="float32")))
        return made.array().astype(float)

    return apply


def _classic(method: str, psf: str, kind: gao.Kind) -> Method:
    """Give one of the methods of ``semsr restore``."""
    options = RestoreOptions(method=method, psf=psf)
    kernel = Micrograph(true_kernel(kind), name="kernel")
    return lambda low: by_classic(Micrograph(low.astype(np.uint8)), options, kernel)


def _psnr_db(image: Image, truth: Image) -> float:
    """Give the PSNR; 138 dB for equal images, which have none."""
    error = float(np.mean((image - truth) ** 2))
    return float(10 * np.log10(WHITE**2 / max(error, 1e-9)))


def score(image: Image, truth: Image) -> dict[str, float | None]:
    """Judge an image as it is, and after an affine match to the truth.

    PSNR and SSIM with either constant; AG, CON and SF of the image as it is.
    """
    near, wanted = inner(np.clip(np.rint(image), 0, WHITE)), inner(truth)
    gain, offset = fit_gain_and_offset(inner(image), wanted)
    fitted = np.clip(np.rint(gain * inner(image) + offset), 0, WHITE)
    return {
        "psnr": _psnr_db(near, wanted),
        "psnr_matched": _psnr_db(fitted, wanted),
        "ssim": structural_similarity(near, wanted, WHITE),
        "ssim_gao": structural_similarity(near, wanted, WHITE, k2=GAO_K2),
        "ssim_gao_matched": structural_similarity(fitted, wanted, WHITE, k2=GAO_K2),
        "ag": average_gradient(near),
        "con": contrast(near),
        "sf": spatial_frequency(near),
    }


def summary(rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> dict[str, Any]:
    """Give means over images, and gains over the degraded ones.

    Means; ``gain`` in matched PSNR and ``gain_as_is``; of each mean the standard error
    over images (``_se``; None for a single image) and the least image (``_least``);
    ``worst_gain``; the number of images.
    """
    values = {name: [row[name] for row in rows] for name in rows[0]}
    for called, name in (("gain", "psnr_matched"), ("gain_as_is", "psnr")):
        if name in values:
            then = [row[name] for row in before]
            pairs = zip(values[name], then, strict=True)
            values[called] = [after - first for after, first in pairs]
    found: dict[str, Any] = {}
    for name, each in values.items():
        found[name] = float(np.mean(each))
        found[f"{name}_se"] = standard_error(each)
        found[f"{name}_least"] = float(min(each))
    found["worst_gain"] = found["gain_least"]
    found["images"] = len(rows)
    return found


def measure_sets(
    sets: dict[str, list[Pair]],
    models: dict[str, dict[str, Path | str]],
    say: Callable[[str], None],
    *,
    peers: bool = True,
    stretched: bool = True,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Judge peers and models on every set.

    By set and method; `summary` of each, and what it was ``given``.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name, pairs in sets.items():
        kind = SETS[name]
        methods: dict[str, Method] = {"degraded": lambda low: low}
        if peers:
            methods |= _peers(kind)
        methods |= {k: by_model(model) for k, model in models[name].items()}
        before = [score(low, truth) for low, truth in pairs]
        rows = table[name] = {}
        for called, method in methods.items():
            say(f"set {name}: {called}")
            scores = [score(method(low), truth) for low, truth in pairs]
            rows[called] = summary(scores, before)
        if peers:
            say(f"set {name}: {_ORACLE}")
            best = [score(oracle(low, truth), truth) for low, truth in pairs]
            rows[_ORACLE] = summary(best, before)
        rows["truth"] = summary([score(t, t) for _, t in pairs], before)
        for called, row in rows.items():
            row["given"] = CLASSICAL.get(called, "")
            if called in models[name]:
                model = models[name][called]
                row["given"] = given_to_model(model, kind, stretched=stretched)
    return table


def _peers(kind: gao.Kind) -> dict[str, Method]:
    """Give the classical methods, each with its defaults, by their names in a table."""
    flat = f"flat{len(true_kernel(kind)) // 2 * 2 + 1}px"
    return {
        "blind deconvolution": _classic("blind", "estimate", kind),
        "blind deconvolution, flat kernel": _classic("blind", flat, kind),
        **{
            f"{called}, true kernel": _classic(method, "kernel.tif", kind)
            for called, method in (
                ("Wiener", "wiener"),
                ("Richardson-Lucy", "richardson-lucy"),
                ("constrained least squares", "cls"),
            )
        },
    }
