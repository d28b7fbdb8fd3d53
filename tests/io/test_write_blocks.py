"""One way out: whole or not at all, or resumable."""

import errno

import numpy as np
import pytest

from napari_semsr.core.errors import WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.io.formats import get_output_store_path, read, write_blocks
from napari_semsr.io.zarr_image import create_image_store
from tests.refusals import refused

SUFFIXES = [".ome.zarr", ".ome.tif", ".tif", ".png"]


@pytest.fixture
def image(rng):
    grey = (rng.random((70, 50)) * 255).astype(np.uint8)
    return Micrograph(grey, (5.0, 4.0), "field", origin=(3.0, 2.0))


def written(image, target, *, stop=None, error=None, resume=False, resumable=True):
    """Write in blocks of 32 px; fail before the block number `stop`."""

    def blocks(store):
        for number, box in enumerate(store.pending_boxes()):
            if number == stop:
                raise error
            yield image.data[box.slices]

    return run(
        write_blocks(
            target,
            lambda place: create_image_store(image, place, chunk=32, resume=resume),
            lambda store: store.fill(blocks(store), "filling"),
            kept_store=get_output_store_path(target, resume=resume)
            if resumable
            else None,
        )
    )


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_whole_output_replaces_a_former_one(tmp_path, image, suffix, resumable):
    target = tmp_path / f"a{suffix}"
    written(image.replace(data=255 - image.data), target, resumable=resumable)
    made = written(image, target, resumable=resumable)
    assert (made.result, made.shape, made.dtype) == (0, (70, 50), "uint8")
    found = read(target)
    assert np.array_equal(found.array(), image.data)
    assert (found.pixel_size_nm, found.origin) == (image.pixel_size_nm, image.origin)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_that_fails_leaves_what_was_there(tmp_path, image, suffix):
    target = tmp_path / f"a{suffix}"
    written(image, target, resumable=False)
    full = OSError(errno.ENOSPC, "No space left on device")
    other = image.replace(data=255 - image.data)
    with refused(WriteError, "disk-full"):
        written(other, target, stop=3, error=full, resumable=False)
    assert list(tmp_path.iterdir()) == [target]
    assert np.array_equal(read(target).array(), image.data)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_labels_go_into_a_store_and_beside_a_file(tmp_path, image, suffix):
    def fill(store):
        label = store.add_label("seen")
        label[:] = image.data
        store.finish_label("seen", label)
        blocks = (image.data[box.slices] for box in store.pending_boxes())
        return store.fill(blocks, "filling")

    target = tmp_path / f"a{suffix}"
    run(write_blocks(target, lambda at: create_image_store(image, at, chunk=32), fill))
    beside = tmp_path / "a.seen.tif"
    found = read(target / "labels" / "seen" if target.is_dir() else beside)
    assert (found.dtype, found.pixel_size_nm) == (np.uint16, image.pixel_size_nm)
    assert np.array_equal(found.array(), image.data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_resumable_run_goes_on_unless_nothing_was_done(tmp_path, image, suffix):
    target = tmp_path / f"a{suffix}"
    with pytest.raises(KeyError):
        written(image, target, stop=0, error=KeyError())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError):
        written(image, target, stop=3, error=KeyError())
    with pytest.raises(KeyError):
        written(image, target, stop=2, error=KeyError(), resume=True)
    assert written(image, target, resume=True).result == 0
    assert list(tmp_path.iterdir()) == [target]
    assert np.array_equal(read(target).array(), image.data)
