"""What `same_results.py` runs: commands of every verb, and the inputs that they read.

A case is a name and its steps, run in one folder that has links to the inputs. A step
is the words of a command; one that begins with ``py:`` is Python, in which `semsr`,
`interrupted` and `np` are known, and ``!`` before an expression shows it.

Most are made of the line that `tests.hostile.commands` has of a verb: as it stands,
with each option that the verb's parser knows, and with odd inputs in place of its
first. What takes several steps is written out below.
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from napari_semsr.cli.command import build_parser
from napari_semsr.io import ReadOptions
from napari_semsr.models import list_bundled_models
from tests.hostile.commands import LINES, write_inputs
from tests.tiny_models import write_tiny_recipe

SHORT = {
    "demo": ("out", "--frame-px", "144", "--size", "192", "--steps", "2"),
    "models": ("info", "sem-restore"),
}
"""Lines in place of those that take minutes or say little."""
LEFT_OUT = {"help", "debug", "devices", "nodes"}
"""Options that only print, or that take a machine of its own."""
READING = ("convert", "enhance", "metrics")
"""Verbs that are given the options of reading, which all that read share."""
VALUES = ("2", "1.5", "0", "-1", "new.tif")
"""What options are given that name no choices: for most of them one or two fit."""
ODD = (
    *("missing.tif", "text.tif", "nothing.tif", "one.tif", "huge.tif", "stack.tif"),
    *("folder", "scan", "tiny.yaml"),
)
SUFFIXES = ("ome.zarr", "ome.tif", "tif", "png")
CYCLE = {
    "name": "cycle",
    "kind": "cycle-gan",
    "architecture": "resnet",
    "architecture_options": {"width": 4, "blocks": 1, "bounded": False},
    "data": {"pairs": None, "phantoms": 1.0, "scene_px": 64, "patch_px": 64},
    "gan": {"discriminator_options": {"width": 4, "dropout": 0}, "history": 2},
    "batch": 1,
}
"""A recipe of a network that normalises over the whole field."""


def make_inputs(folder: Path) -> None:
    """Make all that the cases read."""
    folder.mkdir(parents=True)
    write_inputs(folder)
    write_tiny_recipe(folder / "cycle.yaml", **CYCLE)


def cases(data: Path | None) -> dict[str, list[str]]:
    """List all cases: the steps of each by its name.

    `data` is a folder of real images, or None.
    """
    found = {"no verb": ["", "--help", "enlarge first.tif", "info first.tif --colours"]}
    for verb, line in LINES.items():
        found |= of_verb(verb, SHORT.get(verb, line))
    found |= CHAINS | {f"python {line}": [f"py: {line}"] for line in PYTHON}
    return found | (real(data) if data else {})


def of_verb(verb: str, line: tuple[str, ...]) -> dict[str, list[str]]:
    """Make the cases of a verb."""
    words = shlex.join([verb, *line])
    options = options_of(verb)
    again = " --overwrite" if "--overwrite" in options else ""
    found = {
        verb: [words, words, f"{words} --json{again}", f"{verb} --help", verb],
    }
    for flag, values in options.items():
        steps = [f"{words} {flag} {value}".rstrip() + again for value in values]
        found[f"{verb} {flag}"] = steps
    if line and line[0].endswith(".tif"):
        rest = shlex.join(line[1:])
        found[f"{verb} of odd inputs"] = [f"{verb} {odd} {rest}{again}" for odd in ODD]
    return found


def options_of(verb: str) -> dict[str, list[str]]:
    """Name what each option of a verb is given, the choices or a value of each kind."""
    whole = build_parser(verb)._actions
    verbs = next(item for item in whole if item.choices and verb in item.choices)
    left_out = LEFT_OUT | (set() if verb in READING else {*ReadOptions.model_fields})
    return {
        action.option_strings[-1]: values_of(action)
        for action in verbs.choices[verb]._actions
        if action.option_strings and action.dest not in left_out
    }


def values_of(action: argparse.Action) -> list[str]:
    """Name what an option is given."""
    if action.nargs == 0:
        return [""]
    if action.choices:
        return [*map(str, action.choices), "nothing"]
    count = action.nargs if isinstance(action.nargs, int) else 1
    return [" ".join([value] * count) for value in VALUES]


TO_STORE = "'first.tif', 'out.ome.zarr'"
REGISTER = "register first.tif truth.tif -o out.tif --json"
ENHANCE = "enhance first.tif -o out.ome.zarr --tile 32"
RESTORE = "restore first.tif -o out.ome.zarr --tile 32 --psf 1.5px"
CHAINS = {
    "simulate and stitch": [
        "simulate taken --frames-grid 2x2 --frame-px 96 --phantom fracture --seed 2",
        "stitch taken -o mosaic.ome.zarr --halves --positions-out p.csv --json",
        "info mosaic.ome.zarr --json",
        "frc-map mosaic.ome.zarr -o map.tif --block 32 --step 32 --json",
        "stitch taken -o again.tif --positions p.csv --blend seam --json",
    ],
    "simulate and stitch heights": [
        "simulate taken --frames-grid 2x2 --frame-px 64 --focal-series 3 --seed 2",
        "stitch taken -o heights.ome.zarr --focus max --json",
    ],
    "simulate what an image shows": [
        "simulate taken --from first.tif --frames-grid 1x2 --frame-px 24 --json",
        "simulate view --sem-view --view-mirror --frames-grid 2x2 --frame-px 64",
    ],
    "register and apply": [
        f"{REGISTER} --landmarks landmarks.csv --landmarks-only --transform-out m.json",
        f"{REGISTER} --transform m.json --overwrite",
        "pairs first.tif truth.tif -o out.zarr --patch 16 --transform m.json --json",
    ],
    "crop and align": [
        "crop first.tif -o part.tif --box 4 6 60 70",
        "crop second.tif -o out.tif --like part.tif --align --search 4 --json",
        "crop nothing.tif -o gap.tif --box 0 0 9 9 --gap-free",
    ],
    "train and go on": [
        "train tiny.yaml -o run --steps 2",
        "train tiny.yaml -o run",
        "train tiny.yaml -o run --resume --json",
        "train tiny.yaml -o run --overwrite --steps 2 --name other --json",
        "enhance first.tif -o out.tif --model run/other.safetensors --json",
        "models import run/other.safetensors",
        "models list --json",
    ],
    "fine-tune": [
        "train fine-tune -o run --pairs pairs.zarr --patch 16 --steps 2 --json",
    ],
    "enhance by a norm over the field": [
        "train cycle.yaml -o run --steps 1 --quiet",
        *(
            f"{ENHANCE} --model run/cycle.safetensors --norm {norm} --json --overwrite"
            for norm in ("auto", "whole", "sampled", "tile")
        ),
    ],
    "enhance, go on": [
        f"py: interrupted(semsr.enhance, {TO_STORE}, tile=32)",
        *("info out.ome.zarr", ENHANCE, f"{ENHANCE} --resume --tile 64"),
        *[f"{ENHANCE} --resume --json"] * 2,
    ],
    "restore, go on": [
        f"py: interrupted(semsr.restore, {TO_STORE}, tile=32, psf='1.5px')",
        *(RESTORE, f"{RESTORE} --resume --json"),
    ],
    "replay": [
        "crop first.tif -o cut.ome.zarr --box 5 6 70 75",
        *("replay cut.ome.zarr --json", "replay cut.ome.zarr"),
    ],
    "models out and in": [
        "models export sem-restore -o mine.safetensors --json",
        "models import mine.safetensors",
        "models import mine.safetensors --overwrite --json",
        *("models list", "models info nothing"),
    ],
    **{
        f"convert and back, {suffix}": [
            f"convert first.tif out.{suffix}",
            f"info out.{suffix} --json",
            f"convert out.{suffix} back.ome.zarr --json",
        ]
        for suffix in SUFFIXES
    },
    **{
        f"enhance by {name}": [
            f"models info {name} --json",
            f"enhance first.tif -o out.ome.zarr --model {name} --precision fp32 --json",
            f"enhance stack.tif -o out.ome.tif --model {name} --json",
        ]
        for name in list_bundled_models()
    },
}
PYTHON = (
    "!semsr.read('first.tif')",
    "semsr.write(semsr.read('first.tif'), 'out.ome.zarr')",
    "!semsr.degrade('first.tif', kind='hybrid', seed=3)",
    "!semsr.enhance('first.tif', precision='fp32')",
    "!semsr.enhance(np.eye(96), model='sem-restore')",
    "!semsr.restore('first.tif', psf='1.5px')",
    "!semsr.crop('first.tif', box=(5, 6, 70, 75))",
    "!semsr.frc('first.tif', 'second.tif')",
    "!semsr.frc_map('first.tif', 'second.tif', block=32, step=16)",
    "!semsr.gaps('first.tif', 'truth.tif')",
    "!semsr.profile('first.tif', (5, 5, 60, 70), width=3)",
    "!semsr.list_models()",
    "semsr.enhance('first.tif', colour=3)",
    "semsr.read('text.tif')",
    "semsr.metrics(np.eye(9), np.eye(8))",
    "!sorted(semsr.__all__)",
)


def real(data: Path) -> dict[str, list[str]]:
    """Make the cases of images of real instruments, cut small before what is slow."""
    files = sorted((data / "vendor").glob("*.tif"))
    files += sorted((data / "sem" / "matchmaker-jeol").glob("*.bmp"))[:1]
    found = {
        f"real {path.name}": [
            f"info {path} --json",
            f"crop {path} -o part.ome.zarr --box 0 0 128 128 --json",
            "enhance part.ome.zarr -o out.ome.zarr --model sem-restore --json",
        ]
        for path in files
    }
    for path in (data / "stitch").glob("*.czi"):
        found[f"real {path.name}"] = [f"stitch {path} -o out.ome.zarr --json"]
    return found
