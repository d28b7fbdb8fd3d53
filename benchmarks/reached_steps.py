"""Judge table models of superlens images at the steps that they reached, a row a field.

Run: ``python benchmarks/reached_steps.py --names NAME ... --rows FILE [--fields N]``,
with weights in ``paper_tables/models``. The fields are those of the final judgement of
``paper_tables``, at any focus: N of each of eight kinds, 4 by default, from number
10 000 on; a row is added to FILE as soon as it is known. Gains are in dB of PSNR after
an affine match of grey levels, over the optical image; ``gaussian`` is the best of
`restorer.GAUSSIANS_PX` or none, ``linear`` the best linear filter of that very field,
and ``resolution_nm`` the cross-FRC to the truth. ``taught`` is false of a state from
before its discriminators had a say.
"""

import json
from pathlib import Path

from _shared import read_options
from paper_tables.lens import judges_of, show
from paper_tables.plan import FOLDER, before_adversary
from paper_tables.published import MODELS
from paper_tables.records import finished
from restorer import best_gaussian
from superlens import held_out_pairs, scores

from napari_semsr.simulation import SAMPLE_KINDS
from napari_semsr.training import load_recipe

FIRST = 10_000  # of the numbers that are kept for a final judgement


def main() -> None:
    """Add the rows of some models to a file."""
    arguments = read_options(
        __doc__,
        "--fields=4",
        names={"nargs": "+"},
        rows={"type": Path, "required": True},
    )
    learnt = load_recipe(FOLDER / "sun.yaml").data.superlens.replace(any_focus=1)
    models = {n: MODELS / n / f"{n}.safetensors" for n in arguments.names}
    records = {name: finished(MODELS / name) or {} for name in models}
    judges = judges_of(models, 1)
    first = next(iter(judges.values()))
    for number in range(FIRST, FIRST + arguments.fields):
        for kind in SAMPLE_KINDS:
            (pair,) = held_out_pairs(kind, first, learnt, number)
            shown = show(pair, judges)
            found = scores(shown.images, shown.pixel_nm, shown.scale)
            before = found["optical"]["psnr_db"]
            gaussian = best_gaussian(shown.images["optical"], shown.images["truth"])
            common = {"kind": kind, "number": number, "optical": round(before, 4)}
            common["optical_nm"] = found["optical"]["resolution_nm"]
            common["linear"] = round(found["linear"]["psnr_db"] - before, 4)
            common["gaussian"] = max(0.0, round(gaussian - before, 4))
            for name in models:
                row = {
                    "model": name,
                    "steps": records[name]["validation"]["step"],  # of what is kept
                    "taught": not before_adversary(records[name]),
                    **common,
                    "gain": round(found[name]["psnr_db"] - before, 4),
                    "resolution_nm": found[name]["resolution_nm"],
                }
                with arguments.rows.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
