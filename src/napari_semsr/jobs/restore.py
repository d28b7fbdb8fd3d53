"""Restore an image by a classical method, tile by tile."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from napari_semsr.analysis import Change, measure_change
from napari_semsr.core import (
    LEVELS,
    Figure,
    FloatPair,
    InputRecord,
    Job,
    Micrograph,
    OptionError,
    Progress,
    Provenance,
    Quantity,
    declared_figures,
    display_of,
    figures_of,
    parse_pixel_size,
    to_dtype,
    warn,
)
from napari_semsr.io import (
    OmeZarrStore,
    filling_store,
    read_object,
    write_blocks,
)
from napari_semsr.jobs.enhance import overall_change
from napari_semsr.jobs.images import (
    image_in,
    jsonable,
    name_of,
    open_image,
    record_file,
)
from napari_semsr.jobs.planes import run_by_plane
from napari_semsr.jobs.verb import ImageIn, ImageMade, Output, Run, Verb
from napari_semsr.restoration import (
    RestoreOptions,
    Restorer,
    choose,
    parse_psf,
)

# Blur from a file: a point-spread function, or a simulated microscope.

_FWHM_PER_SIGMA = 2.354820045
_REACH = 3.0  # radius of the diffraction rings, in widths; chosen: 95 % of the light


def _read_psf(text: str, image: Micrograph) -> tuple[str, Micrograph | None]:
    """Read the file of a blur; a JSON file gives its width."""
    choice = parse_psf(text)
    if choice.kind != "file":
        return text, None
    if Path(choice.path).suffix.lower() != ".json":
        return text, open_image(choice.path)
    kernel_record = read_object(Path(choice.path))
    try:
        width_px, pixel_nm = (
            float(kernel_record["psf_fwhm_px"]),
            float(kernel_record["pixel_size_nm"][0]),
        )
        is_valid = 0 < width_px < np.inf and 0 < pixel_nm < np.inf
    except (KeyError, TypeError, ValueError, IndexError):
        is_valid = False
    if not is_valid or kernel_record.get("optics", "gaussian") not in (
        "gaussian",
        "pupil",
    ):
        msg = (
            "The file of a microscope must have psf_fwhm_px, a known pixel_size_nm, "
            "and optics pupil or gaussian, as truth/microscope.json of a calibrated "
            f"simulation; {choice.path} does not: set the width of the blur, such as "
            "`psf=1.3px`."
        )
        raise OptionError(msg, code="missing-value")
    if kernel_record.get("optics") != "pupil":
        return f"{width_px * pixel_nm / _FWHM_PER_SIGMA!r}nm", None
    size = image.pixel_size_nm or (pixel_nm, pixel_nm)
    return text, _pupil_psf(kernel_record, size, pixel_nm, choice.path)


def _pupil_psf(
    record: dict[str, object], size: FloatPair, pixel_nm: float, name: str
) -> Micrograph:
    """Return the point-spread function of a simulated microscope, in focus, on axis.

    `size`: pixel size of the image to restore; `pixel_nm`: of the camera.
    """
    from napari_semsr.simulation import OPTICS, MicroscopeOptions, point_spread

    optics = MicroscopeOptions.parse({k: record[k] for k in OPTICS if k in record})
    if not np.isclose(*size):
        msg = f"A microscope needs square pixels, got {size[0]:g} x {size[1]:g} nm."
        raise OptionError(msg, code="pixels-not-square")
    side = 2 * int(np.ceil(_REACH * optics.fwhm_nm / size[0])) + 1
    kernel = point_spread(
        optics, [(0.0, 1.0)], size[0], side, box_px=pixel_nm / size[0]
    )
    return Micrograph(kernel, parse_pixel_size(size), Path(name).name)


_TILES = "Restoring tiles"
_ESTIMATE_WARNING = (  # given once: the width of the blur differs between planes
    "The blur was estimated, which cannot distinguish blur from a smooth sample; "
    "set `psf` if it is known, or use Richardson-Lucy, which is less sensitive to "
    "it."
)


METHOD_CALLED = {
    method: called
    for called, method in (
        display_of(RestoreOptions.model_fields["method"]).choices or {}
    ).items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredFile(ImageMade):
    """Result of a restoration.

    `parameters` are those of the method: the blur, the noise, iterations, the halo,
    and whether tiles equal the untiled result (`exact`), or by how much they may differ
    (`tolerance`, relative to the range of grey values); for a stack, those of its first
    plane.
    """

    method: str
    parameters: dict[str, Any]
    tiles: Annotated[int, Quantity("Tiles")]
    provenance: Provenance = field(metadata={"json": False})
    change: Change | None = None

    @property
    def called(self) -> Annotated[str, Quantity("Method")]:
        """Name of the method."""
        return METHOD_CALLED[self.method]

    @property
    def blur(self) -> Annotated[str, Quantity("Blur")]:
        """Source of the blur, and its standard deviation."""
        y, x = self.parameters["psf"]["sigma_px"]
        width = f"{y:.2f} px" if y == x else f"{y:.2f} px down, {x:.2f} px across"
        return f"{self.parameters['psf']['kind']}, {width}"

    @property
    def noise(self) -> Annotated[float | None, Quantity("Noise", LEVELS, ".3g")]:
        """Standard deviation of the noise, if the method uses it."""
        return self.parameters.get("noise_std")

    @property
    def iterations(self) -> Annotated[int | None, Quantity("Iterations")]:
        """Number of iterations, if any."""
        return self.parameters.get("iterations")

    @property
    def halo_px(self) -> Annotated[int, Quantity("Halo of a tile", "px")]:
        """Context margin of a tile in pixels."""
        return int(self.parameters["halo_px"])

    @property
    def against_whole(self) -> Annotated[str, Quantity("Tiles against whole")]:
        """Largest possible difference of tiles from the untiled result."""
        parameters = self.parameters
        return (
            "equal"
            if parameters["exact"]
            else f"{parameters['tolerance']:.1e} of the range"
        )

    def figures(self) -> dict[str, Figure]:
        """Return the change, and the parameters."""
        change = {} if self.change is None else figures_of(self.change)
        return change | declared_figures(self)


def _restore_plane(run: Run[RestoreOptions]) -> Job[RestoredFile]:
    """Restore one plane, in memory if it has no output."""
    restorer, parameters, provenance = yield from _prepare(run)
    source, target = run.images["image"], run.target
    plan, dtype = restorer.plan(source.shape), np.dtype(run.options.dtype or np.float32)
    values_told: dict[str, Any] = {
        "method": run.options.method,
        "parameters": parameters,
        "tiles": len(plan),
        "pixel_size_nm": source.pixel_size_nm,
        "provenance": provenance,
    }
    about = source.replace(provenance=provenance)
    if target is None:
        data, clipped_total = np.empty(about.shape, dtype), 0
        pieces = restorer.tiles(source.data, plan)
        for done_count, (tile, values) in enumerate(pieces, start=1):
            data[tile.core.slices], clipped_part = to_dtype(values, dtype)
            clipped_total += clipped_part
            yield Progress(done_count, len(plan), _TILES)
        more = {**about.metadata, "restore": parameters}
        return RestoredFile(
            output=None,
            shape=about.shape,
            dtype=str(data.dtype),
            clipped=clipped_total,
            image=about.replace(data=data, metadata=more),
            **values_told,
        )

    def make(place: Path) -> OmeZarrStore:
        how: dict[str, object] = {"dtype": dtype, "chunk": plan.core}
        return run.existing.store_of(about, place, target, **how)

    def fill(store: OmeZarrStore) -> Job[tuple[int, Change | None]]:
        pieces = restorer.tiles(source.data, plan, store.pending())
        clipped_count = yield from store.fill((values for _, values in pieces), _TILES)
        if not store.complete:
            store.note("restore", parameters)
        noise = parameters.get("noise_std")
        change = yield from measure_change(source, image_in(store), noise)
        return clipped_count, change

    kept_store = filling_store(target, resume=run.existing.resume)
    written_file = yield from write_blocks(target, make, fill, kept_store=kept_store)
    clipped_total, change = written_file.result
    return RestoredFile(
        output=str(target),
        shape=written_file.shape,
        dtype=written_file.dtype,
        clipped=clipped_total,
        change=change,
        **values_told,
    )


def _prepare(
    run: Run[RestoreOptions],
) -> Job[tuple[Restorer, dict[str, Any], Provenance]]:
    """Open an image and measure blur and noise."""
    options = run.options
    yield Progress(0, 0, f"reading {name_of(run.image_inputs['image'])}")
    run.open()
    source = run.images["image"]
    psf_given, kernel = _read_psf(options.psf, source)
    yield Progress(0, 0, "measuring blur and noise")
    restorer = choose(source, options.replace(psf=psf_given), kernel)
    if restorer.psf.kind == "estimated" and restorer.taps is not None:
        warn(_ESTIMATE_WARNING, "blur-estimated")
    tolerance = restorer.tolerance(source.data, restorer.plan(source.shape))
    guides: list[InputRecord] = []
    more: dict[str, Any] = {}
    if parse_psf(options.psf).kind == "file":
        # not an input: two images that share it are not related
        guides.append(record_file(options.psf, "psf"))
        more["psf_digest"] = guides[0].digest
    provenance = yield from run.history(*guides, **more)
    parameters = jsonable({**restorer.parameters(), "tolerance": tolerance})
    return restorer, parameters, provenance


def _sum_up(results: Sequence[RestoredFile]) -> dict[str, object]:
    """Combine the results of the planes of a stack."""
    return {
        "tiles": sum(item.tiles for item in results),
        "clipped": sum(item.clipped for item in results),
        "change": overall_change([item.change for item in results]),
    }


RESTORE = Verb(
    "restore",
    (ImageIn("image", "the grey image to restore", label="Layer", stack=True),),
    RestoreOptions,
    RestoredFile,
    run_by_plane(_restore_plane, _sum_up),
    title="restoration",
    output=Output(
        "file of the result; its suffix sets the format",
        goes_on=True,
        may_stay_in_memory=True,
    ),
    opens=False,
    resumes=True,
    example="""
    >>> y, x = np.mgrid[:64, :64]
    >>> soft = 1 / (1 + np.exp((np.hypot(y - 32, x - 32) - 16) / 2))
    >>> sharp = semsr.restore(
    ...     soft, method="richardson-lucy", psf="2px", pixel_size_nm=10
    ... )
    >>> [round(float(np.diff(edge).max()), 2) for edge in (soft, sharp.array())]
    [0.12, 0.16]
    """,
)
