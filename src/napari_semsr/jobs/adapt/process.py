"""Training on one area in a separate process, as required by the GUI.

The imports of an optimiser are kept out of the process of the window: torch's compiler
brings triton, whose LLVM clashes with that of OpenGL.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr import core, training
from napari_semsr.io import write_atomically
from napari_semsr.jobs.train_process import ChildProcess, Say, serve_training_request

if TYPE_CHECKING:
    from napari_semsr.training import AreaImages, AreaOptions

_MODULE = "napari_semsr.jobs.adapt.process"
_IMAGES, _PREVIEW, _RESULT = "images.npz", "shown.npz", "result.pt"
_PATIENCE_S = 30.0


def fit_with_files(
    images: Sequence["AreaImages"],
    options: "AreaOptions",
    *,
    state_file: Path,
    stop_file: Path,
    **how: Any,
) -> core.Job["training.AreaFitResult"]:
    """Run `training.fit_area` with its state in a file, until another file exists.

    The state is resumed if it belongs to the same images and options.
    """
    how |= {
        "should_stop": stop_file.is_file,
        "save": partial(training.save_area_state, state_file),
    }
    if state_file.is_file():
        try:
            state = training.load_area_state(state_file)
            return (yield from training.fit_area(images, options, state=state, **how))
        except core.CheckpointError as error:
            if core.get_error_code(error) == "file-damaged":  # not of another training
                sentence = f"{state_file} is damaged, so the training starts again."
                core.warn(sentence, "file-damaged")
    return (yield from training.fit_area(images, options, **how))


def fit_in_process(
    images: Sequence["AreaImages"],
    options: "AreaOptions",
    *,
    state_file: Path,
    stop_file: Path,
    **how: Any,
) -> core.Job["training.AreaFitResult"]:
    """Run `fit_with_files` in another process, with the same arguments.

    If the job is closed or this process dies, that process saves its state and ends.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        arrays: dict[str, Any] = {}
        for number, image in enumerate(images):
            arrays |= {f"low{number}": image.low, f"high{number}": image.high}
            arrays[f"held{number}"] = image.held_out
        np.savez(folder / _IMAGES, **arrays)
        request = {
            "folder": name,
            "count": len(images),
            "options": options.model_dump(mode="json"),
            "state_file": str(state_file.absolute()),
            "stop_file": str(stop_file.absolute()),
            "how": how,
        }
        child = ChildProcess(_MODULE, request)
        last: core.Progress = core.Progress(0, 0, "starting a process for the training")
        try:
            yield last
            while True:
                for key, value in child.receive_messages():
                    if key == "result":
                        return training.AreaFitResult.from_state(
                            training.load_area_state(folder / _RESULT)
                        )
                    last = _read_report(folder, value)
                yield last
                if isinstance(last, training.AreaProgress):
                    last = replace(last, images=())  # shown once
        finally:
            child.stop(_PATIENCE_S)


def _read_report(folder: Path, value: dict[str, Any]) -> core.Progress:
    """Read a progress report, with the images that it names."""
    if "steps" not in value:
        return core.Progress(value["done"], value["total"], value["message"])
    images: tuple[Any, ...] = ()
    if value.pop("images"):
        with np.load(folder / _PREVIEW) as arrays:
            images = tuple(arrays[key] for key in arrays)
    return training.AreaProgress(**value, images=images)


def _run_training(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Train as requested, and save the state in its file."""
    folder = Path(request["folder"])
    with np.load(folder / _IMAGES) as arrays_stored:
        arrays = dict(arrays_stored)
    images = [
        training.AreaImages(*(arrays[f"{name}{n}"] for name in ("low", "high", "held")))
        for n in range(request["count"])
    ]
    how = request["how"]

    def send_report(step: core.Progress) -> None:
        value = asdict(step)
        if isinstance(step, training.AreaProgress):
            if step.images:
                with (
                    write_atomically(folder / _PREVIEW) as place,
                    place.open("wb") as stream,
                ):
                    np.savez(stream, *step.images)
            value["images"] = bool(step.images)
        say("step", value)

    fit = core.run(
        fit_with_files(
            images,
            training.AreaOptions.parse(request["options"]),
            state_file=Path(request["state_file"]),
            stop_file=Path(request["stop_file"]),
            **{**how, "levels": tuple(how["levels"])},
        ),
        send_report,
    )
    # apart from the state in the run folder, which another run may overwrite
    training.save_area_state(folder / _RESULT, fit.state)
    return {}


if __name__ == "__main__":
    sys.exit(serve_training_request(_run_training))
