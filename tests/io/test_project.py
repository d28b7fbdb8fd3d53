"""A project keeps its layers, and says of each input what became of it."""

import json
import math
import os
import shutil
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_semsr import io
from napari_semsr.core import ReadError, run
from tests.refusals import refused


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "work" / "p.semsr"


def write_image(path, seed=0):
    data = np.random.default_rng(seed).integers(0, 255, (40, 50), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, data)
    return data


def save(folder, *layers, inputs=None):
    io.write_project(folder, io.Project(layers=layers, inputs=inputs or {}))


def opened(folder):
    project = run(io.open_project(folder))
    return project, [(data, about, kind) for _, (data, about, kind) in project.layers]


def test_what_is_written_is_read_from_the_folder_or_its_file(folder):
    layer = io.ProjectLayer(kind="points", name="a", data=[[1, 2.5]])
    io.write_project(folder, io.Project(layers=(layer,), window={"zoom": 2}, version=1))
    for path in (folder, folder / "project.json"):
        assert io.get_project_folder(path) == folder
        assert io.is_project(path)
        found = io.read_project(path)
        assert (found.layers, found.window) == ((layer,), {"zoom": 2})
    moved = folder.rename(folder.with_name("other name"))
    assert io.is_project(moved)
    assert not io.is_project(moved.parent)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "other-version"),
        ({"version": "1"}, "file-damaged"),
        ({"format": "another", "version": 2}, "file-damaged"),
        ({"layers": [{"kind": "image"}]}, "file-damaged"),
        (None, "file-damaged"),
    ],
)
def test_a_project_of_another_kind_is_refused(folder, change, code):
    with refused(ReadError, "file-missing", "NAME.semsr"):
        io.read_project(folder)
    save(folder)
    file = folder / "project.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | change) if change else whole[:-9])
    with refused(ReadError, code):
        io.read_project(folder)


def test_layers_without_pixels_come_back(folder):
    features = {"size": [1.5, math.nan], "frame": ["a", "b"], "n": np.array([1, 2])}
    about = io.to_json_attributes({"features": features, "metadata": {"k": 1}})
    source = folder.parent / "a.tif"
    write_image(source)
    digest, one = io.record_input(folder, source, {}, frames=False)
    shapes = [[[0, 0], [1, 2]], [[3, 4], [5, 6], [7, 8.5]]]
    graph = {"graph": {"1": [0]}}
    save(
        folder,
        io.ProjectLayer(
            kind="points", name="p", data=[[1, 2], [3, 4]], attributes=about
        ),
        io.ProjectLayer(kind="shapes", name="s", data=shapes, input=digest),
        io.ProjectLayer(kind="tracks", name="t", data=[[0, 1, 2]], attributes=graph),
        io.ProjectLayer(kind="shapes", name="none"),
        inputs={digest: one},
    )
    project, (points, drawn, tracks, none) = opened(folder)
    assert (project.missing, project.messages) == ((), ())
    np.testing.assert_array_equal(points[0], [[1, 2], [3, 4]])
    assert (points[1]["name"], points[1]["metadata"]) == ("p", {"k": 1})
    columns = points[1]["features"]
    np.testing.assert_array_equal(columns["size"], [1.5, np.nan])
    assert (columns["frame"].dtype, columns["n"].dtype) == (object, int)
    assert [item.tolist() for item in drawn[0]] == shapes
    assert drawn[1]["metadata"] == {io.FOLDER_KEY: str(source)}
    assert tracks[1]["graph"] == {1: [0]}
    assert none[0] is None


@pytest.mark.parametrize("lazy", [False, True])
def test_arrays_come_back_and_labels_keep_their_colours(folder, lazy):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    io.write_array(da.from_array(data) if lazy else data, folder / "a.zarr")
    assert io.read_array(folder / "a.zarr").dtype == np.int16
    colours = {"colormap": {"None": "transparent", "3": "red"}}
    known = io.ProjectLayer(kind="labels", name="l", store="a.zarr", attributes=colours)
    lost = ["gone.zarr", "../p.semsr/a.zarr", ".."]
    others = [io.ProjectLayer(kind="labels", name=name, store=name) for name in lost]
    save(folder, known, *others)
    project, [(found, about, kind)] = opened(folder)
    assert kind == "labels"
    np.testing.assert_array_equal(found, data)
    assert about["colormap"] == {None: "transparent", 3: "red"}
    assert about["metadata"] == {io.STORE_KEY: str(folder / "a.zarr")}
    assert [layer.name for layer in project.missing] == lost
    assert len(project.messages) == 3


def shown(name="a", digest="", **read):
    return io.ProjectLayer(kind="image", name=name, input=digest, read=read or None)


@pytest.mark.parametrize("moved", [False, True])
def test_an_input_is_found_by_its_digest_where_it_was_or_beside_the_project(
    folder, moved
):
    path = folder.parent / "in" / "a.tif"
    data = write_image(path)
    digest, one = io.record_input(folder, path, {}, frames=False)
    assert (one.path, one.absolute) == ("../in/a.tif", str(path))
    lost = shown("b", digest, layer=1)
    save(folder, shown(digest=digest), lost, inputs={digest: one})
    if moved:
        shutil.move(path, folder.parent / "a.tif")
        write_image(path, seed=1)  # another of the same name and size
    project, [(found, about, _)] = opened(folder)
    np.testing.assert_array_equal(found, data)
    assert about["name"] == "a"
    [message] = project.messages
    assert message.endswith("no longer has channel 1.")


@pytest.mark.parametrize("name", ["a.tif", "a" * 5000])  # which no system takes
def test_a_missing_input_is_said_once(folder, name):
    one = io.ProjectInput(
        path=f"../{name}", absolute=f"{folder.parent}/{name}", stamp=(1, 2)
    )
    save(folder, shown(digest="d"), shown("b", "d"), inputs={"d": one})
    project, layers = opened(folder)
    assert (layers, len(project.missing)) == ([], 2)
    assert [message.code for message in project.messages] == ["file-missing"]


def test_a_changed_input_is_told_by_its_digest(folder):
    path = folder.parent / "a.tif"
    write_image(path)
    digest, one = io.record_input(folder, path, {}, frames=False)
    save(folder, shown(digest=digest), inputs={digest: one})
    os.utime(path, (1, 1))
    assert opened(folder)[0].messages == ()
    write_image(path, seed=1)
    project, layers = opened(folder)
    assert [message.code for message in project.messages] == ["content-changed"]
    assert len(layers) == 1


def test_a_digest_is_computed_once_and_of_a_scan_from_its_own_frames(folder):
    def digest(known=None, scan=folder.parent / "scan"):
        return io.record_input(folder, scan, known or {}, frames=True)

    scan = folder.parent / "scan"
    for number in range(3):
        write_image(scan / f"{number}.tif", number)
    first, _ = digest()
    shutil.copytree(scan, folder.parent / "copy")
    assert digest(scan=folder.parent / "copy")[0] == first
    (scan / "notes.txt").write_text("no frame")
    again, one = digest()
    assert again == first
    assert io.record_input(folder, scan, {}, frames=False)[0] != first
    assert digest({"known": one})[0] == "known"
    (scan / "2.tif").rename(scan / "3.tif")
    renamed, _ = digest()
    assert renamed != first
    write_image(scan / "3.tif", seed=9)
    changed, one = digest()
    assert changed != renamed
    layer = shown("a", changed, frames=True, databar_rows=8)
    save(folder, layer, inputs={changed: one})
    assert opened(folder)[1][0][0].shape == (3, 32, 50)


def test_options_of_an_image_and_its_data_bar_come_back(folder):
    path = folder.parent / "a.tif"
    data = write_image(path)
    digest, one = io.record_input(folder, path, {}, frames=False)
    save(
        folder,
        shown("typed", digest, pixel_size_nm=5.0),
        shown("cut", digest, layer=0, databar_rows=8),
        inputs={digest: one},
    )
    _, [typed, cut] = opened(folder)
    assert tuple(typed[1]["scale"]) == (5, 5)
    np.testing.assert_array_equal(typed[0], data)
    np.testing.assert_array_equal(cut[0], data[:-8])


def test_metadata_of_this_machine_or_of_no_values_are_left_out():
    metadata = {
        io.STORE_KEY: "/a",
        "note": {"n": [1, Path("b")]},
        "f": [print],
        "x": None,
    }
    found = io.to_json_attributes(
        {"metadata": metadata, "features": {"size": [1.5, math.nan]}, "gamma": 1}
    )
    assert found == {
        "gamma": 1,
        "metadata": {"note": {"n": [1, "b"]}, "x": None},
        "features": {"size": {"dtype": "float64", "values": [1.5, None]}},
    }


def test_a_store_is_adopted_with_its_halves_and_is_its_own(tmp_path):
    for name in ("a.ome.zarr", "a.half-a.ome.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c").write_text(name)
    io.copy_with_links(tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr")
    assert (tmp_path / "b.ome.zarr" / "c").read_text() == "a.ome.zarr"
    assert (tmp_path / "b.half-a.ome.zarr" / "c").read_text() == "a.half-a.ome.zarr"


def test_the_last_ten_projects_are_remembered_once_each(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_state_path", lambda *_, **__: tmp_path / "s")
    assert io.list_recent_projects() == []
    folders = [tmp_path / f"{number}.semsr" for number in range(12)]
    for folder in [*folders, folders[5]]:
        save(folder)
        io.add_recent_project(folder)
    assert io.list_recent_projects() == [folders[5], *folders[:5:-1], *folders[4:1:-1]]
    (folders[11] / "project.json").unlink()
    assert io.list_recent_projects()[:2] == [folders[5], folders[10]]
    (tmp_path / "s" / "recent.json").write_text("3")
    assert io.list_recent_projects() == []


def test_fields_of_later_versions_are_ignored():
    one = io.ProjectInput(path="a", absolute="/a", stamp=(1, 2))
    assert io.ProjectInput.model_validate(one.model_dump() | {"new": 1}) == one
