"""Frames on the disk: in files of their own, pages of one file, or some of these."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.acquisition import Frames
from napari_semsr.core.errors import ReadError
from napari_semsr.io import registry

__all__ = ["ChosenFrames", "FileFrames", "PageFrames"]


@dataclass(frozen=True, slots=True)
class FileFrames:
    """Frames in files of their own, all of one shape and type.

    Attributes
    ----------
    paths : tuple of pathlib.Path
        One for each frame.
    shape : tuple of int
        Frames, rows and columns.
    dtype : numpy.dtype
        Type of the grey values.
    """

    paths: tuple[Path, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, index: int) -> NDArray[Any]:
        """Read one frame.

        Parameters
        ----------
        index : int
            Which, from 0.

        Returns
        -------
        (Y, X) numpy.ndarray
            Its grey values.
        """
        return _array(self.paths[index], None, self.shape[1:], self.dtype)


@dataclass(frozen=True, slots=True)
class PageFrames:
    """Frames that are pages of one file.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    shape : tuple of int
        Frames, rows and columns.
    dtype : numpy.dtype
        Type of the grey values.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, index: int) -> NDArray[Any]:
        """Read one frame.

        Parameters
        ----------
        index : int
            Which, from 0.

        Returns
        -------
        (Y, X) numpy.ndarray
            Its grey values.
        """
        return _array(self.path, index, self.shape[1:], self.dtype)


@dataclass(frozen=True, slots=True)
class ChosenFrames:
    """Some of many frames.

    Attributes
    ----------
    whole : Frames
        All of them.
    chosen : tuple of int
        Which are taken.
    """

    whole: Frames
    chosen: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        return (len(self.chosen), *self.whole.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the grey values."""
        return self.whole.dtype

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, index: int) -> NDArray[Any]:
        """Read one frame.

        Parameters
        ----------
        index : int
            Which of the chosen ones.

        Returns
        -------
        (Y, X) numpy.ndarray
            Its grey values.
        """
        return self.whole.read(self.chosen[index])


def _array(
    path: Path, plane: int | None, shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Read one image that must still be what it was when the scan was opened."""
    image = registry.read(path, plane=plane)
    if image.shape != shape or image.dtype != dtype:
        msg = (
            f"{path} must be {shape[0]}x{shape[1]} {dtype} as when the scan was "
            f"opened, but is {image.shape[0]}x{image.shape[1]} {image.dtype} now: open "
            "it again."
        )
        raise ReadError(msg)
    return image.array()
