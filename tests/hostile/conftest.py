"""Inputs of all verbs, and a copy of them where lines are said."""

import shutil

import pytest

from tests.hostile.commands import write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """What all lines read, and a folder for what they make."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    (folder / "there").mkdir()
    return folder


@pytest.fixture
def place(inputs, tmp_path, monkeypatch):
    """A copy of the inputs, where the lines are said."""
    folder = shutil.copytree(inputs, tmp_path / "work")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))
    return folder
