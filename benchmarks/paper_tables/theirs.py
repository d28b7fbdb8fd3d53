"""What the papers print, each on its own data, none of which is public."""

GAO_GAIN_DB = {"A": 2.80, "B": 1.97, "C": 2.20}
"""Gao et al. 2024, table 1: PSNR of their CycleGAN over the degraded image."""

GAO_SHORT = {"A": "Gaussian blur", "B": "blur and haze", "C": "three blurs and haze"}

SUN_GAIN_DB = 0.74, 1.64
"""Sun et al.: PSNR over the optical image, in their preprint and as published."""

HAAN = {"input": (13.9, 3.8), "network": (3.7, 2.1)}
"""De Haan et al. 2019: undetected gaps in per cent, mean error of width in nm."""
