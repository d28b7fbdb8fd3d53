"""Stored transforms between two images, as human-readable JSON.

``{"semsr_transform": 1, "kind": "affine", "from": {…}, "to": {…}, "matrix": [[yy, yx,
y], [xy, xx, x]]}`` maps positions in the moving image (``from``) to the fixed one
(``to``), in nm, ``(y, x)``. Positions are absolute: the first pixel of an image is at
its origin, which is stored with shape, pixel size and digest. An elastic transform has
a ``bspline`` that is applied after the matrix: origin and spacing of the knots, and the
coefficients of the displacement along y and x. ``quality`` describes its error; its
``residuals`` are those of held-out patches: ``places_nm``, their centres in the plane
of the fixed image, ``off_nm``, ``reliable``, whether the map is reliable there, and
their side ``side_nm``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, PositiveFloat

from napari_semsr import core
from napari_semsr.io.files import read_json_object, replace_atomically
from napari_semsr.io.read_image import ReadOptions
from napari_semsr.io.sheets import read_sheet, write_csv

_VERSION = 1
_KINDS = ("similarity", "affine", "elastic")
_Side = Annotated[int, Field(ge=1, le=2**31)]  # px; as for any array in memory
_ORDER = 3  # of the B-spline
_DAMAGE = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
_AXES = ["y", "x"]
_CONVENTIONS: dict[str, object] = {"unit": "nm", "axes": _AXES}
_WITHIN = 1e-3  # relative: pixel sizes that differ by rounding are equal


class ImageIdentity(core.Options):
    """Metadata that identify one of the two images of a transform."""

    model_config = ConfigDict(extra="ignore")

    name: str  # name of the image
    shape: tuple[_Side, _Side]
    pixel_size_nm: tuple[PositiveFloat, PositiveFloat]  # (y, x)
    origin_nm: core.FloatPair = (0.0, 0.0)  # (y, x), the centre of the first pixel
    digest: str | None = None  # of its file or store

    @classmethod
    def from_image(
        cls, image: core.Micrograph, digest: str | None = None
    ) -> "ImageIdentity":
        """Return the identity of a calibrated image with the digest of its file."""
        own = {"pixel_size_nm": image.scale, "origin_nm": image.origin}
        return cls(name=image.name, shape=image.shape, digest=digest, **own)

    def describe_difference(self, image: core.Micrograph) -> str | None:
        """Describe how an image differs from the stored one, or return None.

        Levels of a pyramid and enhanced images have other pixels but show the same
        area: they are accepted, and None is returned.
        """
        if image.pixel_size_nm is None:
            return "it has no pixel size"
        slack = 2 * max(*self.pixel_size_nm, *image.scale)
        grid = core.Grid.from_image(image)
        pairs = zip(self.origin_nm, self.pixel_size_nm, strict=True)
        corner = tuple(origin - pitch / 2 for origin, pitch in pairs)
        extent = np.multiply(self.shape, self.pixel_size_nm)
        for ours, theirs, what in (
            (extent, np.multiply(grid.shape, grid.pitch), "covers {:.6g} x {:.6g} nm"),
            (corner, grid.corner, "begins at {:.6g}, {:.6g} nm"),
        ):
            apart = np.abs(np.subtract(ours, theirs)) - _WITHIN * np.abs(ours)
            if apart.max() > slack:
                stored = what.format(*ours)
                return f"it {what.format(*theirs)}, but the stored one {stored}"
        return None


@dataclass(frozen=True, slots=True)
class StoredTransform:
    """A transform with the identities of its two images."""

    # from the moving image to the fixed one, in nm
    transform: core.Affine | core.Elastic
    moving: ImageIdentity
    fixed: ImageIdentity
    # description of its error, as plain values
    quality: Mapping[str, object] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of transform: ``"similarity"``, ``"affine"`` or ``"elastic"``."""
        if isinstance(self.transform, core.Elastic):
            return "elastic"
        return "similarity" if self.transform.is_similarity else "affine"


TRANSFORM_SUFFIXES = (".json", ".ngff.json", ".tfm", ".csv")
"""Suffixes supported by `write_transform`: own JSON, NGFF, ITK, and napari."""


def write_transform(path: Path, transform_file: StoredTransform) -> None:
    """Write a transform atomically, in the format given by the suffix.

    ``.ngff.json`` is a coordinate transformation of NGFF (RFC 5) from the moving image
    to the fixed one; ``.tfm`` an affine transform of ITK, ``(x, y)`` and from the fixed
    image to the moving one, as needed for resampling; ``.csv`` the 3 x 3 matrix of a
    napari layer's ``affine``; otherwise own JSON. Lengths are in nm, quality values
    finite. Other formats cannot store a displacement that is applied after a matrix.
    """
    writers = {
        ".ngff.json": _format_ngff_transform,
        ".tfm": _format_itk_transform,
        ".csv": _format_napari_transform,
    }
    ending = next((end for end in writers if path.name.lower().endswith(end)), None)
    transform = transform_file.transform
    if ending is None:
        affine = transform.affine if isinstance(transform, core.Elastic) else transform
        values: dict[str, object] = {
            "semsr_transform": _VERSION,
            "kind": transform_file.kind,
            **_CONVENTIONS,
            "from": transform_file.moving.model_dump(),
            "to": transform_file.fixed.model_dump(),
            "matrix": _get_matrix_rows(affine),
        }
        if isinstance(transform, core.Elastic):
            bending = transform.bending
            values["bspline"] = {
                "order": _ORDER,
                "origin": list(bending.origin),
                "spacing": list(bending.spacing),
                "coefficients": bending.coefficients.tolist(),
            }
        if transform_file.quality:
            values["quality"] = dict(transform_file.quality)
        text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    elif isinstance(transform, core.Elastic):
        what = f"An elastic transform cannot be written as {path.name}"
        msg = f"{what}: use a .json file, or register with `model=affine`."
        raise core.OptionError(msg, code="transform-unsupported")
    else:
        text = writers[ending](transform, transform_file)
    with replace_atomically(path) as place:
        place.write_text(text, encoding="utf-8")


def _get_matrix_rows(affine: core.Affine) -> list[list[float]]:
    """Return the matrix rows (y, x), each followed by its shift."""
    return [[*row, by] for row, by in zip(affine.matrix, affine.shift, strict=True)]


def _format_ngff_transform(affine: core.Affine, transform_file: StoredTransform) -> str:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in _AXES]
    names = ("moving", "fixed")
    values = {
        "coordinateSystems": [{"name": name, "axes": axes} for name in names],
        "coordinateTransformations": [
            {
                "type": "affine",
                "name": f"{transform_file.moving.name} to {transform_file.fixed.name}",
                "input": "moving",
                "output": "fixed",
                "affine": _get_matrix_rows(affine),
            }
        ],
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def _format_itk_transform(affine: core.Affine, _: StoredTransform) -> str:
    (yy, yx, y), (xy, xx, x) = _get_matrix_rows(affine.inverse())
    numbers = " ".join(repr(float(v)) for v in (xx, xy, yx, yy, x, y))
    lines = [
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_2_2",
        f"Parameters: {numbers}",
        "FixedParameters: 0 0",
    ]
    return "\n".join(lines) + "\n"


def _format_napari_transform(affine: core.Affine, _: StoredTransform) -> str:
    rows = [*_get_matrix_rows(affine), [0.0, 0.0, 1.0]]
    return "".join(",".join(repr(float(v)) for v in row) + "\n" for row in rows)


def read_transform(path: Path) -> StoredTransform:
    """Read a transform and its images from JSON written by `write_transform`."""
    values: core.JsonObject = {}
    try:
        values = read_json_object(path)
    except core.ReadError as error:
        if error.code != "content-invalid":
            raise
    if "semsr_transform" not in values:
        msg = f"{path} is not a transform: register two images and save the transform"
        raise core.ReadError(f"{msg} (`transform_out`).", code="not-a-transform")
    if values["semsr_transform"] != _VERSION:
        version = core.shorten_value(values["semsr_transform"])
        msg = f"{path} has version {version}, but only {_VERSION} can be read"
        raise core.ReadError(f"{msg}: update napari-semsr.", code="other-version")
    try:
        return _parse_transform(values)
    except (*_DAMAGE, core.OptionError) as error:
        lack = "it lacks " if isinstance(error, KeyError) else ""
        reason = lack + str(error).rstrip(".")
        msg = f"{path} is damaged: {reason}. Copy it again, or register again."
        raise core.ReadError(msg, code="file-damaged") from error


def _parse_transform(values: core.JsonObject) -> StoredTransform:
    for key, convention in _CONVENTIONS.items():
        _check_value(key, values.get(key, convention), [convention])
    rows = np.array(values["matrix"], dtype=float)
    _check_value("shape of its matrix", rows.shape, [(2, 3)])
    transform: core.Affine | core.Elastic
    transform = affine = core.Affine.from_matrix(rows[:, :2], rows[:, 2])
    _check_value("kind", values["kind"], _KINDS)
    if values["kind"] == "elastic":
        spline = values["bspline"]
        _check_value("order of its spline", spline.get("order", _ORDER), [_ORDER])
        places = np.array([spline["origin"], spline["spacing"]], dtype=float)
        (y, x), (down, across) = places.tolist()
        coefficients = np.array(spline["coefficients"], dtype=float)
        bending = core.BSplineDisplacement((y, x), (down, across), coefficients)
        transform = core.Elastic(affine, bending)
    moving, fixed = (ImageIdentity.parse(values[side]) for side in ("from", "to"))
    quality = dict(values.get("quality") or {})
    return StoredTransform(transform, moving, fixed, quality)


def _check_value(what: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        names, got = " or ".join(map(str, allowed)), core.shorten_value(value)
        msg = f"its {what} must be {names}, got {got}"
        raise ValueError(msg)


# Landmarks as CSV: corresponding points of two images, one pair per row.
#
# The header names the columns, in any order: ``moving_y_nm``, ``moving_x_nm``,
# ``fixed_y_nm`` and ``fixed_x_nm``, or ``_px`` in place of ``_nm`` for an image whose
# positions are in pixels, counted from the centre of the first. Other columns are
# ignored, and semicolons with decimal commas are accepted, as spreadsheets write them.

_FOUR = "four finite numbers, got {} for one of them"
_COLUMNS = ("moving_y_nm", "moving_x_nm", "fixed_y_nm", "fixed_x_nm")


def read_landmarks(
    path: Path, moving: core.Micrograph, fixed: core.Micrograph
) -> tuple[core.FloatArray, core.FloatArray]:
    """Read landmark positions ``(y, x)`` (N, 2) in the moving and fixed images.

    The table is from `write_landmarks`, or in pixels, which are converted to nm by
    pixel size and origin of the images; positions stay in pixels for images without a
    pixel size.
    """
    sheet = read_sheet(path, "landmarks")
    sides: list[core.FloatArray] = []
    for side, image in (("moving", moving), ("fixed", fixed)):
        pairs = {
            unit: [f"{side}_{axis}_{unit}" for axis in "yx"] for unit in ("nm", "px")
        }
        units = [unit for unit in pairs if {*pairs[unit]} <= {*sheet.names}]
        if not units:
            sheet.raise_other_header(path, f"{','.join(_COLUMNS)} (or _px for _nm)")
        if units[0] == "nm" and image.pixel_size_nm is None:
            msg = f"{image.name} has no pixel size: set it, or use px in {path}."
            raise core.ReadError(msg, code="pixel-size-missing")
        places = []
        for line, row in sheet.rows:
            cells = dict(zip(sheet.names, row, strict=False))
            here, where = pairs[units[0]], f"{path} line {line}"
            numbers = (sheet.parse_number(cells.get(n, ""), where, _FOUR) for n in here)
            places.append([*numbers])
        points = np.array(places, dtype=float).reshape(-1, 2)
        is_nm = units[0] == "nm"
        sides.append(points if is_nm else points * image.scale + image.origin)
    return sides[0], sides[1]


def write_landmarks(
    path: Path,
    moving: core.FloatArray,
    fixed_places: core.FloatArray,
    *,
    units: Sequence[str] = ("nm", "nm"),
) -> None:
    """Write pairs of landmarks ``(y, x)`` (N, 2) atomically.

    `units`: those of the moving and of the fixed image, ``"nm"`` or ``"px"``.
    """
    columns = [f"{name[:-2]}{units[n // 2]}" for n, name in enumerate(_COLUMNS)]
    rows = np.hstack([moving, fixed_places]).tolist()
    cells = ([f"{value:.6f}" for value in row] for row in rows)
    write_csv(path, [columns, *cells])


# JSON calibration files, written by `semsr calibrate` and read by other commands.
#
# Only ``pixel_size_nm`` and ``pixel_size_sd_nm`` are required, one number or ``(y, x)``
# each, so that a file can be written by hand. A ``distortion`` needs its
# ``distortion_sd`` and the ``shape`` to whose rim it refers.

_KEY = "calibration"


def write_calibration(
    path: Path, calibration: core.Calibration | core.BarCalibration
) -> None:
    """Write a calibration as JSON, overwriting any existing file."""
    with replace_atomically(path) as place:
        text = json.dumps(asdict(calibration), indent=1)
        place.write_text(text + "\n", encoding="utf-8")


def read_calibration(
    path: Path,
) -> tuple[core.FloatPair, core.FloatPair, core.FieldDistortion | None]:
    """Read a pixel size ``(y, x)`` in nm, its standard deviation, and the distortion.

    The file is from `write_calibration`, or written by hand; None without distortion.
    """
    values = read_json_object(path)
    names = ("pixel_size_nm", "pixel_size_sd_nm")
    try:
        size, spread = (
            ReadOptions.parse({"pixel_size_nm": values[name]}).pixel_size_nm
            for name in names
        )
    except (TypeError, KeyError, core.OptionError):
        size = spread = None
    if size is None or spread is None:
        what = f"{path} must contain {' and '.join(names)} as positive numbers"
        msg = f"{what}: use a file written by `calibrate()`."
        raise core.ReadError(msg, code="content-invalid")
    texts = {"amount": values.get("distortion"), "sd": values.get("distortion_sd")}
    if texts["amount"] is None:
        return size, spread, None
    more = {"shape": values.get("shape"), "centre_px": values.get("centre_px")}
    texts |= {name: value for name, value in more.items() if value is not None}
    try:
        return size, spread, core.FieldDistortion.parse(texts)
    except core.OptionError as error:
        msg = f"{path} has an invalid distortion: use a file written by `calibrate()`."
        raise core.ReadError(msg, code="content-invalid") from error


def apply_calibration(
    values: Mapping[str, object], models: Iterable[type[core.Options]]
) -> dict[str, object]:
    """Replace the option `calibration` with the values from its file, if set.

    ``pixel_size_nm`` and ``pixel_size_sd_nm`` replace ``calibration``, and
    ``known_distortion`` if one of the models has it. If no option set has the error of
    a pixel size, the calibration remains as an unknown option.
    """
    all_values = dict(values)
    takes = any("pixel_size_sd_nm" in model.model_fields for model in models)
    path = all_values.pop(_KEY, None) if takes else None
    if path is None:
        return all_values
    if all_values.get("pixel_size_nm") is not None:
        msg = "Set a calibration or a pixel size, not both."
        raise core.OptionError(msg, code="options-contradict")
    size, spread, distortion = read_calibration(Path(str(path)))
    all_values |= {"pixel_size_nm": size, "pixel_size_sd_nm": spread}
    if any("known_distortion" in model.model_fields for model in models):
        all_values["known_distortion"] = distortion
    return all_values
