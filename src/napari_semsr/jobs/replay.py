"""Replay the history of an output, and compare the results."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
import psutil

from napari_semsr import core, io, models
from napari_semsr.analysis import split_into_blocks
from napari_semsr.jobs.history import SCAN, RecordedCall, RecordedInput, read_history
from napari_semsr.jobs.images import Result, digest_values, open_image
from napari_semsr.jobs.stitch import digest_folder, get_part_paths
from napari_semsr.jobs.verb import FileInput, ImageInput, Run, command

Digest = Callable[[Path], core.Job[str]]

_BLOCK = 1024  # side in pixels of a block that is compared at once; chosen: 8 MB each
_ROUNDING = 1e-9  # relative, of pixel size and origin; chosen: 10 digits are stored


# Find the inputs of an output: at their recorded paths, or by their digests.

_ABOVE = 4  # levels above an output to search for inputs; chosen: a project folder
_LONGEST = 1000  # characters of a path in a message; chosen: any real path
_DIGEST_DIGITS = 12  # hexadecimal digits of a digest in a message; chosen: unambiguous
_STORES = (".zarr",)


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference between an output or input and its record.

    Of a version, it is the name of a package, a device, a precision or a thread count.
    """

    what: Literal["pixels", "calibration", "input", "model", "version"]
    name: str  # of the input, model or package
    then: str | None  # digest, version or value, as recorded
    now: str | None  # the same, as found
    said: str


@dataclass(eq=False)
class InputSearch:
    """Input search that also collects differences from the record."""

    output: Path  # inputs are searched for next to it
    inputs: Path | None = None  # folder to search for inputs by digest
    differences: list[Difference] = field(default_factory=list)
    _digests: dict[tuple[Path, Digest], str | None] = field(default_factory=dict)

    def find_input(
        self,
        call: RecordedCall,
        role: str,
        one: RecordedInput,
        files: Mapping[str, str],
    ) -> core.Job[Path | None]:
        """Find the file of an input; return None if its own call makes it again.

        `files` are the paths of the inputs found before, by name.
        """
        if one.call is not None and not one.is_saved:
            return None
        locate = self._locate_model if role == "model" else self._locate_file
        path, now = yield from locate(call, role, one, files)
        if path is None and one.call is not None:
            return None
        if path is None:
            where = "at no recorded path"
            if one.path:
                where = f"not at {core.format_one_line(one.path, _LONGEST)}"
            digest = one.digest or "without a digest"
            msg = (
                f"Cannot find the {one.role.replace('_', ' ')} {one.name!r} "
                f"({digest}), an input of {call.verb.name}: it is {where}, nor next to "
                "the output. Pass its folder as `inputs` to find it by its digest."
            )
            raise core.ReadError(msg, code="file-missing")
        self.compare_digest(one, now)
        return path

    def compare_digest(self, file: RecordedInput, now: str | None) -> None:
        """Record that an input differs, once per difference."""
        unknown = file.digest is None and file.role != "model"
        if unknown or now == file.digest:
            return
        then, there = _shorten_digest(file.digest), _shorten_digest(now)
        kind: Literal["input", "model"] = "input"
        name = file.name
        what = f"{file.role.replace('_', ' ')} {name} has changed: {then} was recorded"
        if file.role == "model":
            kind, name = "model", PurePosixPath(file.name).stem
            what = f"model {name} has changed: the output was created with {then}"
        sentence = f"The {what}, but {there} was found."
        difference = Difference(kind, name, file.digest, now, sentence)
        if difference not in self.differences:
            self.differences.append(difference)

    def _locate_file(
        self,
        call: RecordedCall,
        role: str,
        file: RecordedInput,
        files: Mapping[str, str],
    ) -> core.Job[tuple[Path | None, str | None]]:
        """Find a file by the recorded digest, otherwise at the recorded path."""
        folders = role == SCAN
        near = [
            place
            for place in self._list_nearby_paths(file)
            if folders or place.is_file() or place.suffix in _STORES
        ]
        if file.digest is None:
            return (near[0], None) if near else (None, None)
        trials = _list_digest_functions(call, role, file, files)
        for place in chain(near, self._list_input_files(file, folders=folders)):
            for trial in trials:
                if (yield from self._get_digest(place, trial)) == file.digest:
                    return place, file.digest
        if near and file.path:
            return near[0], (yield from self._get_digest(near[0], trials[0]))
        return None, None

    def _locate_model(
        self,
        call: RecordedCall,
        role: str,
        file: RecordedInput,
        files: Mapping[str, str],
    ) -> core.Job[tuple[Path | None, str | None]]:
        """Find a model by its digest, otherwise by its name."""
        model_path, now = None, None
        with suppress(core.CheckpointError):  # not in the library: searched as a file
            model_path = models.find_model(PurePosixPath(file.name).stem)
            now = yield from _digest_file(model_path)
        if model_path is not None and now == file.digest:
            return model_path, now
        path, other = yield from self._locate_file(call, role, file, files)
        return (model_path, now) if path is None else (path, other)

    def _list_nearby_paths(self, file: RecordedInput) -> Iterator[Path]:
        """Yield existing candidate paths: relative to the output, then as recorded."""
        parts = PurePosixPath(file.path).parts[1:]
        folder = self.output.absolute().parent
        bases = [folder, *folder.parents][: _ABOVE + 1]
        tails = [Path(*parts[-n:]) for n in range(1, len(parts) + 1)][: _ABOVE + 1]
        places = [base / tail for base in bases for tail in tails]
        places += [Path(file.path) if file.path else folder / file.name]
        paths_seen = {self.output.resolve()}
        for place in places:
            if io.path_exists(place) and place.resolve() not in paths_seen:
                paths_seen.add(place.resolve())
                yield place

    def _list_input_files(
        self, file: RecordedInput, *, folders: bool
    ) -> Iterator[Path]:
        """Yield files from the input folder, starting with the recorded name."""
        if self.inputs is None:
            return
        name = PurePosixPath(file.name)

        def sort_key(path: Path) -> tuple[bool, bool, bool, str]:
            other = path.suffix.lower() != name.suffix.lower()
            return path.name != file.name, path.stem != name.stem, other, str(path)

        yield from sorted(_walk_folder(self.inputs, folders=folders), key=sort_key)

    def _get_digest(self, path: Path, digest: Digest) -> core.Job[str | None]:
        """Compute the digest of a file once; None if it cannot be read."""
        key = path, digest
        if key not in self._digests:
            yield core.Progress(0, 0, f"comparing {path.name}")
            try:
                self._digests[key] = yield from digest(path)
            except (core.SemsrError, OSError, ValueError):
                self._digests[key] = None
        return self._digests[key]


# Digests of file contents, as histories record them.


def _digest_file(path: Path) -> core.Job[str]:
    """Compute the digest of a file such as a table, PSF or model."""
    if path.is_dir():
        msg = f"{path} must be a file, got a folder."
        raise core.ReadError(msg, code="not-a-file")
    return (yield from core.digest_with_progress(path))


def _list_digest_functions(
    call: RecordedCall, role: str, file: RecordedInput, files: Mapping[str, str]
) -> tuple[Digest, ...]:
    """Return the functions that may have computed an input's recorded digest.

    An image in a file is recorded by the file's bytes and the index of the image, one
    in memory by its grey values, a scan of frames by all that is read.
    """
    item = call.verb.arguments.get(role)
    if role == SCAN:
        return (partial(digest_folder, values={**call.options, **files}),)
    if isinstance(item, FileInput):
        return (_digest_file,)
    selection = (file.digest or "").partition("#")[2]

    def digest_bytes(
        path: Path, compute: Digest = io.digest_image_file
    ) -> core.Job[str]:
        digest = yield from compute(path)
        return f"{digest}#{selection}" if selection else digest

    reading: io.ReadOptions | None = None
    if isinstance(item, ImageInput):
        sets = call.verb.parse(call.options)
        reading = sets.get(f"{role}_opening") or sets.get("opening") or io.ReadOptions()
        reading = call.verb.get_read_options(role, sets["options"], reading)

    def digest_grey_values(path: Path) -> core.Job[str]:
        return digest_values(open_image(path, reading, blank=True))

    # older versions recorded one file of a set
    alone = partial(digest_bytes, compute=core.digest_with_progress)
    return digest_bytes, digest_grey_values, alone


def _walk_folder(folder: Path, *, folders: bool) -> Iterator[Path]:
    """Yield the files and stores below a folder, optionally with all subfolders."""
    for place, names, files in os.walk(folder):
        here = Path(place)
        if folders:
            yield here
        stores = [name for name in names if name.endswith(_STORES)]
        names[:] = [n for n in names if n not in stores and not n.startswith(".")]
        for name in (*stores, *files):
            if not name.startswith("."):
                yield here / name


def _shorten_digest(digest: str | None) -> str:
    """Shorten a digest for a message."""
    if digest is None:
        return "none"
    kind, _, value = digest.rpartition(":")
    value, _, part = value.partition("#")
    return f"{kind}:{value[:_DIGEST_DIGITS]}{'#' + part if part else ''}"


@dataclass(frozen=True, slots=True)
class ReplayReport(Result):
    """Comparison of a replayed output with the stored one.

    `identical` is whether all pixels are equal or not finite in both; `differs` lists
    all differences: pixels, calibration, inputs, model, versions; `where` is the point
    of the largest difference, after the plane in a stack.
    """

    output: Annotated[str, core.Quantity("Output")]
    job: Annotated[str, core.Quantity("Reproduced by")]
    identical: Annotated[bool, core.Quantity("Identical", large=True)]
    max_abs_difference: float | None  # None if shapes differ
    differs: tuple[Difference, ...]
    pixels: Annotated[int, core.Quantity("Compared", "px", "d")]
    different: int
    where: tuple[int, ...] | None
    shape: tuple[int, ...]

    def figures(self) -> dict[str, core.Figure]:
        """Return what was compared, then the differences."""
        differs = {d.what.capitalize(): core.Figure(d.said) for d in self.differs}
        return {**core.get_declared_figures(self), **differs}


@command(reads=False)
def replay(
    run: Run[core.Options],
    output: Annotated[
        str | Path,
        FileInput(
            help="an image or store written by semsr or a panel", metavar="OUTPUT"
        ),
    ],
    *,
    inputs: Annotated[
        str | Path | None,
        FileInput(
            help="folder to search for inputs by their digests, if they were moved",
            metavar="DIR",
        ),
    ] = None,
) -> core.Job[ReplayReport]:
    """Reproduce an output from its provenance, and compare the two.

    Examples
    --------
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/a.tif")
    ...     made = semsr.restore(f"{folder}/a.tif", f"{folder}/b.tif", psf="1px")
    ...     semsr.replay(made.output).identical
    True
    """
    path, folder = Path(output), None if inputs is None else Path(inputs)
    if folder is not None and not folder.is_dir():
        msg = f"The input folder {folder} does not exist: check the path."
        raise core.ReadError(msg, code="folder-missing")
    # outputs are grey: a colour image fails below, as it has no history
    plane = 0 if _count_planes(path) > 1 else None
    reading = io.ReadOptions(plane=plane, colour="luminance")
    stored_image = open_image(path, reading, blank=True)
    stored_history = stored_image.provenance
    if stored_history is None:
        msg = (
            f"{path.name} has no history, so it cannot be replayed: all outputs of "
            "this package except figures, tables and reports record their history."
        )
        raise core.ReadError(msg, code="history-missing")
    search, history = InputSearch(path, folder), read_history(stored_history, path)
    size = stored_image.shape[0] * stored_image.shape[1]
    with tempfile.TemporaryDirectory(prefix="semsr-replay-") as scratch:
        # the first run had the same warnings
        job = _make_again(history, search, Path(scratch), size)
        again, remade = yield from core.map_progress(job, within=_SILENCE)
        differences = yield from _compare_pixels(path, again)
        # equal pixels were made of equal inputs, though the bytes of files may differ
        for one, place in () if differences.is_identical else remade:
            digest = yield from digest_values(open_image(place, blank=True))
            search.compare_digest(one, digest)
        now = _open_plane(again, differences.planes)
        differs = [
            *_compare_calibration(stored_image, now),
            *search.differences,
            *_compare_versions(stored_history, now.provenance),
        ]
        if not differences.is_identical:
            differs.insert(0, differences.create_difference(path.name))
    return ReplayReport(
        output=str(path),
        job=stored_history.job,
        identical=differences.is_identical,
        max_abs_difference=differences.largest,
        differs=tuple(differs),
        pixels=differences.pixels,
        different=differences.different,
        where=differences.place,
        shape=differences.shape,
    )


def _count_planes(path: Path) -> int:
    """Return the number of planes; 1 for a missing file, which fails when read."""
    return io.count_planes(path) if path.is_file() else 1


def _open_plane(path: Path, planes: int, plane: int = 0) -> core.Micrograph:
    """Open an image, or one plane of a stack."""
    reading = io.ReadOptions(plane=plane) if planes > 1 else None
    return open_image(path, reading, blank=True)


_SILENCE = partial(warnings.catch_warnings, action="ignore", category=UserWarning)


# Compare pixels, block by block.


@dataclass(slots=True)
class _PixelDifferences:
    """Pixel differences found so far."""

    planes: int = 1
    shape: tuple[int, ...] = ()
    other: tuple[int, ...] = ()
    pixels: int = 0
    different: int = 0
    empty: int = 0  # different pixels that are finite in only one image
    largest: float | None = 0.0
    place: tuple[int, ...] | None = None
    values: tuple[float, float] = field(default=(0.0, 0.0))

    @property
    def is_identical(self) -> bool:
        """Whether all pixels are equal."""
        return self.different == 0 and self.shape == self.other

    def add_block(
        self, plane: int, box: core.Box, first: core.RealArray, second: core.RealArray
    ) -> None:
        """Compare a block of both images and accumulate the differences."""
        one, two = (np.asarray(item, np.float64) for item in (first, second))
        finite = np.isfinite(one), np.isfinite(two)
        both, either = finite[0] & finite[1], finite[0] ^ finite[1]
        apart = np.abs(np.where(both, one, 0) - np.where(both, two, 0))
        self.pixels += one.size
        self.empty += int(np.count_nonzero(either))
        self.different += int(np.count_nonzero(apart)) + int(np.count_nonzero(either))
        most = int(apart.argmax())
        new = apart.flat[most] > (self.largest or 0)
        if not new and self.place is None and either.any():
            most, new = int(either.argmax()), True
        if new:
            y, x = (int(v) for v in np.unravel_index(most, one.shape))
            self.largest = max(float(apart.flat[most]), self.largest or 0.0)
            self.values = float(one[y, x]), float(two[y, x])
            corner = (box.y0 + y, box.x0 + x)
            self.place = corner if self.planes == 1 else (plane, *corner)

    def create_difference(self, name: str) -> Difference:
        """Describe the differences."""
        if self.shape != self.other:
            old, new = (" x ".join(map(str, item)) for item in (self.shape, self.other))
            sentence = f"{name} has {old} px as stored, but {new} px when replayed."
            return Difference("pixels", name, old, new, sentence)
        names = ("plane", "row", "column")[-len(self.place or ()) :]
        pairs = zip(names, self.place or (), strict=False)
        where = ", ".join(f"{name} {number}" for name, number in pairs)
        then, now = (f"{value:.9g}" for value in self.values)
        share = f"{self.different} of {self.pixels} pixels differ"
        gaps = f", {self.empty} of them missing in only one image" if self.empty else ""
        most = f"by up to {self.largest:.6g}, " if self.largest else ""
        sentence = f"{share}{gaps}, {most}at {where}: {then} stored, {now} replayed."
        return Difference("pixels", name, then, now, sentence)


def _compare_pixels(stored_path: Path, again: Path) -> core.Job[_PixelDifferences]:
    """Compare two images, or stacks plane by plane."""
    planes, others = _count_planes(stored_path), _count_planes(again)
    pixels = _PixelDifferences(planes)
    for plane in range(planes):
        first = _open_plane(stored_path, planes, plane)
        pixels.shape = pixels.other = first.shape
        if planes != others:
            pixels.shape = (planes, *first.shape)
            pixels.other = (others, *_open_plane(again, others).shape)
            pixels.largest = None
            return pixels
        second = _open_plane(again, planes, plane)
        if first.shape != second.shape:
            pixels.other, pixels.largest = second.shape, None
            return pixels
        boxes = split_into_blocks(core.Box.from_shape(first.shape), None, _BLOCK)
        for number, box in enumerate(boxes):
            yield core.Progress(number, len(boxes), f"comparing {first.name}")
            one, two = (core.read_box(image.data, box) for image in (first, second))
            if two.dtype != one.dtype:  # saved with another dtype
                two = core.convert_dtype(two, one.dtype)[0]
            pixels.add_block(plane, box, one, two)
            core.release_free_memory()  # of decoded chunks
        yield core.Progress(len(boxes), len(boxes), f"comparing {first.name}")
    if planes > 1:
        pixels.shape = pixels.other = (planes, *pixels.shape)
    return pixels


# Other differences.


def _compare_calibration(
    stored_image: core.Micrograph, again: core.Micrograph
) -> Iterator[Difference]:
    """Compare pixel sizes and origins."""
    unit = stored_image.unit
    for name, one, two in (
        ("pixel size", stored_image.pixel_size_nm, again.pixel_size_nm),
        ("origin", stored_image.origin, again.origin),
    ):
        near = one and two and np.allclose(one, two, rtol=_ROUNDING, atol=_ROUNDING)
        if one == two or near:
            continue
        both = (v and f"{v[0]:.9g}, {v[1]:.9g} {unit}" for v in (one, two))
        then, now = (text or "none" for text in both)
        stored = f"The {name} is {then} in the stored output"
        sentence = f"{stored}, but {now} in the replayed output."
        yield Difference("calibration", name, then, now, sentence)


def _compare_versions(
    then: core.Provenance, now: core.Provenance | None
) -> Iterator[Difference]:
    """Compare packages, device, precision and threads, if recorded."""
    if now is None:
        return
    versions = sorted(then.versions.items())
    pairs = [
        *((name, value, now.versions.get(name)) for name, value in versions),
        ("device", then.device, now.device),
        ("precision", then.precision, now.precision),
        ("threads", then.threads, now.threads),
    ]
    for name, before, after in pairs:
        if before is None or before == after:
            continue
        created = f"The output was created with {name} {before}"
        sentence = f"{created}, but replayed with {after}."
        yield Difference("version", name, str(before), str(after), sentence)


# Run recorded calls again, and limit what they simulate.
#
# A history may come from anyone. The files that it names are read, but outputs are
# written to a separate folder only, and their size is limited by that of the stored
# output.

_MAX_THREADS = 1024  # chosen: no computer has more
# pixels that may be simulated for any output; bundled ones have 2^19
_SIMULATED_PX = 1 << 22
_SCENE = 256  # simulated pixels per pixel of a frame; chosen: a scan of 8 x 8 needs 190
_LARGE = 1 << 26  # pixels of a scene that a single frame may need; chosen: 3 GB
_BYTES = 110  # bytes per simulated pixel; measured: 108 for a specimen, 55 for a scan


@dataclass(frozen=True, slots=True)
class _Rerun:
    """Recorded call whose inputs are files, or calls that make them again."""

    call: RecordedCall
    inputs: Mapping[str, list["tuple[RecordedInput, Path | _Rerun]"]]


def _locate_inputs(call: RecordedCall, search: InputSearch) -> core.Job[_Rerun]:
    """Find the files that a call reads, or those of the calls that made them."""
    inputs: dict[str, list[tuple[RecordedInput, Path | _Rerun]]] = {}
    files: dict[str, str] = {}
    flat = ((k, one) for k, several in call.inputs.items() for one in several)
    for role, one in flat:
        path = yield from search.find_input(call, role, one, files)
        source: Path | _Rerun
        if path is not None:
            source, files[role] = path, str(path)
        else:
            assert one.call is not None  # noqa: S101 - else the search raises
            source = yield from _locate_inputs(one.call, search)
        inputs.setdefault(role, []).append((one, source))
    return _Rerun(call, inputs)


def _check_simulation_size(
    step: _Rerun, pixels: int, name: str, *, is_last: bool = True
) -> None:
    """Raise an error if a simulation is too large for the size of the output."""
    verb = step.call.verb
    options = verb.parse(step.call.options)["options"]
    if hasattr(options, "count_simulated_pixels"):
        pixels_to_draw, most = options.count_simulated_pixels(), pixels
        if verb.name == "simulate":
            most = max(4 * pixels, min(_SCENE * pixels, _LARGE), 4 * _SIMULATED_PX)
        elif not is_last:
            most = max(pixels, _SIMULATED_PX)
        free = psutil.virtual_memory().available // _BYTES
        if pixels_to_draw > min(most, free):
            why = "fits into memory" if pixels_to_draw > free else "its size can need"
            msg = (
                f"The history of {name} requires {pixels_to_draw} simulated pixels, "
                f"which is more than {why} ({min(most, free)})."
            )
            raise core.ReadError(msg, code="image-too-large")
    for _, source in chain.from_iterable(step.inputs.values()):
        if isinstance(source, _Rerun):
            _check_simulation_size(source, pixels, name, is_last=False)


def _restore_device(call: RecordedCall, path: Path) -> RecordedCall:
    """Set the recorded device and precision of a call and its inputs' calls."""
    record, arguments = call.record, call.verb.arguments
    same: dict[str, object] = {}
    if record.device is not None and "model" in arguments:
        name, _, _ = record.device.partition(": ")
        with io.convert_decoding_errors(path, "a history"):
            kind, _, number = name.partition(":")
            here = kind == "cpu" or int(number or 0) < models.device_count(kind)
        same |= {"device": name} if here else {}
        same |= {"precision": record.precision} if record.precision else {}
    same = {key: value for key, value in same.items() if key in arguments}

    def restore_input(one: RecordedInput) -> RecordedInput:
        inner = one.call
        return one if inner is None else replace(one, call=_restore_device(inner, path))

    items = call.inputs.items()
    inputs = {role: tuple(map(restore_input, several)) for role, several in items}
    return replace(call, options={**call.options, **same}, inputs=inputs)


@contextmanager
def _set_thread_count(record: core.Provenance, path: Path) -> Iterator[None]:
    """Use the recorded number of torch threads in this context."""
    import torch

    count = record.threads
    if count is not None and not 1 <= count <= _MAX_THREADS:
        msg = (
            f"The thread count in the history of {path.name} must be from 1 to "
            f"{_MAX_THREADS}, got {core.shorten_value(count)}."
        )
        raise core.ReadError(msg, code="out-of-range")
    usual = torch.get_num_threads()
    try:
        if count is not None and count != usual:
            torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() != usual:
            torch.set_num_threads(usual)


def _make_again(
    history: RecordedCall, search: InputSearch, folder: Path, size: int
) -> core.Job[tuple[Path, list[tuple[RecordedInput, Path]]]]:
    """Make an output again in another folder; also return the inputs made again."""
    path = search.output
    last = yield from _locate_inputs(_restore_device(history, path), search)
    _check_simulation_size(last, size, path.name)
    # in the format of the stored one
    ending = f"{'.ome' if path.stem.lower().endswith('.ome') else ''}{path.suffix}"
    numbers, remade = count(), list[tuple[RecordedInput, Path]]()

    def rerun(step: _Rerun, ending: str = ".ome.zarr") -> core.Job[Path]:
        call, verb = step.call, step.call.verb
        arguments: dict[str, object] = {**call.options}
        for role, several in step.inputs.items():
            paths = []
            for one, source in several:
                place = source
                if isinstance(source, _Rerun):
                    place = yield from rerun(source)
                    if one.is_saved:
                        remade.append((one, place))
                paths.append(str(place))
            arguments[role] = paths if paths[1:] else paths[0]
        place = folder / f"{next(numbers)}-{verb.name}"
        place.mkdir()
        outputs = {}
        for item in verb.all_outputs:
            if item is verb.output or item.name == call.part:
                suffix = ending if item.is_image else item.ending or ""
                outputs[item.name] = place / f"{item.name}{suffix}"
        job = verb.start({**arguments, **{k: str(v) for k, v in outputs.items()}})
        has_model = "model" in step.inputs

        def name_step(step: core.Progress) -> core.Progress:
            # the time is not that of the whole replay
            message = f"{verb.name}: {step.message}"
            return replace(step, message=message, seconds_left=None)

        with _set_thread_count(call.record, path) if has_model else nullcontext():
            yield from core.map_progress(job, name_step)
        return _find_output(call, outputs, path.name)

    return (yield from rerun(last, ending)), remade


def _find_output(call: RecordedCall, outputs: Mapping[str, Path], name: str) -> Path:
    """Return the file that a call made: an output, or one below or next to it."""
    verb, part = call.verb, call.part
    found: Path | None = None
    if part is not None and part in outputs:
        found = outputs[part]
    elif verb.output is not None:
        main = outputs[verb.output.name]
        if part is None or verb.output.ending != "":
            parts = get_part_paths(main) if verb.name == "stitch" else {}
            found = parts.get(part or "", main)
        elif part in {item.relative_to(main).as_posix() for item in main.rglob("*")}:
            found = main / part
    if found is None:
        msg = (
            f"According to its history, {name} is the output "
            f"{core.format_one_line(repr(part))} of {verb.name}, which does not create "
            "this output: the history is damaged or forged."
        )
        raise core.ReadError(msg, code="history-damaged")
    return found
