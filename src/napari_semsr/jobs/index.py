"""Commands of ``semsr``: summary and module of each command."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_semsr.core import Options
    from napari_semsr.jobs.images import Result
    from napari_semsr.jobs.verb import Verb

VERBS = {
    "info": "describe a file: size, type, pixel size, vendor, metadata",
    "convert": "write any readable image in any writable format",
    "crop": "crop a box, or the area of another image, on the grid of that image",
    "register": "register an image to another of the same area, whatever its contrast",
    "simulate": "simulate a folder of superlens frames with ground truth",
    "stitch": "stitch a folder of frames into one calibrated mosaic",
    "calibrate": "measure pixel size, skew and distortion with a known grating",
    "degrade": "add blur, haze, noise and drift to an image, as in published test sets",
    "pairs": "cut aligned patches into disjoint training, validation and test sets",
    "adapt": "train a small network on one SEM image of a mosaic, and enhance with it",
    "train": "train a model from a recipe",
    "enhance": "sharpen and clean an image tile by tile with a model",
    "restore": "deblur by a classical method: Wiener, Richardson-Lucy and others",
    "frc": "measure resolution by Fourier ring correlation",
    "frc-map": "map the resolution block by block",
    "decorrelation": "measure the cut-off of one image by decorrelation analysis",
    "spectrum": "compute the radially averaged and the 2-D power spectrum",
    "metrics": "compute PSNR, SSIM, NRMSE against a reference, sharpness, grey levels",
    "error-map": "map where an enhanced image differs from its reference",
    "gaps": "count and measure particles, and the gaps between them",
    "profile": "measure line widths, edges and distances along a line",
    "figure": "make a figure of images, maps and overlays with scale bars and caption",
    "replay": "reproduce an output from its provenance, and compare the two",
    "models": "list, describe, export and import models",
    "demo": "run all steps on simulated samples, from frames to a report",
    "doctor": "check this installation: versions, devices, memory, Qt, OpenGL",
}
"""Summary of each command, in the order of the help."""

ACTIONS = {
    "models list": "list bundled and imported models",
    "models info": "show the model card of a model",
    "models export": "export a model, for this program or for others",
    "models import": "add a model to the library, and show its model card",
}
"""Help summary of each action, for commands with several actions."""

_MODULES = {
    "adapt": "adapt.job",
    "demo": ".demonstration.job",
    **dict.fromkeys(ACTIONS, "models"),
    "decorrelation": "measure.resolution",
    "error-map": "measure.error_map",
    "frc": "measure.resolution",
    "frc-map": "measure.resolution",
    "gaps": "measure.gaps",
    "metrics": "measure.grey",
    "profile": "measure.profile",
    "spectrum": "measure.resolution",
}
"""Modules in ``napari_semsr.jobs`` that are not named after their commands."""
_SEVERAL = ("models",)  # modules that contain all actions of a command
_UNLISTED_JOBS = {
    "specimen": "samples",
    "exposure": "samples",
    "gold": "samples",
    "blend": "blend",
    "difference": "blend",
    "register-sem": "adapt.areas",
    "train-on-sem": "adapt.train",
    "look-here": "adapt.job",
}
"""Modules of the jobs that are not commands but run from panels, `adapt` and `demo`."""
MEASURES = tuple(
    name for name in VERBS if _MODULES.get(name, "").startswith("measure.")
)
"""Commands that measure one or many images."""

_VALUES = tuple(name for name in (*VERBS, *ACTIONS) if name not in _SEVERAL)
_AS_NAME = str.maketrans("- ", "__")
_FUNCTION_NAMES = {
    "models list": "list_models",
    "models info": "model_info",
    "models export": "export_model",
    "models import": "import_model",
}


def get_verb(name: str) -> "Verb[Options, Result] | None":
    """Import a command; return None if unknown or if it has several actions."""
    if name not in _VALUES and name not in _UNLISTED_JOBS:
        return None
    place = (_MODULES | _UNLISTED_JOBS).get(name, name)
    module = import_module(f".{place}", "napari_semsr.jobs")
    verb: Verb[Options, Result] = getattr(module, name.upper().translate(_AS_NAME))
    return verb


def get_actions(name: str) -> tuple[str, ...]:
    """Return the actions of a command, or an empty tuple."""
    words = (one.partition(" ") for one in ACTIONS)
    return tuple(action for verb, _, action in words if verb == name)


JOBS = (*VERBS, *_UNLISTED_JOBS)
"""Jobs named in histories: commands and unlisted jobs."""
FUNCTIONS = {
    _FUNCTION_NAMES.get(name, name.replace("-", "_")): name for name in _VALUES
}
"""Commands, keyed by function name."""
