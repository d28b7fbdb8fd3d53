"""A frames folder as the services see it: opened by options, digested for records."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_semsr.core.acquisition import Acquisition
from napari_semsr.core.errors import SemsrError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.provenance import Provenance, digest_path

if TYPE_CHECKING:
    from napari_semsr.services.stitch import StitchFolderOptions

__all__ = ["digest_scan", "first_history", "open_scan"]


def open_scan(
    folder: Path,
    *,
    positions: Path | None = None,
    options: "StitchFolderOptions | None" = None,
) -> Job[Acquisition]:
    """Open the frames of a scan with what the user says of it.

    Parameters
    ----------
    folder : pathlib.Path
        Frames folder, or one file of many pages.
    positions : pathlib.Path, optional
        Table of nominal positions, in place of the folder's own.
    options : StitchFolderOptions, optional
        Grid, order, overlap and pixel size override what the folder says.

    Returns
    -------
    Acquisition
        The frames, read when needed.

    Yields
    ------
    Progress
        While frames are opened.
    """
    from napari_semsr.io.frames import open_frames

    yield Progress(0, 0, f"opening the frames of {folder.name}")
    names = ("grid", "order", "overlap", "pixel_size_nm")
    said = {} if options is None else {n: getattr(options, n) for n in names}
    return (yield from open_frames(folder, positions=positions, **said))


def digest_scan(folder: Path, acquisition: Acquisition) -> str:
    """Digest the files of a scan: its frames and its tables.

    Parameters
    ----------
    folder : pathlib.Path
        Frames folder, or one file of many pages.
    acquisition : Acquisition
        The same, opened; its names may be paths below the folder.

    Returns
    -------
    str
        ``sha256:`` and the digest in hexadecimal.
    """
    if folder.is_file():
        return digest_path(folder)
    items = {p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
    items |= {folder / n for n in acquisition.names if (folder / n).exists()}
    digest = hashlib.sha256()
    for item in sorted(items):
        digest.update(item.relative_to(folder).as_posix().encode())
        digest.update(digest_path(item).encode())
    return f"sha256:{digest.hexdigest()}"


def first_history(folder: Path, acquisition: Acquisition) -> Provenance | None:
    """History that the first frame itself carries, for all of them.

    Parameters
    ----------
    folder : pathlib.Path
        Frames folder, or one file of many pages.
    acquisition : Acquisition
        The same, opened.

    Returns
    -------
    Provenance or None
        None where it carries none.
    """
    from napari_semsr.io.registry import read

    path = folder if folder.is_file() else folder / acquisition.names[0]
    try:
        return read(path, plane=0).provenance
    except (SemsrError, OSError):
        return None
