"""Write an image in another format; blend or subtract two images lazily."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import FiniteFloat

from napari_semsr import core, io
from napari_semsr.jobs import images, verb


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
class ConvertedFile(images.ImageResult):
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
    history = images.compose_provenance("convert", about, record)
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
    place = image_given.path if in_memory else images.get_record_path(image_given)
    image = image.replace(provenance=history, path=place)
    version = options.zarr_version
    if version != "0.5" and io.get_output_format(output) != "ome-zarr":
        msg = (
            f"`zarr_version` applies only to .ome.zarr outputs, got {output.name}: "
            "omit `zarr_version`, or change the suffix."
        )
        raise core.OptionError(msg, code="option-without-effect")
    for companion in io.read_companions(image, output):
        _OUTPUT.check_path(companion, (), run.existing)
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
    path = _OUTPUT.check_path(output, (), images.REPLACING)
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
            io.write(item, place, overwrite=True)
    else:
        yield core.Progress(0, 0, f"writing {path.name}")
        io.write(image, path, dtype=dtype, overwrite=True)
    kind = io.get_stored_type(path, dtype or image.dtype)
    return _describe_file(path, image, kind, image.shape)


def _describe_file(
    path: Path, image: core.Micrograph, dtype: str, shape: tuple[int, ...]
) -> ConvertedFile:
    size = verb.get_pixel_size_fields(image)
    return ConvertedFile(output=str(path), shape=shape, dtype=dtype, **size)


def save_images(
    micrographs: Sequence[core.Micrograph], output: Path
) -> core.Job[list[ConvertedFile]]:
    """Write images to one OME-Zarr store, overwriting any existing one."""
    path = _OUTPUT.check_path(output, (), images.REPLACING)
    if io.get_output_format(path) != "ome-zarr":
        msg = (
            f"To save {len(micrographs)} images together, the output must end in "
            f".ome.zarr, got {path.name}: change the suffix, or save the images one by "
            "one."
        )
        raise core.WriteError(msg, code="format-unsupported")
    places = yield from io.write_series(micrographs, path)
    return [
        _describe_file(place, image, str(image.dtype), image.shape)
        for image, place in zip(micrographs, places, strict=True)
    ]


# Images that a panel computes from two others.

_CHUNK = 512  # px; chosen: the chunk size of our stores
_STRIP_PX = 1 << 22  # pixels read at once; chosen: 16 MB of float32
_HELD_PX = 1 << 25  # pixels of a level kept in memory; chosen: 128 MB of float32


def _resample_to_grid(image: core.Micrograph, grid: core.Grid) -> Any:
    """Resample an image to a grid, lazily if it is large."""
    area = core.GridImage.from_image(image, grid)
    if area.inner == core.Box.from_shape(image.shape):
        return image.data
    if max(grid.shape) <= io.SINGLE_PX:
        return area.read()
    return images.create_lazy_array(area, _CHUNK)


def resample_levels(
    image: core.Micrograph,
    result_levels: Sequence[core.ReadableArray],
    result: core.Micrograph,
    levels: Sequence[core.ReadableArray],
) -> core.Job[list[Any]]:
    """Resample an image to the grid of each pyramid level of its result."""
    image_levels = [_resample_to_grid(image, core.Grid.from_image(result))]
    own = result_levels if image_levels[0] is image.data else ()
    for level in levels[1:]:
        shape = tuple(level.shape)
        fits = [item for item in own if tuple(item.shape) == shape]
        if fits:
            image_levels.append(fits[0])
        else:
            coarser = yield from _downsample_level(image_levels[-1], image.name)
            image_levels.append(coarser)
    return image_levels


def _downsample_level(fine: core.ReadableArray, name: str) -> core.Job[Any]:
    """Downsample to the next pyramid level, in memory unless the level is large."""
    rows, columns = fine.shape
    if rows * columns > 4 * _HELD_PX:
        import dask.array as da

        even = da.asarray(fine).rechunk(2 * _CHUNK)
        sizes = [tuple(-(-n // 2) for n in chunks) for chunks in even.chunks]
        return even.map_blocks(io.downsample_block, chunks=sizes, dtype=fine.dtype)
    step = max(2, _STRIP_PX // columns // 2 * 2)
    parts = []
    for top in range(0, rows, step):
        yield core.Progress(top, rows, f"creating an overview of {name}")
        box = core.Box(top, min(top + step, rows), 0, columns)
        parts.append(io.downsample_block(core.read_box(fine, box)))
    return np.concatenate(parts)


def blend_levels(
    before: Sequence[object], after: Sequence[object], strength: float
) -> list[object]:
    """Blend two images on the same grid, level by level."""
    if strength >= 1:
        return list(after)
    return [
        _blend_arrays(first, second, strength)
        for first, second in zip(before, after, strict=True)
    ]


def _blend_arrays(before: Any, after: Any, strength: float) -> Any:
    """Blend two arrays, lazily if one of them is lazy."""
    if not hasattr(before, "dask") and not hasattr(after, "dask"):
        return _mix_values(before, after, strength)
    import dask.array as da

    lazy = next(item for item in (after, before) if hasattr(item, "dask"))
    first, second = (
        item if hasattr(item, "dask") else da.from_array(item, lazy.chunks, name=False)
        for item in (before, after)
    )
    return da.map_blocks(
        _mix_values, first.rechunk(lazy.chunks), second, strength, dtype=after.dtype
    )


def _mix_values(
    before: core.RealArray, after: core.RealArray, strength: float
) -> core.RealArray:
    """Blend grey values, and return them in the dtype of the result."""
    share = np.float32(strength)
    with np.errstate(over="ignore"):  # infinite pixels count as missing
        mixture = np.asarray(before, np.float32) * (1 - share) + after * share
    return core.convert_dtype(mixture, after.dtype)[0]


def subtract_images(first: core.Micrograph, second: core.Micrograph) -> core.Micrograph:
    """Subtract one image from another in their overlap."""
    if first.unit != second.unit:
        bare = first if first.unit == "pixel" else second
        msg = (
            f"Either both images or neither must have a pixel size, but {bare.name!r} "
            "has none; set it with `pixel_size_nm`."
        )
        raise core.ShapeError(msg, code="pixel-size-missing")
    grids = core.Grid.from_image(first), core.Grid.from_image(second)
    coarse, fine = sorted(grids, key=lambda grid: -grid.pitch[0] * grid.pitch[1])
    box = coarse.covered_box(fine)
    if box is None:
        msg = (
            f"{first.name!r} and {second.name!r} do not overlap; choose two images of "
            "the same area."
        )
        raise core.ShapeError(msg, code="no-overlap")
    like = first if coarse is grids[0] else second
    grid = core.GridImage.from_image(like, coarse).crop(box).grid
    with np.errstate(over="ignore", invalid="ignore"):  # infinite counts as missing
        old, new = (
            _resample_to_grid(image, grid).astype(np.float32)
            for image in (first, second)
        )
        difference = new - old
    roles = {"minuend": second, "subtrahend": first}
    history = images.compose_derived_provenance("difference", {}, **roles)
    if not first.is_lazy and not second.is_lazy:  # an array in memory has a digest, too
        records = (
            images.create_input_record(item, item, role=role)
            for role, item in roles.items()
        )
        history = images.compose_provenance("difference", {}, *records)
    return like.replace(
        data=difference,
        name=f"{second.name} \N{MINUS SIGN} {first.name}",
        origin=coarse.box_origin(box),
        provenance=history,
        metadata={},
    )


class BlendOptions(core.Options):
    """Options for blending an image with its enhanced or restored version."""

    strength: FiniteFloat


@verb.command(reads=False)
def blend(
    _: verb.Run[BlendOptions],
    input: OpenedImage,  # noqa: A002 - its name in histories
    result: OpenedImage,
    output: SavedImage,
    options: BlendOptions,
) -> core.Job[ConvertedFile]:
    """Blend a result with its input again, with `blend_levels`."""
    levels = yield from resample_levels(input, (), result, [result.data])
    blended_image = blend_levels(levels, [result.data], options.strength)[0]
    history = images.compose_derived_provenance(
        "blend", options.model_dump(), input=input, result=result
    )
    blended = result.replace(data=blended_image, provenance=history)
    return (yield from save_image(blended, output))


@verb.command(reads=False)
def difference(
    _: verb.Run[core.Options],
    minuend: OpenedImage,
    subtrahend: OpenedImage,
    output: SavedImage,
    options: core.Options,
) -> core.Job[ConvertedFile]:
    """Subtract one image from another again, with `subtract_images`."""
    return save_image(subtract_images(subtrahend, minuend), output)
