"""Refusals and warnings have codes that name their cause."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from docs.generate_reference import codes_page

from napari_semsr.analysis.grating import CalibrateOptions
from napari_semsr.analysis.profile.line import ProfileOptions
from napari_semsr.core import (
    Message,
    Micrograph,
    OptionError,
    SemsrError,
    capture_warnings,
    get_error_code,
    run,
)
from napari_semsr.core.intensity import mask_fill_values
from napari_semsr.io.files import (
    check_target,
    choose_index,
    convert_decoding_errors,
    read_json_object,
)
from napari_semsr.io.formats import read
from napari_semsr.io.frames import open_frames
from napari_semsr.io.read_image import RawImage, ReadOptions
from napari_semsr.jobs.degrade import DegradeOptions
from napari_semsr.pairing.options import PairOptions
from napari_semsr.registration import (
    Landmarks,
    RegistrationOptions,
    fit_landmarks,
    register,
)
from napari_semsr.restoration.method import (
    RestoreOptions,
    prepare_restoration as choose_restoration,
)
from napari_semsr.simulation.gold import GoldOptions
from napari_semsr.stitching import StitchOptions
from tests.refusals import refused


def _write(path, content=b"x"):
    path.write_bytes(content)
    return path


def _decode(path, error):
    with convert_decoding_errors(path, "TIFF"):
        raise error


def _register(size, shape):
    image = Micrograph(np.zeros(shape, np.float32), size)
    return run(register(image, image))


def _restore(_):
    blank = Micrograph(np.full((8, 8), np.nan, np.float32))
    return choose_restoration(blank, RestoreOptions(psf="1px"))


_PAIRS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])

_REFUSALS = {
    "file-missing": lambda folder: read(folder / "none.tif"),
    "file-empty": lambda folder: read(_write(folder / "a.tif", b"")),
    "format-unknown": lambda folder: read(_write(folder / "a.tif", b"a text")),
    "no-image": read,
    "several-images": lambda folder: choose_index(folder, "channel", None, 3),
    "plane-missing": lambda folder: choose_index(folder, "channel", 3, 3),
    "content-invalid": lambda folder: read_json_object(_write(folder / "a.json")),
    "no-permission": lambda folder: _decode(folder, PermissionError(13, "no")),
    "format-unsupported": lambda folder: _decode(folder, NotImplementedError("no")),
    "extra-missing": lambda folder: _decode(folder, ImportError("no")),
    "file-damaged": lambda folder: _decode(folder, IndexError("no")),
    "output-exists": lambda folder: check_target(
        _write(folder / "a.tif"), overwrite=False
    ),
    "suffix-unknown": lambda folder: check_target(folder / "a.gif", overwrite=False),
    "folder-missing": lambda folder: check_target(
        folder / "b" / "a.tif", overwrite=False
    ),
    "too-few-frames": lambda folder: run(open_frames(folder)),
    "frames-unusable": lambda folder: run(open_frames(_write(folder / "a.png").parent)),
    "pixel-size-invalid": lambda _: ReadOptions.parse({"pixel_size_nm": "7,5 nm"}),
    "unknown-option": lambda _: StitchOptions.parse({"gird": (2, 3)}),
    "unknown-value": lambda _: RegistrationOptions.parse({"model": "rigid"}),
    "out-of-range": lambda _: StitchOptions.parse({"distortion": 9}),
    "wrong-type": lambda _: ReadOptions.parse({"series": True}),
    "options-contradict": lambda _: PairOptions.parse({"validation": 0.6, "test": 0.4}),
    "pixel-size-missing": lambda _: _register(None, (64, 64)),
    "image-too-small": lambda _: _register(5, (8, 8)),
    "too-few-landmarks": lambda _: fit_landmarks(Landmarks(_PAIRS[:2], _PAIRS[:2])),
    "landmarks-on-line": lambda _: fit_landmarks(Landmarks(_PAIRS, _PAIRS)),
    "no-finite-values": _restore,
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
    raw = RawImage("TIFF", None, doubts=(Message("It is so.", "other-version"),))
    (sentence,) = raw.get_warnings(tmp_path / "a.tif")
    assert (sentence, get_error_code(sentence)) == ("a.tif: It is so.", "other-version")
    assert get_error_code(pickle.loads(pickle.dumps(sentence))) == "other-version"  # noqa: S301
    assert json.loads(json.dumps([sentence])) == ["a.tif: It is so."]


def test_the_list_of_codes_has_every_code():
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", codes_page(), re.MULTILINE))
    texts = (path.read_text() for path in Path("src/napari_semsr").rglob("*.py"))
    given = {code for text in texts for code in re.findall(r'code="([a-z-]+)"', text)}
    assert given
    assert given <= listed
    assert {"databar-coloured", "regions-missing", "file-in-use"} <= listed
