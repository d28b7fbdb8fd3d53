"""Sections of the demonstration on what was run, and on what."""

from collections.abc import Sequence
from typing import Any

from napari_semsr.core.provenance import software_versions
from napari_semsr.services.demo_sem import Half
from napari_semsr.services.enhance import EnhancedFile
from napari_semsr.services.report_blocks import Facts, Text
from napari_semsr.services.report_text import fixed

__all__ = ["show_provenance", "show_run"]


def show_run(made: EnhancedFile) -> list[Text | Facts]:
    """Tell what the engine says of itself.

    Parameters
    ----------
    made : EnhancedFile
        What the enhancement wrote and cost.

    Returns
    -------
    list of Block
        Contents of the section.
    """
    report = made.report
    pairs = (
        ("Model", str(report.model)),
        ("Tiles", str(report.tiles)),
        ("Time", f"{fixed(report.seconds, 2)} s"),
        ("Speed", f"{fixed(report.megapixels_per_second, 2)} megapixel/s"),
        ("Peak memory", f"{fixed(report.peak_memory_mb, 0)} MB"),
        ("Device, precision", f"{report.device}, {report.precision}"),
        ("Tile mismatch", _tiny(report.tile_mismatch)),
        ("Seam index", fixed(report.seam_index, 3)),
    )
    told = (
        "Tiles carry a halo as wide as the network's measured receptive field, so the "
        "result does not depend on where they are cut. Tile mismatch is how far two "
        "neighbours differ on the same pixels, over the range of grey levels; a seam "
        "index near 1 means that steps across tile borders are like those beside them."
    )
    return [Text((told,)), Facts(pairs)]


def show_provenance(halves: Sequence[Half], options: dict[str, Any]) -> Facts:
    """Tell what made the page.

    Parameters
    ----------
    halves : sequence of Half
        What was made.
    options : dict
        What the demonstration was asked for.

    Returns
    -------
    Facts
        Options, digests of models and inputs, versions.
    """
    asked = {**options, **_flat(halves[0].made.provenance.options)}
    pairs = [(f"Option {name}", str(value)) for name, value in asked.items()]
    pairs.append(("Model digest", str(halves[0].made.provenance.model_digest)))
    for half in halves:
        pairs += [
            (f"Digest of {item.name}", str(item.digest))
            for item in half.made.provenance.inputs
        ]
    pairs += [(f"Version of {n}", v) for n, v in software_versions().items()]
    return Facts(tuple(pairs))


def _tiny(value: float | None) -> str:
    """Say a share that may be zero or very small."""
    if value is None:
        return "\N{EN DASH}"
    return "0" if value == 0 else f"{value:.1e}"


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Lay nested options side by side, those that nobody chose left out."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            found |= {f"{name} {key}": item for key, item in _flat(value).items()}
        elif value is not None:
            found[name] = value
    return found
