"""The job: calibrated output with its history, resumable, the same by every way."""

import numpy as np
import pytest
import tifffile

import napari_semsr
from napari_semsr.core import IncompleteError, Micrograph, WriteError, run
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import RESTORE
from napari_semsr.restoration.method import RestoreOptions
from tests.refusals import refused, warned
from tests.stopping import stop_at
from tests.widgets.scenes import edges


def test_memory_store_and_file_agree(scene, tmp_path):
    options = {"method": "wiener", "psf": "10nm", "tile": 64}
    memory = napari_semsr.restore(scene.first, **options)
    store = napari_semsr.restore(scene.first, tmp_path / "a.ome.zarr", **options)
    file = napari_semsr.restore(scene.first, tmp_path / "a.tif", **options)
    assert store.tiles == 4
    assert store.parameters["psf"]["sigma_px"] == [1, 1]
    for made in (store, file):
        image = napari_semsr.read(made.output)
        np.testing.assert_array_equal(image.array(), memory.array())
        assert image.pixel_size_nm == scene.first.pixel_size_nm
        assert image.provenance.options["psf"] == "10nm"


def test_interrupted_store_is_refused_then_resumed(scene, tmp_path):
    path = tmp_path / "a.ome.zarr"
    how = {"options": RestoreOptions(psf="1px", tile=32)}
    stop_at(RESTORE.job(scene.first, path, **how), "Restoring tiles", 5)
    with refused(IncompleteError, "incomplete"):
        napari_semsr.read(path)
    other = RestoreOptions(psf="2px", tile=32)
    with refused(WriteError, "other-run"):
        run(RESTORE.job(scene.first, path, options=other, resume=True))
    run(RESTORE.job(scene.first, path, **how, resume=True))
    whole = napari_semsr.restore(scene.first, psf="1px", tile=32)
    np.testing.assert_array_equal(napari_semsr.read(path).array(), whole.array())


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", ["wiener", "richardson-lucy"])
def test_kernel_file_of_other_pixels_and_off_its_middle_is_the_same_blur(
    scene, method, tmp_path
):
    y, x = np.mgrid[-20:21, -20:21]
    point = np.exp(-((y - 5) ** 2 + (x + 3) ** 2) / (2 * 4.0**2))  # 20 nm
    size = (5.0, 5.0)  # the image has 10 nm
    napari_semsr.write(Micrograph(point, size, "point"), tmp_path / "point.tif")
    how = {"method": method, "psf": str(tmp_path / "point.tif")}
    made = napari_semsr.restore(scene.first, **how).array()
    known = napari_semsr.restore(scene.first, method=method, psf="20nm").array()
    assert np.abs(made - known).max() < 0.02 * np.ptp(known)


def test_integers_are_rounded_and_clipped(scene, tmp_path):
    how = {"psf": "1px", "dtype": "uint8"}
    with warned("values-rounded", match="uint8"):
        made = napari_semsr.restore(scene.first, tmp_path / "a.tif", **how)
    assert napari_semsr.read(made.output).dtype == np.uint8
    bright = scene.first.replace(data=scene.first.array() * 400)
    again = napari_semsr.restore(bright, tmp_path / "b.tif", **how)
    assert again.clipped > 0


@pytest.mark.parametrize(
    ("method", "option"),
    [("wiener", {"iterations": 50}), ("cls", {"tv": 0.05}), ("blind", {"balance": 10})],
)
def test_options_of_other_methods_are_told_and_left_out(scene, method, option):
    (name,) = option
    image = scene.first.replace(data=edges(scene.first.shape))
    with warned("option-without-effect", match=f"`{name}` .*`method` .* {method}"):
        made = napari_semsr.restore(image, psf="1px", method=method, **option)
    assert made.provenance.options[name] != option[name]


def test_stack_goes_plane_by_plane(scene, tmp_path):
    planes = np.stack([scene.first.data, scene.second.data])
    path, out = tmp_path / "stack.tif", tmp_path / "out.ome.tif"
    tifffile.imwrite(path, planes, metadata={"axes": "ZYX"}, imagej=True)
    how = {
        "options": RestoreOptions(psf="1px"),
        "opening": ReadOptions(pixel_size_nm=10),
    }
    steps = []
    made = run(RESTORE.job(path, out, **how), steps.append)
    assert made.shape == (2, 96, 128)
    shares = [one.fraction for one in steps if one.message.startswith("Restoring")]
    assert shares == sorted(shares)  # planes are counted together
    assert 0.5 in shares
    for plane, image in enumerate((scene.first, scene.second)):
        found = napari_semsr.read(out, plane=plane)
        alone = napari_semsr.restore(image, psf="1px")
        np.testing.assert_allclose(found.array(), alone.array(), atol=1e-5)
    with refused(WriteError, "format-unsupported", match="2 planes"):
        napari_semsr.restore(path, tmp_path / "a.ome.zarr")


def test_microscope_of_a_simulation_tells_the_blur(scene, tmp_path):
    path = tmp_path / "microscope.json"
    path.write_text('{"psf_fwhm_px": 2.0, "pixel_size_nm": [20.0, 20.0]}')
    made = napari_semsr.restore(scene.first, psf=str(path))
    sigma = made.metadata["restore"]["psf"]["sigma_px"]
    assert sigma == pytest.approx([40 / 2.3548 / 10] * 2, rel=1e-3)
    for text, code in (("{}", "missing-value"), ("{", "content-invalid")):
        path.write_text(text)
        with refused(napari_semsr.SemsrError, code):
            napari_semsr.restore(scene.first, psf=str(path))
