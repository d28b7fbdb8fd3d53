"""Fields whose truth is known, of the kind that a model learnt from."""

from pathlib import Path
from typing import Any

from napari_semsr.core import Float32Array, OptionError
from napari_semsr.models import ModelCard
from napari_semsr.training.patches import ScenePairs
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import SceneDataset

_SHARED = 4  # consecutive places of a recipe may show one sample


class Truths:
    """Pairs of a degraded field and its truth, as a model's own recipe makes them.

    Fields have a side in pixels of the degraded ones, and differ from those of training
    by the seed; the images that the recipe names lie in the folder. An `OptionError` if
    the card tells no recipe, or one whose fields cannot be made again.
    """

    def __init__(
        self, card: ModelCard, *, side: int, seed: int, folder: Path | None = None
    ) -> None:
        told = card.training.get("recipe")
        if not isinstance(told, dict) or told.get("data", {}).get("pairs"):
            msg = (
                f"{card.name} must tell how its pairs were made, and its card does "
                "not: only models of a recipe without a store of pairs can be asked."
            )
            raise OptionError(msg)
        data = {**told.get("data", {})} | {
            "scene_px": side,
            "patch_px": side,
            "patches_per_scene": 1,
            "bank": 0,
            "scanned": 0.0,
            "slow": 0.0,
        }
        if folder is not None:
            data["root"] = str(folder)
        wanted: dict[str, Any] = {**told, "data": data, "seed": seed}
        for name in ("start_from", "local_from"):
            wanted[name] = None
        self.recipe = _parsed(card.name, wanted)
        sources = self.recipe.data.sources
        if sources.get("images") and folder is None:
            msg = (
                f"{card.name} learnt from images; give the folder that has "
                f"{self.recipe.data.train[0].file}."
            )
            raise OptionError(msg)
        self._scenes: SceneDataset | None = None
        if self.recipe.whole_scenes:
            self._scenes = SceneDataset(self.recipe)
        else:
            self._pairs = ScenePairs(self.recipe, card.scale)

    def pair(self, number: int) -> tuple[Float32Array, Float32Array]:
        """Make a field (Y, X) and its truth; each number shows a sample of its own.

        On the scale where the field's percentiles are about 0 and 1.
        """
        if self._scenes is None:
            return self._pairs.pair(_SHARED * number)
        scene = self._scenes[_SHARED * number]
        return scene.low[0].numpy(), scene.high[0].numpy()


def _parsed(name: str, wanted: dict[str, Any]) -> Recipe:
    """Read a recipe that a card tells, of this version or an earlier one."""
    known = {key: value for key, value in wanted.items() if key in Recipe.model_fields}
    known["gan"] = {}  # of no matter for the fields, and changed most between versions
    try:
        return Recipe.parse(known)
    except OptionError as error:
        msg = f"The recipe on the card of {name} cannot be read: {error}"
        raise OptionError(msg) from error
