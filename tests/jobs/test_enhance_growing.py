"""Blocks of a mosaic that grows are enhanced while its scan rests."""

import time
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from napari_semsr.core import Box, Micrograph, OptionError, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.io import GrowingMosaic
from napari_semsr.jobs import GrowingEnhancement
from napari_semsr.models import load_model
from tests.children import LIMIT_S
from tests.refusals import refused
from tests.tiny_models import write_tiny_model

CHUNK, SIZE = 64, 10.0
TOLERANCE = 0.002  # of the range: the halo leaves out 0.001 of it
WHOLE = Box(-CHUNK, 3 * CHUNK, -CHUNK, 3 * CHUNK)


class Display:
    """Remembers what it is shown."""

    def __init__(self):
        self.doubts, self.boxes = [], []
        self.enhanced = None

    def show_block(self, mosaic, box):
        assert mosaic.box.intersection(box) == box

    def show_warning(self, sentence):
        self.doubts.append(sentence)

    def show_enhanced(self, mosaic, box):
        self.enhanced = mosaic
        self.boxes.append(box)


@pytest.fixture
def display():
    shown = Display()
    yield shown
    shown.enhanced = None  # pytest keeps what fixtures give, and a store has a lock


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    rough = rng.random((16, 16)).repeat(16, 0).repeat(16, 1)
    return (rough + 0.1 * rng.random(rough.shape)).astype(np.float32)


@pytest.fixture
def grow(tmp_path, scene):
    about = Micrograph(np.zeros((1, 1), np.float32), SIZE, "m")
    made = [GrowingMosaic.create(tmp_path / "m.ome.zarr", about, CHUNK)]

    def write(growing, box, values=None):
        part = scene[box.relative_to(WHOLE).slices] if values is None else values
        made[0].write(box, part)
        growing.show_block(made[0], box)
        return made[0]

    yield write
    made.clear()


def rest_until(growing, display, count):
    """Let blocks be enhanced until so many were."""
    end = time.monotonic() + LIMIT_S
    while len(display.boxes) < count:
        assert time.monotonic() < end
        assert not display.doubts
        growing.allow_enhancement(0.02)


@pytest.mark.parametrize("scale", [1, 2])
def test_blocks_are_those_of_enhancing_the_whole(tmp_path, display, scene, grow, scale):
    options = {"width": 4, "fine_blocks": 1, "dilations": [1], "scale": scale}
    path = write_tiny_model(tmp_path, scale=scale, options=options)
    place = tmp_path / "e.ome.zarr"
    with GrowingEnhancement(path, place, display, display.show_enhanced) as growing:
        growing.set_view(WHOLE)
        mosaic = grow(growing, Box(0, 128, 0, 192))
        mosaic = grow(growing, WHOLE)  # which begins before the mosaic's own zero
        rest_until(growing, display, 16)
    whole = Micrograph(np.asarray(mosaic.level0), SIZE, "whole")
    expected = run(
        enhance_in_memory(whole, load_model(path), EnhanceOptions(precision="fp32"))
    )
    enhanced = display.enhanced
    assert enhanced.box == WHOLE.scale(scale)
    span = np.ptp(expected.array())
    np.testing.assert_allclose(
        np.asarray(enhanced.level0), expected.array(), atol=TOLERANCE * span
    )
    assert enhanced.store.record.pixel_size_nm == expected.pixel_size_nm
    assert enhanced.start_position == expected.origin  # from the first pixel of either


def test_blocks_whose_pixels_moved_are_enhanced_again(tmp_path, display, scene, grow):
    path, place = write_tiny_model(tmp_path), tmp_path / "e.ome.zarr"
    with GrowingEnhancement(path, place, display, display.show_enhanced) as growing:
        growing.set_view(WHOLE)
        grow(growing, Box(0, 192, 0, 192))
        rest_until(growing, display, 9)
        before = display.enhanced.read(Box(0, 192, 0, 192))
        moved = Box(70, 90, 70, 90)  # its block, and those that the network sees it in
        grow(growing, moved, scene[:20, :20])
        rest_until(growing, display, 13)
        growing.allow_enhancement(1.5)  # in which no further one comes
        after = display.enhanced.read(Box(0, 192, 0, 192))
    assert {box.corner for box in display.boxes[9:]} == {
        (0, 0), (0, 64), (64, 0), (64, 64),
    }  # fmt: skip
    changed = np.argwhere(after != before)
    assert changed.min() >= 70 - 24
    assert changed.max() < 90 + 24


def test_only_what_is_in_view_is_enhanced_and_nothing_without_a_rest(
    tmp_path, display, grow
):
    path, place = write_tiny_model(tmp_path), tmp_path / "e.ome.zarr"
    with GrowingEnhancement(path, place, display, display.show_enhanced) as growing:
        grow(growing, Box(0, 192, 0, 192))
        growing.set_view(Box(70, 80, 130, 140))
        time.sleep(1.5)
        assert not display.boxes
        rest_until(growing, display, 1)
        growing.allow_enhancement(1.5)
    assert [box.corner for box in display.boxes] == [(64, 128)]
    assert np.isnan(display.enhanced.read(Box(0, 64, 0, 64))).all()


def test_blocks_are_enhanced_with_the_grey_values_of_the_mosaic_so_far(
    tmp_path, display, scene, grow
):
    path, place = write_tiny_model(tmp_path), tmp_path / "e.ome.zarr"
    first = Box(0, 64, 0, 64)
    with GrowingEnhancement(path, place, display, display.show_enhanced) as growing:
        growing.set_view(WHOLE)
        grow(growing, first)
        rest_until(growing, display, 1)
        before = display.enhanced.read(first)
        grow(growing, Box(0, 192, 64, 192), 10 * scene[:192, :128])
        rest_until(growing, display, 8)
        growing.allow_enhancement(1.5)
        after = display.enhanced.read(first)
    assert np.abs(after - before).max() > 0.01 * np.ptp(before)


def test_a_network_that_needs_the_whole_field_is_refused(
    tmp_path, display, monkeypatch
):
    path = write_tiny_model(tmp_path)
    loaded = load_model(path)
    norm = replace(
        loaded,
        module=nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.InstanceNorm2d(1)),
    )
    monkeypatch.setattr("napari_semsr.models.load_model", lambda _: norm)
    with refused(OptionError, "receptive-field-unbounded", match=loaded.card.name):
        GrowingEnhancement(path, tmp_path / "e.ome.zarr", display, print)
