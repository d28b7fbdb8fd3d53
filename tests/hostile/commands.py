"""Command lines to be damaged, and what every one must answer with."""

import argparse
import contextlib
import functools
import io
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from napari_semsr.cli.command import build_parser, main
from napari_semsr.core import Micrograph
from napari_semsr.io import write
from napari_semsr.jobs import VERBS, get_verb
from napari_semsr.jobs.index import MEASURES
from tests.mutations import damaged_words
from tests.tiny_models import write_tiny_model, write_tiny_recipe

_TINY = ("--model", "tiny.safetensors", "--device", "cpu")
_LANDMARKS = ("--landmarks", "landmarks.csv", "--landmarks-only")


def line_of_measure(name: str) -> tuple[str, ...]:
    """Write a line of a verb that measures, with all that it writes."""
    verb = get_verb(name)
    images = [f"{image}.tif" for image in ("first", "second")[: len(verb.images)]]
    outputs = [
        (item.flag, f"out{item.ending or '.ome.tif'}") for item in verb.all_outputs
    ]
    return (*images, *(word for output in outputs for word in output))


LINES: dict[str, tuple[str, ...]] = {
    **{name: line_of_measure(name) for name in MEASURES},
    "info": ("first.tif",),
    "convert": ("first.tif", "out.ome.zarr", "--dtype", "uint16"),
    "crop": ("first.tif", "-o", "out.tif", "--box", "2", "3", "30", "40"),
    "register": ("first.tif", "truth.tif", "-o", "out.tif", *_LANDMARKS),
    "simulate": (
        *("out", "--phantom", "grating", "--frames-grid", "1x2"),
        *("--frame-px", "32", "--seed", "3"),
    ),
    "stitch": ("scan", "-o", "out.ome.zarr", "--grid", "1x2", "--overlap", "0.3"),
    "calibrate": ("grating.tif", "--pitch-nm", "40", "-o", "out.json"),
    "degrade": ("first.tif", "out.tif", "--kind", "fog", "--seed", "1"),
    "pairs": ("first.tif", "truth.tif", "-o", "out.zarr", "--patch", "16"),
    "train": ("tiny.yaml", "-o", "out"),
    "enhance": ("first.tif", "-o", "out.ome.zarr", *_TINY, "--tile", "32"),
    "restore": ("first.tif", "-o", "out.ome.tif", "--psf", "1px", "--method", "wiener"),
    "frc": ("first.tif", "second.tif", "--criterion", "1/7"),
    "frc-map": ("first.tif", "second.tif", "-o", "out.tif", "--block", "32"),
    "metrics": ("first.tif", "truth.tif", "--match", "affine"),
    "adapt": (
        "first.tif",
        "truth.tif",
        "-o",
        "folder/run",
        "--minutes",
        "0.001",
        "--overwrite",
    ),
    "profile": ("first.tif", "--line", "10,10,30,40", "--width", "3"),
    "figure": ("first.tif", "truth.tif", "-o", "out.png", "--width-mm", "80"),
    "replay": ("made.tif",),
    "models": ("info", "tiny.safetensors"),
    "demo": ("out",),
    "doctor": (),
}
"""A line of each verb that does a little."""


def write_inputs(folder: Path) -> None:
    """Write small images, a scan, a model, a recipe and tables."""
    import napari_semsr as semsr

    rng = np.random.default_rng(4)
    rows, columns = np.indices((72, 80))
    truth = 100 + 60 * np.sin(rows / 3.0) * np.sin(columns / 4.0)
    for name, noise in (("truth", 0), ("first", 5), ("second", 5)):
        drawn = truth + rng.normal(0, noise or 1e-9, truth.shape)
        image = Micrograph(drawn.astype(np.float32), (5.0, 5.0), name)
        write(image, folder / f"{name}.tif")
    grating = 100 + 60 * np.sin(2 * np.pi * (columns + 0.3 * rows) / 8)
    tifffile.imwrite(folder / "grating.tif", grating.astype(np.uint8))
    semsr.convert(folder / "first.tif", folder / "made.tif")
    holes = np.full((40, 48), np.nan, np.float32)
    tifffile.imwrite(folder / "nothing.tif", holes)
    tifffile.imwrite(folder / "one.tif", np.zeros((1, 1), np.uint8))
    huge = np.random.default_rng(1).random((40, 48)) * 1e302
    tifffile.imwrite(folder / "huge.tif", huge)
    pages = rng.integers(0, 255, (3, 24, 32), np.uint8)
    tifffile.imwrite(folder / "stack.tif", pages, photometric="minisblack")
    (folder / "text.tif").write_text("not an image")
    (folder / "folder").mkdir()
    (folder / "scan").mkdir()
    # what repeats itself is no scan: its frames fit a period away, too
    grain = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(40, 68)), 1.5)
    sample = 128 + 40 * grain / grain.std()
    for index in range(2):
        part = sample[:, 28 * index : 28 * index + 40].clip(0, 255).astype(np.uint8)
        tifffile.imwrite(folder / "scan" / f"f{index}.tif", part)
    corners = "".join(f"{y},{x},{y},{x}\n" for y in (0, 30) for x in (0, 40))
    names = "moving_y_px,moving_x_px,fixed_y_px,fixed_x_px\n"
    (folder / "landmarks.csv").write_text(names + corners)
    write_tiny_model(folder)
    semsr.pairs(
        folder / "first.tif", folder / "truth.tif", folder / "pairs.zarr", patch=16
    )
    pairs = {"pairs": "pairs.zarr", "patch_px": 16}
    write_tiny_recipe(folder / "tiny.yaml", data=pairs)


@functools.cache
def takes(verb: str) -> tuple[argparse.Action, ...]:
    """List what the parser of a verb takes."""
    whole = build_parser(verb)._actions  # noqa: SLF001 - argparse has no other door
    verbs = next(item for item in whole if item.choices and verb in item.choices)
    found = verbs.choices[verb]._actions  # noqa: SLF001
    left = {"-h", "--debug"}
    return tuple(item for item in found if left.isdisjoint(item.option_strings))


def _known(verb: str) -> list[str]:
    """List the flags of a verb, and the values that they name."""
    found: list[str] = []
    for action in takes(verb):
        found += [*action.option_strings, *map(str, action.choices or ())]
    return found


def _fitting(verb: str, rng: Random) -> list[str]:
    """Write an option of a verb as its parser takes it; only the value may be odd."""
    action = rng.choice([item for item in takes(verb) if item.option_strings])
    flag = rng.choice(action.option_strings)
    if action.nargs == 0:
        return [flag]
    count = action.nargs if isinstance(action.nargs, int) else 1
    plain = ("0", "1", "2", "3", "5", "8", "16", "0.1", "0.5", "1.5", "100", "none")
    values = [str(item) for item in action.choices or (*plain, "auto", "first.tif")]
    return [flag, *(rng.choice(values) for _ in range(count))]


def _interrupt(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


# What Python says itself where Ctrl-C comes while it tidies up.
_LOST = re.compile(r"Exception ignored in.*?\nKeyboardInterrupt: *\n", re.DOTALL)


_ORDERS = {"\x1b", "\x07", "\x08", "\x7f", "\x9b", "\u202e", "\u2028"}  # to a terminal


@dataclass
class Patience:
    """After how long commands are interrupted, as by Ctrl-C; None for never."""

    seconds: float | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Interrupt what takes longer, and again where that is not heard."""
        if self.seconds is None:
            yield
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, self.seconds, 10 * self.seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextlib.contextmanager
    def endless(self) -> Iterator[None]:
        """Interrupt nothing meanwhile: imports that are cut off stay so."""
        kept, self.seconds = self.seconds, None
        try:
            yield
        finally:
            self.seconds = kept


PATIENCE = Patience()


def say(*words: object) -> tuple[int, str]:
    """Run a command in this process, and judge how it answered.

    Exit code 0, or 2 with one line, or 130; nothing that is not meant for a user.
    """
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], PATIENCE.running():
        code = main([str(word) for word in words])
    said = _LOST.sub("", err.getvalue())
    orders = _ORDERS.intersection(said + out.getvalue())
    assert not orders, (words, orders)
    for sign in ("Traceback", "Unexpected ", "Error: "):
        assert sign not in said, (words, said[-2000:])
    assert code in (0, 2, 130), (words, code)
    if code == 2:
        lines = [line for line in said.splitlines() if "warning: " not in line]
        assert lines[-1].startswith("semsr"), said
        named = [line for line in lines if line.startswith(f"semsr {words[0]}: ")]
        assert len(named) <= 1, said
        assert "not enough memory" not in said.lower(), (words, said)
    return code, said


@dataclass(frozen=True)
class Commands:
    """Command lines of one verb."""

    verb: str

    @property
    def name(self) -> str:
        return f"semsr-{self.verb}"

    def prepare(self, folder: Path) -> dict[Path, bytes]:
        """Write the inputs, and keep their bytes."""
        place = folder / "deep" / "work"
        place.mkdir(parents=True)
        write_inputs(place)
        os.environ["SEMSR_MODELS"] = str(folder / "models")
        self._warm_up(place)
        return {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}

    def _warm_up(self, place: Path) -> None:
        """Say the whole line once, where damaged ones are interrupted.

        What it imports must not be: no interpreter bears that.
        """
        if PATIENCE.seconds is None or self.verb == "demo":
            return
        before = Path.cwd()
        os.chdir(place)
        try:
            whole = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
            with PATIENCE.endless():
                code, said = say(self.verb, *LINES[self.verb])
            assert code == 0, said
            put_back(place, whole)
        finally:
            os.chdir(before)

    def attempt(self, whole: dict[Path, bytes], folder: Path, rng: Random) -> bool:
        """Say a damaged line where the inputs are; true where it was refused."""
        place = folder / "deep" / "work"
        files = [path.name for path in whole]
        words = [self.verb, *LINES[self.verb]]
        if rng.random() < 0.5:  # well formed, so that more than the parser is met
            for _ in range(rng.choice((1, 1, 2, 3))):
                words += _fitting(self.verb, rng)
        else:
            known = (*_known(self.verb), *files, *files)
            words[1:] = damaged_words(words[1:], rng, known)
        if rng.random() < 0.3:
            words.append("--json")
        before = Path.cwd()
        os.chdir(place)
        try:
            code, _ = say(*words)
            named = {Path(word).name for word in words}  # hidden, as was asked for
            found = (p for p in place.rglob(".*") if p.name not in named)
            left = [path for path in found if not _is_kept(path)]
            assert code == 0 or not left, (words, left)
            changed = [p for p, data in whole.items() if not _is(p, data)]
            allowed = {"--overwrite", "--write", "--resume"} & set(words)
            assert allowed or not changed, (words, changed)
            return code != 0
        finally:
            os.chdir(before)
            put_back(place, whole)


def _is(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _is_kept(path: Path) -> bool:
    """Whether a hidden name is one that a later run goes on with, or within a store."""
    return any(part.endswith((".zarr", ".part")) for part in path.parts)


def put_back(place: Path, whole: dict[Path, bytes]) -> None:
    """Remove what a command left, and bring the inputs back."""
    kept = {"folder", *(path.relative_to(place).parts[0] for path in whole)}
    for path in place.iterdir():
        if path.name not in kept:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for path, data in whole.items():
        if not _is(path, data):
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(data)


def commands() -> tuple[Any, ...]:
    """Give the case of every verb."""
    assert set(LINES) == set(VERBS)
    return tuple(Commands(verb) for verb in VERBS)
