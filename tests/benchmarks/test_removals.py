import pytest
from _removals import (
    LIGHT,
    SUPERLENS,
    ChangedSample,
    MicroscopePair,
    RemovalCount,
    count_removals,
    simulate_circuits,
)

from napari_semsr.core.progress import run
from napari_semsr.jobs.adapt.areas import LINEAR

SIDE = 128


@pytest.fixture(scope="module", params=[1, 2])
def twice(request):
    (surface,) = simulate_circuits(SIDE, count=1, seed=3)
    instrument = MicroscopePair(SUPERLENS, SIDE, request.param, 3, 0)
    return ChangedSample.create(surface, instrument, (8, 8))


def test_the_truth_shows_all_and_draws_nothing_that_was_removed(twice):
    assert len(twice.inserted_discs) >= 2
    assert len(twice.erased_discs) >= 2
    count = len(twice.inserted_discs) + len(twice.erased_discs)

    def judge(*images):
        left = list(images)
        return [
            int(found.sum())
            for found in twice.find_shown_objects(lambda _: left.pop(0))
        ]

    before, after = twice.truths
    assert judge(before, after) == [count, 0]
    assert judge(5 - 2 * before, 5 - 2 * after) == [count, 0]  # of any grey scale
    assert judge(0 * before, 0 * after) == [0, 0]
    # blind to the removal: what was removed is drawn, what was put in is missed
    assert judge(before, before) == [len(twice.erased_discs)] * 2


def test_light_and_a_linear_filter_are_counted_next_to_a_model():
    lights = []

    def enhance(light):
        lights.append(light.array())
        return light.array()

    surfaces = simulate_circuits(96, count=8, seed=1)
    found = run(count_removals({"same": enhance}, surfaces, side=96, objects=4))
    assert found.get_counts("same") == found.get_counts(LIGHT)
    assert set(found.light_tells) == {"same", LIGHT, LINEAR}
    [count] = {found.get_counts(name)["all"].objects for name in found.light_tells}
    assert count >= 4
    assert len(lights) == 2 * found.fields


def test_no_share_is_given_below_forty_places():
    few = RemovalCount(objects=39, shown=30, drawn=3)
    assert few.to_json()["drawn_percent"] is None
    assert few.to_json()["j_interval"] is None
    enough = few + RemovalCount(objects=61, shown=50, drawn=7)
    made = enough.to_json()
    assert (made["shown_percent"], made["drawn_percent"]) == (80, 10)
    assert made["drawn_interval"] == (5.52, 17.44)  # Wilson
    assert made["j_points"] == 70
    assert made["j_interval"] == pytest.approx((58.41, 78.03), abs=0.02)
