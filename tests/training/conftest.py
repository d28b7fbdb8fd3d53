"""What the trainings of these tests are judged by."""

import numpy as np
import pytest

from napari_semsr.training import validation


@pytest.fixture
def one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge by one small pair, and not by the images of the recipe."""
    grey = np.random.default_rng(0).integers(0, 255, (32, 30)).astype(np.uint8)
    pairs = [validation.ValidationPair("blur", grey // 2, grey)]
    monkeypatch.setattr(validation, "create_validation_pairs", lambda _recipe: pairs)
