"""A scan that runs: written frame by frame, as an instrument does."""

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core.progress import run
from napari_semsr.io.formats import read
from napari_semsr.jobs import SIMULATE, SimulateOptions

SCAN = {"phantom": "particles", "frames_grid": (2, 5), "frame_px": 48, "seed": 3}


def live(folder, **options):
    chosen = SimulateOptions.parse({**SCAN, "live": 1e-6, **options})
    return SIMULATE.job(out_dir=folder, options=chosen)


def test_it_ends_as_the_scan_that_is_written_at_once(tmp_path):
    run(live(tmp_path / "live"))
    napari_semsr.simulate(tmp_path / "whole", **SCAN)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "live").iterdir()} == names
    for name in names - {"truth"}:
        if name.endswith(".tif"):
            images = (read(tmp_path / at / name).array() for at in ("live", "whole"))
            assert np.array_equal(*images)
        else:
            live_text = (tmp_path / "live" / name).read_bytes()
            assert live_text == (tmp_path / "whole" / name).read_bytes()


def test_faults_are_those_that_are_told(tmp_path):
    sizes, seen = {}, []

    def look(_step):
        for path in sorted((tmp_path / "live").glob("frame_*.tif")):
            state = path.stat().st_size
            if sizes.get(path.name) != state:
                sizes[path.name] = state
                seen.append(path.name)

    made = run(live(tmp_path / "live", live_faults=True), look)
    kinds = {kind: name for name, kind in made.bad_frames.items()}
    assert kinds.keys() == {"blank", "lost"}
    assert not (tmp_path / "live" / f"{kinds['lost']}.tif").exists()
    assert read(tmp_path / "live" / f"{kinds['blank']}.tif").array().std() < 20
    first = list(dict.fromkeys(seen))
    assert first != sorted(first)
    assert max(seen.count(name) for name in first) >= 3


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
