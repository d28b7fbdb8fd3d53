"""Loads that a laboratory may bring: each once, with its time and its largest memory.

``python benchmarks/loads.py [--parts PART …]`` in a folder with 8 GB to spare
(``--folder``); parts are ``stitch``, ``frc-map``, ``lazy`` and ``levels``. Each runs in
a process of its own, the system tells its largest resident memory; times are of one
run.
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _shared import in_line, read_options, usage_of
from numpy.typing import NDArray

SEMSR = [sys.executable, "-m", "napari_semsr"]
SEED = 20261124
SIDES = (10, 20, 30, 50)  # frames along each side of a scan


def measured(words: Sequence[object]) -> tuple[dict[str, Any], str]:
    """Run a command: its seconds, largest memory and exit code, and what it said."""
    used = usage_of(words)
    row = {"seconds": used.seconds, "MB": used.peak_kib / 1024, "code": used.code}
    return row, used.said


def texture(shape: tuple[int, int], seed: int = SEED) -> NDArray[np.float32]:
    """Draw detail of some pixels, 40 grey levels of standard deviation."""
    from scipy import ndimage

    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    smooth = ndimage.gaussian_filter(drawn, 2)
    return np.asarray(128 + 40 * smooth / smooth.std(), dtype=np.float32)


def scan(folder: Path, side: int) -> NDArray[np.float64]:
    """Write a grid of frames of 256² px that share 15 %; give their true corners."""
    from PIL import Image

    rng = np.random.default_rng(SEED + side)
    step, reach = 218, 4
    field = texture((side * step + 256, side * step + 256), SEED + side)
    nominal = np.indices((side, side)).reshape(2, -1).T * step + reach
    corners = nominal + rng.integers(-reach, reach + 1, nominal.shape)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = [("frame", "y_px", "x_px")]
    for number, ((y, x), place) in enumerate(zip(corners, nominal, strict=True)):
        frame = field[y : y + 256, x : x + 256] + rng.normal(0, 5, (256, 256))
        name = f"frame-{number:04d}.png"
        Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / name)
        rows.append((name, *map(str, place)))
    with (folder / "positions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return np.asarray(corners, dtype=float)


def stitch(folder: Path) -> Iterator[dict[str, Any]]:
    """Join up to 2 500 frames: memory for each, and how time grows."""
    for side in SIDES:
        truth = scan(folder / "frames", side)
        out = folder / "mosaic.ome.zarr"
        call = [*SEMSR, "stitch", folder / "frames", "-o", out, "--pixel-size-nm", 40]
        places = folder / "places.csv"
        call += ["--overwrite", "--quiet", "--positions-out", places]
        row = {"frames": side**2, **measured(call)[0]}
        if not row["code"]:
            with places.open() as stream:
                found = np.array(
                    [
                        [float(r["y_px"]), float(r["x_px"])]
                        for r in csv.DictReader(stream)
                    ]
                )
            errors = found - truth
            errors -= np.median(errors, axis=0)
            row["worst_px"] = float(np.abs(errors).max())
        yield row


def frc_map(folder: Path) -> Iterator[dict[str, Any]]:
    """Map two images of 16 384² px in files that are mapped into memory."""
    import tifffile

    side, rng = 16384, np.random.default_rng(SEED)
    images = [folder / f"{name}.tif" for name in ("one", "two")]
    mapped = [tifffile.memmap(p, shape=(side, side), dtype="f4") for p in images]
    for row in range(0, side, 2048):
        strip = texture((2048, side), SEED + row)
        for image in mapped:
            image[row : row + 2048] = strip + rng.normal(0, 20, strip.shape)
    del mapped
    call = [*SEMSR, "frc-map", *images, "--pixel-size-nm", 10, "--quiet", "--json"]
    out = folder / "map.ome.zarr"
    row, said = measured([*call, "-o", out, "--overwrite"])
    yield {"blocks": 0 if row["code"] else json.loads(said)["blocks"], **row}


_LAZY = """
import time, sys, numpy as np, napari_semsr as semsr
field = np.load(sys.argv[1], mmap_mode="r")
begun = time.perf_counter()
lazy = semsr.lazy_enhance(field, device="cpu")
planned = time.perf_counter()
lazy[:512, :512].compute()
print(planned - begun, time.perf_counter() - planned)
"""


def lazy(folder: Path) -> Iterator[dict[str, Any]]:
    """Enhance a corner of 30 000² px: what is measured first, and the corner."""
    side = 30000
    path = folder / "field.npy"
    field = np.lib.format.open_memmap(path, "w+", "u1", (side, side))
    for row in range(0, side, 1500):
        field[row : row + 1500] = texture((1500, side), SEED + row).clip(0, 255)
    del field
    row, said = measured([sys.executable, "-c", _LAZY, path])
    times = zip(("planning_s", "corner_s"), map(float, said.split()), strict=False)
    yield {**dict(times), **row}


def levels(folder: Path) -> Iterator[dict[str, Any]]:
    """List and enhance an OME-Zarr that tells of 20 000 levels."""
    import zarr

    path, count = folder / "levels.ome.zarr", 20000
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.open_group(path, mode="w", zarr_format=2)
    first = group.create_array("0", shape=(64, 64), chunks=(64, 64), dtype="u1")
    first[:] = texture((64, 64)).clip(0, 255).astype(np.uint8)
    for number in range(1, count):
        (path / str(number)).mkdir()
        shutil.copy(path / "0" / ".zarray", path / str(number))
    sizes = [[2.0 ** min(number, 30)] * 2 for number in range(count)]
    sets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": s}]}
        for k, s in enumerate(sizes)
    ]
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"]
    scales = [{"version": "0.4", "axes": axes, "datasets": sets}]
    (path / ".zattrs").write_text(json.dumps({"multiscales": scales}))
    for verb, more in (("info", ()), ("enhance", ("-o", folder / "small.tif"))):
        call = [*SEMSR, verb, path, *more]
        if more:
            call += ["--overwrite", "--quiet"]
        yield {"verb": verb, **measured(call)[0]}


PARTS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    "stitch": stitch,
    "frc-map": frc_map,
    "lazy": lazy,
    "levels": levels,
}


def main() -> None:
    """Run the parts that are asked for."""
    chosen = read_options(
        __doc__,
        parts={"nargs": "*", "choices": list(PARTS), "default": list(PARTS)},
        folder=(Path("loads"), "where files are made"),
    )
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.parts:
        for row in PARTS[name](chosen.folder):
            print(f"{name}: {in_line(row)}", flush=True)


if __name__ == "__main__":
    main()
