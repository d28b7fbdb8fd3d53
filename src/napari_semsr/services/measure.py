"""The measuring jobs, one name each: what panels, commands and scripts call."""

from napari_semsr.services.measure_frc import FrcReport, frc_job
from napari_semsr.services.measure_grey import (
    HistogramReport,
    MetricsReport,
    histogram_job,
    metrics_job,
)
from napari_semsr.services.measure_map import FrcMapReport, frc_map_job
from napari_semsr.services.measure_spectrum import SpectrumReport, spectrum_job

__all__ = [
    "FrcMapReport",
    "FrcReport",
    "HistogramReport",
    "MetricsReport",
    "SpectrumReport",
    "frc_job",
    "frc_map_job",
    "histogram_job",
    "metrics_job",
    "spectrum_job",
]
