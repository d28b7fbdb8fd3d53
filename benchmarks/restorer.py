"""Hold the default restorer against `restorer_goals.yaml`.

Run: ``python benchmarks/restorer.py --data FOLDER [--model NAME] [--set develop|judge]
[--only WORD ...] [--oracles FILE] [--json FILE] [--self-ensemble]``.

FOLDER holds the real images. Each clear image, up to 512 px of its middle, is degraded
in 8 bits as the goals say, and restored at default settings. Gains are in dB of PSNR
after an affine match of grey levels, 16 px of border left out; ``oracle`` is the best
linear filter of 21 x 21 taps and an offset, fitted by least squares to the truth of
that very image, which no filter can know, and ``gaussian`` the best Gaussian. The file
of ``--json`` also says what amplitude of the truth is there at each spatial frequency,
and what power besides.
``--oracles`` keeps their figures, which take most of the time, for the next run. Cases
named *told* give the model, and a Wiener filter, the width of the blur. Where a set
lists *quiet* images, a second line is of them.

Of ``line``, real pairs of one scan and of 50 lines averaged (those that ``leakage.py``
finds elsewhere are left out), the averaged scan is registered to the other first, as
`semsr register --model elastic` does it. The grey levels of its flattest tenth of 16 px
blocks say whether the restored image is biased, and, beside that, by how much a plain
Gaussian is: the two scans themselves differ. ``soft`` is the averaged scan restored,
against itself: nothing ails it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from _restoration import Image, by_frequency, oracle, psnr_db
from _shared import mean_and_error, middle, read_options
from scipy import ndimage

from napari_semsr import restore
from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.io import read
from napari_semsr.jobs import REGISTER, RegisterOptions
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.simulation import degrade as gao
from napari_semsr.training.recipe import ImageEntry, load_recipe
from napari_semsr.training.scenes import load_clear_image

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent / "recipes" / "sem-restore.yaml"
WHITE = 255.0
PAIRS = 15
LEFT_OUT = (1, 7)  # 001 shows what `time/002` does, which trained; 007 most of 009
PIXEL_NM = 5.8
DATABAR_ROWS = 39
BLOCK = 16
GAUSSIANS_PX = 0.6, 0.9, 1.2, 1.6, 2.0, 2.6  # among which the best is found
FINAL = (  # rows of data bar in each
    ImageEntry(file="nasa__0406172_S1270015.tif"),
    ImageEntry(file="ampis__Sc1Tile_001-005-000_0-000.png"),
    ImageEntry(file="ampis__train_800C-85H-Q-3_sizeRC_482_645.png"),
    ImageEntry(file="data_axondeepseg_sem__sub-rat6_sample-data15_SEM.png"),
    ImageEntry(file="data_axondeepseg_sem__sub-rat4_sample-data12_SEM.png"),
    ImageEntry(file="nanoballs__R5_K3K4Me3_SiO2_2-2_35000.TIF", crop_bottom=104),
    ImageEntry(file="neuroproof_examples__iso.03918.png"),
)


@dataclass(frozen=True)
class Case:
    """One degradation, by its name in the goals, or a veil by airlight and length."""

    name: str
    what: dict[str, Any]

    def degrade(self, truth: Image, seed: int) -> Image:
        """Degrade an image of the scale 0 to 255."""
        rng, what, low = np.random.default_rng(seed), self.what, truth
        if "sigma_px" in what:
            low = ndimage.gaussian_filter(truth, what["sigma_px"])
        if "set" in what:
            low = gao.degrade_plane(
                truth.astype(np.uint8), what["set"], seed=seed
            ).image
        if "airlight" in what:
            low = veiled(truth, what["airlight"], what["correlation_px"], rng)
        if "noise" in what:
            growing = np.sqrt(2 * truth / WHITE) if what.get("shot") else 1.0
            low = truth + what["noise"] * growing * rng.standard_normal(truth.shape)
        return np.clip(np.rint(low), 0, WHITE).astype(float)

    @property
    def told(self) -> dict[str, float]:
        """Give the options by which a model hears of it."""
        width = self.what.get("told_px")
        return {} if width is None else {"blur_px": width}


def veiled(
    truth: Image, airlight: float | str, correlation: float, rng: np.random.Generator
) -> Image:
    """Veil as Gao et al. do, at any airlight and scale, and stretch back."""
    first, last = gao.BETA_RANGE
    shape = (truth.shape[0], truth.shape[1])
    beta = first + (last - first) * gao.create_smooth_field(shape, correlation, rng)
    level = float(truth.mean() if airlight == "mean" else airlight)
    low = gao.apply_fog(truth, beta, level)
    gain = truth.std() / low.std()
    return np.asarray((low - low.mean()) * gain + truth.mean())


def cases(goals: dict[str, Any]) -> Iterator[Case]:
    """All degradations that the goals name."""
    for name, what in goals["cases"].items():
        yield Case(name, what)
    told, too_much = goals["told"], goals["told too much"]
    for sigma in told["sigma_px"]:
        yield Case(f"told {sigma}", {"sigma_px": sigma, "told_px": sigma})
    for sigma in too_much["sigma_px"]:
        what = {"sigma_px": sigma, "told_px": too_much["times"] * sigma}
        yield Case(f"too much {sigma}", what)
    veils = goals["veils"]
    for length in veils["correlation_px"]:
        for airlight in veils["airlight"]:
            what = {"airlight": airlight, "correlation_px": length}
            yield Case(f"veil {length} of {airlight}", what)


def clear_images(data: Path, which: str, side: int) -> list[tuple[str, Image]]:
    """Read the middle of each clear image, in 8 bits."""
    if which == "develop":
        root, entries = data / "sem", load_recipe(RECIPE).data.held_out
    else:
        root, entries = data / "final", FINAL
    images = []
    for entry in entries:
        image = load_clear_image(root, entry)
        images.append((entry.file, np.rint(middle(image, side) * WHITE)))
    return images


@dataclass(frozen=True)
class Judge:
    """A model and how it is run: at default settings but for the self-ensemble."""

    loaded: LoadedModel
    options: EnhanceOptions


def restored(low: Image, judge: Judge, **told: float) -> Image:
    """Enhance."""
    image = Micrograph(low.astype(np.uint8))
    job = enhance_in_memory(image, judge.loaded, judge.options.replace(**told))
    return np.asarray(run(job).array(), dtype=float)


def best_gaussian(low: Image, truth: Image) -> float:
    """PSNR of the best Gaussian, in hindsight."""
    blurred = (ndimage.gaussian_filter(low, sigma) for sigma in GAUSSIANS_PX)
    return max(psnr_db(image, truth) for image in (low, *blurred))


class Oracles:
    """Figures of the oracle, kept in a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, float] = {}
        if path is not None and path.exists():
            self.known = json.loads(path.read_text())

    def psnr(self, key: str, low: Image, truth: Image) -> float:
        """PSNR of the best linear filter of an image."""
        if key not in self.known:
            self.known[key] = psnr_db(oracle(low, truth), truth)
            if self.path is not None:
                self.path.write_text(json.dumps(self.known))
        return self.known[key]


def real_pairs(data: Path) -> Iterator[tuple[str, Image, Image, Image]]:
    """Give real pairs: scan, the averaged one on its grid, and as it was scanned."""
    folder = data / "dwell_pairs" / "line"
    for number in (n for n in range(1, PAIRS + 1) if n not in LEFT_OUT):
        low, high = read_pair(folder, number)
        images = (one.astype(float) for one in (low, register_pair(low, high), high))
        yield f"line {number:03d}", *images


def read_pair(folder: Path, number: int) -> list[Image]:
    """Read a fast and a slow scan, without the data bar."""
    found = sorted(folder.glob(f"{number:03d}_*"))
    return [
        read(path, colour="luminance", databar_rows=DATABAR_ROWS).array()
        for path in sorted(found, key=lambda p: p.stem.endswith(("50x", "30us")))
    ]


def register_pair(low: Image, high: Image) -> Image:
    """Bring the slow scan onto the grid of the fast one."""
    size = parse_pixel_size(PIXEL_NM)
    moving, fixed = (Micrograph(i.astype(np.float32), size) for i in (high, low))
    job = REGISTER.job(moving, fixed, options=RegisterOptions(model="elastic"))
    return run(job).image.array()


def common(low: Image, high: Image) -> tuple[slice, slice]:
    """Find the rectangle that both scans show."""
    known = np.isfinite(high)
    rows = np.flatnonzero(known.mean(1) > 0.9)
    columns = np.flatnonzero(known.mean(0) > 0.9)
    box = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
    while not known[box[0] : box[1], box[2] : box[3]].all():
        inner = known[box[0] : box[1], box[2] : box[3]]
        sides = [inner[0], inner[-1], inner[:, 0], inner[:, -1]]
        worst = int(np.argmin([side.mean() for side in sides]))
        box[worst] += 1 if worst % 2 == 0 else -1
    return slice(box[0], box[1]), slice(box[2], box[3])


def flat_bias(made: Image, truth: Image) -> float:
    """Largest mean difference in flat places, among the darkest to the brightest."""
    rows, columns = (n // BLOCK * BLOCK for n in truth.shape)

    def blocks(image: Image) -> Image:
        cut = image[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, -1)
        return cut.swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)

    smooth = ndimage.gaussian_filter(truth, 2.0)
    contrast = blocks(smooth).std(1)
    flat = np.argsort(contrast)[: max(8, len(contrast) // 10)]
    level, away = blocks(smooth)[flat].mean(1), blocks(made - truth)[flat].mean(1)
    thirds = np.array_split(np.argsort(level), 2)
    return max(abs(float(away[part].mean())) for part in thirds)


def measure_real(data: Path, judge: Judge, oracles: Oracles) -> list[dict]:
    """One row for each real pair."""
    rows = []
    for name, low, high, soft in real_pairs(data):
        place = common(low, high)
        made = restored(low, judge)[place]
        low, high = low[place], high[place]
        gain, offset = np.polyfit(high.ravel(), low.ravel(), 1)
        truth = gain * high + offset
        before = psnr_db(low, truth)
        rows.append(
            {
                "case": "line",
                "image": name,
                "before": before,
                "gain": psnr_db(made, truth) - before,
                "gaussian": best_gaussian(low, truth) - before,
                "oracle": oracles.psnr(name, low, truth) - before,
                "bias": flat_bias(made, truth),
                "gaussian_bias": flat_bias(
                    ndimage.gaussian_filter(low, max(GAUSSIANS_PX)), truth
                ),
                "soft": psnr_db(restored(soft, judge), soft),
            }
        )
        print("   ", {k: v for k, v in rows[-1].items() if k != "case"}, flush=True)
    return rows


def measure(
    case: Case,
    images: list[tuple[str, Image]],
    seed: int,
    judge: Judge,
    oracles: Oracles,
) -> list[dict]:
    """One row for each image."""
    rows = []
    for index, (name, truth) in enumerate(images):
        low = case.degrade(truth, seed + index)
        made = restored(low, judge, **case.told)
        after = psnr_db(made, truth)
        row: dict[str, Any] = {"case": case.name, "image": name, "after": after}
        if case.name != "sharp":
            before = psnr_db(low, truth)
            row |= {"before": before, "gain": after - before}
            key = f"{case.name} {name}"
            for word in ("told", "too much"):
                key = key.replace(word, "blur")
            row["oracle"] = oracles.psnr(key, low, truth) - before
            row["gaussian"] = best_gaussian(low, truth) - before
            row["input by frequency"] = by_frequency(low, truth)
            row["by frequency"] = by_frequency(made, truth)
        if case.told:
            row["wiener"] = psnr_db(wiener(low, **case.told), truth) - before
        rows.append(row)
    return rows


def wiener(low: Image, blur_px: float) -> Image:
    """Restore by the classical filter that is told the blur."""
    made = restore(low.astype(np.uint8), method="wiener", psf=f"{blur_px}px")
    return made.array().astype(float)


def summary(rows: list[dict]) -> str:
    """One line: mean with standard error, worst, and the peers beside it."""
    sharp = rows[0]["case"] == "sharp"
    values = np.array([row["after" if sharp else "gain"] for row in rows])
    line = f"{rows[0]['case']:18s} {mean_and_error(values, '+7.2f')}"
    line += f"  worst {values.min():+7.2f}"
    for name in ("oracle", "gaussian", "wiener", "before", "soft"):
        if name in rows[0]:
            line += f"  {name} {np.mean([row[name] for row in rows]):6.2f}"
    return line


def main() -> None:
    """Print a line for each case."""
    arguments = read_options(
        __doc__,
        "--model=sem-restore --set=develop|judge --oracles=FILE --json=FILE "
        "--self-ensemble",
        data={"type": Path, "required": True},
        only={"nargs": "*", "default": ()},
    )
    goals = yaml.safe_load((HERE / "restorer_goals.yaml").read_text())
    options = EnhanceOptions(self_ensemble=arguments.self_ensemble)
    judge = Judge(load_model(arguments.model), options)
    oracles = Oracles(arguments.oracles)
    images = clear_images(arguments.data, arguments.set, goals["side_px"])
    rows: list[dict] = []
    for case in cases(goals):
        if arguments.only and not any(word in case.name for word in arguments.only):
            continue
        rows += measure(case, images, goals["seed"], judge, oracles)
        found = [row for row in rows if row["case"] == case.name]
        print(summary(found), flush=True)
        if quiet := [row for row in found if row["image"] in goals["quiet"]]:
            print("  quiet:", summary(quiet), flush=True)
    if not arguments.only or "line" in arguments.only:
        rows += measure_real(arguments.data, judge, oracles)
        print(summary([row for row in rows if row["case"] == "line"]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
