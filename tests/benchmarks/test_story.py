"""The story that `benchmarks/story.py` tells, on a scan of four small frames."""

import os
import sys

import pytest

pytest.importorskip("napari", reason="needs napari and a Qt binding")
if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("needs a display; run under xvfb-run", allow_module_level=True)

from story import CLICKS, Hand, Told, frames, six_frames, tell

from napari_semsr.core.progress import run
from napari_semsr.jobs import SIMULATE, SimulateOptions

pytestmark = pytest.mark.broad


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "scan"])
def test_story_of_frames_is_told_to_its_end(
    make_napari_viewer_proxy, tmp_path, monkeypatch, kind
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    pixel = "20" if kind == "png" else ""
    if pixel:
        scan = six_frames(tmp_path, frame_px=96)
    else:
        scan = tmp_path / "scan"
        options = SimulateOptions(phantom="particles", frames_grid=(2, 2), frame_px=96)
        run(SIMULATE.job(out_dir=scan, options=options))
    told = Told(kind)
    hand = Hand(make_napari_viewer_proxy(show=True), told)
    hand.viewer.window.resize(1200, 800)
    (tmp_path / "out").mkdir()
    frames(hand, tmp_path / "out", scan=scan, pixel=pixel, exposures=False)
    assert told.faults == []
    assert told.clicks == 12 + bool(pixel) < CLICKS
    assert (tmp_path / "out" / "story.png").stat().st_size > 0


def test_what_cannot_be_told_is_a_fault(tmp_path):
    def nothing(hand, folder):
        hand.choose("File", "no such entry")

    told = tell("nothing", nothing, tmp_path / "out")
    assert not told.passed
    assert "ValueError" in told.faults[0]
