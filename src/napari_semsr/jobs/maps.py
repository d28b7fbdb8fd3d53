"""Maps that are computed block by block: written so, or kept in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from napari_semsr.analysis import spread_boxes
from napari_semsr.core import Box, Float32Array, IntPair, Job, Micrograph, Progress
from napari_semsr.io import OmeZarrStore, store_of, write_blocks

_BLOCK = 1024  # pixels along each side of what is mapped at once; chosen: 20 MB


class Mapped(Protocol):
    """A map that is computed block by block."""

    @property
    def shape(self) -> IntPair:
        """Its rows and columns."""

    def blocks(self, boxes: list[Box]) -> Iterator[Float32Array]:
        """Compute blocks, in their order."""


def keep_map(
    mapped: Mapped, about: Micrograph, target: Path | None, *, block: int = _BLOCK
) -> Job[Micrograph | None]:
    """Write a map block by block, or give it where it has no target."""
    if target is None:
        values = yield from _in_memory(mapped, block)
        return about.replace(data=values, look=about.look)

    def make(place: Path) -> OmeZarrStore:
        # no shards, which are larger, so that all sizes take the same memory
        return store_of(about, place, dtype=np.float32, chunk=block, overwrite=True)

    def fill(store: OmeZarrStore) -> Job[int]:
        return store.fill(mapped.blocks(store.boxes()), f"mapping {target.name}")

    yield from write_blocks(target, make, fill)
    return None


def _in_memory(mapped: Mapped, block: int) -> Job[Float32Array]:
    """Compute all of it."""
    values = np.empty(mapped.shape, np.float32)
    boxes = spread_boxes(Box.of(mapped.shape), None, block)
    for number, (box, part) in enumerate(zip(boxes, mapped.blocks(boxes), strict=True)):
        values[box.slices] = part
        yield Progress(number + 1, len(boxes), "mapping")
    return values
