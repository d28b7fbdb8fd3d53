"""Kill a process that follows a scan at ten random moments; resume; compare pixels.

    python benchmarks/followed_kills.py --rows benchmarks/rows/live.jsonl

A simulated scan of particles, 4 x 4 frames of 96 px, is followed by the command. The
first run is timed; SIGKILL comes to the others at moments drawn evenly over that time
with seed 5, late ones too, within the final solution. `--resume` then goes on. The
final pixels must be those of the command without `--follow`. Exit code 1 means that
one differs.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import napari_semsr as semsr
from napari_semsr.io import is_live_mosaic

KILLS, SEED, FRAMES = 10, 5, 16


def follow(scan: Path, output: Path, limit_s: float | None, *more: str) -> float:
    """Follow a scan, killed after some time if it takes longer; time it."""
    words = [sys.executable, "-m", "napari_semsr", "stitch", str(scan), "--follow"]
    words += ["--until", str(FRAMES), "-o", str(output), *more]
    begun = time.perf_counter()
    with contextlib.suppress(subprocess.TimeoutExpired):  # which kills by SIGKILL
        subprocess.run(words, capture_output=True, timeout=limit_s, check=True)
    return time.perf_counter() - begun


def main() -> int:
    """Kill and resume, print a row, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    shares = np.sort(np.random.default_rng(SEED).random(KILLS)).tolist()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        scan = top / "scan"
        semsr.simulate(
            scan, phantom="particles", frames_grid=(4, 4), frame_px=96, overlap=0.4,
            jitter_px=3, seed=SEED,
        )  # fmt: skip
        wanted = semsr.read(semsr.stitch(scan, top / "m.ome.zarr").output).array()
        whole_s = follow(scan, top / "whole.ome.zarr", None)
        rows = []
        for number, share in enumerate(shares):
            output = top / f"{number}.ome.zarr"
            follow(scan, output, share * whole_s)
            left = "nothing" if not output.exists() else "whole"
            left = "growing" if is_live_mosaic(output) else left
            follow(scan, output, None, *(() if left == "nothing" else ("--resume",)))
            found = semsr.read(output).array()
            same = np.array_equal(found, wanted, equal_nan=True)
            rows.append({"at": round(share, 2), "left": left, "equal": same})
            print(rows[-1], flush=True)
    row = {"part": "kills", "whole_s": whole_s, "kills": rows}
    if given.rows is not None:
        with given.rows.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    return 0 if all(one["equal"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
