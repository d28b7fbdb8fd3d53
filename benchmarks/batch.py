"""A batch that is killed in the middle, one on workers, and one that nothing stopped.

A folder of drawn samples, each other than the rest, goes through restoration, a network
and two measures by `semsr batch`: without a stop; killed in the middle by SIGKILL as
many times as asked, and run again; and on workers. The tables must be the same, byte
for byte.

    python benchmarks/batch.py
    python benchmarks/batch.py --images 12 --side 96 --kills 3 --workers 3
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _shared import read_options

import napari_semsr as semsr
from napari_semsr.jobs import simulate_specimen

SEMSR = [sys.executable, "-m", "napari_semsr"]
STEPS = """
inputs: scans
output: made
steps:
  - frc
  - restore: {method: wiener, psf: 1px}
  - enhance: {model: sem-restore, device: cpu}
  - name: after
    frc:
  - metrics: {reference: "{input}"}
"""


def draw(folder: Path, images: int, side: int) -> None:
    """Draw samples with their noise."""
    folder.mkdir()
    for number in range(images):
        specimen = simulate_specimen((side, side), seed=number)
        noise = np.random.default_rng(number).normal(0, 9, (side, side))
        grey = np.clip(specimen.array() + noise, 0, 255).astype(np.uint8)
        image = semsr.Micrograph(grey, (10, 10), f"scan-{number:03d}")
        semsr.write(image, folder / f"scan-{number:03d}.tif")


def command(steps: Path, output: Path, *more: str) -> list[str]:
    """Give the command of a batch."""
    return [*SEMSR, "batch", str(steps), "-o", str(output), "--json", "--quiet", *more]


def whole(steps: Path, output: Path, *more: str) -> tuple[dict, float]:
    """Run a batch to its end, and give its record and its seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        command(steps, output, *more), check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout), time.perf_counter() - begun


def killed(steps: Path, output: Path, images: int) -> int:
    """Run a batch, kill it once so many images have begun, and say how many had."""
    state = output / ".batch"
    with subprocess.Popen(command(steps, output), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(state.glob("*.json"))) < images:
            time.sleep(0.01)
        process.kill()
    return len(list(state.glob("*.json")))


def main() -> None:
    """Draw, run, compare, and print."""
    asked = read_options(__doc__, "--images=100 --side=256 --kills=1 --workers=2")
    with tempfile.TemporaryDirectory(prefix="semsr-batch-") as scratch:
        here = Path(scratch)
        draw(here / "scans", asked.images, asked.side)
        steps = here / "steps.yaml"
        steps.write_text(STEPS, encoding="utf-8")
        found, seconds = whole(steps, here / "whole")
        table = (here / "whole" / "table.csv").read_bytes()
        print(
            f"| run | seconds | steps run | kept | done | same table |\n|{'---|' * 6}"
        )

        def tell(name: str, output: str, record: dict, seconds: float) -> None:
            same = (here / output / "table.csv").read_bytes() == table
            told = (record["ran"], record["kept"], record["done"])
            said = " | ".join(map(str, (name, f"{seconds:.1f}", *told)))
            print(f"| {said} | {'yes' if same else 'NO'} |", flush=True)

        tell("without a stop", "whole", found, seconds)
        tell("again", "whole", *whole(steps, here / "whole"))
        at = 0
        for number in range(asked.kills):
            share = (number + 1) / (asked.kills + 1)
            at = killed(steps, here / "killed", round(share * asked.images))
        name = f"after a kill at image {at}"
        tell(name, "killed", *whole(steps, here / "killed"))
        workers = ("--workers", str(asked.workers))
        name = f"{asked.workers} workers"
        tell(name, "workers", *whole(steps, here / "workers", *workers))


if __name__ == "__main__":
    main()
