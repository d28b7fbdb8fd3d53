"""A microscope that pymmcore-plus runs, with a camera and a stage in Python.

Runs where pymmcore-plus is installed; it needs no Micro-Manager and no download.
"""

from collections.abc import Callable

import numpy as np
import pytest

import napari_semsr
from napari_semsr.io.formats import read
from tests.stitching import scans

unicore = pytest.importorskip("pymmcore_plus.experimental.unicore")
useq = pytest.importorskip("useq")

SIDE, PIXEL_UM, STEP = 96, 0.02, 60


class Stage(unicore.XYStageDevice):
    def __init__(self):
        super().__init__()
        self.place = 0.0, 0.0

    def set_position_um(self, x: float, y: float) -> None:
        self.place = x, y

    def get_position_um(self) -> tuple[float, float]:
        return self.place

    def set_origin_x(self) -> None:
        self.place = 0.0, self.place[1]

    def set_origin_y(self) -> None:
        self.place = self.place[0], 0.0

    def home(self) -> None:
        self.place = 0.0, 0.0

    def stop(self) -> None:
        pass


class Camera(unicore.CameraDevice):
    """Sees a part of a scene, two pixels off where the stage states."""

    def __init__(self, stage):
        super().__init__()
        self.stage, self.exposure = stage, 1.0
        self.scene = (3e4 * scans.texture((260, 260), seed=3)).astype(np.uint16)

    def get_exposure(self) -> float:
        return self.exposure

    def set_exposure(self, exposure: float) -> None:
        self.exposure = exposure

    def shape(self):
        return SIDE, SIDE

    def dtype(self):
        return np.uint16

    def start_sequence(self, n: int | None, get_buffer: Callable):
        for _ in range(n or 1):
            x, y = (round(at / PIXEL_UM) for at in self.stage.place)
            y, x = y + (2 if x else 0), x - (2 if y else 0)
            buffer = get_buffer(self.shape(), self.dtype())
            buffer[:] = self.scene[y + 8 :, x + 8 :][:SIDE, :SIDE]
            yield {}


def test_frames_of_an_acquisition_become_a_mosaic(tmp_path):
    core, stage = unicore.UniMMCore(), Stage()
    core.loadPyDevice("stage", stage)
    core.loadPyDevice("camera", Camera(stage))
    core.initializeDevice("stage")
    core.initializeDevice("camera")
    core.setXYStageDevice("stage")
    core.setCameraDevice("camera")
    core.setAutoShutter(False)  # there is none
    places = [
        (c * STEP * PIXEL_UM, r * STEP * PIXEL_UM) for r in (0, 1) for c in range(3)
    ]
    sequence = useq.MDASequence(stage_positions=[{"x": x, "y": y} for x, y in places])
    output = tmp_path / "m.ome.zarr"
    with napari_semsr.LiveMosaic(output, pixel_size_nm=20) as mosaic:

        def take(image, event, _meta=None):
            mosaic.add(image, (1e3 * event.y_pos, 1e3 * event.x_pos))

        core.mda.events.frameReady.connect(take)
        core.mda.run(sequence)
        assert len(mosaic) == len(places)
    made = mosaic.finish()
    assert made.frames == len(places)
    image = read(output).array()
    assert image.shape[0] >= STEP + SIDE
    found = {row["frame"]: (row["y_px"], row["x_px"]) for row in made.positions}
    corners = np.array([found[name] for name in sorted(found)])
    moved = corners - corners[0]
    assert moved[1] == pytest.approx((2, STEP), abs=0.1)
    assert moved[3] == pytest.approx((STEP, -2), abs=0.1)
    assert moved[5] == pytest.approx((STEP + 2, 2 * STEP - 2), abs=0.1)
