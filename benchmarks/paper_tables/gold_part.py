"""De Haan's table: gaps and spectra of gold on carbon, by ``benchmarks/gold.py``."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gold import judge, methods_of, network

from napari_semsr.simulation.phantoms.gold import (
    GoldOptions,
    gold_rng,
    random_gold_pair,
)

__all__ = ["measure_gold"]

_KEPT = (
    "gaps",
    "undetected_percent",
    "undetected_spread_percent",
    "width_error_nm",
    "signed_width_error_nm",
    "invented_percent",
    "psnr_db",
    "ssim",
    "amplitude_in_bands",
    "correlation_in_bands",
)


def measure_gold(
    models: dict[str, Path | str],
    say: Callable[[str], None],
    *,
    fields: int,
    side: int,
) -> dict[str, dict[str, Any]]:
    """Judge peers and models on drawn gold.

    Parameters
    ----------
    models : dict
        Model files and bundled models by what they are called.
    say : callable
        Told what is done.
    fields, side : int
        How many fields, and their side in coarse pixels.

    Returns
    -------
    dict
        Figures by method.
    """
    options = GoldOptions()
    asked = argparse.Namespace(no_peers=False, side=side, model=[])
    methods = methods_of(asked, options)
    methods |= {name: network(str(model)) for name, model in models.items()}
    say(f"gold: {fields} fields, {len(methods)} methods")
    pairs = [
        random_gold_pair(side, gold_rng("judging", index), options)
        for index in range(fields)
    ]
    scores, _ = judge(methods, pairs)
    found = {}
    for name, one in scores.items():
        record = one.record()
        found[name] = {figure: record[figure] for figure in _KEPT}
    return found
