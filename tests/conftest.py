"""Fixtures and guards that every test shares."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Before anything imports a maths library, Qt or napari: one thread for each of the
# test processes, settings that touch no user's files, figures without a window.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")
_SETTINGS = Path(tempfile.mkdtemp(prefix="semsr-settings-"))
os.environ["NAPARI_CONFIG"] = str(_SETTINGS / "settings.yaml")
os.environ["SEMSR_CACHE"] = str(_SETTINGS / "cache")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size  # noqa: E402

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
    """Particles whose true image is known, exposed twice with independent noise.

    Attributes
    ----------
    truth : Micrograph
        Noise-free float32 image in [0, 1], 10 nm pixels.
    first, second : Micrograph
        The truth under two draws of white noise.
    noise_std : float
        Standard deviation of that noise.
    """

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
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if any(target.startswith(f"{root}{os.sep}") for root in roots):
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


@pytest.fixture(autouse=True)
def _no_window_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a top-level widget of ours behind."""
    if not _WINDOW_FIXTURES & set(request.fixturenames):
        yield
        return
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

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
    gc.collect()  # slow once torch and napari are loaded, so only on suspicion
    application.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    application.processEvents()
    assert not ours_left(), f"widgets left behind: {ours_left()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu`, visibly, where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_unconfigure() -> None:
    """Remove the throw-away settings."""
    shutil.rmtree(_SETTINGS, ignore_errors=True)
