"""The verbs of ``semsr``: what each does, and where it is declared."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_semsr.jobs.verb import Verb

VERBS = {
    "info": "say what a file is: size, type, pixel size, vendor, metadata",
    "convert": "write any readable image in any writable format",
    "crop": "cut out a box, or what another image shows, on the grid of that image",
    "register": "bring an image onto another of the same place, whatever its contrast",
    "judge": "register, enhance and measure an image against SEM, on one page",
    "simulate": "make a folder of superlens frames whose truth is known",
    "stitch": "join a folder of frames to one calibrated mosaic",
    "calibrate": "find pixel size, skew and distortion by a known grating",
    "degrade": "blur and haze an image as published test sets do, add noise and drift",
    "pairs": "cut aligned patches into disjoint training, validation and test sets",
    "adapt": "train a small network on one SEM image of a mosaic, and enhance with it",
    "train": "train a model from a recipe",
    "enhance": "sharpen and clean an image tile by tile with a model",
    "restore": "undo blur by a classical method: Wiener, Richardson-Lucy and others",
    "frc": "measure resolution by Fourier ring correlation",
    "frc-map": "map the resolution block by block",
    "decorrelation": "measure the cut-off of one image by decorrelation analysis",
    "spectrum": "radially averaged and 2-D power spectrum",
    "metrics": "PSNR, SSIM, NRMSE against a reference, sharpness, grey levels",
    "error-map": "map where an image misses its reference, or how two scans differ",
    "gaps": "count and measure the gaps between particles",
    "particles": "measure the sizes of particles, or of the objects of a label image",
    "profile": "grey levels along a line: widths, edge, distance of two lines",
    "noise": "the noise of one image, and its growth with the grey level",
    "figure": "draw images and maps, also as overlay: bar in nm, colour bar, caption",
    "batch": "take every image of a folder or table through steps, to one table",
    "replay": "make an output again from its provenance, and compare the two",
    "report": "one page of pictures, numbers and how each was found, to print",
    "models": "list, describe, export, import and check models",
    "demo": "frames to mosaic, enhanced and measured on drawn samples, with a report",
    "doctor": "examine this installation: versions, devices, memory, Qt, OpenGL",
}
"""What each verb does, in the order of the help."""

ACTIONS = {
    "models list": "list bundled and imported models",
    "models info": "read the card of a model",
    "models export": "write a model out of the shelf, for this program or for others",
    "models import": "put a model on the shelf, after reading its card",
    "models check": "count the objects that a model shows, and those it invents",
    "models architectures": "list the networks that can be built",
}
"""What each action of a verb does that is several."""

_DECLARED = {
    "adapt": "adapt.job",
    "batch": "batch.job",
    "demo": ".demonstration.job",
    **dict.fromkeys(ACTIONS, "models"),
    "models check": "check.job",
    "report": "report.job",
    "decorrelation": "measure.resolution",
    "error-map": "measure.error_map",
    "frc": "measure.resolution",
    "frc-map": "measure.resolution",
    "gaps": "measure.gaps",
    "metrics": "measure.grey",
    "noise": "measure.noise",
    "particles": "measure.particles",
    "profile": "measure.profile",
    "spectrum": "measure.resolution",
}
"""Modules behind ``napari_semsr.jobs`` of verbs that are not called as their verb."""
_SEVERAL = ("models",)  # which its actions are
_UNLISTED = {
    "specimen": "samples",
    "exposure": "samples",
    "gold": "samples",
    "blend": "blend",
    "difference": "blend",
}
"""Modules of verbs without a command, whose images panels make in memory."""
PANELS = {"Particle sizes": "particles", "Noise": "noise"}
"""Verbs whose value alone makes a panel, by its title."""
MEASURES = tuple(
    name for name in VERBS if _DECLARED.get(name, "").startswith("measure.")
)
"""Verbs that measure, of many images too."""

_VALUES = tuple(name for name in (*VERBS, *ACTIONS) if name not in _SEVERAL)
_AS_NAME = str.maketrans("- ", "__")
_CALLED = {
    "models list": "list_models",
    "models info": "model_info",
    "models export": "export_model",
    "models import": "import_model",
    "models check": "check_model",
    "models architectures": "list_architectures",
}


def verb_of(name: str) -> "Verb[Any, Any] | None":
    """Import a verb; None for what is none, or several."""
    if name not in _VALUES and name not in _UNLISTED:
        return None
    place = (_DECLARED | _UNLISTED).get(name, name)
    module = import_module(f".{place}", "napari_semsr.jobs")
    verb: Verb[Any, Any] = getattr(module, name.upper().translate(_AS_NAME))
    return verb


def actions_of(name: str) -> tuple[str, ...]:
    """Name the actions of a verb that is several; none of others."""
    words = (one.partition(" ") for one in ACTIONS)
    return tuple(action for verb, _, action in words if verb == name)


JOBS = (*VERBS, *_UNLISTED)
"""What a history may name: verbs with a command, and those without."""
FUNCTIONS = {_CALLED.get(name, name.replace("-", "_")): name for name in _VALUES}
"""Verbs that are values by the names of their functions."""
