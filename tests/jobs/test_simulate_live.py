"""A scan that runs: written frame by frame, as an instrument does."""

import json

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core.progress import run
from napari_semsr.io.formats import read
from napari_semsr.jobs.simulate import SIMULATE, SimulateOptions

SCAN = {"phantom": "particles", "frames_grid": (2, 5), "frame_px": 48, "seed": 3}


def live(folder, **options):
    chosen = SimulateOptions.parse({**SCAN, "live": 1e-6, **options})
    return SIMULATE.job(out_dir=folder, options=chosen)


def test_it_ends_as_the_scan_that_is_written_at_once(tmp_path):
    run(live(tmp_path / "live"))
    napari_semsr.simulate(tmp_path / "whole", **SCAN)
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "live").iterdir()} == files
    for name in files - {"truth"}:
        if name.endswith(".tif"):
            one, other = (read(tmp_path / at / name) for at in ("live", "whole"))
            assert np.array_equal(one.array(), other.array())
        else:
            assert (tmp_path / "live" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()


def test_faults_are_those_that_are_told(tmp_path):
    order, sizes = [], {}
    job = live(tmp_path / "live", live_faults=True)
    while True:
        try:
            next(job)
        except StopIteration as end:
            made = end.value
            break
        for path in sorted((tmp_path / "live").glob("frame_*.tif")):
            state = path.stat().st_size
            if sizes.get(path.name) != state:
                sizes[path.name] = state
                order.append(path.name)
    kinds = sorted(made.bad_frames.values())
    assert kinds == ["blank", "lost"]
    (lost,) = (name for name, kind in made.bad_frames.items() if kind == "lost")
    (black,) = (name for name, kind in made.bad_frames.items() if kind == "blank")
    assert not (tmp_path / "live" / f"{lost}.tif").exists()
    assert read(tmp_path / "live" / f"{black}.tif").array().std() < 20
    first = list(dict.fromkeys(order))
    assert first != sorted(first)
    assert max(order.count(name) for name in first) >= 3
    said = json.loads((tmp_path / "live" / "truth" / "microscope.json").read_text())
    assert said["bad_frames"] == made.bad_frames


def test_light_falls_steadily(tmp_path):
    how = SCAN | {"light_fall": 0.5, "photons": 1e6, "jitter_px": 0}
    napari_semsr.simulate(tmp_path / "a", **SCAN | {"photons": 1e6, "jitter_px": 0})
    napari_semsr.simulate(tmp_path / "b", **how)
    dark = 100
    for number, share in ((0, 1.0), (9, 0.5)):
        name = f"frame_{number:03d}.tif"
        one, other = (read(tmp_path / at / name).array() - 0.0 for at in "ab")
        lit = one > 2 * dark
        found = np.median((other[lit] - dark) / (one[lit] - dark))
        assert found == pytest.approx(share, rel=0.05)


def test_focus_drifts_from_where_it_was(tmp_path):
    napari_semsr.simulate(tmp_path / "a", **SCAN)
    napari_semsr.simulate(tmp_path / "b", **SCAN, focus_drift_nm=400)
    off = []
    for number in range(10):
        name = f"frame_{number:03d}.tif"
        one, other = (read(tmp_path / at / name).array() - 0.0 for at in "ab")
        off.append(np.abs(one - other).mean())
    assert off[0] < off[3] < off[9]
