"""What a row was given: a kernel, the truth, pairs, or the degradations themselves.

That of a model follows from the recipe in its card; that of the classical methods
stands here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_semsr.models import list_bundled_models, read_card, resolve_model_path
from napari_semsr.simulation.degrade import BLUR_SIGMA_PX, BLUR_SIZE_PX, Kind
from paper_tables.markdown import paragraphs

BLIND = "blind"
FITTED = "fitted to the truth"
KERNEL = "true kernel"
LEARNT_BLUR = "a learnt blur in place of the second generator"
PAIRS = "pairs"
SAME = "saw these degradations in training"
SAME_STRETCHED = "saw these degradations stretched in training"
SIZE = "size of the true kernel"
STARTED = "started from a bundled model"
UNPAIRED = "unpaired"
LEGEND = {
    BLIND: "told neither the blur nor, in training, the set",
    FITTED: "its coefficients are fitted to the truth of that very image",
    KERNEL: "has the very blur of the set, and knows nothing of haze",
    LEARNT_BLUR: "one generator and a blur, both learnt: not Gao's system",
    PAIRS: "learnt from degraded images, each beside its truth",
    SAME: "its training images were degraded by the very formula of the set",
    SAME_STRETCHED: "the same, but that training images were stretched after the haze",
    SIZE: "begins with a flat kernel as large as that of the set",
    STARTED: "its weights began as those of a model that comes with the package",
    UNPAIRED: "learnt from degraded and from clear images, never of one place",
}
CLASSICAL = {
    "blind deconvolution": BLIND,
    "blind deconvolution, flat kernel": SIZE,
    "Wiener, true kernel": KERNEL,
    "Richardson-Lucy, true kernel": KERNEL,
    "constrained least squares, true kernel": KERNEL,
    "oracle linear filter": FITTED,
}


def given(
    recipe: Mapping[str, Any], kind: Kind | None = None, *, stretched: bool = True
) -> str:
    """Say what a model was given."""
    learnt = {"cycle-gan": UNPAIRED, "blind-spot": "degraded images alone"}
    marks = [learnt.get(recipe["kind"], PAIRS)]
    kernel = (recipe.get("gan") or {}).get("kernel")
    told = False
    if kernel is not None:
        told = not kernel["learnt"]
        marks.append(_kernel_of(kernel, kind) if told else LEARNT_BLUR)
    if _from_bundled(recipe.get("start_from")):
        marks.append(STARTED)
    seen = kind is not None and _saw(recipe, kind)
    if seen:
        marks.append(SAME if stretched else SAME_STRETCHED)
    elif kind is not None and not told:
        marks.append(BLIND)
    return ", ".join(marks)


def given_to_model(
    model: str | Path, kind: Kind | None = None, *, stretched: bool = True
) -> str:
    """Say what a bundled or trained model was given; nothing if its card is silent."""
    recipe = read_card(resolve_model_path(model)).training.get("recipe")
    return "" if recipe is None else given(recipe, kind, stretched=stretched)


def legend(rows: Iterable[str]) -> str:
    """Explain the words that the rows use, and no others."""
    used = {mark for row in rows for mark in row.split(", ")}
    lines = [f"- *{mark}*: {said}." for mark, said in LEGEND.items() if mark in used]
    return paragraphs("What a row was given:", "\n".join(lines)) if lines else ""


def _kernel_of(kernel: Mapping[str, Any], kind: Kind | None) -> str:
    """Tell the true kernel of a set from another."""
    own = kernel["file"] is None and kind in ("blur", "fog")
    same = (kernel["sigma_px"], kernel["size_px"]) == (BLUR_SIGMA_PX, BLUR_SIZE_PX)
    return KERNEL if own and same else "a kernel"


def _from_bundled(start: str | None) -> bool:
    """Tell whether training began with a bundled model, by its name."""
    return start is not None and Path(start).stem in list_bundled_models()


def _saw(recipe: Mapping[str, Any], kind: Kind) -> bool:
    """Tell whether training images were degraded just as a set is.

    The kind ``restorer`` draws faults of its own and uses the degradations to choose a
    checkpoint alone.
    """
    if recipe["kind"] == "restorer" or "images" not in recipe["data"]["sources"]:
        return False
    degradations = recipe["degradations"]
    return bool(degradations["as_paper"] > 0 and degradations[kind] > 0)
