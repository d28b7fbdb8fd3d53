"""The steps from a folder to a saved figure; a new one is an entry of `STEPS`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_semsr.widgets.base import VERB_PANELS, make_panel

if TYPE_CHECKING:
    import napari.viewer

    from napari_semsr.widgets.base import Panel


@dataclass(frozen=True, slots=True)
class PanelPlace:
    """Where a panel is, which is imported when it is first shown."""

    title: str  # of the button that chooses it, short
    place: str  # module behind `napari_semsr.widgets`, and class

    def make(self, viewer: "napari.viewer.Viewer") -> "Panel":
        """Import the panel, and make it."""
        made: Panel = make_panel(viewer, self.place)
        return made


@dataclass(frozen=True, slots=True)
class WorkStep:
    """What is done together, in one of several panels."""

    key: str
    title: str  # of its button, short: several stand in 320 px
    hint: str  # one line
    panels: tuple[PanelPlace, ...]  # the first is shown first
    images: int = 0  # Next passes it over where fewer are open


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of the manifest that a newcomer may begin with."""

    key: str  # under `sample_data`
    title: str  # of its button, short
    tooltip: str


SAMPLES = (
    Sample(
        "degraded",
        "SEM image",
        "A drawn electron image, blurred, hazy and noisy, and its truth: for Enhance "
        "and Metrics.",
    ),
    Sample(
        "exposures",
        "Two exposures",
        "One field twice, with noise of its own each time: for FRC map.",
    ),
    Sample(
        "scan",
        "Superlens scan",
        "16 simulated frames to be joined to a mosaic; takes some seconds.",
    ),
    Sample(
        "place",
        "Optical and SEM",
        "A mosaic and an electron image of its place, to be registered; takes some "
        "seconds.",
    ),
)

FRAMES = PanelPlace("Frames", "stitch.panel:StitchMosaicPanel")
"""Where the steps begin when frames are open."""

STEPS = (
    WorkStep(
        "open",
        "Open",
        "Open an image, or join frames to a mosaic.",
        (
            PanelPlace("Image", "open_mosaic:OpenMosaicPanel"),
            FRAMES,
            PanelPlace("Crop", "crop:CropPanel"),
        ),
    ),
    WorkStep(
        "register",
        "Register",
        "Bring a mosaic onto the SEM image of its place.",
        (PanelPlace("Register to SEM", "register.panel:RegisterPanel"),),
        images=2,
    ),
    WorkStep(
        "enhance",
        "Enhance",
        "Take blur and noise away.",
        (
            PanelPlace("Network", "enhance.panel:EnhancePanel"),
            PanelPlace("Classical", "restore:RestorePanel"),
            PanelPlace("Train", "train.panel:TrainPanel"),
        ),
    ),
    WorkStep(
        "measure",
        "Measure",
        "Measure resolution and sharpness.",
        (
            PanelPlace("FRC map", "measure.frc_map:FrcMapPanel"),
            PanelPlace("Spectrum", "measure.spectrum:SpectrumPanel"),
            PanelPlace("Metrics", "measure.metrics:MetricsPanel"),
            PanelPlace("Line profile", "measure.profile:ProfilePanel"),
            PanelPlace("Error map", "measure.error_map:ErrorMapPanel"),
            PanelPlace("Trust", "measure.trust:TrustPanel"),
            PanelPlace("Gaps", "measure.gaps:GapsPanel"),
            *(PanelPlace(title, place) for title, place in VERB_PANELS.items()),
            PanelPlace("Judge by SEM", "register.judge:JudgePanel"),
        ),
    ),
    WorkStep(
        "save",
        "Save",
        "Keep layers, figures and the project; do the same with a whole folder.",
        (
            PanelPlace("Save", "project:SavePanel"),
            PanelPlace("Batch", "batch:BatchPanel"),
        ),
    ),
)
