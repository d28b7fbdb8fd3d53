"""Fixtures and guards that every test shares."""

import gc
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What imports make stays. Looking through it for garbage takes a fifth of the time of
# collecting the tests, and later much of each search that finds any.
gc.disable()

# Before anything imports Qt or napari: figures without a window, a home of their own,
# and nothing of what a user, a batch system or a launcher of trainings tells programs;
# for children, too.
_PREFIXES = ("DASK_", "GLOO_", "MALLOC_", "MPL", "NAPARI_", "NCCL_", "SEMSR_", "SLURM_")
_FOREIGN = (
    *("COLUMNS", "FORCE_COLOR", "GLIBC_TUNABLES", "LINES", "NO_COLOR"),
    *("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "RANK", "WORLD_SIZE"),
    *("PYTHONWARNINGS", "QT_FONT_DPI", "QT_SCALE_FACTOR", "QT_STYLE_OVERRIDE"),
    "TORCHELASTIC_RUN_ID",
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
)
# These tell the tests themselves where pictures of panels go, and what the kit made.
_OURS = ("SEMSR_ARTEFACTS", "SEMSR_KIT_RESULTS")
for _name in list(os.environ):
    if _name in _FOREIGN or (_name.startswith(_PREFIXES) and _name not in _OURS):
        del os.environ[_name]
# Of several processes each has one thread: said to the first already, since in the
# others a plugin of napari loads NumPy before this. On two busy cores two threads of
# OpenBLAS take eight times the processor time of one, waiting for each other.
if "PYTEST_XDIST_WORKER" in os.environ or any(w[:2] == "-n" for w in sys.argv[1:]):
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[_name] = "1"
if sys.platform.startswith("linux"):
    if os.environ.get("DISPLAY"):
        os.environ.setdefault("XAUTHORITY", str(Path("~/.Xauthority").expanduser()))
    else:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"  # else Qt ends the process
_HOME = Path(tempfile.mkdtemp(prefix="semsr-home-"))
os.environ["HOME"] = os.environ["USERPROFILE"] = str(_HOME)
os.environ["NAPARI_CONFIG"] = str(_HOME / "settings.yaml")
os.environ["SEMSR_CACHE"] = str(_HOME / "cache")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_HOME / "inductor")  # else in TMPDIR
os.environ["MPLBACKEND"] = "Agg"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests import it before the program does

# Once it was imported while the collector is off, dask leaves it off at each slice.
gc.enable()
import dask.array.slicing  # noqa: E402, F401

gc.disable()
import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size  # noqa: E402
from tests.children import LIMIT_S, SLOW_LIMIT_S, reset_signals  # noqa: E402

reset_signals()

hypothesis.settings.register_profile(
    "quick",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("quick")

_ROOT = Path(__file__).resolve().parents[1]
_WINDOW_FIXTURES = {"qtbot", "qapp", "make_napari_viewer", "make_napari_viewer_proxy"}
_OUR_WIDGETS = ("napari_semsr", "magicgui", "matplotlib")


@dataclass(frozen=True, slots=True)
class Scene:
    """Particles, float32 in [0, 1], 10 nm pixels, under two draws of white noise."""

    truth: Micrograph
    first: Micrograph
    second: Micrograph
    noise_std: float


def _draw_particles(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices(shape, dtype=np.float32)
    image = np.full(shape, 0.1, dtype=np.float32)
    for _ in range(24):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        radius, height = rng.uniform(4, 9), rng.uniform(0.3, 0.8)
        distance = np.hypot(rows - y, columns - x)
        edge = 1 / (1 + np.exp(np.clip((distance - radius) / 0.8, -30, 30)))
        image = np.maximum(image, 0.1 + np.float32(height) * edge)
    return image.astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A small calibrated image with known truth, in two noisy exposures."""
    generator = np.random.default_rng(20)
    image = _draw_particles((96, 128), generator)
    noise_std = 0.05
    size = parse_pixel_size(10.0)

    def expose(name: str) -> Micrograph:
        noise = generator.normal(0, noise_std, image.shape).astype(np.float32)
        return Micrograph(image + noise, size, name)

    truth = Micrograph(image, size, "truth")
    return Scene(truth, expose("first"), expose("second"), noise_std)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images beside the checkout; tests that need them skip where they are not."""
    folder = _ROOT.parent / "shared" / "data"
    if not (folder / "MANIFEST.json").is_file():
        pytest.skip("needs the real images of ../shared/data beside the checkout")
    return folder


def _open_files(roots: tuple[Path, ...]) -> set[str]:
    """Regular files under `roots` that this process holds open (Linux only)."""
    found = set()
    inside = tuple(f"{root}{os.sep}" for root in roots)
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - at each test, twice
        try:
            target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except OSError:
            continue
        if target.startswith(inside):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def _no_file_left_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a test that leaves a data file open."""
    if not sys.platform.startswith("linux"):
        yield
        return
    roots = (tmp_path_factory.getbasetemp().resolve(), _ROOT.parent / "shared")
    before = _open_files(roots)
    yield
    left = _open_files(roots) - before
    if left:
        gc.collect()
        left &= _open_files(roots)
    assert not left, f"files left open: {sorted(left)}"


LEAVING_S = LIMIT_S  # within which what is closed must be gone, on any machine


@pytest.fixture(autouse=True)
def _no_window_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a top-level widget of ours behind."""
    if not _WINDOW_FIXTURES & set(request.fixturenames):
        yield
        return
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    _set_imports_aside()
    before = {id(widget) for widget in QApplication.topLevelWidgets()}

    def ours_left() -> list[object]:
        return [
            widget
            for widget in QApplication.topLevelWidgets()
            if id(widget) not in before
            and (widget.isVisible() or type(widget).__module__.startswith(_OUR_WIDGETS))
        ]

    yield
    application = QApplication.instance()
    if application is None or not ours_left():
        return
    limit = time.monotonic() + LEAVING_S  # a job that ends holds its panel until then
    for again in itertools.count():
        if again:  # slow once torch and napari are loaded, so only on suspicion
            gc.collect()
        application.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        application.processEvents()
        if not ours_left() or time.monotonic() > limit:
            break
        time.sleep(0.01)
    assert not ours_left(), f"widgets left behind: {ours_left()}"


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests into tiers; skip those marked `gpu`, visibly, where there is no GPU.

    Slow ones have more time. Of cases whose test is marked `quick(n)`, the first n are
    quick and the others broad; broad are examples in docstrings, too.
    """
    cases: Counter[str] = Counter()
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.broad)
        if quick := item.get_closest_marker("quick"):
            name = item.nodeid.partition("[")[0]
            cases[name] += 1
            if cases[name] > quick.args[0]:
                item.add_marker(pytest.mark.broad)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_LIMIT_S))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


_aside = [0]  # modules, when imports were last set aside


def _set_imports_aside() -> None:
    """Leave what imports made out of every later search for garbage."""
    if len(sys.modules) > _aside[0]:
        _aside[0] = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_collection_finish() -> None:
    """Look for garbage from now on, among what tests make."""
    _set_imports_aside()
    gc.enable()


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
