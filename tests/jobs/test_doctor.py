"""An installation is examined, and what is missing is named."""

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from napari_semsr.core import get_error_code, run
from napari_semsr.jobs import info as doctor

WINDOW = "Qt: 6.11.0\n  - GL version:  4.5 Mesa\n  - screen 1: resolution 800x600\n"


@pytest.fixture
def answer(monkeypatch):
    given = SimpleNamespace(returncode=0, stdout=WINDOW, stderr="")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: given)
    return given


def test_packages_devices_and_window_are_listed(answer):
    report = run(doctor.doctor.job())
    assert report.packages["numpy"]
    extras = {"all", "bioimageio", "czi", "em", "hdf5", "onnx", "table"}
    assert set(report.extras) == extras
    assert report.devices["auto"]
    assert report.memory_gb > 0
    assert report.window["GL version"] == "4.5 Mesa"
    assert report.warnings == ()
    lines = report.figures()
    assert lines["numpy"].value_text == report.packages["numpy"]


def test_what_is_missing_is_named(answer, monkeypatch):
    found = doctor.version

    def lack(name):
        if name in ("h5py", "zarr"):
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(doctor, "version", lack)
    answer.returncode, answer.stdout = 1, ""
    answer.stderr = "WARNING: Could not load the Qt platform plugin.\n"
    answer.stderr += "WARNING: no Qt platform plugin was found: not installed.\n"
    report = run(doctor.doctor.job())
    assert report.extras["hdf5"] == ["h5py"]
    codes = [get_error_code(warning) for warning in report.warnings]
    assert codes == ["package-missing", "window-unavailable"]
    assert "zarr is required" in report.warnings[0]
