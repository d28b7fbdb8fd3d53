"""Gao's tables in markdown: sets A, B, C; sharpness without a reference; edge loss."""

from typing import Any

from paper_tables.markdown import DASH, number, paragraphs, table
from paper_tables.theirs import GAO_SHORT, GAO_TABLE_1, GAO_TABLE_2

__all__ = ["ablation", "sharpness", "similarity"]

Sets = dict[str, dict[str, dict[str, float]]]
THEIRS = "*Gao et al., {}: theirs, on their data*"
_DEGRADED = "degraded"


def similarity(sets: Sets) -> str:
    """Write table 1: SSIM and PSNR, a table for each set."""
    parts = []
    for name, rows in sets.items():
        images = int(rows[_DEGRADED]["images"])
        parts.append(f"**Set {name}, {GAO_SHORT[name]}** ({images} images)")
        cells = [
            [
                method,
                number(r["ssim"], 3),
                number(r["ssim_gao"], 3),
                number(r["ssim_gao_matched"], 3),
                number(r["psnr"], 2),
                number(r["psnr_matched"], 2),
                "" if method == _DEGRADED else number(r["gain"], 2, sign=True),
                "" if method == _DEGRADED else number(r["worst_gain"], 2, sign=True),
            ]
            for method, r in rows.items()
            if method != "truth"
        ]
        parts.append(table(_HEAD_1, [*cells, *_their_rows(name)]))
    return paragraphs(*parts)


_HEAD_1 = (
    "method",
    "SSIM, K₂ = 0.03",
    "SSIM, K₂ = 0.02",
    "the same, matched",
    "PSNR as is, dB",
    "PSNR matched, dB",
    "gain, dB",
    "worst image, dB",
)


def _their_rows(name: str) -> list[list[str]]:
    before = GAO_TABLE_1[name][_DEGRADED][1]
    return [
        [
            THEIRS.format(method),
            "",
            number(ssim, 3),
            "",
            number(psnr, 2),
            "",
            "" if method == _DEGRADED else number(psnr - before, 2, sign=True),
            "",
        ]
        for method, (ssim, psnr) in GAO_TABLE_1[name].items()
    ]


def sharpness(sets: Sets) -> str:
    """Write table 2: AG, CON and SF, the sets side by side."""
    methods = list(dict.fromkeys(m for rows in sets.values() for m in rows))
    methods.sort(key=lambda method: method == "truth")
    head = ["method", *(f"{m}, {s}" for s in sets for m in ("AG", "CON", "SF"))]
    cells = []
    for method in methods:
        row = [method]
        for rows in sets.values():
            found = rows.get(method, {})
            row += [number(found.get("ag"), 2), number(found.get("con"), 1)]
            row.append(number(found.get("sf"), 2))
        cells.append(row)
    for method in GAO_TABLE_2["A"]:
        row = [THEIRS.format(method)]
        for name in sets:
            ag, con, sf = GAO_TABLE_2[name][method]
            row += [number(ag, 2), number(con, 1), number(sf, 2)]
        cells.append(row)
    return table(head, cells)


def ablation(rows: dict[str, Any], steps: dict[str, int | None]) -> str:
    """Write the weights of the edge loss beside what each gives on set A."""
    head = ("weight", "steps", "SSIM, K₂ = 0.02", "PSNR matched, dB", "gain, dB", "AG")
    cells = [
        [
            f"{name} (no edge loss)" if float(name) == 0 else name,
            str(steps.get(name) or DASH),
            number(r["ssim_gao"], 3),
            number(r["psnr_matched"], 2),
            number(r["gain"], 2, sign=True),
            number(r["ag"], 2),
        ]
        for name, r in rows.items()
    ]
    return table(head, cells)
