"""Final positions and pixels of a scan that was followed, against the offline command.

    python benchmarks/followed_positions.py --rows benchmarks/rows/live.jsonl

Kinds of `stitching.py`, cut smaller (3 x 4 frames of 160 px) from real images: square
frames at stated positions, in a grid without positions, and round fields whose light
drifts by a fifth. Simulated: a lattice, a grating, a stage that is skewed, automatic
brightness, frames without positions, and two bad frames. Frames come in a random order,
a table of positions with them, while they are followed. Goal: positions within 0.02 px,
the same frames placed, the same pixels, or both runs refused. Exit code 1 means that a
kind missed it.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import napari_semsr as semsr
import stitching
from napari_semsr.core import SemsrError, run
from napari_semsr.jobs import STITCH, StitchFolderOptions
from napari_semsr.jobs.images import write_positions

MAX_PX, SEED = 0.02, 7
SIMULATED: dict[str, dict[str, Any]] = {
    "lattice": {"phantom": "lattice"},
    "grating": {"phantom": "grating"},
    "skewed stage": {"phantom": "particles", "stage_skew": 0.04, "stage_scale": 1.03},
    "brightness": {"phantom": "particles", "illumination_drift": 0.4},
    "no positions": {"phantom": "particles"},
    "bad frames": {"phantom": "particles", "bad_frames": 2},
}
KINDS = (*stitching.CASES, *SIMULATED)


def make(kind: str, folder: Path) -> None:
    """Write the frames of a kind, and what states their places."""
    if kind in SIMULATED:
        how = {"frames_grid": (3, 4), "frame_px": 128, **SIMULATED[kind]}
        semsr.simulate(folder, seed=SEED, **how)
        if kind == "no positions":
            (folder / "positions.csv").unlink()
            (folder / "scan.json").unlink(missing_ok=True)
        return
    case = replace(stitching.CASES[kind], grid=(3, 4), side=160)
    scan, _ = stitching.make(case, stitching.DATA / stitching.IMAGES[0], SEED)
    taken = scan.acquisition
    folder.mkdir()
    for index, name in enumerate(taken.names):
        frame = semsr.Micrograph(taken.read(index), None, name)
        semsr.write(frame, folder / f"{name}.tif")
    if taken.nominal_px is not None:
        places = zip(taken.names, taken.nominal_px.tolist(), strict=True)
        named = {f"{name}.tif": place for name, place in places}
        write_positions(folder / "positions.csv", named)


def bring(source: Path, folder: Path) -> None:
    """Write frames as an instrument does, in a random order, and a table that grows."""
    frames = sorted(source.glob("frame_*.tif")) or sorted(source.glob("*.tif"))
    table = source / "positions.csv"
    rows = table.read_text().splitlines() if table.exists() else []
    folder.mkdir()
    if (source / "scan.json").exists():
        (folder / "scan.json").write_bytes((source / "scan.json").read_bytes())
    there = rows[:1]
    for number in np.random.default_rng(SEED).permutation(len(frames)):
        name = frames[number].name
        there += [row for row in rows if row.startswith(f"{name},")]
        if rows:
            (folder / "positions.csv").write_text("\n".join(there) + "\n")
        part = folder / f"{name}.part"
        part.write_bytes(frames[number].read_bytes())
        part.rename(folder / name)
        time.sleep(0.3)


def stitched(folder: Path, output: Path, **more: Any) -> Any:
    """Stitch a folder; the refusal where it is refused."""
    try:
        options = StitchFolderOptions.parse(more)
        return run(STITCH.job(folder, output, options=options))
    except SemsrError as error:
        return str(error).replace(str(folder), "")


def compare(kind: str, top: Path) -> dict[str, Any]:
    """Stitch a kind both ways."""
    source, folder = top / "source", top / "scan"
    make(kind, source)
    grid: dict[str, Any] = {"grid": (3, 4)} if kind == "grid" else {}
    offline = stitched(source, top / "offline.ome.zarr", **grid)
    count = len(list(source.glob("*.tif")))
    writer = threading.Thread(target=bring, args=(source, folder))
    writer.start()
    live = stitched(folder, top / "m.ome.zarr", follow=True, until=count, **grid)
    writer.join()
    row: dict[str, Any] = {"part": "positions", "kind": kind, "frames": count}
    if isinstance(offline, str) or isinstance(live, str):
        return {**row, "refused": offline, "is_met": offline == live}
    pairs = [(offline.corners[name], at) for name, at in live.corners.items()]
    both = [(one, other) for one, other in pairs if one and other]
    apart = max(float(np.abs(np.subtract(*pair)).max()) for pair in both)
    images = [semsr.read(made.output).array() for made in (offline, live)]
    alike = images[0].shape == images[1].shape
    alike = alike and np.array_equal(*images, equal_nan=True)
    same = all(bool(one) == bool(other) for one, other in pairs)
    met = same and alike and apart <= MAX_PX
    return {
        **row,
        "placed": len(both),
        "apart_px": apart,
        "same_pixels": alike,
        "is_met": bool(met),
    }


def main() -> int:
    """Compare the kinds, print a row each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    met = True
    for kind in given.kind or KINDS:
        with tempfile.TemporaryDirectory() as place:
            row = compare(kind, Path(place))
        print(json.dumps(row), flush=True)
        met &= row["is_met"]
        if given.rows is not None:
            with given.rows.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
