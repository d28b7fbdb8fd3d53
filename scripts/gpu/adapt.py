"""Train on the demonstration's place: seconds to the gain that a processor reached.

``gpu_kit.sh prepare`` runs the demonstration, keeps light and SEM of its place, and
what the processor gains there in 960 steps of ``semsr adapt``. With ``--dry`` it
is a place that is drawn here.
"""

import json
import sys
import time
from typing import Any

import numpy as np
from _networks import field
from gpu.kit import PLACE, Report, device_of, read_call, rounded
from scipy import ndimage

from napari_semsr.training import AreaImages, AreaProgress, fit_area

IMAGES, FIGURES = "place.npz", "cpu.json"
LONGEST_S = 40.0
HELD_OUT = 0.2  # of the columns


def drawn_place() -> AreaImages:
    """Draw a place."""
    truth = field((128, 128)).astype(np.float32)
    return with_part_held_out(ndimage.gaussian_filter(truth, 1.0), truth)


def with_part_held_out(low: Any, high: Any) -> AreaImages:
    """Hold the last columns out."""
    held_out = np.zeros(low.shape, bool)
    held_out[:, round((1 - HELD_OUT) * low.shape[1]) :] = True
    return AreaImages(low, high, held_out)


def train(
    place: AreaImages, device: str, seconds: float | None, steps: int | None = None
) -> list[dict[str, Any]]:
    """Train as ``semsr adapt`` does; give each evaluation with its steps and time."""
    began, rows = time.perf_counter(), []
    limits: dict[str, Any] = {"seconds": seconds, "steps": steps}
    for report in fit_area([place], device=device, report_every_s=1.0, **limits):
        if isinstance(report, AreaProgress) and report.gain_db is not None:
            spent = rounded(time.perf_counter() - began)
            gain = rounded(report.gain_db)
            rows.append({"steps": report.steps, "seconds": spent, "gain_db": gain})
    return rows


def main() -> int:
    """Write how long it took."""
    given = read_call(__doc__)
    report = Report(given, "adapt")
    with report.trying("adapt"):
        place, wanted = drawn_place(), {"gain_db": -99.0}
        seconds, steps = 2.0, 4
        if not given.dry and (PLACE / FIGURES).exists():
            stored = np.load(PLACE / IMAGES)
            place = with_part_held_out(stored["low"], stored["high"])
            wanted = json.loads((PLACE / FIGURES).read_text())
            seconds, steps = LONGEST_S, None
        rows = train(place, str(device_of(given)), seconds, steps)
        reached = [r["seconds"] for r in rows if r["gain_db"] >= wanted["gain_db"]]
        found = {"cpu": wanted, "seconds_to_cpu_gain": min(reached, default=None)}
        report.add("place", found | {"rows": rows})
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
