"""Frames of a scan are kept once they are read, as long as their files stay."""

import numpy as np
import tifffile

from napari_semsr.core import ReadError, run
from napari_semsr.io import open_frames
from tests.refusals import refused


def test_a_frame_that_changed_is_read_again_and_one_that_was_written_into(
    tmp_path, rng
):
    for number in range(4):
        frame = rng.integers(1, 255, (60, 60), dtype=np.uint8)
        tifffile.imwrite(tmp_path / f"f{number}.tif", frame)
    scan = run(open_frames(tmp_path, grid=(2, 2), overlap=0.125))
    first = scan.read(0)
    first[:] = 0
    assert scan.read(0).any()
    tifffile.imwrite(tmp_path / "f0.tif", np.full((60, 60), 7, np.uint8))
    assert (scan.read(0) == 7).all()
    (tmp_path / "f0.tif").unlink()
    with refused(ReadError, "file-missing"):
        scan.read(0)
