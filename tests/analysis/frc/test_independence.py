import numpy as np
import pytest

from napari_semsr.analysis import FrcOptions, measure_frc
from napari_semsr.analysis.frc.correlation import check_grids
from napari_semsr.analysis.frc.independence import not_independent
from napari_semsr.analysis.frc.map import FrcMapOptions, measure_frc_map
from napari_semsr.core import InputRecord, Micrograph, Provenance, parse_pixel_size, run
from napari_semsr.core.errors import OptionError, ShapeError

IMAGE = np.zeros((64, 64))


def enhanced(source: str, data=IMAGE) -> Micrograph:  # type: ignore[no-untyped-def]
    record = InputRecord(role="image", name="raw", digest=source)
    made = Provenance(job="enhance", inputs=(record,), model_digest="sha256:net")
    return Micrograph(data, provenance=made)


def test_outputs_of_one_acquisition_alone_are_not_independent():
    assert not_independent(enhanced("a"), enhanced("a"))
    assert not_independent(enhanced("a"), None)
    assert not not_independent(enhanced("a"), enhanced("b"))
    assert not not_independent(enhanced("a"), Micrograph(IMAGE))
    assert not not_independent(Micrograph(IMAGE), None)


def test_frc_refuses_them_and_names_what_it_is_told_to_do(make_pair) -> None:
    first, second = make_pair()
    pair = enhanced("a", first), enhanced("a", second)
    refused = measure_frc(*pair)
    assert refused.resolution_px is None
    assert refused.reason == "not-independent"
    told = measure_frc(*pair, FrcOptions(allow_self=True))
    assert told.resolution_px is not None
    assert "repeatability" in told.method


def test_map_marks_every_block(make_pair) -> None:
    first, _ = make_pair((128, 128))
    found = run(measure_frc_map(enhanced("a", first), None, FrcMapOptions(block=64)))
    assert found.reason_counts == {"not-independent": found.blocks}


def test_different_shapes_and_pixel_sizes_are_refused():
    with pytest.raises(ShapeError, match="64x64 px and 64x32 px"):
        check_grids(Micrograph(IMAGE), Micrograph(IMAGE[:, :32]))
    a = Micrograph(IMAGE, pixel_size_nm=parse_pixel_size(10))
    near = Micrograph(IMAGE, pixel_size_nm=parse_pixel_size(10.005))
    far = Micrograph(IMAGE, pixel_size_nm=parse_pixel_size(10.1))
    check_grids(a, near)
    check_grids(a, Micrograph(IMAGE))
    with pytest.raises(OptionError, match="same pixel size"):
        check_grids(a, far)
