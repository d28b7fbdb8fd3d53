"""Titles of the panels, and the names that lead to each of them."""

PANELS: dict[str, tuple[str, ...]] = {
    "Start here": ("window.dock:StepsWindow", "Superlens SEM", "demo"),
    "Open": (
        *("open_mosaic:OpenMosaicPanel", "Open mosaic", "mosaic", "Image", "info"),
        *("calibrate", "Crop"),
    ),
    "Stitch": ("stitch.panel:StitchMosaicPanel", "Stitch mosaic", "Frames", "follow"),
    "Register": ("register.panel:RegisterPanel", "Register to SEM"),
    "Train": (
        *("train.panel:TrainPanel", "Train on SEM", "AdaptPanel", "adapt"),
        *("pairs", "denoise", "degrade"),
    ),
    "Enhance": (
        *("enhance.panel:EnhancePanel", "Network", "models", "models import"),
        *("models export", "Import model", "Check model", "sharpen", "batch"),
        *("Restore", "RestorePanel", "Classical"),
    ),
    "Resolution": (
        *("measure.resolution:ResolutionPanel", "FrcMapPanel", "FRC map", "frc"),
        "decorrelation",
    ),
    "Spectrum and quality": (
        *("measure.quality:QualityPanel", "MetricsPanel", "Metrics"),
        *("SpectrumPanel", "Spectrum"),
    ),
    "Compare": ("measure.quality:ComparePanel", "ErrorMapPanel", "Error map"),
    "Profile": ("measure.profile:ProfilePanel", "Line profile"),
    "Particles": (
        *("measure.particles:ParticlesPanel", "GapsPanel", "Gaps", "Particle sizes"),
    ),
    "Figure": ("figure:FigurePanel",),
    "Save": ("project:SavePanel", "save project", "convert", "replay"),
}
"""By title: module and class below `napari_semsr.widgets`, then former titles and
classes, and the commands and menu entries that this panel has.

All that leads to a panel by name, such as the menu, the command palette, projects and
messages, reads this table; words are separated by spaces, hyphens or underscores.
"""


def _fold_name(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


_TITLES = {
    _fold_name(name): title
    for title, (place, *names) in PANELS.items()
    for name in (title, place.rpartition(":")[2], *names)
}


def find_title(name: str) -> str | None:
    """Return the title of the panel that a present or former name leads to."""
    return _TITLES.get(_fold_name(name))
