"""Laws of outputs: refused early, replaced only on request, whole or absent."""

import errno
from pathlib import Path

import pytest

from napari_semsr.core.errors import WriteError
from napari_semsr.io import files
from tests import children
from tests.refusals import refused


def test_output_kind_follows_the_longest_suffix(tmp_path):
    kinds = {"a.zarr": "ome-zarr", "A.OME.TIFF": "ome-tiff", "a.b.tif": "tiff"}
    for name, kind in kinds.items():
        assert files.get_output_format(tmp_path / name) == kind
    for name in ("a", "a.jpg", ".tif", ".ome.tif", "a.tif.bak"):
        with refused(WriteError, "suffix-unknown"):
            files.get_output_format(tmp_path / name)


def test_check_target_never_replaces_what_was_not_to_be_replaced(tmp_path):
    path, folder = tmp_path / "a.tif", tmp_path / "a.ome.zarr"
    path.write_text("precious")
    with refused(WriteError, "folder-missing"):
        files.check_target(tmp_path / "no" / "a.tif", overwrite=True)
    with refused(WriteError, "output-exists"):
        files.check_target(path, overwrite=False)
    files.check_target(path, overwrite=True)
    folder.mkdir()
    files.check_target(folder, overwrite=True)
    (folder / "thesis.txt").write_text("precious")
    with refused(WriteError, "output-is-folder"):
        files.check_target(folder, overwrite=True)


@pytest.mark.parametrize(
    "error",
    [OSError("237654 requested and 74740 written"), OSError(errno.EFBIG, "too large")],
    ids=str,
)
def test_a_full_disk_is_told_of_the_output_itself(tmp_path, error):
    def fail() -> None:
        with files.use_temporary_path(tmp_path / "scan") as place:
            place.mkdir()
            with files.replace_atomically(place / "a.tif"):
                raise error

    with refused(WriteError, "disk-full") as caught:
        fail()
    assert str(caught.value).startswith(f"{tmp_path / 'scan' / 'a.tif'} could not be")


def test_move_takes_no_name_that_is_taken(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with pytest.raises(FileExistsError):
        files.move(one, two)
    files.move(one, tmp_path / "three")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["three", "two"]


KILLED = """
import os, sys, pathlib
from napari_semsr.io import files
path = pathlib.Path(sys.argv[1])
with files.use_temporary_path(path) as place:
    place.mkdir() if path.suffix == ".zarr" else place.touch()
    lock = files.StoreLock(place)
    if path.exists() and "replacing" in sys.argv:
        files._hide_store(path)
    os._exit(0)
"""


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.csv", "a.half-b.ome.zarr"])
def test_remains_of_a_killed_process_are_removed_by_the_next_run(tmp_path, name):
    children.run_python(KILLED, tmp_path / name)
    for other in (".a-notes.csv", ".b-0123456789abcd.csv", "a.txt"):
        (tmp_path / other).touch()
    with files.use_temporary_path(tmp_path / name) as in_use:
        in_use.touch()
        assert len(list(tmp_path.iterdir())) == 6
        files.remove_leftovers(tmp_path, "a.ome.zarr")
        assert in_use.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        *(".a-notes.csv", ".b-0123456789abcd.csv", "a.txt")
    }


def test_store_hidden_by_a_killed_process_gets_its_name_back(tmp_path):
    path = tmp_path / "a.ome.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("precious")
    children.run_python(KILLED, path, "replacing")
    assert not path.exists()
    files.remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert (path / "zarr.json").read_text() == "precious"


def test_store_is_kept_if_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    path, new = tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr"
    path.mkdir()
    new.mkdir()
    (path / "zarr.json").write_text("precious")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.replace_output(new, path)
    assert (path / "zarr.json").read_text() == "precious"
