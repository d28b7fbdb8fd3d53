"""Whether a check tells models that show what is there from those that do not."""

from check_model import Settings, check, choose_tasks, merge_checks

from napari_semsr.jobs import get_check_figures
from napari_semsr.models import ModelCard, load_model
from tests.tiny_models import write_tiny_model

PLACE = {"name": "p", "architecture": "place", "stride": 2, "receptive_field": 114}


def test_a_check_repeats_by_seed_and_keeps_what_a_card_has(tmp_path):
    model = load_model(write_tiny_model(tmp_path))
    first, again, other = (
        check(model, Settings(8, 128, seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert set(first["discs"]["drawn"]["conditions"]) == {"blur", "fog", "hybrid"}
    known = {"discs": {"given": {"conditions": {}}}, "removals": {"fields": 1}}
    merged = merge_checks(known, first)
    assert merged["discs"] == {**known["discs"], **first["discs"]}
    assert merged["removals"] == known["removals"]
    assert len(get_check_figures({"checks": first})) == 3


def test_a_model_of_light_is_tested_with_removed_objects(tmp_path):
    recipe = {"recipe": {"data": {"sources": {"superlens": 1}}}}
    model = load_model(write_tiny_model(tmp_path, training=recipe))
    found = check(model, Settings(4, 128))
    assert list(found) == ["removals"]
    assert set(found["removals"]["rows"]) == {"model", "light", "linear filter"}
    assert choose_tasks(ModelCard(**PLACE)) == ["superlens"]
