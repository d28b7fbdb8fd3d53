"""Laws of outputs: refused early, replaced only on request, whole or absent."""

import errno
import os
from pathlib import Path

import pytest

from napari_semsr.core.errors import WriteError
from napari_semsr.io.files import (
    check_target,
    get_output_format,
    move,
    remove_leftovers,
    remove_target,
    replace_atomically,
    replace_output,
    use_temporary_path,
    write_atomically,
)
from tests import children
from tests.refusals import refused


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.ome.zarr", "ome-zarr"),
        ("a.zarr", "ome-zarr"),
        ("a.ome.tif", "ome-tiff"),
        ("A.OME.TIFF", "ome-tiff"),
        ("a.b.tif", "tiff"),
        ("a.tiff", "tiff"),
        ("a.png", "png"),
    ],
)
def test_output_kind_follows_the_longest_suffix(tmp_path, name, kind):
    assert get_output_format(tmp_path / name) == kind


@pytest.mark.parametrize(
    "name", ["a", "a.jpg", ".tif", ".ome.zarr", ".ome.tif", "a.tif.bak"]
)
def test_output_kind_refuses_other_suffixes(tmp_path, name):
    with refused(WriteError, "suffix-unknown"):
        get_output_format(tmp_path / name)


def test_check_target_refuses_missing_folder(tmp_path):
    with refused(WriteError, "folder-missing"):
        check_target(tmp_path / "no" / "a.tif", overwrite=True)


def test_check_target_keeps_what_exists(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("precious")
    with refused(WriteError, "output-exists"):
        check_target(path, overwrite=False)
    check_target(path, overwrite=True)


def test_check_target_never_replaces_a_folder_of_other_things(tmp_path):
    folder = tmp_path / "a.ome.zarr"
    folder.mkdir()
    check_target(folder, overwrite=True)
    (folder / "thesis.txt").write_text("precious")
    with refused(WriteError, "output-is-folder"):
        check_target(folder, overwrite=True)


def test_remove_target_takes_files_and_stores(tmp_path):
    store = tmp_path / "a.zarr"
    (store / "0").mkdir(parents=True)
    for path in (store, tmp_path / "none.tif"):
        remove_target(path)
        assert not path.exists()


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.ome.tif"
    path.write_text("old")

    def fail() -> None:
        with replace_atomically(path) as temporary:
            assert temporary.name.endswith(".ome.tif")
            temporary.write_text("half")
            raise KeyError(path)

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_translates_system_errors(tmp_path):
    def fail() -> None:
        with replace_atomically(tmp_path / "a.tif"):
            raise OSError(28, "No space left on device")

    with refused(WriteError, "disk-full"):
        fail()


def test_array_written_in_part_means_a_full_disk(tmp_path):
    def fail() -> None:
        with replace_atomically(tmp_path / "a.tif"):
            raise OSError("237654 requested and 74740 written")

    with refused(WriteError, "disk-full") as error:
        fail()
    assert os.strerror(errno.ENOSPC) in str(error.value)


def test_errors_in_a_hidden_folder_name_the_output(tmp_path):
    def fail() -> None:
        with use_temporary_path(tmp_path / "scan") as place:
            place.mkdir()
            with replace_atomically(place / "a.tif"):
                raise OSError(errno.EFBIG, "File too large")

    with refused(WriteError, "disk-full") as error:
        fail()
    assert str(error.value).startswith(f"{tmp_path / 'scan' / 'a.tif'} could not be")


def test_move_takes_no_name_that_is_taken(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with pytest.raises(FileExistsError):
        move(one, two)
    move(one, tmp_path / "three")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["three", "two"]


def test_renaming_replaces_a_folder_and_tells_what_the_system_said(tmp_path):
    path = tmp_path / "a.zarr"
    for name in ("old", "new"):
        with write_atomically(path) as place:
            place.mkdir()
            (place / name).touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    with refused(OSError, "system"), write_atomically(path):
        raise OSError("full")
    assert list(tmp_path.iterdir()) == [path]


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
    with use_temporary_path(tmp_path / name) as in_use:
        in_use.touch()
        assert len(list(tmp_path.iterdir())) == 6
        remove_leftovers(tmp_path, "a.ome.zarr")
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
    remove_leftovers(tmp_path)
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
        replace_output(new, path)
    assert (path / "zarr.json").read_text() == "precious"
