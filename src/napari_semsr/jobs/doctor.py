"""Check the installation, before first use or for a bug report."""

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Annotated, Any

from napari_semsr import __version__, core, models
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.verb import Run, command

_PATIENCE_S = 60.0  # to wait for napari; chosen: a cold start takes 20 s
_NOT_FOR_USERS = {"bench", "dev", "docs"}  # extras for developers
_REQUIREMENT = re.compile(r"([\w.-]+).*?(?:extra == ['\"](\w+)['\"])?$")
_FACT = re.compile(r"[\s-]*(Qt|PyQt6|PySide6|GL version|OpenGL|screen \d+): (.+)$")
_GB = 2**30


@dataclass(frozen=True, slots=True)
class DoctorReport(Result):
    """Versions, devices, memory and display of this installation.

    `packages` has the version of each requirement, null if it is missing; `extras` the
    missing packages of each extra; `window` what napari reports on Qt and OpenGL.
    """

    version: Annotated[str, core.Quantity("napari-semsr")]
    python: Annotated[str, core.Quantity("Python")]
    system: Annotated[str, core.Quantity("System")]
    processor: Annotated[str, core.Quantity("Processor")]
    memory_gb: Annotated[float, core.Quantity("Free memory", "GB", ".3g")]
    devices: dict[str, str]
    packages: dict[str, str | None]
    extras: dict[str, list[str]]
    window: dict[str, str]
    warnings: tuple[str, ...]

    def figures(self) -> dict[str, core.Figure]:
        """Return one line for each property."""
        lines = {f"Device {name}": text for name, text in self.devices.items()}
        lines |= {name: text or "missing" for name, text in self.packages.items()}
        for name, lacking in self.extras.items():
            needs = f"needs {', '.join(lacking)}" if lacking else "complete"
            lines[f"Extra [{name}]"] = needs
        rows = {name: core.Figure(text) for name, text in (lines | self.window).items()}
        return core.get_declared_figures(self) | rows


@command(title="examination", reads=False)
def doctor(_: Run[core.Options]) -> core.Job[DoctorReport]:
    """Check this installation: versions, devices, memory, Qt, OpenGL."""
    yield core.Progress(0, 3, "packages")
    packages: dict[str, str | None] = {}
    extras_known = metadata("napari-semsr").get_all("Provides-Extra") or ()
    extras: dict[str, list[str]] = {
        name: [] for name in extras_known if name not in _NOT_FOR_USERS
    }
    for requirement in requires("napari-semsr") or ():
        name, extra = _REQUIREMENT.match(requirement).groups()  # type: ignore[union-attr]
        if extra is not None and extra not in extras:
            continue
        packages[name] = version = _get_version(name)
        if version is None and extra is not None:
            extras[extra].append(name)
    yield core.Progress(1, 3, "devices")
    devices = {}
    for kind in ("cuda", "mps", "xpu"):
        for number in range(models.device_count(kind)):
            name = f"{kind}:{number}"
            devices[name] = _try_device(name)
    device = models.find_device()
    devices["auto"] = f"{device.device}" + (f" ({device.note})" if device.note else "")
    yield core.Progress(2, 3, "window")
    window = _describe_window() if packages.get("napari") else {}
    optional = {name for lacking in extras.values() for name in lacking}
    missing = [name for name, version in packages.items() if version is None]
    warnings = [
        core.Message(f"{name} is required but not installed.", "package-missing")
        for name in missing
        if name not in optional
    ]
    if "problem" in window:
        text = f"napari cannot open a window here: {window['problem']}"
        warnings.append(core.Message(text, "window-unavailable"))
    free = models.get_free_memory(models.find_device("cpu").device)
    return DoctorReport(
        __version__,
        platform.python_version(),
        platform.platform(),
        core.get_processor_name(),
        free / _GB,
        devices,
        packages,
        extras,
        window,
        tuple(warnings),
    )


def _get_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _try_device(name: str) -> str:
    """Describe a GPU, or the reason why it cannot be used."""
    try:
        return models.get_device_name(models.find_device(name).device)
    except core.SemsrError as error:
        return str(error)


def _describe_window() -> dict[str, str]:
    """Query napari for Qt and OpenGL details in a subprocess, which may crash."""
    words: list[Any] = [sys.executable, "-m", "napari", "--info"]
    try:
        process = subprocess.run(  # noqa: S603 - our own interpreter
            words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"no answer within {_PATIENCE_S:.0f} s"}
    matches = [_FACT.match(line) for line in process.stdout.splitlines()]
    facts = {one[1].strip(): one[2].strip() for one in matches if one}
    if process.returncode == 0 and facts:
        return facts
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    ending = f"napari exited with status {process.returncode}"
    problem = next((line for line in lines if "not " in line), ending)
    return facts | {"problem": problem.removeprefix("WARNING: ")}
