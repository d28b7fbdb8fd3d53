"""Files that former commits made open, and are made again from their histories.

``tests/corpus`` is made by ``scripts/freeze_corpus.py``, once for each commit to
be read for ever. A job that has left the package has a line in `LEFT`, here and in
`napari_semsr.jobs.replay`; what else may not be as it was is in the tables below it.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.cli import main
from napari_semsr.core import ReadError, RegistrationError, run
from napari_semsr.io import (
    count_planes,
    open_frames,
    open_project,
    read,
    read_calibration,
)
from napari_semsr.io.transforms import read_transform
from napari_semsr.jobs import REPLAY
from napari_semsr.jobs.index import LAST_COMMIT
from napari_semsr.models import load_model
from napari_semsr.pairing import open_pairs
from tests.refusals import refused

# jobs, and the last commit that had each
LEFT = {"trust": "b537c11d", "histogram": "f50b9466"}
LEFT |= dict.fromkeys(("noise", "particles", "repeatability"), LAST_COMMIT)
CHANGED = {
    "021ca8eb": {
        "stitch": "how shading, places and chance are judged (f50b9466 has all of it)",
        "gaps": "which particles the border cuts, and how each is outlined",
        "profile": "the standard deviation of a distance",
        "decorrelation": "the interval, which covers the scatter of the estimate",
        "enhance-frozen.tif": "how much around its parts a sample sees (c9e0db5f)",
        "enhance-sem.tif": "the weights of sem-restore, which were trained on",
        "restore": "errors due to the border count as noise",
        "blend": "as above: of its restored image",
    },
    "77bd7f5d": {"restore": "errors due to the border count as noise"},
    "f50b9466": {
        "stitch-height.tif": "the centre of a flat field, which had a peak",
        "stitch-height.height.ome.zarr": "as above: the sharpest frame",
        "profile": "a width whose interval is wider than itself is not stated",
    },
}
"""Jobs, or files, that a later commit changed on purpose, by the corpus's commit."""

ALL = Path(__file__).parents[1] / "corpus"
CORPUS = ALL / "021ca8eb"  # the only one of every kind
MADE = CORPUS / "made"
OUTPUTS = sorted(
    path
    for pattern in (
        *("made/*.tif", "made/*.png", "made/*.ome.zarr", "batch/**/*.tif"),
        "adapted/mosaic-enhanced.ome.zarr",
        *("scan/frame_001.tif", "scan/truth/*.tif", "series/z_001/frame_000.tif"),
    )
    for path in ALL.glob(f"*/{pattern}")
)
NUMBERS = sorted(ALL.glob("*/numbers/*.json"))
pytestmark = pytest.mark.skipif(not ALL.exists(), reason="not in the source archive")
QUICK = {
    "srcnn.safetensors",
    "crop-like.tif",
    "restore-wiener.tif",
    "trust.tif",
    "noise.json",
    "repeatability.json",
    "repeatability.tif",
}


def cases(paths):
    """Name each case by its file; all but a few are broad."""
    return [
        pytest.param(
            path,
            id=path.relative_to(ALL).as_posix(),
            marks=() if path.name in QUICK else pytest.mark.broad,
        )
        for path in paths
    ]


def changed_since(path):
    """Give the jobs that were changed on purpose since an output was made."""
    return CHANGED.get(path.relative_to(ALL).parts[0], {})


def grey(path):
    """Read an image, the first plane of a stack."""
    plane = 0 if path.is_file() and count_planes(path) > 1 else None
    return read(path, plane=plane, colour="luminance")


def assert_replayed(path, report):
    """Compare what was made again to what is stored, as processors round.

    Whole numbers may be off by one, others by a thousandth of the image's range; an
    iteration that ends otherwise may leave some pixels that differ by more. A model may
    have another digest, as its card may have other words.
    """
    if report.identical:
        return
    said = [item.said for item in report.differs if item.what != "version"]
    assert {item.what for item in report.differs} <= {"pixels", "model", "version"}
    image = grey(path).array()
    whole = np.issubdtype(image.dtype, np.integer)
    allowed = 1 if whole else 1e-3 * float(np.ptp(image[np.isfinite(image)]))
    assert report.max_abs_difference is not None, said
    assert report.max_abs_difference <= allowed, said


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", cases(OUTPUTS))
def test_history_of_a_former_commit_is_replayed_or_refused_by_name(path):
    image = grey(path)
    assert image.provenance is not None
    job = image.provenance.job
    if job in LEFT:
        values = f"'{job}'.* {path.name}, .* {LEFT[job]}"
        with refused(ReadError, "former-name", match=values):
            run(REPLAY.job(path))
        return
    try:
        report = run(REPLAY.job(path))
    except RegistrationError:  # of a scan that is no more believed
        assert job in changed_since(path)
        return
    if {job, path.name} & changed_since(path).keys():
        differing = {item.what for item in report.differs}
        assert {"pixels", "model", "version"} >= differing
        assert report.identical or report.max_abs_difference is not None
        return
    assert_replayed(path, report)


def assert_told(then, now, where=""):
    """Compare what a command printed with what it prints: all keys, about the values.

    Places on this machine, which are texts, are not compared.
    """
    if isinstance(then, dict):
        assert then.keys() <= now.keys(), where
        for key in then:
            assert_told(then[key], now[key], f"{where}.{key}")
    elif isinstance(then, list):
        assert len(then) == len(now), where
        for at, (one, other) in enumerate(zip(then, now, strict=True)):
            assert_told(one, other, f"{where}[{at}]")
    elif isinstance(then, bool) or not isinstance(then, int | float):
        assert isinstance(then, str) or then == now, where
    else:
        near = math.isclose(then, now, rel_tol=1e-3, abs_tol=1e-6)
        assert near, f"{where}: {then}, now {now}"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", cases(NUMBERS))
def test_numbers_of_a_former_commit_are_printed_again(path, tmp_path, capsys):
    frozen = json.loads(path.read_text())
    verb, *words = frozen["command"].split()
    places = ("raw/", "made/", "models/")
    place = path.parents[1]
    words = [str(place / word) if word.startswith(places) else word for word in words]
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    status = main([verb, *words, "--json", "--quiet"])
    printed = capsys.readouterr()
    if verb in LEFT:
        assert status == 2
        assert verb in printed.err
        return
    then, now = frozen["printed"], json.loads(printed.out)
    if verb in changed_since(path):
        assert then.keys() <= now.keys()
    else:
        assert_told(then, now)


@pytest.mark.parametrize("path", cases(sorted(CORPUS.glob("models/*"))))
def test_models_open_and_run(path):
    import torch

    model = load_model(path)
    size = max(model.card.stride, 32)
    with torch.inference_mode():
        made = model.module(torch.rand(1, 1, size, size))
    assert torch.isfinite(made).all()


def test_pairs_tables_transforms_and_calibrations_open():
    pairs = open_pairs(MADE / "pairs.zarr")
    assert sum(pairs.counts.values()) > 0
    low, high = pairs.get_arrays("train")
    assert np.asarray(low[0]).shape == np.asarray(high[0]).shape == (16, 16)
    frames = run(open_frames(CORPUS / "scan", positions=MADE / "stitch.csv"))
    assert len(frames) == 4
    assert read_transform(MADE / "register.json") is not None
    (size, _), _, _ = read_calibration(MADE / "of-calibrate.json")
    assert size == pytest.approx(10, rel=0.05)
    (trained,) = (CORPUS / "run").glob("*.safetensors")
    assert load_model(trained).card.name == "trained"


@pytest.mark.parametrize("commit", ["021ca8eb", "77bd7f5d"])
def test_project_opens_whole(commit):
    opened = run(open_project(ALL / commit / "all.semsr"))
    assert (opened.missing, opened.messages) == ((), ())
    assert len(opened.layers) == len(opened.project.layers) >= 4
    kinds = {layer.kind for layer, _ in opened.layers}
    assert kinds == {"image", "labels", "points", "shapes"}
    for layer, (data, _, _) in opened.layers:
        assert data is not None, layer.name
