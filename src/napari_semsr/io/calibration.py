"""JSON calibration files, written by `semsr calibrate` and read by other commands.

Only ``pixel_size_nm`` and ``pixel_size_sd_nm`` are required, one number or ``(y, x)``
each, so that a file can be written by hand. A ``distortion`` needs its
``distortion_sd`` and the ``shape`` to whose rim it refers.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_semsr import core
from napari_semsr.io.files import read_text, replace_atomically
from napari_semsr.io.read_image import ReadOptions

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
    try:
        values = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        text = f"{path} cannot be read as a calibration: {reason}."
        fault = core.Message(text, "content-invalid")
        raise core.ReadError(
            core.describe_access_error(path, error) or fault
        ) from error
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
        msg = (
            f"{path} must have numbers as distortion and distortion_sd, and rows and "
            "columns as shape: use a file written by `calibrate()`."
        )
        raise core.ReadError(msg, code="content-invalid") from error


def apply_calibration(
    values: Mapping[str, Any], models: Iterable[type[core.Options]]
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
    size, spread, distortion = read_calibration(Path(path))
    all_values |= {"pixel_size_nm": size, "pixel_size_sd_nm": spread}
    if any("known_distortion" in model.model_fields for model in models):
        all_values["known_distortion"] = distortion
    return all_values
