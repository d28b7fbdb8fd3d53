"""Sun's, Wang's and de Haan's tables in markdown."""

from typing import Any

from paper_tables.markdown import number, table
from paper_tables.spread import cells
from paper_tables.theirs import HAAN, SUN_GAIN_DB

NAMES = {"linear": "oracle linear filter", "optical": "optical image"}

_CLEARLY = 0.05  # of all gaps
_SURE = """
± is the standard error over fields, and the worst field stands in brackets; resolutions
are medians, and a field without one is worse than any.
""".strip()
_FIELDS = """
{count} fields of each size, which differ in noise and in how the objects lie on the
pixels: ± is the standard error over them, and the worst share is told where it differs.
""".strip()
_GROUPS = {
    "in focus": "Held-out fields of every kind, in focus",
    "any focus": "Held-out fields of every kind, any focus and any noise learnt from",
    "chip": "Chip with 80 nm lines, 60 nm high, in focus",
}


def fields(groups: dict[str, Any]) -> str:
    """Write PSNR, SSIM and resolution, groups of fields one below another."""
    head = (
        "image | PSNR, dB | gain, dB | SSIM | cross-FRC, nm | median of the FRC map, "
        "nm | blocks with an answer, % | grey levels: distance"
    )
    theirs = ", ".join(number(gain, 2, sign=True) for gain in SUN_GAIN_DB)
    sun = "*Sun et al.: theirs, on their data*", "", theirs
    parts = [_SURE]
    for group, rows in groups.items():
        count = next(iter(rows.values()))["fields"]
        called = _GROUPS[group]
        parts.append(f"**{called}** ({count} fields)")
        lines = [_field_row(name, r) for name, r in rows.items()]
        parts.append(table(head, [*lines, [*sun, *[""] * 5]]))
    return "\n\n".join(parts)


def _field_row(name: str, r: dict[str, Any]) -> list[str]:
    gain = [""] if name == "optical" else cells(r, "gain_db 2+")
    rest = ("ssim 3", "resolution_nm 0", "map_median_nm 0", "map_answered 0", "emd 1")
    return [NAMES.get(name, name), *cells(r, "psnr_db 2"), *gain, *cells(r, *rest)]


def sizes(series: dict[str, Any]) -> str:
    """Write dips and shares of resolved gaps by size, lines and discs."""
    first = next(iter(next(iter(series.values())).values()), {})
    count = next(iter(first.values()), {}).get("fields")
    parts = [_FIELDS.format(count=count)] if count else []
    for form, rows in series.items():
        names = list(next(iter(rows.values())))
        head = ["nm", *(NAMES.get(name, name) for name in names)]
        lines = [[s, *(_dip(row[n]) for n in names)] for s, row in rows.items()]
        parts += [f"**{form.capitalize()}**", table(head, lines)]
    return "\n\n".join(parts)


def fewer(series: dict[str, Any]) -> str:
    """Say which models show clearly fewer gaps than the image that they were given."""
    found: dict[str, list[str]] = {}
    for form, rows in series.items():
        for name in next(iter(rows.values())):
            worse = [
                size
                for size, row in rows.items()
                if row[name]["resolved"] < row["optical"]["resolved"] - _CLEARLY
            ]
            if worse and name not in ("optical", "linear", "truth"):
                found.setdefault(name, []).append(f"{form} of {', '.join(worse)} nm")
    told = [f"`{name}` ({'; '.join(where)})" for name, where in found.items()]
    if not told:
        return ""
    return f"Fewer gaps than the optical image itself shows: {', '.join(told)}."


def _dip(found: dict[str, Any]) -> str:
    error = found.get("se", {}).get("dip")
    sure = "" if error is None else f" ± {error:.2f}"
    share = f"{100 * found['resolved']:.0f} %"
    least = f"{100 * found.get('worst', found)['resolved']:.0f} %"
    if least != share:
        share += f", worst {least}"
    return f"{found['dip']:.2f}{sure} ({share})"


def gold(rows: dict[str, Any]) -> str:
    """Write gap statistics and spectra."""
    head = (
        "method | undetected gaps, % | width error, nm | signed, nm | invented gaps, % "
        "| width by a Gaussian, nm | PSNR, dB | SSIM | amplitude over the truth's, by "
        "band | correlation with the truth, by band"
    )
    gaps = ("undetected_percent 1", "width_error_nm 2", "signed_width_error_nm 2+")
    lines = []
    for name, r in rows.items():
        if "undetected_percent" not in r:  # the truth, whose gaps alone are known
            lines.append([name, *[""] * 4, gaussian(r), *[""] * 4])
            continue
        bands = (
            " ".join(number(v, 2) for v in r[f"{what}_in_bands"])
            for what in ("amplitude", "correlation")
        )
        own = [*cells(r, *gaps, "invented_percent 1"), gaussian(r)]
        lines.append([name, *own, *cells(r, "psnr_db 2", "ssim 3"), *bands])
    for name, (missed, error) in HAAN.items():
        said = f"*de Haan et al., {name}: theirs, on their data*"
        lines.append([said, number(missed, 1), number(error, 1), *[""] * 7])
    return table(head, lines)


def gaussian(r: dict[str, Any]) -> str:
    """Write the mean of the Gaussian that was fitted to the widths of gaps."""
    fit = r.get("gaussian")
    if not fit:
        return number(None, 1)
    return f"{number(fit['mean_nm'], 2)} ± {number(fit['error_nm'], 2)}"
