"""A simulated scan on disk: frames, tables, truth, and what was taken beside it."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from napari_semsr.core import (
    InputRecord,
    Job,
    Micrograph,
    Progress,
    Provenance,
    parse_pixel_size,
    software_versions,
)
from napari_semsr.io import move, remove_target, scratch, writing
from napari_semsr.jobs.outputs import jsonable
from napari_semsr.simulation import ScanOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_semsr.simulation import Scan

# What is asked of a simulated scan, as a user types it.


class SimulateOptions(ScanOptions):
    """A scan, and what is taken and written beside it."""

    positions: Literal["px", "nm", "none"] = Field(
        default="px",
        description="unit of the nominal positions; none writes no positions.csv",
    )
    pixel_size_error: float = Field(
        default=0.0,
        gt=-0.5,
        lt=0.5,
        description="how far the pixel size said in scan.json and in the frames is "
        "off, as a share",
    )
    exposures: int = Field(
        default=0, ge=0, description="repeated exposures of the middle field"
    )
    focal_series: int = Field(
        default=0, ge=0, description="pictures of the middle field through focus"
    )
    sem: bool = Field(
        default=False, description="an electron image of the whole area, of a phantom"
    )


MARK = Path("truth") / "microscope.json"
"""A file by which a simulated scan is known."""
_OURS = ("positions.csv", "scan.json", "truth", "exposures", "focal", "sem")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Write into a hidden folder beside the target, and swap when it is whole."""
    with writing(target), scratch(target) as place:
        place.mkdir()
        yield place
        target.mkdir(exist_ok=True)
        for old in (*target.glob("frame_*.tif"), *(target / name for name in _OURS)):
            remove_target(old)
        for new in sorted(place.iterdir()):
            move(new, target / new.name)


@dataclass(frozen=True, slots=True)
class ScanWriter:
    """Writes one scan into a folder."""

    place: Path  # The folder
    scan: "Scan"  # What is written
    options: SimulateOptions  # How it was made, and what is wanted beside it
    inputs: tuple[InputRecord, ...]  # The image that was scanned, if any

    def _image(
        self, data: Any, path: Path, *, said: bool = True, fine: bool = False
    ) -> None:
        """Write one image on the grid of the frames, or of the scene.

        Frames tell the pixel size that is said, truth tells the true one.
        """
        from napari_semsr.io import write

        scene = self.scan.scene
        size = self.scan.pixel_size_nm
        finer = scene.oversampling if fine else 1
        if size is not None:
            share = (1 + self.options.pixel_size_error) if said else 1.0
            size = parse_pixel_size([v * share / finer for v in size])
        unit = self.scan.pixel_size_nm or (1.0, 1.0)
        origin = (0.0, 0.0)
        if fine:
            origin = (scene.origin_px[0] * unit[0], scene.origin_px[1] * unit[1])
        micrograph = Micrograph(
            data,
            parse_pixel_size(size),
            path.name.partition(".")[0],
            provenance=self._provenance(),
            origin=origin,
            spacing_px=(1 / finer, 1 / finer),
        )
        path.parent.mkdir(exist_ok=True)
        write(micrograph, path)

    def _provenance(self) -> Provenance:
        """Say that a picture was computed, and from what."""
        return Provenance(
            job="simulate",
            options=self.options.model_dump(mode="json"),
            inputs=self.inputs,
            versions=software_versions(),
        )

    def frames(self) -> Iterator[Progress]:
        """Write the frames."""
        total = len(self.scan.frames)
        for index, (name, frame) in enumerate(
            zip(self.scan.names, self.scan.frames, strict=True)
        ):
            yield Progress(index, total, f"writing {name}.tif")
            self._image(frame, self.place / f"{name}.tif")

    def tables(self) -> None:
        """Write nominal positions and what the microscope says of itself."""
        options, size = self.options, self.scan.pixel_size_nm
        nominal = self.scan.nominal_px
        if options.positions == "nm" and size is not None:
            nominal = nominal * size
        if options.positions != "none":
            path = self.place / "positions.csv"
            _write_positions(path, self.scan.names, nominal, options.positions)
        share = 1 + options.pixel_size_error
        said = None if size is None else [v * share for v in size]
        record = {
            "pixel_size_nm": said[0] if said and said[0] == said[1] else said,
            "grid": list(options.frames_grid),
            "overlap": options.overlap or None,
            "order": "row" if options.order == "raster" else options.order,
            "wavelength_nm": options.wavelength_nm,
            "objective": f"{options.objective:g}x",
            "microsphere_um": options.microsphere_um,
        }
        _write_json(self.place / "scan.json", record)

    def truth(self) -> None:
        """Write positions, object, illumination and every parameter."""
        scan, folder = self.scan, self.place / "truth"
        folder.mkdir()
        _write_positions(folder / "positions.csv", scan.names, scan.true_px, "px")
        scene = scan.scene
        self._image(scene.sharp, folder / "object.ome.tif", said=False, fine=True)
        self._image(scene.seen, folder / "seen.ome.tif", said=False, fine=True)
        self._image(scan.flat, folder / "flat.ome.tif", said=False)
        if scene.surface is not None:
            height = scene.surface.height_nm
            self._image(height, folder / "height.ome.tif", said=False, fine=True)
        _write_json(folder / "microscope.json", self._parameters())

    def _parameters(self) -> dict[str, Any]:
        """Everything that shaped the frames, asked for or drawn."""
        scan, options, scene = self.scan, self.options, self.scan.scene
        per_photon = options.full_scale / options.photons if options.photons else None
        return {
            "options": options.model_dump(mode="json"),
            "source": self.inputs[0].name if self.inputs else options.phantom,
            "pixel_size_nm": scan.pixel_size_nm,
            "psf_fwhm_px": scene.fwhm_px,
            "rim": options.rim,
            "dark_counts": options.offset,
            "counts_per_photon": per_photon,
            "object_oversampling": scene.oversampling,
            "object_origin_px": scene.origin_px,
            "image_offset_px": scene.image_offset_px,
            "gains": dict(zip(scan.names, scan.gains, strict=True)),
            "bad_frames": {scan.names[i]: kind for i, kind in sorted(scan.bad.items())},
            "versions": software_versions(),
        }

    def more(self) -> Job[tuple[str, ...]]:
        """Take and write what was asked for beside the scan."""
        from napari_semsr.simulation import (
            focal_series,
            focus_range,
            repeat_exposures,
            sem_of_scan,
        )

        made = []
        if self.options.exposures:
            yield Progress(0, 0, "repeating exposures")
            taken = repeat_exposures(self.scan, self.options.exposures)
            for index, frame in enumerate(taken):
                self._image(
                    frame, self.place / "exposures" / f"exposure_{index:02d}.tif"
                )
            made.append("exposures")
        if self.options.focal_series:
            yield Progress(0, 0, "focusing")
            heights = focus_range(self.scan, self.options.focal_series)
            steps = focal_series(self.scan, heights)
            for index, step in enumerate(steps):
                name = f"focus_{index:02d}_{step.focus_nm:+.0f}nm.tif"
                self._image(step.frame, self.place / "focal" / name)
            made.append("focal")
        if self.options.sem:
            yield Progress(0, 0, "taking an electron image")
            picture = sem_of_scan(self.scan)
            path = self.place / "sem" / "sem.ome.tif"
            self._image(picture, path, said=False, fine=True)
            made.append("sem")
        return tuple(made)


def _write_positions(
    path: Path, names: tuple[str, ...], corners: "NDArray[Any]", unit: str
) -> None:
    """Write top-left corners, one row for each frame."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["frame", f"y_{unit}", f"x_{unit}"])
        for name, (y, x) in zip(names, corners, strict=True):
            writer.writerow([f"{name}.tif", f"{y:.6f}", f"{x:.6f}"])


def _write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record for people and programs."""
    text = json.dumps(jsonable(record), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
