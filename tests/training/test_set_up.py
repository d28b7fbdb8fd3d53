"""Weights that a new network takes over from a model with other parts around them."""

from typing import Any

import pytest
import torch

from napari_semsr.models.checkpoint import load_model
from napari_semsr.training.fit import first_network
from napari_semsr.training.recipe import Recipe

MEDIUM: dict[str, Any] = {"width": 48, "fine_blocks": 2, "dilations": [1, 2, 1]}


@pytest.mark.parametrize("architecture", ["two-scale", "deblurred"])
def test_the_part_that_both_have_is_taken_over(architecture: str) -> None:
    recipe = Recipe(
        name="a",
        kind="supervised",
        architecture=architecture,
        architecture_options=MEDIUM,
        start_from="sem-restore-medium",
        data={"pairs": "p.zarr"},
    )
    network = first_network(recipe)
    taken = getattr(network, "corrector", network).state_dict()
    given = load_model("sem-restore-medium").module.local.state_dict()
    assert taken.keys() == given.keys()
    assert all(torch.equal(taken[name], given[name]) for name in given)
