"""Replays of outputs of every kind: are they identical, and are faults named.

Of each kind of output several are made, of drawn samples with other seeds, options and
formats, and `semsr.replay` makes each again: how many are identical, and the largest
difference of grey values of those that are not. Then four things are spoilt in the
first output of each kind, one after another, and the table says whether the replay
names it: a pixel of the output, the model, an input, a version in its history. What
has no input or no model is left out there.

    python benchmarks/replay.py --outputs 20
    python benchmarks/replay.py --kinds enhance restore --outputs 3
"""

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from _shared import read_options

import napari_semsr as semsr
from napari_semsr.io import describe, read, write, write_pages
from napari_semsr.io.files import RECORD_KEY
from tests.remade import KINDS, Place

# Spoil one thing.


def tamper(path: Path) -> None:
    """Change one pixel of an output, and nothing of what is said of it."""
    if path.suffix == ".zarr":
        level = zarr.open_group(path, mode="r+")["0"]
        values = np.asarray(level[:])
        values[_place(values)] += 1
        level[:] = values
        return
    planes = count_planes(path)
    images = [read(path, plane=n if planes > 1 else None) for n in range(planes)]
    first, values = images[0], [image.array().copy() for image in images]
    values[0][_place(values[0])] += 1
    if planes > 1:
        write_pages(first, planes, iter(values), path)
    else:
        write(first.replace(data=values[0], look=first.look), path, overwrite=True)


def count_planes(path: Path) -> int:
    """Count the planes of a file."""
    return describe(path).planes if path.is_file() else 1


def history(path: Path) -> semsr.Provenance:
    """Read what made an output."""
    image = read(path, plane=0 if count_planes(path) > 1 else None)
    if image.provenance is None:
        msg = f"{path} has no history."
        raise ValueError(msg)
    return image.provenance


def _place(values: Any) -> tuple[int, ...]:
    """Find the middlemost pixel that has a value."""
    known = np.argwhere(np.isfinite(values))
    return tuple(known[len(known) // 2])


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the history of an output, and no pixel."""
    if path.suffix == ".zarr":
        file = path / "zarr.json"
        if not file.exists():
            file = path / ".zattrs"
        text = json.loads(file.read_text())
        change(_history(text))
        file.write_text(json.dumps(text))
        return
    planes = count_planes(path)
    images = [read(path, plane=n if planes > 1 else None) for n in range(planes)]
    told = history(path).model_dump(mode="json")
    change(told)
    made = semsr.Provenance.model_validate(told)
    if planes > 1:
        pages = [image.array() for image in images]
        write_pages(images[0].replace(provenance=made), planes, iter(pages), path)
    else:
        write(images[0].replace(provenance=made), path, overwrite=True)


def _history(text: Any) -> dict[str, Any]:
    """Find the history in the attributes of a store."""
    if isinstance(text, dict):
        if isinstance(text.get(RECORD_KEY), dict):
            found: dict[str, Any] = text[RECORD_KEY]["provenance"]
            return found
        for value in text.values():
            found = _history(value)
            if found:
                return found
    return {}


def other_version(told: dict[str, Any]) -> None:
    """Say that another NumPy was there."""
    told["versions"]["numpy"] = "1.0.0"


def other_model(told: dict[str, Any]) -> None:
    """Say that another model was there."""
    told["model_digest"] = "sha256:" + "0" * 64


@contextmanager
def spoilt_input(path: Path) -> Iterator[None]:
    """Change a pixel, or the last byte of a table, of what an output was made of."""
    made = history(path)
    place = Path(made.inputs[0].path)
    if place.is_dir() and place.suffix != ".zarr":
        place = sorted(place.glob("*.tif"))[0]
    kept = place.with_name(f"{place.name}.kept")
    (shutil.copytree if place.is_dir() else shutil.copy)(place, kept)
    tamper(place)
    try:
        yield
    finally:
        (shutil.rmtree if place.is_dir() else Path.unlink)(place)
        shutil.move(kept, place)


def names(path: Path, what: str) -> bool:
    """Tell whether a replay names a thing that differs."""
    return any(item.what == what for item in semsr.replay(path).differs)


def faults(path: Path) -> dict[str, bool]:
    """Spoil what there is to spoil of an output, one thing after another."""
    found = {}
    made = history(path)
    kept = path.with_name(f"kept-{path.name}")
    copy = shutil.copytree if path.is_dir() else shutil.copy

    def restored() -> None:
        (shutil.rmtree if path.is_dir() else Path.unlink)(path)
        copy(kept, path)

    copy(path, kept)
    tamper(path)
    found["pixels"] = names(path, "pixels")
    restored()
    rewrite(path, other_version)
    found["version"] = names(path, "version")
    restored()
    if made.model_digest:
        rewrite(path, other_model)
        found["model"] = names(path, "model")
        restored()
    if made.inputs and made.inputs[0].path:
        with spoilt_input(path):
            found["input"] = names(path, "input")
    return found


def judge(kinds: list[str], outputs: int, *, spoil: bool) -> None:
    """Print a row for each kind."""
    print("| output | identical | largest difference | s | named, when spoilt |")
    print("|---|---:|---:|---:|---|")
    for kind in kinds:
        tried, same, largest, seconds, named = 0, 0, 0.0, 0.0, "—"
        for seed in range(outputs):
            with tempfile.TemporaryDirectory() as scratch:
                at = Place(Path(scratch) / "at", seed)
                try:
                    KINDS[kind](at, seed)
                except semsr.SemsrError as error:
                    print(kind, seed, "was not made:", error, file=sys.stderr)
                    continue
                tried += 1
                begun = time.perf_counter()
                found = semsr.replay(at.out)
                seconds += time.perf_counter() - begun
                same += found.identical and not found.differs
                largest = max(largest, found.max_abs_difference or 0.0)
                if not found.identical or found.differs:
                    print(kind, seed, [d.said for d in found.differs], file=sys.stderr)
                if tried == 1 and spoil:
                    told = faults(at.out)
                    named = ", ".join(k if v else f"NOT {k}" for k, v in told.items())
        mean = seconds / max(1, tried)
        print(f"| {kind} | {same} of {tried} | {largest:g} | {mean:.2f} | {named} |")
        sys.stdout.flush()


def main() -> None:
    """Judge."""
    given = read_options(
        __doc__,
        outputs=(20, "of each kind"),
        kinds={"nargs": "+", "choices": KINDS, "default": list(KINDS)},
        no_spoil=(False, "leave faults out"),
    )
    warnings.simplefilter("ignore")
    judge(given.kinds, given.outputs, spoil=not given.no_spoil)


if __name__ == "__main__":
    main()
