"""Describe a file, or this installation."""

import math
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from napari_semsr import __version__, core, models
from napari_semsr.io import create_missing_file_error, describe, read
from napari_semsr.jobs.images import Result, to_json_value
from napari_semsr.jobs.verb import (
    FileInput,
    Run,
    command,
    get_pixel_size_fields,
    get_verb,
)

_DECODED_FORMATS = ("TIFF", "PNG", "JPEG", "BMP")
_LARGEST_LOOK = 1 << 26  # px; chosen: images up to this size are read whole
_MAX_METADATA = 24  # entries in a summary; chosen: fits on a screen


_MAX_STEPS = 40  # sentences; chosen: more than any real history
_MAX_NAMES = 3  # images named in a sentence; chosen: it stays readable
_METHODS = ("method", "kind", "model")  # options that name the method of a step
_SOFTWARE = {
    "napari-semsr": "napari-semsr",
    "python": "Python",
    "numpy": "NumPy",
    "scipy": "SciPy",
}
_STEPS = {
    "adapt": "A network was trained on {}",
    "convert": "{} was converted",
    "crop": "{} was cropped",
    "degrade": "{} was degraded by simulated faults of a microscope",
    "enhance": "{} was enhanced with a network",
    "error-map": (
        "The differences between {} were mapped (S. Culley et al., Nat. Methods 15, "
        "263 (2018))"
    ),
    "frc-map": (
        "The resolution was mapped by Fourier ring correlation of {} (R. P. J. "
        "Nieuwenhuizen et al., Nat. Methods 10, 557 (2013))"
    ),
    "register": "{} was registered to another image of the same area",
    "restore": "{} was restored",
    "simulate": "Frames were simulated",
    "spectrum": "The power spectrum of {} was computed",
    "stitch": "{} was stitched into a mosaic",
}
"""Sentence on each step, with a place for its images."""


class InfoOptions(core.Options):
    """Options for describing a file."""

    methods: bool = core.option(
        False,
        "Methods",
        "add a paragraph for a Methods section: the steps that made the file, and the "
        "origin of its pixel size",
    )


@dataclass(frozen=True, slots=True)
class Description(Result):
    """Description of a file: shape, dtype, pixel size, vendor and metadata."""

    path: str
    facts: dict[str, Any] = field(metadata=core.FLAT)

    def figures(self) -> dict[str, core.Figure]:
        """Return the properties and the first metadata entries."""
        facts = dict(self.facts)
        metadata = facts.pop("metadata", None) or {}
        network, sd = facts.pop("network", None), facts.pop("pixel_size_sd_nm", None)
        methods = facts.pop("methods", None)
        rows = {"path": self.path}
        rows |= {"made by network": f"{network}: an estimate"} if network else {}
        for name, value in facts.items():
            rows[name] = "none" if value is None else str(value)
            if name == "pixel_size_nm":
                rows[name] = core.format_pixel_size(value, sd)
            elif name == "shape" and isinstance(value, list):
                rows[name] = core.format_shape(value)
        metadata_shown = list(metadata.items())[:_MAX_METADATA]
        rows |= {f"  {name}": str(value) for name, value in metadata_shown}
        more = len(metadata) - len(metadata_shown)
        if more:
            rows["  and"] = f"{more} more; use `json` to list them all"
        rows |= {"methods": methods} if methods else {}
        return {name: core.Figure(value) for name, value in rows.items()}


@command(
    not_read=(
        "series",
        "level",
        "channel",
        "time",
        "z",
        "plane",
        "crop_databar",
        "colour",
    )
)
def info(
    run: Run[InfoOptions],
    path: Annotated[
        str | Path,
        FileInput(
            help="an image, an OME-Zarr store or a folder of frames", metavar="PATH"
        ),
    ],
    *,
    options: InfoOptions,
) -> core.Job[Description]:
    """Describe a file: size, type, pixel size, vendor, metadata.

    Examples
    --------
    >>> image = semsr.Micrograph(np.eye(48, 64), (7.7, 7.7))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/field.ome.tif")
    ...     facts = semsr.info(f"{folder}/field.ome.tif").facts
    >>> facts["shape"], facts["dtype"], facts["pixel_size_nm"]
    ([48, 64], 'float64', [7.7, 7.7])
    """
    path = Path(path)
    yield core.Progress(0, 1, f"reading {path.name}")
    if not path.exists():
        raise create_missing_file_error(path)
    info = describe(path, dataset=run.opening.dataset)
    facts = to_json_value(info)
    del facts["provenance"]
    sentences = list(facts["metadata"].get("warnings", ()))
    with core.capture_warnings(sentences.append):
        facts |= _measure_printed_bar(path, facts)
    for sentence in dict.fromkeys(sentences):
        core.warn(sentence)
    if run.opening.pixel_size_nm is not None:
        image = core.Micrograph(np.zeros((1, 1))).calibrate(
            run.opening.pixel_size_nm, run.opening.pixel_size_sd_nm
        )
        facts |= to_json_value(get_pixel_size_fields(image))
        facts["pixel_size_from"] = image.pixel_size_from
    if options.methods:
        text = "not known"
        if facts.get("pixel_size_nm") is not None:
            sd = facts.get("pixel_size_sd_nm")
            size_text = core.format_pixel_size(facts["pixel_size_nm"], sd)
            text = f"{size_text}, {facts.get('pixel_size_from')}"
        facts["methods"] = _describe_methods(path.name, info.provenance, text)
    return Description(str(path), facts)


def _measure_printed_bar(
    path: Path, facts: Mapping[str, Any]
) -> dict[str, float | None]:
    """Measure a printed scale bar if the file has no pixel size.

    Its label is not read: the keys for it are null.
    """
    from napari_semsr.analysis import find_scale_bar

    nothing: dict[str, float | None] = dict.fromkeys(
        ("suggested_bar_px", "suggested_label", "suggested_pixel_size_nm")
    )
    if (
        facts.get("pixel_size_nm") is not None
        or facts["format"] not in _DECODED_FORMATS
        or math.prod(facts["stored_shape"]) > _LARGEST_LOOK
    ):
        return nothing
    try:
        image = read(path, channel=0, plane=0, crop_databar=False, colour="luminance")
    except core.ReadError:
        return nothing  # the rest of the description is still returned
    bar = find_scale_bar(image.data)
    return nothing if bar is None else {**nothing, "suggested_bar_px": bar.length_px}


# Methods: the steps of a history as sentences.


def _describe_methods(
    name: str, history: core.Provenance | None, size_text: str
) -> str:
    """Describe in one paragraph how a file was made, and where its scale is from."""
    sentences = []
    if history is None:
        sentences.append(f"{name} has no history of processing steps.")
    else:
        versions = ", ".join(
            f"{label} {history.versions[key]}"
            for key, label in _SOFTWARE.items()
            if key in history.versions
        )
        steps = dict.fromkeys(map(_describe_step, _list_steps(history)))
        sentences += [*steps][:_MAX_STEPS]
        if len(steps) > _MAX_STEPS:
            sentences.append(f"{len(steps) - _MAX_STEPS} more steps are not listed.")
        sentences.append(f"{name} is the result{versions and f' ({versions})'}.")
        if history.network_names():
            sentences.append(
                "The output of a network is an estimate: a resolution measured in it "
                "alone describes the output, not the sample."
            )
    return " ".join([*sentences, f"The pixel size of {name} is {size_text}."])


def _list_steps(history: core.Provenance) -> Iterator[core.Provenance]:
    """Yield the steps of a history in order, with those of all inputs."""
    for item in history.inputs:
        if item.provenance is not None:
            yield from _list_steps(item.provenance)
    yield history


def _describe_step(step: core.Provenance) -> str:
    """Describe a step: what was done to which images, and options that were set."""
    names = [*dict.fromkeys(item.name for item in step.inputs)]
    if len(names) > _MAX_NAMES:
        names = [*names[:_MAX_NAMES], f"{len(names) - _MAX_NAMES} others"]
    *first, last = names or ["an image"]
    subject = f"{', '.join(first)} and {last}" if first else last
    text = _STEPS.get(step.job, f"{{}} was processed with semsr {step.job}")
    if first:
        text = text.replace("{} was", "{} were")
    used = [
        f"{item.role.replace('_', ' ')} {item.name}"
        for item in step.guides
        if item.role != "model"
    ]
    if step.model_digest:
        used.append(f"network {step.model_name or 'unnamed'}, {step.model_digest}")
    details = "; ".join([*used, *_list_changed_options(step)])
    return f"{text.format(subject)}{details and f' ({details})'}."


def _list_changed_options(step: core.Provenance) -> Iterator[str]:
    """Yield the method of a step, and options that differ from their defaults."""
    verb, files = get_verb(step.job), {item.role for item in step.guides}
    for name, item in verb.options.model_fields.items() if verb else ():
        value = step.options.get(name)
        usual = to_json_value(item.get_default(call_default_factory=True))
        if name in files or isinstance(value, dict | None):
            continue
        if value == usual and name not in _METHODS:
            continue
        text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"{name.replace('_', ' ')} {'on' if value is True else text}"


# The installation, before first use or for a bug report.

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
    words = [sys.executable, "-m", "napari", "--info"]
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
