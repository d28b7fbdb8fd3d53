"""What the parts of the GPU kit share: a report that is written at once, and a device.

The parts run on a bare machine with one card, and with ``--dry`` on a CPU, with sizes
that say nothing of speed.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from napari_semsr.inference import predictor

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / ".gpu"  # what is brought along, ignored by git
IMAGES, PLACE = KIT / "images", KIT / "place"


def read_call(doc: str | None) -> argparse.Namespace:
    """Read where the results go, whether this is dry, and how long it may take."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dry", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--systems", nargs="+", default=["sun", "gao-a"])
    parser.add_argument("--fresh", action="store_true", help="from new networks")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.dry and not torch.cuda.is_available():
        parser.error("PyTorch sees no card here; --dry tries the way on a CPU.")
    return given


def device_of(given: argparse.Namespace) -> torch.device:
    """Give the card, or with ``--dry`` the processor."""
    return torch.device("cpu" if given.dry else "cuda")


def settle(device: torch.device) -> None:
    """Wait until the card has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_plain_convolutions = predictor.use_fp32_convolutions


def use_tf32(allowed: bool) -> None:
    """Let products of fp32 numbers be taken in TF32, or not; by default cuDNN's are.

    The package's own inference never takes it, but while it is allowed here.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
    predictor.use_fp32_convolutions = nullcontext if allowed else _plain_convolutions


class Report:
    """One JSON file, rewritten as a whole whenever something is known."""

    def __init__(self, given: argparse.Namespace, part: str) -> None:
        self.path, self.began = given.folder / f"{part}.json", time.perf_counter()
        self.limit = given.seconds
        device = device_of(given)
        on_card = device.type == "cuda"
        self.told: dict[str, Any] = {
            "part": part,
            "dry": given.dry,
            "device": torch.cuda.get_device_name() if on_card else "CPU",
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "cudnn_allow_tf32_by_default": torch.backends.cudnn.allow_tf32,
            "failures": {},
        }
        self.write()

    @property
    def seconds(self) -> float:
        """Time since the part began."""
        return time.perf_counter() - self.began

    @property
    def left(self) -> float:
        """Time that the part still has."""
        return self.limit - self.seconds

    def add(self, name: str, value: Any) -> None:
        """Keep and print a result."""
        self.told[name] = value
        self.write()
        print(f"{self.told['part']}: {name}: {json.dumps(value)[:600]}", flush=True)

    def write(self) -> None:
        """Put the file in place."""
        self.told["seconds"] = round(self.seconds, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.told, indent=1) + "\n")
        partial.replace(self.path)

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Note a failure and carry on: the next minute on a card may be weeks away."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - told, and the rest goes on
            self.told["failures"][name] = f"{type(error).__name__}: {error}"[:2000]
            self.write()
            print(f"{self.told['part']}: {name} failed: {error}", flush=True)

    def close(self) -> int:
        """Write the last time; give the exit status."""
        self.write()
        return 1 if self.told["failures"] else 0


def rounded(value: float) -> float:
    """Keep four digits."""
    return float(f"{value:.4g}")


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Time a piece of work, until the card has done it."""
    settle(device)
    began = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - began
