"""Run a single-plane command on every plane of a stack or time series."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_semsr import core, io
from napari_semsr.jobs.images import OverwritePolicy, create_stack_record, open_image
from napari_semsr.jobs.verb import O, R, Run


def _get_axis_sizes(run: Run[O]) -> dict[str, int]:
    """Return the axis sizes of a stack by name, or the number of images in memory."""
    image = run.image_inputs["image"]
    if isinstance(image, Sequence) and not isinstance(image, str):
        return {"plane": len(image)}
    has_plane = run.opening.plane is not None
    if isinstance(image, core.Micrograph) or has_plane or not Path(image).exists():
        return {}
    return run.get_source("image").read_axes(run.opening)


def run_on_planes(
    run: Run[O],
    job: Callable[[Run[O]], core.Job[R]],
    sum_up: Callable[[Sequence[R]], dict[str, object]],
) -> core.Job[R]:
    """Run a job on an image, or on every plane of a stack; `sum_up` adds the results.

    Each plane of a stack has its own scaling and goes to a hidden store next to the
    output, so that an interrupted run can be resumed; the stores are removed once the
    stack is complete.
    """
    if run.target is None:
        return (yield from job(run))
    target = run.target
    image = run.image_inputs["image"]
    axes = _get_axis_sizes(run)
    planes = math.prod(axes.values())
    stack = image if isinstance(image, Sequence) and not isinstance(image, str) else ()
    if planes == 1:
        return (yield from job(run.copy_for_image(stack[0], target) if stack else run))
    for name, place in run.targets.items():
        if place != target:
            msg = (
                f"A {name.replace('_', ' ')} requires a single plane, got a stack of "
                f"{planes} planes: choose one plane (`plane`)."
            )
            raise core.OptionError(msg, code="several-planes")
    if io.get_output_format(target) not in ("ome-tiff", "tiff"):
        msg = (
            f"A stack of {planes} planes can only be written as .ome.tif or .tif, got "
            f"{target.name}: change the suffix, or choose one plane (`plane`)."
        )
        raise core.WriteError(msg, code="format-unsupported")
    io.check_page_axes(axes, target)
    results: list[Any] = []
    for plane in range(planes):
        reading = run.opening if stack else run.opening.replace(plane=plane)
        one = run.copy_for_image(
            stack[plane] if stack else image,
            target.with_name(f".{target.name}.{plane}.part.ome.zarr"),
            opening=reading,
            existing=OverwritePolicy(not run.existing.resume, run.existing.resume),
        )
        prefix = f"plane {plane + 1} of {planes}"

        def prefix_message(step: core.Progress, prefix: str = prefix) -> core.Progress:
            return replace(step, message=f"{prefix}: {step.message}")

        results.append((yield from core.map_progress(job(one), prefix_message)))
    yield core.Progress(0, 0, f"writing {target.name}")
    reading_options = run.opening.model_dump(mode="json")
    history = results[0].provenance
    inputs = tuple(record for item in results for record in item.provenance.inputs)
    if not stack:  # the records of planes include their index
        inputs = (create_stack_record(inputs[0], run.opening),)
    plane_record = {
        "options": {**history.options, "reading": reading_options},
        "inputs": inputs,
    }
    history = history.model_copy(update=plane_record)
    # `open_image` would name it after the temporary file
    first = io.read(results[0].output).replace(provenance=history)
    pages = (open_image(item.output).array() for item in results)
    io.write_pages(first, axes, pages, target)
    for item in results:
        shutil.rmtree(item.output)
    combined_result: R = replace(
        results[0],
        output=str(target),
        shape=(*io.get_page_axes(axes).values(), *first.shape),
        provenance=history,
        **sum_up(results),
    )
    return combined_result
