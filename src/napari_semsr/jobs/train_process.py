"""Training in a separate process, which keeps a viewer responsive and isolated.

GPU memory is released when that process ends, and imports of the optimiser stay out of
the viewer: torch's compiler loads triton, whose LLVM conflicts with that of OpenGL.
`train_and_import` cuts pairs first, and adds the model to the library afterwards.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from napari_semsr import core, models
from napari_semsr.jobs.images import KEEP_PARTS, OverwritePolicy, to_json_value
from napari_semsr.jobs.models import import_model
from napari_semsr.jobs.train import (
    Trained,
    create_training_request,
    train,
    train_on_cropped_pairs,
)

_MODULE = "napari_semsr.jobs.train_process"
_RECIPE = "recipe.yaml"
_LISTEN_S = 0.25  # s between checks for a message of the child; chosen: responsive
_LAST_WORDS = 2000  # characters of its last output in a message; chosen: a few lines
_KILL_S = 5.0  # s, longest wait for a child to end; chosen: it saves first


def list_resume_values(
    run_dir: str | os.PathLike[str], **sets: core.Options
) -> dict[str, object]:
    """Return the arguments of `train` that resume the run in a folder."""
    recipe = Path(run_dir) / _RECIPE
    if not recipe.is_file():
        msg = (
            f"No run to resume in {run_dir}; choose a run folder, or start a new "
            "training."
        )
        raise core.CheckpointError(msg, code="run-missing")
    return {**train.list_values(**sets), "recipe": str(recipe), "output": str(run_dir)}


@dataclass(frozen=True, slots=True)
class TrainStep(core.Progress):
    """Progress of a training run."""

    loss: float | None = None  # of the last reported step


def train_and_import(
    values: Mapping[str, Any], existing: OverwritePolicy = KEEP_PARTS
) -> core.Job[Trained]:
    """Cut pairs if images are passed, train, and add the model to the library.

    `values` are arguments of `train` by name.
    """
    settings = train.parse(values)
    # before cutting pairs for minutes
    models.find_training_device(settings["place"].device)
    names = ("low", "high", "transform", "image", "second", "cut")
    low, high, transform, image, second, cut = map(values.get, names)
    cut = cut or create_training_request(
        low, high, transform, image=image, second=second
    )
    own = {name: one for name, one in values.items() if name not in names}

    def train_on(store: Path | None = None) -> core.Job[Trained]:
        pairs = {} if store is None else {"pairs": str(store)}
        return train_in_subprocess({**own, **pairs}, existing)

    if cut is None:
        training_result = yield from train_on()
    else:
        training_result = yield from train_on_cropped_pairs(
            train_on,
            cut,
            values["output"],
            recipe=values["recipe"],
            start_from=values.get("start_from"),
            patch=settings["options"].patch,
            existing=existing,
        )
    if not training_result.kept:
        return training_result
    model = yield from import_model.rerun(training_result.model)
    return replace(training_result, model=model.path)


def train_in_subprocess(
    values: Mapping[str, object],
    existing: OverwritePolicy = KEEP_PARTS,
    *,
    patience_s: float = 60.0,
) -> core.Job[Trained]:
    """Run `train` in a separate process; `values` are its arguments in JSON form.

    Closing the job stops the process, which saves its state. Raises `OptionError` if no
    model can be trained on the device.
    """
    train.parse(values)  # a wrong option is an error before a process starts
    texts = {
        name: os.fspath(one) if isinstance(one, os.PathLike) else one
        for name, one in values.items()
    }
    request: dict[str, object] = {"values": texts, "existing": asdict(existing)}
    child = ChildProcess(_MODULE, request)
    last = TrainStep(0, 0, "starting a process for the training")
    try:
        yield last
        while True:
            for key, value in child.receive_messages():
                if key == "result":
                    return Trained(**value)
                done_count, total, message, loss = value
                last = TrainStep(done_count, total, message, loss=loss)
            yield last
    finally:
        child.stop(patience_s)


class ChildProcess:
    """Child process for training, which reports progress and can be stopped.

    `module` is run, and calls `serve`; `request` is the argument of its function.
    """

    def __init__(self, module: str, request: dict[str, object]) -> None:
        windows = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        self._messages: queue.Queue[bytes | None] = queue.Queue()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            # nothing is imported from the working directory
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C in a terminal must reach only the viewer
            creationflags=windows,
        )
        self._listener = threading.Thread(target=self._read_messages, daemon=True)
        self._listener.start()
        self._send_line(json.dumps(request).encode())

    def _send_line(self, line: bytes) -> None:
        """Send a line; `receive_messages` handles a process that has ended."""
        stream = self._process.stdin
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.write(line + b"\n")
                stream.flush()

    def _read_messages(self) -> None:
        for line in self._process.stdout or ():
            self._messages.put(line)
        self._messages.put(None)

    def receive_messages(self) -> Iterator[tuple[str, Any]]:
        """Yield new progress steps or the result, waiting briefly for a message.

        Its warnings are reissued here, and its errors raised.
        """
        try:
            line = self._messages.get(timeout=_LISTEN_S)
            while True:
                if line is None:
                    raise self._create_exit_error()
                for key, value in json.loads(line).items():
                    if key == "warned":
                        core.warn(*value)
                    elif key == "failed":
                        kind, message, code = value
                        raise getattr(core, kind, core.SemsrError)(message, code=code)
                    elif key == "ended":
                        msg = (
                            "The training was stopped by another process; its state "
                            "was saved, so it can be resumed."
                        )
                        raise core.SemsrError(msg, code="interrupted")
                    else:
                        yield key, value
                line = self._messages.get_nowait()
        except queue.Empty:
            return

    def _create_exit_error(self) -> core.SemsrError:
        """Return the error for a process that exited without a message."""
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read()[-_LAST_WORDS:].decode(errors="replace").split("\n")
        lines = [line.strip() for line in words if line.strip()]
        if code == -9 or not lines:
            return core.DeviceMemoryError(
                f"The training process died (exit code {code}), most likely because "
                "it ran out of memory: lower the batch or patch size, then resume.",
                code="memory",
            )
        return core.SemsrError(
            f"The training process died (exit code {code}): {lines[-1]}.",
            code="process-died",
        )

    def stop(self, patience_s: float) -> None:
        """Ask the process to save its state and exit; kill it if it does not."""
        self._send_line(b"stop")
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(OSError):  # the process has ended
                stdin.close()
        for harder in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(timeout=patience_s)
            except subprocess.TimeoutExpired:
                patience_s = min(patience_s, _KILL_S)
                harder()
            else:
                break
        self._process.wait()
        self._listener.join(timeout=5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


# A training in a separate process: ``python -m napari_semsr.jobs.train_process``.
#
# The first line on stdin is a JSON object with arguments of `train`. Another line, or
# the end of stdin (also when the other process dies), ends the training and keeps its
# state. Every line on stdout is a JSON object with one key:
#
# ``step``: ``[done, total, message, loss]``; the loss is null at first
# ``warned``: ``[sentence, code]`` of a warning
# ``result``: the value that `train` returned
# ``failed``: ``[class, sentence, code]`` of an error
# ``ended``: true if it was stopped
#
# If several devices train together, Lightning starts the same command for each of the
# others. These read the request from the environment, print nothing, and stop with the
# first.

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_REPORT_EVERY_S = 0.05  # s between two reports; chosen: looks smooth
_PARENT = "napari_semsr"
_REQUEST = "SEMSR_TRAIN_REQUEST"
_RANK = "LOCAL_RANK"

Say = Callable[[str, object], None]


def serve_training_request(
    train: Callable[[dict[str, object], Say], dict[str, object]],
) -> int:
    """Train at the request of the parent process; return the exit status."""
    source, send = _reserve_streams()
    # A background process may ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if _RANK in os.environ and _REQUEST in os.environ:
        request, send = os.environ[_REQUEST], lambda *_: None
    else:
        received_bytes = b""
        while b"\n" not in received_bytes and (part := os.read(source, 1 << 16)):
            received_bytes += part
        line, _, rest = received_bytes.partition(b"\n")
        request = os.environ[_REQUEST] = line.decode()
        threading.Thread(
            target=_wait_for_stop, args=(source, rest), daemon=True
        ).start()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, _kind, file, *_: (
        send(
            "warned",
            [
                " ".join(str(message).split()),
                core.get_error_code(next(iter(message.args), "")),
            ],
        )
        if _PARENT in file
        else None
    )
    try:
        send("result", train(json.loads(request), send))
    except KeyboardInterrupt:
        send("ended", True)
    except Exception as error:  # noqa: BLE001 - sent to the other process
        traceback.print_exc(file=sys.stderr)
        kind, sentence = type(error).__name__, str(error)
        # errors of this package are sentences
        if not isinstance(error, core.SemsrError):
            what = " ".join(sentence.split()) or "no message"
            sentence = f"Training failed with {kind}: {what}."
            kind = "SemsrError"
        send("failed", (kind, sentence, core.get_error_code(error)))
        return 2
    return 0


def _run_training(request: dict[str, Any], send: Say) -> dict[str, object]:
    """Run the training, reporting its steps at a limited rate."""
    last_report = float("-inf")

    def send_step(step: core.Progress) -> None:
        nonlocal last_report
        now = time.monotonic()
        if now - last_report >= _REPORT_EVERY_S or step.done == step.total:
            last_report, loss = now, to_json_value(getattr(step, "loss", None))
            send("step", [step.done, step.total, step.message, loss])

    existing = OverwritePolicy(**request["existing"])
    job = train.call(request["values"], existing)
    return dict(core.run(job, send_step).to_json())


def _reserve_streams() -> tuple[int, Say]:
    """Reserve stdin and stdout for messages; redirect output of libraries to stderr.

    Workers that are forked later close their `sys.stdin`; a thread waiting for it would
    hold its lock, so the stream is read through its descriptor, unbuffered.
    """
    source, speech = os.dup(_STDIN), os.dup(_STDOUT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    os.close(nothing)
    os.dup2(_STDERR, _STDOUT)
    lock = threading.Lock()

    def send(key: str, value: object) -> None:
        line = json.dumps({key: value}, allow_nan=False).encode() + b"\n"
        with lock:
            while line:
                try:
                    line = line[os.write(speech, line) :]
                except OSError:  # the parent has ended; stdin will end this process
                    return

    return source, send


def _wait_for_stop(source: int, rest: bytes) -> None:
    """Wait for a second line or the end of stdin, then interrupt the training once."""
    if not rest:
        os.read(source, 1)
    interrupt_main()


if __name__ == "__main__":
    sys.exit(serve_training_request(_run_training))
