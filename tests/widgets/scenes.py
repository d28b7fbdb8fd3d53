"""Small scenes for tests of panels."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_semsr.core.micrograph import INSTRUMENT_KEY, Micrograph, parse_pixel_size
from napari_semsr.core.progress import Job, Progress
from napari_semsr.widgets.enhance.panel import EnhancePanel


def create_classical(viewer: Any, **options: object) -> EnhancePanel:
    """An Enhance panel at the Wiener filter, which is quick and needs no torch."""
    panel = EnhancePanel(viewer)
    panel.model.show_model("classical: wiener")
    panel.classical.set_values(**options)
    return panel


class Endless:
    """A job without an end that notes whether its generator was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.begun = threading.Event()

    def __call__(self) -> Job[None]:
        try:
            while True:
                self.begun.set()
                time.sleep(0.005)
                yield Progress(0, 0, "working")
        finally:
            self.closed.set()


def one_per_axis(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The first of every axis, and that with each of the others of one axis."""
    first = tuple(axis[0] for axis in axes)
    return [first] + [
        (*first[:at], value, *first[at + 1 :])
        for at, axis in enumerate(axes)
        for value in axis[1:]
    ]


def grain(shape: tuple[int, int] = (192, 192), *, seed: int = 0) -> np.ndarray:
    """Smooth random grain with detail of about six pixels, around 0.5."""
    rng = np.random.default_rng(seed)
    rows = np.fft.fftfreq(shape[0])[:, None]
    columns = np.fft.rfftfreq(shape[1])[None]
    low = np.exp(-((rows**2 + columns**2) / (2 * 0.1**2)))
    noise = np.fft.rfft2(rng.standard_normal(shape))
    made = np.fft.irfft2(noise * low, s=shape)
    return (0.5 + 0.15 * made / made.std()).astype(np.float32)


def edges(shape: tuple[int, int] = (96, 96), *, seed: int = 0) -> np.ndarray:
    """Grain of two grey levels, from whose edges a blur can be estimated."""
    return (grain(shape, seed=seed) > 0.5).astype(np.float32)


def exposures_of(
    shape: tuple[int, int] = (192, 192), *, sharp: bool = False
) -> tuple[Micrograph, Micrograph]:
    """One field with independent noise in two exposures, 10 nm pixels.

    `sharp`: of two grey levels, so that a blur can be estimated from its edges.
    """
    truth = edges(shape) if sharp else grain(shape)
    rng = np.random.default_rng(1)

    def expose(name: str) -> Micrograph:
        noise = rng.normal(0, 0.05, truth.shape).astype(np.float32)
        metadata = {INSTRUMENT_KEY: "sem"}
        return Micrograph(
            truth + noise, parse_pixel_size(10.0), name, metadata=metadata
        )

    return expose("first"), expose("second")
