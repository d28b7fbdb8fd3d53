import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core.errors import OptionError
from napari_semsr.jobs import FUNCTIONS as OF_VERBS, VERBS
from tests.refusals import refused

ROOT = Path(__file__).parents[1]

# `semsr models` has verbs of its own.
FUNCTIONS = {*OF_VERBS} | {verb.replace("-", "_") for verb in VERBS if verb != "models"}


def test_every_public_name_resolves():
    for name in napari_semsr.__all__:
        assert getattr(napari_semsr, name) is not None
    assert set(napari_semsr.__all__) <= set(dir(napari_semsr))


def test_names_of_code_on_pages_are_there():
    gone = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(r"`(napari_semsr(?:\.\w+)+)`", page.read_text("utf-8")):
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                gone.append(f"{page.name}: {name}")
    assert not gone


def test_every_verb_has_a_function_with_a_docstring():
    assert set(napari_semsr.__all__) >= FUNCTIONS
    for name in FUNCTIONS:
        function = getattr(napari_semsr, name)
        assert inspect.isfunction(function)
        assert inspect.getdoc(function)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"has no function or class sharpen\.$"):
        _ = napari_semsr.sharpen
    with pytest.raises(AttributeError, match=r"class metrix; did you mean metrics\?$"):
        _ = napari_semsr.metrix


def test_a_wrong_call_names_the_function():
    image = np.zeros((64, 64))
    with pytest.raises(TypeError, match=r"^metrics\(\): missing .* 'image'$"):
        napari_semsr.metrics()
    near = r" data_rnge of metrics .* data_range\?\); "
    with refused(OptionError, "unknown-option", match=near):
        napari_semsr.metrics(image, data_rnge=1)
    with refused(OptionError, "unknown-option"):
        napari_semsr.metrics(image, zero=1, one=2)


def test_measures_take_arrays_micrographs_and_paths(scene, tmp_path):
    path = tmp_path / "first.tif"
    napari_semsr.write(scene.first, path)
    by_path = napari_semsr.frc(path, scene.second)
    by_value = napari_semsr.frc(scene.first, scene.second)
    assert by_path.resolution_nm == by_value.resolution_nm
    arrays = napari_semsr.frc(
        scene.first.data, scene.second.data, pixel_size_nm=scene.first.pixel_size_nm
    )
    assert arrays.resolution_nm == pytest.approx(by_value.resolution_nm)
