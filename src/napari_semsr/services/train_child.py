"""A training in a process of its own: ``python -m napari_semsr.services.train_child``.

The first line on stdin is a JSON object with the arguments of
`napari_semsr.services.train.train`. Another line, or the end of stdin (which comes when
the other process dies, too), ends the training with its state kept. Every line on
stdout is a JSON object with one key:

==========  ==========================================================================
``step``    ``[done, total, message, loss]``; the loss is null until there is one
``warned``  a warning
``result``  what `train` returned
``failed``  ``[class, sentence]`` of an error
``ended``   true: it was stopped
==========  ==========================================================================

Where several devices learn together, Lightning starts the same command again for each
of the others. Those take the request from the environment, say nothing, and stop with
the first.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from _thread import interrupt_main
from collections.abc import Callable
from typing import Any

from napari_semsr.core.errors import SemsrError
from napari_semsr.core.progress import Progress
from napari_semsr.services.results import jsonable

__all__ = ["main"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_REPORT_EVERY_S = 0.05
_MODULE = "napari_semsr"
_REQUEST = "SEMSR_TRAIN_REQUEST"
_RANK = "LOCAL_RANK"

Say = Callable[[str, Any], None]


def main() -> int:
    """Train as stdin asks.

    Returns
    -------
    int
        0 when it ended or was stopped, 2 when it failed.
    """
    source, say = _take_over_streams()
    # A process started in the background may have been told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if _RANK in os.environ and _REQUEST in os.environ:
        request, say = os.environ[_REQUEST], lambda *_: None
    else:
        line, rest = _first_line(source)
        request = os.environ[_REQUEST] = line.decode()
        threading.Thread(target=_await_stop, args=(source, rest), daemon=True).start()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, _kind, file, *_: (
        say("warned", " ".join(str(message).split())) if _MODULE in file else None
    )
    try:
        say("result", _trained(json.loads(request), say))
    except KeyboardInterrupt:
        say("ended", True)
    except Exception as error:  # noqa: BLE001 - told to the other process
        traceback.print_exc(file=sys.stderr)
        say("failed", _said(error))
        return 2
    return 0


def _trained(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Run the service, and tell its steps, not too many of them."""
    from napari_semsr.services.train import train

    job, told = train(**request), float("-inf")
    try:
        while True:
            step = next(job)
            now = time.monotonic()
            if now - told >= _REPORT_EVERY_S or step.done == step.total:
                told = now
                say("step", _row(step))
    except StopIteration as end:
        return dict(end.value.to_json())
    finally:
        job.close()


def _row(step: Progress) -> list[Any]:
    """Write a step as JSON can hold it."""
    loss = getattr(step, "loss", None)
    return [step.done, step.total, step.message, jsonable(loss)]


def _said(error: Exception) -> tuple[str, str]:
    """Say an error in one line; ours are sentences already."""
    if isinstance(error, SemsrError):
        return type(error).__name__, str(error)
    what = " ".join(str(error).split()) or "no message"
    return "SemsrError", f"Training stopped because of {type(error).__name__}: {what}."


def _take_over_streams() -> tuple[int, Say]:
    """Keep stdin and stdout to ourselves: what libraries print goes to stderr.

    Workers that are forked later close their `sys.stdin`; a thread that waits in it
    would hold its lock, so the stream is read by its number, without a buffer.
    """
    source, speech = os.dup(_STDIN), os.dup(_STDOUT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    os.close(nothing)
    os.dup2(_STDERR, _STDOUT)
    lock = threading.Lock()

    def say(key: str, value: Any) -> None:
        line = json.dumps({key: value}, allow_nan=False).encode() + b"\n"
        with lock:
            while line:
                try:
                    line = line[os.write(speech, line) :]
                except OSError:  # nobody listens any more; stdin ends it
                    return

    return source, say


def _first_line(source: int) -> tuple[bytes, bytes]:
    """Read the request; also give what was read beyond it."""
    held = b""
    while b"\n" not in held:
        part = os.read(source, 1 << 16)
        if not part:
            break
        held += part
    line, _, rest = held.partition(b"\n")
    return line, rest


def _await_stop(source: int, rest: bytes) -> None:
    """Wait for a second line or the end, then interrupt the training once."""
    if not rest:
        os.read(source, 1)
    interrupt_main()


if __name__ == "__main__":
    sys.exit(main())
