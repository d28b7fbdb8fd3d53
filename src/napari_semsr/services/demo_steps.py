"""What the demonstration makes and measures, before it is put on a page."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.frc import FrcOptions, FrcResult
from napari_semsr.analysis.frc_map import FrcMap, FrcMapOptions
from napari_semsr.analysis.metrics import Metrics
from napari_semsr.analysis.spectrum import RadialSpectrum
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job

__all__ = ["Measured", "Version", "demo_paths", "estimate_wiener", "measure_all"]

_MAP_STEP = 16


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the field, measured against the truth.

    Attributes
    ----------
    label : str
        Name in tables and legends.
    image : Micrograph
        The field.
    metrics : Metrics
        Against the truth, gain and offset fitted first.
    cross : FrcResult or None
        FRC against the truth; None for the truth itself.
    spectrum : RadialSpectrum
        Radial power.
    """

    label: str
    image: Micrograph
    metrics: Metrics
    cross: FrcResult | None
    spectrum: RadialSpectrum


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of the demonstration.

    Attributes
    ----------
    truth, degraded, baseline, enhanced : Version
        The field as it is, as it was taken, and as two methods restore it.
    pair : FrcResult
        FRC of two exposures, which needs no truth.
    map_pair, map_degraded, map_enhanced : FrcMap
        Local resolution: of the exposures, and against the truth before and after.
    """

    truth: Version
    degraded: Version
    baseline: Version
    enhanced: Version
    pair: FrcResult
    map_pair: FrcMap
    map_degraded: FrcMap
    map_enhanced: FrcMap

    def versions(self) -> Iterator[Version]:
        """Give the versions in the order of tables.

        Yields
        ------
        Version
            Degraded, baseline, enhanced, truth.
        """
        yield from (self.degraded, self.baseline, self.enhanced, self.truth)


def estimate_wiener(image: Micrograph, *, sigma_px: float = 1.0) -> Micrograph:
    """Restore an image by scikit-image's unsupervised Wiener filter.

    Parameters
    ----------
    image : Micrograph
        A blurred, noisy image.
    sigma_px : float, default=1.0
        Width of the Gaussian blur, which the filter must be told.

    Returns
    -------
    Micrograph
        In float32 and the grey scale of the input.

    Notes
    -----
    The strength of the regularisation is sampled, not given [1]_; its draws are seeded.

    References
    ----------
    .. [1] F. Orieux, J.-F. Giovannelli, T. Rodet, J. Opt. Soc. Am. A 27, 1593 (2010),
       doi:10.1364/JOSAA.27.001593.
    """
    from skimage.restoration import unsupervised_wiener

    data = np.asarray(image.array(), dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    span = max(high - low, 1e-12)
    restored, _ = unsupervised_wiener(  # type: ignore[no-untyped-call]
        (data - low) / span, _gaussian(sigma_px), clip=False, rng=0
    )
    grey = (restored * span + low).astype(np.float32)
    return image.replace(data=grey, name="wiener", provenance=None)


def measure_all(
    truth: Micrograph,
    exposures: tuple[Micrograph, Micrograph],
    baseline: Micrograph,
    enhanced: Micrograph,
) -> Job[Measured]:
    """Measure every version of the field.

    Parameters
    ----------
    truth : Micrograph
        The specimen.
    exposures : tuple of Micrograph
        Two images of it with independent noise.
    baseline, enhanced : Micrograph
        Restorations of the first.

    Returns
    -------
    Measured
        All figures.

    Yields
    ------
    Progress
        Blocks of the maps.
    """
    from napari_semsr.analysis import frc, frc_map

    first, second = exposures
    pair_options = FrcMapOptions(step=_MAP_STEP)
    truth_options = FrcMapOptions(step=_MAP_STEP, reference=True)
    map_pair = yield from frc_map.frc_map(first, second, pair_options)
    map_degraded = yield from frc_map.frc_map(first, truth, truth_options)
    map_enhanced = yield from frc_map.frc_map(enhanced, truth, truth_options)
    return Measured(
        truth=_version("Truth", truth, None),
        degraded=_version("Degraded input", first, truth),
        baseline=_version("Wiener (scikit-image)", baseline, truth),
        enhanced=_version("Enhanced", enhanced, truth),
        pair=frc.frc(first, second),
        map_pair=map_pair,
        map_degraded=map_degraded,
        map_enhanced=map_enhanced,
    )


def _version(label: str, image: Micrograph, truth: Micrograph | None) -> Version:
    """Measure one version."""
    from napari_semsr.analysis import frc, metrics, spectrum

    match: Any = None if truth is None else "affine"
    against = FrcOptions(reference=True)
    return Version(
        label=label,
        image=image,
        metrics=metrics.compare(image, truth, data_range=255.0, match=match),
        cross=None if truth is None else frc.frc(image, truth, against),
        spectrum=spectrum.radial_spectrum(image),
    )


def _gaussian(sigma_px: float) -> NDArray[np.float64]:
    """Point-spread function of the blur."""
    half = max(1, round(3 * sigma_px))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    kernel: NDArray[np.float64] = np.outer(line, line)
    kernel /= kernel.sum()
    return kernel


def demo_paths(folder: Path) -> dict[str, Path]:
    """Name what the demonstration writes.

    Parameters
    ----------
    folder : pathlib.Path
        Where.

    Returns
    -------
    dict
        Paths by role.
    """
    names = {
        "truth": "truth.tif",
        "first": "exposure-1.tif",
        "second": "exposure-2.tif",
        "baseline": "wiener.tif",
        "enhanced": "enhanced.ome.zarr",
        "map": "frc-map-exposures.ome.tif",
        "map_before": "frc-map-before.ome.tif",
        "map_after": "frc-map-after.ome.tif",
        "figures": "figures.json",
        "report": "report.html",
    }
    return {role: folder / name for role, name in names.items()}
