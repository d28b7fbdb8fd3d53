"""How the possible readings of Gao et al.'s fog compare with their Table 1.

Run: ``python benchmarks/fog_readings.py`` (needs the images that the recipe names).

The paper states ``I = f exp(-beta d) + A (1 - exp(-beta d))`` with ``A = 3``, ``d = 1``
and ``beta`` between 1.5 and 2.5, random in place, and Table 1 states 25.99 dB and SSIM
0.861 for it against 26.97 dB and 0.906 for blur alone. Neither the grey scale of ``A``
nor the normalisation after it is stated. Each reading is taken as it is, and stretched
back to the mean and standard deviation of the blurred image; SSIM has the paper's
constants (K2 = 0.02). The average gradient (Table 2) says what was compared there: it
falls to a ninth in the paper, as contrast does that nothing stretches back.
"""

import itertools
from pathlib import Path

import numpy as np

from napari_semsr.analysis.metrics import average_gradient, structural_similarity
from napari_semsr.simulation import degrade as gao
from napari_semsr.training import load_recipe
from napari_semsr.training.scenes import load_clear_image

SIDE = 512
READINGS = {
    "A = 3, greys 0-255": 3.0,
    "A = 3, greys 0-1": 3.0 * 255,
    "A = white": 255.0,
    "A = mean of the image": None,
}


def scores(image: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """PSNR as it is, SSIM with the paper's constants, and average gradient, 8 bits."""
    near, wanted = image.astype(float), truth.astype(float)
    psnr_db = 10 * np.log10(255**2 / np.mean((near - wanted) ** 2))
    return (
        psnr_db,
        structural_similarity(near, wanted, 255, k2=0.02),
        average_gradient(near),
    )


def main() -> None:
    """Print one line for each reading."""
    recipe = load_recipe(Path("recipes/sem-restore.yaml"))
    clear = []
    for entry in recipe.data.held_out:
        image = load_clear_image(Path(recipe.data.root), entry)[:SIDE, :SIDE]
        clear.append(np.rint(image * 255).astype(np.uint8))
    rows = {"blur alone": [gao.degrade_plane(c, "blur").image for c in clear]}
    for (name, level), stretch in itertools.product(READINGS.items(), (True, False)):
        rows[name if stretch else f"{name}, as it is"] = [
            gao.degrade_plane(c, "fog", seed=i, airlight=level, stretch=stretch).image
            for i, c in enumerate(clear)
        ]
    print(f"{'reading':34s}  PSNR/dB   SSIM   PSNR less than blur alone   AG")
    means = {
        name: np.mean(list(map(scores, found, clear)), axis=0)
        for name, found in rows.items()
    }
    means["Gao et al., blur"] = np.array([26.97, 0.906, 3.69])
    means["Gao et al., blur + fog"] = np.array([25.99, 0.861, 0.41])
    for name, (decibels, similarity, steep) in means.items():
        alone = means["Gao et al., blur" if name.startswith("Gao") else "blur alone"]
        less = alone[0] - decibels
        print(
            f"{name:34s}  {decibels:7.2f}  {similarity:.3f}  {less:6.2f}  {steep:6.2f}"
        )


if __name__ == "__main__":
    main()
