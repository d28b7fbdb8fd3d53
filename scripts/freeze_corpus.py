"""Freeze small files of every kind that a commit writes, for later commits to open.

Run, with the sources of the commit to freeze::

    git worktree add ../frozen COMMIT
    PYTHONPATH=../frozen/src python scripts/freeze_corpus.py COMMIT tests/corpus

A folder of the commit's name is made: inputs in ``raw``, ``scan`` and ``models``, what
verbs made of them in ``made``, what measuring verbs print in ``numbers``, a project, a
batch, and the folder of an `adapt` run in ``adapted``. Images are small and drawn from
fixed seeds. Made once for each commit that is to be read for ever;
`tests/jobs/test_corpus.py` opens and replays all of it. With ``--verbs`` only what
these verbs make is frozen: those whose results have changed on purpose since the commit
before, or that no corpus has; ``project`` is the project, with every panel's settings.
The corpus of 77bd7f5d is of ``--verbs adapt particles project batch report``.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from functools import partial, partialmethod
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "QT_QPA_PLATFORM": "offscreen"}

import h5py
import numpy as np
import tifffile
import torch
import yaml

import napari_semsr as semsr
from napari_semsr.cli import main as semsr_command
from napari_semsr.core import run
from napari_semsr.io import read, write
from napari_semsr.jobs import (
    blend_levels,
    compose_derived_provenance,
    resample_levels,
    save_image,
    simulate_exposure,
    simulate_gold_pair,
    simulate_specimen,
    subtract_images,
)
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import build_network, save_model

SIDE_PX = 96
CPU = "--device cpu --precision fp32 --tile 64"
NETWORKS = {
    "two-scale": {"width": 4, "fine_blocks": 1, "dilations": [1]},
    "resnet": {"width": 4, "blocks": 1},  # with norms that every image sets anew
    "srcnn": {"widths": [4, 2]},
    "espcn": {"widths": [4, 2]},
    "edsr": {"width": 4, "blocks": 1},
}
IMAGES = f"""
convert.tif: convert raw/clear.tif OUT --dtype uint8
convert.png: convert raw/clear.tif OUT --dtype uint8
convert-hdf5.ome.tif: convert raw/plane.h5 OUT --dataset data --pixel-size-nm 10
convert-picture.tif: convert raw/colour.png OUT --colour luminance --pixel-size-nm 10
degrade.tif: degrade raw/clear.tif OUT --kind hybrid --seed 3
crop.ome.zarr: crop raw/clear.tif -o OUT --box 3 8 80 90
crop-like.tif: crop raw/clear.tif --like made/crop.ome.zarr -o OUT
register.tif: register raw/noisy.tif raw/clear.tif --landmarks raw/places.csv \
 --landmarks-only --transform-out made/register.json -o OUT
register-found.tif: register raw/noisy.tif raw/clear.tif -o OUT
register-carried.tif: register raw/clear.tif raw/clear.tif \
 --transform made/register.json -o OUT
stitch.ome.zarr: stitch scan -o OUT --positions-out made/stitch.csv
stitch-halves.tif: stitch scan -o OUT --halves --flat-field none --blend seam
stitch-height.tif: stitch series -o OUT --focus max
enhance.ome.zarr: enhance raw/clear.tif --model models/two-scale.safetensors -o OUT \
 --residual-map made/enhance-residual.tif {CPU}
enhance-exact.tif: enhance raw/clear.tif --model models/resnet.safetensors -o OUT \
 --norm exact {CPU}
enhance-frozen.tif: enhance raw/clear.tif --model models/resnet.safetensors -o OUT \
 --norm frozen {CPU}
enhance-tile.tif: enhance raw/clear.tif --model models/resnet.safetensors -o OUT \
 --norm tile {CPU}
enhance-stack.ome.tif: enhance raw/stack.tif --model models/two-scale.safetensors \
 -o OUT --pixel-size-nm 10 {CPU}
enhance-sem.tif: enhance raw/noisy.tif --model sem-restore -o OUT {CPU}
enhance-mosaic.tif: enhance raw/clear.tif --model ssum-sem -o OUT {CPU}
restore-wiener.tif: restore raw/clear.tif -o OUT --psf 1.2px
restore-lucy.ome.tif: restore raw/clear.tif -o OUT --psf raw/kernel.tif \
 --method richardson-lucy --iterations 3
restore-cls.tif: restore raw/clear.tif -o OUT --psf 1.2px --method cls
restore-unsupervised.tif: restore raw/clear.tif -o OUT --psf 1px \
 --method unsupervised-wiener
restore-blind.tif: restore raw/clear.tif -o OUT --psf flat5px --method blind \
 --iterations 3
frc-map.tif: frc-map raw/clear.tif raw/noisy.tif -o OUT --block 48 --step 16
error-map.tif: error-map raw/clear.tif made/restore-wiener.tif -o OUT
spectrum.tif: spectrum raw/clear.tif -o OUT
trust.tif: trust raw/noisy.tif made/enhance-sem.tif -o OUT --model sem-restore \
 --device cpu
"""
NUMBERS = """
info: info raw/clear.tif
frc: frc raw/clear.tif raw/noisy.tif
frc-one: frc raw/clear.tif
decorrelation: decorrelation raw/clear.tif
spectrum: spectrum raw/clear.tif
metrics: metrics raw/noisy.tif raw/clear.tif
error-map: error-map raw/clear.tif made/restore-wiener.tif -o OUT.tif
gaps: gaps raw/particles.tif
profile: profile raw/clear.tif --line 20,10,20,80
particles: particles raw/particles.tif
histogram: histogram raw/noisy.tif raw/clear.tif
calibrate: calibrate raw/grating.tif --pitch-nm 100 -o OUT.json
models-info: models info models/two-scale.safetensors
"""
OTHERS = """
pairs raw/noisy.tif raw/clear.tif -o made/pairs.zarr --patch 16 --step 16
train raw/tiny.yaml --pairs made/pairs.zarr -o run
figure raw/clear.tif made/restore-wiener.tif -o made/figure.png --dpi 72
batch raw/steps.yaml
"""
ADAPTED_PX = 64, 160
SMALL = {"width": 10, "dilations": [1, 2, 1]}  # a thirtieth of the weights
LAYERS = ("made/crop.ome.zarr", "made/enhance.ome.zarr", "made/restore-wiener.tif")


def lines_of(text: str) -> list[str]:
    """Join lines that go on, and leave out the empty ones."""
    return [line for line in text.replace("\\\n", "").splitlines() if line]


def command(line: str) -> str:
    """Run a command, and give what it prints."""
    words = line.split()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = semsr_command([*words, "--json", "--quiet"])
    if status:
        raise SystemExit(f"{line}: {status}")
    return said.getvalue()


def draw_inputs() -> None:
    """Draw images, tables and settings."""
    raw = Path("raw")
    raw.mkdir()
    truth = simulate_specimen((SIDE_PX, SIDE_PX), seed=1)
    planes = []
    for number, name in enumerate(("clear", "noisy")):
        image = simulate_exposure(truth, seed=1, noise_seed=number, name=name)
        write(image.replace(provenance=None), raw / f"{name}.tif")
        planes.append(read(raw / f"{name}.tif").array())
    tifffile.imwrite(raw / "stack.tif", np.stack(planes), metadata={"axes": "TYX"})
    y, x = np.mgrid[-4:5, -4:5]
    kernel = np.exp(-(y**2 + x**2) / 3).astype(np.float32)
    write(semsr.Micrograph(kernel), raw / "kernel.tif")
    with h5py.File(raw / "plane.h5", "w", track_order=True) as file:
        file.create_dataset("data", data=planes[0])
    shades = np.stack([planes[0][::2, ::2] >> shift for shift in (8, 9, 10)], axis=-1)
    write_picture(raw / "colour.png", shades.astype(np.uint8))
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    waves = 1000 + 500 * np.cos(2 * np.pi * x / 10)
    write(semsr.Micrograph(waves.astype(np.uint16), 10.2, "nm"), raw / "grating.tif")
    dots = np.hypot((y + 8) % 16 - 8, (x + 8) % 16 - 8) < 5
    spots = (200 + 800 * dots).astype(np.uint16)
    write(semsr.Micrograph(spots, 10, "nm"), raw / "particles.tif")
    rows = ["moving_y_nm,moving_x_nm,fixed_y_nm,fixed_x_nm"]
    rows += ["100,100,112,95", "100,800,110,797", "800,120,811,118"]
    (raw / "places.csv").write_text("\n".join(rows) + "\n")
    recipe = {
        "name": "trained", "kind": "supervised", "architecture": "two-scale",
        "architecture_options": NETWORKS["two-scale"], "batch": 2, "steps": 2,
        "warmup_steps": 0, "decay_steps": 0, "validate_every": 2,
        "precision": "fp32", "workers": 0, "data": {"patch_px": 16},
    }  # fmt: skip
    (raw / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    steps = {
        "inputs": "*r.tif", "output": "../batch",
        "steps": [{"restore": {"psf": "1px"}}, {"metrics": {}}],
    }  # fmt: skip
    (raw / "steps.yaml").write_text(yaml.safe_dump(steps, sort_keys=False))


def draw_scans(series_px: int) -> None:
    """Draw a scan and a focal series."""
    scan = {
        "frames_grid": (2, 2), "frame_px": SIDE_PX, "overlap": 0.5, "jitter_px": 2,
        "phantom": "pits", "photons": 4000, "seed": 2, "field": "square",
    }  # fmt: skip
    semsr.simulate("scan", **scan)
    series = scan | {"frame_px": series_px}
    semsr.simulate("series", focal_series=3, relief_nm=400, **series)


def write_picture(path: Path, colours: np.ndarray) -> None:
    """Write a picture in colour."""
    from PIL import Image

    Image.fromarray(colours).save(path)


def draw_models() -> None:
    """Write a model of each small network, with weights that a seed gives."""
    Path("models").mkdir()
    for name, options in NETWORKS.items():
        torch.manual_seed(3)
        network = build_network(name, options)
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.05)
        card = ModelCard(
            name=name,
            architecture=name,
            options=options,
            stride={"two-scale": 4, "resnet": 4}.get(name, 1),
            receptive_field=24,
        )
        save_model(Path("models") / f"{name}.safetensors", network, card)


def save_unfiled() -> None:
    """Save what panels and the demonstration make in memory."""
    made = Path("made")
    paths = [Path("raw") / f"{name}.tif" for name in ("clear", "noisy")]
    truth = simulate_specimen((SIDE_PX, SIDE_PX), seed=1)
    clear, noisy = (read(path).replace(path=str(path.absolute())) for path in paths)
    restored = semsr.restore(clear, psf="1px")
    levels = run(resample_levels(clear, (), restored, [restored.data]))
    mixed = blend_levels(levels, [restored.data], 0.6)[0]
    told = compose_derived_provenance(
        "blend", {"strength": 0.6}, input=clear, result=restored
    )
    for name, image in {
        "specimen": truth,
        "exposure": simulate_exposure(truth, seed=1, noise_seed=4),
        "gold": simulate_gold_pair(seed=2)[0],
        "difference": subtract_images(clear, noisy),
        "blend": restored.replace(data=mixed, provenance=told),
        "restore-unsaved": semsr.restore(semsr.degrade(clear), psf="1px"),
    }.items():
        run(save_image(image, made / f"{name}.tif"))


def adapt_network() -> None:
    """Train a small network on one place for 60 steps, however little it gains.

    Boxes on a ground overlap: the mosaic is blurred, the SEM image is not.
    """
    from scipy import ndimage

    from napari_semsr import jobs
    from napari_semsr.core import Affine
    from napari_semsr.io import ImageIdentity, StoredTransform, write_transform
    from napari_semsr.jobs.adapt import process, train
    from napari_semsr.training import place

    place.build_network = lambda name, _: build_network(name, SMALL)
    create_card = place.AreaFitResult.create_card
    place.AreaFitResult.create_card = partialmethod(create_card, options=SMALL)

    def fit(images, options, *, seconds, threads, **how):
        options = options.replace(copies=0, batch=4, patch_px=32, learning_rate=5e-3)
        how |= {"seconds": None, "steps": 60, "threads": 1, "report_every_s": 0.0}
        return process.fit_with_files(images, options, **how)

    rng = np.random.default_rng(3)
    sample = np.zeros(ADAPTED_PX)
    for _ in range(sample.size // 250):
        y, x = (rng.integers(0, side) for side in ADAPTED_PX)
        sample[y : y + rng.integers(4, 12), x : x + rng.integers(4, 12)] = 1
    light = 80 + 120 * ndimage.gaussian_filter(sample, 2.2)
    images = []
    for name, grey, noise in (("mosaic", light, 0.5), ("sem", 40 + 150 * sample, 2)):
        grey = np.clip(grey + rng.normal(0, noise, grey.shape), 0, 255)
        path = Path(f"raw/{name}.tif")
        write(semsr.Micrograph(grey.astype(np.uint8), 20, "nm"), path)
        images.append(read(path))
    places = map(ImageIdentity.from_image, images)
    lying = StoredTransform(Affine(), *places, {"error_nm": 1.0})
    write_transform(Path("raw/lying.json"), lying)
    train.fit_in_process, train.require_gain = fit, lambda *_: None
    paths = [str(Path(f"raw/{name}.tif").absolute()) for name in ("mosaic", "sem")]
    options = jobs.AdaptOptions(device="cpu", minutes=1)
    run(
        jobs.ADAPT.job(
            paths[0], paths[1:], "adapted", options=options, transform="raw/lying.json"
        )
    )
    Path("adapted/training.pt").unlink()


def save_project(layers: tuple[str, ...]) -> None:
    """Save a project of images, labels and shapes as the window does.

    With settings of every panel that the window has.
    """
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    from napari_semsr.io.layers import read_layers
    from napari_semsr.widgets.base import PANELS, create_panel
    from napari_semsr.widgets.base.session import get_session

    application = QApplication.instance() or QApplication([])
    viewer = ViewerModel()
    session = get_session(viewer)
    for path in layers:
        for data, keywords, kind in read_layers(str(Path(path).absolute())):
            getattr(viewer, f"add_{kind}")(data, **keywords)
    viewer.add_labels(np.eye(SIDE_PX, dtype=np.uint8), name="drawn labels")
    viewer.add_points(np.array([[3.0, 4.0], [50.0, 60.0]]), name="drawn points")
    viewer.add_shapes(
        [np.array([[5.0, 5], [5, 40], [40, 40], [40, 5]])], name="drawn shapes"
    )
    places = [place for place, *_ in PANELS.values() if "StepsWindow" not in place]
    held = [create_panel(viewer, place) for place in places]
    for panel in held:
        session.watch_panel(panel)
    saved: list[bool] = []
    session.create_project(Path("all.semsr"), partial(saved.append, True))
    while not saved:
        application.processEvents()


def make_all(text: str, verbs: list[str]) -> dict[str, tuple[str, str]]:
    """Run the lines of a table; give of each name its command and what it printed."""
    told = {}
    for line in lines_of(text):
        name, _, words = line.partition(": ")
        if not verbs or words.split()[0] in verbs:
            place = f"made/{name}" if text is IMAGES else f"made/of-{name}"
            told[name] = words, command(words.replace("OUT", place))
            print(name, flush=True)
    return told


def make_others(verbs: list[str]) -> None:
    """Make what is not one image or its numbers."""
    for line in lines_of(OTHERS):
        if not verbs or line.split()[0] in verbs:
            command(line)
            print(line, flush=True)
    if not verbs or "adapt" in verbs:
        adapt_network()
    if not verbs:
        save_unfiled()
    if not verbs or "project" in verbs:
        save_project(("raw/clear.tif", *(() if verbs else LAYERS)))


def freeze(verbs: list[str], series_px: int) -> None:
    """Make all files, or those of some verbs alone, in the current folder."""
    draw_inputs()
    if not verbs or {"stitch", "series"} & {*verbs}:
        draw_scans(series_px)
    draw_models()
    for folder in ("made", "numbers"):
        Path(folder).mkdir()
    make_all(IMAGES, verbs)
    for name, (words, printed) in make_all(NUMBERS, verbs).items():
        found = {"command": words, "printed": json.loads(printed)}
        Path(f"numbers/{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    make_others(verbs)
    if verbs:
        remove_unused(verbs)
    # what nothing reads again, and the states of a training
    unread = ("made/*.html", "batch/report*", "adapted/*.html", "made/figure.png")
    for pattern in (*unread, "made/pairs.png", "run/*.ckpt"):
        for path in Path().glob(pattern):
            path.unlink()


def remove_unused(verbs: list[str]) -> None:
    """Remove what no file of these verbs refers to."""
    for folder in ("models", "scan/truth", "series/truth"):
        shutil.rmtree(folder, ignore_errors=True)
    used = ("clear", "mosaic", "sem", "lying", "steps", "particles")
    for path in Path("raw").iterdir():
        if "adapt" in verbs and path.stem not in used:
            path.unlink()


def main() -> None:
    """Freeze the package that is imported under the name of its commit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbs", nargs="+", default=[], help="only what these make")
    parser.add_argument(
        "--series-px",
        type=int,
        default=SIDE_PX,
        help="side of a frame of the focal series; 64 in the corpus of 021ca8eb, "
        "whose joints later commits do not believe",
    )
    asked = parser.parse_args()
    target = asked.folder.absolute() / asked.commit
    print(f"of {semsr.__file__}", file=sys.stderr)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # histories hold where inputs lay: a place that names no person
    with tempfile.TemporaryDirectory(prefix="corpus-", dir="/tmp") as place:
        os.environ["XDG_DATA_HOME"] = os.environ["XDG_CONFIG_HOME"] = f"{place}/home"
        work = Path(place) / asked.commit
        work.mkdir()
        os.chdir(work)
        freeze(asked.verbs, asked.series_px)
        os.chdir(place)
        shutil.copytree(work, target)


if __name__ == "__main__":
    main()
