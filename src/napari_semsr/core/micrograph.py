"""Micrograph: a calibrated image with its history, shared by all packages."""

import hashlib
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NewType, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_semsr.core.errors import OptionError, ReadError, ShapeError, shorten_value
from napari_semsr.core.opening import list_files_recursively, open_file
from napari_semsr.core.progress import Job, Progress, run
from napari_semsr.core.types import FloatPair, IntPair, JsonObject

PixelSize = NewType("PixelSize", FloatPair)
"""``(y, x)`` in nanometres, finite and positive; created only by `parse_pixel_size`."""


def parse_pixel_size(value: object) -> PixelSize | None:
    """Convert a value from a user or file to a pixel size ``(y, x)`` in nm.

    One number is used for both axes; None is unknown. Raises `OptionError` if a value
    is not a finite positive number.
    """
    if value is None:
        return None
    try:
        sizes = np.atleast_1d(np.asarray(value, dtype=object))
        is_truth = any(isinstance(one, (bool, np.bool_)) for one in sizes.flat)
        numbers = np.full(1, np.nan) if is_truth else sizes.astype(float)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array([np.nan])
    is_valid = np.isfinite(numbers).all() and (numbers > 0).all()
    if numbers.shape not in ((1,), (2,)) or not is_valid:
        got = shorten_value(value)
        msg = f"A pixel size must be one or two positive numbers in nm, got {got}."
        raise OptionError(msg, code="pixel-size-invalid")
    return PixelSize((float(numbers[0]), float(numbers[-1])))


class InputRecord(BaseModel):
    """One input of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    name: str
    digest: str | None = None
    provenance: "Provenance | None" = None
    path: str | None = None  # None for an image in memory


class Provenance(BaseModel):
    """Step that produced an image: job, options, inputs, model, versions, device.

    `guides` are files that a step used but not for the grey values of its output, such
    as the image to which another was registered. `part` names one of several outputs of
    a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    options: JsonObject = Field(default_factory=dict)
    inputs: tuple[InputRecord, ...] = ()
    model_name: str | None = None
    model_digest: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    guides: tuple[InputRecord, ...] = ()
    part: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )

    def network_names(self) -> dict[str, str]:
        """Return the names of all networks in this history by digest, latest first."""
        networks = {}
        if self.model_digest:
            networks[self.model_digest] = self.model_name or "unnamed model"
        for item in self.inputs:
            if item.provenance is not None:
                networks = networks | item.provenance.network_names()
        return networks

    def last_network(self) -> tuple[str, str] | None:
        """Return name and digest of the last network in this history, if any."""
        return next(((n, d) for d, n in self.network_names().items()), None)

    def optical_cut_off_nm(self) -> float | None:
        """Return the optical cut-off period of this image in nm, if recorded.

        λ / (2 NA) for an incoherent image through a pupil; it does not apply to the
        SEM image of the same scan and its ground truth. It is that of the step, or the
        shortest of its inputs; None if unknown, or for a Gaussian, which has none.
        """
        options, part = self.options, self.part or ""
        has_pupil = options.get("optics") == "pupil"
        is_optical = has_pupil and not part.startswith(_NON_OPTICAL_PARTS)
        if self.inputs and options.get("pixel_size_nm") is None:
            is_optical = False  # the scale is unknown, the blur is in pixels
        match options.get("wavelength_nm"), options.get("numerical_aperture"):
            case float() | int() as wavelength, float() | int() as aperture:
                if is_optical and wavelength > 0 and aperture > 0:
                    return wavelength / (2 * aperture)
        before = (item.provenance for item in self.inputs if item.provenance)
        cut_offs = (step.optical_cut_off_nm() for step in before)
        return min(filter(None, cut_offs), default=None)

    @property
    def instrument(self) -> str | None:
        """Kind of the microscope, ``"optical"`` or ``"sem"``; None if unknown.

        As the latest step that states it.
        """
        for step in self.steps():
            part = step.part or ""
            if part.startswith(_NON_OPTICAL_PARTS):  # of a simulated scan
                return "sem" if part.startswith("sem/") else None
            if kind := find_instrument(step.options):
                return kind
        return None

    def steps(self) -> Iterator["Provenance"]:
        """Yield the steps of this history in reverse, following the first inputs."""
        step: Provenance | None = self
        while step is not None:
            yield step
            step = step.inputs[0].provenance if step.inputs else None

    def defining_step(self) -> "Provenance":
        """Return the latest step that is not a crop or copy."""
        steps = self.steps()
        return next((step for step in steps if step.job not in _COPY_JOBS), self)

    def quantity(self, unit: str) -> str | None:
        """Return the quantity of a map, such as ``"resolution (nm)"``.

        The `unit` of the image is ``"nm"`` or ``"pixel"``. None for an image with grey
        values, and for a map whose values were stretched.
        """
        is_stretched = False
        for step in self.steps():
            is_stretched |= PICTURE_KEY in step.options
            if step.job not in _VALUE_PRESERVING_JOBS:
                break
        else:
            step = self
        what = _MAPS.get(step.job if step.part is None else f"{step.job} {step.part}")
        if what is None or is_stretched:
            return None
        if step.options.get("show") == "spread":
            what = what.replace("likely error", "spread")
        if "difference" in step.options:
            what = f"difference of {what}"
        grey = "%" if step.options.get("unit") == "percent" else "grey levels"
        return what.format(length="px" if unit == "pixel" else unit, grey=grey)

    @property
    def depends_on_pixel_size(self) -> bool:
        """Whether the values or axes of a map depend on a pixel size."""
        in_lengths = self.quantity("nm") != self.quantity("pixel")
        return in_lengths or self.defining_step().job == "spectrum"

    def reproducible_record(self) -> JsonObject:
        """Return the history in JSON types without dates, versions, devices and paths.

        That is, all that determines the grey values.
        """
        return _remove_run_details(self.model_dump(mode="json"))

    def source_digests(self) -> frozenset[str]:
        """Return the digests of the files at the start of this history."""
        names: set[str] = set()
        for item in self.inputs:
            if item.provenance is not None and item.provenance.inputs:
                names |= item.provenance.source_digests()
            elif item.digest is not None:
                names.add(item.digest)
        return frozenset(names)


_NON_OPTICAL_PARTS = ("sem/", "truth/object", "truth/height", "truth/flat")
_COPY_JOBS = ("crop", "convert")
_VALUE_PRESERVING_JOBS = (*_COPY_JOBS, "register", "shown")
_MAPS = {
    "frc-map": "resolution ({length})",
    "error-map": "error ({grey})",
    "trust": "likely error ({grey})",
    "error-map scans": "repeatability s.d. ({grey})",
    "repeatability": "repeatability s.d. ({grey})",
    "enhance misfit": "misfit (%)",
    "enhance unfamiliar_map": "distance to the training place (1: the limit)",
    "adapt look here": "difference to the linear filter ({grey})",
    "stitch height": "height (nm)",
    "difference": "difference (grey levels)",
    "spectrum": "log10 power",
}
"""Physical quantity of each non-intensity output, keyed by job and output name."""
_CIRCUMSTANCES = {"created", "versions", "device", "precision", "threads", "path"}


def _remove_run_details(record: JsonObject) -> JsonObject:
    """Remove dates, versions, devices and paths from a record and its inputs."""
    contents = {key: record[key] for key in record if key not in _CIRCUMSTANCES}
    sources = ORIGIN_KEY, INSTRUMENT_KEY
    if "options" in contents:
        options = contents["options"].items()
        contents["options"] = {k: v for k, v in options if k not in sources}
    for key in ("inputs", "guides"):
        if key in contents:
            contents[key] = [_remove_run_details(item) for item in contents[key]]
    if contents.get("provenance"):
        contents["provenance"] = _remove_run_details(contents["provenance"])
    return contents


class DisplaySettings(BaseModel):
    """Display settings of an image, named as in napari image layers.

    A colour map is a name, or a colour such as ``#ff8800`` to which black fades; a
    custom one stores its colours (RGBA from 0 to 1), and their positions from 0 to 1
    if they are not evenly spaced. In a label image each value has a colour and a name.
    """

    model_config = ConfigDict(frozen=True)

    limits: FloatPair  # grey values displayed as darkest and brightest
    colormap: str = "gray"
    colours: tuple[tuple[float, float, float, float], ...] = ()
    places: tuple[float, ...] = ()
    classes: tuple[tuple[int, str, str], ...] = ()  # value, colour, name
    gamma: float = Field(default=1.0, gt=0)
    opacity: float = Field(default=1.0, ge=0, le=1)
    blending: str = "translucent"
    interpolation: str = "nearest"
    colour_bar: bool = False

    @field_validator("limits")
    @classmethod
    def _check_limits(cls, limits: FloatPair) -> FloatPair:
        if not (np.isfinite(limits).all() and limits[0] < limits[1]):
            msg = f"Contrast limits must be two increasing numbers, got {limits}."
            raise ValueError(msg)
        return limits


SIZE_ERROR_KEY = "pixel_size_relative_sd"
"""Metadata key: relative error of the pixel size, None for unknown.

Also a key of the options of a step that wrote or processed such an image.
"""


ORIGIN_KEY = "pixel_size_origin"
"""Key of an image's metadata, and of a step's options: source of its pixel size.

A description such as ``"typed by the user"``, the size ``(y, x)`` in nm that was
stated, and whether it is in the file itself.
"""


def create_size_source(
    how: str, size: FloatPair, *, in_file: bool = False
) -> dict[str, object]:
    """Return the metadata entry for the source of a ``(y, x)`` pixel size in nm."""
    return {"how": how, "pixel_size_nm": list(size), "in_file": in_file}


def _get_reading_options(step: Provenance) -> JsonObject:
    """Return the options of a step, with those of reading its input."""
    reading = step.options.get("reading")
    return {**step.options, **(reading if isinstance(reading, dict) else {})}


def _get_recorded_size_source(step: Provenance) -> dict[str, object] | None:
    """Return the recorded pixel-size source of a step's input, if any."""
    origin = step.options.get(ORIGIN_KEY)
    if isinstance(origin, dict) and {"how", "pixel_size_nm"} <= set(origin):
        return origin  # in a file by another program it may have any form
    options = _get_reading_options(step)
    size = options.get("pixel_size_nm")
    if size is None:
        return None
    if step.job == "register":  # size of its output, not of its input
        how = f"taken from {step.options.get('fixed')}, to which it was registered"
        return {"how": how}
    is_typed = options.get("pixel_size_sd_nm") is None
    how = "typed by the user" if is_typed else "from a calibration"
    how = f"{how} in step {step.job}"
    if step.job == "simulate":
        how = "set in its simulation"
    return create_size_source(how, np.broadcast_to(size, 2).tolist())


def describe_size_source(
    size: FloatPair, origin: Mapping[str, object] | None, history: Provenance | None
) -> str:
    """Describe the source of a ``(y, x)`` pixel size in nm and its later changes.

    `origin` is the record of the image itself, from `create_size_source`; if None, its
    history is read.
    """
    jobs: list[str] = []
    source: Mapping[str, Any] | None = origin
    for step in history.steps() if history else ():
        if source is not None and np.allclose(source["pixel_size_nm"], size):
            break  # unchanged since
        jobs.append(step.job)
        before = _get_recorded_size_source(step)
        if before is not None:
            source = source or before
            break
    if source is None:
        if history is None:
            return "given with its array"
        return f"inherited from step {history.job}, which does not record the source"
    how = str(source["how"])
    first = np.asarray(source.get("pixel_size_nm", size), dtype=float)
    if np.allclose(first, size):
        return how
    ratios = first / size
    times = "changed"
    if math.isclose(*ratios, rel_tol=1e-6):
        factor = max(ratios[0], 1 / ratios[0])
        times = f"{'divided' if ratios[0] > 1 else 'multiplied'} by {factor:.4g}"
    names = dict.fromkeys(job for job in jobs if job != "convert")
    spelt = " x ".join(f"{value:.6g}" for value in dict.fromkeys(first.tolist()))
    *others, last = names or ("",)
    where = f" by its step {last}" if last else ""
    if others:
        where = f" by its steps {', '.join(others)} and {last}"
    return f"{how} as {spelt} nm, {times}{where}"


BITS_KEY = "significant_bits"
"""Metadata key: significant bits of the integers, if the file states them.

Twelve of sixteen for many cameras; the least significant ones, as in OME.
"""


PICTURE_KEY = "stretched_to_8_bits"
"""Option key that marks a step whose output was stretched to 8 bits for display."""


INSTRUMENT_KEY = "instrument"
"""Key of an image's metadata, and of a step's options: kind of its microscope.

``"optical"`` or ``"sem"``; absent if the files do not state it.
"""

_OPTICAL_KEYS = "wavelength_nm", "objective", "microsphere_um"


def find_instrument(facts: Mapping[str, object]) -> str | None:
    """Return the kind of microscope that metadata, ``scan.json`` or options state."""
    kind = facts.get(INSTRUMENT_KEY)
    if kind in ("optical", "sem"):
        return str(kind)
    # a CZI may be of either kind
    if facts.get("vendor") and facts.get("format") != "CZI":
        return "sem"
    is_optical = any(facts.get(key) is not None for key in _OPTICAL_KEYS)
    return "optical" if is_optical else None


@dataclass(frozen=True, slots=True)
class Micrograph:
    """One 2-D image with its calibration and history.

    Attributes
    ----------
    data : (Y, X) numpy.ndarray or dask.array.Array
        Grey values in their own dtype; NaN where an array is masked.
    pixel_size_nm : tuple of float or None
        ``(y, x)``; None if unknown, never assumed to be 1.
    name : str
        Name in a layer list or a report.
    provenance : Provenance or None
        Its history; None for an image from another program.
    origin : tuple of float
        Centre of pixel (0, 0) as ``(y, x)``, in nm if calibrated, otherwise in pixels
        of the image that this one was derived from.
    spacing_px : tuple of float
        Pixel pitch in pixels of the parent image; used only when uncalibrated (a
        block map of an uncalibrated image has its step here).
    metadata : mapping
        Metadata of the file: vendor, beam, data bar.
    look : DisplaySettings or None
        Display settings; None for the viewer's defaults.
    path : str or None
        File that holds these grey values, for the history of derived images.
    """

    data: Any
    pixel_size_nm: PixelSize | None = None
    name: str = "image"
    provenance: Provenance | None = None
    origin: FloatPair = (0.0, 0.0)
    spacing_px: FloatPair = (1.0, 1.0)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    look: DisplaySettings | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.data, np.matrix) or not hasattr(self.data, "dtype"):
            try:
                object.__setattr__(self, "data", np.asarray(self.data))
            except (TypeError, ValueError):
                got = shorten_value(self.data)
                msg = f"A micrograph must be a (Y, X) image, got {got}."
                raise ShapeError(msg, code="wrong-type") from None
        if hasattr(self.data, "coords"):
            msg = "A micrograph must be a plain array: convert it by `array_to_image`."
            raise ShapeError(msg, code="wrong-type")
        size = parse_pixel_size(self.pixel_size_nm)
        object.__setattr__(self, "pixel_size_nm", size)
        shape = tuple(self.data.shape)
        # dask's may be unknown
        if len(shape) != 2 or not all(side >= 1 for side in shape):
            msg = f"A micrograph must be a non-empty (Y, X) image, got shape {shape}"
            remedy = "pass one plane, array[0], or the mean of colours, array.mean(-1)"
            raise ShapeError(f"{msg}: {remedy}." if shape[2:] else f"{msg}.")
        data, dtype = self.data, np.dtype(self.data.dtype)
        if dtype.kind not in "buif":
            msg = f"An image must have real grey values, got {dtype} in {self.name}."
            raise ReadError(msg, code="complex-values")
        piece = getattr(data, "_meta", data)
        # without loading numpy.ma for a plain array
        if hasattr(piece, "mask") and isinstance(piece, np.ma.MaskedArray):
            kind = dtype if dtype.kind == "f" else np.result_type(dtype, np.float32)
            if hasattr(data, "dask"):
                data = data.astype(kind).map_blocks(np.ma.filled, np.nan, dtype=kind)
            elif np.ma.is_masked(data):
                data = data.astype(kind).filled(np.nan)
            else:
                data = data.data
        object.__setattr__(self, "data", data)

    @property
    def pixel_size_sd_nm(self) -> PixelSize | None:
        """Standard deviation ``(y, x)`` of the pixel size, if recorded.

        The relative error is that of the calibrated image it was derived from.
        """
        if self.pixel_size_nm is None:
            return None
        share: FloatPair | None = None
        for step in self.provenance.steps() if self.provenance else ():
            if SIZE_ERROR_KEY in step.options:
                share = step.options[SIZE_ERROR_KEY]
                break
            options = _get_reading_options(step)
            size_nm, error = map(options.get, ("pixel_size_nm", "pixel_size_sd_nm"))
            if size_nm is not None:
                if error is not None:
                    share = tuple(np.divide(error, size_nm).tolist())
                break
        share = self.metadata.get(SIZE_ERROR_KEY, share)
        if share is None:
            return None
        try:
            return parse_pixel_size(np.multiply(self.pixel_size_nm, share))
        except (TypeError, ValueError, OptionError):
            return None  # in a file by another program it may have any form

    def with_size_error(self, error: FloatPair | None) -> "Micrograph":
        """Return a copy with the standard deviation ``(y, x)`` of its pixel size in nm.

        The metadata store it relative to the pixel size; None if it is unknown.
        """
        share = None
        if error is not None and self.pixel_size_nm is not None:
            share = tuple(np.divide(error, self.pixel_size_nm).tolist())
        elif self.pixel_size_sd_nm is None:
            return self
        return self.replace(metadata={**self.metadata, SIZE_ERROR_KEY: share})

    def with_pixel_size(self, size: object) -> Self:
        """Return a copy with another pixel size in nm and the same origin in pixels.

        Returns the image itself if `size` is None.
        """
        new = parse_pixel_size(size)
        if new is None:
            return self
        triples = zip(self.origin, new, self.scale, strict=True)
        y, x = (start * (side / old) for start, side, old in triples)
        return self.replace(pixel_size_nm=new, origin=(y, x))

    def calibrate(self, size: object, error: FloatPair | None = None) -> "Micrograph":
        """Return a copy with a user-defined pixel size and its standard deviation.

        Raises `OptionError` for a map that was computed with another size or without.
        """
        history, new = self.provenance, parse_pixel_size(size)
        own = self.pixel_size_nm
        alike = new is None or (own is not None and np.allclose(new, own))
        if history is not None and history.depends_on_pixel_size and not alike:
            msg = (
                f"{self.name} shows {self.quantity}, which depends on the pixel size "
                "of its source image: set that with `convert()`, and recompute the map."
            )
            raise OptionError(msg, code="pixel-size-contradicts")
        # the pitch in its parent's pixels is only used while there is no pixel size
        spacing = self.spacing_px if own is None else (1.0, 1.0)
        how = "typed by the user" if error is None else "from a calibration"
        image = self.with_pixel_size(new).with_size_error(error).with_size_source(how)
        return image.replace(spacing_px=spacing)

    def with_size_source(self, how: str, *, in_file: bool = False) -> "Micrograph":
        """Return a copy that records the source of its pixel size, if it has one."""
        if self.pixel_size_nm is None:
            return self
        origin = create_size_source(how, self.pixel_size_nm, in_file=in_file)
        return self.replace(metadata={**self.metadata, ORIGIN_KEY: origin})

    @property
    def pixel_size_from(self) -> str | None:
        """Description of the pixel-size source; None if unknown."""
        if self.pixel_size_nm is None:
            return None
        origin = self.metadata.get(ORIGIN_KEY)
        return describe_size_source(self.pixel_size_nm, origin, self.provenance)

    @property
    def instrument(self) -> str | None:
        """Kind of the microscope, ``"optical"`` or ``"sem"``; None if unknown.

        A network's output of an optical image may be like either.
        """
        history, kind = self.provenance, find_instrument(self.metadata)
        if kind is None and history is not None:
            kind = history.instrument
        is_network = history is not None and history.last_network() is not None
        return None if kind == "optical" and is_network else kind

    @property
    def unrecorded_instrument(self) -> dict[str, str]:
        """The kind of microscope for a step's options, unless the history states it."""
        stated, history = find_instrument(self.metadata), self.provenance
        is_recorded = history is not None and history.instrument == stated
        return {} if stated is None or is_recorded else {INSTRUMENT_KEY: stated}

    @property
    def shape(self) -> IntPair:
        """Shape of the image, (rows, columns)."""
        rows, columns = self.data.shape
        return int(rows), int(columns)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values."""
        dtype: np.dtype[np.generic] = np.dtype(self.data.dtype)
        return dtype

    @property
    def significant_bits(self) -> int | None:
        """Significant bits of the integers, if the file states them and they apply.

        They do not apply to floats, to the output of a network, which has its own grey
        scale, and to values stretched to 8 bits.
        """
        bits, history = self.metadata.get(BITS_KEY), self.provenance
        if self.dtype.kind not in "ui" or not isinstance(bits, int):
            return None
        if history is not None:
            is_stretched = any(PICTURE_KEY in step.options for step in history.steps())
            if is_stretched or history.network_names():
                return None
        return bits if 1 <= bits <= 8 * self.dtype.itemsize else None

    @property
    def is_lazy(self) -> bool:
        """Whether the data are a dask array."""
        return hasattr(self.data, "dask")

    @property
    def scale(self) -> FloatPair:
        """Pixel pitch ``(y, x)`` in `unit`."""
        return self.pixel_size_nm if self.pixel_size_nm is not None else self.spacing_px

    @property
    def unit(self) -> str:
        """``"nm"`` if calibrated, otherwise ``"pixel"``."""
        return "pixel" if self.pixel_size_nm is None else "nm"

    @property
    def quantity(self) -> str | None:
        """Quantity of a map, such as ``"resolution (nm)"``; None for grey values."""
        history = self.provenance
        return None if history is None else history.quantity(self.unit)

    @property
    def mean_pixel_size_nm(self) -> float | None:
        """Geometric mean of the two pixel sizes in nm; None if unknown."""
        if self.pixel_size_nm is None:
            return None
        return math.sqrt(self.pixel_size_nm[0] * self.pixel_size_nm[1])

    def array(self) -> NDArray[Any]:
        """Return the grey values (Y, X) of the whole image as a NumPy array."""
        return np.asarray(self.data)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with changed attributes.

        With new `data`, `look` and `path` are None unless given.
        """
        if "data" in changes:
            changes = {"look": None, "path": None} | changes
        return replace(self, **changes)


# Contents of a provenance record.

_PACKAGES = ("napari-semsr", "numpy", "scipy", "scikit-image", "torch", "dask", "zarr")
_BLOCK = 1 << 20  # bytes read at a time; chosen: hashing takes longer than the calls
_STEP = 32 << 20  # bytes between progress reports; chosen: hashed in 0.1 s or less


@cache
def get_processor_name() -> str:
    """Return the processor name of this machine, as named by its vendor if known."""
    cpu_info = Path("/proc/cpuinfo")
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (n.partition(":")[2] for n in lines if n.startswith("model name"))
    name = next(models, "") or platform.processor() or platform.machine()
    return " ".join(name.split())


@cache
def get_software_versions() -> dict[str, str]:
    """Return the versions of the installed packages that affect a result.

    Read once per process, since it takes some 10 ms.
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return versions


def encode_path(path: Path) -> bytes:
    """Encode a relative path for a digest, even if it is not valid Unicode."""
    return path.as_posix().encode(errors="surrogatepass")


def digest_path(path: Path) -> str:
    """Compute the SHA-256 of a file, or of all files in a folder in name order.

    Returns ``sha256:`` and the digest in hexadecimal.
    """
    return run(digest_with_progress(path))


def combine_digests(digests: Sequence[str]) -> str:
    """Combine the digests of the files or folders of an input; one is kept."""
    if len(digests) == 1:
        return digests[0]
    return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


def digest_with_progress(path: Path) -> Job[str]:
    """Compute the digest as `digest_path` does, reporting progress in megabytes.

    Small inputs report no progress.
    """
    digest = hashlib.sha256()
    files = sorted(list_files_recursively(path)) if path.is_dir() else [path]
    total, read = sum(file.stat().st_size for file in files) // _BLOCK, 0
    reported, message = 0, f"recording the input {path.name}"
    for file in files:
        if path.is_dir():
            digest.update(encode_path(file.relative_to(path)))
        with open_file(file) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                read += len(block)
                if read - reported >= _STEP:
                    reported = read
                    yield Progress(min(read // _BLOCK, total), total, message)
    return f"sha256:{digest.hexdigest()}"


# Condition of a micrograph: nine numbers that describe its degradation.
#
# A simulation draws them, a network estimates them, and a user may override two.

FAULTS = (
    "noise",  # log of the noise's standard deviation, relative to the grey range
    "shot",  # fraction of the variance that grows with the signal
    "along",  # correlation of the noise of neighbours on a line, 0 for white noise
    "across",  # the same from line to line
    "streaks",  # fraction of the variance that is common to whole lines
    "blur_rows",  # log of the blur's standard deviation across rows, in pixels
    "blur_columns",  # the same across columns
    "slant",  # correlation between rows and columns, as in diagonal motion blur
    "flatness",  # how much sharper the edge of the blur is than that of a Gaussian
)
# added to standard deviations before the logarithm is taken
NO_NOISE = 1 / 512  # about the error of rounding to 8 bits
WIDEST_BLUR = 6.0  # px; wider blurs are not restored
NO_BLUR = 0.25  # px; a smaller blur cannot be detected

_NOISE, _BLUR = 0, slice(5, 7)
_SLANT = 7


def get_noise(condition: Sequence[float]) -> float:
    """Return the standard deviation of the noise as a fraction of the grey range."""
    return max(math.exp(condition[_NOISE]) - NO_NOISE, 0.0)


def get_blur(condition: Sequence[float]) -> float:
    """Return the RMS blur over both axes, as a standard deviation in px."""
    parts = [max(math.exp(v) - NO_BLUR, 0.0) for v in condition[_BLUR]]
    return math.sqrt(sum(part**2 for part in parts) / len(parts))


def override_condition(
    condition: Sequence[float], noise: float | None, blur: float | None
) -> tuple[float, ...]:
    """Replace the estimated noise or blur with the given standard deviations.

    Noise is a fraction of the range of grey values, blur is isotropic in px; None keeps
    the estimate.
    """
    values = list(condition)
    if noise is not None:
        values[_NOISE] = math.log(noise + NO_NOISE)
    if blur is not None:
        values[_BLUR] = [math.log(blur + NO_BLUR)] * 2
        values[_SLANT] = 0.0
    return tuple(values)


def mirror_condition(condition: Sequence[float]) -> tuple[float, ...]:
    """Return the condition of an image after flipping its rows or columns."""
    values = list(condition)
    values[_SLANT] *= -1
    return tuple(values)
