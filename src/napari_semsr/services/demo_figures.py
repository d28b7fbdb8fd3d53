"""The numbers of the demonstration, for a machine to read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.frc_map import FrcMap
from napari_semsr.services.demo_scan import ScanHalf
from napari_semsr.services.demo_sem import Half
from napari_semsr.services.results import jsonable

__all__ = ["distance_rms", "figures_of", "scan_figures"]


def scan_figures(half: ScanHalf) -> dict[str, Any]:
    """Collect the numbers of the stitching.

    Parameters
    ----------
    half : ScanHalf
        The first half.

    Returns
    -------
    dict
        Frames, joints and positions against the truth.
    """
    placement = half.placement
    return {
        **half.stitched.to_json(),
        "placed": int(placement.placed.sum()),
        "nominal_error_px": distance_rms(placement.nominal_error_px),
        "solved_error_px": distance_rms(placement.solved_error_px),
        "expected_error_px": distance_rms(half.stitched.solution.sigma_px),
        "measured_part": jsonable(half.box),
    }


def distance_rms(steps_px: NDArray[np.float64]) -> float:
    """Root mean square length of steps.

    Parameters
    ----------
    steps_px : (N, 2) numpy.ndarray
        NaN is left away.

    Returns
    -------
    float
        In px.
    """
    return float(np.sqrt(np.nanmean((steps_px**2).sum(axis=1))))


def figures_of(half: Half) -> dict[str, Any]:
    """Collect the numbers of one half.

    Parameters
    ----------
    half : Half
        What was made and measured.

    Returns
    -------
    dict
        By version and kind, for a machine to read.
    """
    measured = half.measured
    keys = (
        *("psnr_db", "ssim", "nrmse"),
        *("average_gradient", "contrast", "spatial_frequency"),
    )
    return {
        "versions_of_the_field": {
            item.label: {
                **{key: getattr(item.metrics, key) for key in keys},
                "resolution_nm": item.cross and item.cross.resolution_nm,
                "reason": item.cross and item.cross.reason,
            }
            for item in measured.versions()
        },
        "two_exposures": {
            "resolution_nm": measured.pair.resolution_nm,
            "interval_nm": measured.pair.interval_nm,
            "reason": measured.pair.reason,
        },
        "maps": {
            "two_exposures": _map_figures(measured.map_pair),
            "degraded_against_truth": _map_figures(measured.map_degraded),
            "enhanced_against_truth": _map_figures(measured.map_enhanced),
        },
        "enhance": half.made.to_json(),
    }


def _map_figures(found: FrcMap) -> dict[str, Any]:
    """Numbers of one map."""
    return {
        "blocks": found.blocks,
        "failed": found.failed,
        "median_nm": found.median_nm,
        "p10_nm": found.p10_nm,
        "p90_nm": found.p90_nm,
        "reasons": found.reason_counts,
    }
