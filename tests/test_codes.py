"""Refusals and warnings have codes that name their cause."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from docs.generate_reference import codes_page

from napari_semsr.analysis import CalibrateOptions, ProfileOptions
from napari_semsr.core import (
    Message,
    OptionError,
    SemsrError,
    capture_warnings,
    get_error_code,
    run,
)
from napari_semsr.core.intensity import mask_fill_values
from napari_semsr.io.files import (
    check_target,
    convert_decoding_errors,
    read_json_object,
)
from napari_semsr.io.formats import read
from napari_semsr.io.frames import open_frames
from napari_semsr.io.read_image import RawImage
from napari_semsr.jobs.degrade import DegradeOptions
from napari_semsr.registration import Landmarks, fit_landmarks
from napari_semsr.restoration import RestoreOptions
from napari_semsr.simulation.gold import GoldOptions
from tests.refusals import refused


def _write(path, content=b"x"):
    path.write_bytes(content)
    return path


def _decode(path, error):
    with convert_decoding_errors(path, "TIFF"):
        raise error


_PAIRS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
_REFUSALS = {
    "no-image": read,
    "content-invalid": lambda folder: read_json_object(_write(folder / "a.json")),
    "no-permission": lambda folder: _decode(folder, PermissionError(13, "no")),
    "format-unsupported": lambda folder: _decode(folder, NotImplementedError("no")),
    "extra-missing": lambda folder: _decode(folder, ImportError("no")),
    "folder-missing": lambda folder: check_target(folder / "b/a.tif", overwrite=False),
    "frames-unusable": lambda folder: run(open_frames(_write(folder / "a.png").parent)),
    "landmarks-on-line": lambda _: fit_landmarks(Landmarks(_PAIRS, _PAIRS)),
}


@pytest.mark.parametrize("code", _REFUSALS)
def test_refusal_has_the_code_of_its_cause(code, tmp_path):
    with refused(SemsrError, code):
        _REFUSALS[code](tmp_path)


@pytest.mark.parametrize(
    ("options", "values", "code"),
    [
        (CalibrateOptions, {}, "missing-value"),
        (CalibrateOptions, {"bar": True, "pitch_nm": 9}, "option-without-effect"),
        (ProfileOptions, {"line": "0,0,1"}, "wrong-type"),
        (ProfileOptions, {"line": "a,b,c,d"}, "wrong-type"),
        (DegradeOptions, {"kind": "blur", "airlight": 1}, "option-without-effect"),
        (GoldOptions, {"pitch_nm": (9, 5)}, "out-of-range"),
    ],
)
def test_rule_of_options_has_the_code_of_its_cause(options, values, code):
    with refused(OptionError, code):
        options.parse(values)


def test_warnings_have_the_codes_of_their_causes(tmp_path):
    heard = []
    with capture_warnings(heard.append):
        mask_fill_values(np.array([[-9999.0, 1.0], [2.0, 3.0]]), "a.tif")
        RestoreOptions(iterations=7, method="wiener").reset_unused_options()
    assert [*map(get_error_code, heard)] == [
        "pixels-marked-missing",
        "option-without-effect",
    ]
    raw = RawImage("TIFF", doubts=(Message("It is so.", "other-version"),))
    (sentence,) = raw.get_warnings(tmp_path / "a.tif")
    assert (sentence, get_error_code(sentence)) == ("a.tif: It is so.", "other-version")
    assert get_error_code(pickle.loads(pickle.dumps(sentence))) == "other-version"  # noqa: S301
    assert json.loads(json.dumps([sentence])) == ["a.tif: It is so."]


@pytest.mark.broad
def test_the_list_of_codes_has_every_code():
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", codes_page(), re.MULTILINE))
    texts = (path.read_text() for path in Path("src/napari_semsr").rglob("*.py"))
    given = {code for text in texts for code in re.findall(r'code="([a-z-]+)"', text)}
    assert given
    assert given <= listed
    assert {"databar-coloured", "regions-missing", "file-in-use"} <= listed
