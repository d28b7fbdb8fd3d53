import os

import pytest

from napari_semsr.core import WriteError
from napari_semsr.jobs import check_image_target, check_target_folder
from napari_semsr.jobs.images import check_target_file
from tests.refusals import refused


@pytest.mark.parametrize("overwrite", [False, True])
def test_check_image_target_refuses_the_input_under_any_name(tmp_path, overwrite):
    image = tmp_path / "a.tif"
    image.touch()
    link = tmp_path / "b.tif"
    link.symlink_to(image)
    with refused(WriteError, "output-is-input"):
        check_image_target(link, inputs=[image], overwrite=overwrite)


def test_check_image_target_refuses_a_folder_that_is_read_only(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with refused(WriteError, "no-permission"):
        check_image_target(tmp_path / "a.tif")


def test_check_target_file_laws(tmp_path):
    path = tmp_path / "a.CSV"
    assert check_target_file(path, suffixes=(".csv",)) == path
    path.touch()
    with refused(WriteError, "output-exists"):
        check_target_file(path, suffixes=(".csv",))
    assert check_target_file(path, suffixes=(".csv",), overwrite=True) == path
    with refused(WriteError, "suffix-unknown"):
        check_target_file(path, suffixes=(".html", ".htm"))
    folder = tmp_path / "b.csv"
    folder.mkdir()
    with refused(WriteError, "output-is-folder"):
        check_target_file(folder, suffixes=(".csv",), overwrite=True)


def test_check_target_folder_laws(tmp_path):
    new = tmp_path / "new"
    assert check_target_folder(new) == new
    assert not new.exists()
    new.mkdir()
    (new / "a").touch()
    with refused(WriteError, "output-exists"):
        check_target_folder(new)
    assert check_target_folder(new, empty=False) == new
    with refused(WriteError, "output-is-file"):
        check_target_folder(new / "a" / "b", parents=True)
    with refused(WriteError, "folder-missing"):
        check_target_folder(tmp_path / "x" / "y")
    deep = tmp_path / "x" / "y" / "z"
    assert check_target_folder(deep, parents=True) == deep


def test_check_image_target_refuses_a_place_inside_a_store_that_is_read(tmp_path):
    store = tmp_path / "a.ome.zarr"
    store.mkdir()
    with refused(WriteError, "output-is-input"):
        check_image_target(store / "b.tif", inputs=[store])
    folder = tmp_path / "frames"
    folder.mkdir()
    assert check_image_target(folder / "b.tif", inputs=[folder])
