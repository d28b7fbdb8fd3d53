"""What the demonstration says of a model follows from its figures."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import run
from napari_semsr.demonstration.fields import FieldFigures, measure_field
from napari_semsr.demonstration.job import verdict
from napari_semsr.demonstration.runs import LINEAR, TUNED


def image(data) -> Micrograph:
    return Micrograph(np.asarray(data, np.float32), parse_pixel_size(20))


@pytest.fixture(scope="module")
def case() -> dict[str, Micrograph]:
    """A field, two noisy exposures, and restorations that are less noisy."""
    rng = np.random.default_rng(3)
    truth = 100 + 40 * rng.standard_normal((96, 96))
    noise = 30 * rng.standard_normal((2, 96, 96))
    return {
        "Mosaic": image(truth + noise[0]),
        LINEAR: image(truth + 0.8 * noise[0]),
        "net": image(truth + noise[0] / 2),
        TUNED: image(truth + noise[0] / 3),
        "SEM image": image(truth),
        "again": image(truth + noise[1]),
    }


def measured(case: dict[str, Micrograph], **changed: Micrograph) -> FieldFigures:
    images = {k: v for k, v in (case | changed).items() if k != "again"}
    again = "Two mosaics", case["again"]
    return run(measure_field(images, again=again, mapped={"after": "net"}))


def place(figures: FieldFigures, *, kept: bool = True) -> Any:
    return SimpleNamespace(
        measured=figures,
        untouched=SimpleNamespace(report=SimpleNamespace(model="net")),
        trained=SimpleNamespace(kept=kept, steps=7),
        pairs=SimpleNamespace(train=5),
    )


def test_figures_of_a_field_are_against_its_aim(case):
    found = measured(case)
    left = [1600 * noise / (1600 + noise) for noise in (900, 100)]  # after the match
    assert found.after.gain_over(found.before)[0] == pytest.approx(
        10 * np.log10(left[0] / left[1]), abs=0.3
    )
    assert found.aim.cross is None
    assert found.before.label == "Mosaic"
    assert found.after.label == TUNED
    assert list(found.maps) == ["two_exposures", "after"]
    assert found.maps["after"][0] == "net and SEM image"
    # grey levels of all versions are those of the aim
    assert found.after.image.array().mean() == pytest.approx(100, abs=2)


def test_verdict_tells_gains_with_their_errors(case):
    brought, taught = verdict(place(measured(case)))
    assert "net brings the mosaic +" in brought
    assert "the best linear filter brings +" in brought
    assert "7 steps of fine-tuning" in taught
    assert "bring another +" in taught
    assert "±" in taught


def test_verdict_tells_what_did_not_help(case):
    worse = measured(case, **{TUNED: case[LINEAR]})
    _, taught = verdict(place(worse))
    assert "not the half that judges: \N{MINUS SIGN}" in taught
    same = measured(case, **{TUNED: case["net"]})
    _, taught = verdict(place(same, kept=False))
    assert "it was not kept" in taught
