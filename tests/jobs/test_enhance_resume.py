"""A store begun from a layer is completed from the file, and only from that file."""

import shutil

import numpy as np
import pytest

from napari_semsr.core import WriteError, run
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io.formats import read, write
from napari_semsr.jobs import ENHANCE, find_unfinished_result
from napari_semsr.models.checkpoint import load_model, save_model
from tests.refusals import refused, warned
from tests.stopping import stop_at

SMALL = EnhanceOptions(tile=64, precision="fp32", device="cpu")


def _begin(layer, output, tiles):
    """Run until so many tiles are done, then stop."""
    stop_at(ENHANCE.job(layer, output, options=SMALL), "Enhancing", tiles)


def test_a_store_of_a_file_with_a_lost_tile_is_completed_from_a_layer(folder):
    output = folder / "left.ome.zarr"
    _begin(folder / "first.tif", output, 2)
    begun = find_unfinished_result(output)
    assert (begun.model, begun.tiles_done) == ("sem-restore", 2)
    assert EnhanceOptions.parse(begun.options) == SMALL
    block = output / "0" / "c" / "0" / "0"
    block.write_bytes(block.read_bytes()[:-20])
    layer = read(folder / "first.tif").replace(name="as a layer")
    with warned("tiles-lost"):
        made = run(ENHANCE.job(layer, output, options=SMALL, resume=True))
    assert made.report.resumed == 1
    assert read(output).name == read(folder / "first.tif").name
    assert find_unfinished_result(output) is None
    other = run(ENHANCE.job(folder / "first.tif", folder / "b.ome.zarr", options=SMALL))
    np.testing.assert_array_equal(read(output).array(), read(other.output).array())


@pytest.mark.parametrize("torn", [False, True])
def test_a_result_stays_until_the_one_that_replaces_it_is_whole(folder, tmp_path, torn):
    output, image = tmp_path / "kept.ome.zarr", folder / "first.tif"
    before = read(image).replace(data=np.zeros((8, 8), np.float32))
    write(before, output)
    stop_at(ENHANCE.rerun(image, output, options=SMALL), "Enhancing", 2)
    np.testing.assert_array_equal(read(output).array(), before.array())
    begun = find_unfinished_result(output)
    assert begun is not None
    assert begun.tiles_done == 2
    if torn:  # as by a stop while the former one is removed
        shutil.rmtree(output)
    made = run(ENHANCE.job(image, output, options=SMALL, resume=True))
    assert made.report.resumed == 2
    other = run(ENHANCE.job(image, tmp_path / "b.ome.zarr", options=SMALL))
    np.testing.assert_array_equal(read(output).array(), read(other.output).array())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.quick(1)
@pytest.mark.parametrize("change", ["input", "model", "option", "precision"])
def test_a_changed_run_is_not_resumed_and_named(change, folder, tmp_path):
    output, path = folder / "live.ome.zarr", folder / "first.tif"
    _begin(path, output, 2)
    how = {"options": SMALL}
    if change == "input":
        path = folder / "second.tif"
    elif change == "option":
        how = {"options": SMALL.replace(haze=not SMALL.haze)}
    elif change == "precision":
        how = {"options": SMALL.replace(precision="bf16")}
    else:
        loaded = load_model("sem-restore")
        how["model"] = tmp_path / "sem-restore.safetensors"
        card = loaded.card.model_copy(update={"limits": "x"})
        save_model(how["model"], loaded.module, card)
    with refused(WriteError, "other-run", match=f" {change} "):
        run(ENHANCE.job(path, output, resume=True, **how))
