"""Find again what an output was made of: where it lay, or by its digest."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from napari_semsr.core import (
    InputRecord,
    Job,
    Progress,
    Provenance,
    ReadError,
    SemsrError,
    digest_job,
    one_line,
)
from napari_semsr.io import ReadOptions, is_there
from napari_semsr.jobs.images import digest_image, digest_values, open_image

_ABOVE = 4  # folders above an output below which inputs are sought; chosen
_LONGEST = 1000  # letters of a path that a sentence shows; chosen: any true one
_SHOWN = 12  # hexadecimal digits of a digest that a sentence shows; chosen
_STORES = (".zarr",)

Digest = Callable[[Path], Job[str]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was.

    Attributes
    ----------
    what : {"pixels", "calibration", "input", "model", "version"}
        What differs; a version is that of a package, a device, a precision or a number
        of threads.
    name : str
        Of the input, model or package.
    then, now : str or None
        Digest, version or value, as recorded and as found.
    said : str
        One sentence.
    """

    what: Literal["pixels", "calibration", "input", "model", "version"]
    name: str
    then: str | None
    now: str | None
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
        for place in near:
            for trial in trials:
                if (yield from self._digest(place, trial)) == record.digest:
                    return place, record.digest
        for place in self._given(record, folders=folders):
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


def digest_of_image(reading: ReadOptions) -> Digest:
    """Digest files as the input of a job that reads them so."""
    return lambda path: digest_image(path, reading)


def digest_of_values(reading: ReadOptions) -> Digest:
    """Digest grey values of files, as of an image in memory."""

    def digest(path: Path) -> Job[str]:
        return (yield from digest_values(open_image(path, reading, blank=True)))

    return digest


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
