"""Names of commands and jobs: where each function is, and what names left.

The summary of a command is the first line of its function's docstring. It is read from
the source, so that ``semsr --help`` imports no command.
"""

from functools import cache
from pathlib import Path

from napari_semsr.core import Message

_COMMANDS = {
    "info": "info.info",
    "convert": "convert.convert",
    "crop": "crop.crop",
    "register": "register.register",
    "simulate": "simulate.simulate",
    "stitch": "stitch.stitch",
    "calibrate": "calibrate.calibrate",
    "degrade": "degrade.degrade",
    "pairs": "pairs.pairs",
    "adapt": "adapt.job.adapt",
    "train": "train.train",
    "enhance": "enhance.enhance",
    "restore": "restore.restore",
    "frc": "measure.resolution.frc",
    "frc-map": "measure.resolution.frc_map",
    "decorrelation": "measure.resolution.decorrelation",
    "spectrum": "measure.resolution.spectrum",
    "metrics": "measure.compare.metrics",
    "error-map": "measure.compare.error_map",
    "gaps": "measure.gaps.gaps",
    "profile": "measure.profile.profile",
    "figure": "figure.figure",
    "replay": "replay.replay",
    "models": "models.",  # no function, but actions
    "demo": ".demonstration.job.demo",
    "doctor": "info.doctor",
    "models list": "models.list_models",
    "models info": "models.model_info",
    "models export": "models.export_model",
    "models import": "models.import_model",
}
"""Module in ``napari_semsr.jobs`` and function of each command, in the help's order."""
PLACES = _COMMANDS | {
    "blend": "convert.blend",
    "difference": "convert.difference",
    "exposure": "degrade.exposure",
    "gold": "degrade.gold",
    "register-sem": "adapt.areas.register_sem",
    "specimen": "degrade.specimen",
    "train-on-sem": "adapt.train.train_on_sem",
}
"""The same of each job that a history names: some run only from panels."""


@cache
def read_summary(name: str) -> str:
    """Read the summary of a command or action from the source of its function."""
    module, _, function = _COMMANDS[name].rpartition(".")
    parts = (part or ".." for part in module.split("."))
    source = Path(__file__).parent.joinpath(*parts).with_suffix(".py")
    text = source.read_text("utf-8")
    text = text[text.index(f"\ndef {function}(") :] if function else text
    line = text.split('"""', 2)[1].partition("\n")[0].removesuffix(".")
    return line[0].lower() + line[1:]


VERBS = tuple(name for name in _COMMANDS if " " not in name)
"""Commands, in the order of the help."""
ACTIONS = tuple(name for name in _COMMANDS if " " in name)
"""Actions of commands with several."""
MEASURES = tuple(name for name in VERBS if PLACES[name].startswith("measure."))
"""Commands that measure one or many images."""
FUNCTIONS = {
    function: name
    for name, place in _COMMANDS.items()
    if (function := place.rpartition(".")[2])
}
"""Commands, keyed by function name."""

LAST_COMMIT = "77bd7f5d"
FORMER: dict[str, str] = {
    "particles": (
        "`gaps()` measures particles too: their diameters, how many the border cuts, a "
        "row for each with `gaps(table=…)`, and label images with `gaps(labels=True)`"
    ),
    "models check": "`model_info()` shows what the card of a model records; "
    "benchmarks/check_model.py checks another model",
    "models architectures": "the page Architectures of the manual lists the networks "
    "and their options",
    "panel Demonstration": "run `semsr demo`, or open a sample on the first page",
    "judge": "use `register()`, then `metrics()` and `frc_map()`",
    "panel Judge by SEM": "use `register()`, then `metrics()` and `frc_map()`",
    "report": (
        "`figure()` draws images with their caption, and `info(methods=True)` writes a "
        "paragraph for a Methods section"
    ),
    "noise": (
        "no command measures it; `decorrelation()` and `frc()` measure how far the "
        "detail exceeds it"
    ),
    "panel Noise": (
        "no panel measures it; `decorrelation()` and `frc()` measure how far the "
        "detail exceeds it"
    ),
    "error-map --scans": "compare two scans with `metrics()` and `frc()`",
    "repeatability": "compare two scans with `metrics()` and `frc()`",
    "histogram": "`metrics()` returns the grey-level distribution",
    "trust": "`error_map()` shows where an enhanced image differs from its reference",
    "batch": (
        "use several images with -o FOLDER (enhance, restore, degrade, convert, crop), "
        "`metrics(table=…)` for a table, and a shell script for several steps; in "
        "Python, a loop and measure_table()"
    ),
}
"""What to use instead of a command, option, panel or part that left.

Keys are commands and actions as they are typed (``models check``), options with their
command (``error-map --scans``), parts of an output as the option that made them
(``enhance --change-map``) and panels (``panel Noise``); values complete the sentence
"NAME is gone: …".
"""
_FUNCTIONS = {
    "check-model": "models check",
    "list-architectures": "models architectures",
}
"""Keys of functions and menu entries whose name is not that of their command."""
_EARLIER = {
    "histogram": "f50b9466",
    "trust": "b537c11d",
}  # commits before `LAST_COMMIT`


def describe_former_name(name: str, shown: str = "") -> Message | None:
    """Return the sentence on a name that left, or None if it is not such a name.

    Parameters
    ----------
    name : str
        A key of `FORMER`; an underscore means a hyphen.
    shown : str, optional
        The name as the user knows it; by default, `name`.

    Returns
    -------
    Message or None
        What to do instead, and the last commit with the name; its code is
        ``former-name``.
    """
    key = name.replace("_", "-")
    key = _FUNCTIONS.get(key, key)
    if key not in FORMER:
        return None
    commit = _EARLIER.get(key, LAST_COMMIT)
    sentence = f"{shown or name} is gone: {FORMER[key]} (last in commit {commit})."
    return Message(sentence, "former-name")
