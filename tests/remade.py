"""Outputs of every kind, each made of drawn samples, to be made again by `replay`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import napari_semsr as semsr
from napari_semsr.core import run
from napari_semsr.io import get_half_paths, read, write
from napari_semsr.jobs import (
    blend_levels,
    compose_derived_provenance,
    resample_levels,
    save_image,
    simulate_exposure,
    simulate_gold_pair,
    simulate_specimen,
    subtract_images,
)
from napari_semsr.registration import Landmarks

SIDE_PX, FRAME_PX = 128, 96
FORMATS = (".ome.zarr", ".ome.tif", ".tif")
CPU = {"device": "cpu", "tile": 64}
MODELS = ("sem-restore", "ssum-sem")
EXPOSURES = ("clear", "noisy")
Make = Callable[["Place", int], None]


class Place:
    """A folder with the inputs of one output, and where that is."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.seed = folder, seed
        self.out = folder / f"out{FORMATS[seed % len(FORMATS)]}"
        truth = simulate_specimen((SIDE_PX, SIDE_PX + 32), seed=seed)
        self.truth = truth
        for number, name in enumerate(EXPOSURES):
            image = simulate_exposure(truth, seed=seed, noise_seed=number, name=name)
            write(image.replace(provenance=None), folder / f"{name}.tif")
        self.image, self.other = (folder / f"{name}.tif" for name in EXPOSURES)

    def scan(self, **options: Any) -> Path:
        place = self.folder / "scan"
        semsr.simulate(
            place, frames_grid=(2, 2), frame_px=FRAME_PX, overlap=0.5, jitter_px=2,
            phantom="pits", photons=4000, seed=self.seed, field="square", **options,
        )  # fmt: skip
        return place


def convert(at: Place, seed: int) -> None:
    dtype = (None, "uint16", "float32")[seed % 3]
    if seed % 5 == 4:
        at.out, dtype = at.folder / "out.png", None
    semsr.convert(at.image, at.out, dtype=dtype)


def degrade(at: Place, seed: int) -> None:
    kind = ("blur", "fog", "hybrid")[seed % 3]
    semsr.degrade(at.image, at.out, kind=kind, seed=seed, uniform_fog=seed % 6 == 4)


def crop(at: Place, seed: int) -> None:
    semsr.crop(at.image, at.out, box=(3, 5 + seed, 90, 100))


def crop_like(at: Place, seed: int) -> None:
    """Cut what a reference shows, moved onto it or not."""
    whole = read(at.other)
    part = whole.replace(
        data=whole.array()[2 + seed % 5 :, 10:], origin=(20 + 10 * (seed % 5), 100)
    )
    write(part, at.folder / "like.ome.tif")
    write(read(at.image).replace(origin=(3, 4)), at.folder / "moving.ome.tif")
    asked = {"align": True, "search": 8} if seed % 2 == 0 else {}
    like = at.folder / "like.ome.tif"
    semsr.crop(at.folder / "moving.ome.tif", at.out, like=like, **asked)


def register(at: Place, seed: int) -> None:
    table = at.folder / "places.csv"
    rng = np.random.default_rng(seed)
    pairs = rng.uniform(100, 1100, (5, 2))
    off = pairs + rng.normal(0, 3, pairs.shape) + 20
    rows = [f"{a},{b},{c},{d}" for (a, b), (c, d) in zip(pairs, off, strict=True)]
    header = "moving_y_nm,moving_x_nm,fixed_y_nm,fixed_x_nm"
    table.write_text("\n".join([header, *rows]) + "\n")
    semsr.register(
        at.image, at.other, at.out, landmarks=table, landmarks_only=True,
        model=("affine", "similarity")[seed % 2],
    )  # fmt: skip


def register_by_file(at: Place, _seed: int) -> None:
    """Bring an image where another one was brought, by the file of its transform."""
    moving = np.array([(100, 100), (100, 900), (900, 100)], float)
    stored = at.folder / "transform.json"
    semsr.register(
        at.image, at.other, at.folder / "first.tif", transform_out=stored,
        landmarks=Landmarks(moving, moving + 9), landmarks_only=True,
    )  # fmt: skip
    at.out = at.folder / "carried.tif"
    semsr.register(at.image, at.other, at.out, transform=stored)


def stitch(at: Place, seed: int) -> None:
    semsr.stitch(at.scan(), at.out, flat_field=("auto", "none")[seed % 2])


def stitch_half(at: Place, seed: int) -> None:
    """Give one of its halves."""
    semsr.stitch(at.scan(), at.out, halves=True)
    at.out = get_half_paths(at.out)[seed % 2]


def stitch_height(at: Place, seed: int) -> None:
    """Join heights: the mosaic, or the map of heights."""
    scan = at.scan(focal_series=3, relief_nm=400)
    made = semsr.stitch(scan, at.out, focus="max")
    if seed % 2:
        at.out = Path(made.height)


def enhance(at: Place, seed: int) -> None:
    semsr.enhance(at.image, at.out, model=MODELS[seed % 2], **CPU)


def enhance_stack(at: Place, seed: int) -> None:
    planes = np.stack([read(p).array() for p in (at.image, at.other)])
    tifffile.imwrite(at.folder / "stack.tif", planes, metadata={"axes": "TYX"})
    at.out = at.folder / "out.ome.tif"
    semsr.enhance(at.folder / "stack.tif", at.out, pixel_size_nm=10 + seed % 2, **CPU)


def misfit(at: Place, seed: int) -> None:
    made, at.out = at.out, at.folder / f"misfit{at.out.suffix}"
    semsr.enhance(at.image, made, model=MODELS[seed % 2], residual_map=at.out, **CPU)


def restore(at: Place, seed: int) -> None:
    """Restore by each method in turn."""
    methods = ("wiener", "richardson-lucy", "cls", "unsupervised-wiener", "blind")
    psf = ("1.2px", "kernel.tif", "estimate")[seed % 3]
    if methods[seed % 5] == "blind":
        psf = "flat5px"
    elif psf == "kernel.tif":
        place = at.folder / psf
        y, x = np.mgrid[-4:5, -4:5]
        write(semsr.Micrograph(np.exp(-(y**2 + x**2) / 3).astype(np.float32)), place)
        psf = str(place)
    method = methods[seed % 5]
    count = {"iterations": 5} if method in ("richardson-lucy", "blind") else {}
    semsr.restore(at.image, at.out, method=method, psf=psf, **count)


def restore_unsaved(at: Place, _seed: int) -> None:
    """Restore what was degraded in memory: nothing between is ever saved."""
    image = read(at.image).replace(path=str(at.image))
    run(save_image(semsr.restore(semsr.degrade(image), psf="1px"), at.out))


def frc_map(at: Place, seed: int) -> None:
    step = 16 + 8 * (seed % 3)
    semsr.frc_map(at.image, at.other, at.out, block=48, step=step)


def frc_map_halves(at: Place, seed: int) -> None:
    mosaic = at.folder / "mosaic.ome.zarr"
    semsr.stitch(at.scan(), mosaic, halves=True)
    semsr.frc_map(mosaic, None, at.out, block=32, step=16 + 8 * (seed % 2))


def error_map(at: Place, seed: int) -> None:
    unit = ("grey", "percent")[seed % 2]
    semsr.error_map(at.image, at.other, at.out, unit=unit)


def spectrum(at: Place, seed: int) -> None:
    semsr.spectrum(at.image, at.out, tukey=0.1 * (seed % 5))


def simulated(at: Place, seed: int) -> None:
    """Simulate a frame, or give a picture of its truth."""
    names = ("frame_000.tif", "truth/object.ome.tif", "truth/flat.ome.tif")
    at.out = at.scan() / names[seed % 3]


def simulated_of_image(at: Place, seed: int) -> None:
    place = at.folder / "scan"
    semsr.simulate(
        place, image=at.image, frames_grid=(1, 2), frame_px=48, seed=seed,
        image_binning=1,
    )  # fmt: skip
    at.out = place / f"frame_00{seed % 2}.tif"


def exposure(at: Place, seed: int) -> None:
    run(save_image(simulate_exposure(at.truth, seed=seed, noise_seed=1), at.out))


def gold(at: Place, seed: int) -> None:
    """Save one of the pair of gold on carbon."""
    run(save_image(simulate_gold_pair(seed=seed)[seed % 2], at.out))


def difference(at: Place, seed: int) -> None:
    """Subtract two, and save what is left."""
    first, second = (read(p).replace(path=str(p)) for p in (at.image, at.other))
    run(save_image(subtract_images(first, second), at.out))


def blend(at: Place, seed: int) -> None:
    """Mix a result with its input, as the slider does."""
    image = read(at.image).replace(path=str(at.image))
    result = (
        semsr.restore(image, psf="1px") if seed % 2 else semsr.enhance(image, **CPU)
    )
    strength = 0.1 + 0.04 * seed
    levels = run(resample_levels(image, (), result, [result.data]))
    mixed = blend_levels(levels, [result.data], strength)[0]
    told = compose_derived_provenance(
        "blend", {"strength": strength}, input=image, result=result
    )
    run(save_image(result.replace(data=mixed, provenance=told), at.out))


KINDS: dict[str, Make] = {
    item.__name__.replace("_", " "): item
    for item in (
        convert, degrade, crop, crop_like, register, register_by_file, stitch,
        stitch_half, stitch_height, enhance, enhance_stack, misfit,
        restore, restore_unsaved, frc_map, frc_map_halves, error_map, spectrum,
        simulated, simulated_of_image, exposure, gold,
        difference, blend,
    )
}  # fmt: skip
