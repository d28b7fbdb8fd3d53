"""Convert an image to another format, keeping its history."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from napari_semsr import core, io
from napari_semsr.jobs import verb
from napari_semsr.jobs.images import (
    REPLACING,
    compose_provenance,
    get_record_path,
    overwrite_image,
)


class ConvertOptions(core.Options):
    """Options for converting an image."""

    dtype: Literal["uint8", "uint16", "float32"] | None = core.option(
        None, "Type", "dtype of the output; values are rounded and clipped"
    )
    zarr_version: Literal["0.5", "0.4"] = core.option(
        "0.5",
        "OME-Zarr",
        "version of OME-Zarr of an output .ome.zarr; 0.4 for programs that cannot read "
        "0.5",
        choices={"0.5": "0.5", "0.4": "0.4"},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFile(verb.ImageResult):
    """Result of a conversion."""

    output: str


_OUTPUT = verb.Output(
    "its suffix sets the format: .ome.zarr .ome.tif .tif .png", flag=""
)


# of jobs that are not commands, and make an image of a panel again
OpenedImage = Annotated[core.Micrograph, verb.ImageInput(help="an image")]
SavedImage = Annotated[Path, verb.Output("the image")]


@verb.command(title="conversion")
def convert(
    run: verb.Run[ConvertOptions],
    image: Annotated[
        core.Micrograph, verb.ImageInput(help="the image to convert", several=True)
    ],
    output: Annotated[Path, _OUTPUT],
    options: ConvertOptions,
) -> core.Job[ConvertedFile]:
    """Write any readable image in any writable format.

    Examples
    --------
    >>> grey = np.full((48, 64), 199.6)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.convert(
    ...         grey, f"{folder}/field.ome.zarr", dtype="uint8", pixel_size_nm=7.7
    ...     )
    ...     stored = semsr.read(made.output).array()
    >>> made.shape, made.dtype, made.pixel_size_nm, int(stored[0, 0])
    ((48, 64), 'uint8', (7.7, 7.7), 200)
    """
    image_given, dtype = run.image_inputs["image"], options.dtype
    # records of this job hold the reading options next to the dtype
    about = {
        "dtype": dtype,
        **run.opening.model_dump(mode="json"),
        **verb.get_size_record(image),
        **image.unrecorded_instrument,
    }
    record = yield from run.record_image("image")
    history = compose_provenance("convert", about, record)
    clipped_count = 0
    if dtype is not None:
        clipped_count = sum(
            core.convert_dtype(part, dtype)[1] for part in core.read_chunks(image.data)
        )
    if clipped_count:
        core.warn(
            f"{clipped_count} of {image.data.size} pixels are outside the range of "
            f"{dtype} and were clipped; grey values are not rescaled.",
            "clipped",
        )
    in_memory = isinstance(image_given, core.Micrograph)
    place = image_given.path if in_memory else get_record_path(image_given)
    image = image.replace(provenance=history, path=place)
    version = options.zarr_version
    if version != "0.5" and io.get_output_format(output) != "ome-zarr":
        msg = (
            f"`zarr_version` applies only to .ome.zarr outputs, got {output.name}: "
            "omit `zarr_version`, or change the suffix."
        )
        raise core.OptionError(msg, code="option-without-effect")
    for beside in io.read_companions(image, output):
        _OUTPUT.check_path(beside, (), run.existing)
    saved = yield from save_image(image, output, dtype=dtype, zarr_version=version)
    return replace(saved, clipped=clipped_count)


def save_image(
    image: core.Micrograph | Sequence[core.Micrograph],
    output: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    zarr_version: str = "0.5",
) -> core.Job[ConvertedFile]:
    """Write an image unchanged with its history, overwriting any existing file."""
    path = _OUTPUT.check_path(output, (), REPLACING)
    if not isinstance(image, core.Micrograph):  # a stack
        if io.get_output_format(path) not in ("ome-tiff", "tiff"):
            msg = (
                f"To save a stack of {len(image)} planes, the output must end in "
                f".ome.tif or .tif, got {path.name}: change the suffix."
            )
            raise core.WriteError(msg, code="format-unsupported")
        yield core.Progress(0, 0, f"writing {path.name}")
        first, planes = image[0], (plane.array() for plane in image)
        io.write_pages(first, {"plane": len(image)}, planes, path)
        kind = io.get_stored_type(path, first.dtype)
        return _describe_file(path, first, kind, (len(image), *first.shape))
    if io.get_output_format(path) == "ome-zarr":
        more = io.read_companions(image, path)
        yield from io.write_blocks(
            path,
            lambda place: io.create_image_store(
                image, place, dtype=dtype, version=zarr_version
            ),
            lambda store: io.write_image_to_store(store, image, f"writing {path.name}"),
        )
        for place, item in more.items():
            overwrite_image(item, place)
    else:
        yield core.Progress(0, 0, f"writing {path.name}")
        overwrite_image(image, path, dtype=dtype)
    kind = io.get_stored_type(path, dtype or image.dtype)
    return _describe_file(path, image, kind, image.shape)


def _describe_file(
    path: Path, image: core.Micrograph, dtype: str, shape: tuple[int, ...]
) -> ConvertedFile:
    size = verb.get_pixel_size_fields(image)
    return ConvertedFile(output=str(path), shape=shape, dtype=dtype, **size)


def save_images(
    images: Sequence[core.Micrograph], output: Path
) -> core.Job[list[ConvertedFile]]:
    """Write images to one OME-Zarr store, overwriting any existing one."""
    path = _OUTPUT.check_path(output, (), REPLACING)
    if io.get_output_format(path) != "ome-zarr":
        msg = (
            f"To save {len(images)} images together, the output must end in .ome.zarr, "
            f"got {path.name}: change the suffix, or save the images one by one."
        )
        raise core.WriteError(msg, code="format-unsupported")
    places = yield from io.write_series(images, path)
    return [
        _describe_file(place, image, str(image.dtype), image.shape)
        for image, place in zip(images, places, strict=True)
    ]
