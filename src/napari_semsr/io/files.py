"""Shared code for all formats: error messages, atomic output, metadata record."""

import errno
import json
import logging
import os
import platform
import re
import shutil
import traceback
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any
from unicodedata import normalize

import platformdirs
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from napari_semsr import core

# Largest compression ratio: a block of 128 kB with one repeated byte takes 4 bytes in
# zstd; others compress less (zlib 1032, LZW 2730, JPEG 1024).
_MAX_PACKED = 1 << 15
_SYNCS_FOLDERS = os.name == "posix"
_SMALL = 1 << 26  # bytes; chosen: any file may request this much
NOT_WRITTEN = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "disk-full"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "no-permission"),
}


def import_library(
    path: Path, module: str, extra: str, kind: type[core.SemsrError] = core.ReadError
) -> ModuleType:
    """Import a library for a file; the error names the extra that installs it."""
    name = module.partition(".")[0]
    try:
        import_module(name)  # its parts may be there without it
        return import_module(module)
    except ImportError as error:
        msg = f"{path} needs {name}: pip install 'napari-semsr[{extra}]'."
        raise kind(msg, code="extra-missing") from error


def check_claimed_size(path: Path, claimed_bytes: int, stored_bytes: int) -> None:
    """Raise `ReadError` if `claimed_bytes` are too many for the stored bytes."""
    if claimed_bytes > max(_SMALL, _MAX_PACKED * stored_bytes):
        msg = f"{path} claims {claimed_bytes} bytes, more than it holds: copy it again."
        raise core.ReadError(msg, code="file-damaged")


def check_file_size(path: Path, end: int) -> None:
    """Raise `ReadError` if a file is shorter than the `end` of its pixels in bytes."""
    size = path.stat().st_size
    if end > size:
        msg = f"{path} is truncated: it has only {size} of {end} bytes; copy it again."
        raise core.ReadError(msg, code="file-truncated")


_logger = logging.getLogger(__name__)


@contextmanager
def convert_decoding_errors(path: Path, kind: str) -> Iterator[None]:
    """Convert any exception of a decoder to `ReadError`.

    Some decoders raise errors derived only from `Exception`. Errors of the system,
    missing libraries and unsupported contents do not count as damage. `kind` is the
    format, such as ``"TIFF"``.
    """
    try:
        yield
    except (core.SemsrError, Warning):  # warnings that Python turned into errors
        raise
    except MemoryError as error:
        msg = (
            f"Not enough memory to read {path} as {kind}: close other programs, or "
            "convert it to .ome.zarr on a computer with more memory."
        )
        raise core.ReadError(msg, code="memory") from error
    except Exception as error:
        fault = core.describe_access_error(path, error)
        fault = fault or _create_error_message(path, kind, error)
        raise core.ReadError(fault) from error


_MISSING = re.compile(
    r"codec not available|requires the '\w+' package"
    # for HDF5, whose filters are plugins
    r"|can't open directory|required filter .* not registered"
)
_UNSUPPORTED_TEXT = re.compile(
    r"not supported|not implemented|is not known|^compression \d+,"
    r"|^Unsupported (BMP|JPEG process)|^data type '\w+' not understood"
)


def _create_error_message(path: Path, kind: str, error: Exception) -> core.Message:
    """Return the message for a missing library, an unsupported format, or damage."""
    for one in core.iter_exception_causes(error):
        reason, name = _format_reason(one), type(one).__name__
        missing = isinstance(one, ImportError) or name == "UnknownCodecError"
        if missing or _MISSING.search(reason):
            return core.Message(
                f"Reading {path} as {kind} needs a library that is not installed "
                f"({reason}): install it, or export the file without compression.",
                "extra-missing",
            )
        if isinstance(one, NotImplementedError) or _UNSUPPORTED_TEXT.search(reason):
            return core.Message(
                f"{path} uses an unsupported feature and cannot be read as {kind} "
                f"({reason}): export it differently, for example without compression.",
                "format-unsupported",
            )
    return core.Message(
        f"{path} cannot be read as {kind} ({_format_reason(error)}): the file is "
        "damaged or truncated; copy or export it again.",
        "file-damaged",
    )


def _format_reason(error: BaseException) -> str:
    """Format a library error on one line, with names for TIFF codes."""
    text = " ".join(str(error).split())[:160].rstrip(".")
    text = re.sub(r"<?([A-Z]+)\.(\w+): (\d+)>?", r"\1 \3, \2,", text)
    text = re.sub(r"(\d+) is not a known ([A-Z]+)", r"\2 \1 is not known", text)
    for word in ("COMPRESSION", "PREDICTOR"):
        text = text.replace(word, word.lower())
    return text.rstrip(",") or type(error).__name__


def read_file_state(path: Path) -> tuple[int, int, int]:
    """Return the size, time stamp and number of a file, which change with it."""
    file = path.stat()
    return file.st_size, file.st_mtime_ns, file.st_ino


def path_exists(path: Path) -> bool:
    """Return whether a path exists; False for invalid paths.

    Invalid are names that are too long or contain a zero byte.
    """
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def get_disk_spelling(path: Path) -> Path:
    """Return a path as spelt on disk, which may differ in Unicode composition.

    macOS stores an e and an accent where other systems store one letter; our tables
    write undecodable bytes of a name as numbers. A path that exists is returned
    unchanged, and so is one that does not exist in either form.
    """
    real_path = Path()
    for part in path.parts:
        spelling, plain = part, part.isascii() and "\\" not in part
        if not plain and not path_exists(real_path / part):
            composed, escape = normalize("NFC", part), core.escape_invisible_characters
            with suppress(OSError, ValueError):  # no folder, or an unreadable one
                names = sorted(item.name for item in real_path.iterdir())
                alike = (
                    n for n in names if composed in (normalize("NFC", n), escape(n))
                )
                spelling = next(alike, part)
        real_path /= spelling
    return real_path


_LARGEST_TEXT = 1 << 28  # bytes; chosen: a transform with ten million coefficients


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read an entire text file, raising an error for pipes.

    Lines are separated by line feeds.
    """
    text = core.read_bytes(path, _LARGEST_TEXT).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json_object(path: Path, *, may_lack_brace: bool = False) -> core.JsonObject:
    """Read a JSON object from a file, which may lack its last brace if allowed."""
    try:
        text = read_text(path)
        try:
            values = json.loads(text)
        except ValueError:
            if not may_lack_brace:
                raise
            values = json.loads(text.rstrip().removesuffix(",") + "}")
    except (OSError, ValueError, RecursionError) as error:
        text = f"{path} must contain a JSON object, but is not valid JSON ({error})."
        fault = core.describe_access_error(path, error)
        raise core.ReadError(fault or core.Message(text, "content-invalid")) from error
    if not isinstance(values, dict):
        msg = f"{path} must contain a JSON object, got {type(values).__name__}."
        raise core.ReadError(msg, code="content-invalid")
    return values


def choose_index(
    path: Path,
    what: str,
    number: int | None,
    count: int,
    sizes: str = "",
    either: str = "",
) -> int:
    """Choose one of several images in a file by its index.

    The error states the `sizes` of the axes, and the options that choose one, `either`.
    """
    if number is None and count == 1:
        return 0
    if number is None:
        choice = f"set {either}{what} 0 to {count - 1}"
        msg = f"{path} contains {count} {what}s{sizes}; choose one: {choice}."
        raise core.ReadError(msg, code="several-images")
    if number >= count:
        plural = what if what in ("series", "z") else f"{what}s"
        msg = f"{path} has no {what} {number}; its {plural} are 0 to {count - 1}."
        raise core.ReadError(msg, code="plane-missing")
    return number


# Outputs: checked first, written under a hidden name, renamed when complete.

_SUFFIXES = {
    ".ome.zarr": "ome-zarr",
    ".zarr": "ome-zarr",
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
}
LABELS = "labels"
"""Name of the group of label images in a store."""
COVERAGE = "coverage"
"""Name of the label image that counts the frames at each pixel of a mosaic."""

ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def get_output_format(path: Path, also: Sequence[str] = ()) -> str:
    """Return the format of an output, a key of `_SUFFIXES`, by its suffix.

    The error names the suffixes that the caller accepts `also`.
    """
    name = path.name.lower()
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix) and name not in _SUFFIXES:
            return kind
    names = [".ome.zarr", ".ome.tif", ".tif", ".png", *also]
    suffixes = core.format_alternatives(names)
    msg = f"The suffix of an image must be {suffixes}, got {path.name!r}."
    raise core.WriteError(msg, code="suffix-unknown")


def create_existing_file_error(path: Path) -> core.WriteError:
    """Return the error for an output that must not be replaced."""
    msg = f"{path} already exists: choose another name, or use `overwrite`."
    return core.WriteError(msg, code="output-exists")


def check_target(path: Path, *, overwrite: bool) -> None:
    """Check in advance that an output can be written.

    Raises a `WriteError` if the suffix is unknown, the folder is missing, or an
    existing output must not be replaced.
    """
    kind = get_output_format(path)
    if not path.parent.is_dir():
        msg = f"The output folder {path.parent} does not exist: create it first."
        raise core.WriteError(msg, code="folder-missing")
    if not path.exists():
        return
    if not overwrite:
        raise create_existing_file_error(path)
    is_store = False
    if kind == "ome-zarr" and path.is_dir():
        names = {entry.name for entry in core.list_folder(path)}
        is_store = not names or not names.isdisjoint(ZARR_MARKS)
    if path.is_dir() and not is_store:
        msg = f"{path} is a folder, not an image store: choose another name."
        raise core.WriteError(msg, code="output-is-folder")
    StoreLock.check(path)


def remove_target(path: Path) -> None:
    """Remove an existing output that `check_target` allowed to be overwritten."""
    if (aside := _hide_store(path)) is not None:
        shutil.rmtree(aside)


def replace_output(new_path: Path, path: Path) -> None:
    """Rename a complete output to its final name, then remove the previous one.

    The previous one is kept if the new one cannot be renamed.
    """
    sync_to_disk(new_path)
    aside = _hide_store(path) if new_path.is_dir() else None
    if aside == path:
        shutil.rmtree(path)
    try:
        new_path.replace(path)
    except BaseException:
        if aside not in (None, path) and not path.exists():
            aside.rename(path)
        raise
    sync_to_disk(path.parent, inside=False)
    if aside not in (None, path):
        shutil.rmtree(aside)


def _hide_store(path: Path) -> Path | None:
    """Rename a store to a hidden name and return its new path.

    The path is unchanged if renaming fails; a file or a link is removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return None
    StoreLock.check(path)
    hidden_path = path.with_name(f".{_create_token()}.{path.name}")
    try:
        return path.rename(hidden_path)
    except OSError:
        return path


# Locks: one process at a time fills a store.


class StoreLock:
    """Lock that protects a store against other processes.

    All users in a process share one lock; another process that holds it is waited for
    briefly. Without support for file locks, as on some networks, nothing is locked.
    """

    def __init__(self, folder: Path, *, patience_s: float = 0) -> None:
        from filelock import FileLock, Timeout

        self._lock: FileLock | None = None
        place = _get_lock_path(folder)
        if place.is_symlink():  # its target would be emptied
            msg = f"{place} must be a lock file, but is a link: remove it."
            raise core.WriteError(msg, code="unsafe-content")
        lock = FileLock(place, is_singleton=True, thread_local=False)
        try:
            lock.acquire(timeout=patience_s)
        except Timeout as error:
            msg = f"Another process is writing to {folder}: wait, or rename the output."
            raise core.WriteError(msg, code="output-locked") from error
        except (OSError, NotImplementedError):
            _logger.debug("File locks are not supported here.")
        else:
            self._lock = lock

    @property
    def is_supported(self) -> bool:
        """Whether the lock is held; false without support for file locks."""
        return self._lock is not None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the object without its lock."""
        return type(None), ()

    def __del__(self) -> None:
        with suppress(Exception):  # Python would print it while it ends
            self.release(force=False)

    @staticmethod
    def check(folder: Path) -> None:
        """Raise `WriteError` if another process holds the lock of a store."""
        if _get_lock_path(folder).is_file() or _get_lock_path(folder).is_symlink():
            StoreLock(folder)

    def release(self, *, force: bool = True) -> None:
        """Release the lock and remove its file.

        Also if this process has other users of it: an interrupted run may still be in
        memory.
        """
        lock, self._lock = self._lock, None
        if lock is None or not lock.is_locked:
            return
        last = force or lock.lock_counter == 1
        file = Path(lock.lock_file)
        with suppress(PermissionError):  # Windows does not remove open files
            if last:
                file.unlink(missing_ok=True)
        lock.release(force=force)


def _get_lock_path(folder: Path) -> Path:
    """Return the path of the lock file next to a store."""
    return folder.with_name(f".held.{folder.name}")


def get_label_path(target: Path, name: str) -> Path:
    """Return the path of a label image, inside a store or next to any other file."""
    if target.name.lower().endswith(".zarr"):
        return target / LABELS / name
    return target.with_name(f"{_remove_suffix(target)}.{name}.tif")


def get_companion_path(target: Path, name: str) -> Path:
    """Return the store path of an output's companion image, such as heights."""
    return target.with_name(f"{_remove_suffix(target)}.{name}.ome.zarr")


def get_half_paths(mosaic: Path) -> tuple[Path, Path]:
    """Return the paths of both halves of a mosaic, whether or not they exist."""
    return get_companion_path(mosaic, "half-a"), get_companion_path(mosaic, "half-b")


def _remove_suffix(path: Path) -> str:
    """Return the name of an output without its format suffix."""
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def create_file_stem(name: str) -> str:
    """Convert an image name to a file name without suffix.

    It has letters, digits, ``_``, ``-`` and ``.``.
    """
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "result"


def get_display_name(path: Path, name: str) -> str:
    """Return the display name of a file.

    The name stored in the file if the file name still matches it, otherwise the file
    name. An image inside a store has its own name.
    """
    if any(parent.name.lower().endswith(".zarr") for parent in path.parents):
        return name
    stem = _remove_suffix(path)
    # an image of another format has the name of its file without the suffix
    return name if name == path.stem or create_file_stem(name) == stem else stem


def get_partial_store_path(target: Path) -> Path:
    """Return the path of the hidden store from which an output can be resumed."""
    return target.with_name(f".{target.name}.part.ome.zarr")


def move(source: Path, target: Path) -> None:
    """Move a file or store to an unused name, to another disk if necessary."""
    if target.is_dir():  # a folder into which it would be moved
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    shutil.move(source, target)


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Convert system errors during writing to `WriteError`."""
    try:
        yield
    except core.SemsrError:
        raise
    except OSError as error:
        number = error.errno or 0
        if not number and "requested and" in str(error):  # numpy: written in part
            number = errno.ENOSPC
        why = os.strerror(number) if number else str(error)
        msg = f"{path} could not be written ({why}): check disk space and permissions."
        raise core.WriteError(msg, code=NOT_WRITTEN.get(number)) from error
    except Exception as error:
        if path.parent.is_dir() and not isinstance(error.__cause__, OSError):
            raise
        msg = f"{path} could not be written: its temporary file was removed."
        raise core.WriteError(msg, code="output-removed") from error


@contextmanager
def use_temporary_path(
    path: Path, suffix: str | None = None, *, place: Path | None = None
) -> Iterator[Path]:
    """Yield a hidden path next to a given path and remove it afterwards.

    The path does not exist yet. It has the suffix of the path, unless `place` is given,
    on which several processes must agree.
    """
    stem, dot, own = path.name.partition(".")
    hidden_name = f".{stem}-{_create_token()}{suffix or dot + own}"
    place = path.with_name(hidden_name) if place is None else place
    try:
        with name_output_in_errors(place, path):
            yield place
    finally:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


@contextmanager
def name_output_in_errors(place: Path, path: Path) -> Iterator[None]:
    """Replace the hidden path in write errors by that of the output."""
    try:
        yield
    except core.WriteError as error:
        if str(place) not in str(error):
            raise
        msg = str(error).replace(str(place), str(path))
        raise core.WriteError(msg, code=error.code) from error


def get_machine_name() -> str:
    """Return a name for the host or container in which process IDs are valid."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _create_token() -> str:
    """Return a random part of a hidden name, with the machine and process using it."""
    machine = zlib.crc32(get_machine_name().encode()) & 0xFFFF
    return f"{machine:04x}{os.getpid():06x}{uuid.uuid4().hex[:4]}"


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what processes that were killed left behind in a folder.

    These are hidden files from `use_temporary_path`: of an output and its companion
    images, or of all if no `name` is given. A store that was hidden to be replaced gets
    its name back if the new one is missing.
    """
    token, end = "([0-9a-f]{14})", r"(?:\..*)?"
    stem = re.escape(name.partition(".")[0]) if name else "[^.]+"
    leftover = re.compile(
        rf"\.(?:held\.\.)?{stem}-{token}{end}|\.{token}\.({stem}{end})"
    )
    names: list[str] = []
    with suppress(OSError):  # missing or unreadable; the output reports it
        names = [entry.name for entry in folder.iterdir()]
    matches = [*filter(None, map(leftover.fullmatch, names))]
    if not matches:
        return
    from psutil import pid_exists

    machine = _create_token()[:4]
    for match in matches:
        token = match[1] or match[2]
        if token[:4] != machine or pid_exists(int(token[4:10], 16)):
            continue
        hidden_path = folder / match[0]
        with suppress(OSError):  # removed by another process
            if match[3] and not (previous := folder / match[3]).exists():
                hidden_path.rename(previous)
            elif hidden_path.is_dir() and not hidden_path.is_symlink():
                shutil.rmtree(hidden_path)
            else:
                hidden_path.unlink()


def sync_to_disk(path: Path, *, inside: bool = True) -> None:
    """Wait until a file or the contents of a folder are written to disk.

    A name may reach the disk before its contents, so a marker of completeness must be
    written after this. If `inside` is False, only the names in a folder are
    synchronised, not its files. ``SEMSR_SYNC=0`` in the environment disables the wait.
    """
    if os.environ.get("SEMSR_SYNC") == "0" or not (inside or _SYNCS_FOLDERS):
        return
    for each in (path, *(path.rglob("*") if inside else ())):
        if each.is_file() or (_SYNCS_FOLDERS and each.is_dir()):
            descriptor = os.open(each, os.O_RDONLY if _SYNCS_FOLDERS else os.O_RDWR)
            try:
                os.fsync(descriptor)
            except OSError as error:  # a file system without support for it
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
            finally:
                os.close(descriptor)


@contextmanager
def write_atomically(path: Path, place: Path | None = None) -> Iterator[Path]:
    """Write a file or folder under a hidden name and rename it when it is complete.

    The hidden name is in the same folder, with the same suffixes, or is a `place` on
    which several processes agree; an existing file of the final name is replaced.
    """
    with use_temporary_path(path, place=place) as hidden_path:
        yield hidden_path
        replace_output(hidden_path, path)


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a hidden path, rename it when complete, and convert system errors.

    The hidden name is in the same folder, with the same suffixes.
    """
    with convert_write_errors(path), write_atomically(path) as place:
        yield place


# Metadata that this package writes with the pixels, in every format.
#
# The record holds what a format cannot store exactly: name, pixel size to the last
# digit, origin, and the provenance. It is one JSON object.

RECORD_KEY = "napari-semsr"
_FORMAT = 1


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class Record:
    """Name, calibration, history and display settings of an image."""

    name: str
    # ``(y, x)`` exact
    pixel_size_nm: Annotated[
        core.PixelSize | None, BeforeValidator(core.parse_pixel_size)
    ]
    origin: core.FloatPair  # As in `Micrograph`
    spacing_px: core.FloatPair  # As in `Micrograph`
    provenance: core.Provenance | None  # Provenance of the image
    look: core.DisplaySettings | None = None  # Display settings
    # Rows and columns, since other programs may crop the file
    shape: core.IntPair | None = None
    significant_bits: int | None = None  # As in `Micrograph`

    def to_dict(self) -> dict[str, object]:
        """Return the record as a JSON object."""
        values = to_jsonable_python(self)
        added = {"look", "shape", core.BITS_KEY}  # left out by the first versions
        known = {k: v for k, v in values.items() if v is not None or k not in added}
        return {"record": _FORMAT, **known}

    def to_json(self) -> str:
        """Return the record as one line of ASCII JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str, warnings: list[str]) -> "Record | None":
        """Read a record from JSON text, as `from_dict` does."""
        try:
            return cls.from_dict(json.loads(text), warnings)
        except ValueError:
            return cls.from_dict({}, warnings)

    @classmethod
    def from_dict(cls, values: Any, warnings: list[str]) -> "Record | None":
        """Read a record from a JSON object, if there is one; None if it is damaged.

        `warnings` receives the reason.
        """
        if values is None:
            return None
        try:
            # the form of a later version is not known
            values = values if values["record"] == _FORMAT else {}
            look = None
            with suppress(ValueError, LookupError):  # invalid settings are ignored
                look = core.DisplaySettings.model_validate(values["look"])
            return cls(**{**values, "look": look})
        except (LookupError, TypeError, ValueError, core.OptionError):
            damage = "The record of the image is damaged or newer, and is not used."
            warnings.append(core.Message(damage, "metadata-damaged"))
            return None


def create_image_record(image: core.Micrograph) -> Record:
    """Return the record to write with the pixels of an image."""
    history = image.provenance
    # the history may contain other values
    keys = (core.SIZE_ERROR_KEY, core.ORIGIN_KEY)
    own = {key: image.metadata[key] for key in keys if key in image.metadata}
    own |= image.unrecorded_instrument
    if history is None and (own.get(core.ORIGIN_KEY) or {}).get("in_file"):
        del own[core.ORIGIN_KEY]  # the new file states the pixel size itself
    if own:
        history = history or core.Provenance(job="convert")
        history = history.model_copy(update={"options": {**history.options, **own}})
    return Record(
        name=image.name,
        pixel_size_nm=image.pixel_size_nm,
        origin=image.origin,
        spacing_px=image.spacing_px,
        provenance=history,
        look=image.look,
        shape=image.shape,
        significant_bits=image.significant_bits,
    )


# Log of failed jobs, with the details needed for a report.
#
# It contains no images, and their names only within error messages.

_MAX_BYTES = 1_000_000  # size of a log before it is rotated; chosen
_PACKAGES = ("napari-semsr", "napari", "numpy", "torch", "zarr", "tifffile")


def get_error_log_path() -> Path:
    """Return the path of the error log of the panels, which may not exist."""
    folder = platformdirs.user_state_path("napari-semsr", appauthor=False)
    return folder / "errors.log"


def log_error(
    title: str, error: BaseException, path: Path | None = None
) -> Path | None:
    """Append an error with its traceback to a log, which is rotated when it is full.

    By default to the log of panels. Returns None if it cannot be written; no error is
    raised.
    """
    path = get_error_log_path() if path is None else path
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    text = "".join(traceback.format_exception(error))
    versions = [f"Python {platform.python_version()}", platform.platform()]
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # an extra that is not installed
            versions.append(f"{name} {version(name)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{now} {title}\n{', '.join(versions)}\n{text}\n")
    except OSError:
        return None
    return path
