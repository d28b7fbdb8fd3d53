"""De Haan's gap statistics on real gold: noisy scans beside clean ones.

Each pair of `dwell_pairs` is registered as ``benchmarks/restorer.py`` does it,
elastically and to a fraction of a pixel; both are cut to what both show. The reference
is the clean scan (50 lines averaged), which has noise of its own. The Gaussian has,
pair by pair, the width that comes nearest to the reference in PSNR: that is known in
hindsight only. ``sem-restore`` was developed on these pairs and learnt from others of
the same microscope, so none of this is a final judgement.

``PYTHONPATH=benchmarks python -m paper_tables.real_gold --rows FILE`` judges the model
that ``make tables`` trained and the default, and keeps a row for each image of each
pair.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _restoration import psnr_db
from _shared import Rows, read_options
from numpy.typing import NDArray
from restorer import PIXEL_NM, Judge, common, real_pairs, restored
from scipy import ndimage

from napari_semsr.analysis import measure_gaps
from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.models import load_model
from paper_tables.markdown import number, table
from paper_tables.plan import ROOT, RUNS
from paper_tables.spread import Bad, cells, with_spread

Image = NDArray[np.float64]
Say = Callable[[str], None]
SHARED = ROOT.parent / "shared" / "data"
NARROW_NM = 80.0  # 14 px; chosen: about the narrowest fifth, where blur tells first
SIGMAS_PX = (0.6, 0.9, 1.2, 1.6, 2.0, 2.6, 3.3, 4.1)
_BAD: dict[str, Bad] = {
    "undetected_percent": "high",
    "width_error_nm": "high",
    "signed_width_error_nm": "high",
    "invented_percent": "high",
    "psnr_db": "low",
}


def best_gaussian(noisy: Image, clean: Image) -> Image:
    """Smooth by the Gaussian that comes nearest to the clean scan."""
    made = [ndimage.gaussian_filter(noisy, sigma) for sigma in SIGMAS_PX]
    return max(made, key=lambda image: psnr_db(image, clean))


def gap_row(image: Image, clean: Image) -> dict[str, float | None]:
    """Hold the gaps of an image against those of the clean scan.

    Gaps of the reference; the share of them that is not shown, errors of width of the
    others, and the share of the image's own gaps that the reference has not. Of narrow
    ones their number, and the sum of the errors of those that are shown.
    """
    size = parse_pixel_size(PIXEL_NM)
    made, true = (Micrograph(part.astype(np.float32), size) for part in (image, clean))
    found = run(measure_gaps(made, true))
    errors = found.compute_width_errors("nm")
    known = [g.reference_nm for g in found.found_gaps if g.reference_nm is not None]
    narrow = [g for g in found.found_gaps if (g.reference_nm or np.inf) < NARROW_NM]
    both = [(g.width_nm, g.reference_nm) for g in narrow]
    missed = len(found.found_gaps) - found.detected
    return {
        "gaps": len(found.found_gaps),
        "narrow": len(narrow),
        "narrow_missed": sum(not g.detected for g in narrow),
        "narrow_error_nm": sum(abs(a - b) for a, b in both if a and b),
        "narrow_known": sum(a is not None for a, _ in both),
        "reference_nm": float(np.mean(known)) if known else None,
        "undetected_percent": 100 * missed / max(len(found.found_gaps), 1),
        "width_error_nm": float(np.abs(errors).mean()) if errors.size else None,
        "signed_width_error_nm": float(errors.mean()) if errors.size else None,
        "invented_percent": 100 * (found.invented_fraction or 0.0),
    }


def measure_pairs(
    judges: dict[str, Judge], say: Say, *, pairs: int, data: Path
) -> Iterator[tuple[str, str, dict[str, float | None]]]:
    """Give of each pair and each image of it what its gaps are like."""
    for called, noisy, registered, _ in islice(real_pairs(data), pairs):
        say(f"real gold: {called}")
        place = common(noisy, registered)
        clean = registered[place]
        made = {
            "noisy scan": noisy[place],
            "Gaussian, best width": best_gaussian(noisy[place], clean),
        }
        made |= {name: restored(noisy, judge)[place] for name, judge in judges.items()}
        for name, image in made.items():
            row = {**gap_row(image, clean), "psnr_db": psnr_db(image, clean)}
            yield called, name, row


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put the rows of each kind of image together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        values = {k: v for k, v in row.items() if k not in ("pair", "image")}
        found.setdefault(row["image"], []).append(values)
    return {name: _summary(some) for name, some in found.items()}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Put pairs together."""
    found = with_spread(rows, _BAD)
    signed = [abs(row["signed_width_error_nm"] or 0.0) for row in rows]
    if len(rows) > 1:  # the worst bias has either sign
        most = rows[int(np.argmax(signed))]["signed_width_error_nm"]
        found["worst"]["signed_width_error_nm"] = most
    for count in ("gaps", "narrow", "narrow_missed"):
        found[count] = sum(int(row[count]) for row in rows)
    known = sum(row["narrow_known"] for row in rows)
    wrong = sum(row["narrow_error_nm"] for row in rows)
    found["narrow_error_nm"] = wrong / known if known else None
    found["reference_nm"] = float(np.mean([row["reference_nm"] for row in rows]))
    found["fields"] = len(rows)
    return found


def real_gold_table(rows: dict[str, Any]) -> str:
    """Write what is shown of the reference's gaps."""
    head = (
        "image | undetected gaps, % | width error, nm | signed, nm | invented gaps, % "
        f"| gaps under {NARROW_NM:.0f} nm: undetected | their width error, nm | PSNR, "
        "dB"
    )
    gaps = ("undetected_percent 1", "width_error_nm 1", "signed_width_error_nm 1+")
    lines = [
        [
            *(name, *cells(r, *gaps, "invented_percent 1")),
            f"{r['narrow_missed']} of {r['narrow']}",
            *(number(r["narrow_error_nm"], 1), *cells(r, "psnr_db 2")),
        ]
        for name, r in rows.items()
    ]
    return table(head, lines)


def reference_words(rows: dict[str, Any]) -> str:
    """Say how many gaps the reference has, and how wide they are."""
    first: dict[str, Any] = next(iter(rows.values()), {})
    wide = number(first.get("reference_nm"), 0)
    return f"{first['fields']} pairs, {first['gaps']} gaps, {wide} nm wide in the mean"


def main() -> None:
    """Measure with the trained model and the default, and keep rows."""
    args = read_options(__doc__, "--rows=FILE")
    trained = RUNS / "gold-real" / "gold-real.safetensors"
    judges = {
        name: Judge(load_model(model), EnhanceOptions())
        for name, model in (("gold-real", trained), ("sem-restore", "sem-restore"))
    }
    kept = Rows(args.rows, "pair", "image")
    for pair, image, row in measure_pairs(judges, print, pairs=15, data=SHARED):
        row = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        kept.add({"pair": pair, "image": image, **row})
    print(real_gold_table(summarise(kept)))


if __name__ == "__main__":
    main()
