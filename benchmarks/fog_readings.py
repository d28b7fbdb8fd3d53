"""How the possible readings of Gao et al.'s fog compare with their Table 1.

Run: ``python benchmarks/fog_readings.py`` (needs the images that the recipe names).

The paper states ``I = f exp(-beta d) + A (1 - exp(-beta d))`` with ``A = 3``, ``d = 1``
and ``beta`` between 1.5 and 2.5, random in place, and Table 1 states 25.99 dB and SSIM
0.861 for it against 26.97 dB and 0.906 for blur alone. Neither the grey scale of ``A``
nor the normalisation after it is stated. Each reading is stretched back to the mean and
standard deviation of the blurred image; SSIM has the paper's constants (K2 = 0.02).
"""

from pathlib import Path

import numpy as np
from skimage.metrics import structural_similarity

from napari_semsr.simulation import degrade as gao
from napari_semsr.training.data.scenes import load_clear
from napari_semsr.training.recipe import load_recipe

SIDE = 512
READINGS = {
    "A = 3, greys 0-255": 3.0,
    "A = 3, greys 0-1": 3.0 * 255,
    "A = white": 255.0,
    "A = mean of the image": None,
}


def psnr_db(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR of 8-bit images, as they are."""
    error = np.mean((image.astype(float) - truth) ** 2)
    return float(10 * np.log10(255**2 / error))


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """SSIM with the paper's constants."""
    return float(
        structural_similarity(
            image,
            truth,
            data_range=255,
            gaussian_weights=True,
            use_sample_covariance=False,
            K2=0.02,
        )
    )


def main() -> None:
    """Print one line for each reading."""
    recipe = load_recipe(Path("recipes/sem-restore.yaml"))
    clear = []
    for entry in recipe.data.held_out:
        image = load_clear(Path(recipe.data.root), entry)[:SIDE, :SIDE]
        clear.append(np.rint(image * 255).astype(np.uint8))
    rows = {"blur alone": [gao.degrade_plane(c, "blur").image for c in clear]}
    for name, level in READINGS.items():
        rows[name] = [
            gao.degrade_plane(c, "fog", seed=i, airlight=level).image
            for i, c in enumerate(clear)
        ]
    print(f"{'reading':24s}  PSNR/dB   SSIM   PSNR less than blur alone")
    reference = float(
        np.mean([psnr_db(a, b) for a, b in zip(rows["blur alone"], clear, strict=True)])
    )
    for name, images in rows.items():
        pairs = list(zip(images, clear, strict=True))
        decibels = float(np.mean([psnr_db(a, b) for a, b in pairs]))
        similarity = float(np.mean([ssim(a, b) for a, b in pairs]))
        less = reference - decibels
        print(f"{name:24s}  {decibels:7.2f}  {similarity:.3f}   {less:.2f}")
    print(f"{'Gao et al., blur':24s}  {26.97:7.2f}  0.906")
    print(f"{'Gao et al., blur + fog':24s}  {25.99:7.2f}  0.861   {26.97 - 25.99:.2f}")


if __name__ == "__main__":
    main()
