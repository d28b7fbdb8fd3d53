"""Prepare what a bare machine lacks, in ``.gpu``, which git ignores.

Wheels for its Python, the images that Gao's system learns from, and the place of the
demonstration with what a CPU reached on it. All of it travels with the tree, which must
stay below 64 MiB together.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from gpu.adapt import FIGURES, IMAGES as IMAGES_OF_PLACE, train, with_part_held_out
from gpu.kit import IMAGES, KIT, PLACE, ROOT

from napari_semsr.core import count_available_cores, get_processor_name
from napari_semsr.io import read
from napari_semsr.training import load_recipe

WHEELS = KIT / "wheels"
MAX_WHEELS, MOST = 28 << 20, 64 << 20  # bytes
STEPS = 960  # about what two idle AVX2 cores do in the two minutes of `semsr adapt`
# Beyond PyTorch, NumPy, SciPy, scikit-image, Lightning and what these bring. Not
# imagecodecs: 26 MB for formats that the kit does not read. numcodecs has 1.4 MB since
# 0.17, and 9 before.
NEEDED = (
    *("pydantic", "pydantic_core", "annotated-types", "typing-inspection", "zarr"),
    *(
        "numcodecs==0.17.1",
        "donfig",
        "google-crc32c",
        "yaozarrs",
        "dask",
        "distributed",
    ),
    *("zict", "tblib", "partd", "locket", "magicgui", "psygnal", "QtPy"),
    *("platformdirs", "monai", "superqt", "in-n-out"),
)
PLATFORMS = ("2_28", "2_27", "2_26", "2_17")


def pinned() -> list[str]:
    """Give what is needed with the versions of constraints.txt, which fit together."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = {_plain(line.partition("==")[0]): line for line in lines if "==" in line}
    return [names.get(_plain(name), name) for name in NEEDED]


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def take_wheels() -> None:
    """Take wheels for CPython 3.12, one version of each."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    call += ["--only-binary=:all:", "--python-version", "3.12"]
    call += ["--implementation", "cp", "--dest", str(WHEELS)]
    for version in PLATFORMS:
        call += ["--platform", f"manylinux_{version}_x86_64"]
    call += ["--platform", "manylinux2014_x86_64"]
    subprocess.run([*call, *pinned()], check=True)
    size = size_of(WHEELS)
    if size > MAX_WHEELS:
        sys.exit(f"The wheels must take at most 28 MiB, got {size / 2**20:.1f}.")


def take_images(source: Path | None) -> None:
    """Pack the images that Gao's system learns from and is judged by, lossless."""
    data = load_recipe(ROOT / "recipes" / "campaign" / "gao-a.yaml").data
    source = source or Path(data.root)
    if not source.is_dir():
        print(f"There are no images in {source}: Gao's system cannot be trained.")
        return
    shutil.rmtree(IMAGES, ignore_errors=True)
    for entry in (*data.train, *data.validation):
        image = read(source / entry.file, colour="luminance").array()
        path = IMAGES / entry.file
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = np.rint(image)
        if np.array_equal(whole, image) and image.min() >= 0 and image.max() < 256:
            image = whole.astype(np.uint8)
        # Its first bytes tell the format, whatever the name ends with.
        how: dict[str, Any] = {"compression": "adobe_deflate", "predictor": True}
        with path.open("wb") as file:
            tifffile.imwrite(file, np.ascontiguousarray(image), metadata=None, **how)


def take_place(demo: Path | None) -> None:
    """Cut the place of a demonstration, and keep what it gains on this processor."""
    with tempfile.TemporaryDirectory() as folder:
        if demo is None:
            demo = Path(folder) / "demo"
            call = [sys.executable, "-m", "napari_semsr", "demo", str(demo)]
            subprocess.run(call, check=True)
        mosaic, sem = (
            read(demo / "mosaic" / name) for name in ("mosaic.ome.zarr", "sem.ome.tif")
        )
        apart = (np.array(sem.origin) - mosaic.origin) / mosaic.scale
        (y, x), (rows, columns) = np.rint(apart).astype(int), sem.shape
        low = np.asarray(mosaic.array()[y : y + rows, x : x + columns], np.float32)
        high = np.asarray(sem.array(), np.float32)
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    np.savez_compressed(PLACE / IMAGES_OF_PLACE, low=low, high=high)
    reached = train(with_part_held_out(low, high), "cpu", None, STEPS)[-1]
    figures = reached | {
        "processor": get_processor_name(),
        "cores": count_available_cores(),
    }
    (PLACE / FIGURES).write_text(json.dumps(figures, indent=1) + "\n")


def size_of(folder: Path) -> int:
    """Add up the bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Prepare all, and say how much there is to carry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, help="in place of the recipe's folder")
    parser.add_argument("--only", nargs="+", default=["wheels", "images", "place"])
    parser.add_argument("--demo", type=Path, help="a demonstration that was run")
    given = parser.parse_args()
    if "wheels" in given.only:
        take_wheels()
    if "images" in given.only:
        take_images(given.images)
    if "place" in given.only:
        take_place(given.demo)
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT).split(b"\0")
    paths = [ROOT / name.decode() for name in listed if name]
    tracked = sum(path.stat().st_size for path in paths if path.is_file())
    parts = {"tracked": tracked}
    parts |= {path.name: size_of(path) for path in (WHEELS, IMAGES, PLACE)}
    print({name: f"{size / 2**20:.1f} MiB" for name, size in parts.items()})
    whole = sum(parts.values())
    if whole > MOST:
        sys.exit(f"Tree and kit must take at most 64 MiB, got {whole / 2**20:.1f}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
