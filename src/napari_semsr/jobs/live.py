"""Mosaic of in-memory frames sent by a microscope control program."""

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from napari_semsr import core, io
from napari_semsr.jobs.follow import LiveScan, list_moved_frames, open_frame_folder
from napari_semsr.jobs.images import check_image_target, write_positions
from napari_semsr.jobs.stitch import StitchedFile, StitchFolderOptions, stitch

_STEPS = 8  # steps of deferred work per frame; chosen: solutions end between frames
_TABLE = "positions.csv"
_TIFF_TYPES = ("uint8", "uint16", "float32")  # others in a .tif depend on the values


def _parse_corner(position_nm: core.FloatPair) -> core.FloatPair:
    try:
        y, x = (float(number) for number in position_nm)
    except (TypeError, ValueError, OverflowError):
        y = x = np.nan
    if not np.isfinite((y, x)).all():
        msg = (
            "A position must be two finite numbers (y, x), got "
            f"{core.shorten_value(position_nm)}."
        )
        raise core.OptionError(msg, code="positions-invalid")
    return y, x


class LiveMosaic:
    """Mosaic that grows while a microscope scans.

    Each frame is written to a folder, placed relative to the others, and fused into a
    store. `finish` then solves and fuses the folder as `stitch` does.

    Parameters
    ----------
    output : path
        The mosaic, ``.ome.zarr``, ``.ome.tif``, ``.tif`` or ``.png``.
    frames : path, optional
        Folder for the frames, new or empty; by default next to the output, with its
        name and ``.frames``.
    overwrite : bool, default=False
        Replace an existing output.
    resume : bool, default=False
        Use the frames that an interrupted scan left in the folder.
    **options : object
        Those of `stitch`, such as ``pixel_size_nm``.

    Raises
    ------
    WriteError
        If the output exists, the folder of the frames contains other files, or another
        process writes the same mosaic.
    OptionError
        If an option is unknown or out of range.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_semsr as semsr
    >>> rng = np.random.default_rng(0)
    >>> sample = rng.integers(0, 4000, (100, 220)).astype(np.uint16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with semsr.LiveMosaic(f"{folder}/m.ome.zarr", pixel_size_nm=20) as mosaic:
    ...         for x in (0, 60, 120):
    ...             doubts = mosaic.add(sample[:, x : x + 100], (0.0, 20.0 * x))
    ...     made = mosaic.finish()
    >>> made.frames, made.shape
    (3, (100, 220))
    """

    def __init__(
        self,
        output: str | Path,
        *,
        frames: str | Path | None = None,
        overwrite: bool = False,
        resume: bool = False,
        **options: object,
    ) -> None:
        self.output = check_image_target(output, overwrite=overwrite, resume=resume)
        stem = self.output.name.partition(".")[0]
        usual = self.output.with_name(f"{stem}.frames")
        self.folder = usual if frames is None else Path(frames)
        live_options = stitch.parse_options(options)
        self.options: StitchFolderOptions = live_options["options"]
        if self.options.follow:
            msg = "A mosaic of in-memory frames cannot follow a folder: omit follow."
            raise core.OptionError(msg, code="options-contradict")
        from_file = self.options.flat_field not in ("auto", "none")
        if from_file or isinstance(self.options.dark, str):
            msg = (
                "Only stitch supports a flat field or a dark frame from a file: set "
                "flat_field to auto or none, and dark to a grey level."
            )
            raise core.OptionError(msg, code="options-contradict")
        self.folder.mkdir(exist_ok=True)
        old = [path for path in core.list_folder(self.folder) if path.suffix == ".tif"]
        if old and not resume:
            msg = (
                f"The folder {self.folder} already contains frames: choose another "
                "folder with frames=, or use the existing frames with resume=True."
            )
            raise core.WriteError(msg, code="foreign-files")
        self._place = io.get_output_store_path(self.output, resume=False)
        if resume and self._place.exists():
            io.remove_target(self._place)
        self._files: io.FrameFolder = open_frame_folder(self.folder, None, self.options)
        self._scan = LiveScan(self._place, self._files.read, self.options)
        self._stated_corners: dict[str, core.FloatPair | None] = {}
        self._has_table = False  # whether it has the positions of all frames
        # frames of an interrupted scan; complete if unchanged the second time
        old_frames = [frame for _ in range(2) for frame in self._files.poll()]
        for frame in sorted(old_frames, key=lambda frame: frame.name):
            if frame.pixels is not None:
                corner = self._files.frame_corner(frame.name)
                self._stated_corners[frame.name] = corner
                self._add_frame(frame.name, frame.pixels, corner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scan.close()

    def __len__(self) -> int:
        return len(self._stated_corners)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about the frames added so far, one sentence each."""
        return tuple(self._scan.doubts)

    @property
    def positions(self) -> dict[str, core.FloatPair | None]:
        """Corner ``(y, x)`` of each frame in px, or None for an unplaced frame."""
        return self._scan.positions()

    def add(
        self,
        frame: ArrayLike,
        position_nm: core.FloatPair | None = None,
        *,
        name: str | None = None,
    ) -> tuple[str, ...]:
        """Add and place a frame, and fuse the mosaic around it.

        Parameters
        ----------
        frame : (Y, X) array_like
            Grey values; all frames have one shape and type.
        position_nm : tuple of float, optional
            Top-left corner ``(y, x)`` as the stage states it, in nm. Frames are placed
            by their images alone if one of them has none.
        name : str, optional
            File name; consecutive numbers by default. A repeated name replaces that
            frame. Files of other types than uint8, uint16 and float32 end in
            ``.ome.tif``.

        Returns
        -------
        tuple of str
            Warnings about the frame, one sentence each.

        Raises
        ------
        ShapeError
            If the frame is not (Y, X), or differs from the first in shape or type.
            It is not added; the mosaic is unchanged.
        """
        stem = f"{name or f'frame_{len(self):05d}'}".removesuffix(".tif")
        pixels = np.asarray(frame)
        kind = pixels.shape, pixels.dtype
        if pixels.ndim != 2 or pixels.dtype.kind not in "uif":
            msg = (
                "A frame must be a 2-D array (Y, X) of grey values, got shape "
                f"{kind[0]} and dtype {kind[1]}."
            )
            raise core.ShapeError(msg, code="wrong-type")
        # as its file stores it, whatever its values
        pixels = io.convert_to_ome_type(pixels, self.folder / stem)
        kind = pixels.shape, pixels.dtype
        if self._files.kind not in (None, kind):
            msg = (
                "All frames must have the shape and dtype of the first frame, "
                f"{self._files.kind}, got {kind}."
            )
            raise core.ShapeError(msg, code="frames-differ")
        corner = None if position_nm is None else _parse_corner(position_nm)
        is_plain = pixels.dtype in _TIFF_TYPES or stem.endswith(".ome")
        file_name = stem + (".tif" if is_plain else ".ome.tif")
        if Path(file_name).name != file_name:
            msg = f"A frame name must be a valid file name, got {name}."
            raise core.OptionError(msg, code="name-invalid")
        size = core.parse_pixel_size(self.options.pixel_size_nm)
        path = self.folder / file_name
        io.write(core.Micrograph(pixels, size, stem), path, overwrite=True)
        self._files.kind = kind
        is_new = file_name not in self._stated_corners
        self._stated_corners[file_name] = corner
        table = self.folder / _TABLE  # written if all frames have a position
        if self._has_table and is_new and corner is not None:
            write_positions(table, {file_name: corner}, "nm", append=True)
        else:
            self._has_table = None not in self._stated_corners.values()
            if self._has_table:
                write_positions(table, self._stated_corners, "nm")
            else:
                table.unlink(missing_ok=True)
        return self._add_frame(file_name, pixels, corner)

    def _add_frame(
        self, name: str, pixels: core.RealArray, corner: core.FloatPair | None
    ) -> tuple[str, ...]:
        size = self.options.pixel_size_nm
        doubts = self._scan.add_frame(
            name, pixels, corner, unit="nm", pixel_size_nm=core.parse_pixel_size(size)
        )
        self._scan.fuse_frame(name)
        for _ in range(_STEPS):
            if not self._scan.run_step():
                break
        return tuple(doubts)

    def finish(self) -> StitchedFile:
        """Stitch all frames as `stitch` does, replacing the growing mosaic.

        Returns
        -------
        StitchedFile
            Its `warnings` include the doubts, and frames that moved by more than 1 px.

        Raises
        ------
        ReadError
            If there are fewer than two frames.
        RegistrationError
            If no two frames can be registered.
        """
        self._scan.close()
        job = stitch.job(self.folder, self.output, options=self.options, overwrite=True)
        stitched_file = core.run(job)
        frames_moved = list_moved_frames(self._scan.positions(), stitched_file.corners)
        warnings = (*stitched_file.warnings, *self.doubts, *frames_moved)
        return replace(stitched_file, warnings=warnings)
