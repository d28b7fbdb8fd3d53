"""What a model makes of superlens images, held against the electron image.

Run: ``python benchmarks/superlens.py --model ssum-sem -o OUT_DIR``. Prints tables in
Markdown; with ``-o`` writes ``superlens.json`` and pictures (needs matplotlib): of
depth, and of a field of every kind in focus through a lens of a numerical aperture of
1.8.

Quality, sizes and depth are of a microscope that blurs by a Gaussian of 80 nm; *light*
is of lenses of a numerical aperture of 1.3 to 2.0, at any focus, by distance from it;
with ``--gaussian`` of Gaussians of 70 to 95 nm, likewise, and with ``--recipe FILE`` of
the optics that it draws.

Samples are simulated, drawn with seeds that training never uses, 40 to 160 nm high; the
Siemens star and the letters are of kinds that it never draws. Peers: the optical image
itself and the oracle linear filter (21 x 21 taps and an offset, fitted by least squares
to the truth of that very image), which no real filter reaches; for depth of field also
a focus stack of five pictures. 16 px of border are left out.

PSNR and SSIM are taken after an affine match to the electron image, whose percentiles
0.1 and 99.9 are black and white. The cross-FRC to the noise-free electron image has the
threshold of a noise-free reference; an image that follows it up to Nyquist's frequency
counts as two pixels. A gap counts as resolved where its dip below the weaker neighbour,
over that one's height above the ground, is at least Rayleigh's 26.4 %.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _restoration import oracle
from _shared import Rows, read_options
from _superlens_fields import (
    DIP,
    KEPT_SEED,
    PHOTONS,
    SIDE,
    USUAL,
    Sites,
    chip,
    chip_sites,
    dips,
    letters,
    margin_nm,
    moved,
    series,
    sharp,
    star,
    star_sites,
)
from _superlens_figures import draw_figures
from _superlens_mosaic import stitched_pair
from _superlens_tables import print_depth, print_light, print_quality, print_sizes
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import (
    FrcOptions,
    Metrics,
    compute_psnr_gain,
    fit_gain_and_offset,
    measure_frc,
    measure_metrics,
    structural_similarity,
)
from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.simulation import (
    ImagingSettings,
    MicroscopeOptions,
    ScanOptions,
    Specimen,
    SsumPair,
    SsumPairOptions,
    simulate_ssum_pair,
    simulate_validation_pairs,
)
from napari_semsr.simulation.samples import SAMPLE_KINDS
from napari_semsr.training import Recipe, load_recipe

Image = NDArray[np.float64]
BORDER = 16
SIZES = (50, 60, 80, 100, 150, 200, 300)
STAR_WIDTHS = (50, 60, 70, 80, 90, 100, 120, 150, 200)
HEIGHTS = tuple(range(0, 401, 50))
STACK = (-200.0, -100.0, 0.0, 100.0, 200.0)
FEATURE_NM = 100.0
PARTS = ("quality", "sizes", "depth", "light")
LIGHT_SEED = 63_000  # of fields through a lens; nothing else draws them
GAUSSIAN_SEED = 43_000  # of those through a Gaussian
RECIPE_SEED = 45_000  # of those as a recipe draws them


@dataclass(frozen=True, slots=True)
class Judge:
    """A model, and what it is measured with."""

    loaded: LoadedModel
    fields: int
    with_oracle: bool
    self_ensemble: bool = False

    @property
    def scale(self) -> int:
        """Output pixels per pixel of the optical image."""
        return self.loaded.card.scale

    def images(
        self, pair: SsumPair, *, stack: Image | None = None, linear: bool = True
    ) -> dict[str, Image]:
        """Optical, filtered and enhanced image, and the truth, on one grid."""
        low = Micrograph(pair.low, (pair.pixel_nm,) * 2)
        options = EnhanceOptions(dtype="float32", self_ensemble=self.self_ensemble)
        made = run(enhance_in_memory(low, self.loaded, options))
        truth = np.clip(pair.high, 0, 1).astype(float) * 255
        images = {"optical": enlarged(pair.low, self.scale)}
        if self.with_oracle and linear:
            images["linear"] = oracle(pair.low.astype(float) * 255, truth)
        if stack is not None:
            images["stack"] = enlarged(stack, self.scale)
        images["enhanced"] = made.array().astype(float)
        return {**images, "truth": truth}


def enlarged(image: NDArray[Any], scale: int) -> Image:
    """Put an image on finer pixels by a cubic spline; areas stay where they are."""
    if scale == 1:
        return np.asarray(image, np.float64)
    zoomed = ndimage.zoom(
        image.astype(np.float64), scale, order=3, mode="nearest", grid_mode=True
    )
    return np.asarray(zoomed)


def inner(image: Image, scale: int) -> Image:
    """Leave out the border."""
    border = BORDER * scale
    return image[border:-border, border:-border]


def look(focus_nm: float, *, photons: float = PHOTONS) -> ImagingSettings:
    """Take a picture by a Gaussian of 80 nm."""
    microscope = MicroscopeOptions(
        optics="gaussian", focus_nm=focus_nm, photons=photons
    )
    return ImagingSettings(microscope, shading=0.01, correlation_px=0.3, bits=12)


def in_focus(surface: Specimen, judge: Judge, seed: int, side: int = SIDE) -> SsumPair:
    """Focus in the middle of the relief."""
    low, high = float(surface.height_nm.min()), float(surface.height_nm.max())
    rng = np.random.default_rng([77, seed])
    return simulate_ssum_pair(
        surface, side, look((low + high) / 2), rng, scale=judge.scale
    )


def scores(images: dict[str, Image], pixel_nm: float, scale: int) -> dict[str, Any]:
    """PSNR, SSIM and resolution of each image but the truth."""
    truth = inner(images["truth"], scale)
    found: dict[str, Any] = {}
    for name, image in images.items():
        if name == "truth":
            continue
        part = inner(image, scale)
        gain, offset = fit_gain_and_offset(part, truth)
        fitted = np.clip(gain * part + offset, 0, 255)
        error = float(np.mean((fitted - truth) ** 2))
        result = measure_frc(
            Micrograph(fitted, (pixel_nm,) * 2),
            Micrograph(truth, (pixel_nm,) * 2),
            FrcOptions(reference=True),
        )
        resolution = result.resolution_nm
        if resolution is None and result.reason == "beyond-nyquist":
            resolution = 2 * pixel_nm
        found[name] = {
            "psnr_db": 10 * np.log10(255**2 / error),
            "ssim": structural_similarity(fitted, truth, data_range=255.0),
            "resolution_nm": resolution,
        }
    return found


def held_out_pairs(
    kind: str, judge: Judge, options: SsumPairOptions, first_seed: int = 0
) -> Iterable[SsumPair]:
    """Yield fields of one kind that nothing was trained or chosen on."""
    one = options.replace(kinds=(kind,))
    yield from simulate_validation_pairs(
        judge.fields,
        SIDE,
        scale=judge.scale,
        options=one,
        first=first_seed + 1000 + 100 * SAMPLE_KINDS.index(kind),
    )


def pairs_by_kind(judge: Judge) -> dict[str, list[SsumPair]]:
    """Fields in focus of every kind, and of kinds that training never draws."""
    found = {k: list(held_out_pairs(k, judge, sharp(USUAL))) for k in SAMPLE_KINDS}
    found["any focus"] = [
        pair for kind in SAMPLE_KINDS for pair in held_out_pairs(kind, judge, USUAL)
    ]
    for relief in (60, 160):
        found[f"chip, 80 nm lines, {relief} nm high"] = [
            in_focus(chip(160, i, relief), judge, i) for i in range(judge.fields)
        ]
    found["chip, stitched scan"] = [
        stitched_pair(stitched_chip(i), judge.scale) for i in range(judge.fields)
    ]
    found["letters"] = [in_focus(letters(60, i), judge, i) for i in range(judge.fields)]
    found["Siemens star"] = [
        in_focus(star(60, 36 - 4 * i), judge, i) for i in range(judge.fields)
    ]
    return found


def stitched_chip(index: int) -> ScanOptions:
    """Scan wiring of the default size by a Gaussian of 80 nm, half-way focused."""
    return ScanOptions(
        optics="gaussian",
        frames_grid=(3, 3),
        overlap=0.5,
        focus_nm=80.0,
        seed=KEPT_SEED + index,
    )


def quality(judge: Judge) -> dict[str, Any]:
    """Scores by kind of sample."""
    table: dict[str, Any] = {}
    trained: list[dict[str, Any]] = []
    for kind, pairs in pairs_by_kind(judge).items():
        rows = [
            scores(judge.images(p), p.pixel_nm / judge.scale, judge.scale)
            for p in pairs
        ]
        table[kind] = summary(rows)
        trained += rows if kind in SAMPLE_KINDS else []
    return {"all kinds": summary(trained), **table}


def examples(judge: Judge) -> dict[str, dict[str, Image]]:
    """Give the first field of every kind through a lens, focused in its relief."""
    lens = sharp(USUAL).replace(gaussian=0, numerical_aperture=(1.8, 1.8))
    firsts = {k: next(iter(held_out_pairs(k, judge, lens))) for k in SAMPLE_KINDS}
    return {k: judge.images(pair, linear=False) for k, pair in firsts.items()}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of PSNR and SSIM, worst gain, medians of resolution."""
    found: dict[str, Any] = {"fields": len(rows)}
    for name in rows[0]:
        found[name] = {
            measure: float(np.mean([row[name][measure] for row in rows]))
            for measure in ("psnr_db", "ssim")
        }
        found[name]["resolution_nm"] = median([r[name]["resolution_nm"] for r in rows])
        found[name]["no_crossing"] = sum(r[name]["resolution_nm"] is None for r in rows)
    gains = [r["enhanced"]["psnr_db"] - r["optical"]["psnr_db"] for r in rows]
    found["worst_gain_db"] = float(min(gains))
    ratios = [
        (r["optical"]["resolution_nm"] or np.inf) / r["enhanced"]["resolution_nm"]
        for r in rows
        if r["enhanced"]["resolution_nm"]
    ]
    ratio = float(np.median(ratios)) if len(ratios) == len(rows) else None
    found["resolution_ratio"] = ratio if ratio and np.isfinite(ratio) else None
    return found


def median(values: list[float | None]) -> float | None:
    """Median in which a missing resolution is worse than any; None if it is that."""
    middle = float(np.median([np.inf if v is None else v for v in values]))
    return middle if np.isfinite(middle) else None


def site_dips(
    images: dict[str, Image], sites: Sites, pixel_nm: float, side: int = SIDE
) -> dict[str, Image]:
    """Dips of every image at sites of the drawn sample."""
    inside = moved(sites, margin_nm(side), side * 20.0)
    return {name: dips(image, inside, pixel_nm) for name, image in images.items()}


def resolved(found: dict[str, list[Image]]) -> dict[str, Any]:
    """Mean dip and share of sites whose dip is deep enough."""
    pooled = {name: np.concatenate(parts) for name, parts in found.items()}
    return {
        name: {
            "dip": float(all_dips.mean()),
            "resolved": float(np.mean(all_dips >= DIP)),
            "sites": int(all_dips.size),
        }
        for name, all_dips in pooled.items()
    }


def collected(judge: Judge, fields: Iterable[tuple[Specimen, Sites]]) -> dict[str, Any]:
    """Dips over several fields in focus."""
    found: dict[str, list[Image]] = {}
    for index, (surface, sites) in enumerate(fields):
        pair = in_focus(surface, judge, 50 + index)
        images = judge.images(pair, linear=False)
        for name, values in site_dips(images, sites, 20.0 / judge.scale).items():
            found.setdefault(name, []).append(values)
    return resolved(found)


def sizes(judge: Judge) -> dict[str, Any]:
    """Dips between lines and between discs of each size, of a chip and a star."""
    table: dict[str, Any] = {"lines": {}, "discs": {}, "star": {}}
    for form in ("lines", "discs"):
        for size in SIZES:
            made = [series(size, form, 60) for _ in range(judge.fields)]
            table[form][size] = collected(judge, made)
    for width in STAR_WIDTHS:
        drawn = [(star(60), star_sites(width)) for _ in range(judge.fields)]
        table["star"][width] = collected(judge, drawn)
    for relief in (60, 160):
        table[f"chip, {relief} nm high"] = {
            width: collected(judge, chips(2 * width, relief, judge.fields))
            for width in (60, 70, 80, 100)
        }
    return table


def chips(
    pitch_nm: float, relief_nm: float, count: int
) -> list[tuple[Specimen, Sites]]:
    """Draw chips and find their gaps."""
    drawn = [chip(pitch_nm, index, relief_nm) for index in range(count)]
    return [(surface, chip_sites(surface, pitch_nm)) for surface in drawn]


def focus_stack(pictures: list[NDArray[Any]]) -> Image:
    """Take each place from the picture with the greatest local contrast there."""
    stack = np.stack(pictures).astype(float)
    smooth = np.stack([ndimage.gaussian_filter(p, 1.0) for p in stack])
    means = np.stack([ndimage.gaussian_filter(p, 6.0) for p in smooth])
    contrast = np.stack(
        [
            ndimage.gaussian_filter((s - m) ** 2, 6.0)
            for s, m in zip(smooth, means, strict=True)
        ]
    )
    best = contrast.argmax(axis=0)
    return np.asarray(np.take_along_axis(stack, best[None], axis=0)[0])


def depth(judge: Judge) -> dict[str, Any]:
    """Resolution and dips of 100 nm lines against their height above the focus."""
    surfaces = [chip(2 * FEATURE_NM, 200 + i, 40) for i in range(judge.fields)]
    table: dict[str, Any] = {}
    for height in HEIGHTS:
        rows, found = [], dict[str, list[Image]]()
        for index, surface in enumerate(surfaces):
            focal = [height + away for away in STACK]

            def picture(
                above: float, number: int, surface: Specimen = surface
            ) -> SsumPair:
                rng = np.random.default_rng([78, number, round(above) + 1000])
                middle = float(surface.height_nm.max()) / 2
                return simulate_ssum_pair(
                    surface, SIDE, look(middle - above), rng, scale=judge.scale
                )

            pair = picture(height, index)
            stack = focus_stack([picture(a, index).low for a in focal])
            images = judge.images(pair, stack=stack)
            rows.append(scores(images, 20.0 / judge.scale, judge.scale))
            sites = chip_sites(surface, 2 * FEATURE_NM)
            for name, values in site_dips(images, sites, 20.0 / judge.scale).items():
                found.setdefault(name, []).append(values)
        table[str(height)] = {
            name: {**summary(rows).get(name, {}), **dip}
            for name, dip in resolved(found).items()
        }
    return {"heights": table, "range_nm": depth_ranges(table)}


def depth_ranges(table: dict[str, Any]) -> dict[str, Any]:
    """Heights over which 100 nm lines stay apart, by two measures."""
    heights = np.array([float(h) for h in table])
    names = list(next(iter(table.values())))
    found: dict[str, Any] = {}
    for name in names:
        if name == "truth":
            continue
        rows = [row[name] for row in table.values()]
        shares = np.array([row["resolved"] for row in rows])
        # as a frequency, so that no crossing is 0
        sharp = np.array([1 / (row["resolution_nm"] or np.inf) for row in rows])
        found[name] = {
            "nine_of_ten_gaps": extent(heights, shares, 0.9),
            "cross_frc_200_nm": extent(heights, sharp, 0.5 / FEATURE_NM),
            "cross_frc_100_nm": extent(heights, sharp, 1 / FEATURE_NM),
        }
    return found


def extent(heights: Image, values: Image, level: float) -> float:
    """Twice the height up to which values reach a level: blur is alike both ways."""
    below = np.flatnonzero(values < level)
    if not below.size:
        return float(2 * heights[-1])
    at = int(below[0])
    if at == 0:
        return 0.0
    share = (values[at - 1] - level) / (values[at - 1] - values[at])
    return float(2 * (heights[at - 1] + share * (heights[at] - heights[at - 1])))


def light(
    judges: dict[str, Judge],
    count: int,
    kept: Rows,
    *,
    gaussian: bool,
    recipe: Recipe | None,
) -> list[dict[str, Any]]:
    """Measure gains of filter and models on fields at any focus, through a lens or not.

    Of several models each has the fields that the first has.
    """
    optics, seed = ("Gaussian", GAUSSIAN_SEED) if gaussian else ("lens", LIGHT_SEED)
    options = USUAL.replace(gaussian=int(gaussian))
    if recipe:
        optics, seed, options = recipe.name, RECIPE_SEED, recipe.data.superlens
    options = options.replace(any_focus=1)
    for number in range(count):
        if (optics, number) in kept:
            continue
        row: dict[str, Any] = {"optics": optics, "number": number}
        for name, judge in judges.items():
            (pair,) = simulate_validation_pairs(
                1,
                SIDE,
                scale=judge.scale,
                options=options.replace(
                    kinds=(SAMPLE_KINDS[number % len(SAMPLE_KINDS)],)
                ),
                first=seed + number,
            )
            images = judge.images(pair, linear="kind" not in row)
            found = scores(images, 20.0, judge.scale)
            split = {} if gaussian else split_at_cut_off(images, pair, judge.scale)
            before = found["optical"]["psnr_db"]
            row |= {"kind": pair.kind, "defocus": pair.defocus, "optical": before}
            for image, score in found.items():
                if image != "optical":
                    label = name if image == "enhanced" else image
                    row[label] = {"whole": score["psnr_db"] - before}
                    if split:  # a Gaussian has no cut-off
                        bands = "below the cut-off", "above it"
                        errors = split[image].band_errors, split["optical"].band_errors
                        for band, *both in zip(bands, *errors, strict=True):
                            row[label][band] = compute_psnr_gain(*both)[0]
        print(kept.add(rounded(row)), flush=True)
    return [row for row in kept if row["optics"] == optics and row["number"] < count]


def rounded(value: Any) -> Any:
    """Round what is in a row to four digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def split_at_cut_off(
    images: dict[str, Image], pair: SsumPair, scale: int
) -> dict[str, Metrics]:
    """Measure images against the truth, the errors split where the light ends."""
    grey = {
        name: Micrograph(inner(image, scale), (pair.pixel_nm / scale,) * 2)
        for name, image in images.items()
    }
    end = pair.look.microscope.cut_off_nm
    truth = grey.pop("truth")
    return {
        name: measure_metrics(
            image, truth, data_range=255.0, match="affine", cut_off_nm=end
        )
        for name, image in grey.items()
    }


def main() -> None:
    """Measure each model and print its tables."""
    arguments = read_options(
        __doc__,
        "--no-oracle --self-ensemble --output=FILE"
        " --gaussian --recipe=FILE --rows=FILE",
        model=["ssum-sem"],
        fields=(3, "of each sample"),
        light_fields=(128, "through a lens"),
        parts={"nargs": "+", "default": PARTS, "choices": PARTS},
    )
    everything: dict[str, Any] = {}
    if "light" in arguments.parts:
        judges = {
            name: Judge(
                load_model(name), 0, not arguments.no_oracle, arguments.self_ensemble
            )
            for name in arguments.model
        }
        kept = Rows(arguments.rows, "optics", "number")
        everything["light"] = light(
            judges,
            arguments.light_fields,
            kept,
            gaussian=arguments.gaussian,
            recipe=arguments.recipe and load_recipe(arguments.recipe),
        )
        print_light(everything["light"], print)
    if arguments.parts == ["light"]:
        arguments.model = []
    for model in arguments.model:
        judge = Judge(
            load_model(model),
            arguments.fields,
            not arguments.no_oracle,
            arguments.self_ensemble,
        )
        print(f"\n## {judge.loaded.card.name}, {judge.scale}x", flush=True)
        result: dict[str, Any] = {"digest": judge.loaded.digest}
        if "quality" in arguments.parts:
            result["quality"] = quality(judge)
            print_quality(result["quality"], print)
        if "sizes" in arguments.parts:
            result["sizes"] = sizes(judge)
            print_sizes(result["sizes"], print)
        if "depth" in arguments.parts:
            result["depth"] = depth(judge)
            print_depth(result["depth"], print)
        name = judge.loaded.card.name
        everything[name] = result
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
            draw_figures(arguments.output, name, result, examples(judge))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(everything, indent=1)
        (arguments.output / "superlens.json").write_text(text)


if __name__ == "__main__":
    main()
