from pathlib import Path

import pytest

from napari_semsr.widgets import hooks as samples


@pytest.mark.quick(1)
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


@pytest.mark.broad
def test_one_place_is_shown_by_light_and_by_electrons():
    (mosaic, light, _), (view, beam, _) = samples.optical_and_sem()
    assert [light["name"], beam["name"]] == ["optical mosaic", "SEM image"]
    assert light["units"] == beam["units"] == ("nm", "nm")
    assert beam["scale"] == pytest.approx((8, 8))
    assert min(mosaic.shape) > 300 < min(view.shape)
    stores = [Path(about["metadata"]["semsr store"]) for about in (light, beam)]
    assert all(store.exists() for store in stores)
    assert (stores[1].parents[1] / "truth" / "view.json").is_file()
