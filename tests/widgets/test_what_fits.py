"""What comes next fits what came before: models, trainings and lists of them."""

import numpy as np
import pytest
from qtpy.QtWidgets import QPushButton

from napari_semsr.core import INSTRUMENT_KEY, InputRecord, OptionError, Provenance
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import micrograph_from_layer
from tests.refusals import refused
from tests.tiny_models import write_tiny_model


def made_by(*jobs, instrument=None):
    """Give the history of an image that went through some jobs, the last first."""
    made = None
    for job in reversed(jobs):
        record = InputRecord(role="image", name="before", provenance=made)
        network = {"model_name": "ssum-sem", "model_digest": "sha256:1"}
        about = network if job == "enhance" else {}
        if made is None and instrument is not None:
            about = {"options": {INSTRUMENT_KEY: instrument}}
        made = Provenance(job=job, inputs=(record,), **about)
    return made


@pytest.fixture
def add_made(model, add):
    def put(*jobs, instrument=None):
        grey = np.random.default_rng(0).random((64, 64), dtype=np.float32)
        image = Micrograph(grey, (20.0, 20.0), " of ".join(jobs))
        history = made_by(*jobs, instrument=instrument)
        return add(model, image.replace(provenance=history))

    return put


MODELS = {"optical": "ssum-sem", "sem": "sem-restore", None: None}
STEPS = [("stitch",), ("crop", "restore", "register", "stitch")]
CASES = [(jobs, kind, MODELS[kind]) for jobs in STEPS for kind in MODELS]
# what a network made of an optical image may be like either
CASES += [
    (("register", "enhance", "stitch"), "optical", None),
    (("register", "enhance", "stitch"), "sem", "sem-restore"),
]


@pytest.mark.parametrize(("jobs", "kind", "wanted"), CASES)
def test_model_is_proposed_by_what_the_files_say(
    add_made, model, hold, jobs, kind, wanted
):
    panel = hold(EnhancePanel(model))
    panel.layer.value = add_made(*jobs, instrument=kind)
    assert panel.model.value == wanted
    asks = bool(panel.model.question.text())
    assert asks == (not panel.model.answers.isHidden()) == (wanted is None)


def test_an_image_that_says_nothing_is_asked_about(add_made, model, hold):
    silent = add_made("stitch")
    known = add_made("stitch", instrument="sem")
    panel = hold(EnhancePanel(model))
    panel.layer.value = silent
    with refused(OptionError, "model-missing", match="under Model or method"):
        panel.create_request()
    panel.model.answers.findChildren(QPushButton)[1].click()
    assert panel.model.value == "ssum-sem"
    assert panel.model.answers.isHidden()
    assert micrograph_from_layer(silent).instrument == "optical"
    panel.layer.value = known  # the answer is about one image
    assert panel.model.value == "sem-restore"
    panel.layer.value = silent
    assert panel.model.value == "ssum-sem"


def test_a_model_that_lost_in_its_validation_says_so_and_comes_last(
    add_made, model, hold, tmp_path, monkeypatch
):
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path))
    for name, gain in (("a-loser", -0.14), ("winner", 0.5)):
        validation = {"validation": {"gain_db": gain}}
        write_tiny_model(tmp_path, name=name, training=validation)
    add_made("open")
    add_made("stitch")
    panel = hold(EnhancePanel(model))
    box = panel.model.box
    rows = range(box.native.count())
    shown = [box.native.itemText(row) for row in rows]
    methods = shown.index("Classical methods")
    assert shown[methods - 1] == "a-loser (\N{MINUS SIGN}0.14 dB in validation)"
    assert "winner" in shown[:methods]
    panel.model.box.value = "a-loser"
    assert "0.14 dB worse" in panel.model.text.text()
    panel.model.box.value = "winner"
    assert "lost" not in panel.model.text.text()
