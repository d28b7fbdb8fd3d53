"""Commands of ``semsr``: summary and module of each command."""

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

PLACES = {
    "adapt": "adapt.job.adapt",
    "blend": "blend.blend",
    "decorrelation": "measure.resolution.decorrelation",
    "demo": ".demonstration.job.demo",
    "difference": "blend.difference",
    "error-map": "measure.error_map.error_map",
    "exposure": "samples.exposure",
    "frc": "measure.resolution.frc",
    "frc-map": "measure.resolution.frc_map",
    "gaps": "measure.gaps.gaps",
    "gold": "samples.gold",
    "metrics": "measure.grey.metrics",
    "models export": "models.export_model",
    "models import": "models.import_model",
    "models info": "models.model_info",
    "models list": "models.list_models",
    "profile": "measure.profile.profile",
    "register-sem": "adapt.areas.register_sem",
    "specimen": "samples.specimen",
    "spectrum": "measure.resolution.spectrum",
    "train-on-sem": "adapt.train.train_on_sem",
}
"""Functions in ``napari_semsr.jobs`` of commands, and of the jobs that run only from
panels, `adapt` and `demo`; others are in a module of the same name.
"""
MEASURES = tuple(name for name in VERBS if "measure." in PLACES.get(name, ""))
"""Commands that measure one or many images."""
JOBS = tuple(dict.fromkeys((*VERBS, *PLACES)))
"""Jobs named in histories: commands, and jobs that are none."""
FUNCTIONS = {
    PLACES.get(name, name).rpartition(".")[2]: name
    for name in (*VERBS, *ACTIONS)
    if name != "models"
}
"""Commands, keyed by function name."""
