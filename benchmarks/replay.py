"""Replays of outputs of every kind: are they identical, and are faults named.

Of each kind of output several are made, of drawn samples with other seeds, options and
formats, and `semsr.replay` makes each again: how many are identical, and the largest
difference of grey values of those that are not. Then four things are spoilt in the
first output of each kind, one after another, and the table says whether the replay
names it: a pixel of the output, the model, an input, a version in its history. What
has no input or no model is left out there. Last, the memory of comparing two stores.

    python benchmarks/replay.py --outputs 20
    python benchmarks/replay.py --kinds enhance restore --outputs 3
    python benchmarks/replay.py --memory 4096 16384
"""

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from _shared import read_options, usage_of

import napari_semsr as semsr
from napari_semsr.core import run
from napari_semsr.io import describe, half_paths, read, write, write_pages
from napari_semsr.io.files import RECORD_KEY
from napari_semsr.jobs import (
    DEGRADE,
    DegradeOptions,
    blend_levels,
    derived_from,
    difference_of,
    draw_specimen,
    expose,
    gold_pair,
    input_levels,
    save_job,
)

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
        truth = draw_specimen((SIDE_PX, SIDE_PX + 32), seed=seed)
        self.truth = truth
        for number, name in enumerate(EXPOSURES):
            image = expose(truth, seed=seed, noise_seed=number, name=name)
            write(image.replace(provenance=None), folder / f"{name}.tif")
        self.image, self.other = (folder / f"{name}.tif" for name in EXPOSURES)

    def scan(self, **options: Any) -> Path:
        """Simulate a small scan."""
        place = self.folder / "scan"
        semsr.simulate(
            place, frames_grid=(2, 2), frame_px=FRAME_PX, overlap=0.5, jitter_px=2,
            phantom="pits", photons=4000, seed=self.seed, field="square", **options,
        )  # fmt: skip
        return place


def convert(at: Place, seed: int) -> None:
    """Convert an exposure."""
    dtype = (None, "uint16", "float32")[seed % 3]
    if seed % 5 == 4:
        at.out, dtype = at.folder / "out.png", None
    semsr.convert(at.image, at.out, dtype=dtype)


def degrade(at: Place, seed: int) -> None:
    """Degrade one."""
    kind = ("blur", "fog", "hybrid")[seed % 3]
    options = DegradeOptions(kind=kind, seed=seed, uniform_fog=seed % 2 == 0)
    run(DEGRADE.job(at.image, output=at.out, options=options))


def crop(at: Place, seed: int) -> None:
    """Cut a box."""
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
    """Register two by a table of landmarks."""
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


def stitch(at: Place, seed: int) -> None:
    """Stitch a scan."""
    semsr.stitch(at.scan(), at.out, flat_field=("auto", "none")[seed % 2])


def stitch_half(at: Place, seed: int) -> None:
    """Give one of its halves."""
    semsr.stitch(at.scan(), at.out, halves=True)
    at.out = half_paths(at.out)[seed % 2]


def stitch_height(at: Place, seed: int) -> None:
    """Join heights: the mosaic, or the map of heights."""
    scan = at.scan(focal_series=3, relief_nm=400)
    made = semsr.stitch(scan, at.out, focus="max")
    if seed % 2:
        at.out = Path(made.height)


def enhance(at: Place, seed: int) -> None:
    """Enhance a file."""
    semsr.enhance(at.image, at.out, model=MODELS[seed % 2], **CPU)


def enhance_layer(at: Place, seed: int) -> None:
    """Enhance an image in memory, and save it."""
    image = read(at.image).replace(path=str(at.image), provenance=None)
    made = semsr.enhance(image, model=MODELS[seed % 2], **CPU)
    run(save_job(made, at.out))


def enhance_stack(at: Place, seed: int) -> None:
    """Enhance two planes."""
    planes = np.stack([read(p).array() for p in (at.image, at.other)])
    tifffile.imwrite(at.folder / "stack.tif", planes, metadata={"axes": "TYX"})
    at.out = at.folder / "out.ome.tif"
    semsr.enhance(at.folder / "stack.tif", at.out, pixel_size_nm=10 + seed % 2, **CPU)


def misfit(at: Place, seed: int) -> None:
    """Give the map of a misfit."""
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
    semsr.restore(at.image, at.out, method=methods[seed % 5], psf=psf, iterations=5)


def frc_map(at: Place, seed: int) -> None:
    """Map the resolution of two."""
    step = 16 + 8 * (seed % 3)
    semsr.frc_map(at.image, at.other, at.out, block=48, step=step)


def frc_map_halves(at: Place, seed: int) -> None:
    """Map that of a mosaic with halves."""
    mosaic = at.folder / "mosaic.ome.zarr"
    semsr.stitch(at.scan(), mosaic, halves=True)
    semsr.frc_map(mosaic, None, at.out, block=32, step=16 + 8 * (seed % 2))


def error_map(at: Place, seed: int) -> None:
    """Map errors."""
    unit = ("grey", "percent")[seed % 2]
    semsr.error_map(at.image, at.other, at.out, unit=unit)


def spectrum(at: Place, seed: int) -> None:
    """Draw a spectrum."""
    semsr.spectrum(at.image, at.out, tukey=0.1 * (seed % 5))


def simulated_frame(at: Place, seed: int) -> None:
    """Simulate a frame."""
    at.out = at.scan() / f"frame_00{seed % 4}.tif"


def simulated_truth(at: Place, seed: int) -> None:
    """Give a picture of its truth."""
    name = ("object.ome.tif", "seen.ome.tif", "flat.ome.tif")[seed % 3]
    at.out = at.scan() / "truth" / name


def simulated_of_image(at: Place, seed: int) -> None:
    """Simulate the scan of an image."""
    place = at.folder / "scan"
    semsr.simulate(
        place, image=at.image, frames_grid=(1, 2), frame_px=48, seed=seed,
        image_binning=1,
    )  # fmt: skip
    at.out = place / f"frame_00{seed % 2}.tif"


def specimen(at: Place, seed: int) -> None:
    """Draw a specimen, and save it."""
    run(save_job(at.truth, at.out))


def exposure(at: Place, seed: int) -> None:
    """Expose one, and save it."""
    run(save_job(expose(at.truth, seed=seed, noise_seed=1), at.out))


def gold(at: Place, seed: int) -> None:
    """Save one of the pair of gold on carbon."""
    run(save_job(gold_pair(seed=seed)[seed % 2], at.out))


def difference(at: Place, seed: int) -> None:
    """Subtract two, and save what is left."""
    first, second = (read(p).replace(path=str(p)) for p in (at.image, at.other))
    run(save_job(difference_of(first, second), at.out))


def blend(at: Place, seed: int) -> None:
    """Mix a result with its input, as the slider does."""
    image = read(at.image).replace(path=str(at.image))
    result = (
        semsr.restore(image, psf="1px") if seed % 2 else semsr.enhance(image, **CPU)
    )
    strength = 0.1 + 0.04 * seed
    levels = run(input_levels(image, (), result, [result.data]))
    mixed = blend_levels(levels, [result.data], strength)[0]
    told = derived_from("blend", {"strength": strength}, input=image, result=result)
    run(save_job(result.replace(data=mixed, provenance=told), at.out))


KINDS: dict[str, Make] = {
    item.__name__.replace("_", " "): item
    for item in (
        convert, degrade, crop, crop_like, register, stitch, stitch_half,
        stitch_height, enhance, enhance_layer, enhance_stack, misfit, restore, frc_map,
        frc_map_halves, error_map, spectrum, simulated_frame, simulated_truth,
        simulated_of_image, specimen, exposure, gold, difference, blend,
    )
}  # fmt: skip


# Spoil one thing.


def tamper(path: Path) -> None:
    """Change one pixel of an output, and nothing of what is said of it."""
    if path.suffix == ".zarr":
        level = zarr.open_group(path, mode="r+")["0"]
        values = np.asarray(level[:])
        values[_place(values)] += 1
        level[:] = values
        return
    planes = count_planes(path)
    images = [read(path, plane=n if planes > 1 else None) for n in range(planes)]
    first, values = images[0], [image.array().copy() for image in images]
    values[0][_place(values[0])] += 1
    if planes > 1:
        write_pages(first, planes, iter(values), path)
    else:
        write(first.replace(data=values[0], look=first.look), path, overwrite=True)


def count_planes(path: Path) -> int:
    """Count the planes of a file."""
    return describe(path).planes if path.is_file() else 1


def history(path: Path) -> semsr.Provenance:
    """Read what made an output."""
    image = read(path, plane=0 if count_planes(path) > 1 else None)
    if image.provenance is None:
        msg = f"{path} has no history."
        raise ValueError(msg)
    return image.provenance


def _place(values: Any) -> tuple[int, ...]:
    """Find the middlemost pixel that has a value."""
    known = np.argwhere(np.isfinite(values))
    return tuple(known[len(known) // 2])


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the history of an output, and no pixel."""
    if path.suffix == ".zarr":
        file = path / "zarr.json"
        if not file.exists():
            file = path / ".zattrs"
        text = json.loads(file.read_text())
        change(_history(text))
        file.write_text(json.dumps(text))
        return
    planes = count_planes(path)
    images = [read(path, plane=n if planes > 1 else None) for n in range(planes)]
    told = history(path).model_dump(mode="json")
    change(told)
    made = semsr.Provenance.model_validate(told)
    if planes > 1:
        pages = [image.array() for image in images]
        write_pages(images[0].replace(provenance=made), planes, iter(pages), path)
    else:
        write(images[0].replace(provenance=made), path, overwrite=True)


def _history(text: Any) -> dict[str, Any]:
    """Find the history in the attributes of a store."""
    if isinstance(text, dict):
        if isinstance(text.get(RECORD_KEY), dict):
            found: dict[str, Any] = text[RECORD_KEY]["provenance"]
            return found
        for value in text.values():
            found = _history(value)
            if found:
                return found
    return {}


def other_version(told: dict[str, Any]) -> None:
    """Say that another NumPy was there."""
    told["versions"]["numpy"] = "1.0.0"


def other_model(told: dict[str, Any]) -> None:
    """Say that another model was there."""
    told["model_digest"] = "sha256:" + "0" * 64


@contextmanager
def spoilt_input(path: Path) -> Iterator[None]:
    """Change a pixel, or the last byte of a table, of what an output was made of."""
    made = history(path)
    place = Path(made.inputs[0].path)
    if place.is_dir() and place.suffix != ".zarr":
        place = sorted(place.glob("*.tif"))[0]
    kept = place.with_name(f"{place.name}.kept")
    (shutil.copytree if place.is_dir() else shutil.copy)(place, kept)
    tamper(place)
    try:
        yield
    finally:
        (shutil.rmtree if place.is_dir() else Path.unlink)(place)
        shutil.move(kept, place)


def names(path: Path, what: str) -> bool:
    """Tell whether a replay names a thing that differs."""
    return any(item.what == what for item in semsr.replay(path).differs)


def faults(path: Path) -> dict[str, bool]:
    """Spoil what there is to spoil of an output, one thing after another."""
    found = {}
    made = history(path)
    kept = path.with_name(f"kept-{path.name}")
    copy = shutil.copytree if path.is_dir() else shutil.copy

    def restored() -> None:
        (shutil.rmtree if path.is_dir() else Path.unlink)(path)
        copy(kept, path)

    copy(path, kept)
    tamper(path)
    found["pixels"] = names(path, "pixels")
    restored()
    rewrite(path, other_version)
    found["version"] = names(path, "version")
    restored()
    if made.model_digest:
        rewrite(path, other_model)
        found["model"] = names(path, "model")
        restored()
    if made.inputs and made.inputs[0].path:
        with spoilt_input(path):
            found["input"] = names(path, "input")
    return found


def judge(kinds: list[str], outputs: int, *, spoil: bool) -> None:
    """Print a row for each kind."""
    print("| output | identical | largest difference | s | named, when spoilt |")
    print("|---|---:|---:|---:|---|")
    for kind in kinds:
        tried, same, largest, seconds, named = 0, 0, 0.0, 0.0, "—"
        for seed in range(outputs):
            with tempfile.TemporaryDirectory() as scratch:
                at = Place(Path(scratch) / "at", seed)
                try:
                    KINDS[kind](at, seed)
                except semsr.SemsrError as error:
                    print(kind, seed, "was not made:", error, file=sys.stderr)
                    continue
                tried += 1
                begun = time.perf_counter()
                found = semsr.replay(at.out)
                seconds += time.perf_counter() - begun
                same += found.identical and not found.differs
                largest = max(largest, found.max_abs_difference or 0.0)
                if not found.identical or found.differs:
                    print(kind, seed, [d.said for d in found.differs], file=sys.stderr)
                if tried == 1 and spoil:
                    told = faults(at.out)
                    named = ", ".join(k if v else f"NOT {k}" for k, v in told.items())
        mean = seconds / max(1, tried)
        print(f"| {kind} | {same} of {tried} | {largest:g} | {mean:.2f} | {named} |")
        sys.stdout.flush()


_REPLAY = "import sys, napari_semsr; print(napari_semsr.replay(sys.argv[1]).identical)"


def judge_memory(sides: list[int]) -> None:
    """Print the largest resident memory of a replay, by the side of a store."""
    print("| store | identical | peak, MB |\n|---|---|---:|")
    for side in sides:
        with tempfile.TemporaryDirectory() as scratch:
            first, second = (Path(scratch) / f"{n}.ome.zarr" for n in "ab")
            rng = np.random.default_rng(0)
            tile = rng.integers(0, 255, (1024, 1024), np.uint8)
            data = np.tile(tile, (side // 1024, side // 1024))
            write(
                semsr.Micrograph(data, semsr.Micrograph(tile, (5, 5)).pixel_size_nm),
                first,
            )
            del data
            semsr.crop(first, second, box=(0, 0, side - 1, side - 1))
            used = usage_of([sys.executable, "-c", _REPLAY, second])
            print(f"| {side}² | {used.said.strip()} | {used.peak_kib / 1024:.0f} |")


def main() -> None:
    """Judge."""
    given = read_options(
        __doc__,
        outputs=(20, "of each kind"),
        kinds={"nargs": "+", "choices": KINDS, "default": list(KINDS)},
        no_spoil=(False, "leave faults out"),
        memory={"nargs": "+", "type": int, "metavar": "SIDE"},
    )
    warnings.simplefilter("ignore")
    if given.memory:
        judge_memory(given.memory)
    else:
        judge(given.kinds, given.outputs, spoil=not given.no_spoil)


if __name__ == "__main__":
    main()
