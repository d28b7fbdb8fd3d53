"""What the papers print, each on its own data, none of which is public."""

GAO_TABLE_1: dict[str, dict[str, tuple[float, float]]] = {
    "A": {
        "degraded": (0.906, 26.97),
        "blind deconvolution": (0.901, 27.52),
        "Wiener": (0.918, 27.92),
        "their CycleGAN": (0.929, 29.77),
    },
    "B": {
        "degraded": (0.861, 25.99),
        "blind deconvolution": (0.796, 21.73),
        "Wiener": (0.845, 24.36),
        "their CycleGAN": (0.886, 27.96),
    },
    "C": {
        "degraded": (0.771, 22.07),
        "blind deconvolution": (0.793, 21.58),
        "Wiener": (0.765, 22.24),
        "their CycleGAN": (0.798, 24.27),
    },
}
"""Gao et al. 2024, table 1: SSIM and PSNR in dB."""

GAO_TABLE_2: dict[str, dict[str, tuple[float, float, float]]] = {
    "A": {
        "degraded": (3.69, 30.69, 7.78),
        "blind deconvolution": (4.34, 42.09, 8.91),
        "Wiener": (4.40, 44.53, 9.29),
        "their CycleGAN": (6.58, 91.95, 13.47),
        "truth": (7.37, 98.59, 13.92),
    },
    "B": {
        "degraded": (0.41, 0.45, 0.94),
        "blind deconvolution": (0.79, 1.07, 1.45),
        "Wiener": (0.52, 0.64, 1.12),
        "their CycleGAN": (6.28, 83.70, 12.85),
        "truth": (7.37, 98.59, 13.92),
    },
    "C": {
        "degraded": (0.35, 0.32, 0.80),
        "blind deconvolution": (0.59, 0.73, 1.19),
        "Wiener": (0.41, 0.41, 0.89),
        "their CycleGAN": (6.30, 82.01, 12.71),
        "truth": (7.37, 98.59, 13.92),
    },
}
"""Gao et al. 2024, table 2: AG, CON and SF of one image in each set."""

GAO_SHORT = {"A": "Gaussian blur", "B": "blur and haze", "C": "three blurs and haze"}

SUN_GAIN_DB = 0.74, 1.64
"""Sun et al.: PSNR over the optical image, in their preprint and as published."""

HAAN = {"input": (13.9, 3.8), "network": (3.7, 2.1)}
"""De Haan et al. 2019: undetected gaps in per cent, mean error of width in nm."""
