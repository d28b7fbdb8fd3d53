"""Say what a file is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.core.errors import ReadError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.opening import OpenOptions
from napari_semsr.services.results import Result, jsonable

__all__ = ["Description", "describe"]


@dataclass(frozen=True, slots=True)
class Description(Result):
    """What a file is.

    Attributes
    ----------
    path : str
        The file.
    facts : dict
        Shape, dtype, pixel size, vendor, levels, data bar and metadata.
    """

    path: str
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the facts as one flat record.

        Returns
        -------
        dict
            The facts, and the path.
        """
        return {"path": self.path, **self.facts}


def describe(
    path: str | Path, *, options: OpenOptions | None = None
) -> Job[Description]:
    """Look into a file without reading its pixels.

    Parameters
    ----------
    path : path
        An image, a store or a folder of frames.
    options : OpenOptions, optional
        Only its pixel size is used: it overrides the file's.

    Returns
    -------
    Description
        What the file is.

    Yields
    ------
    Progress
        One step.

    Raises
    ------
    ReadError
        If it cannot be read.
    """
    from napari_semsr.io import registry

    yield Progress(0, 1, f"reading {Path(path).name}")
    if not Path(path).exists():
        msg = f"There is no file {path}; check the name."
        raise ReadError(msg)
    facts = jsonable(registry.describe(Path(path)))
    if options is not None and options.pixel_size_nm is not None:
        facts["pixel_size_nm"] = list(options.pixel_size_nm)
    yield Progress(1, 1, "done")
    return Description(path=str(path), facts=facts)
