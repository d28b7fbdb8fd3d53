"""Whether five focal planes teach a small network more than one plane near focus.

Run: ``python benchmarks/focal_planes.py [--rows ROWS.jsonl] [--only KIND;...]``.

The network of ``semsr adapt`` is trained from scratch on four fields of each of four
kinds of sample, once on one plane near focus, and once on five planes of a fifth of the
light each, 150 nm apart about the same focus, which is off in each field by an unknown
height of up to 100 nm. Both networks have the same layers but for the channels of the
first, the same steps, patches and seeds; neither has defect copies. 16 further fields
of each kind are judged, 64 in all: decibels of the mean squared error after the best
gain and offset, for periods that light carries.

Goal, written before the run: five planes are worth building into `adapt` if they win by
0.5 dB in the mean over all 64 fields, with a standard error that excludes less than
0.2, and if they then draw fewer removed objects. Otherwise they are not.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from _shared import Rows, mean_and_error, read_options, verdict
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.analysis import measure_metrics
from napari_semsr.core import Micrograph, parse_pixel_size
from napari_semsr.models import build_network
from napari_semsr.simulation import (
    HELD_OUT_SEED,
    ImagingSettings,
    MicroscopeOptions,
    PhantomOptions,
    SsumPairOptions,
    draw_specimen,
    get_surface_shape,
    simulate_ssum_pair,
)

KINDS: dict[str, dict[str, Any]] = {
    "circuit": {"pitch_nm": 240.0, "relief_nm": 40.0},
    "particles": {},
    "pits": {},
    "fracture": {"relief_nm": 150.0},
}
APART_NM, OFF_NM, PHOTONS = 150.0, 100.0, 3500.0
PLANES = (-2, -1, 0, 1, 2)
TRAINED, JUDGED, SIDE = 4, 16, 320
STEPS, BATCH, PATCH, EDGE, RATE = 960, 6, 64, 8, 2e-3
SEED = 0xF0CA1  # of no other program
GOAL_DB, SURELY_DB = 0.5, 0.2

Field = tuple[NDArray[np.float32], NDArray[np.float32], float, float]


def fields(kind: str, first: int, count: int) -> Iterator[Field]:
    """Give planes (6, Y, X), that of all light last, SEM, cut-off and pixel in nm."""
    options = PhantomOptions.parse({"phantom": kind, **KINDS[kind]})
    for number in range(first, first + count):
        rng = np.random.default_rng([SEED, list(KINDS).index(kind), number])
        surface = draw_specimen(
            options.phantom,
            get_surface_shape(SIDE),
            pixel_nm=SsumPairOptions().pixel_nm / 2,
            options=options,
            seed=HELD_OUT_SEED + (SEED << 8) + number,
        )
        focus = float(np.median(surface.height_nm)) + rng.uniform(-OFF_NM, OFF_NM)
        taken = []
        for plane in (*PLANES, None):
            off, share = (0, 1) if plane is None else (plane, len(PLANES))
            optics = MicroscopeOptions(
                photons=PHOTONS / share, focus_nm=focus + off * APART_NM
            )
            look = ImagingSettings(optics, correlation_px=0.3, bits=12)
            taken.append(simulate_ssum_pair(surface, SIDE, look, rng))
        cut_off = optics.cut_off_nm
        if cut_off is None:
            msg = "These optics have no cut-off."
            raise ValueError(msg)
        low = np.stack([pair.low for pair in taken])
        yield low, taken[-1].high, cut_off, float(taken[-1].pixel_nm)


class Planes(nn.Module):
    """The network of `adapt` for several planes; the middle one is added."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        network = build_network("place", {})
        self.body, self.head = network.body, network.head
        self.stem = nn.Conv2d(4 * planes, network.stem.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Restore (B, planes, H, W) to (B, 1, H, W)."""
        made = self.head(self.body(self.stem(functional.pixel_unshuffle(x, 2))))
        middle = x.shape[1] // 2
        return x[:, middle : middle + 1] + functional.pixel_shuffle(made, 2)


def train(given: list[Field], chosen: slice) -> nn.Module:
    """Train on some planes."""
    torch.manual_seed(0)
    planes = [torch.from_numpy(low[chosen]) for low, *_ in given]
    truths = [torch.from_numpy(np.ascontiguousarray(high)) for _, high, *_ in given]
    network = Planes(len(planes[0]))
    mean = Planes(len(planes[0]))
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        cut = []
        for _ in range(BATCH):
            number = int(rng.integers(len(planes)))
            y, x = rng.integers(SIDE - PATCH, size=2)
            both = torch.cat([planes[number], truths[number][None]])
            patch = torch.rot90(
                both[:, y : y + PATCH, x : x + PATCH], int(rng.integers(4)), (1, 2)
            )
            cut.append(patch.flip(2) if rng.random() < 0.5 else patch)
        batch = torch.stack(cut)
        made = network(batch[:, :-1])
        error = (made - batch[:, -1:])[..., EDGE:-EDGE, EDGE:-EDGE]
        optimizer.zero_grad(set_to_none=True)
        ((error**2).mean((1, 2, 3)) + 1e-12).mean().log().backward()
        optimizer.step()
        share = 10 / (step + 10)
        with torch.no_grad():
            for kept, now in zip(mean.parameters(), network.parameters(), strict=True):
                kept.lerp_(now, share)
    return mean.eval()


def error_db(image: NDArray[Any], field: Field) -> float:
    """Decibels of the squared error below the cut-off, after the best grey levels."""
    _, high, cut_off, pixel = field
    inner, size = np.s_[16:-16, 16:-16], parse_pixel_size(pixel)
    found = measure_metrics(
        Micrograph(image[inner].astype(float), size),
        Micrograph(high[inner].astype(float), size),
        data_range=1.0,
        match="affine",
        cut_off_nm=cut_off,
    ).band_errors
    if found is None:
        msg = "The cut-off is beyond the image."
        raise ValueError(msg)
    return float(10 * np.log10(found[0].sum()))


@torch.no_grad()
def measure(kind: str) -> dict[str, Any]:
    """Train both networks of a kind, and judge them; a row."""
    torch.set_num_threads(1)
    given = list(fields(kind, 0, TRAINED))
    ways = {"one plane": slice(5, 6), "five planes": slice(0, 5)}
    with torch.enable_grad():
        networks = {name: train(given, chosen) for name, chosen in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ("light", *ways)}
    for field in fields(kind, TRAINED, JUDGED):
        found["light"].append(error_db(field[0][5], field))
        for name, chosen in ways.items():
            low = torch.from_numpy(field[0][chosen])[None]
            found[name].append(error_db(networks[name](low)[0, 0].numpy(), field))
    return {"name": kind, "steps": STEPS, **found}


def main() -> None:
    """Run what has no row yet, and write what all rows say."""
    args = read_options(
        __doc__,
        rows=(
            Path(__file__).parent / "rows" / "focal_planes.jsonl",
            "file of the rows",
        ),
        only={"default": "", "metavar": "KIND;KIND"},
    )
    rows = Rows(args.rows, "name")
    for kind in KINDS:
        if (kind,) not in rows and (not args.select or kind in args.select.split(";")):
            print(json.dumps(rows.add(measure(kind))), flush=True)
    wins: list[float] = []
    for row in rows:
        own = np.subtract(row["one plane"], row["five planes"])
        over = np.subtract(row["light"], row["one plane"])
        wins += [*own]
        print(
            f"{row['name']}: one plane over light {mean_and_error(over)} dB, "
            f"five planes over one {mean_and_error(own)} dB"
        )
    if len(wins) > 1:
        mean, error = np.mean(wins), np.std(wins, ddof=1) / np.sqrt(len(wins))
        won = mean >= GOAL_DB and mean - 2 * error > SURELY_DB
        print(f"all {len(wins)}: {mean_and_error(wins)} dB (goal: {verdict(won)})")


if __name__ == "__main__":
    main()
