"""Hold denoising by the image itself against peers, on the same images.

Run: ``python benchmarks/own_image.py --data FOLDER --rows ROWS.jsonl [--peers PYTHON]
[--steps N] [--only WORD ...] [--methods WORD ...]``.

FOLDER holds the real images. Fields are the middle 256 px of held-out SEM images with
noise added, white or such as a slow detector smears along the lines, in 8 bits; and
real pairs of one scan and of 50 averaged, as in `restorer.py`, of which the one scan is
denoised. Gains are in dB of PSNR after an affine match of grey levels, 16 px of border
left out. ``own`` is `semsr train own-image` and `semsr enhance`, with `--steps`; its
processor time, from the reading of the image to the model, is what each training of
the peers gets, their imports not counted. ``two scans`` is the same with a second draw
of the noise. ``linear`` is the best linear filter of 21 x 21 taps, fitted to the truth,
which nobody has; ``sem-restore`` is the default model as it is.

PYTHON is the interpreter of an environment with the peers (see `own_image_peers.py`);
without it they are left out. BM3D is told the noise's spectrum along lines, ``white``
its deviation alone; both are estimated from the image itself. The second table is of
differences field by field. Rows that the file holds are not computed again.
"""

import argparse
import itertools
import json
import math
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _restoration import Image, oracle, psnr_db
from _shared import Rows, mean_and_error, read_options
from restorer import clear_images, common, real_pairs
from scipy import ndimage, signal
from skimage.restoration import denoise_nl_means

import napari_semsr as semsr
from napari_semsr.core import Micrograph

SIDE = 256
WHICH = (1, 4, 3, 0, 2, 5, 6, 7)  # of the held-out images
CASES = {"along lines 25": (25, True), "white 40": (40, False), "white 15": (15, False)}
KEPT = math.exp(-1)  # of the last pixel's noise, by a slow detector
PEERS = {"BM3D": "bm3d-lines", "BM3D, white": "bm3d", "n2v": "n2v"}
TRAINED = ("n2v",)
BEST_PEER = "BM3D"
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
Made = tuple[Image | None, dict[str, object]]  # what was made, and more of its row
PEER = Path(__file__).with_name("own_image_peers.py")


@dataclass(frozen=True)
class Field:
    """A noisy image and its truth, and perhaps a second scan."""

    case: str
    name: str
    low: Image
    truth: Image
    second: Image | None = None

    def gain(self, made: Image) -> float:
        """PSNR of what was made of it over its own."""
        return psnr_db(made, self.truth) - psnr_db(self.low, self.truth)


def noisy(truth: Image, sigma: float, *, slow: bool, seed: int) -> Image:
    """Add noise and record in 8 bits."""
    noise = np.random.default_rng(seed).standard_normal(truth.shape)
    if slow:
        noise = signal.lfilter([1 - KEPT], [1, -KEPT], noise, axis=1)
        noise = noise / noise.std()
    return np.clip(np.rint(truth + sigma * noise), 0, 255)


def fields(data: Path, only: list[str]) -> Iterator[Field]:
    """Give the fields of the cases that are asked for, the real ones last."""
    images = clear_images(data, "develop", SIDE)
    for number, (case, (sigma, slow)) in itertools.product(WHICH, CASES.items()):
        if wanted(case, only):
            name, truth = images[number]
            low, second = (
                noisy(truth, sigma, slow=slow, seed=seed) for seed in (number, 100)
            )
            yield Field(case, name, low, truth, second)
    if wanted("real", only):
        for name, low, high, _ in real_pairs(data):
            place = common(low, high)
            yield Field("real", name, low[place], high[place])


def by_itself(field: Field, steps: int, *, second: bool) -> Made:
    """Train on a field and enhance it; the processor time, and pixels hidden."""
    image, other = (
        None if one is None else Micrograph(one.astype(np.uint8), name=name)
        for one, name in ((field.low, "image"), (field.second, "second"))
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        trained = semsr.train(
            "own-image",
            Path(folder) / "run",
            image=image,
            second=other if second else None,
            steps=steps,
        )
        spent = time.process_time() - begun
        made = semsr.enhance(image, model=trained.model)
    reach = int((trained.validation or {}).get("alike_columns_px", 0))
    return np.asarray(made.array(), float), {"seconds": round(spent, 1), "reach": reach}


def sigma_of(low: Image) -> float:
    """Estimate the noise by second differences across the lines, robustly."""
    noise = np.diff(low, 2, axis=0) / 6**0.5
    return float(np.median(np.abs(noise))) / 0.6745


def by_default(low: Image) -> Image:
    """Enhance by the default model."""
    image = Micrograph(low.astype(np.uint8), name="image")
    return np.asarray(semsr.enhance(image).array(), dtype=float)


def by_means(low: Image) -> Image:
    """Denoise by scikit-image's non-local means, told the estimated noise."""
    sigma = sigma_of(low)
    return denoise_nl_means(
        low, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True
    )


def noise_along_lines(low: Image) -> Image:
    """Estimate the noise's variance by frequency along lines, from the image itself.

    Lines follow each other so fast that second differences across them hold little of
    the sample; medians over lines leave out most of the rest.
    """
    across = np.diff(low, 2, axis=0) / 6**0.5
    power = np.abs(np.fft.fft(across, axis=1)) ** 2 / low.shape[1]
    smooth = ndimage.gaussian_filter1d(np.median(power, axis=0), 2, mode="wrap")
    return np.asarray(smooth / math.log(2))  # of the mean of such powers


def by_peer(python: Path, method: str, low: Image, seconds: float, reach: int) -> Made:
    """Denoise in the peers' environment; what it said where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("in.npy", "out.npy", "noise.npy")
        source, target, noise = (Path(folder) / name for name in names)
        np.save(source, low)
        white = np.full(low.shape[1], sigma_of(low) ** 2)
        np.save(noise, white if method == "bm3d" else noise_along_lines(low))
        words = [python, PEER, method, source, target, seconds, reach, noise]
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False
        )
        said = (done.stderr.strip().splitlines() or [""])[-1]
        return np.load(target) if target.exists() else None, {"said": said}


def keep(field: Field, rows: Rows, method: str, make: Callable[[], Made]) -> None:
    """Compute a row that is not there yet, and print it."""
    if (field.case, field.name, method) in rows:
        return
    made, more = make()
    if made is None:
        print(f"{method} failed on {field.name}: {more['said']}", flush=True)
        return
    row = {"case": field.case, "name": field.name, "method": method}
    row |= {"gain_db": round(field.gain(made), 3), **more}
    print(json.dumps(rows.add(row)), flush=True)


def measure(field: Field, rows: Rows, args: argparse.Namespace) -> None:
    """Compute what is not known of a field."""
    low = field.low
    ways = {
        "own": lambda: by_itself(field, args.steps, second=False),
        "sem-restore": lambda: (by_default(low), {}),
        "linear": lambda: (oracle(low, field.truth), {}),
        "non-local means": lambda: (by_means(low), {}),
    }
    for method, peer in PEERS.items() if args.peers is not None else ():
        own = rows.known.get((field.case, field.name, "own"), {})
        spent = own.get("seconds", 0), own.get("reach", 0)
        if spent[0] or method not in TRAINED:
            ways[method] = partial(by_peer, args.peers, peer, low, *spent)
    for method, make in ways.items():
        if wanted(method, args.methods):
            keep(field, rows, method, make)


def wanted(method: str, words: list[str]) -> bool:
    """Say whether a method is asked for; BM3D has two forms that differ in case."""
    return any(word in method for word in words)


def measure_scans(field: Field, rows: Rows, args: argparse.Namespace) -> None:
    """Compute what a second scan gives, if there is one."""
    if field.second is not None and wanted("two scans", args.methods):
        make = partial(by_itself, field, args.steps, second=True)
        keep(field, rows, "two scans", make)


def table(rows: Iterable[dict[str, Any]], *, ahead: bool = False) -> str:
    """Write means with their standard errors, and the worst, as Markdown.

    Gains in dB; or, field by field, how far each method is ahead of the best peer.
    """
    known = {(row["case"], row["name"], row["method"]): row["gain_db"] for row in rows}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (case, name, method), gain in known.items():
        if not ahead:
            found[method, case].append(gain)
        elif method != BEST_PEER and (case, name, BEST_PEER) in known:
            found[method, case].append(gain - known[case, name, BEST_PEER])
    all_cases = ("real", *CASES)
    most = {
        case: max((len(v) for (_, of), v in found.items() if of == case), default=0)
        for case in all_cases
    }
    head = [f"{case}, {most[case]} fields" for case in all_cases]
    lines = [f"| method | {' | '.join(head)} |", "|---|---:|---:|---:|---:|"]
    for method in dict.fromkeys(method for method, _ in found):
        cells = []
        for case in all_cases:
            gains = found.get((method, case), [])
            told = f"{mean_and_error(gains)} ({min(gains):+.2f})" if gains else DASH
            fewer = f", {len(gains)} fields" if 0 < len(gains) < most[case] else ""
            cells.append(told + fewer)
        line = f"| {' | '.join(cells)} |".replace("-", MINUS)
        lines.append(f"| {method} {line}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    args = read_options(
        __doc__,
        "--steps=1000",
        data={"type": Path, "required": True},
        rows={"type": Path, "required": True},
        peers=Path,
        only=([""], "words of a case"),
        methods=([""], "words of a method"),
    )
    rows = Rows(args.rows, "case", "name", "method")
    for step in (measure, measure_scans):
        for field in fields(args.data, args.only):
            step(field, rows, args)
    print(table(rows))
    print(f"\nAhead of {BEST_PEER}, field by field:\n\n{table(rows, ahead=True)}")


if __name__ == "__main__":
    main()
