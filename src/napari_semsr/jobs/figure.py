"""Create a publication figure from images and maps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core, reporting
from napari_semsr.io import replace_atomically
from napari_semsr.jobs.images import (
    Image,
    Result,
    correct_pixel_sizes,
    open_image,
    record_input,
)
from napari_semsr.jobs.restore import METHOD_CALLED
from napari_semsr.jobs.verb import ImageInput, Output, Run, command

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

# a lettered image, and the map over it
_Cell = tuple[core.Micrograph, core.Micrograph | None]
_MOST = 12  # images; chosen: as many as fit a page
_MM = 25.4
_TEXT = ".txt"
_SHADES = 256  # colours of a colour map, as in matplotlib
_BAND_PX = 1 << 24  # pixels read at once; chosen: 128 MB of float64


class FigureOptions(core.Options):
    """Options for a figure."""

    width_mm: float = core.option(
        85.0,
        "Width",
        "Figure width: 85 for a single column, 175 for a full page.",
        unit="mm",
        ge=20,
        le=400,
    )
    dpi: int = core.option(
        300, "Resolution", "Pixels per inch.", unit="dpi", ge=50, le=1200
    )
    columns: int | None = core.option(
        None,
        "Columns",
        ("Number of images per row; chosen automatically by default."),
        ge=1,
        le=_MOST,
    )
    caption: str = core.option(
        "", "Caption", "Text before the image descriptions.", max_length=2000
    )
    no_caption: bool = core.option(
        False,
        "No caption",
        "Omit the image descriptions, but name the networks that made the images.",
    )
    caption_file: bool = core.option(
        False,
        "Caption file",
        "Also write the full caption to a text file with the same name as the figure.",
    )
    greys: Literal["own", "common"] = core.option(
        "own",
        "Grey scale",
        "Use separate contrast limits for each image, or the same limits for all "
        "images except maps.",
        choices={"as on screen": "own", "one for all": "common"},
    )
    overlay: bool = core.option(
        False,
        "Maps over images",
        "Overlay each map and its colour bar on the image that it was measured on, "
        "instead of showing both side by side.",
    )
    inset: tuple[int, int, int, int] | None = core.option(
        None,
        "",
        "Rows Y0 to Y1 and columns X0 to X1 of the first image, shown enlarged "
        "below; the same area is used for the other images.",
        metavar=("Y0", "X0", "Y1", "X1"),
    )


@dataclass(frozen=True, slots=True)
class CreatedFigure(Result):
    """Created figure, with the pixel size of its first image."""

    path: str
    pixel_size_nm: core.FloatPair | None
    shape: tuple[int, int]  # of the figure
    caption: Annotated[str, core.Quantity("Caption")]  # in the figure
    networks: tuple[str, ...]  # that made images
    caption_file: Annotated[str | None, core.Quantity("Caption file")] = None

    @property
    def first_pixel(self) -> Annotated[str, core.Quantity("Pixel of the first image")]:
        """Pixel size of the first image as text."""
        return core.format_pixel_size(self.pixel_size_nm)


@command(title="figure", opens=False)
def figure(
    run: Run[FigureOptions],
    images: Annotated[
        Sequence[Image],
        ImageInput(help="images and maps, in the order of their letters", many=True),
    ],
    output: Annotated[
        Path,
        Output(
            "the figure: .png, .tif or .pdf",
            ending=".png",
            also=(".tif", ".tiff", ".pdf"),
        ),
    ],
    *,
    options: FigureOptions,
) -> core.Job[CreatedFigure]:
    """Make a figure of images, maps and overlays with scale bars and caption.

    Examples
    --------
    >>> image = semsr.Micrograph(np.random.default_rng(0).random((60, 80)), (5, 5), "A")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     semsr.figure([image, image], f"{folder}/one.png", dpi=100).caption
    '(a) A; bar 100 nm. (b) A; bar 100 nm.'
    """
    if not 1 <= len(images) <= _MOST:
        msg = f"A figure must have 1 to {_MOST} images, got {len(images)}."
        raise core.OptionError(msg, code="out-of-range")
    text = output.with_suffix(_TEXT) if options.caption_file else None
    if text is not None:
        Output("", ending=_TEXT).check_path(text, run.inputs, run.existing)
    images_found = [open_image(image, run.opening) for image in images]
    images_opened = correct_pixel_sizes(images_found, run.opening)
    cells = yield from _create_cells(images, images_opened, options)
    images_shown = []
    first_image, count = images_opened[0], len(cells)
    for number, (image, above) in enumerate(cells):
        yield core.Progress(number, count + 1, f"reading image {number + 1}")
        part = yield from create_plate_image(image, first_image, options, count)
        if above is not None:
            overlay = yield from _create_overlay(above, image, options, count)
            part = replace(part, overlay=overlay)
        images_shown.append(part)
    greys = [image for image in images_shown if image.unit is None]
    if options.greys == "common" and greys:  # one scale for all except maps
        first, ends = greys[0], np.array([image.limits for image in greys])
        same = all((i.gamma, i.colours) == (first.gamma, first.colours) for i in greys)
        gamma, colours = (first.gamma, first.colours) if same else (1.0, "gray")
        limits = float(ends[:, 0].min()), float(ends[:, 1].max())
        images_shown = [
            replace(i, gamma=gamma, colours=colours, limits=limits)
            if i.unit is None
            else i
            for i in images_shown
        ]
    yield core.Progress(count, count + 1, "drawing")
    caption = create_caption(cells, images_shown, options)
    plate = reporting.draw_plate(
        images_shown,
        kind="tif" if output.suffix == ".tiff" else output.suffix.removeprefix("."),
        width_mm=options.width_mm,
        dpi=options.dpi,
        columns=options.columns,
        caption=caption,
        title=", ".join(image.name for image in images_opened),
    )
    with replace_atomically(output) as temporary:
        temporary.write_bytes(plate.data)
    whole = create_caption(cells, images_shown, options.replace(no_caption=False))
    if text is not None:
        with replace_atomically(text) as temporary:
            temporary.write_text(
                whole + "\n", encoding="utf-8", errors="backslashreplace"
            )
    return CreatedFigure(
        path=str(output),
        pixel_size_nm=first_image.pixel_size_nm,
        shape=plate.shape,
        caption=caption,
        networks=tuple(
            dict.fromkeys(n for one in images_opened for n in _list_networks(one))
        ),
        caption_file=None if text is None else str(text),
    )


def _create_cells(
    images_given: Sequence[Image],
    images: Sequence[core.Micrograph],
    options: FigureOptions,
) -> core.Job[list[_Cell]]:
    """Assign images to cells; an overlaid map shares the cell of its image.

    A map without a history is overlaid on the image before it.
    """
    if not options.overlay:
        return [(image, None) for image in images]
    plain: list[tuple[core.Micrograph, core.InputRecord]] = []
    for source, image in zip(images_given, images, strict=True):
        if not _is_map(image):
            plain.append((image, (yield from record_input(source, image))))
    cells: list[_Cell] = [(image, None) for image, _ in plain]
    for number, image in enumerate(images):
        if not _is_map(image):
            continue
        under = _find_measured_image(image, plain)
        if under is None and number and not _is_map(images[number - 1]):
            under = images[number - 1]
        if under is None:
            msg = (
                f"`overlay` places a map on the preceding image, but {image.name} is "
                f"preceded by {('another map' if number else 'none')}: pass an image "
                "first, then its map."
            )
            raise core.OptionError(msg, code="image-missing")
        place = next(n for n, (lower, _) in enumerate(cells) if lower is under)
        if cells[place][1] is None:
            cells[place] = under, image
        else:
            cells.insert(place + 1, (under, image))
    if all(above is None for _, above in cells):
        msg = (
            "An overlay (`overlay`) requires a map, but there is none among the "
            "images; create one with `frc_map()`."
        )
        raise core.OptionError(msg, code="map-missing")
    return cells


def _find_measured_image(
    above: core.Micrograph, images: Sequence[tuple[core.Micrograph, core.InputRecord]]
) -> core.Micrograph | None:
    """Find the image that a map was measured on from its history, if recorded."""
    history = above.provenance
    inputs = () if history is None else history.defining_step().inputs
    for record in sorted(inputs, key=lambda item: item.role != "enhanced"):
        for image, own in images:
            then, now = record.provenance, own.provenance
            if (record.digest is not None and record.digest == own.digest) or (
                then.reproducible_record() == now.reproducible_record()
                if then is not None and now is not None
                else record.path is not None and record.path == own.path
            ):
                return image
    if inputs:
        msg = (
            f"`overlay` places {above.name} on the image that it was measured "
            f"on, but {inputs[0].name} is not among the images: pass it as well."
        )
        raise core.OptionError(msg, code="image-missing")
    return None


def _is_map(image: core.Micrograph) -> bool:
    """Return whether an image is a map, with a colour bar."""
    look = image.look
    return image.quantity is not None or (look is not None and look.colour_bar)


def _create_overlay(
    above: core.Micrograph, image: core.Micrograph, options: FigureOptions, count: int
) -> core.Job[reporting.FigureOverlay]:
    """Downsample a map for the figure, and find its position."""
    if above.unit != image.unit:
        bare = above if above.pixel_size_nm is None else image
        msg = (
            "Either both the map and its image or neither must have a pixel size, but "
            f"{bare.name} has none."
        )
        raise core.OptionError(msg, code="pixel-size-missing")
    plain = options.replace(inset=None)
    overlay = yield from create_plate_image(above, image, plain, count)
    size = np.multiply(overlay.values.shape, overlay.pixel)
    grids = core.Grid.from_image(above), core.Grid.from_image(image)
    start = np.array(grids[0].corner) - grids[1].corner
    factor = _compute_downsampling_factor(image, options, count)
    pixel = np.multiply(image.scale, factor)
    top, left, bottom, right = (*(start / pixel), *((start + size) / pixel))
    whole = np.multiply(image.shape, image.scale) / pixel
    if bottom <= 0 or right <= 0 or top >= whole[0] or left >= whole[1]:
        msg = f"The map {above.name} does not overlap {image.name}."
        raise core.ShapeError(msg, code="no-overlap")
    return reporting.FigureOverlay(
        values=overlay.values,
        corners=(float(top), float(left), float(bottom), float(right)),
        limits=overlay.limits,
        colours=overlay.colours,
        unit=str(overlay.unit),
    )


def create_caption(
    cells: Sequence[_Cell],
    plates: Sequence[reporting.FigureImage],
    options: FigureOptions,
) -> str:
    """Create the caption, always marking images made by a network."""
    sentences = [options.caption.strip()] if options.caption.strip() else []
    bars = reporting.describe_scale_bars(plates)
    for number, (cell, bar) in enumerate(zip(cells, bars, strict=True)):
        letter = f"({chr(ord('a') + number)}) " if len(cells) > 1 else ""
        parts = [part for part in cell if part is not None]
        if options.no_caption:
            makers = dict.fromkeys(n for part in parts for n in _list_networks(part))
            sentences += [f"{letter}Made by the network {name}." for name in makers]
            continue
        descriptions = []
        for part in parts:  # with its networks, and its restoration
            words, networks = [part.name], _list_networks(part)
            if networks:
                which = "network" if len(networks) == 1 else "networks"
                words.append(f"made by the {which} {' and '.join(networks)}")
            steps = () if part.provenance is None else part.provenance.steps()
            methods = [s.options.get("method", "") for s in steps if s.job == "restore"]
            words += [
                f"restored ({METHOD_CALLED.get(method, 'unknown method')})"
                for method in methods
            ]
            descriptions.append(", ".join(words))
        sentences.append(
            f"{letter}{', under '.join(descriptions)}{bar and f'; {bar}'}."
        )
    return " ".join(sentences)


def _list_networks(image: core.Micrograph) -> list[str]:
    """Return the networks that made an image, with their short digests."""
    networks = {} if image.provenance is None else image.provenance.network_names()
    return [f"{n} ({d.removeprefix('sha256:')[:16]})" for d, n in networks.items()]


def create_plate_image(
    image: core.Micrograph, first: core.Micrograph, options: FigureOptions, count: int
) -> core.Job[reporting.FigureImage]:
    """Downsample an image for the figure, and choose its colour map."""
    factor = _compute_downsampling_factor(image, options, count)
    box = None if options.inset is None else _get_inset_box(options.inset, image, first)
    values = yield from _average_blocks(image, factor)
    if not np.isfinite(values).any():
        msg = f"Figure images must have finite pixels, but {image.name} has none."
        raise core.ShapeError(msg, code="no-finite-values")
    unit = image.quantity
    limits = reporting.choose_grey_limits(values)
    gamma = 1.0
    look = image.look
    colours: str | Colormap = "gray" if unit is None else "magma"
    if unit is not None and unit.startswith("resolution"):
        colours = "viridis_r"
    if look is not None:
        limits, gamma = look.limits, look.gamma
        colours = _get_colormap(image.name, look) or colours
        if unit is None and look.colour_bar:
            unit = "value"
    (y, x), history = image.scale, image.provenance
    return reporting.FigureImage(
        values=values,
        pixel=(y * factor, x * factor),
        limits=limits,
        has_size=image.pixel_size_nm is not None,
        is_spectrum=history is not None and history.defining_step().job == "spectrum",
        colours=colours,
        unit=unit,
        # its edges in pixels of the downsampled image
        box=None
        if box is None
        else (box.y0 / factor, box.x0 / factor, box.y1 / factor, box.x1 / factor),
        inset=None if box is None else np.asarray(image.data[box.slices], float),
        gamma=gamma,
    )


def _get_colormap(name: str, look: core.DisplaySettings) -> "str | Colormap | None":
    """Return the colour map of an image for a figure; warn if unknown."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, is_color_like, to_rgba_array

    colormap = look.colormap
    if look.colours:
        colours = np.clip(look.colours, 0, 1)
    elif colormap in colormaps:
        return colormap
    elif is_color_like(colormap):  # from black; napari's green is the full colour
        colours = to_rgba_array(["black", "lime" if colormap == "green" else colormap])
    else:
        core.warn(
            f"There is no colour map named {colormap} for figures, so a default is "
            f"used for {name}: choose another colour map.",
            "unknown-value",
        )
        return None
    even = np.linspace(0, 1, len(colours))
    places = look.places if len(look.places) == len(colours) else even
    fine = np.linspace(0, 1, _SHADES)
    shades = [np.interp(fine, places, channel) for channel in colours.T]
    return ListedColormap(np.stack(shades, axis=1), colormap)


def _compute_downsampling_factor(
    image: core.Micrograph, options: FigureOptions, count: int
) -> int:
    """Return the number of pixels averaged into one along each axis.

    Twice as many pixels remain as are drawn: block averages alias finer detail, and
    drawing filters the rest.
    """
    columns = reporting.choose_column_count(count, options.columns, options.width_mm)
    columns_wanted = 2 * round(options.width_mm / _MM * options.dpi / columns)
    return max(1, min(image.shape[1] // max(columns_wanted, 1), min(image.shape)))


def _average_blocks(
    image: core.Micrograph, factor: int
) -> core.Job[NDArray[np.float64]]:
    """Average blocks of pixels, ignoring NaN and dropping incomplete blocks."""
    rows, columns = (n // factor for n in image.shape)
    means = np.full((rows, columns), np.nan)
    step = max(1, _BAND_PX // (image.shape[1] * factor))
    for top in range(0, rows, step):
        yield core.Progress(top, rows, f"reading {image.name}")
        end = min(rows, top + step)
        band = image.data[top * factor : end * factor, : columns * factor]
        blocks = np.asarray(band, float).reshape(end - top, factor, columns, factor)
        finite = np.isfinite(blocks)
        count = finite.sum((1, 3))
        total = np.where(finite, blocks, 0).sum((1, 3))
        np.divide(total, count, out=means[top:end], where=count > 0)
    return means


def _get_inset_box(
    inset: tuple[int, int, int, int], image: core.Micrograph, first: core.Micrograph
) -> core.Box:
    """Return the inset box of an image, given in pixels of the first image."""
    y0, x0, y1, x1 = inset
    if image is not first and image.unit == first.unit:
        corners = np.array([(y0, x0), (y1, x1)]) - 0.5  # pixel corners, not centres
        start, stop = (first.origin + corners * first.scale).tolist()
        box = core.Grid.from_image(image).nearest_box(start, stop)
        y0, x0, y1, x1 = box.y0, box.x0, box.y1, box.x1
    rows, columns = image.shape
    if not (0 <= y0 < y1 <= rows and 0 <= x0 < x1 <= columns):
        msg = (
            f"The area to enlarge must be inside every image, got rows {y0} to {y1} "
            f"and columns {x0} to {x1} of {image.name}, which has {rows} x {columns} "
            "px."
        )
        raise core.ShapeError(msg, code="outside-image")
    return core.Box(y0, y1, x0, x1)
