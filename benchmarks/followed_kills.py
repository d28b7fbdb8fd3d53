"""Kill a process that follows a scan at ten random moments; resume; compare pixels.

    python benchmarks/followed_kills.py --rows benchmarks/rows/live.jsonl

A simulated scan of particles, 4 x 4 frames of 96 px, is followed by the command, its
frames being there one after another, one each 0.3 s. SIGKILL comes after a random
number of frames, drawn evenly over the scan with seed 5, and a random part of a
second. `--resume` then has all frames. The final pixels must be those of the command
without `--follow`. Exit code 1 means that one differs.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import napari_semsr as semsr

KILLS, SEED, FRAMES, WAIT_S = 10, 5, 16, 0.3


def command(folder: Path, output: Path, *more: str) -> list[str]:
    """Give the command line that stitches a folder."""
    words = [sys.executable, "-m", "napari_semsr", "stitch", str(folder)]
    return [*words, "-o", str(output), *more]


def kill_after(scan: Path, place: Path, frames: int, wait_s: float) -> int:
    """Follow a scan that is copied, kill after some frames; count those taken."""
    folder, output = place / "scan", place / "m.ome.zarr"
    folder.mkdir()
    shutil.copy(scan / "positions.csv", folder)
    words = command(folder, output, "--follow", "--until", str(FRAMES))
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    taken = 0
    with subprocess.Popen(words, **how) as process:
        for name in sorted(scan.glob("frame_*.tif")):
            shutil.copy(name, folder)
        for line in process.stderr:
            seen = re.search(r"(\d+) frames taken", line)
            if seen and int(seen[1]) >= frames:
                taken = int(seen[1])
                break
        time.sleep(wait_s)
        process.kill()
    return taken


def main() -> int:
    """Kill and resume, print a row, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(SEED)
    moments = np.sort(rng.integers(1, FRAMES, KILLS)).tolist()
    moments[-1] = FRAMES  # within the final solution
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        scan = top / "scan"
        semsr.simulate(
            scan, phantom="particles", frames_grid=(4, 4), frame_px=96, overlap=0.4,
            jitter_px=3, seed=SEED,
        )  # fmt: skip
        wanted = semsr.read(semsr.stitch(scan, top / "m.ome.zarr").output).array()
        equal, killed = [], []
        for number, frames in enumerate(moments):
            place = top / f"{number}"
            place.mkdir()
            wait_s = float(rng.uniform(0, WAIT_S))
            killed.append(kill_after(scan, place, frames, wait_s))
            output = place / "m.ome.zarr"
            more = "--resume", "--follow", "--until", str(FRAMES)
            again = command(place / "scan", output, *more)
            done = subprocess.run(again, capture_output=True, text=True, check=False)
            same = done.returncode == 0 and np.array_equal(
                semsr.read(output).array(), wanted, equal_nan=True
            )
            equal.append(bool(same))
            print(killed[-1], same, flush=True)
    row = {"part": "kills", "killed_after": killed, "equal": equal}
    print(json.dumps(row))
    if given.rows is not None:
        with given.rows.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
