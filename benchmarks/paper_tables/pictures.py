"""Pictures of benchmarks/paper_tables/tables.md, drawn from what was measured."""

from pathlib import Path
from typing import Any

from _shared import picture

from paper_tables.frc_maps import draw_maps
from paper_tables.gap_widths import draw_widths
from paper_tables.page_lens import NAMES
from paper_tables.profiles import draw_profiles

_GROUP = "in focus"


def draw_pictures(folder: Path, results: dict[str, Any]) -> None:
    """Draw what there are figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    if "profiles" in results:
        draw_profiles(folder / "results-superlens.png", results["profiles"])
    if "frc_maps" in results:
        draw_maps(folder / "results-frc-maps.png", results["frc_maps"]["shown"])
    if "truth" in results.get("gold", {}):
        draw_widths(folder / "results-gaps.png", results["gold"])
    points = tradeoff_points(results)
    if points:
        draw_tradeoff(folder / "results-tradeoff.png", points)


def tradeoff_points(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Give gain and resolution of each superlens model, fields in focus."""
    return [
        {
            "name": NAMES.get(name, name),
            "gain_db": row["gain_db"],
            "error_db": row.get("se", {}).get("gain_db") or 0.0,
            "resolution_nm": row["resolution_nm"],
            "model": name not in NAMES,
        }
        for name, row in results.get("superlens", {}).get(_GROUP, {}).items()
        if row["resolution_nm"] is not None
    ]


def draw_tradeoff(path: Path, points: list[dict[str, Any]]) -> None:
    """Draw gain in PSNR against cross-FRC; better is right and up."""
    from matplotlib.ticker import ScalarFormatter

    with picture(path, 1, 1, figsize=(6.4, 4.2)) as (_, axis):
        for point in points:
            at = point["gain_db"], point["resolution_nm"]
            colour = "tab:red" if point["model"] else "0.45"
            axis.errorbar(
                *at, xerr=point["error_db"], fmt="o", color=colour, ms=5, lw=0.8
            )
            axis.annotate(
                point["name"], at, (5, 5), textcoords="offset points", fontsize=7
            )
        axis.set_yscale("log")
        axis.invert_yaxis()
        axis.margins(0.15)
        axis.set_xlabel("gain in matched PSNR over the optical image, dB")
        axis.set_ylabel("cross-FRC to the electron image, nm (finer is up)")
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(ScalarFormatter())
        axis.tick_params(which="both", labelsize=7)
