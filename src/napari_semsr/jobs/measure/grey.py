"""The measuring verbs of grey values: metrics against a reference, and histograms."""

import math
from dataclasses import dataclass, field

from napari_semsr.analysis import (
    Histogram,
    Metrics,
    MetricsOptions,
    measure_histogram,
    measure_metrics,
)
from napari_semsr.core import (
    FLAT,
    Curve,
    Figure,
    Job,
    Micrograph,
    Options,
    Progress,
    declared_figures,
    option,
)
from napari_semsr.jobs.images import Result
from napari_semsr.jobs.measure.offset import tell_offset
from napari_semsr.jobs.verb import ImageIn, Run, Verb

_ROWS = 16  # of a distribution that is drawn with letters
_BAR = 40  # letters of the longest


class HistogramOptions(Options):
    """How to count grey levels."""

    bins: int = option(
        256, "Histogram bins", "Number of grey-level bins.", ge=2, le=65536
    )


@dataclass(frozen=True, slots=True)
class MetricsReport(Result):
    """How an image compares with a reference."""

    images: tuple[str, ...]
    result: Metrics = field(metadata=FLAT)


@dataclass(frozen=True, slots=True)
class HistogramReport(Result):
    """Grey-level distributions of an image and, if given, a reference."""

    images: tuple[str, ...]
    result: Histogram = field(metadata=FLAT)

    def figures(self) -> dict[str, Figure]:
        """Draw the distribution of the image in a few rows above the figures."""
        edges, counts = self.result.bins, self.result.counts
        step = max(1, -(-len(counts) // _ROWS))
        sums = [int(counts[i : i + step].sum()) for i in range(0, len(counts), step)]
        fine = abs(edges).max() / (edges[1] - edges[0]) / step
        digits = max(4, 2 + math.ceil(math.log10(fine)))
        bars = {
            f"{edges[i * step]:.{digits}g}": Figure(
                "#" * max(round(count / max(sums) * _BAR), 1 if count else 0)
            )
            for i, count in enumerate(sums)
        }
        return {**bars, **declared_figures(self)}


def _compare(
    run: Run[MetricsOptions], image: Micrograph, reference: Micrograph | None
) -> Job[MetricsReport]:
    if reference is not None:
        run.tell_learnt()
        tell_offset(image, reference)
    yield Progress(1, 2, "comparing")
    result = measure_metrics(image, reference, **run.options.model_dump())
    return MetricsReport(run.names, result)


def _count(
    run: Run[HistogramOptions], image: Micrograph, reference: Micrograph | None
) -> Job[HistogramReport]:
    yield Progress(1, 2, "counting")
    result = measure_histogram(image, reference, bins=run.options.bins)
    return HistogramReport(run.names, result)


METRICS = Verb(
    "metrics",
    (
        ImageIn("image", "the image to measure"),
        ImageIn(
            "reference",
            "the truth, of the same shape; without one only sharpness is measured",
            optional=True,
        ),
    ),
    MetricsOptions,
    MetricsReport,
    _compare,
    title="comparison",
    tabled=True,
    value="result",
    gives=Metrics,
    example="""
    >>> truth = np.tile(np.linspace(0, 1, 64), (64, 1))
    >>> found = semsr.metrics(truth + 0.01, truth, data_range=1)
    >>> round(found.psnr_db, 2), round(found.ssim, 3)
    (40.0, 0.999)
    """,
)
HISTOGRAM = Verb(
    "histogram",
    (
        ImageIn("image", "an image"),
        ImageIn("reference", "another image, of any shape", optional=True),
    ),
    HistogramOptions,
    HistogramReport,
    _count,
    title="bins",
    tabled=True,
    curves=(
        Curve(
            "Grey levels",
            "bins",
            ("counts", "reference_counts"),
            "grey level",
            "share of pixels",
            shares=True,
        ),
    ),
    value="result",
    gives=Histogram,
    example="""
    >>> found = semsr.histogram(np.eye(64, dtype=np.uint8) * 255, bins=4)
    >>> found.counts.tolist()
    [4032, 0, 0, 64]
    """,
)
