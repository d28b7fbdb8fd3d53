"""Blend two images, or subtract one from the other.

Both are computed lazily and not stored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import FiniteFloat

from napari_semsr import core
from napari_semsr.io import SINGLE_PX, downsample_block
from napari_semsr.jobs.convert import (
    ConvertedFile,
    OpenedImage,
    SavedImage,
    save_image,
)
from napari_semsr.jobs.images import (
    compose_derived_provenance,
    compose_provenance,
    create_input_record,
    create_lazy_array,
)
from napari_semsr.jobs.verb import Run, command

_CHUNK = 512  # px; chosen: the chunk size of our stores
_STRIP_PX = 1 << 22  # pixels read at once; chosen: 16 MB of float32
_HELD_PX = 1 << 25  # pixels of a level kept in memory; chosen: 128 MB of float32


def _resample_to_grid(image: core.Micrograph, grid: core.Grid) -> Any:
    """Resample an image to a grid, lazily if it is large."""
    area = core.GridImage.from_image(image, grid)
    if area.inner == core.Box.from_shape(image.shape):
        return image.data
    return (
        area.read() if max(grid.shape) <= SINGLE_PX else create_lazy_array(area, _CHUNK)
    )


def resample_levels(
    image: core.Micrograph,
    result_levels: Sequence[Any],
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
            image_levels.append(
                (yield from _downsample_level(image_levels[-1], image.name))
            )
    return image_levels


def _downsample_level(fine: core.ReadableArray, name: str) -> core.Job[Any]:
    """Downsample to the next pyramid level, in memory unless the level is large."""
    rows, columns = fine.shape
    if rows * columns > 4 * _HELD_PX:
        import dask.array as da

        even = da.asarray(fine).rechunk(2 * _CHUNK)
        sizes = [tuple(-(-n // 2) for n in chunks) for chunks in even.chunks]
        return even.map_blocks(downsample_block, chunks=sizes, dtype=fine.dtype)
    step = max(2, _STRIP_PX // columns // 2 * 2)
    parts = []
    for top in range(0, rows, step):
        yield core.Progress(top, rows, f"creating an overview of {name}")
        parts.append(
            downsample_block(
                core.read_box(fine, core.Box(top, min(top + step, rows), 0, columns))
            )
        )
    return np.concatenate(parts)


def blend_levels(
    before: Sequence[Any], after: Sequence[Any], strength: float
) -> list[Any]:
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
    history = compose_derived_provenance("difference", {}, **roles)
    if not first.is_lazy and not second.is_lazy:  # an array in memory has a digest, too
        records = (
            create_input_record(item, item, role=role) for role, item in roles.items()
        )
        history = compose_provenance("difference", {}, *records)
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


@command(reads=False)
def blend(
    _: Run[BlendOptions],
    input: OpenedImage,  # noqa: A002 - its name in histories
    result: OpenedImage,
    output: SavedImage,
    options: BlendOptions,
) -> core.Job[ConvertedFile]:
    """Blend a result with its input again, with `blend_levels`."""
    levels = yield from resample_levels(input, (), result, [result.data])
    blended_image = blend_levels(levels, [result.data], options.strength)[0]
    history = compose_derived_provenance(
        "blend", options.model_dump(), input=input, result=result
    )
    blended = result.replace(data=blended_image, provenance=history)
    return (yield from save_image(blended, output))


@command(reads=False)
def difference(
    _: Run[core.Options],
    minuend: OpenedImage,
    subtrahend: OpenedImage,
    output: SavedImage,
    options: core.Options,
) -> core.Job[ConvertedFile]:
    """Subtract one image from another again, with `subtract_images`."""
    return save_image(subtract_images(subtrahend, minuend), output)
