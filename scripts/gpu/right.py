"""Compare what a card makes of a field with what the processor makes of it.

Every bundled model, and one network whose norms take statistics of the whole field, in
fp32 with TF32 off, in TF32, and in bf16; by tiles and whole; with several tiles in a
pass; with a tile for which the card has no memory; and in two processes on one card.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from _networks import field, random_model
from gpu.kit import Report, device_of, read_call, rounded, use_tf32
from numpy.typing import NDArray

from napari_semsr.core import DeviceMemoryError, Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory
from napari_semsr.inference.predictor import Predictor
from napari_semsr.models import LoadedModel, list_bundled_models, load_model

LIVE = "resnet, instance norm"
MOST = {"fp32": 1e-4, "bf16_rms": 1 / 255, "bf16_worst": 8 / 255}  # of the range
EQUAL = 1e-4  # of the range, for tiles and batches in fp32
LEFT = 256 << 20  # bytes of a card; the tile that is too large needs three times that
SEED = 0


def networks() -> dict[str, LoadedModel]:
    """Load the bundled models and a network with live norms."""
    found = {name: load_model(name) for name in sorted(list_bundled_models())}
    options = {"width": 16, "blocks": 3, "norm": "instance", "dropout": 0}
    return found | {LIVE: random_model("resnet", options)}


def enhanced(
    loaded: LoadedModel, image: NDArray[Any], device: str, **options: Any
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Enhance an image in memory; give the result and the notes of the run."""
    told = EnhanceOptions(device=device, **options)
    made = run(enhance_in_memory(Micrograph(image), loaded, told))
    return np.asarray(made.array(), np.float32), made.metadata["enhance"]["notes"]


def apart(made: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
    """Give the worst and the root mean square difference, over the range."""
    span = float(wanted.max() - wanted.min())
    difference = (made.astype(np.float64) - wanted) / span
    worst, rms = np.abs(difference).max(), np.sqrt(np.mean(difference**2))
    return {"worst": rounded(worst), "rms": rounded(rms)}


def arithmetic(
    loaded: LoadedModel, image: NDArray[Any], device: str
) -> dict[str, dict[str, Any]]:
    """Compare each arithmetic of the card with fp32 on the processor."""
    wanted, _ = enhanced(loaded, image, "cpu", precision="fp32")
    found: dict[str, dict[str, Any]] = {}
    for name, tf32, precision in (
        ("fp32", False, "fp32"),
        ("tf32", True, "fp32"),
        ("bf16", False, "bf16"),
    ):
        use_tf32(tf32)
        made, _ = enhanced(loaded, image, device, precision=precision)
        found[name] = apart(made, wanted)
    use_tf32(False)
    bf16 = found["bf16"]
    found["fp32"]["right"] = found["fp32"]["worst"] <= MOST["fp32"]
    bf16["right"] = (
        bf16["rms"] <= MOST["bf16_rms"] and bf16["worst"] <= MOST["bf16_worst"]
    )
    return found


def tiling(
    loaded: LoadedModel, image: NDArray[Any], device: str, tile: int
) -> dict[str, dict[str, Any]]:
    """Compare tiles, in passes of one and of several, with one pass."""
    fixed = {"precision": "fp32"}
    whole, _ = enhanced(loaded, image, device, tile=4096, **fixed)
    found = {}
    for batch in (1, 3, 8):
        made, _ = enhanced(loaded, image, device, tile=tile, batch=batch, **fixed)
        found[f"batch_{batch}"] = apart(made, whole)
    worst = max(one["worst"] for one in found.values())
    return {**found, "right": worst <= EQUAL}


@contextmanager
def short_of_memory(device: torch.device, side: int) -> Iterator[None]:
    """Leave little memory on a card; on a processor pretend it, beyond `side` px."""
    with ExitStack() as held:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # else PyTorch has what earlier parts took
            free, _ = torch.cuda.mem_get_info()
            block = torch.empty(max(0, free - LEFT), dtype=torch.uint8, device=device)
            held.callback(torch.cuda.empty_cache)
            held.callback(block.set_)
        else:
            real = Predictor._run_batch

            def pretend(self: Predictor, windows: Any, *given: Any) -> Any:
                if max(windows[0].shape) > side:
                    raise DeviceMemoryError("Device cpu has no memory left for this.")
                return real(self, windows, *given)

            held.enter_context(patch.object(Predictor, "_run_batch", pretend))
        yield


def too_large(
    loaded: LoadedModel, image: NDArray[Any], device: torch.device, side: int
) -> dict[str, Any]:
    """Ask for a tile that does not fit; it is made smaller, which is said once."""
    fixed = {"precision": "fp32", "batch": 1}
    wanted, _ = enhanced(loaded, image, str(device), tile=side, **fixed)
    with short_of_memory(device, 3 * side):
        made, notes = enhanced(loaded, image, str(device), tile=4096, **fixed)
    told = [note for note in notes if note.startswith("Not enough memory")]
    difference = apart(made, wanted)
    right = len(told) == 1 and difference["worst"] <= EQUAL
    return {**difference, "notes": told, "right": right}


def two_processes(given: Any, image: NDArray[Any], tile: int) -> dict[str, Any]:
    """Enhance by two processes at once, and compare with this one's result."""
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "gpu.right", str(given.folder), "--child"]
        call_of = [[*call, str(Path(folder) / f"{n}.npy")] for n in range(2)]
        more = ["--dry"] if given.dry else []
        running = [subprocess.Popen([*one, *more]) for one in call_of]
        loaded = load_model("sem-2x")
        device = str(device_of(given))
        wanted, _ = enhanced(loaded, image, device, tile=tile, precision="fp32")
        codes = [one.wait() for one in running]
        made = [np.load(Path(one[-1])) for one in call_of if Path(one[-1]).exists()]
    worst = [apart(one, wanted)["worst"] for one in made]
    right = codes == [0, 0] and len(worst) == 2 and max(worst) <= EQUAL
    return {"exit": codes, "worst": worst, "right": right}


def main() -> int:
    """Write what was compared, one part after the other."""
    given = read_call(__doc__)
    device = device_of(given)
    side, tile = (96, 48) if given.dry else (512, 128)
    image = field((side, side), SEED)
    use_tf32(False)
    if given.child is not None:
        made, _ = enhanced(
            load_model("sem-2x"), image, str(device), tile=tile, precision="fp32"
        )
        np.save(given.child, made)
        return 0
    report = Report(given, "right")
    report.add("limits", MOST | {"tiles_and_batches": EQUAL})
    report.add("side_px", side)
    loaded = networks()
    results: dict[str, Any] = {}
    for name, one in loaded.items():
        with report.trying(name):
            results[name] = arithmetic(one, image, str(device))
            report.add("arithmetic", results)
    results = {}
    for name in ("sem-2x", LIVE) if given.dry else loaded:
        with report.trying(f"tiles of {name}"):
            results[name] = tiling(loaded[name], image, str(device), tile)
            report.add("tiles", results)
    with report.trying("too large"):
        large = field((4 * side, 4 * side), SEED)
        small = {"side": tile if given.dry else 256}
        report.add("too_large", too_large(loaded["sem-2x"], large, device, **small))
    with report.trying("two processes"):
        report.add("two_processes", two_processes(given, image, tile))
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
