"""Hold a denoiser against BM3D on clean truths, as `denoising_goals.yaml` says.

Run: ``python benchmarks/denoising.py --data FOLDER [--model NAME] [--select WORD ...]
[--json FILE]``, with the extra ``bench``.

Real SEM images, averaged over squares of pixels, are noisy in 8 bits. BM3D and
non-local means are told the noise: its deviation, for electrons after the
variance-stabilising transform of Anscombe, along lines its spectrum; ``oracle`` is the
best linear filter of 21 x 21 taps in hindsight. The model is told nothing. ``--json``
keeps the figures of the others for the next model.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from _restoration import Image, oracle, psnr_db
from _shared import Rows, mean_and_error, middle, read_options, verdict
from restorer import BLOCK, Judge, restored
from scipy import ndimage, signal
from skimage.restoration import denoise_nl_means

from napari_semsr.core import reshape_into_blocks
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read
from napari_semsr.models import load_model

WHITE = 255.0
GOALS = Path(__file__).with_name("denoising_goals.yaml")
PEERS = "bm3d", "means", "oracle"


def read_truth(data: Path, goals: dict[str, Any], entry: dict[str, Any]) -> Image:
    """Read an image, average it over squares, and scale its grey levels."""
    image = read(data / entry["file"], colour="luminance").array().astype(float)
    image = image[: len(image) - entry.get("crop_bottom", 0)]
    many, side = entry["shrink"], goals["side_px"]
    image = reshape_into_blocks(image, many).mean((1, 3))
    image = middle(image[:, entry.get("left", 0) :][:, : entry.get("width")], side)
    low, high = np.percentile(image, (0.05, 99.95))
    black, white = goals["grey"]
    return np.clip(black + (white - black) * (image - low) / (high - low), 0, WHITE)


def degrade(truth: Image, case: dict[str, Any], seed: int) -> Image:
    """Add noise, and round to 8 bits."""
    rng, low = np.random.default_rng(seed), truth
    if "electrons" in case:
        low = rng.poisson(truth / WHITE * case["electrons"]) * WHITE / case["electrons"]
    if "white" in case:
        noise, along = rng.standard_normal(truth.shape), case.get("along", 0.0)
        if along:  # as of a detector that decays, begun before the line does
            noise = rng.standard_normal((len(truth), truth.shape[1] + 64))
            noise = signal.lfilter([(1 - along**2) ** 0.5], [1, -along], noise)[:, 64:]
        low = low + case["white"] * noise
    return np.clip(np.rint(low), 0, WHITE)


def denoise_told(low: Image, case: dict[str, Any], *, means: bool = False) -> Image:
    """Denoise by BM3D or non-local means, told the noise."""
    electrons, deviation = case.get("electrons"), float(case.get("white", 0))
    if electrons is None:
        return _denoise(low, deviation, case.get("along", 0.0), means=means)
    # generalised transform of Anscombe, and its inverse without bias (Makitalo, Foi)
    gain = WHITE / electrons
    sigma = deviation / gain
    root = 2 * np.sqrt(np.maximum(low / gain + 0.375 + sigma**2, 0))
    scale = WHITE / np.ptp(root)
    flat = _denoise((root - root.min()) * scale, scale, 0.0, means=means)
    flat = np.maximum(flat / scale + root.min(), 1.0)
    back = flat**2 / 4 + np.sqrt(1.5) / 4 / flat - 11 / 8 / flat**2
    back = back + 5 / 8 * np.sqrt(1.5) / flat**3 - 0.125 - sigma**2
    return np.asarray(gain * back)


def _denoise(low: Image, deviation: float, along: float, *, means: bool) -> Image:
    if means:
        how = {"patch_size": 5, "patch_distance": 9, "fast_mode": True}
        made = denoise_nl_means(low, h=0.6 * deviation, sigma=deviation, **how)
        return np.asarray(made)
    np.trapz = np.trapezoid  # noqa: NPY201 - by its former name bm4d asks for it
    import bm3d

    if not along:
        return np.asarray(bm3d.bm3d(low, sigma_psd=deviation))
    wave = np.exp(-2j * np.pi * np.fft.fftfreq(low.shape[1]))
    power = deviation**2 * (1 - along**2) / np.abs(1 - along * wave) ** 2
    power = np.tile(power, (len(low), 1)) * low.size
    return np.asarray(bm3d.bm3d(low, sigma_psd=power))


def flat_noise(image: Image, truth: Image) -> float:
    """Deviation from a plain mean in the truth's flattest tenth of blocks."""
    smooth = ndimage.gaussian_filter(truth, 2.0)
    contrast = reshape_into_blocks(smooth, BLOCK).std((1, 3)).ravel()
    flat = np.argsort(contrast)[: max(4, len(contrast) // 10)]
    fine = reshape_into_blocks(image - ndimage.gaussian_filter(image, 2.0), BLOCK)
    return float(fine.swapaxes(1, 2).reshape(len(contrast), -1)[flat].std())


def summarise(rows: list[dict[str, Any]], goals: dict[str, Any]) -> None:
    """Print a line for each case and group, and what is missed."""
    for case in dict.fromkeys(row["case"] for row in rows):
        goal = goals["goals"].get(case, {})
        for group in "others", "known":
            found = [r for r in rows if (r["case"], r["group"]) == (case, group)]
            if not found:
                continue
            if case == "clean":
                least = min(row["psnr"] for row in found)
                met = least >= goal["psnr_db"]
                line = f"{case:11s} {group:6s} least PSNR {least:5.2f}, {verdict(met)}"
            else:
                over = np.array([row["gain"] - row["bm3d"] for row in found])
                line = f"{case:11s} {group:6s}"
                for name in ("gain", *PEERS):
                    line += f" {name} {np.mean([r[name] for r in found]):+6.2f}"
                line += f"; over bm3d {mean_and_error(over)}, worst {over.min():+.2f}"
                if goal:
                    met = over.mean() >= goal["over_bm3d_db"]
                    met &= over.min() >= goal.get("worst_over_bm3d_db", -np.inf)
                    line += f", {verdict(met)}"
            print(f"{line}; flat {max(row['flat'] for row in found):.2f}", flush=True)


def main() -> None:
    """Print a line for each case."""
    asked = read_options(
        __doc__,
        "--model=sem-restore --json=FILE",
        data={"type": Path, "required": True},
        select={"nargs": "*", "default": ()},
    )
    goals = yaml.safe_load(GOALS.read_text())
    judge = Judge(load_model(asked.model), EnhanceOptions())
    kept = Rows(asked.json, "model", "case", "image")
    peers = {(r["case"], r["image"]): r for r in kept}
    rows = []
    for name, case in goals["cases"].items():
        if asked.select and name not in asked.select:
            continue
        entries = [(g, e) for g in ("others", "known") for e in goals[g]]
        for number, (group, entry) in enumerate(entries):
            image = f"{Path(entry['file']).stem} {entry.get('left', '')}".strip()
            truth = read_truth(asked.data, goals, entry)
            low = degrade(truth, case, goals["seed"] + number)
            made = restored(low, judge)
            row = {"model": asked.model, "case": name, "image": image, "group": group}
            after, gain = psnr_db(made, truth), partial(psnr_db, truth=truth)
            row |= {"psnr": after, "flat": flat_noise(made, truth)}
            row["flat"] /= max(flat_noise(low, truth), 1e-3)
            if case:
                before = gain(low)
                row["gain"] = after - before
                known = peers.get((name, image))
                if known is None:
                    known = {
                        "bm3d": gain(denoise_told(low, case)) - before,
                        "means": gain(denoise_told(low, case, means=True)) - before,
                        "oracle": gain(oracle(low, truth)) - before,
                    }
                row |= {peer: known[peer] for peer in PEERS}
            whole = {
                k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()
            }
            rows.append(kept.add(whole))
        summarise([row for row in rows if row["case"] == name], goals)


if __name__ == "__main__":
    main()
