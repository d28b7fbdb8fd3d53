"""Preparation of images before they are cut: less noise, more edge, more contrast.

Sun et al. prepare their sets by noise reduction, edge and contrast enhancement without
naming the methods; here they are non-local means, an unsharp mask and CLAHE, in this
order, with the numbers below. A network trained on prepared HIGH images learns the
preparation too, so that it is off unless asked for, and recorded.
"""

import numpy as np
from skimage import exposure, filters, restoration

from napari_semsr.core import Micrograph, field_range, noise_level
from napari_semsr.pairing.options import PairOptions

NUMBERS: dict[str, dict[str, float]] = {
    "denoise": {"patch_px": 5, "distance_px": 6, "h_over_sigma": 0.8},
    "sharpen": {"radius_px": 2.0, "amount": 0.7},
    "equalise": {"kernel_share": 0.125, "clip_limit": 0.01},
}
"""What each step uses; chosen."""


def prepare_image(image: Micrograph, options: PairOptions) -> Micrograph:
    """Prepare an image, as a whole, in the ways that are chosen.

    In float32, on the same grey scale.
    """
    low, high = field_range(image.data, 0.1, 99.9)
    if high <= low:
        return image
    values = (image.array().astype(np.float32) - low) / (high - low)
    missing = ~np.isfinite(values)
    values[missing] = 0
    if options.denoise:
        numbers, sigma = NUMBERS["denoise"], noise_level(values)
        values = restoration.denoise_nl_means(
            values,
            patch_size=int(numbers["patch_px"]),
            patch_distance=int(numbers["distance_px"]),
            h=numbers["h_over_sigma"] * max(sigma, 1e-6),
            sigma=sigma,
            fast_mode=True,
            preserve_range=True,
        )
    if options.sharpen:
        numbers = NUMBERS["sharpen"]
        values = filters.unsharp_mask(
            values, numbers["radius_px"], numbers["amount"], preserve_range=True
        )
    if options.equalise:  # locally, between the field's percentiles
        numbers = NUMBERS["equalise"]
        values = exposure.equalize_adapthist(
            np.clip(values, 0, 1),
            kernel_size=[
                max(8, round(n * numbers["kernel_share"])) for n in values.shape
            ],
            clip_limit=numbers["clip_limit"],
        )
    values = values.astype(np.float32)
    values[missing] = np.nan
    return image.replace(data=values * np.float32(high - low) + np.float32(low))
