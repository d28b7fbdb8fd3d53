"""How long everything takes to begin: imports, commands, panels, and runs.

Run: ``OMP_NUM_THREADS=1 python benchmarks/start.py``. Every start is a process of its
own, the best of five for imports and panels. Times are processor times. Panels are
opened without a screen, each in a new viewer that has no window; importing Qt and
napari is not counted.

Of a run, what is measured of a network before its first tile is timed at the first
start and at a later one; loading torch and the weights is not counted. The figures are
kept in an empty folder that is removed.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import npe2

ROUNDS = 5
MANIFEST = Path(__file__).parents[1] / "napari.yaml"
NETWORKS = {
    "the bundled model": "sem-restore",
    "residual generator, instance norm": "resnet",
    "Gao's U-Net": "multi-scale-unet",
}


def import_package() -> float:
    """Take the time to import the package."""
    begun = time.process_time()
    importlib.import_module("napari_semsr")
    return time.process_time() - begun


def ask_for_help() -> float:
    """Take the time of ``semsr --help``, the interpreter's own start left out."""
    begun = time.process_time()
    importlib.import_module("napari_semsr.cli.command").main(["--help"])
    return time.process_time() - begun


def open_panel(python_name: str) -> float:
    """Take the time from the choice in the menu until a panel is shown."""
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    application, viewer = QApplication([]), ViewerModel()
    begun = time.process_time()
    module, _, name = python_name.partition(":")
    panel = getattr(importlib.import_module(module), name)(viewer)
    panel.show()
    application.processEvents()
    took = time.process_time() - begun
    panel.close()
    return took


def probe(kind: str) -> float:
    """Take the time of what is measured of a network."""
    from _networks import random_model

    from napari_semsr.inference.predictor import Predictor
    from napari_semsr.models import list_bundled_models, load_model

    loaded = load_model(kind) if kind in list_bundled_models() else random_model(kind)
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    begun = time.process_time()
    _ = predictor.probe
    return time.process_time() - begun


TIMED: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (import_package, ask_for_help, open_panel, probe)
}


def timed(function: Callable[..., float], *words: str, **environment: str) -> float:
    """Call a function in a process of its own and give what it took, in seconds."""
    said = subprocess.run(
        [sys.executable, __file__, function.__name__, *words],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(said.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    name, *words = sys.argv[1:] or [""]
    if name in TIMED:
        print(TIMED[name](*words))
        return
    from _shared import read_options  # not where imports are timed

    read_options(__doc__)
    cases: dict[str, tuple[Callable[..., float], str]] = {
        "import napari_semsr": (import_package, ""),
        "semsr --help": (ask_for_help, ""),
    }
    parts = npe2.PluginManifest.from_file(MANIFEST).contributions
    names = {item.id: str(item.python_name) for item in parts.commands or []}
    for item in parts.widgets or []:
        cases[f"panel {item.display_name}"] = open_panel, names[item.command]
    for name, (function, word) in cases.items():
        best = min(timed(function, *filter(None, [word])) for _ in range(ROUNDS))
        print(f"{name:36s} {1000 * best:7.0f} ms")
    for name, kind in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            first, later = (timed(probe, kind, SEMSR_CACHE=folder) for _ in range(2))
        print(f"{name:36s} {first:7.2f} s, then {later:5.2f} s")


if __name__ == "__main__":
    main()
