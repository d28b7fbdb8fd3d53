"""Time of `semsr report`, for each phase of it.

Run: ``python benchmarks/report.py [IMAGE...] [--pairs]``. Without images five are
drawn, of 1024 x 1024 px. Goal: 15 s for five images. Processor time stands beside the
time by the clock, since only the first is told by a busy machine.
"""

import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from _shared import read_options
from scipy.ndimage import gaussian_filter

import napari_semsr as semsr

GOAL_S = 15.0


def draw(folder: Path, side: int, count: int) -> list[Path]:
    """Draw fields of blurred noise with grain, as 8 bits."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        field = gaussian_filter(rng.normal(size=(side, side)), 3 + number)
        field = 128 + 40 * field / field.std() + rng.normal(0, 8, field.shape)
        grey = np.clip(np.rint(field), 0, 255).astype(np.uint8)
        paths.append(folder / f"field-{number}.tif")
        semsr.write(semsr.Micrograph(grey, (5.0, 5.0)), paths[-1])
    return paths


class Clock:
    """Adds the time between steps to the phase that each names."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self._at = time.perf_counter(), time.process_time()
        self._phase = "importing"

    def __call__(self, step: semsr.Progress) -> None:
        """Take the time until this step."""
        now = time.perf_counter(), time.process_time()
        self.wall[self._phase] += now[0] - self._at[0]
        self.cpu[self._phase] += now[1] - self._at[1]
        self._at = now
        words = step.message.rpartition(": ")
        known = words[2] if words[0] else step.message.partition(" ")[0]
        if step.message == "reading":  # of a measure within
            known = self._phase
        self._phase = known if words[0] or known in PHASES else self._phase


PHASES = ("checking", "reading", "drawing", "writing")


def main() -> None:
    """Print the time of each phase."""
    asked = read_options(
        __doc__, "images* --rounds=3", side=(1024, "of drawn images, px")
    )
    with tempfile.TemporaryDirectory() as folder:
        images = asked.images or draw(Path(folder), asked.side, 5)
        runs = []
        for _ in range(asked.rounds):
            clock, start = Clock(), (time.perf_counter(), time.process_time())
            page = Path(folder) / "report.html"
            semsr.report(images, page, overwrite=True, progress=clock)
            clock(semsr.Progress(0, 0, "checking"))
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            runs.append((spent, clock))
            print(f"{spent[0]:.2f} s, {spent[1]:.2f} s of the processor", flush=True)
        (wall, cpu), best = min(runs, key=lambda run: run[0])
        for phase in sorted(best.wall, key=lambda name: -best.wall[name]):
            if best.wall[phase] > 0.01:
                print(
                    f"  {phase:28} {best.wall[phase]:6.2f} s {best.cpu[phase]:6.2f} s"
                )
        size = page.stat().st_size / 1e6
        verdict = "reached" if wall <= GOAL_S else "missed"
        print(
            f"{len(images)} images: {wall:.2f} s, {cpu:.2f} s of the processor; goal "
            f"{GOAL_S:.0f} s {verdict}; page {size:.1f} MB"
        )


if __name__ == "__main__":
    main()
