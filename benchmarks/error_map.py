"""Error maps beside NanoPyx on the same images, and what they find of a known blur.

NanoPyx wants its own versions of numpy, so give it an environment of its own::

    python -m venv /tmp/peers && /tmp/peers/bin/pip install nanopyx
    python benchmarks/error_map.py --peer-python /tmp/peers/bin/python

Pairs are drawn: points and lines, blurred and noisy as reference; sharper, with an
object invented and one taken out, as enhanced image.
"""

import argparse
import sys

import numpy as np
from _shared import (
    PEER,
    by_peer,
    find_peer,
    mean_and_error,
    read_options,
    run_parts,
    verdict,
)
from scipy.ndimage import gaussian_filter, uniform_filter

import napari_semsr as semsr

FIRST_SEED = 20_000
ALIKE = 0.01

RUN = """
import json, sys
import numpy as np
from nanopyx.core.transform.error_map import ErrorMap
reference, enhanced = map(np.load, sys.argv[1:])
made = ErrorMap()
made.optimise(reference, enhanced)
print(json.dumps((made.getRSE(), made.getRSP(), made.get_sigma())))
"""


def draw(side: int, seed: int, *, scale: int = 1, noise: float = 0.5) -> dict:
    """Draw a pair: a blurred reference, and an image that is sharper, but not right."""
    rng = np.random.default_rng(seed)
    fine = side * scale
    scene = np.zeros((fine, fine))
    places = rng.integers(0, fine, (2, side * side // 100))
    np.add.at(scene, tuple(places), rng.uniform(20, 100, places.shape[1]))
    for x in rng.integers(20, fine - 20, 6):
        scene[fine // 8 : -fine // 8, x : x + 2 * scale] += 10
    sharp = gaussian_filter(scene, scale)
    seen = gaussian_filter(scene, rng.uniform(2, 4) * scale)
    seen = seen.reshape(side, scale, side, scale).mean((1, 3))
    enhanced = sharp + rng.normal(0, 0.05 * sharp.std(), sharp.shape)
    at, size = fine // 3, fine // 24
    enhanced[at : at + size, at : at + size] += 2 * sharp.std()  # invented
    enhanced[-at - size : -at, at : at + size] = sharp.mean()  # taken out
    reference = 80 + 4 * seen + rng.normal(0, noise * seen.std(), seen.shape)
    return {
        "reference": reference.astype(np.float32),
        "enhanced": enhanced.astype(np.float32),
    }


def theirs(pair: dict, python: str) -> tuple[float, float, float]:
    """RSE, RSP and sigma of NanoPyx."""
    return by_peer(python, RUN, pair["reference"], pair["enhanced"])


def agreement(given: argparse.Namespace, peer: str | None) -> bool:
    """Print both on the same pairs, and what float64 gives with NanoPyx' own blur."""
    met = True
    for scale in (1, 2):
        print(
            f"{given.side} x {given.side} px, enhanced {scale} x: RSE, RSP, sigma (px)"
        )
        apart = []
        for seed in range(FIRST_SEED, FIRST_SEED + given.seeds):
            pair = draw(given.side, seed, scale=scale)
            found = semsr.error_map(**pair)
            line = f"  {seed}: {found.rse:.5f} {found.rsp:.5f} {found.sigma_px:.3f}"
            if peer is None:
                print(line)
                continue
            rse, rsp, sigma = theirs(pair, peer)
            apart.append((abs(found.rse / rse - 1), abs(found.rsp / rsp - 1)))
            line += f"   NanoPyx {rse:.5f} {rsp:.5f} {sigma:.3f}"
            if scale == 1:
                blurred = gaussian_filter(pair["enhanced"].astype(float), sigma)
                exact = np.corrcoef(blurred.ravel(), pair["reference"].ravel())[0, 1]
                line += f", its blur in double precision r = {exact:.5f}"
            else:
                moved = uniform_filter(pair["enhanced"], 2, mode="wrap", origin=-1)
                put = theirs({**pair, "enhanced": moved}, peer)
                line += f", moved by half a pixel {put[0]:.5f} {put[1]:.5f}"
            print(line, flush=True)
        if apart and scale == 1:
            worst = np.max(apart, axis=0)
            met &= bool(worst.max() <= ALIKE)
            print(
                f"  apart at most {100 * worst[0]:.4f} % in RSE, "
                f"{100 * worst[1]:.4f} % in RSP, goal {100 * ALIKE:g} %: "
                f"{verdict(met)}"
            )
    return met


def recovery(given: argparse.Namespace) -> None:
    """Print what is found of a blur, a gain and a shift that are known."""
    for scale in (1, 2):
        errors = []
        for seed in range(FIRST_SEED, FIRST_SEED + given.seeds):
            rng = np.random.default_rng(seed)
            fine = gaussian_filter(rng.normal(size=(600 * scale, 600 * scale)), scale)
            sigma = rng.uniform(1.5, 4) * scale
            move = rng.integers(-4, 5, 2)  # of fine pixels, so that it is exact
            seen = gaussian_filter(30 * fine, sigma)
            moved = np.roll(seen, move, (0, 1)).reshape(600, scale, 600, scale)
            reference = 50 + moved.mean((1, 3))[40:-40, 40:-40]
            reference += rng.normal(0, 0.1 * reference.std(), reference.shape)
            enhanced = fine[40 * scale : -40 * scale, 40 * scale : -40 * scale]
            found = semsr.error_map(reference, enhanced)
            away = np.hypot(*np.subtract(found.shift_px, move / scale))
            off = found.sigma_px / sigma - 1, found.alpha / 30 - 1, away
            errors.append(np.multiply(off, (100, 100, 1)))
        said = []
        for name, values in zip(
            ("sigma, %", "gain, %", "shift, px"), np.transpose(errors), strict=True
        ):
            most = np.abs(values).max()
            said.append(f"{name} {mean_and_error(values, '+.3f')} (worst {most:.3f})")
        print(f"Known blur, gain and shift, {scale} x: {'; '.join(said)}")


def main() -> int:
    """Print the figures; exit code 1 means that a goal was missed."""
    given = read_options(
        __doc__,
        "--side=512 --seeds=5 --only=|agreement|recovery",
        peer_python=PEER,
    )
    peer = find_peer(given.peer_python, "nanopyx.core.transform.error_map")
    return run_parts(
        given.select,
        agreement=lambda: agreement(given, peer),
        recovery=lambda: recovery(given),
    )


if __name__ == "__main__":
    sys.exit(main())
