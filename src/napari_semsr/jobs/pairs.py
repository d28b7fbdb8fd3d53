"""Cut training pairs of patches from images or folders."""

import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeGuard
from unicodedata import normalize

import numpy as np
from scipy import ndimage

from napari_semsr import core, inference, io
from napari_semsr.analysis import compute_block_means
from napari_semsr.jobs import register, verb
from napari_semsr.jobs.images import (
    Image,
    Result,
    create_input_record,
    get_image_name,
    open_image,
)
from napari_semsr.pairing import (
    NUMBERS,
    SPLITS,
    PairOptions,
    PairTransform,
    open_pairs,
    prepare_image,
    select_pairs,
    write_pairs,
)

_SHEET = ".png"
_SKIPPED_SUFFIXES = (".csv", ".json", ".txt", ".md", ".yaml", ".yml")
# How far a ratio of pixel sizes may differ from a whole number; chosen: calibrations
# differ by one or two per cent.
_SIZE_TOLERANCE = 0.02
_MOST = 4  # as `PairOptions.scale`


@dataclass(frozen=True, slots=True)
class CreatedPairs(Result):
    """Result of cutting pairs: number of pairs, and of patches rejected by reason.

    `pairing` is ``paired`` or ``unpaired``; `patch` is the side of a LOW patch, `scale`
    the HIGH pixels for each LOW pixel, `scale_note` the reason for it and how to change
    it, if none was set. The pixel size is that of HIGH; None if unknown or
    different. `images` has for each pair its ``name``, the patches in ``train``,
    ``validation`` and ``test``, and those ``rejected`` by reason; ``refused`` is the
    reason for having none. `same_place` lists the names of images that show one area;
    it is in one set only.
    """

    output: str
    sheet: Annotated[str, core.Quantity("Contact sheet")]
    pairing: Annotated[str, core.Quantity("Pairs")]
    train: Annotated[int, core.Quantity("For training", "pairs", "d")]
    validation: Annotated[int, core.Quantity("For validation", "pairs", "d")]
    test: Annotated[int, core.Quantity("For testing", "pairs", "d")]
    candidates: Annotated[int, core.Quantity("Candidates", "patches", "d")]
    rejected: dict[str, int]
    patch: Annotated[int, core.Quantity("Side of a patch", "px", "d")]
    scale: int
    pixel_size_nm: Annotated[float | None, core.Quantity("Pixel", "nm")]
    resampled: bool
    scale_note: str | None = None
    map_error_nm: Annotated[
        float | None, core.Quantity("Expected error of the transform", "nm", ".3g")
    ] = None
    images: list[dict[str, Any]] = field(default_factory=list)
    same_place: list[list[str]] = field(default_factory=list)

    @property
    def scale_text(self) -> Annotated[str | None, core.Quantity("Scale")]:
        """Scale with its reason, if it is not 1 or was chosen automatically."""
        if self.scale == 1 and not self.scale_note:
            return None
        return f"{self.scale} ({self.scale_note})".removesuffix(" (None)")

    def figures(self) -> dict[str, core.Figure]:
        """Return the figures, the rejections, and the result of each pair of images."""
        rows = core.get_declared_figures(self)
        for reason, count in self.rejected.items():
            rows[f"Rejected: {reason}"] = core.Figure(count, "patches", "d")
        for row in self.images if len(self.images) > 1 else ():
            counts_text = [f"{name} {row[name]}" for name in SPLITS if row.get(name)]
            why = row.get("rejected", {}).items()
            counts_text += [f"rejected: {reason} {count}" for reason, count in why]
            counts_text += [f"skipped: {row['refused']}"] if "refused" in row else []
            rows[f"Of {row['name']}"] = core.Figure(", ".join(counts_text))
        for number, names in enumerate(self.same_place, 1):
            rows[f"Images of the same area, {number}"] = core.Figure(", ".join(names))
        return rows


@verb.command(title="pairs", opens=False)
def pairs(
    run: verb.Run[PairOptions],
    low: Annotated[
        Image | Sequence[core.Micrograph],
        verb.ImageInput(
            help="the image to improve, or a folder or pattern ('*_low.png') of such "
            "images",
        ),
    ],
    high: Annotated[
        Image | Sequence[core.Micrograph],
        verb.ImageInput(
            help="the target image, or a folder or pattern ('*_high.png') of such "
            "images",
        ),
    ],
    output: Annotated[
        Path,
        verb.Output(
            "store of the pairs, .zarr; a contact sheet is written next to it",
            ending=".zarr",
        ),
    ],
    *,
    options: PairOptions,
    transform: Annotated[
        io.StoredTransform | str | Path | None,
        verb.FileInput(
            help="transform from LOW (moving) to HIGH (fixed), written by `register()`",
            metavar="JSON",
        ),
    ] = None,
) -> core.Job[CreatedPairs]:
    """Cut aligned patches into disjoint training, validation and test sets.

    Examples
    --------
    >>> high = np.random.default_rng(0).random((96, 96))
    >>> low = (high + np.roll(high, 1, axis=1)) / 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = semsr.pairs(low, high, f"{folder}/pairs.zarr", patch=16)
    >>> made.train, made.validation, made.test
    (28, 4, 4)
    """
    sheet = output.with_suffix(_SHEET)
    verb.Output("", ending=_SHEET).check_path(sheet, run.inputs, run.existing)
    lows, highs, folders = _list_images(low, high)
    is_paired = not folders or options.match == "name" or options.align
    if folders and is_paired:
        lows, highs = _match_images_by_name((low, lows), (high, highs), options)
    stored_transform = _read_transform(transform, folders=folders)
    yield core.Progress(0, 0, "reading")
    images_opened = (
        list(_open_images(lows, options, run.opening, "low")),
        list(_open_images(highs, options, run.opening, "high")),
    )
    records = [[record for record, *_ in side] for side in images_opened]
    images = [[image for _, image, _ in side] for side in images_opened]
    pair_map, transform_record = None, None
    if stored_transform is not None:  # if it is one of these images
        sides = ((image, record) for ((record, image, _),) in images_opened)
        register.check_transform_images(stored_transform, *sides)
        found = stored_transform.transform
        off = register.read_residuals(stored_transform)
        pair_map = PairTransform(found, off.places_nm, off.reliable, off.side_nm)
        transform_record = register.create_transform_record(found, off.places_nm)
    settings, scale_note = _choose_scale(options, images, is_paired=is_paired)
    # with a correlation of 0, copies are allowed, but no second scan is one
    if is_paired and (settings.min_correlation != 0 or settings.second_scan):
        check_images_differ(*images)
    refusals: list[dict[str, object]] = []
    if settings.align:
        aligned = yield from _align_pairs(images, settings.scale_factor)
        kept_images, images, refusals = aligned
        records = [[side[number] for number in kept_images] for side in records]
    choice = yield from select_pairs(
        images[0], images[1], settings, is_paired=is_paired, pair_map=pair_map
    )
    if not choice.sets["train"]:
        raise _create_refusal(choice.candidates, choice.rejections, is_paired=is_paired)
    provenance = yield from run.compose_history(
        inputs=list(chain(*records)),
        preparation=NUMBERS if settings.has_preparation else None,
        overridden=[
            side[0][0].role for side in images_opened if any(one[2] for one in side)
        ],
        transform=transform_record,
    )
    off_nm = _get_map_error_nm(stored_transform, () if folders else chain(*records))
    by_image = [*choice.by_image, *refusals]
    with io.replace_atomically(output) as hidden_path:
        facts = settings, provenance, off_nm, by_image
        yield from write_pairs(hidden_path, choice, *facts)
    yield core.Progress(0, 0, "drawing the contact sheet")
    drawn_sheet = open_pairs(output).draw_contact_sheet()
    io.write(core.Micrograph(drawn_sheet, name=sheet.stem), sheet, overwrite=True)
    return CreatedPairs(
        output=str(output),
        sheet=str(sheet),
        pairing="paired" if is_paired else "unpaired",
        **{name: len(choice.sets[name]) for name in SPLITS},
        candidates=choice.candidates,
        rejected=dict(choice.rejections),
        patch=settings.patch,
        scale=settings.scale_factor,
        pixel_size_nm=choice.pixel_nm,
        resampled=choice.is_resampled or settings.align,
        scale_note=scale_note,
        map_error_nm=off_nm,
        images=by_image,
        same_place=choice.same_place,
    )


def _read_transform(
    transform: io.StoredTransform | str | os.PathLike[str] | None, *, folders: bool
) -> io.StoredTransform | None:
    """Read the transform from LOW to HIGH, of which folders have no single one."""
    if transform is not None and not isinstance(transform, io.StoredTransform):
        transform = io.read_transform(Path(transform))
    if transform is not None and folders:
        msg = (
            "A transform applies to a single pair of images, got folders: pass two "
            "images."
        )
        raise core.OptionError(msg, code="options-contradict")
    return transform


def _create_refusal(
    candidates: int, rejections: Mapping[str, int], *, is_paired: bool
) -> core.OptionError:
    """Return the error for images without a usable patch."""
    why = ", ".join(f"{reason} {n}" for reason, n in rejections.items()) or "no fit"
    show = "images show one field" if is_paired else "sets have equal structure"
    msg = (
        f"None of the {candidates} patches are usable ({why}): check that both {show}, "
        "or reduce `patch`."
    )
    return core.OptionError(msg, code="nothing-to-train")


def check_images_differ(
    lows: Sequence[core.Micrograph], highs: Sequence[core.Micrograph]
) -> None:
    """Raise an error if all pairs consist of identical images."""
    if all(
        low.shape == high.shape  # or both would be read
        and np.array_equal(low.array(), high.array(), equal_nan=True)
        for low, high in zip(lows, highs, strict=True)
    ):
        msg = (
            f"{lows[0].name} and {highs[0].name} have identical pixels: choose "
            "different images."
        )
        raise core.OptionError(msg, code="same-image")


# Alignment of two scans of one area.

_GREY_SIGMA_PX = 4.0  # chosen: the noise that remains is small
# relative to the numbers of pixels; chosen: range of the registration
_MAX_STRETCH = 0.1


def _align_pairs(
    images: list[list[core.Micrograph]], scale: int
) -> core.Job[tuple[list[int], list[list[core.Micrograph]], list[dict[str, object]]]]:
    """Align each HIGH image with its LOW image; record failures and reasons."""
    indices, images_found, refusals = [], [], []
    error: core.RegistrationError | None = None
    for number, (low, high) in enumerate(zip(*images, strict=True)):
        try:
            images_found.append((yield from _align_pair(low, high, scale)))
            indices.append(number)
        except core.RegistrationError as why:
            error = why
            refusals.append({"name": low.name, "refused": str(why)})
    if error is not None and not images_found:
        raise error
    return indices, [list(side) for side in zip(*images_found, strict=True)], refusals


def _align_pair(
    low: core.Micrograph, high: core.Micrograph, scale: int
) -> core.Job[tuple[core.Micrograph, core.Micrograph]]:
    """Align HIGH with LOW in position and grey levels; crop both to the common area.

    HIGH is resampled, since LOW is the input of the network.
    """
    coarse, fine = low.pixel_size_nm, high.pixel_size_nm
    if coarse is None:  # an unknown size is derived from the other
        y, x = fine or (1.0, 1.0)
        coarse = core.PixelSize((y * scale, x * scale))
    fine = fine or core.PixelSize((coarse[0] / scale, coarse[1] / scale))
    stretch = np.array(high.shape) * fine / (np.array(low.shape) * coarse)
    without_origin = low.origin == high.origin == (0.0, 0.0)
    if without_origin and np.any(np.abs(stretch - 1) > _MAX_STRETCH):
        shapes = " and ".join(" x ".join(map(str, one.shape)) for one in (low, high))
        msg = (
            f"{low.name} and {high.name} must show the same field at scale {scale}, "
            f"got {shapes} px: crop them to the same field, or set `scale` or the "
            "pixel sizes."
        )
        raise core.ShapeError(msg, code="sizes-differ")
    fixed_image, moving = (
        one.replace(
            pixel_size_nm=size,
            # without positions, their first corners coincide
            origin=(size[0] / 2, size[1] / 2) if without_origin else one.origin,
        )
        for one, size in ((low, coarse), (high, fine))
    )
    registration = yield from register.register.job(
        moving, fixed_image, options=register.RegisterOptions(model="elastic")
    )
    yield core.Progress(0, 0, f"aligning {high.name} with {low.name}")
    grid = core.Grid.from_image(fixed_image)
    rows, columns = (n * scale for n in low.shape)
    target_grid = core.Grid(
        (rows, columns), (coarse[0] / scale, coarse[1] / scale), grid.corner
    )
    transform = registration.registration.transform
    image = core.WarpedImage(moving, target_grid, transform).read()
    means = compute_block_means(image, scale)
    box = _find_known_box(np.isfinite(means))
    part, part_moved = low.array()[box.slices], image[box.scale(scale).slices]
    gain, offset = _fit_grey_levels(means[box.slices], part)
    has_size = (low.pixel_size_nm or high.pixel_size_nm) is not None
    corners = [
        core.Grid.from_image(one).box_origin(each)
        for one, each in ((low, box), (high, box.scale(scale)))
    ]
    data = (gain * part_moved + offset).astype(np.float32)
    sizes = (coarse, target_grid.pitch) if has_size else (None, None)
    low = low.replace(data=part, pixel_size_nm=sizes[0], origin=corners[0])
    return low, high.replace(data=data, pixel_size_nm=sizes[1], origin=corners[1])


def _find_known_box(is_known: core.BoolArray) -> core.Box:
    """Crop border rows and columns, starting with the most incomplete ones.

    Gaps inside are handled by the patches.
    """
    y0, x0 = 0, 0
    y1, x1 = is_known.shape
    while min(y1 - y0, x1 - x0) > 1:
        part = is_known[y0:y1, x0:x1]
        shares = [line.mean() for line in (part[0], part[-1], part[:, 0], part[:, -1])]
        worst = int(np.argmin(shares))
        if shares[worst] == 1:
            break
        y0, y1 = y0 + (worst == 0), y1 - (worst == 1)
        x0, x1 = x0 + (worst == 2), x1 - (worst == 3)
    return core.Box(y0, y1, x0, x1)


def _fit_grey_levels(image: core.FloatArray, other: core.FloatArray) -> core.FloatPair:
    """Return the gain and offset that match the grey levels of an image to another."""
    finite = np.isfinite(image) & np.isfinite(other)
    both = (np.asarray(image, float), np.asarray(other, float))
    filled = (np.where(finite, one, one[finite].mean()) for one in both)
    soft = (ndimage.gaussian_filter(one, _GREY_SIGMA_PX) for one in filled)
    here, there = (one[finite] for one in soft)
    gain = float(there.std() / max(here.std(), 1e-12))
    return gain, float(there.mean() - gain * here.mean())


def _get_map_error_nm(
    transform_file: io.StoredTransform | None, records: Iterable[core.InputRecord]
) -> float | None:
    """Return the expected error of the transform from LOW to HIGH, if known."""
    if transform_file is not None:
        error = transform_file.quality.get("error_nm")
    else:  # an image that is already registered
        steps = (record.provenance for record in records if record.provenance)
        option_sets = (step.options for step in steps if step.job == "register")
        error = next(option_sets, {}).get("error_nm")
    return float(error) if isinstance(error, (int, float)) else None


# Chosen: with three patches along the shorter side, half a patch apart, there are 25
# positions, enough for three sets; smaller patches are mostly border.
_ACROSS = 3
_MIN_PATCH = 32  # smallest side to which patches are halved for these sets
MIN_SIDE = _ACROSS * _MIN_PATCH
"""Minimum shorter side, in pixels, of an image that is split into three sets."""


def choose_pair_options(
    low: core.Micrograph,
    high: core.Micrograph,
    options: PairOptions | None = None,
    *,
    patch_px: int,
    scale: int | None = None,
    trained_sizes: "inference.TrainedPixelSizes | None" = None,
) -> PairOptions:
    """Choose values for unset pair options to suit a given model.

    Images are resampled to the pixel size that a model was trained for
    (`trained_sizes`) if this also happens when it is applied.
    """
    options_given = options or PairOptions()
    names_given = options_given.model_fields_set
    factor = options_given.scale or scale or 1
    values: dict[str, object] = {} if scale is None else {"scale": factor}
    low = low.with_pixel_size(options_given.low_pixel_nm)
    pixel: float | None = None
    if trained_sizes is not None and trained_sizes.pixel_size_nm is not None:
        pixel = low.mean_pixel_size_nm
        fit = inference.plan_resampling(low.pixel_size_nm, trained_sizes)
        if pixel is not None and fit.steps is not None:
            pixel = float(np.clip(pixel, *trained_sizes.pixel_size_nm))
    high_size = options_given.high_pixel_nm or high.mean_pixel_size_nm
    field = min(low.shape)
    if pixel is not None and high_size is not None:
        values["pixel_nm"] = pixel / factor
        field = min(field, int(min(high.shape) * high_size / pixel))
    patch = options_given.patch if "patch" in names_given else patch_px
    if "patch" not in names_given:
        while patch * _ACROSS > field and patch // 2 >= _MIN_PATCH:
            patch //= 2
    values |= {"patch": patch, "step": max(4, patch // 2)}
    unset = {k: v for k, v in values.items() if k not in names_given}
    return options_given.replace(**unset)


def _choose_scale(
    options: PairOptions, images: list[list[core.Micrograph]], *, is_paired: bool
) -> tuple[PairOptions, str | None]:
    """Choose the scale from the images, if none was set."""
    if options.scale is not None:
        return options, None
    both = list(zip(*images, strict=True)) if is_paired else []
    scales = {_compute_stated_scale(low, high) for low, high in both}
    scale = scales.pop() if len(scales) == 1 else None
    options_scaled = options.replace(scale=scale or 1)
    is_one = options_scaled.scale_factor == 1
    sizes = [image.mean_pixel_size_nm for image in (both[0] if both else ())]
    if not both or sizes[0] is None or sizes[1] is None:
        return options_scaled, None if is_one else "by the numbers of pixels"
    if sizes[0] == sizes[1]:
        return options_scaled, None
    reason = f"LOW has a pixel size of {sizes[0]:.4g} nm, HIGH of {sizes[1]:.4g} nm"
    more = " (`scale=1` resamples both to a common pixel size)"
    if is_one:
        more = (
            "; both are resampled to a common pixel size (set `scale` to keep a ratio "
            "of N to 1)"
        )
    return options_scaled, reason + more


def _compute_stated_scale(low: core.Micrograph, high: core.Micrograph) -> int | None:
    """Return the number of HIGH pixels per LOW pixel, 1 to 4, from both images.

    It follows from the pixel sizes, or from the numbers of pixels if neither has one;
    None if it is not a whole number.
    """
    sizes = low.pixel_size_nm, high.pixel_size_nm
    if sizes == (None, None):
        ratio = np.array(high.shape) / np.array(low.shape)
    elif sizes[0] is None or sizes[1] is None:
        return None
    else:
        ratio = np.array(sizes[0]) / np.array(sizes[1])
    whole = int(np.round(ratio[0]))
    if not 1 <= whole <= _MOST:
        return None
    return whole if np.all(np.abs(ratio / whole - 1) < _SIZE_TOLERANCE) else None


def _list_images(
    low: Image | Sequence[core.Micrograph], high: Image | Sequence[core.Micrograph]
) -> tuple[list[Image], list[Image], bool]:
    """Return the LOW and HIGH images, and whether they come from folders."""
    first, second = _list_side_images(low), _list_side_images(high)
    if isinstance(first, list) and isinstance(second, list):
        return first, second, True
    if isinstance(first, list) or isinstance(second, list):
        msg = (
            "Pairs require two images or two folders, got an image and a folder: pass "
            "two folders or two images."
        )
        raise core.ReadError(msg, code="wrong-type")
    return [first], [second], False


def _list_side_images(side: Image | Sequence[core.Micrograph]) -> Image | list[Image]:
    """List the files of a folder, sorted by name."""
    if isinstance(side, core.Micrograph):
        return side
    if not isinstance(side, (str, os.PathLike)):
        return list(side)
    pattern = Path(side).name if _is_pattern(side) else _ANY
    folder = Path(side) if pattern == _ANY else Path(side).parent
    if not folder.is_dir() or folder.name.lower().endswith(".zarr"):
        return side
    paths = sorted(
        item
        for item in core.list_folder(folder)
        if not item.name.startswith(".")
        and fnmatch.fnmatchcase(*(normalize("NFC", n) for n in (item.name, pattern)))
        and item.suffix.lower() not in _SKIPPED_SUFFIXES
        and (item.is_file() or item.name.lower().endswith(".zarr"))
    )
    if not paths:
        pattern_text = "" if pattern == _ANY else f" named {pattern}"
        msg = f"The folder {folder} must contain images{pattern_text}, got none."
        raise core.ReadError(msg, code="no-image")
    images: list[Image] = [*paths]
    return images


def _match_images_by_name(
    low: tuple[object, list[Image]],
    high: tuple[object, list[Image]],
    options: PairOptions,
) -> tuple[list[Image], list[Image]]:
    """Match images from folders, patterns or lists by name."""
    left_out = {name.strip() for name in options.leave_out.split(",")} - {""}
    sides = [
        list(zip(_get_match_keys(*side), side[1], strict=True)) for side in (low, high)
    ]
    keys = {key for side in sides for key, _ in side}
    left_out = {key if key in keys else normalize("NFC", key) for key in left_out}
    if lacking := sorted(left_out - keys):
        msg = (
            f"`leave_out` must name existing images, got {lacking[0]}; the existing "
            f"names are {', '.join(sorted(keys))}."
        )
        raise core.OptionError(msg, code="unknown-value")
    if left_out == keys:
        msg = f"`leave_out` must not name all images, got all {len(keys)} names."
        raise core.OptionError(msg, code="nothing-to-train")
    names: list[dict[str, Image]] = []
    for side in sides:
        images: dict[str, Image] = {}
        for key, image in side:
            if key in left_out:
                continue
            if key in images:
                msg = (
                    "Images matched by name must have unique names, got "
                    f"{get_image_name(images[key])} and {get_image_name(image)} for "
                    f"{key}: rename one, or exclude both with `leave_out={key}`."
                )
                raise core.ReadError(msg, code="names-alike")
            images[key] = image
        names.append(images)
    alone = sorted(set(names[0]) ^ set(names[1]))
    if alone:
        lacks = "LOW" if alone[0] in names[1] else "HIGH"
        msg = (
            f"Images matched by name need a partner of the same name, but {alone[0]} "
            f"has none in {lacks} ({len(alone)} unmatched in total): add the partner, "
            f"or exclude the image with `leave_out={alone[0]}`."
        )
        raise core.ReadError(msg, code="second-image-missing")
    both = sorted(names[0])
    return [names[0][name] for name in both], [names[1][name] for name in both]


def _get_match_keys(side: object, images: list[Image]) -> list[str]:
    """Return match keys: names without suffixes, text matched by *, or numbers."""
    names = [get_image_name(image) for image in images]
    composed_names = [normalize("NFC", name) for name in names]
    if len(set(composed_names)) == len(set(names)):  # unless both forms exist
        names = composed_names
    if _is_pattern(side):
        before, after = normalize("NFC", Path(side).name).split(_ANY)
        return [name.removeprefix(before).removesuffix(after) for name in names]
    in_memory = all(isinstance(image, core.Micrograph) for image in images)
    if in_memory and len(names) > len(set(names)) == 1:  # default name of arrays
        return [str(number) for number, _ in enumerate(names, 1)]
    return [io.remove_suffixes(name) for name in names]


_ANY = "*"


def _is_pattern(side: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether an input is a file name pattern with one *."""
    if not isinstance(side, (str, os.PathLike)):
        return False
    return Path(side).name.count(_ANY) == 1 and not Path(side).exists()


def _open_images(
    images: Sequence[Image],
    options: PairOptions,
    opening: io.ReadOptions,
    role: str,
) -> Iterator[tuple[core.InputRecord, core.Micrograph, bool]]:
    """Open, calibrate and prepare the LOW or the HIGH images.

    Also returns, for each image, whether its pixel size differed.
    """
    size = options.low_pixel_nm if role == "low" else options.high_pixel_nm
    for image in images:
        image_opened = open_image(image, opening)
        record = create_input_record(image, image_opened, opening, role=role)
        own = image_opened.pixel_size_nm
        image_opened = image_opened.with_pixel_size(size)
        if options.has_preparation and options.prepare in ("both", role):
            image_opened = prepare_image(image_opened, options)
        yield record, image_opened, own not in (None, image_opened.pixel_size_nm)
