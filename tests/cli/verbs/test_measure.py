import numpy as np
import pytest
import tifffile


def _saved(path, image):
    tifffile.imwrite(path, image.astype(np.float32))
    return path


@pytest.fixture
def across(rng):
    """Two lines of 6 px, 14 px apart, on noise; 120 px wide."""
    x = np.arange(120.0)
    lines = sum(np.exp(-4 * np.log(2) * ((x - at) / 6) ** 2) for at in (50, 64))
    return np.tile(10 + 100 * lines, (40, 1)) + rng.normal(0, 1, (40, 120))


def _rows(said):
    assert (said.code, said.err.count("Traceback")) == (0, 0)
    split = (line.split("  ", 1) for line in said.out.splitlines() if line.strip())
    return {cells[0].strip(): cells[-1].strip() for cells in split}


@pytest.mark.parametrize("nm", [None, 5])
def test_profile_says_lines_and_their_distance(semsr, tmp_path, across, nm):
    path = _saved(tmp_path / "lines.tif", across)
    size = () if nm is None else ("--pixel-size-nm", nm)
    said = semsr("profile", path, "--line", "20,10,20,110", "--width", 9, *size)
    distance, unit, *_ = _rows(said)["Distance, median"].split(" ")
    assert float(distance) == pytest.approx(14 * (nm or 1), rel=0.03)
    assert unit == ("px" if nm is None else "nm")
    assert said.out.count("resolved") == 2
