"""Make an output again from its history, and say whether it is the same."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from napari_semsr.core import (
    Box,
    Figure,
    FloatPair,
    IntPair,
    Job,
    Micrograph,
    Options,
    Progress,
    Provenance,
    Quantity,
    ReadError,
    declared_figures,
    read_box,
    retell,
    return_free_memory,
    to_dtype,
)
from napari_semsr.io import ReadOptions
from napari_semsr.jobs.images import Result, open_image
from napari_semsr.jobs.replay.search import Difference, InputSearch
from napari_semsr.jobs.replay.steps import ReplayStep
from napari_semsr.jobs.verb import FileIn, Run, Verb

_BLOCK = 1024  # pixels along each side of what is compared at once; chosen: 8 MB each
_ROUNDING = 1e-9  # of a pixel size or origin; chosen: what a text of 10 digits loses


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
        target = Path(scratch) / _named(path)
        size = stored.shape[0] * stored.shape[1]
        step = ReplayStep(made, target, search, size)
        again = yield from retell(step.run(), within=_silence)
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


def _named(path: Path) -> str:
    """Name what is made again: the suffix tells the format."""
    middle = ".ome" if path.stem.lower().endswith(".ome") else ""
    return f"again{middle}{path.suffix}"


def _planes(path: Path) -> int:
    """Count planes; what is no file is told of by who reads it."""
    from napari_semsr.io import count_planes

    return count_planes(path) if path.is_file() else 1


@contextmanager
def _silence() -> Iterator[None]:
    """Hear no warnings: they were told when the step was run first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


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
    """Compare two planes of one shape."""
    boxes = list(_blocks(first.shape))
    for number, box in enumerate(boxes):
        yield Progress(number, len(boxes), f"comparing {first.name}")
        one, two = (read_box(image.data, box) for image in (first, second))
        if two.dtype != one.dtype:  # it was saved in another type than it was made in
            two = to_dtype(two, one.dtype)[0]
        found.add(plane, box, one, two)
        return_free_memory()  # of chunks that were decoded
    yield Progress(len(boxes), len(boxes), f"comparing {first.name}")


def _blocks(shape: IntPair) -> Iterator[Box]:
    for y in range(0, shape[0], _BLOCK):
        for x in range(0, shape[1], _BLOCK):
            yield Box(y, min(y + _BLOCK, shape[0]), x, min(x + _BLOCK, shape[1]))


# What else is not as it was.


def _calibration(stored: Micrograph, again: Micrograph) -> Iterator[Difference]:
    """Compare pixel sizes and origins."""
    for name, unit, one, two in (
        ("pixel size", stored.unit, stored.pixel_size_nm, again.pixel_size_nm),
        ("origin", stored.unit, stored.origin, again.origin),
    ):
        if one == two or _near(one, two):
            continue
        then, now = (
            "none" if v is None else f"{v[0]:.9g}, {v[1]:.9g} {unit}"
            for v in (one, two)
        )
        said = f"The {name} is {then} as stored, {now} made again."
        yield Difference("calibration", name, then, now, said)


def _near(one: FloatPair | None, two: FloatPair | None) -> bool:
    """Whether two pairs of numbers are equal but for rounding."""
    if one is None or two is None:
        return False
    return np.allclose(one, two, rtol=_ROUNDING, atol=_ROUNDING)


def _versions(then: Provenance, now: Provenance | None) -> Iterator[Difference]:
    """Compare packages, device, precision and threads, where they were recorded."""
    if now is None:
        return
    pairs = [
        *((name, value, now.versions.get(name)) for name, value in _sorted(then)),
        ("device", then.device, now.device),
        ("precision", then.precision, now.precision),
        ("threads", then.threads, now.threads),
    ]
    for name, before, after in pairs:
        if before is None or before == after:
            continue
        said = f"The output was made with {name} {before}, and again with {after}."
        yield Difference("version", name, str(before), str(after), said)


def _sorted(made: Provenance) -> list[tuple[str, str]]:
    return sorted(made.versions.items())


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
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.write(image, f"{folder}/a.tif")
    ...     made = semsr.restore(f"{folder}/a.tif", f"{folder}/b.tif", psf="1px")
    ...     semsr.replay(made.output).identical
    True
    """,
)
