"""Make an output again from its history, and say whether it is the same."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import psutil

from napari_semsr import models
from napari_semsr.analysis import ErrorMapOptions, spread_boxes
from napari_semsr.core import (
    Box,
    CheckpointError,
    Figure,
    InputRecord,
    Job,
    Micrograph,
    Options,
    Progress,
    Provenance,
    Quantity,
    ReadError,
    SemsrError,
    declared_figures,
    digest_job,
    one_line,
    persons_options,
    read_box,
    refuse_persons,
    retell,
    return_free_memory,
    shown,
    to_dtype,
)
from napari_semsr.io import (
    COVERAGE,
    ReadOptions,
    beside_path,
    count_planes,
    decoding,
    half_paths,
    is_there,
    label_path,
)
from napari_semsr.jobs.blend import blend_levels, difference_of, input_levels
from napari_semsr.jobs.convert import CONVERT, save_job
from napari_semsr.jobs.crop import CROP, CropOptions
from napari_semsr.jobs.enhance import MISFIT
from napari_semsr.jobs.images import (
    Result,
    derived_from,
    digest_image,
    digest_values,
    open_image,
)
from napari_semsr.jobs.index import VERBS, verb_of
from napari_semsr.jobs.measure import ERROR_MAP, FRC_MAP
from napari_semsr.jobs.models import find_model
from napari_semsr.jobs.register import REGISTER, RegisterOptions
from napari_semsr.jobs.restore import RESTORE
from napari_semsr.jobs.samples import draw_specimen, expose, gold_pair
from napari_semsr.jobs.simulate import SIMULATE, SimulateOptions
from napari_semsr.jobs.stitch import (
    HALF,
    HEIGHT,
    STITCH,
    StitchFolderOptions,
    digest_scan,
    open_scan,
    table_of_height,
)
from napari_semsr.jobs.verb import FileIn, Run, Verb
from napari_semsr.registration import Landmarks
from napari_semsr.restoration import RestoreOptions, parse_psf
from napari_semsr.simulation import ViewOptions

_BLOCK = 1024  # pixels along each side of what is compared at once; chosen: 8 MB each
_ROUNDING = 1e-9  # of a pixel size or origin; chosen: what a text of 10 digits loses


# Find again what an output was made of: where it lay, or by its digest.

_ABOVE = 4  # folders above an output below which inputs are sought; chosen
_LONGEST = 1000  # letters of a path that a sentence shows; chosen: any true one
_SHOWN = 12  # hexadecimal digits of a digest that a sentence shows; chosen
_STORES = (".zarr",)

Digest = Callable[[Path], Job[str]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was.

    A version is that of a package, a device, a precision or a number of threads.
    """

    what: Literal["pixels", "calibration", "input", "model", "version"]
    name: str  # of the input, model or package
    then: str | None  # digest, version or value, as recorded
    now: str | None  # and as found
    said: str


@dataclass(eq=False)
class InputSearch:
    """Finds inputs, and remembers what differed."""

    output: Path  # Beside it inputs are sought
    inputs: Path | None = None  # A folder in which they are sought by digest
    found: list[Difference] = field(default_factory=list)
    _digests: dict[tuple[Path, Digest], str | None] = field(default_factory=dict)

    def tell(self, difference: Difference) -> None:
        """Remember a difference, once."""
        if difference not in self.found:
            self.found.append(difference)

    def locate(
        self,
        record: InputRecord,
        digest: Digest,
        *,
        values: Digest | None = None,
        folders: bool = False,
    ) -> Job[tuple[Path | None, str | None]]:
        """Find a file that has the digest of a record, else one in its place."""
        near = [
            place
            for place in self._near(record)
            if folders or place.is_file() or place.suffix in _STORES
        ]
        trials = [digest, *([values] if values is not None else [])]
        if record.digest is None:
            return (near[0], None) if near else (None, None)
        for place in chain(near, self._given(record, folders=folders)):
            for trial in trials:
                if (yield from self._digest(place, trial)) == record.digest:
                    return place, record.digest
        if near and record.path is not None:
            return near[0], (yield from self._digest(near[0], digest))
        return None, None

    def _near(self, record: InputRecord) -> Iterator[Path]:
        """Give existing places: as it lay off the output, then where it lay itself."""
        parts = PurePosixPath(record.path or record.name).parts
        parts = parts[1:] if record.path else parts
        folder = self.output.absolute().parent
        bases = [folder, *folder.parents][: _ABOVE + 1]
        tails = [Path(*parts[-n:]) for n in range(1, len(parts) + 1)][: _ABOVE + 1]
        places = [base / tail for base in bases for tail in tails]
        if record.path is None:
            places = [folder / record.name]
        else:
            places.append(Path(record.path))
        seen = {self.output.resolve()}
        for place in places:
            if is_there(place) and place.resolve() not in seen:
                seen.add(place.resolve())
                yield place

    def _given(self, record: InputRecord, *, folders: bool) -> Iterator[Path]:
        """Give what lies in the folder of inputs, what has the name before others."""
        if self.inputs is None:
            return
        suffix = PurePosixPath(record.name).suffix.lower()

        def unlike(path: Path) -> tuple[bool, bool, bool, str]:
            alike = path.stem == PurePosixPath(record.name).stem
            other = path.suffix.lower() != suffix
            return path.name != record.name, not alike, other, str(path)

        yield from sorted(_below(self.inputs, folders=folders), key=unlike)

    def _digest(self, path: Path, digest: Digest) -> Job[str | None]:
        """Digest a file once; None where it cannot be read so."""
        key = path, digest
        if key not in self._digests:
            yield Progress(0, 0, f"comparing {path.name}")
            try:
                self._digests[key] = yield from digest(path)
            except (SemsrError, OSError, ValueError):
                self._digests[key] = None
        return self._digests[key]


def _below(folder: Path, *, folders: bool) -> Iterator[Path]:
    """Give files and stores below a folder, and on request folders, it among them."""
    for place, names, files in os.walk(folder):
        here = Path(place)
        if folders:
            yield here
        stores = [name for name in names if name.endswith(_STORES)]
        names[:] = [n for n in names if n not in stores and not n.startswith(".")]
        for name in (*stores, *files):
            if not name.startswith("."):
                yield here / name


def digest_of_values(path: Path, reading: ReadOptions | None = None) -> Job[str]:
    """Digest grey values of a file, as of an image in memory."""
    return digest_values(open_image(path, reading, blank=True))


def digest_of_file(path: Path) -> Job[str]:
    """Digest a table, a blur, a model."""
    if path.is_dir():
        msg = f"{path} must be a file, got a folder."
        raise ReadError(msg)
    return (yield from digest_job(path))


def short(digest: str | None) -> str:
    """Give a digest as a sentence shows it."""
    if digest is None:
        return "none"
    kind, _, value = digest.rpartition(":")
    value, _, chosen = value.partition("#")
    return f"{kind}:{value[:_SHOWN]}{'#' + chosen if chosen else ''}"


def missing(record: InputRecord, made: Provenance) -> ReadError:
    """Say that an input is nowhere, and what to do."""
    where = "at no place that is recorded"
    if record.path:
        where = f"not at {one_line(str(record.path), _LONGEST)}"
    digest = record.digest or "without a digest"
    return ReadError(
        f"The {record.role} {record.name!r} ({digest}), of which {made.job} made "
        f"this, is {where}, nor beside the output: give --inputs FOLDER, in which it "
        "is found by its digest."
    )


@dataclass(frozen=True, slots=True)
class ReplayReport(Result):
    """Whether an output, made again, is what is stored.

    `identical` is whether every pixel is equal where it is finite, and finite in both
    or neither; `differs` is what is not as it was: pixels, calibration, inputs, model,
    versions; `where` is the place of the largest difference, in a stack with its plane
    before.
    """

    output: Annotated[str, Quantity("Output")]
    job: Annotated[str, Quantity("Made again by")]
    identical: Annotated[bool, Quantity("Identical", large=True)]
    max_abs_difference: float | None  # None where shapes differ
    differs: tuple[Difference, ...]
    pixels: Annotated[int, Quantity("Compared", "px", "d")]
    different: int
    where: tuple[int, ...] | None
    shape: tuple[int, ...]

    def figures(self) -> dict[str, Figure]:
        """Say below what was compared what differs."""
        said = {item.what.capitalize(): Figure(item.said) for item in self.differs}
        return {**declared_figures(self), **said}


def _replay(run: Run[Options]) -> Job[ReplayReport]:
    """Make an output again from its history, and compare the two.

    It is made in the system's folder for temporary files; nothing else is written.
    """
    path, inputs = Path(run.named["output"]), run.named["inputs"]
    folder = None if inputs is None else Path(inputs)
    if folder is not None and not folder.is_dir():
        msg = f"The folder of inputs must be a folder, got {folder}."
        raise ReadError(msg)
    # outputs are grey; of a picture in colour it is told that it is none
    plane = 0 if _planes(path) > 1 else None
    stored = open_image(path, ReadOptions(plane=plane, colour="luminance"), blank=True)
    made = stored.provenance
    if made is None:
        msg = (
            f"{path.name} does not tell what made it, so that it cannot be made again: "
            "outputs of this package do, but figures, tables and reports."
        )
        raise ReadError(msg)
    search = InputSearch(path, folder)
    with tempfile.TemporaryDirectory(prefix="semsr-replay-") as scratch:
        middle = ".ome" if path.stem.lower().endswith(".ome") else ""
        target = Path(scratch) / f"again{middle}{path.suffix}"  # of the same format
        size = stored.shape[0] * stored.shape[1]
        step = ReplayStep(made, target, search, size)
        # what it warns of was told when the step was run first
        again = yield from retell(step.run(), within=_SILENCE)
        found = yield from _compare(path, again)
        now = open_image(
            again, ReadOptions(plane=0) if found.planes > 1 else None, blank=True
        )
        pixels = [found.difference(path.name)] if not found.identical else []
        differs = (*pixels, *_calibration(stored, now), *search.found)
        differs = (*differs, *_versions(made, now.provenance))
    return ReplayReport(
        output=str(path),
        job=made.job,
        identical=found.identical,
        max_abs_difference=found.largest,
        differs=differs,
        pixels=found.pixels,
        different=found.different,
        where=found.place,
        shape=found.shape,
    )


def _planes(path: Path) -> int:
    """Count planes; what is no file is told of by who reads it."""
    return count_planes(path) if path.is_file() else 1


_SILENCE = partial(warnings.catch_warnings, action="ignore", category=UserWarning)


# Compare pixels, block by block.


@dataclass(slots=True)
class _Pixels:
    """What a comparison has found so far."""

    planes: int = 1
    shape: tuple[int, ...] = ()
    other: tuple[int, ...] = ()
    pixels: int = 0
    different: int = 0
    empty: int = 0  # of the different ones, those that are finite in one alone
    largest: float | None = 0.0
    place: tuple[int, ...] | None = None
    values: tuple[float, float] = field(default=(0.0, 0.0))

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return self.different == 0 and self.shape == self.other

    def add(self, plane: int, box: Box, first: Any, second: Any) -> None:
        """Compare a block."""
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

    def difference(self, name: str) -> Difference:
        """Say what differs."""
        if self.shape != self.other:
            old, new = (" x ".join(map(str, item)) for item in (self.shape, self.other))
            said = f"{name} has {old} px, made again {new}."
            return Difference("pixels", name, old, new, said)
        names = ("plane", "row", "column")[-len(self.place or ()) :]
        pairs = zip(names, self.place or (), strict=False)
        where = ", ".join(f"{name} {number}" for name, number in pairs)
        then, now = (f"{value:.9g}" for value in self.values)
        share = f"{self.different} of {self.pixels} pixels differ"
        gaps = f", {self.empty} of them empty in one alone" if self.empty else ""
        most = f"by up to {self.largest:.6g}, " if self.largest else ""
        said = f"{share}{gaps}, {most}at {where}: {then} stored, {now} again."
        return Difference("pixels", name, then, now, said)


def _compare(stored: Path, again: Path) -> Job[_Pixels]:
    """Compare two images, or stacks plane by plane."""
    planes, others = _planes(stored), _planes(again)
    found = _Pixels(planes)
    for plane in range(planes):
        reading = ReadOptions(plane=plane) if planes > 1 else None
        first = open_image(stored, reading, blank=True)
        found.shape = found.other = first.shape
        if planes != others:
            other = open_image(
                again, ReadOptions(plane=0) if others > 1 else None, blank=True
            )
            found.shape = (planes, *first.shape)
            found.other = (others, *other.shape)
            found.largest = None
            return found
        second = open_image(again, reading, blank=True)
        if first.shape != second.shape:
            found.other, found.largest = second.shape, None
            return found
        yield from _compare_planes(found, plane, first, second)
    if planes > 1:
        found.shape = found.other = (planes, *found.shape)
    return found


def _compare_planes(
    found: _Pixels, plane: int, first: Micrograph, second: Micrograph
) -> Job[None]:
    boxes = spread_boxes(Box.of(first.shape), None, _BLOCK)
    for number, box in enumerate(boxes):
        yield Progress(number, len(boxes), f"comparing {first.name}")
        one, two = (read_box(image.data, box) for image in (first, second))
        if two.dtype != one.dtype:  # it was saved in another type than it was made in
            two = to_dtype(two, one.dtype)[0]
        found.add(plane, box, one, two)
        return_free_memory()  # of chunks that were decoded
    yield Progress(len(boxes), len(boxes), f"comparing {first.name}")


# What else is not as it was.


def _calibration(stored: Micrograph, again: Micrograph) -> Iterator[Difference]:
    """Compare pixel sizes and origins."""
    for name, unit, one, two in (
        ("pixel size", stored.unit, stored.pixel_size_nm, again.pixel_size_nm),
        ("origin", stored.unit, stored.origin, again.origin),
    ):
        near = one and two and np.allclose(one, two, rtol=_ROUNDING, atol=_ROUNDING)
        if one == two or near:
            continue
        then, now = (
            "none" if v is None else f"{v[0]:.9g}, {v[1]:.9g} {unit}"
            for v in (one, two)
        )
        said = f"The {name} is {then} as stored, {now} made again."
        yield Difference("calibration", name, then, now, said)


def _versions(then: Provenance, now: Provenance | None) -> Iterator[Difference]:
    """Compare packages, device, precision and threads, where they were recorded."""
    if now is None:
        return
    pairs = [
        *(
            (n, value, now.versions.get(n))
            for n, value in sorted(then.versions.items())
        ),
        ("device", then.device, now.device),
        ("precision", then.precision, now.precision),
        ("threads", then.threads, now.threads),
    ]
    for name, before, after in pairs:
        if before is None or before == after:
            continue
        said = f"The output was made with {name} {before}, and again with {after}."
        yield Difference("version", name, str(before), str(after), said)


# How each step is run again: one table, from the job that a history names.
#
# A history may come from anyone. What it names is read, but what is made lies in a
# folder of its own, is compared from there alone, and is no larger than an output of
# that size can ask for.

O = TypeVar("O", bound=Options)  # noqa: E741
_LEFT = {"trust": "b537c11d"}  # jobs of former versions, and the last commit with each
_DEEPEST = 8  # steps that are made again for the sake of one; chosen: circles end
_MOST_THREADS = 1024  # chosen: no machine of a user has more
_DRAWN = 1 << 22  # pixels that may be drawn for any output; our samples have 2^19
_SCENE = 256  # drawn pixels for each of a frame; chosen: a scan of 8 x 8 takes 190
_LARGE = 1 << 26  # pixels of a scene that a frame alone can ask for; chosen: 3 GB
_BYTES = 110  # for each drawn pixel; measured: 108 for a specimen, 55 for a scan


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """One step of a history that is run again."""

    made: Provenance  # What was recorded
    target: Path  # Where the output goes, in a folder of its own
    search: InputSearch  # Where its inputs are
    pixels: int  # Of the output that is made again in the end
    depth: int = 0  # Steps after it that are run again, too

    def options(self, model: type[O], /, **changes: Any) -> O:
        """Read the options of the step."""
        told = self.made.options
        known = {key: told[key] for key in model.model_fields if key in told}
        refuse_persons(known, persons_options(model), "A history")
        return model.recall({**known, **changes})

    def reading(self, side: str | None = None) -> ReadOptions:
        """Read how its images were opened."""
        with self.as_recorded():
            told = dict(self.made.options.get("reading") or {})
            told = dict(told.get(side) or {}) if side else told
            known = {k: told[k] for k in ReadOptions.model_fields if k in told}
        return ReadOptions.parse(known)

    def as_recorded(self) -> AbstractContextManager[None]:
        """Say of a history that it is damaged where it cannot be read."""
        return decoding(self.search.output, "a history")

    def guide(self, role: str) -> InputRecord | None:
        """Give the record of what the step went by, if it did."""
        told = self.made.options
        for item in self.made.guides:
            if item.role == role:
                return item
        if f"{role}_digest" not in told:
            return None
        with self.as_recorded():  # before there were guides, it stood with the options
            name = Path(told[role]).name
            return InputRecord(role=role, name=name, digest=told[f"{role}_digest"])

    def beside(self, name: str) -> Path:
        """Give a place for something else that is made on the way."""
        return self.target.parent / f"beside-{name}"

    def image(
        self, record: InputRecord | None, reading: ReadOptions | None = None
    ) -> Job[Path]:
        """Find an image, or make it again of its own history."""
        record = self._needed(record)
        how = reading or self.reading()
        told = record.provenance
        told = told if told is not None and again_of(told.job) else None
        drawn = record.digest is None and record.path is None and told is not None
        if not drawn:
            digest = partial(digest_image, options=how)
            values = partial(digest_of_values, reading=how)
            path, now = yield from self.search.locate(record, digest, values=values)
            if path is not None:
                self._compare(record, now)
                return path
        if told is None:
            raise missing(record, self.made)
        made = len([*self.target.parent.glob("input-*")])
        place = self.target.parent / f"input-{made}.ome.zarr"
        again = replace(self, made=told, target=place, depth=self.depth + 1)
        path = yield from again.run()
        self._compare(record, (yield from digest_of_values(path)))
        return path

    def _needed(self, record: InputRecord | None) -> InputRecord:
        """Refuse a history that does not name what is read."""
        if record is None:
            msg = f"The history of {self.search.output.name} names no input to read."
            raise ReadError(msg)
        return record

    def images(self, reading: ReadOptions) -> Job[Path | list[Path]]:
        """Find the image of a step, or the planes of a stack."""
        found: list[Path] = []
        for record in self.made.inputs or (None,):
            path = yield from self.image(record, reading)
            found.append(path)
        return found if found[1:] else found[0]

    def file(self, record: InputRecord | None) -> Job[Path]:
        """Find a file that is no image."""
        return (yield from self._located(self._needed(record), digest_of_file))

    def _located(self, record: InputRecord, digest: Digest, **how: Any) -> Job[Path]:
        """Find what has no history of its own, and remember that it is another one."""
        path, now = yield from self.search.locate(record, digest, **how)
        if path is None:
            raise missing(record, self.made)
        self._compare(record, now)
        return path

    def guided(self, role: str) -> Job[Path | None]:
        """Find the file that the step went by, if it did."""
        record = self.guide(role)
        return None if record is None else (yield from self.file(record))

    def scan(
        self,
        record: InputRecord,
        options: StitchFolderOptions,
        positions: Path | None,
        heights: Path | None,
    ) -> Job[Path]:
        """Find a folder of frames, or a file of many."""

        def digest(path: Path) -> Job[str]:
            table = positions
            if heights is not None:
                table = table_of_height(path, heights.parent, positions)
            opened = yield from open_scan(path, positions=table, options=options)
            return (yield from digest_scan(path, opened))

        return (yield from self._located(record, digest, folders=True))

    def model(self) -> Job[Path]:
        """Find the model by its digest, else by its name."""
        name, digest = self.made.model_name or "", self.made.model_digest
        record = self.guide("model")
        record = record or InputRecord(
            role="model", name=f"{name}.safetensors", digest=digest
        )
        try:
            shelf: Path | None = find_model(name)
        except CheckpointError:
            shelf = None
        now = None
        if shelf is not None:
            now = yield from digest_of_file(shelf)
            if now == digest:
                return shelf
        path, other = yield from self.search.locate(record, digest_of_file)
        if path is None:
            path, other = shelf, now
        if path is None:
            raise missing(record, self.made)
        if other != digest:
            said = (
                f"The model {name} is another: {short(digest)} made the output, "
                f"{short(other)} is there."
            )
            self.search.tell(Difference("model", name, digest, other, said))
        return path

    def _compare(self, record: InputRecord, now: str | None) -> None:
        """Remember that an input is another one."""
        if record.digest is None or now == record.digest:
            return
        said = (
            f"The {record.role} {record.name} is another: {short(record.digest)} was "
            f"read, {short(now)} is there."
        )
        self.search.tell(Difference("input", record.name, record.digest, now, said))

    def run(self) -> Job[Path]:
        """Run the step, and say where its output is."""
        again = again_of(self.made.job)
        what = self.search.output.name
        if self.made.job in _LEFT:
            msg = (
                f"{what} was made by {self.made.job!r}, which left this package, so "
                f"that it cannot be made again; commit {_LEFT[self.made.job]} is the "
                "last that can."
            )
            raise ReadError(msg)
        if again is None or self.depth > _DEEPEST:
            msg = (
                f"{what} was made by {self.made.job!r}, which cannot be run again; "
                f"these can: {', '.join(jobs_made_again())}."
            )
            raise ReadError(msg)
        path = yield from again(self)
        if not path.resolve().is_relative_to(self.target.parent.resolve()):
            raise self._no_part()
        return path

    def part(self, folder: Path) -> Path:
        """Find the part of a folder, made again, that the output is."""
        names = {item.relative_to(folder).as_posix() for item in folder.rglob("*")}
        if self.made.part not in names:
            raise self._no_part()
        return folder / self.made.part

    def _no_part(self) -> ReadError:
        """Say that the output is nothing that was made again."""
        what = self.search.output.name
        part = one_line(repr(self.made.part))
        return ReadError(
            f"{what} says that it is {part} of what {self.made.job} makes, which makes "
            "no such image: its history is damaged or forged."
        )

    def check_drawn(self, pixels: int, most: int) -> None:
        """Refuse to draw more than an output of this size is made of."""
        free = psutil.virtual_memory().available // _BYTES
        if pixels > min(most, free):
            why = "memory holds" if pixels > free else "its size can ask for"
            msg = (
                f"The history of {self.search.output.name} asks for {pixels} drawn "
                f"pixels, more than {why}, {min(most, free)}."
            )
            raise ReadError(msg)


def _role(step: ReplayStep, role: str) -> InputRecord | None:
    return next((item for item in step.made.inputs if item.role == role), None)


def _convert(step: ReplayStep) -> Job[Path]:
    if "dtype" not in step.made.options:
        msg = (
            f"{step.search.output.name} was averaged by the demonstration, which makes "
            "all of its images again: run semsr demo."
        )
        raise ReadError(msg)
    opening = step.options(ReadOptions)  # they stand beside the type
    return (yield from _run_again(step, CONVERT, opening=opening))


def _crop(step: ReplayStep) -> Job[Path]:
    options = step.options(CropOptions)
    if step.guide("like") is None:  # the same area of a reference is cut by its box
        usual = CropOptions()
        options = options.replace(like_pixel_size_nm=None, search=usual.search)
    return (yield from _run_again(step, CROP, options=options))


def _register(step: ReplayStep) -> Job[Path]:
    told, name = step.made.options, step.search.output.name
    landmarks: Landmarks | Path | None = yield from step.guided("landmarks")
    if told.get("landmarks") is not None:
        with step.as_recorded():
            places = (np.array(one, float) for one in told["landmarks"].values())
            landmarks = Landmarks(*places)
    transform = yield from step.guided("transform")
    if told.get("searched") == "stored" and transform is None:
        msg = (
            f"{name} was brought there by a transform that lay in no file, or of which "
            "nothing is recorded, so that it cannot be made again."
        )
        raise ReadError(msg)
    if told.get("searched") == "landmarks" and landmarks is None:
        msg = (
            f"The landmarks by which {name} was registered are not recorded, so that "
            "it cannot be made again."
        )
        raise ReadError(msg)
    options = RegisterOptions()
    if transform is None:
        with step.as_recorded():
            more = {**told.get("asked", {})}
        options = step.options(RegisterOptions, **more)
    how = {"landmarks": landmarks, "transform": transform, "options": options}
    return (yield from _run_again(step, REGISTER, **how))


def _stitch(step: ReplayStep) -> Job[Path]:
    options = step.options(StitchFolderOptions)
    flat, table = _role(step, "flat field"), _role(step, "positions")
    heights = yield from step.guided("heights")
    positions = None if table is None else (yield from step.file(table))
    if flat is not None:
        field = yield from step.image(flat, ReadOptions())
        options = options.replace(flat_field=str(field))
    folder = None if heights is None else heights.parent
    for record in step.made.inputs:
        if record.role == "frames":
            path = yield from step.scan(record, options, positions, heights)
            folder = folder or path
    if folder is None:
        msg = f"The history of {step.search.output.name} names no frames."
        raise ReadError(msg)
    yield from STITCH.job(folder, step.target, positions=positions, options=options)
    half = step.made.options.get(HALF)
    if half is not None:
        with step.as_recorded():
            return half_paths(step.target)["ab".index(half["name"])]
    # a map of coverage has the history of its mosaic: its name tells which it is
    if step.search.output.name.endswith(f".{COVERAGE}.tif") and not step.depth:
        return label_path(step.target, COVERAGE)
    if step.made.part == HEIGHT:
        return beside_path(step.target, "height")
    return step.target


def _same_device(step: ReplayStep) -> dict[str, Any]:
    """Ask for the device and the arithmetic of before, where they are here."""
    made = step.made
    if made.device is None:
        return {}
    name, _, _ = made.device.partition(": ")
    with step.as_recorded():
        kind, _, number = name.partition(":")
        here = kind == "cpu" or int(number or 0) < models.device_count(kind)
    asked = {"device": name} if here else {}
    return asked | ({"precision": made.precision} if made.precision else {})


@contextmanager
def _threads(step: ReplayStep) -> Iterator[None]:
    """Let torch compute on as many threads as before."""
    import torch

    count = step.made.threads
    if count is not None and not 1 <= count <= _MOST_THREADS:
        msg = (
            f"The history of {step.search.output.name} must tell 1 to {_MOST_THREADS} "
            f"threads, got {shown(count)}."
        )
        raise ReadError(msg)
    usual = torch.get_num_threads()
    try:
        if count is not None and count != usual:
            torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() != usual:
            torch.set_num_threads(usual)


def _restore(step: ReplayStep) -> Job[Path]:
    options = step.options(RestoreOptions)
    if parse_psf(options.psf).kind == "file":
        options = options.replace(psf=str((yield from step.file(step.guide("psf")))))
    return (yield from _run_again(step, RESTORE, options=options))


def _frc_map(step: ReplayStep) -> Job[Path]:
    if "difference" in step.made.options:
        msg = (
            f"{step.search.output.name} is the difference of two maps of a window: "
            "make the maps again, and take it there."
        )
        raise ReadError(msg)
    images = [item for item in step.made.inputs if item.role == "image"]
    if len(images) > 2:  # before their role was told, halves followed the mosaic
        step = replace(step, made=step.made.model_copy(update={"inputs": images[:1]}))
    return (yield from _run_again(step, FRC_MAP))


def _scans(step: ReplayStep) -> Job[Path]:
    """Compare two scans, which was a verb of its own (`repeatability`)."""
    roles = {"first": "reference", "second": "enhanced"}
    inputs = tuple(
        item.model_copy(update={"role": roles.get(item.role, item.role)})
        for item in step.made.inputs
    )
    options = step.options(ErrorMapOptions, scans=True)
    step = replace(step, made=step.made.model_copy(update={"inputs": inputs}))
    return (yield from _run_again(step, ERROR_MAP, options=options))


def _run_again(step: ReplayStep, verb: Verb[Any, Any], **named: Any) -> Job[Path]:
    """Run a verb with images, files and model of its history, but for what is given."""
    learnt = any(item.name == "model" for item in verb.files)
    machine = _same_device(step) if learnt else {}
    known = {k: v for k, v in machine.items() if k in verb.options.model_fields}
    how = {"output": step.target, "opening": step.reading(*verb.sides[:1]), **named}
    how.setdefault("options", step.options(verb.options, **known))
    for side in verb.sides[1:]:
        how[f"{side}_opening"] = step.reading(side)
    left = [*step.made.inputs]
    alone = sum(not item.guide for item in verb.images) == 1
    for item in verb.images:
        reading = how.get(f"{item.name}_opening", how["opening"])
        if item.reading is not None:
            reading = item.reading(how["options"], reading)
        if alone and not item.guide:
            how[item.name] = yield from step.images(reading)
            continue
        role = item.role or item.name
        record = next((one for one in left if one.role == role), None)
        record = step.guide(item.name) if item.guide else record
        left = [one for one in left if one is not record]
        if record is not None or not item.optional:
            how[item.name] = yield from step.image(record, reading)
    for file in verb.files:
        if file.name == "model":
            how["model"] = yield from step.model()
        elif file.name not in how:
            how[file.name] = yield from step.guided(file.name)
    made = step.target
    # histories call the map that `residual_map` writes by what it shows
    part = "residual_map" if step.made.part == MISFIT else step.made.part
    if part is not None and part in {item.name for item in verb.outputs}:
        made = how[part] = step.beside(f"{part}.ome.zarr")
    with _threads(step) if learnt else nullcontext():
        yield from verb.job(**how)
    return made


def _simulate(step: ReplayStep) -> Job[Path]:
    if step.made.part is None:
        msg = (
            f"{step.search.output.name} does not tell which picture of its simulation "
            "it is, so that it cannot be made again."
        )
        raise ReadError(msg)
    image = None
    if step.made.inputs:
        image = yield from step.image(step.made.inputs[0])
    # a view has no history, so that it is never what is compared
    usual: dict[str, Any] = {**ViewOptions().model_dump(), "sem_view": False}
    options = step.options(SimulateOptions, **usual)
    most = max(4 * step.pixels, min(_SCENE * step.pixels, _LARGE), 4 * _DRAWN)
    step.check_drawn(options.drawn_pixels(), most)
    if image is not None:  # nothing was drawn
        told = options.model_dump(exclude={"phantom"})
        options = SimulateOptions.parse(told)
    folder = step.beside("scan")
    how = {"image": image, "options": options, "opening": step.reading()}
    yield from SIMULATE.job(out_dir=folder, **how)
    return step.part(folder)


def _saved(step: ReplayStep, image: Micrograph) -> Job[Path]:
    """Write what was drawn in memory."""
    yield from save_job(image, step.target)
    return step.target


def _specimen(step: ReplayStep) -> Job[Path]:
    with step.as_recorded():
        rows, columns = (int(count) for count in step.made.options["shape"])
        most = max(step.pixels, _DRAWN if step.depth else 0)
        step.check_drawn(rows * columns, most)
        made = draw_specimen((rows, columns), seed=step.made.options["seed"])
    return (yield from _saved(step, made))


def _exposure(step: ReplayStep) -> Job[Path]:
    told = step.made.options
    truth = yield from step.image(_role(step, "truth"))
    names = ("kind", "electrons", "read_noise", "seed", "noise_seed")
    with step.as_recorded():
        how = {name: told[name] for name in names}
        made = expose(open_image(truth), name=step.search.output.name, **how)
    return (yield from _saved(step, made))


def _gold(step: ReplayStep) -> Job[Path]:
    with step.as_recorded():
        coarse, fine = gold_pair(seed=step.made.options["seed"])
    return (yield from _saved(step, fine if step.made.part == "fine" else coarse))


def _difference(step: ReplayStep) -> Job[Path]:
    second = yield from step.image(_role(step, "minuend"))
    first = yield from step.image(_role(step, "subtrahend"))
    made = difference_of(open_image(first), open_image(second))
    return (yield from _saved(step, made))


def _blend(step: ReplayStep) -> Job[Path]:
    after, before = _role(step, "result"), _role(step, "input")
    told = after.provenance if after is not None else None
    if told is not None and told.inputs:
        before = told.inputs[0]  # its digest is known there
    result = open_image((yield from step.image(after)))
    image = open_image((yield from step.image(before)))
    levels = yield from input_levels(image, (), result, [result.data])
    with step.as_recorded():
        strength = float(step.made.options["strength"])
    mixed = blend_levels(levels, [result.data], strength)[0]
    history = derived_from("blend", step.made.options, input=image, result=result)
    return (yield from _saved(step, result.replace(data=mixed, provenance=history)))


_STEPS: dict[str, Callable[[ReplayStep], Job[Path]]] = {
    "convert": _convert,
    "crop": _crop,
    "register": _register,
    "stitch": _stitch,
    "restore": _restore,
    "frc-map": _frc_map,
    "repeatability": _scans,
    "simulate": _simulate,
    "specimen": _specimen,
    "exposure": _exposure,
    "gold": _gold,
    "difference": _difference,
    "blend": _blend,
}
"""Jobs that are no verbs, and verbs whose histories differ from what they take."""


def again_of(job: str) -> Callable[[ReplayStep], Job[Path]] | None:
    """Give what makes the output of a job again; None for one that cannot."""
    verb = verb_of(job) if job in VERBS else None
    if job in _STEPS or verb is None or not verb.makes_image:
        return _STEPS.get(job)
    return partial(_run_again, verb=verb)


def jobs_made_again() -> list[str]:
    """Name the jobs whose output can be made again."""
    return [job for job in dict.fromkeys((*VERBS, *_STEPS)) if again_of(job)]


REPLAY = Verb(
    "replay",
    (),
    Options,
    ReplayReport,
    _replay,
    files=(
        FileIn(
            "output",
            "an image or store that semsr or a panel wrote",
            optional=False,
            metavar="OUTPUT",
        ),
        FileIn(
            "inputs",
            "folder in which inputs are sought by their digests, when they are not "
            "where they lay",
            flag="--inputs",
            metavar="DIR",
        ),
    ),
    reads=False,
    numbers=("identical", "max_abs_difference"),
    example="""
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/a.tif")
    ...     made = semsr.restore(f"{folder}/a.tif", f"{folder}/b.tif", psf="1px")
    ...     semsr.replay(made.output).identical
    True
    """,
)
