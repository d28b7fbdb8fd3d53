import pytest

from napari_semsr.widgets import samples


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (samples.degraded_and_truth, ["truth", "degraded"]),
        (samples.two_exposures, ["first exposure", "second exposure"]),
        (samples.gold_pair, ["gold, 7.1 nm", "gold, 14.2 nm"]),
    ],
    ids=["degraded", "exposures", "gold"],
)
def test_a_sample_is_two_calibrated_layers(draw, names):
    layers = draw()
    assert [attributes["name"] for _, attributes, _ in layers] == names
    for data, attributes, kind in layers:
        assert kind == "image"
        assert data.ndim == 2
        assert attributes["units"] == ("nm", "nm")
