"""Small scenes for tests of panels."""

import numpy as np

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size


def grain(shape: tuple[int, int] = (192, 192), *, seed: int = 0) -> np.ndarray:
    """Smooth random grain with detail of about six pixels, around 0.5."""
    rng = np.random.default_rng(seed)
    rows = np.fft.fftfreq(shape[0])[:, None]
    columns = np.fft.rfftfreq(shape[1])[None]
    low = np.exp(-((rows**2 + columns**2) / (2 * 0.1**2)))
    noise = np.fft.rfft2(rng.standard_normal(shape))
    made = np.fft.irfft2(noise * low, s=shape)
    return (0.5 + 0.15 * made / made.std()).astype(np.float32)


def exposures_of(shape: tuple[int, int] = (192, 192)) -> tuple[Micrograph, Micrograph]:
    """One field with independent noise in two exposures, 10 nm pixels."""
    truth = grain(shape)
    rng = np.random.default_rng(1)

    def expose(name: str) -> Micrograph:
        noise = rng.normal(0, 0.05, truth.shape).astype(np.float32)
        return Micrograph(truth + noise, parse_pixel_size(10.0), name)

    return expose("first"), expose("second")
