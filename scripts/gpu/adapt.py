"""Fine-tune on the demonstration's place: seconds to the gain that a CPU reached.

``gpu_kit.sh prepare`` runs the demonstration, keeps its pairs, and what the processor
reached with them. With ``--dry`` it is a place that is drawn here.
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _networks import field
from gpu.kit import PLACE, Report, read_call, rounded
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import Micrograph
from napari_semsr.training import load_recipe, train

RECIPE = Path(semsr.__file__).parent / "recipes" / "fine-tune.yaml"
PAIRS, FIGURES = "pairs.zarr", "cpu.json"


def drawn_place(folder: Path) -> None:
    """Draw a place, and say that any gain is the processor's."""
    truth = field((96, 96)).astype(np.float32)
    seen = ndimage.gaussian_filter(truth, 1.0)
    told = {"patch": 32, "step": 16, "validation": 0.2, "test": 0.0}
    low, high = (Micrograph(image, (20.0, 20.0)) for image in (seen, truth))
    semsr.pairs(low, high, folder / PAIRS, **told)
    figures = {"model": "ssum-sem", "steps": 2, "gain_db": -99.0, "seconds": None}
    (folder / FIGURES).write_text(json.dumps(figures))


def last_row(folder: Path) -> dict[str, float]:
    """Read the last validation of a run."""
    path = folder / "curve.csv"
    if not path.exists():
        return {}
    rows = [*csv.DictReader(path.read_text().splitlines())]
    return {name: float(value) for name, value in rows[-1].items() if value}


def adapt(place: Path, wanted: dict[str, Any], *, dry: bool) -> dict[str, Any]:
    """Train as the demonstration does, and note each validation with its time."""
    recipe = load_recipe(RECIPE).with_steps(wanted["steps"])
    data = recipe.data.replace(pairs=str(place / PAIRS))
    small = {"patch_px": 32} if dry else {}
    recipe = recipe.replace(
        data=data.replace(**small),
        start_from=wanted["model"],
        validate_every=2 if dry else 10,
        early_stop=None,
        workers=0,
    )
    found: dict[str, Any] = {"cpu": wanted, "seconds_to_cpu_gain": None, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        began, seen = time.perf_counter(), 0.0
        for _ in train(recipe, run_dir):
            row = last_row(run_dir)
            if row.get("step", 0.0) <= seen:
                continue
            seen, spent = row["step"], rounded(time.perf_counter() - began)
            told = {"step": seen, "seconds": spent, "gain_db": row.get("gain_db")}
            found["rows"].append(told)
            reached = row.get("gain_db", -np.inf) >= wanted["gain_db"]
            if reached and found["seconds_to_cpu_gain"] is None:
                found["seconds_to_cpu_gain"] = spent
        found["seconds_in_all"] = rounded(time.perf_counter() - began)
    return found


def main() -> int:
    """Write how long it took."""
    given = read_call(__doc__)
    report = Report(given, "adapt")
    with report.trying("adapt"), tempfile.TemporaryDirectory() as folder:
        place = PLACE
        if given.dry or not (place / FIGURES).exists():
            place = Path(folder)
            drawn_place(place)
        wanted = json.loads((place / FIGURES).read_text())
        report.add("place", adapt(place, wanted, dry=place != PLACE))
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
