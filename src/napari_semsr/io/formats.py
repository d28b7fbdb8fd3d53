"""Entry point for all file formats, with the modules that read and write them.

A format is a module with ``matches(path, head)`` and ``raw_image(path, options)``,
whose pixels are lazy if that saves memory; a format that is decoded as a whole also
receives the bytes. Modules are imported when first needed; the first one that
recognises the first bytes of a file reads it, independent of its name.
"""

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from napari_semsr import core
from napari_semsr.io import files, read_image
from napari_semsr.io.read_image import FileInfo, RawImage, ReadOptions
from napari_semsr.io.tiff_read import list_set_files
from napari_semsr.io.zarr_image import read_coverage
from napari_semsr.io.zarr_store import OmeZarrStore, read_store_state

_HEAD = 16  # bytes by which a format is recognised; chosen
_LARGEST_FILE = 1 << 31  # bytes; chosen: an uncompressed image of 46k x 46k px
_MICROSCOPES = "napari_semsr.io.em"
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
_OF_DATASETS = "HDF5"  # format whose files may hold several images by name
_READABLE = "TIFF, PNG, JPEG, BMP, HDF5, CZI, DM3, DM4, SER, EMD, MRC or OME-Zarr"


@dataclass(frozen=True, slots=True)
class Format:
    """Entry in the format table."""

    name: str  # Name for users
    suffixes: tuple[str, ...]  # Usual endings of file names
    module: str  # Module of the reader
    one_plane: bool = False  # Whether it has no stacks


FORMATS = (
    Format("OME-Zarr", (".ome.zarr", ".zarr"), "napari_semsr.io.zarr_image"),
    Format("TIFF", (".tif", ".tiff"), "napari_semsr.io.tiff_read"),
    Format("PNG, JPEG, BMP", _PICTURES, "napari_semsr.io.png", one_plane=True),
    Format(_OF_DATASETS, (".h5", ".hdf5", ".nxs"), "napari_semsr.io.hdf5"),
    Format("CZI", (".czi",), "napari_semsr.io.czi"),
    Format("DM3, DM4", (".dm3", ".dm4"), _MICROSCOPES),
    Format("SER", (".ser",), _MICROSCOPES),
    Format("EMD", (".emd",), _MICROSCOPES),
    Format("MRC", read_image.MRC_SUFFIXES, _MICROSCOPES),
)
FILE_SUFFIXES = {suffix for row in FORMATS[1:] for suffix in row.suffixes}
_ALIKE = 0.75  # similarity of names, 0 to 1; chosen: a suffix or two letters differ
_WRITERS = {
    "ome-zarr": ("zarr_image", "write"),
    "ome-tiff": ("tiff_write", "write_ome"),
    "tiff": ("tiff_write", "write_imagej"),
    "png": ("png", "write"),
}
"""Module and function that write each output format."""


def create_missing_file_error(path: Path) -> core.ReadError:
    """Return the error for a missing file, suggesting a similar name."""
    try:
        names = [item.name for item in path.parent.iterdir()]
    except (OSError, ValueError):  # no folder, or an unreadable one
        names = []
    stem, formats = f"{path.name.partition('.')[0]}.", (*FILE_SUFFIXES, ".zarr")
    same = [n for n in names if n.startswith(stem) and n.lower().endswith(formats)]
    # first the same name in another format
    near = get_close_matches(path.name, same or names, 1, 0 if same else _ALIKE)
    remedy = f"did you mean {path.with_name(near[0])}?" if near else "check the path."
    msg = core.escape_invisible_characters(f"{path} does not exist: {remedy}")
    return core.ReadError(msg, code="file-missing")


def list_companion_files(path: Path) -> list[Path]:
    """List the companion files of an image: mosaic halves, text files, its set."""
    halves = files.get_half_paths(path)
    return [*halves, *read_image.list_text_files(path), *list_set_files(path)]


def digest_image_file(path: Path) -> core.Job[str]:
    """Compute the digest of an image file, with the other files of its set.

    Parameters
    ----------
    path : Path
        File or store; an OME-TIFF may be one of a set.

    Returns
    -------
    str
        ``sha256:`` and the digest in hexadecimal.
    """
    digests = []
    for file in (path, *list_set_files(path)):
        digests.append((yield from core.digest_with_progress(file)))  # noqa: PERF401 - yields
    return core.combine_digests(digests)


@dataclass(eq=False, slots=True)
class Source:
    """A file or store that is opened once for several requests."""

    path: Path
    format: Format
    data: bytes | None = None  # all bytes of a file that is decoded as a whole
    _digest: str | None = None
    # Cached description for the following read, and its series and dataset
    _raw: tuple[tuple[int | None, str | None], RawImage] | None = None

    @classmethod
    def from_path(cls, path: Path, *, whole: bool = True) -> "Source":
        """Detect the format by the first bytes; raise `ReadError` if it is unknown.

        Files that are decoded as a whole are read completely, unless `whole` is False.
        """
        if not files.path_exists(path):
            raise create_missing_file_error(path)
        if path.is_dir():
            return cls(path, _detect_format(path, b""))
        decoding = files.convert_decoding_errors(path, "an image")
        with decoding, core.open_file(path) as stream:
            head = stream.read(_HEAD)
            if not head:
                msg = f"{path} must be an image, but the file is empty: copy it again."
                raise core.ReadError(msg, code="file-empty")
            row = _detect_format(path, head)
            if not (whole and row.one_plane):
                return cls(path, row)
            rest = core.read_remaining_bytes(stream, path, _LARGEST_FILE)
            return cls(path, row, head + rest)

    def compute_digest(self) -> core.Job[str]:
        """Compute the digest of the file once and free its contents."""
        if self._digest is None and self.data is not None:
            self._digest = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
            self.data = None
        elif self._digest is None:
            self._digest = yield from digest_image_file(self.path)
        return self._digest

    def read_info(
        self, dataset: str | None = None, series: int | None = None
    ) -> FileInfo:
        """Describe the file, or its first dataset if it has several."""
        with files.convert_decoding_errors(self.path, self.format.name):
            raw = self._decode_first(dataset, series)
            return read_image.create_file_info(self.path, raw)

    def _decode_first(self, dataset: str | None, series: int | None) -> RawImage:
        """Decode the first plane, of the first dataset if there are several."""
        options = ReadOptions(channel=0, plane=0, dataset=dataset, series=series)
        first = {"first": True} if self.format.name == _OF_DATASETS else {}
        try:
            raw = self._decode(options, **first)
        except core.ReadError as error:  # reading the first plane reports it
            try:
                raw = self._decode(options.model_copy(update={"plane": 1}))
            except core.SemsrError:
                raise error from error.__cause__
        # for several images, reading raises an error or chooses one
        if not first and raw.planes * raw.channels == 1:
            self._raw = (series, dataset), raw
        return raw

    def read_axes(self, options: ReadOptions) -> dict[str, int]:
        """Return the sizes of the plane axes without reading pixels.

        Only axes on which `options` do not choose an index.
        """
        if self.format.one_plane:
            return {}
        with files.convert_decoding_errors(self.path, self.format.name):
            axes = self._decode_first(options.dataset, options.series).axes
        names = ["c"]
        for axis, name in read_image.AXIS_OPTIONS.items():
            if getattr(options, name) is not None:
                names.append(axis)
        return {axis: size for axis, size in axes.items() if axis not in names}

    def read(self, options: ReadOptions) -> core.Micrograph:
        """Read the image."""
        with files.convert_decoding_errors(self.path, self.format.name):
            of_raw, raw = self._raw or (None, None)
            self._raw = None
            place = options.level, options.channel, options.time, options.z
            is_same = (*place, options.plane) == (0, None, None, None, None)
            if not is_same or of_raw != (options.series, options.dataset):
                raw = None
            raw = raw or self._decode(options)
            return read_image.create_micrograph(self.path, raw, options)

    def _decode(self, options: ReadOptions, **how: object) -> RawImage:
        if options.dataset is not None and self.format.name != _OF_DATASETS:
            msg = f"{self.path} has no datasets, since it is not HDF5: omit `dataset`."
            raise core.ReadError(msg, code="option-without-effect")
        if self.format.one_plane:
            how = {"data": self.data or core.read_bytes(self.path, _LARGEST_FILE)}
        module = import_module(self.format.module)
        raw: RawImage = module.raw_image(self.path, options, **how)
        return raw


def _detect_format(path: Path, head: bytes) -> Format:
    name = path.name.lower()
    for row in sorted(FORMATS, key=lambda row: not name.endswith(row.suffixes)):
        if import_module(row.module).matches(path, head):
            return row
    code = "format-unknown"
    if path.is_dir():
        has_files = bool(core.list_folder(path))
        code = "no-image"
        what = "a folder without zarr data" if has_files else "an empty folder"
        msg = f"{path} must be an image or an OME-Zarr store, but is {what}."
        if any(item.suffix.lower() in FILE_SUFFIXES for item in core.list_folder(path)):
            code = "folder-of-images"
            msg = (
                f"{path} must be an image, but is a folder of images: stitch the "
                "frames into a mosaic (`stitch()`), or choose one image in the folder."
            )
    elif path.suffix.lower() == ".ome" and b"<" in head:
        code = "no-image"
        msg = f"{path} only describes images in other files: open one of these TIFFs."
    else:
        start, text = head[:8], head[:8].decode("ascii", "replace")
        is_text = text.isprintable() and text.isascii()
        begins = f"the text '{text}'" if is_text else f"the bytes {start.hex(' ')}"
        msg = f"{path} must be a {_READABLE} image, but begins with {begins}"
        msg += ": convert it to one of these formats."
    raise core.ReadError(msg, code=code)


def describe(path: str | Path, *, dataset: str | None = None) -> FileInfo:
    """Describe a file or store: shape, type, calibration and available images.

    `dataset` is a path inside an HDF5 file; of several, the first is described.
    """
    return Source.from_path(Path(path)).read_info(dataset)


def count_planes(path: Path) -> int:
    """Count the planes of a file or store without reading pixels."""
    axes = Source.from_path(path, whole=False).read_axes(ReadOptions())
    return math.prod(axes.values())


def read(
    path: str | Path,
    *,
    series: int | None = None,
    level: int = 0,
    channel: int | None = None,
    time: int | None = None,
    z: int | None = None,
    plane: int | None = None,
    dataset: str | None = None,
    pixel_size_nm: float | Sequence[float] | None = None,
    pixel_size_sd_nm: float | Sequence[float] | None = None,
    crop_databar: bool = True,
    databar_rows: int | None = None,
    colour: str = "refuse",
) -> core.Micrograph:
    """Read an image.

    Parameters
    ----------
    path : str or pathlib.Path
        File or store; its first bytes determine the format, not its name.
    series : int, optional
        Index of the image in the file, or in its set of files; by default the file's
        own image at full size.
    level : int, default=0
        Level of its pyramid.
    channel : int, optional
        Must be given when there are several; the first is 0.
    time, z : int, optional
        Point in time and height.
    plane : int, optional
        Must be given when there are several, counted over the remaining axes, the last
        fastest.
    dataset : str, optional
        Path inside an HDF5 file; must be given when there are several.
    pixel_size_nm : float or sequence of float, optional
        Overrides or supplies the calibration at level 0: one number, or ``(y, x)``.
    pixel_size_sd_nm : float or sequence of float, optional
        Standard deviation of that size, stored in the image's metadata.
    crop_databar : bool, default=True
        Crop the data bar that the header states.
    databar_rows : int, optional
        Rows to crop at the bottom, at level 0, instead of those of the header.
    colour : {"refuse", "luminance"}
        How to handle a colour image.

    Returns
    -------
    Micrograph
        Lazy (dask) when it is larger than 64 MB or in a store.

    Raises
    ------
    ReadError
        If it cannot be read with these options.
    IncompleteError
        If it is an unfinished store.
    OptionError
        If an option has an invalid value.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.eye(48, 64), (7.7, 7.7), name="field")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/field.ome.tif")
    ...     again = semsr.read(f"{folder}/field.ome.tif")
    >>> again.name, again.shape, again.pixel_size_nm
    ('field', (48, 64), (7.7, 7.7))
    """
    options = dict(locals())
    del options["path"]
    return Source.from_path(Path(path)).read(ReadOptions.parse(options))


def write(
    image: core.Micrograph,
    path: str | Path,
    *,
    overwrite: bool = False,
    dtype: DTypeLike | None = None,
) -> None:
    """Write an image in the format given by the suffix.

    Parameters
    ----------
    image : Micrograph
        Numpy or dask data.
    path : str or pathlib.Path
        ``.ome.zarr``, ``.ome.tif``, ``.tif`` (ImageJ-calibrated) or ``.png`` (8-bit).
        The file appears under this name only when complete.
    overwrite : bool, default=False
        Replace an existing image.
    dtype : dtype-like, optional
        Convert first, rounding and clipping.

    Raises
    ------
    WriteError
        If it cannot be written there.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.full((48, 64), 0.5), (7.7, 7.7))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/field.ome.zarr", dtype="float32")
    ...     stored = semsr.read(f"{folder}/field.ome.zarr").array()
    >>> str(stored.dtype), float(stored.max())
    ('float32', 0.5)
    """
    path = Path(path)
    more = read_companions(image, path)
    for place in (path, *more):
        files.check_target(place, overwrite=overwrite)
    target_type = image.dtype if dtype is None else np.dtype(dtype)
    if target_type != image.dtype:
        data = image.data
        if image.is_lazy:
            data = data.map_blocks(_convert_block, target_type, dtype=target_type)
        else:
            data = _convert_block(data, target_type)
        image = image.replace(data=data, look=image.look)
    module, function = _WRITERS[files.get_output_format(path)]
    getattr(import_module(f"napari_semsr.io.{module}"), function)(image, path)
    for place, item in more.items():
        write(item, place, overwrite=True)


def get_stored_type(path: Path, dtype: DTypeLike) -> str:
    """Return the grey-value type stored in an output for a given `dtype`.

    Not every format has every type.
    """
    kind = files.get_output_format(path)
    if kind in ("ome-tiff", "tiff"):
        import tifffile

        with tifffile.TiffFile(path) as tif:
            return str(tif.pages.first.dtype)
    return "uint8" if kind == "png" else str(np.dtype(dtype))


def read_companions(image: core.Micrograph, path: Path) -> dict[Path, core.Micrograph]:
    """Read the companion images to copy together with a mosaic.

    These are its halves, and the coverage if the copy is not a store, which contains
    it. A display image has other grey values and no such images. A copy under the
    mosaic's own name shares the existing ones; raises a `WriteError` if these have
    another grid.
    """
    kind, source = files.get_output_format(path), Path(image.path or "")
    if image.path is None or kind == "png" or source.absolute() == path.absolute():
        return {}
    images: dict[Path, core.Micrograph] = {}
    pairs = zip(files.get_half_paths(source), files.get_half_paths(path), strict=True)
    for half, place in pairs:
        stored = read(half) if files.path_exists(half) else None
        if stored is None or stored.shape != image.shape:
            continue
        if place.resolve() != half.resolve():
            own = {"provenance": stored.provenance, "look": stored.look}
            images[place] = image.replace(data=stored.data, name=stored.name, **own)
        elif core.Grid.from_image(stored) != core.Grid.from_image(image):
            msg = f"{path.name} and {source.name} would both use {half.name}, but "
            msg += "differ in pixel size or origin: choose another name."
            raise core.WriteError(msg, code="pixel-size-contradicts")
    of_source, place = (
        files.get_label_path(one, files.COVERAGE) for one in (source, path)
    )
    counts = None if kind == "ome-zarr" else read_coverage(image)
    if counts is not None and place.resolve() != of_source.resolve():
        images[place] = counts
    return images


def _convert_block(block: core.RealArray, dtype: np.dtype[np.generic]) -> object:
    return core.convert_dtype(block, dtype)[0]


# All outputs: fill a store block by block, finish it, convert and rename it.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WrittenOutput(Generic[T]):
    """Output that has been written completely."""

    result: T  # return value of `fill`
    shape: core.IntPair
    dtype: str  # of the grey values in the output
    pixel_size_nm: core.PixelSize | None


def write_blocks(
    target: Path,
    make: Callable[[Path], OmeZarrStore],
    fill: Callable[[OmeZarrStore], core.Job[T]],
    *,
    kept_store: Path | None = None,
) -> core.Job[WrittenOutput[T]]:
    """Write an image block by block, replacing any existing output.

    `make` creates or reopens the store at a given path; `fill` fills it, as
    `OmeZarrStore.fill` does. In `kept_store`, a `get_output_store_path`, finished parts
    are kept when a run fails or is stopped, so that it can be resumed. Otherwise a
    failed run leaves nothing. Raises a `WriteError` for errors of the system.
    """
    is_kept, hidden = kept_store is not None, _use_hidden_store(target)
    with hidden if kept_store is None else finalise_store(kept_store, target) as place:
        store = make(place)
        keep = _keep_finished_part(target, store) if is_kept else nullcontext()
        with store.release_lock_on_exit(), keep:
            result = yield from fill(store)
            if not store.is_complete:
                yield from store.finish()
        if files.get_output_format(target) != "ome-zarr":
            yield core.Progress(0, 0, f"writing {target.name}")
            write(read(place), target, overwrite=True)
            _write_labels(store, target)
    return WrittenOutput(
        result=result,
        shape=store.shape,
        dtype=get_stored_type(target, store.level0.dtype),
        pixel_size_nm=store.record.pixel_size_nm,
    )


def _write_labels(store: OmeZarrStore, target: Path) -> None:
    """Write the label images of a finished store next to a file of another format."""
    import dask.array as da

    if files.LABELS not in store.group:
        return
    image = read(store.path)
    for name in store.group.require_group(files.LABELS).group_keys():
        counts = da.from_zarr(store.group[f"{files.LABELS}/{name}/0"])
        label = image.replace(data=counts, name=f"{image.name} {name}")
        write(label, files.get_label_path(target, name), overwrite=True)


@contextmanager
def _use_hidden_store(target: Path) -> Iterator[Path]:
    """Yield a hidden store, then rename it if the output is a store, else delete it."""
    hidden = files.use_temporary_path(target, ".ome.zarr")
    if files.get_output_format(target) == "ome-zarr":
        hidden = files.write_atomically(target)
    with files.convert_write_errors(target), hidden as place:
        yield place


def get_output_store_path(target: Path, *, resume: bool) -> Path:
    """Return the path of the store to fill, which is kept if writing fails.

    The output itself if it is a store, otherwise a hidden store next to it; also hidden
    if a complete store is replaced, which is kept until the new one is complete.
    """
    hidden_path = files.get_partial_store_path(target)
    if not target.name.lower().endswith(".zarr"):
        return hidden_path
    if read_store_state(target)[1].get("complete") is False:
        return target
    return hidden_path if (hidden_path if resume else target).exists() else target


@contextmanager
def finalise_store(place: Path, target: Path) -> Iterator[Path]:
    """Yield a store, then rename it if the output is a store, otherwise delete it.

    Remains of an earlier run next to the target are removed, too, unless another
    process is still filling them.
    """
    yield place
    if place != target and files.get_output_format(target) == "ome-zarr":
        with files.convert_write_errors(target):
            files.replace_output(place, target)
    with suppress(core.WriteError, OSError):
        files.remove_target(files.get_partial_store_path(target))


@contextmanager
def _keep_finished_part(target: Path, store: OmeZarrStore) -> Iterator[None]:
    """Keep the finished part of a store if a run fails."""
    try:
        yield
    except Exception as error:
        is_gone = not store.path.is_dir()
        if len(store.pending_units()) == store.done_marks.size:
            shutil.rmtree(store.path, ignore_errors=True)
        is_full = files.NOT_WRITTEN.get(getattr(error, "errno", 0)) == "disk-full"
        if isinstance(error, OSError) and is_full:
            why = f"{target} could not be completed ({error.strerror})"
            msg = f"{why}: free disk space, then run again with `resume`."
            raise core.WriteError(msg, code="disk-full") from error
        if is_gone and not isinstance(error, core.SemsrError):
            msg = f"{target} could not be completed: {store.path} was removed."
            raise core.WriteError(msg, code="output-removed") from error
        raise
