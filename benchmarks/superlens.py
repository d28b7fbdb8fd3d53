"""What a model makes of superlens images, held against the electron image.

Run: ``python benchmarks/superlens.py --model ssum-sem --rows FILE``. Prints gains by
distance from the focus; ``--examples FILE`` draws a field of every kind in focus
through a lens of a numerical aperture of 1.8 (needs matplotlib).

Fields are seen through lenses of a numerical aperture of 1.3 to 2.0, at any focus; with
``--gaussian`` through Gaussians of 70 to 95 nm, likewise, and with ``--recipe FILE`` by
the optics that it draws. Samples are simulated, drawn with seeds that training never
uses, 40 to 160 nm high. Peers: the optical image itself and the oracle linear filter
(21 x 21 taps and an offset, fitted by least squares to the truth of that very image),
which no real filter reaches. 16 px of border are left out. PSNR is taken after an
affine match to the electron image, whose percentiles 0.1 and 99.9 are black and white.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _restoration import oracle
from _shared import Rows, mean_and_error, picture, read_options
from _superlens_fields import (
    DIP,
    PHOTONS,
    SIDE,
    USUAL,
    Sites,
    dips,
    margin_nm,
    moved,
    sharp,
)
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.analysis import (
    Metrics,
    compute_psnr_gain,
    fit_gain_and_offset,
    measure_metrics,
)
from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.models import LoadedModel, load_model
from napari_semsr.simulation import (
    ImagingSettings,
    MicroscopeOptions,
    Specimen,
    SsumPair,
    SsumPairOptions,
    simulate_ssum_pair,
    simulate_validation_pairs,
)
from napari_semsr.simulation.specimen import SAMPLE_KINDS
from napari_semsr.training import Recipe, load_recipe

Image = NDArray[np.float64]
BORDER = 16
SIZES = (50, 60, 80, 100, 150, 200, 300)
LIGHT_SEED = 63_000  # of fields through a lens; nothing else draws them
GAUSSIAN_SEED = 43_000  # of those through a Gaussian
RECIPE_SEED = 45_000  # of those as a recipe draws them
DISTANCES = {
    "to a half": (0.0, 0.5),
    "a half to 1": (0.5, 1.0),
    "1 to 2": (1.0, 2.0),
    "2 to 3": (2.0, 3.0),
    "in focus": (0.0, 1.0),
    "out of focus": (1.0, 3.0),
    "any focus": (0.0, 3.0),
}
"""Distances from the focus over that at which a point is √2 as wide as at best."""


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

    def images(self, pair: SsumPair, *, linear: bool = True) -> dict[str, Image]:
        """Optical, filtered and enhanced image, and the truth, on one grid."""
        low = Micrograph(pair.low, (pair.pixel_nm,) * 2)
        options = EnhanceOptions(dtype="float32", self_ensemble=self.self_ensemble)
        made = run(enhance_in_memory(low, self.loaded, options))
        truth = np.clip(pair.high, 0, 1).astype(float) * 255
        images = {"optical": enlarged(pair.low, self.scale)}
        if self.with_oracle and linear:
            images["linear"] = oracle(pair.low.astype(float) * 255, truth)
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


def scores(images: dict[str, Image], scale: int) -> dict[str, float]:
    """PSNR in dB of each image but the truth."""
    truth = inner(images["truth"], scale)
    found = {}
    for name in images.keys() - {"truth"}:
        part = inner(images[name], scale)
        gain, offset = fit_gain_and_offset(part, truth)
        fitted = np.clip(gain * part + offset, 0, 255)
        error = float(np.mean((fitted - truth) ** 2))
        found[name] = float(10 * np.log10(255**2 / error))
    return {name: found[name] for name in images if name in found}


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


def draw_examples(path: Path, judge: Judge) -> None:
    """Draw the first field of every kind through a lens, focused in its relief."""
    lens = sharp(USUAL).replace(gaussian=0, numerical_aperture=(1.8, 1.8))
    names = ("optical", "enhanced", "truth")
    count = len(SAMPLE_KINDS)
    with picture(path, 3, count, figsize=(2 * count, 6.3)) as (_, axes):
        for column, kind in enumerate(SAMPLE_KINDS):
            pair = next(iter(held_out_pairs(kind, judge, lens)))
            images = judge.images(pair, linear=False)
            for axis, name in zip(axes[:, column], names, strict=True):
                quarter = images[name].shape[0] // 4
                part = images[name][quarter:-quarter, quarter:-quarter]
                low, high = np.percentile(part, (0.5, 99.5))
                axis.imshow(part, cmap="gray", vmin=low, vmax=high)
                axis.set_xticks([])
                axis.set_yticks([])
            axes[0, column].set_title(kind, fontsize=8)
        for axis, label in zip(axes[:, 0], (*names[:2], "electron image"), strict=True):
            axis.set_ylabel(label)


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
            found = scores(images, judge.scale)
            split = {} if gaussian else split_at_cut_off(images, pair, judge.scale)
            before = found["optical"]
            row |= {"kind": pair.kind, "defocus": pair.defocus, "optical": before}
            for image, score in found.items():
                if image != "optical":
                    label = name if image == "enhanced" else image
                    row[label] = {"whole": score - before}
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


def print_light(rows: list[dict[str, Any]]) -> None:
    """Print gains in dB with standard error and worst, by distance from the focus."""
    names = [n for n, value in rows[0].items() if isinstance(value, dict)]
    for band in rows[0][names[0]]:
        print(f"\n| {band}: focus (fields) | optical, dB | " + " | ".join(names) + " |")
        print("|---|" + "---:|" * (len(names) + 1))
        for group, (low, high) in DISTANCES.items():
            some = [row for row in rows if low <= abs(row["defocus"]) <= high]
            if not some:
                continue
            cells = [f"{np.mean([row['optical'] for row in some]):.2f}"]
            for name in names:
                gains = [row[name][band] for row in some]
                cells.append(f"{mean_and_error(gains)}, worst {min(gains):+.2f}")
            print(f"| {group} ({len(some)}) | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure the models and print their table."""
    arguments = read_options(
        __doc__,
        "--no-oracle --self-ensemble --gaussian --recipe=FILE --rows=FILE"
        " --examples=FILE",
        model=["ssum-sem"],
        fields=(128, "of all kinds"),
    )
    with_oracle, flips = not arguments.no_oracle, arguments.self_ensemble
    judges = {
        name: Judge(load_model(name), 1, with_oracle, flips) for name in arguments.model
    }
    if arguments.examples:
        draw_examples(arguments.examples, next(iter(judges.values())))
        return
    rows = light(
        judges,
        arguments.fields,
        Rows(arguments.rows, "optics", "number"),
        gaussian=arguments.gaussian,
        recipe=arguments.recipe and load_recipe(arguments.recipe),
    )
    print_light(rows)


if __name__ == "__main__":
    main()
