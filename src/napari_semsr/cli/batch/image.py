"""The steps of one image, and the file that says which of them are finished.

A step is finished when its digest is the recorded one and its outputs are as it left
them. The digest is made of the verb, the version, the options, the contents of what is
read, and the digests of the steps whose outputs are read. A change of a step therefore
redoes what depends on it, and nothing else.
"""

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_semsr import jobs
from napari_semsr.cli.batch.steps import (
    ImageTask,
    Piece,
    StepTask,
    cells_of,
    overwrites,
    parse_step,
)
from napari_semsr.cli.command import load_verb
from napari_semsr.core import (
    Cancelled,
    Job,
    Progress,
    ReadError,
    digest_job,
    read_bytes,
    sentence_of,
    software_versions,
)
from napari_semsr.io import Cell, replacing

_FORMAT = 1
_LARGEST = 1 << 24  # bytes of a state file; chosen: a hundred steps have a tenth

Cells = dict[str, Cell]


@dataclass(frozen=True, slots=True)
class ImageDone:
    """What the steps of an image came to."""

    cells: Cells = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None
    ran: int = 0  # steps
    kept: int = 0


class _State:
    """What is finished of an image: read once, written whole after each step."""

    def __init__(self, task: ImageTask) -> None:
        self.task = task
        self.folder = Path(task.folder)
        self.steps: dict[str, dict[str, Any]] = {}
        self.files: dict[str, list[Any]] = {}
        self.keys: dict[str, str] = {}
        self._read()

    def _read(self) -> None:
        """Take up an earlier state; what is no state of ours begins anew."""
        try:
            found = json.loads(read_bytes(self.task.state, _LARGEST))
            if found["format"] == _FORMAT and found["image"] == self.task.name:
                steps, files = found["steps"], found["files"]
                self.steps = {k: v for k, v in steps.items() if _is_record(v)}
                self.files = {k: v for k, v in files.items() if len(v) == 2}
        except (
            ReadError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            self.steps, self.files = {}, {}

    def _write(self) -> None:
        named = {step.name for step in self.task.steps}
        content = {
            "format": _FORMAT,
            "image": self.task.name,
            "steps": {k: v for k, v in self.steps.items() if k in named},
            "files": self.files,
        }
        self.task.state.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.task.state) as place:
            place.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    def key(self, step: StepTask) -> Job[str]:
        """Digest what is asked of a step, and what it reads."""
        marks: list[list[str]] = []
        for name, pieces in step.parts:
            marks.append([name])
            for piece in pieces:
                marks.append([piece.kind, (yield from self._mark(piece))])  # noqa: PERF401 - yields
        content = [step.verb, software_versions().get("napari-semsr"), marks]
        text = json.dumps(content, ensure_ascii=True)
        self.keys[step.name] = hashlib.sha256(text.encode()).hexdigest()
        return self.keys[step.name]

    def _mark(self, piece: Piece) -> Job[str]:
        """Say what a piece stands for, whatever its path is."""
        if piece.kind == "step":
            return self.keys[piece.value]
        if piece.kind == "file":
            return (yield from self._digest(Path(piece.value)))
        return piece.value if piece.kind == "output" else piece.said

    def _digest(self, path: Path) -> Job[str]:
        """Digest a file, unless it is as it was when that was done last."""
        now = jobs.file_state(path)
        known = self.files.get(str(path))
        if known is None or known[0] != now:
            known = [now, (yield from digest_job(path))]
            self.files[str(path)] = known
        return str(known[1])

    def kept(self, step: StepTask) -> dict[str, Any] | None:
        """Give the record of a step that is finished."""
        record = self.steps.get(step.name)
        if record is None or record["key"] != self.keys[step.name]:
            return None
        same = all(
            record["outputs"].get(name) == jobs.file_state(self.folder / name)
            and (self.folder / name).exists()
            for name in step.outputs
        )
        return record if same else None

    def begin(self, step: StepTask) -> None:
        """Forget a step that is about to run, before its outputs are touched."""
        if self.steps.pop(step.name, None) is not None:
            self._write()

    def finish(
        self, step: StepTask, cells: Cells, warnings: list[str]
    ) -> dict[str, Any]:
        """Record a step."""
        outputs = {n: jobs.file_state(self.folder / n) for n in step.outputs}
        record = {
            "key": self.keys[step.name],
            "outputs": outputs,
            "cells": jobs.jsonable(cells),
            "warnings": warnings,
        }
        self.steps[step.name] = record
        self._write()
        return record


def _is_record(value: Any) -> bool:
    """Tell whether an entry of a state file is one of ours."""
    kinds = {"key": str, "outputs": dict, "cells": dict, "warnings": list}
    cell = (str, int, float, type(None))
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), kind) for name, kind in kinds.items())
        and all(isinstance(one, cell) for one in value["cells"].values())
        and all(isinstance(one, str) for one in value["warnings"])
    )


def image_job(task: ImageTask) -> Job[ImageDone]:
    """Take an image through its steps; a fault ends it, and is what it returns."""
    state = _State(task)
    cells: Cells = {}
    warnings: list[str] = []
    ran = 0
    for number, step in enumerate(task.steps):
        done = Progress(number, len(task.steps), f"{task.name}: {step.name}")
        yield done
        try:
            yield from jobs.as_part_of(done, state.key(step))
            record = state.kept(step)
            if record is None:
                state.begin(step)
                found, said = yield from _run(task, step, done)
                record = state.finish(step, found, said)
                ran += 1
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - the other images go on
            sentence = " ".join(sentence_of(error).split())
            fault = f"{step.name}: {sentence}"
            return ImageDone(cells, tuple(warnings), fault, ran, number - ran)
        cells |= record["cells"]
        warnings += [f"{step.name}: {one}" for one in record["warnings"]]
    return ImageDone(cells, tuple(warnings), None, ran, len(task.steps) - ran)


def _run(
    task: ImageTask, step: StepTask, done: Progress
) -> Generator[Progress, None, tuple[Cells, list[str]]]:
    """Run a step as its command would, and give what it found and said."""
    folder = Path(task.folder)
    for name in step.outputs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    replace = ["--overwrite"] if overwrites(step.verb) else []
    arguments = parse_step(step.verb, [*step.words, *replace])
    told: list[str] = []
    job = load_verb(step.verb).start(arguments)
    result = yield from jobs.as_part_of(done, job, told.append)
    own = result.to_json().get("warnings")  # a job may return what it has to say
    said = [*(map(str, own) if isinstance(own, list) else ()), *told]
    cells = cells_of(step, result)
    if step.output is not None:
        prefix = step.name.replace("-", "_")
        cells = {f"{prefix}_output": Path(step.output).as_posix(), **cells}
    return cells, list(dict.fromkeys(" ".join(one.split()) for one in said))
