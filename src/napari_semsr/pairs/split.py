"""Three sets of patches such that no pixel of one lies within a patch of another."""

from collections.abc import Sequence

import numpy as np

from napari_semsr.core.errors import OptionError
from napari_semsr.pairs.cut import Place
from napari_semsr.pairs.options import SPLITS, PairOptions

__all__ = ["split"]


def split(
    places: Sequence[Place], options: PairOptions, *, salt: int = 0
) -> dict[str, list[Place]]:
    """Deal blocks of patches out to the three sets.

    All patches of a block go to one set, and blocks share no pixel. The dealing is a
    draw that depends on the seed alone.

    Parameters
    ----------
    places : sequence of Place
        Patches that passed.
    options : PairOptions
        Shares and seed.
    salt : int, default=0
        Makes a second draw of the same seed another one.

    Returns
    -------
    dict
        Patches by set, in the order of `SPLITS`, shuffled.

    Raises
    ------
    OptionError
        If there are fewer blocks than sets that must not be empty.
    """
    blocks: dict[tuple[int, tuple[int, int]], list[Place]] = {}
    for place in places:
        blocks.setdefault((place.source, place.block), []).append(place)
    wanted = [name for name in SPLITS if options.shares[name] > 0]
    if len(blocks) < len(wanted):
        msg = (
            f"{len(wanted)} disjoint sets need at least {len(wanted)} separate patches "
            f"of {options.patch} px, got {len(blocks)}: lower --patch or --step, or "
            "set --validation 0 and --test 0."
        )
        raise OptionError(msg)
    rng = np.random.default_rng([options.seed, salt])
    keys = sorted(blocks)
    order = [keys[i] for i in rng.permutation(len(keys))]
    found: dict[str, list[Place]] = {}
    for name in reversed(SPLITS):
        share = options.shares[name]
        count = len(order) if name == "train" else round(share * len(keys))
        if name != "train" and share > 0:
            count = max(1, count)
        left = 1 if name != "train" else 0
        count = min(count, max(len(order) - left, 0))
        taken, order = order[:count], order[count:]
        members = [place for key in taken for place in blocks[key]]
        found[name] = [members[i] for i in rng.permutation(len(members))]
    return {name: found[name] for name in SPLITS}
