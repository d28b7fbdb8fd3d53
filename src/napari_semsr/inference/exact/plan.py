"""What running in lockstep would take: tiles, memory, disk, work; known beforehand."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from napari_semsr.core import TilePlan, plan_tiles, round_up
from napari_semsr.inference.exact.graph import OpTrace, trace_network
from napari_semsr.inference.predictor import Predictor
from napari_semsr.models import Refreshes

_SENSIBLE_WORK = 1.3
_WINDOW_SHARE = 0.5
_KEPT_SHARE = 0.85  # the rest: codecs, and free pieces of the heap between two tidyings
_SMALLEST_CORE = 32
_known: weakref.WeakKeyDictionary[
    nn.Module, dict[int, tuple[Refreshes, OpTrace] | None]
]
_known = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class LockstepPlan:
    """How a field is run in lockstep, and what that takes."""

    # Cores partition the padded field; they are whole output tiles, or several
    tiles: TilePlan
    trace: OpTrace  # The network's calls
    work: float  # Pixels that are computed, for each pixel of the padded field
    room_bytes: int  # Layers and waiting tiles at their most
    memory_bytes: int  # How much of these may lie in memory

    @property
    def disk_bytes(self) -> int:
        """What has to lie on disk."""
        return max(0, self.room_bytes - self.memory_bytes)

    def sentence(self) -> str:
        """Say what will be done."""
        norms = sum(point.live for point in self.trace.points)
        said = (
            f"{len(self.tiles)} tiles of {self.tiles.core} px step together through "
            f"{len(self.trace.points)} layers ({norms} of them take statistics of the "
            f"whole field), halo {self.tiles.halo} px, {self.work:.2f} times the work "
            f"of a whole pass, {self.room_bytes / 1e9:.2g} GB of layers"
        )
        if self.disk_bytes:
            said += f", {self.disk_bytes / 1e9:.2g} GB of them on disk"
        return f"{said}."


def halo_and_trace(predictor: Predictor) -> tuple[Refreshes, OpTrace] | None:
    """Find where a network's tiles meet; measured once for a network."""
    made = _known.setdefault(predictor.source, {})
    stride = predictor.card.stride
    if stride not in made:
        found = predictor.refreshes()
        trace = None
        if found is not None:
            trace = trace_network(
                predictor.source,
                found,
                stride=stride,
                smallest=predictor.probe.smallest,
            )
        made[stride] = None if found is None or trace is None else (found, trace)
    return made[stride]


def work_of(tiles: TilePlan) -> float:
    """Compare the windows of a plan with the field."""
    rows, columns = tiles.padded_shape
    return _area(tiles.tiles) / (rows * columns)


def _area(tiles: Iterable[object]) -> int:
    total = 0
    for tile in tiles:
        height, width = tile.window.shape  # type: ignore[attr-defined]
        total += height * width
    return total


def _cut(tiles: TilePlan, core: int, halo: int) -> TilePlan:
    """Lay cores over the padded field."""
    return plan_tiles(
        tiles.padded_shape, core=core, halo=halo, stride=tiles.stride, constant=False
    )


def plan_lockstep(
    predictor: Predictor,
    tiles: TilePlan,
    budget: int,
    *,
    host: int | None = None,
    core: int | None = None,
) -> LockstepPlan | None:
    """Plan a run in lockstep."""
    known = halo_and_trace(predictor)
    if known is None:
        return None
    refreshes, trace = known
    chosen = _cut(tiles, core or tiles.core, refreshes.halo)
    peak = _peak(predictor, chosen)
    while core is None and work_of(chosen) > _SENSIBLE_WORK and len(chosen) > 1:
        larger = _cut(tiles, chosen.core + tiles.core, refreshes.halo)
        more = _peak(predictor, larger)
        if more > _WINDOW_SHARE * budget:
            break
        chosen, peak = larger, more
    room = budget if host is None else host
    shared = predictor.device.type == "cpu"
    return LockstepPlan(
        tiles=chosen,
        trace=trace,
        work=work_of(chosen),
        room_bytes=_room(trace, chosen),
        memory_bytes=int(_KEPT_SHARE * max(0, room - peak if shared else room)),
    )


def halved(predictor: Predictor, found: LockstepPlan, core: int) -> LockstepPlan | None:
    """Plan the same with smaller tiles, because memory ran out."""
    stride = found.tiles.stride
    before = min(found.tiles.core, max(found.tiles.padded_shape))
    wanted = max(before // 2, stride)
    if wanted >= core:
        side = wanted // core * core
    else:
        parts = range(1, core // stride + 1)
        sides = [core // n for n in parts if (core // stride) % n == 0]
        side = next((s for s in sides if s <= wanted), 0)
    if side >= before or side < round_up(min(_SMALLEST_CORE, core), stride):
        return None
    tiles = _cut(found.tiles, side, found.tiles.halo)
    shared = predictor.device.type == "cpu"
    return replace(
        found,
        tiles=tiles,
        work=work_of(tiles),
        room_bytes=_room(found.trace, tiles),
        memory_bytes=found.memory_bytes // 2 if shared else found.memory_bytes,
    )


def _peak(predictor: Predictor, tiles: TilePlan) -> int:
    """Memory of the largest window."""
    shapes = {tile.window.shape for tile in tiles}
    return predictor.peak_bytes(max(shapes, key=lambda s: s[0] * s[1]))


def _room(trace: OpTrace, tiles: TilePlan) -> int:
    """Bytes of layers and waiting tiles at their most."""
    rows, columns = tiles.padded_shape
    windows = _area(tiles.tiles)
    layers = [p.bytes_per_pixel * rows * columns for p in trace.points]
    waiting = [sum(trace.size[r] for r in trace.kept(p)) for p in trace.points]
    most = 0.0
    for at in range(len(layers)):
        following = layers[at + 1] if at + 1 < len(layers) else 0.0
        kept = max(waiting[at : at + 2]) * windows
        most = max(most, layers[at] + following + kept)
    return int(most)
