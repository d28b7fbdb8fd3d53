"""A whole field of 18.5 um, as Sun's scans have it, enhanced as a user's would be.

A chip with 80 nm lines in focus on pixels of 20 nm, 925 of them along a side, at
default settings of ``semsr enhance``, which choose the tiles. 16 px of border are left
out of the scores, as everywhere.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _superlens_fields import chip
from superlens import Judge, enlarged, in_focus, scores

from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from paper_tables.lens import CHIP_PITCH_NM, CHIP_RELIEF_NM
from paper_tables.markdown import number, table
from paper_tables.page_lens import NAMES

SIDE_PX = 925
_SEED = 60  # a chip that no other part judges, unless it has as many fields


def measure_whole(
    judges: dict[str, Judge],
    say: Callable[[str], None],
    *,
    side: int = SIDE_PX,
    first_seed: int = 0,
) -> dict[str, Any]:
    """Enhance one large field by every model.

    By image: PSNR, SSIM, cross-FRC; seconds and tiles of each model.
    """
    first = next(iter(judges.values()))
    seed = first_seed + _SEED
    surface = chip(CHIP_PITCH_NM, seed, CHIP_RELIEF_NM, side)
    pair = in_focus(surface, first, seed, side)
    low = Micrograph(pair.low, parse_pixel_size(pair.pixel_nm))
    images = {"optical": enlarged(pair.low, first.scale)}
    took: dict[str, Any] = {}
    for name, judge in judges.items():
        say(f"superlens, a whole field: {name}")
        began = time.perf_counter()
        made = run(enhance_in_memory(low, judge.loaded, EnhanceOptions()))
        images[name] = np.asarray(made.array(), float)
        took[name] = {"seconds": time.perf_counter() - began}
        done = made.metadata["enhance"]
        took[name] |= {key: done[key] for key in ("tiles", "tile_px", "device")}
    images["truth"] = np.clip(pair.high, 0, 1).astype(float) * 255
    rows = scores(images, pair.pixel_nm / first.scale, first.scale)
    for name, row in rows.items():
        row["gain_db"] = row["psnr_db"] - rows["optical"]["psnr_db"]
        row["psnr_db"] = float(row["psnr_db"])
        row |= {"side": side, "field_um": side * pair.pixel_nm / 1000}
        row |= took.get(name, {})
    return rows


def whole_table(rows: dict[str, Any]) -> str:
    """Write scores and time."""
    head = "image | PSNR, dB | gain, dB | SSIM | cross-FRC, nm | time, s | tiles"
    cells = []
    for name, r in rows.items():
        own = "seconds" in r
        cells.append(
            [
                NAMES.get(name, name),
                number(r["psnr_db"], 2),
                number(r["gain_db"], 2, sign=True) if own else "",
                number(r["ssim"], 3),
                number(r["resolution_nm"], 0),
                number(r["seconds"], 1) if own else "",
                f"{r['tiles']} of {r['tile_px']} px, {r['device']}" if own else "",
            ]
        )
    return table(head, cells)
