"""Tiles in lockstep against plain PyTorch on the whole field."""

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import Box, DeviceMemoryError, SemsrError, plan_tiles
from napari_semsr.inference.buffers import Layer, Room, TensorStore
from napari_semsr.inference.lockstep import FinishedTile, LayerSynchronous, StepResult
from napari_semsr.inference.lockstep_plan import OpTrace, find_refreshes, trace_network
from napari_semsr.inference.statistics import FixedMoments, MeasuredMoments, Statistics
from napari_semsr.models.probing import smallest_side

Norm = Callable[[int], nn.Module]


class _Residual(nn.Module):
    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        form = {"padding": 1, "padding_mode": "reflect"}
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, **form),
            norm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, **form),
            norm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _resnet(norm: Norm, blocks: int = 9) -> nn.Module:
    """Nine blocks between two halvings and two doublings, two channels wide."""
    return nn.Sequential(
        nn.ReflectionPad2d(3),
        *(nn.Conv2d(1, 2, 7), norm(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(2, 4, 3, 2, 1), norm(4), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 4, 3, 2, 1), norm(4), nn.ReLU(inplace=True)),
        *(_Residual(4, norm) for _ in range(blocks)),
        *(nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), norm(4), nn.ReLU(inplace=True)),
        *(nn.ConvTranspose2d(4, 2, 3, 2, 1, 1), norm(2), nn.ReLU(inplace=True)),
        *(nn.ReflectionPad2d(3), nn.Conv2d(2, 1, 7), nn.Tanh()),
    )


class _DeepUNet(nn.Module):
    """A U-Net that shrinks its input 128-fold and sees 512 px to each side."""

    def __init__(self, norm: Norm, depth: int = 7) -> None:
        super().__init__()
        widths = [min(2**i, 4) * 2 for i in range(depth)]
        pairs = zip([1, *widths], widths, strict=False)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), norm(b), nn.LeakyReLU(0.2))
            for a, b in pairs
        )
        self.up = nn.ModuleList()
        below = widths[-1]
        for width in [*reversed(widths[:-1]), 2]:
            layers = (nn.ConvTranspose2d(below, width, 4, 2, 1), norm(width))
            self.up.append(nn.Sequential(*layers, nn.LeakyReLU(0.2)))
            below = 2 * width
        self.last = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        y = x
        for layer in self.down:
            y = layer(y)
            skips.append(y)
        skips.pop()
        for layer in self.up:
            y = layer(y)
            if skips:
                y = torch.cat([y, skips.pop()], dim=1)
        return x + self.last(y)


class _Functional(nn.Module):
    """Norms without modules, views, works in place; twice as fine."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        weight = torch.linspace(0.5, 2, 8)
        z = functional.instance_norm(y, weight=weight, bias=weight - 1, eps=1e-3)
        y = y + functional.instance_norm(functional.relu_(z))
        half, other = y.chunk(2, dim=1)
        y = torch.cat([half.mul_(0.5), other - functional.instance_norm(other)], 1)
        y = functional.pixel_shuffle(self.second(y), 2)
        y = functional.instance_norm(y) * torch.sigmoid(y)
        y += functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.last(y)


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    stride: int
    shape: tuple[int, int]
    cores: tuple[int, ...]
    scale: int = 1


CASES = [
    Case(
        "resnet-instance", lambda: _resnet(nn.InstanceNorm2d, 2), 4, (84, 60), (16, 40)
    ),
    Case("resnet-batch", lambda: _resnet(nn.BatchNorm2d), 4, (84, 60), (16, 28, 40)),
    Case(
        "unet", lambda: _DeepUNet(nn.InstanceNorm2d), 128, (640, 512), (128, 256, 384)
    ),
    Case("unet-batch", lambda: _DeepUNet(nn.BatchNorm2d), 128, (640, 512), (128, 256)),
    Case("functional", _Functional, 1, (41, 29), (8, 13, 20), 2),
]
NAMES = [case.name for case in CASES]


@dataclasses.dataclass(frozen=True)
class Prepared:
    case: Case
    network: nn.Module
    halo: int
    trace: OpTrace
    field: Tensor
    whole: Tensor

    def lockstep(
        self, core: int, budget: int = 2**40, **how: object
    ) -> LayerSynchronous:
        grid = {"core": core, "halo": self.halo, "stride": self.case.stride}
        plan = plan_tiles(self.case.shape, **grid, constant=False)
        room, cpu = Room(budget, Path(tempfile.gettempdir())), torch.device("cpu")

        def source(tile):
            return self.field[(..., *tile.window.slices)].clone()

        return LayerSynchronous(
            self.network, self.trace, plan, source, room, cpu, **how
        )

    def assembled(self, lockstep: LayerSynchronous, tiles=None) -> Tensor:
        result = torch.full_like(self.whole, torch.nan)
        for event in lockstep.run(lockstep.plan.tiles if tiles is None else tiles):
            if isinstance(event, FinishedTile):
                boxes = event.tile.core, event.tile.inner
                core, inner = (b.scaled(self.case.scale).slices for b in boxes)
                result[(..., *core)] = event.output[(..., *inner)]
        return result

    def error(self, result: Tensor) -> float:
        span = self.whole.max() - self.whole.min()
        return float((result - self.whole).abs().max() / span)


def _prepare(case: Case) -> Prepared:
    torch.manual_seed(3)
    network = case.make().eval().requires_grad_(False)
    known = {"stride": case.stride}
    known["smallest"] = smallest_side(network, **known)
    refreshes = find_refreshes(network, **known)
    assert refreshes is not None
    trace = trace_network(network, refreshes, **known)
    assert trace is not None
    slope = torch.linspace(0.2, 1, case.shape[1])
    field = torch.rand(1, 1, *case.shape) * slope
    with torch.no_grad():
        whole = network(field)
    return Prepared(case, network, refreshes.halo, trace, field, whole)


QUICK = ("resnet-instance", "functional")


def _marked(case):
    return pytest.param(case, marks=() if case.name in QUICK else pytest.mark.broad)


@pytest.fixture(scope="module", params=map(_marked, CASES), ids=NAMES)
def prepared(request) -> Prepared:
    return _prepare(request.param)


@pytest.fixture(scope="module")
def functional_net() -> Prepared:
    return _prepare(CASES[-1])


def test_lockstep_equals_the_whole_for_any_core(prepared):
    assert prepared.whole.std() > 1e-3
    for core in prepared.case.cores:
        assert prepared.error(prepared.assembled(prepared.lockstep(core))) <= 1e-5


def test_beyond_memory_nothing_changes_and_nothing_is_left(prepared, tmp_path):
    core = prepared.case.cores[-1]
    expected = prepared.assembled(prepared.lockstep(core))
    lockstep = prepared.lockstep(core, 0)
    lockstep.room.folder = tmp_path
    assert torch.equal(prepared.assembled(lockstep), expected)
    assert lockstep.room.spilled > 0
    assert lockstep.room.used == 0
    assert not list(tmp_path.iterdir())


def test_the_order_of_tiles_does_not_matter(functional_net):
    forth, back = functional_net.lockstep(8), functional_net.lockstep(8)
    first = functional_net.assembled(forth)
    second = functional_net.assembled(back, list(reversed(back.plan.tiles)))
    assert torch.equal(first, second)


@pytest.mark.broad
def test_halos_are_short_between_norms():
    halos = {case.name: _prepare(case).halo for case in (CASES[0], CASES[2], CASES[3])}
    assert halos == {"resnet-instance": 4, "unet": 128, "unet-batch": 128}


def test_known_statistics_give_the_same_tiles_without_the_others(functional_net):
    first = functional_net.lockstep(8)
    expected = functional_net.assembled(first)
    known = Statistics.from_json(Statistics(tuple(first.measured), True).to_json())
    again = functional_net.lockstep(8, known=known)
    near = [t for t in again.plan.tiles if max(t.index) <= 2]
    part = functional_net.assembled(again, near)
    assert torch.equal(part[..., :16, :16], expected[..., :16, :16])
    assert part[..., 60:, :].isnan().all()
    assert again.measured[0].mean.equal(first.measured[0].mean)


def test_measured_statistics_make_tiles_exact_on_their_own(functional_net):
    lockstep = functional_net.lockstep(20)
    functional_net.assembled(lockstep)
    with torch.no_grad(), FixedMoments(lockstep.measured):
        once = functional_net.network(functional_net.field)
    assert functional_net.error(once) <= 1e-5
    short = FixedMoments(lockstep.measured[:1])
    with torch.no_grad(), short, pytest.raises(SemsrError, match="measure anew"):
        functional_net.network(functional_net.field)


def test_moments_in_double_precision_change_nothing(prepared):
    with torch.no_grad(), MeasuredMoments() as mode:
        once = prepared.network(prepared.field)
    assert mode.count == sum(p.live for p in prepared.trace.points)
    assert prepared.error(once) <= 1e-5


def test_statistics_alone_need_no_end(functional_net):
    lockstep = functional_net.lockstep(20)
    events = list(lockstep.run(lockstep.plan.tiles, until_end=False))
    live = sum(p.live for p in functional_net.trace.points)
    assert len(lockstep.measured) == live
    assert all(isinstance(e, StepResult) for e in events)


def test_stopping_halfway_gives_everything_back(functional_net):
    for budget in (0, 2**40):
        lockstep = functional_net.lockstep(20, budget)
        with closing(lockstep.run(lockstep.plan.tiles)) as events:
            for _ in range(9):
                next(events)
        assert lockstep.room.used == 0


class _Fickle(nn.Module):
    """Makes another call on every second pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        y = functional.relu(x) if self.passes % 2 else functional.silu(x)
        return functional.instance_norm(y)


class _Entangled(nn.Module):
    """Changes a tensor, after a norm, of which a view was taken before it."""

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(x)
        upper = y[:, :1]
        z = functional.instance_norm(x)
        y.add_(1)
        return z + upper


@pytest.mark.parametrize("network", [_Entangled, _Fickle])
def test_what_shares_memory_over_a_norm_or_changes_its_calls_is_refused(network):
    module = network().eval()
    refreshes = find_refreshes(module, stride=1, smallest=2)
    assert trace_network(module, refreshes, stride=1, smallest=2) is None


def test_what_sees_everything_has_no_halo(make_loaded):
    module = make_loaded("global").module
    assert find_refreshes(module, stride=1, smallest=1) is None


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DeviceMemoryError, match="--norm sampled"):
        Layer(Room(0, tmp_path), (8, 8), 3, torch.float32)


@pytest.mark.parametrize("budget", [0, 2**30])
def test_storage_returns_what_it_was_given(budget, tmp_path):
    room = Room(budget, tmp_path)
    layer = Layer(room, (6, 7), 3, torch.bfloat16)
    values = torch.randn(1, 3, 2, 4).bfloat16()
    layer.write(Box(1, 3, 2, 6), values)
    assert torch.equal(layer.read(Box(1, 3, 2, 6)), values)
    assert layer.read(Box(0, 6, 0, 7)).count_nonzero() == values.count_nonzero()
    layer.close()
    layer.close()
    store = TensorStore(room)
    kept = {
        "last": torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last),
        "cut": torch.randn(1, 3, 4, 9)[..., 2:5],
        "number": torch.tensor(3.5),
    }
    for _ in range(2):
        for key, value in kept.items():
            store.put(key, value)
    assert all(torch.equal(store.get(key), value) for key, value in kept.items())
    store.drop("cut")
    assert "cut" not in store
    store.close()
    assert room.used == 0
