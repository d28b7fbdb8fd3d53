"""What every function of the Python interface takes, and how it is made of keywords."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.options import Options
from napari_semsr.core.progress import Progress

__all__ = ["PathLike", "Report", "Source", "as_optional", "as_source", "parse_each"]

PathLike = str | os.PathLike[str]
Source = Micrograph | NDArray[Any] | PathLike
Report = Callable[[Progress], None]


def parse_each(options: Mapping[str, Any], *models: type[Options]) -> tuple[Any, ...]:
    """Give each model the options that it knows, and refuse those that none knows.

    Parameters
    ----------
    options : mapping
        Keywords of a call.
    *models : type of Options
        Models that share them.

    Returns
    -------
    tuple of Options
        One for each model.

    Raises
    ------
    OptionError
        If no model knows a name, or a value is out of range.
    """
    known = {name for model in models for name in model.model_fields}
    unknown = sorted(set(options) - known)
    if unknown:
        msg = f"Options are {', '.join(sorted(known))}, got {', '.join(unknown)}."
        raise OptionError(msg)
    return tuple(
        model.parse({k: v for k, v in options.items() if k in model.model_fields})
        for model in models
    )


def as_source(image: Source) -> Micrograph | PathLike:
    """Wrap an array as an uncalibrated micrograph.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray or path
        What a caller gave.

    Returns
    -------
    Micrograph or path
        What a job takes.
    """
    return Micrograph(image) if isinstance(image, np.ndarray) else image


def as_optional(image: Source | None) -> Micrograph | PathLike | None:
    """Wrap an array that may be left out.

    Parameters
    ----------
    image : Micrograph, (Y, X) numpy.ndarray, path or None
        What a caller gave.

    Returns
    -------
    Micrograph, path or None
        What a job takes.
    """
    return None if image is None else as_source(image)
