"""Gao's tables: sets A, B and C made of held-out images, and the edge loss's weight.

Images, degradations, peers and the affine match are those of
``benchmarks/restoration.py`` and ``benchmarks/classical.py``: 8-bit images, 16 px of
border left out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from classical import clear_images, restored as by_classic
from numpy.typing import NDArray

from napari_semsr.analysis.metrics import (
    average_gradient,
    contrast,
    match_affine,
    spatial_frequency,
    structural_similarity,
)
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.engine import enhance_array
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.models.checkpoint import load_model
from napari_semsr.restoration.method import RestoreOptions
from napari_semsr.simulation import degrade as gao
from restoration import inner, oracle, true_kernel

__all__ = ["SETS", "by_model", "gao_sets", "measure_sets", "score", "summary"]

Image = NDArray[np.float64]
Method = Callable[[Image], Image]
Pair = tuple[Image, Image]
SETS: dict[str, gao.Kind] = {"A": "blur", "B": "fog", "C": "hybrid"}
WHITE = 255.0
FIRST_SEED = 100
GAO_K2 = 0.02


def gao_sets(recipe: Path, side: int) -> dict[str, list[Pair]]:
    """Degrade the middles of the held-out images.

    Parameters
    ----------
    recipe : pathlib.Path
        Names the images.
    side : int
        Largest side.

    Returns
    -------
    dict
        Degraded and clear images of each set.
    """
    clear = clear_images(recipe, side)
    return {
        name: [
            (
                gao.degrade_plane(c, kind, seed=FIRST_SEED + i).image.astype(float),
                c * 1.0,
            )
            for i, c in enumerate(clear)
        ]
        for name, kind in SETS.items()
    }


def by_model(name: str | Path) -> Method:
    """Give what a bundled or trained model does to an image.

    Parameters
    ----------
    name : str or pathlib.Path
        Bundled model, or model file.
    """
    loaded = load_model(name)

    def apply(low: Image) -> Image:
        image = Micrograph(low.astype(np.uint8))
        made = run(enhance_array(image, loaded, EnhanceOptions(dtype="float32")))
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

    Parameters
    ----------
    image, truth : (Y, X) numpy.ndarray
        On the scale 0 to 255.

    Returns
    -------
    dict
        PSNR and SSIM with either constant; AG, CON and SF of the image as it is.
    """
    near, wanted = inner(np.clip(np.rint(image), 0, WHITE)), inner(truth)
    gain, offset = match_affine(inner(image), wanted)
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


def summary(
    rows: list[dict[str, Any]], before: list[dict[str, Any]]
) -> dict[str, float]:
    """Give means over images, and gains over the degraded ones.

    Parameters
    ----------
    rows, before : list of dict
        Scores of the results and of the degraded images.
    """
    found = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
    gains = [
        after["psnr_matched"] - b["psnr_matched"]
        for after, b in zip(rows, before, strict=True)
    ]
    found["gain"] = float(np.mean(gains))
    found["worst_gain"] = float(min(gains))
    found["images"] = len(rows)
    return found


def measure_sets(
    sets: dict[str, list[Pair]],
    models: dict[str, dict[str, Path | str]],
    say: Callable[[str], None],
    *,
    peers: bool = True,
) -> dict[str, dict[str, dict[str, float]]]:
    """Judge peers and models on every set.

    Parameters
    ----------
    sets : dict
        As `gao_sets` gives them.
    models : dict
        For each set, models by what they are called.
    say : callable
        Told what is done.
    peers : bool, default=True
        Whether the classical methods and the oracle are judged too.

    Returns
    -------
    dict
        By set and method; `summary` of each.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, pairs in sets.items():
        methods: dict[str, Method] = {"degraded": lambda low: low}
        if peers:
            methods |= {
                "blind deconvolution": _classic("blind", "estimate", SETS[name]),
                "blind deconvolution, flat kernel": _classic(
                    "blind",
                    f"flat{len(true_kernel(SETS[name])) // 2 * 2 + 1}px",
                    SETS[name],
                ),
                "Wiener, true kernel": _classic("wiener", "kernel.tif", SETS[name]),
            }
        methods |= {k: by_model(model) for k, model in models[name].items()}
        before = [score(low, truth) for low, truth in pairs]
        rows = table[name] = {}
        for called, method in methods.items():
            say(f"set {name}: {called}")
            scores = [score(method(low), truth) for low, truth in pairs]
            rows[called] = summary(scores, before)
        if peers:
            say(f"set {name}: oracle linear filter")
            best = [score(oracle(low, truth), truth) for low, truth in pairs]
            rows["oracle linear filter"] = summary(best, before)
        rows["truth"] = summary([score(t, t) for _, t in pairs], before)
    return table
