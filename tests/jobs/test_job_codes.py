"""Jobs give the cause of a refusal, or of a warning, by a stable code."""

from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core import (
    Micrograph,
    SemsrError,
    capture_warnings,
    get_error_code,
    run,
)
from napari_semsr.jobs.crop import CROP, CropOptions
from napari_semsr.jobs.exchange import check_no_executable_code
from napari_semsr.jobs.images import (
    check_output_not_input,
    check_target_file,
    check_target_folder,
    create_grey_level_note,
)
from napari_semsr.jobs.measure.resolution import DECORRELATION
from napari_semsr.jobs.measure.table import get_measuring_command
from napari_semsr.jobs.register import REGISTER

GREY = np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)
IMAGE = Micrograph(GREY, name="image")


def _crop(**how):
    return run(CROP.job(IMAGE, options=CropOptions(**how)))


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("suffix-unknown", lambda a: check_target_file(a / "b.txt", suffixes=[".csv"])),
        ("output-exists", lambda a: check_target_file(a / "a.csv", suffixes=[".csv"])),
        ("folder-missing", lambda a: check_target_folder(a / "b" / "c")),
        (
            "output-is-input",
            lambda a: check_output_not_input(a / "a.csv", [a / "a.csv"]),
        ),
        ("missing-value", lambda _: _crop()),
        ("outside-image", lambda _: _crop(box=(90, 90, 95, 95))),
        ("pixel-size-missing", lambda _: _crop(box_nm=(0, 0, 5, 5))),
        ("pixel-size-missing", lambda _: run(REGISTER.job(IMAGE, IMAGE))),
        ("verb-unknown", lambda _: get_measuring_command("taste")),
        ("unsafe-content", lambda _: check_no_executable_code(Path("model.pt"))),
        (
            "image-too-small",
            lambda _: run(DECORRELATION.job(Micrograph(GREY[:5, :5], (5, 5), "a"))),
        ),
    ],
)
def test_a_refusal_has_a_code(tmp_path, code, refused):
    (tmp_path / "a.csv").touch()
    with pytest.raises(SemsrError) as error:
        refused(tmp_path)
    assert get_error_code(error.value) == code


def test_a_warning_has_a_code():
    heard = []
    with capture_warnings(heard.append):
        _crop(box=(5, 5, 70, 70))
    assert [get_error_code(one) for one in heard] == ["box-cut"]


def test_a_note_on_grey_values_has_a_code():
    fine = IMAGE.replace(data=GREY / 255.0, path=None)
    assert get_error_code(create_grey_level_note(fine, "uint8")) == "values-rounded"
