"""De Haan's table: gaps and spectra of gold on carbon, by ``benchmarks/gold.py``."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gold import Score, judge, methods_of, network, percent, pooled

from napari_semsr.simulation import (
    GoldOptions,
    create_gold_rng,
    simulate_random_gold_pair,
)
from paper_tables.spread import Bad, standard_error, worst

_KEPT = (
    "gaps",
    "undetected_percent",
    "width_error_nm",
    "signed_width_error_nm",
    "invented_percent",
    "psnr_db",
)
_BAD: dict[str, Bad] = {
    "undetected_percent": "high",
    "width_error_nm": "high",
    "invented_percent": "high",
    "psnr_db": "low",
}


def measure_gold(
    models: dict[str, Path | str],
    say: Callable[[str], None],
    *,
    fields: int,
    side: int,
    first_seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Judge peers and models on drawn gold.

    Figures by method, with their spread over fields.
    """
    options = GoldOptions()
    asked = argparse.Namespace(no_peers=False, side=side, model=[])
    methods = methods_of(asked, options)
    methods |= {name: network(str(model)) for name, model in models.items()}
    say(f"gold: {fields} fields, {len(methods)} methods")
    pairs = [
        simulate_random_gold_pair(side, create_gold_rng("judging", index), options)
        for index in range(first_seed, first_seed + fields)
    ]
    scores = judge(methods, pairs)
    found = {}
    for name, one in scores.items():
        record = pooled(one.fields)
        found[name] = {figure: record[figure] for figure in _KEPT}
        found[name] |= spread_of(by_field(one), _BAD)
    return found


def by_field(score: Score) -> list[dict[str, float | None]]:
    """Give the figures of each field."""
    return [
        {
            **{name: row[name] for name in ("width_error_nm", "psnr_db")},
            "undetected_percent": percent(row["missed"], row["gaps"]),
            "invented_percent": percent(row["invented"], row["own"]),
        }
        for row in score.fields
    ]


def spread_of(rows: list[dict[str, float | None]], bad: dict[str, Bad]) -> Any:
    """Give standard errors over fields and the worst field, beside pooled figures."""
    columns = {name: [row[name] for row in rows] for name in bad}
    several = len(rows) > 1
    return {
        "se": {name: standard_error(values) for name, values in columns.items()},
        "worst": {
            name: worst(values, bad[name])
            for name, values in columns.items()
            if several
        },
        "fields": len(rows),
    }
