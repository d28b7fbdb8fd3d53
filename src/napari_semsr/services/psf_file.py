"""The blur that a file tells: the image of a point, or a simulated microscope."""

import json
from pathlib import Path
from typing import Any

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.restore.psf import parse_psf
from napari_semsr.services.opening import open_image

__all__ = ["read_psf"]

_FWHM_PER_SIGMA = 2.354820045


def read_psf(text: str) -> tuple[str, Micrograph | None]:
    """Read the file of a blur, where one was named.

    Parameters
    ----------
    text : str
        What the option says.

    Returns
    -------
    asked : str
        The option, with the width in nm where the file tells it.
    kernel : Micrograph or None
        The image of a kernel.

    Raises
    ------
    ReadError, OptionError
        If the file cannot be read, or tells no blur.
    """
    choice = parse_psf(text)
    if choice.kind != "file":
        return text, None
    if Path(choice.path).suffix.lower() != ".json":
        return text, open_image(choice.path)
    told = _read_json(Path(choice.path))
    try:
        width_px, pixel_nm = float(told["psf_fwhm_px"]), float(told["pixel_size_nm"][0])
    except (KeyError, TypeError, ValueError, IndexError):
        msg = (
            "The file of a microscope must hold psf_fwhm_px and pixel_size_nm, as "
            f"truth/microscope.json of a simulation does; {choice.path} does not."
        )
        raise OptionError(msg) from None
    return f"{width_px * pixel_nm / _FWHM_PER_SIGMA!r}nm", None


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as JSON ({error}); check the name."
        raise ReadError(msg) from error
    return found if isinstance(found, dict) else {}
