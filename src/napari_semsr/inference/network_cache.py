"""What was measured of a network, kept for the next start.

How far a network looks takes seconds to measure and does not change. The figures lie in
the user's cache folder, in a file that is named by a digest of the network itself: its
weights, its structure and the code that it is made of. A card's claims are never taken
in place of a measurement, since anybody may have written them.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import torch
from torch import nn

from napari_semsr.io import renaming
from napari_semsr.models import Probe, Refreshes, effective_halo, find_refreshes, probe

_METHOD = 1  # raise it when a measurement changes
_LARGEST = 2**20
_T = TypeVar("_T")
_logger = logging.getLogger(__name__)
_known: weakref.WeakKeyDictionary[nn.Module, "ProbedNetwork"]
_known = weakref.WeakKeyDictionary()


def cache_folder() -> Path:
    """Give the folder where measurements are kept."""
    chosen = os.environ.get("SEMSR_CACHE")
    if chosen:
        return Path(chosen)
    return platformdirs.user_cache_path("napari-semsr", appauthor=False)


def network_digest(module: nn.Module) -> str:
    """Make a digest of all that a network's reach may depend on."""
    found = hashlib.sha256()
    versions = torch.__version__, importlib.metadata.version("napari-semsr"), _METHOD
    found.update(repr((versions, module)).encode())
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        found.update(repr((name, plain.dtype, tuple(plain.shape))).encode())
        found.update(memoryview(plain.view(-1).view(torch.uint8).numpy()))
    for path in sorted(_files_of(module)):
        found.update(path.read_bytes())
    return found.hexdigest()


def _files_of(module: nn.Module) -> set[Path]:
    """List the files that a network's classes come from, torch's own left out."""
    names = {type(part).__module__ for part in module.modules()}
    files = (
        getattr(sys.modules.get(name), "__file__", None)
        for name in names
        if name.split(".")[0] != "torch"
    )
    return {Path(name) for name in files if name and Path(name).is_file()}


@dataclass(slots=True)
class ProbedNetwork:
    """Figures of one network, from the cache or measured when they are asked for."""

    module: "weakref.ref[nn.Module]"  # The network
    _path: Path | None = None
    _entries: dict[str, Any] | None = None

    def probe(self, stride: int) -> Probe:
        """Give the exact halo, live norms and smallest side."""
        return self._recall(
            f"probe, stride {stride}",
            lambda: probe(self._network, stride=stride),
            asdict,
            lambda kept: _checked_probe(kept, stride),
        )

    def effective_halo(self, stride: int, halo: int, tolerance: float) -> int:
        """Give the halo that suffices for a tolerance."""
        return self._recall(
            f"effective halo, stride {stride}, exact {halo}, tolerance {tolerance:g}",
            lambda: effective_halo(
                self._network, stride=stride, halo=halo, tolerance=tolerance
            ),
            int,
            lambda kept: _checked(kept, stride, halo),
        )

    def refreshes(self, stride: int) -> Refreshes | None:
        """Give the places where tiles in lockstep exchange pixels."""
        return self._recall(
            f"refreshes, stride {stride}",
            lambda: find_refreshes(self._network, stride=stride),
            _written_refreshes,
            lambda kept: _checked_refreshes(kept, stride),
        )

    @property
    def _network(self) -> nn.Module:
        found = self.module()
        if found is None:
            msg = "A network was measured after it had been forgotten."
            raise ValueError(msg)
        return found

    def _recall(
        self,
        key: str,
        measure: Callable[[], _T],
        write: Callable[[_T], Any],
        read: Callable[[Any], _T],
    ) -> _T:
        """Take a figure from the cache, or measure and keep it."""
        entries = self._load()
        if key in entries:
            try:
                return read(entries[key])
            except (KeyError, TypeError, ValueError):
                _logger.info("A kept figure is not usable and is measured anew.")
        found = measure()
        entries[key] = write(found)
        self._save()
        return found

    def _load(self) -> dict[str, Any]:
        """Read what is kept of this network, once."""
        if self._entries is None:
            name = f"{network_digest(self._network)}.json"
            self._path = cache_folder() / "networks" / name
            self._entries = _read(self._path)
        return self._entries

    def _save(self) -> None:
        """Write what is known; a cache that cannot be written is done without."""
        if self._path is None or self._entries is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            merged = {**_read(self._path), **self._entries}
            with renaming(self._path) as partial:
                partial.write_text(json.dumps(merged), encoding="utf-8")
        except OSError as error:
            _logger.info("Measurements are not kept: %s", error)


def probed_network(module: nn.Module) -> ProbedNetwork:
    """Find the figures of a network; one set for each network of this process."""
    if module not in _known:
        _known[module] = ProbedNetwork(weakref.ref(module))
    return _known[module]


def _read(path: Path) -> dict[str, Any]:
    """Read a file of figures; a damaged one counts as missing."""
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _checked(value: Any, stride: int, most: int = 65536) -> int:
    """Refuse what cannot be a halo."""
    if type(value) is not int or value % stride or not 0 <= value <= most:
        msg = f"A halo must be a multiple of {stride} up to {most}, got {value!r}."
        raise ValueError(msg)
    return value


def _checked_probe(kept: Any, stride: int) -> Probe:
    halo = None if kept["halo"] is None else _checked(kept["halo"], stride)
    norms = _checked(kept["norms"], 1)
    smallest = _checked(kept["smallest"], stride)
    if not smallest:
        msg = "A field that a network accepts must have pixels."
        raise ValueError(msg)
    return Probe(halo, norms, smallest)


def _written_refreshes(found: Refreshes | None) -> Any:
    if found is None:
        return None
    return {"halo": found.halo, "points": sorted(found.points)}


def _checked_refreshes(kept: Any, stride: int) -> Refreshes | None:
    if kept is None:
        return None
    points = frozenset(_checked(point, 1, _LARGEST) for point in kept["points"])
    return Refreshes(_checked(kept["halo"], stride), points)
