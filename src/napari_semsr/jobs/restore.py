"""Restore an image by a classical method, tile by tile."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from napari_semsr import core, io
from napari_semsr.jobs import images, verb
from napari_semsr.restoration import (
    RestoreOptions,
    Restorer,
    parse_psf,
    prepare_restoration,
)

# Blur from a file: a point-spread function, or a simulated microscope.

_FWHM_PER_SIGMA = 2.354820045
_REACH = 3.0  # radius of the diffraction rings, in widths; chosen: 95 % of the light


def _read_psf(text: str, image: core.Micrograph) -> tuple[str, core.Micrograph | None]:
    """Read a PSF file, or derive the PSF from the JSON file of a microscope."""
    choice = parse_psf(text)
    if choice.kind != "file":
        return text, None
    if Path(choice.path).suffix.lower() != ".json":
        return text, images.open_image(choice.path)
    kernel_record = io.read_json_object(Path(choice.path))
    try:
        width_px = float(kernel_record["psf_fwhm_px"])
        pixel_nm = float(kernel_record["pixel_size_nm"][0])
        is_valid = 0 < width_px < np.inf and 0 < pixel_nm < np.inf
    except (KeyError, TypeError, ValueError, IndexError):
        is_valid = False
    if not is_valid or kernel_record.get("optics", "gaussian") not in (
        "gaussian",
        "pupil",
    ):
        msg = (
            "The microscope file must define psf_fwhm_px, a known pixel_size_nm, and "
            "optics pupil or gaussian, like truth/microscope.json of a calibrated "
            f"simulation, but {choice.path} does not: set the blur width instead, for "
            "example `psf=1.3px`."
        )
        raise core.OptionError(msg, code="missing-value")
    if kernel_record.get("optics") != "pupil":
        return f"{width_px * pixel_nm / _FWHM_PER_SIGMA!r}nm", None
    size = image.pixel_size_nm or (pixel_nm, pixel_nm)
    # in focus, on the axis of the simulated microscope
    from napari_semsr.simulation import OPTICS, MicroscopeOptions, compute_psf

    optics = MicroscopeOptions.parse(
        {k: kernel_record[k] for k in OPTICS if k in kernel_record}
    )
    if not np.isclose(*size):
        msg = (
            f"The PSF of a microscope requires square pixels, got {size[0]:g} x "
            f"{size[1]:g} nm."
        )
        raise core.OptionError(msg, code="pixels-not-square")
    side = 2 * int(np.ceil(_REACH * optics.fwhm_nm / size[0])) + 1
    kernel = compute_psf(optics, [(0.0, 1.0)], size[0], side, box_px=pixel_nm / size[0])
    return text, core.Micrograph(
        kernel, core.parse_pixel_size(size), Path(choice.path).name
    )


_TILES = "Restoring tiles"
_ESTIMATE_WARNING = (  # given once: the width of the blur differs between planes
    "The blur was estimated from the image, which cannot distinguish blur from a "
    "smooth sample: set `psf` if the blur is known, or use Richardson-Lucy, which is "
    "less sensitive to errors in the estimate."
)


_METHODS = core.get_display(RestoreOptions.model_fields["method"]).choices or {}
METHOD_CALLED = {method: label for label, method in _METHODS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredFile(images.ImageResult):
    """Result of a restoration.

    `parameters` are those of the method: the blur, the noise, iterations, the halo,
    and whether tiles equal the untiled result (`exact`), or by how much they may differ
    (`tolerance`, relative to the range of grey values); for a stack, those of its first
    plane.
    """

    method: str
    parameters: dict[str, Any]
    tiles: Annotated[int, core.Quantity("Tiles")]
    provenance: core.Provenance = field(metadata={"json": False})

    @property
    def method_text(self) -> Annotated[str, core.Quantity("Method")]:
        """Name of the method."""
        return METHOD_CALLED[self.method]

    @property
    def blur(self) -> Annotated[str, core.Quantity("Blur")]:
        """Source of the blur, its standard deviation, and the origin of a file."""
        psf = self.parameters["psf"]
        y, x = psf["sigma_px"]
        width = f"{y:.2f} px" if y == x else f"{y:.2f} px down, {x:.2f} px across"
        text = f"{psf['kind']}, {width}"
        if "origin_px" in psf:
            down, across = psf["origin_px"]
            text += f", origin at ({down:.2f}, {across:.2f}) px of the file"
        if psf.get("background"):
            text += f", without its background of {psf['background']:.1%} of the peak"
        return text

    @property
    def noise(
        self,
    ) -> Annotated[float | None, core.Quantity("Noise", core.LEVELS, ".3g")]:
        """Standard deviation of the noise, if the method uses it."""
        return self.parameters.get("noise_std")

    @property
    def iterations(self) -> Annotated[int | None, core.Quantity("Iterations")]:
        """Number of iterations, if any."""
        return self.parameters.get("iterations")

    @property
    def halo_px(self) -> Annotated[int, core.Quantity("Halo of a tile", "px")]:
        """Context margin of a tile in pixels."""
        return int(self.parameters["halo_px"])

    @property
    def against_whole(self) -> Annotated[str, core.Quantity("Tiles against whole")]:
        """Largest possible difference between the tiled and the untiled result."""
        if self.parameters["exact"]:
            return "equal"
        return f"{self.parameters['tolerance']:.1e} of the range"


def _summarise_planes(results: Sequence[RestoredFile]) -> dict[str, object]:
    """Combine the results of the planes of a stack."""
    return {
        "tiles": sum(item.tiles for item in results),
        "clipped": sum(item.clipped for item in results),
    }


@verb.command(
    title="restoration",
    opens=False,
    resumes=True,
    sum_up=_summarise_planes,
)
def restore(
    run: verb.Run[RestoreOptions],
    image: Annotated[
        images.Image,
        verb.ImageInput(
            help="the grey image to restore", label="Layer", stack=True, several=True
        ),
    ],
    output: Annotated[Path | None, verb.IMAGE_OUT],
    options: RestoreOptions,
) -> core.Job[RestoredFile]:
    """Deblur by a classical method: Wiener, Richardson-Lucy and others.

    Examples
    --------
    >>> y, x = np.mgrid[:64, :64]
    >>> soft = 1 / (1 + np.exp((np.hypot(y - 32, x - 32) - 16) / 2))
    >>> sharp = semsr.restore(
    ...     soft, method="richardson-lucy", psf="2px", pixel_size_nm=10
    ... )
    >>> [round(float(np.diff(edge).max()), 2) for edge in (soft, sharp.array())]
    [0.12, 0.16]
    """
    yield core.Progress(0, 0, f"reading {images.get_image_name(image)}")
    source = run.open_image()
    restorer, parameters, provenance = yield from _prepare_restoration(run, source)
    plan = restorer.create_plan(source.shape)
    dtype, image_made = np.dtype(options.dtype or np.float32), None
    about = source.replace(provenance=provenance)
    shape: tuple[int, ...] = about.shape
    kind = str(dtype)
    if output is None:
        data, clipped_total = np.empty(about.shape, dtype), 0
        step = core.Progress(0, len(plan), _TILES)
        for tile, values in restorer.restore_tiles(source.data, plan):
            if values is not None:
                data[tile.core.slices], clipped_part = core.convert_dtype(values, dtype)
                clipped_total += clipped_part
                step = replace(step, done=step.done + 1)
            yield step
        more = {**about.metadata, "restore": parameters}
        image_made = about.replace(data=data, metadata=more)
    else:

        def create_store(place: Path) -> io.OmeZarrStore:
            how: dict[str, object] = {"dtype": dtype, "chunk": plan.core}
            return run.existing.open_store(about, place, output, **how)

        def fill_store(store: io.OmeZarrStore) -> core.Job[int]:
            pieces = restorer.restore_tiles(source.data, plan, store.pending_units())
            values = (values for _, values in pieces)
            clipped_total = yield from store.fill(values, _TILES)
            if not store.is_complete:
                store.write_note("restore", parameters)
            return clipped_total

        kept_store = io.get_output_store_path(output, resume=run.existing.resume)
        written_file = yield from io.write_blocks(
            output, create_store, fill_store, kept_store=kept_store
        )
        shape, kind = written_file.shape, written_file.dtype
        clipped_total = written_file.result
    return RestoredFile(
        output=run.output,
        shape=shape,
        dtype=kind,
        clipped=clipped_total,
        image=image_made,
        method=options.method,
        parameters=parameters,
        tiles=len(plan),
        **verb.get_pixel_size_fields(source),
        provenance=provenance,
    )


def _prepare_restoration(
    run: verb.Run[RestoreOptions], source: core.Micrograph
) -> core.Job[tuple[Restorer, dict[str, Any], core.Provenance]]:
    """Measure blur and noise of an image."""
    options = run.options
    psf_given, kernel = _read_psf(options.psf, source)
    restorer = yield from prepare_restoration(
        source, options.replace(psf=psf_given), kernel
    )
    if restorer.psf.kind == "estimated" and restorer.taps is not None:
        core.warn(_ESTIMATE_WARNING, "blur-estimated")
    tolerance = yield from restorer.measure_tolerance(
        source.data, restorer.create_plan(source.shape)
    )
    guides: list[core.InputRecord] = []
    more: dict[str, Any] = {}
    if parse_psf(options.psf).kind == "file":
        # not an input: two images that share it are not related
        guides.append(images.record_file(options.psf, "psf"))
        more["psf_digest"] = guides[0].digest
    provenance = yield from run.compose_history(*guides, **more)
    parameters = images.to_json_value(
        {**restorer.get_parameters(), "tolerance": tolerance}
    )
    return restorer, parameters, provenance
