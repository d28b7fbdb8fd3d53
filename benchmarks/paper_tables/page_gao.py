"""Gao's tables in markdown: sets A, B, C; sharpness without a reference."""

from typing import Any

from paper_tables.markdown import number, paragraphs, plus_minus, table
from paper_tables.theirs import GAO_SHORT, GAO_TABLE_1, GAO_TABLE_2

Sets = dict[str, dict[str, dict[str, Any]]]
THEIRS = "*Gao et al., {}: theirs, on their data*"
_DEGRADED = "degraded"
_HEAD_1 = (
    "method | given | SSIM, K₂ = 0.03 | SSIM, K₂ = 0.02 | the same, matched | "
    "PSNR as is, dB | gain as is, dB | PSNR matched, dB | gain matched, dB | "
    "worst image, gain matched, dB"
)


def similarity(sets: Sets, *, stretched: bool = True) -> str:
    """Write table 1: SSIM and PSNR, a table for each set; theirs beside the first.

    The paper's figures stand beside the sets that are stretched, the reading that comes
    nearest to them.
    """
    parts = []
    for name, rows in sets.items():
        images = int(rows[_DEGRADED]["images"])
        called = f"**Set {name}, {GAO_SHORT[name]}**"
        if not stretched:
            called = f"**Set {name}, not stretched, {GAO_SHORT[name]}**"
        parts.append(f"{called} ({images} images)")
        cells = [_own_row(method, r) for method, r in rows.items() if method != "truth"]
        theirs = _their_rows(name) if stretched else []
        parts.append(table(_HEAD_1, [*cells, *theirs], text=2))
    return paragraphs(*parts)


def _mean(row: dict[str, Any], name: str, digits: int, *, sign: bool = False) -> str:
    """Write a mean over images and its standard error."""
    return plus_minus(row.get(name), row.get(f"{name}_se"), digits, sign=sign)


def _own_row(method: str, r: dict[str, Any]) -> list[str]:
    before = method == _DEGRADED
    return [
        method,
        str(r.get("given", "")),
        _mean(r, "ssim", 3),
        _mean(r, "ssim_gao", 3),
        _mean(r, "ssim_gao_matched", 3),
        _mean(r, "psnr", 2),
        "" if before else _mean(r, "gain_as_is", 2, sign=True),
        _mean(r, "psnr_matched", 2),
        "" if before else _mean(r, "gain", 2, sign=True),
        "" if before else number(r["worst_gain"], 2, sign=True),
    ]


def _their_rows(name: str) -> list[list[str]]:
    """Give the paper's rows, whose PSNR is taken as it is."""
    before = GAO_TABLE_1[name][_DEGRADED][1]
    return [
        [
            THEIRS.format(method),
            "",
            "",
            number(ssim, 3),
            "",
            number(psnr, 2),
            "" if method == _DEGRADED else number(psnr - before, 2, sign=True),
            *[""] * 3,
        ]
        for method, (ssim, psnr) in GAO_TABLE_1[name].items()
    ]


def sharpness(sets: Sets) -> str:
    """Write table 2: AG, CON and SF, the sets side by side, with the least image."""
    methods = list(dict.fromkeys(m for rows in sets.values() for m in rows))
    methods.sort(key=lambda method: method == "truth")
    head = ["method", *(f"{m}, {s}" for s in sets for m in ("AG", "CON", "SF"))]
    cells = []
    for method in methods:
        row = [method]
        for rows in sets.values():
            found = rows.get(method, {})
            row += [_least(found, n, d) for n, d in (("ag", 2), ("con", 1), ("sf", 2))]
        cells.append(row)
    for method in GAO_TABLE_2["A"]:
        row = [THEIRS.format(method)]
        for name in sets:
            ag, con, sf = GAO_TABLE_2[name][method]
            row += [number(ag, 2), number(con, 1), number(sf, 2)]
        cells.append(row)
    return table(head, cells)


def _least(row: dict[str, Any], name: str, digits: int) -> str:
    """Write a mean, its standard error and in brackets the least image."""
    least = row.get(f"{name}_least")
    said = _mean(row, name, digits)
    return said if least is None else f"{said} ({number(least, digits)})"
