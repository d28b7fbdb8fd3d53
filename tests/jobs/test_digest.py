"""Large inputs are recorded in steps, which can be cancelled."""

import os

import numpy as np

from napari_semsr.core.micrograph import Micrograph, digest_path, digest_with_progress
from napari_semsr.jobs.images import digest_values


def test_file_is_digested_in_steps(tmp_path):
    path = tmp_path / "large.bin"
    with path.open("wb") as stream:
        for _ in range(3):
            stream.write(os.urandom(1 << 10) * (40 << 10))
    steps = list(digest_with_progress(path))
    assert [(step.done, step.total) for step in steps] == [
        (32, 120),
        (64, 120),
        (96, 120),
    ]
    assert steps[0].message == "recording the input large.bin"
    job = digest_with_progress(path)
    next(job)
    job.close()
    assert digest_path(path).startswith("sha256:")


def test_layer_is_digested_in_steps():
    image = Micrograph(np.zeros((3000, 4096), np.uint8), name="wide")
    steps = list(digest_values(image))
    assert [(step.done, step.total) for step in steps] == [(1024, 3000), (2048, 3000)]
