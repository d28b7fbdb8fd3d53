"""What `same_results.py` runs: small images that are made here, and the cases.

A case is a name and its steps, run in one folder in which ``in`` holds the images. A
step is the words of a command; one that begins with ``py:`` is Python, in which
`semsr`, `show` and `np` are known, and ``!`` before an expression shows it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage


def words(text: str) -> list[str]:
    """Give the words of a text, for lists that are easier to read so."""
    return text.split()


VERBS = words("""
    info convert simulate degrade stitch crop register judge pairs train enhance restore
    frc frc-map decorrelation spectrum metrics error-map repeatability gaps profile
    figure histogram replay batch report trust models demo
""")
MODELS = words("""
    sem-restore sem-2x ssum-sem ssum-sem-2x
""")
PHANTOMS = words("grating pits particles lattice circuit fracture")
METHODS = words("wiener unsupervised-wiener richardson-lucy blind cls")

TINY = """\
name: tiny
kind: supervised
description: A network to test with.
limits: It knows nothing.
architecture: srcnn
architecture_options: {widths: [4, 2], residual: true}
data: {phantoms: 1.0, scene_px: 64, patch_px: 32, patches_per_scene: 2, soft: 0}
degradations: {blur: 1, fog: 0, hybrid: 0, near_paper: 0, sigma_px: [1.0, 2.0]}
batch: 2
steps: 4
warmup_steps: 1
learning_rate: 1.0e-4
validate_every: 2
"""
PAIRED = """\
name: paired
kind: paired-gan
description: A network to test with.
limits: It knows nothing.
architecture: pix2pix
architecture_options: {width: 4, levels: 5, bounded: false}
data: {phantoms: 1.0, scene_px: 64, patch_px: 64, patches_per_scene: 1}
gan:
  discriminator: patch-gan
  discriminator_options:
    {width: 4, norm: batch, dropout: 0, first_norm: false, channels: 2}
  conditional: true
  adversarial: cross-entropy
  discriminator_factor: 0.5
  content: l1
  content_weight: 100
  history: 0
batch: 1
steps: 2
warmup_steps: 0
learning_rate: 2.0e-4
clip_norm: null
validate_every: 2
"""
CYCLE = """\
name: cycle
kind: cycle-gan
description: A network to test with.
limits: It knows nothing.
architecture: resnet
architecture_options: {width: 4, blocks: 1, norm: instance, bounded: false}
data: {phantoms: 1.0, scene_px: 64, patch_px: 64, patches_per_scene: 1, soft: 0}
degradations: {blur: 1, fog: 0, hybrid: 0, near_paper: 0}
gan:
  discriminator: patch-gan
  discriminator_options: {width: 4, norm: instance, dropout: 0}
  adversarial: least-squares
  cycle: ssim
  cycle_weight: 10
  identity: mse
  identity_weight: 5
  edge_weight: 10
  history: 2
batch: 1
steps: 2
warmup_steps: 0
learning_rate: 1.0e-4
clip_norm: null
validate_every: 2
"""


def scene(shape: tuple[int, int], seed: int, blur: float = 1.4) -> NDArray[np.float64]:
    """Draw blobs and grain in [0, 1]."""
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.normal(size=shape), blur)
    broad = ndimage.gaussian_filter(rng.normal(size=shape), 6.0)
    grey = 0.5 + 0.12 * (fine / fine.std() + 1.2 * broad / broad.std())
    return np.clip(grey, 0.02, 0.98)


def discs(shape: tuple[int, int], seed: int) -> NDArray[np.float64]:
    """Draw bright discs with gaps between them, in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    grey = np.full(shape, 0.2)
    for cy in range(14, shape[0], 26):
        for cx in range(14, shape[1], 26):
            oy, ox, radius = cy + rng.normal(), cx + rng.normal(), rng.uniform(8, 12)
            grey[np.hypot(y - oy, x - ox) < radius] = 0.8
    return np.clip(
        ndimage.gaussian_filter(grey, 0.8) + rng.normal(0, 0.02, shape), 0, 1
    )


def as_uint8(grey: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round grey values of [0, 1] to 8 bits."""
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)


def write_tiff(path: Path, image: NDArray[Any], pixel_nm: float | None = 10.0) -> None:
    """Write a TIFF whose resolution tags give the pixel size."""
    tags: dict[str, Any] = {}
    if pixel_nm:
        tags = {"resolution": (1e7 / pixel_nm,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, software="", **tags)


def make_inputs(folder: Path) -> None:
    """Make all images that the cases read."""
    folder.mkdir(parents=True)
    grey = scene((160, 192), 1)
    rng = np.random.default_rng(2)
    Image.fromarray(as_uint8(grey)).save(folder / "a.png")
    write_tiff(folder / "a.tif", as_uint8(grey))
    blurred = ndimage.gaussian_filter(grey, 1.5)
    write_tiff(
        folder / "blurred.tif", as_uint8(blurred + rng.normal(0, 0.01, grey.shape))
    )
    for name in ("e1", "e2"):
        noisy = grey + rng.normal(0, 0.06, grey.shape)
        write_tiff(folder / f"{name}.tif", as_uint8(noisy))
    write_tiff(folder / "u16.tif", np.rint(grey * 60000).astype(np.uint16), 7.5)
    write_tiff(folder / "f32.tif", (grey * 3 - 1).astype(np.float32), None)
    make_odd_images(folder)
    stack = np.stack([as_uint8(scene((96, 96), seed)) for seed in (6, 7, 8)])
    write_stack(folder / "stack.ome.tif", stack)
    write_tiff(folder / "pages.tif", stack, None)
    write_store(folder / "store.ome.zarr", as_uint8(grey))
    write_tiff(folder / "coarse.tif", as_uint8(grey)[20:140:2, 30:170:2], 20.0)
    write_tiff(folder / "half.tif", as_uint8(ndimage.zoom(grey, 0.5, order=1)), 20.0)
    moved = ndimage.shift(grey, (3.0, -2.0), mode="reflect")
    write_tiff(folder / "moved.tif", as_uint8(moved))
    Image.fromarray(as_uint8(discs((140, 150), 9))).save(folder / "discs.png")
    worse = ndimage.gaussian_filter(discs((140, 150), 9), 1.2)
    Image.fromarray(as_uint8(worse)).save(folder / "discs_worse.png")
    make_scans(folder)
    for side in ("low", "high"):
        (folder / side).mkdir()
        for number in range(2):
            fine = scene((128, 128), 20 + number)
            fine = ndimage.gaussian_filter(fine, 1.2) if side == "low" else fine
            write_tiff(folder / side / f"{number}.tif", as_uint8(fine))
    make_recipes(folder)


def make_odd_images(folder: Path) -> None:
    """Make images in colour, with gaps, cut off, without anything."""
    small = as_uint8(scene((96, 112), 3))
    Image.fromarray(small).save(folder / "small.png")
    Image.fromarray(np.stack([small, small[::-1], small], -1)).save(folder / "rgb.png")
    Image.fromarray(np.stack([small] * 3, -1)).save(folder / "grey_rgb.png")
    Image.fromarray(small).save(folder / "a.jpg")
    Image.fromarray(small).save(folder / "a.bmp")
    broken = scene((96, 96), 4).astype(np.float32)
    broken[40:44, 50:60] = np.nan
    write_tiff(folder / "nan.tif", broken)
    write_tiff(folder / "all_nan.tif", np.full((64, 64), np.nan, np.float32))
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(folder / "flat.png")
    Image.fromarray(as_uint8(scene((8, 8), 5))).save(folder / "tiny.png")
    (folder / "cut_off.png").write_bytes((folder / "a.png").read_bytes()[:900])
    (folder / "cut_off.tif").write_bytes((folder / "a.tif").read_bytes()[:900])
    (folder / "words.txt").write_text("not an image\n")
    (folder / "words.png").write_text("not an image\n")
    y, x = np.indices((9, 9)) - 4
    write_tiff(folder / "flat96.tif", np.full((96, 96), 0.5, np.float32), None)
    write_tiff(
        folder / "psf.tif", np.exp(-(y**2 + x**2) / 4.5).astype(np.float32), None
    )


def make_recipes(folder: Path) -> None:
    """Write recipes, right and wrong ones."""
    for name, text in (("tiny", TINY), ("paired", PAIRED), ("cycle", CYCLE)):
        (folder / f"{name}.yaml").write_text(text)
    wrong = TINY.replace("architecture: srcnn", "architecture: nothing")
    (folder / "wrong_name.yaml").write_text(wrong)
    (folder / "wrong_value.yaml").write_text(TINY.replace("batch: 2", "batch: 0"))
    (folder / "wrong_key.yaml").write_text(TINY + "colour: blue\n")
    (folder / "wrong_syntax.yaml").write_text("name: [\n")


def write_stack(path: Path, stack: NDArray[np.uint8]) -> None:
    """Write an OME-TIFF of several planes."""
    size = {f"PhysicalSize{axis}": 12.0 for axis in "XY"}
    unit = {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    uuid = {"UUID": "urn:uuid:00000000-0000-0000-0000-000000000001"}
    metadata = {"axes": "ZYX", **uuid, **size, **unit}
    tifffile.imwrite(path, stack, ome=True, metadata=metadata)


def write_store(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an OME-Zarr store of two levels, as other programs do."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    levels = [image, image[::2, ::2]]
    for number, level in enumerate(levels):
        array = group.create_array(
            str(number), shape=level.shape, chunks=(64, 64), dtype="uint8"
        )
        array[:] = level
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [5.0 * 2**number] * 2},
            ],
        }
        for number in range(len(levels))
    ]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "a", "axes": axes, "datasets": datasets}],
    }


def make_scans(folder: Path) -> None:
    """Make folders of frames: with positions, and in rows to and fro."""
    truth = scene((300, 320), 30)
    rng = np.random.default_rng(31)
    side, step = 96, 68
    cells = [(row, column) for row in range(3) for column in range(3)]
    places = {
        cell: (30 + step * cell[0] + rng.integers(-3, 4), 30 + step * cell[1])
        for cell in cells
    }
    shade = 1 - 0.3 * sum(((np.indices((side, side)) - 47.5) / 68) ** 2)
    orders = {
        "scan": cells,
        "serpentine": [(r, c if r % 2 == 0 else 2 - c) for r, c in cells],
    }
    for name, order in orders.items():
        (folder / name).mkdir()
        rows = ["frame,y_px,x_px"]
        frames = []
        for number, cell in enumerate(order):
            y, x = places[cell]
            frame = truth[y : y + side, x : x + side] * shade
            frame = frame + np.random.default_rng(number).normal(0, 0.005, frame.shape)
            file = folder / name / f"f{number:02}.tif"
            frames.append(np.rint(np.clip(frame, 0, 1) * 60000).astype(np.uint16))
            write_tiff(file, frames[-1], 20.0)
            rows.append(f"{file.name},{step * cell[0]},{step * cell[1]}")
        if name == "scan":
            (folder / name / "positions.csv").write_text("\n".join(rows) + "\n")
            nm = [rows[0].replace("px", "nm")]
            nm += [
                f"{n},{20 * int(y)},{20 * int(x)}" for n, y, x in map(_row, rows[1:])
            ]
            (folder / "positions_nm.csv").write_text("\n".join(nm) + "\n")
            wrong = "\n".join([*rows[:-1], "f99.tif,0,0"]) + "\n"
            (folder / "positions_wrong.csv").write_text(wrong)
            write_tiff(folder / "frames.tif", np.stack(frames), 20.0)
    (folder / "bad_scan").mkdir()
    for number in range(4):
        write_tiff(
            folder / "bad_scan" / f"{number}.tif", as_uint8(scene((64, 64), number))
        )
    (folder / "empty").mkdir()
    (folder / "note.json").write_text(json.dumps({"kind": "nothing"}))


def _row(line: str) -> list[str]:
    return line.split(",")


def cases(data: Path | None) -> dict[str, list[str]]:
    """List all cases: the steps of each by its name.

    `data` is a folder of real images, or None.
    """
    found: dict[str, list[str]] = {}
    groups = [
        *(
            helps,
            reading,
            simulating,
            stitching,
            cutting,
            learning,
            enhancing,
            restoring,
        ),
        *(measuring, modelling, refusing, batches, python),
    ]
    for group in groups:
        found |= group()
    if data:
        found |= real(data)
    return found


def helps() -> dict[str, list[str]]:
    """Help texts."""
    found = {f"help {verb}": [f"{verb} --help"] for verb in VERBS}
    return found | {
        "help": ["--help"],
        "no verb": [""],
        "wrong verb": ["enlarge in/a.png"],
        "wrong flag": ["info in/a.png --colours"],
    }


def reading() -> dict[str, list[str]]:
    """Commands info and convert, degrade."""
    files = words("""
        a.png a.tif u16.tif f32.tif rgb.png grey_rgb.png a.jpg a.bmp nan.tif
        stack.ome.tif pages.tif store.ome.zarr scan serpentine frames.tif tiny.yaml
    """)
    found = {f"info {name}": [f"info in/{name} --json"] for name in files}
    found |= {f"info {name}, told": [f"info in/{name}"] for name in files[:6]}
    found["info options"] = [
        "info in/a.png --pixel-size-nm 12.5,13 --json",
        "info in/a.tif --databar-rows 20 --json",
    ]
    for suffix in ("ome.zarr", "ome.tif", "tif", "png"):
        for name in ("a.tif", "u16.tif", "f32.tif", "store.ome.zarr"):
            found[f"convert {name} to {suffix}"] = [
                f"convert in/{name} out.{suffix} --json"
            ]
        found[f"convert and back, {suffix}"] = [
            f"convert in/a.tif out.{suffix}",
            f"info out.{suffix} --json",
            f"convert out.{suffix} back.ome.zarr --overwrite --json",
        ]
    for dtype in ("uint8", "uint16", "float32"):
        found[f"convert as {dtype}"] = [
            f"convert in/f32.tif out.ome.zarr --dtype {dtype} --json",
            f"convert in/u16.tif out.tif --dtype {dtype} --json",
        ]
    found["convert with reading options"] = [
        "convert in/store.ome.zarr level.tif --level 1 --json",
        "convert in/stack.ome.tif plane.png --plane 1 --json",
        "convert in/rgb.png grey.tif --colour luminance --json",
        "convert in/rgb.png red.tif --channel 0 --json",
        "convert in/a.tif cut.tif --databar-rows 20 --pixel-size-nm 3 --json",
        "convert in/grey_rgb.png grey2.tif --json",
    ]
    found["convert over an output"] = [
        "convert in/a.png out.ome.zarr",
        "convert in/a.png out.ome.zarr",
        "convert in/small.png out.ome.zarr --overwrite --json",
        "convert in/a.png out.png",
        "convert in/a.png out.png",
        "convert in/small.png out.png --overwrite",
    ]
    for kind in ("blur", "fog", "hybrid", "none"):
        found[f"degrade {kind}"] = [f"degrade in/a.tif out.tif --kind {kind} --json"]
    found["degrade otherwise"] = [
        "degrade in/a.png fog.ome.zarr --kind fog --uniform-fog --seed 3 --json",
        (
            "degrade in/u16.tif rough.tif --drift-px 2 --line-jitter-px 0.5 "
            "--charging 0.2 --photons 200 --read-noise 3 --seed 4 --json"
        ),
        "degrade in/a.png fog.ome.zarr",
    ]
    return found


def simulating() -> dict[str, list[str]]:
    """Command simulate."""
    small = "--frames-grid 2x2 --frame-px 64 --json"
    found = {
        f"simulate {name}": [f"simulate out --phantom {name} {small}"]
        for name in PHANTOMS
    }
    found["simulate from an image"] = [
        "simulate out --from in/u16.tif --frames-grid 2x2 --frame-px 48 --json",
        "info out --json",
    ]
    found["simulate otherwise"] = [
        (
            f"simulate out --sem --exposures 2 --focal-series 3 --order serpentine "
            f"--positions nm --dust 2 --drift-px 2 --field square --seed 5 {small}"
        ),
        f"simulate view --sem-view --view-mirror --seed 5 {small}",
        f"simulate out --bad-frames 1 --illumination-drift 0.1 {small}",
        f"simulate out --bad-frames 1 --illumination-drift 0.1 --overwrite {small}",
    ]
    found["simulate and stitch heights"] = [
        f"simulate series --focal-series 3 --phantom particles --seed 2 {small}",
        "stitch series -o heights.ome.zarr --focus max --json",
    ]
    found["simulate and stitch"] = [
        "simulate scan --frames-grid 2x2 --frame-px 128 --phantom fracture --seed 2",
        "stitch scan -o mosaic.ome.zarr --json",
        "info mosaic.ome.zarr --json",
    ]
    return found


def stitching() -> dict[str, list[str]]:
    """Command stitch."""
    ways = {
        "as it is": "in/scan",
        "a grid": "in/serpentine --grid 3x3 --order serpentine --overlap 0.29",
        "a grid, rows": "in/frames.tif --grid 3x3 --order row --overlap 0.29",
        "nothing known": "in/serpentine",
        "positions in nm": "in/scan --positions in/positions_nm.csv",
        "positions out": "in/scan --positions-out p.csv",
        "seams": "in/scan --blend seam --flat-field none",
        "another flat": "in/scan --flat-field in/flat96.tif --no-match-gain",
        "turns": "in/scan --rotation --stage-model shift --max-shift-px 8",
        "uint16": "in/scan --dtype uint16 --significance 5 --pixel-size-nm 25",
    }
    found = {
        f"stitch {name}": [f"stitch {way} -o out.ome.zarr --json"]
        for name, way in ways.items()
    }
    found["stitch to a TIFF"] = [
        "stitch in/scan -o out.ome.tif",
        "stitch in/scan -o out.png --dtype uint8 --json",
        "stitch in/scan -o out.ome.tif",
    ]
    return found


def cutting() -> dict[str, list[str]]:
    """Commands crop and pairs."""
    ways = {
        "box": "in/a.tif -o out.tif --box 10 20 70 90",
        "box in nm": "in/a.tif -o out.ome.zarr --box-nm 100 200 700 900",
        "box of a store": "in/store.ome.zarr -o out.ome.zarr --box 0 0 100 64",
        "like": "in/a.tif -o out.tif --like in/coarse.tif --like-out like.tif",
        "like, aligned": "in/moved.tif -o out.tif --like in/a.tif --align --search 8",
        "gaps left out": "in/nan.tif -o out.tif --box 10 10 90 90 --gap-free",
        "type": "in/u16.tif -o out.tif --box 0 0 50 50 --dtype uint8",
        "like, told its pixel": "in/a.tif -o out.tif --like in/small.png "
        "--like-pixel-size-nm 10 --gap-free",
    }
    found = {f"crop {name}": [f"crop {way} --json"] for name, way in ways.items()}
    both = "in/moved.tif in/a.tif -o out.ome.zarr"
    found |= {
        "register and apply": [
            f"register {both} --transform-out map.json --json",
            f"register {both} --transform map.json --overwrite --json",
        ],
        "register, told its pixel": [
            "register in/small.png in/a.tif -o out.tif --moving-pixel-size-nm 10"
        ],
        "judge": ["judge in/moved.tif in/a.tif -o page.html --models none --json"],
    }
    cuts = "--patch 32 --min-correlation 0.1"
    found["pairs of images"] = [
        f"pairs in/blurred.tif in/a.tif -o out.zarr {cuts} --json"
    ]
    found["pairs of folders"] = [f"pairs in/low in/high -o out.zarr {cuts} --json"]
    found["pairs by name"] = [
        f"pairs in/low in/high -o out.zarr --match name --step 16 {cuts} --json"
    ]
    found["pairs prepared"] = [
        (
            f"pairs in/e1.tif in/a.tif -o out.zarr --denoise --sharpen --equalise "
            f"--prepare low {cuts} --json"
        ),
        f"pairs in/e1.tif in/a.tif -o out.zarr {cuts}",
    ]
    found["pairs of two scales"] = [
        "pairs in/half.tif in/a.tif -o out.zarr --patch 24 --json",
    ]
    return found


def learning() -> dict[str, list[str]]:
    """Command train."""
    found = {
        f"train {name}": [f"train in/{name}.yaml -o run --json"]
        for name in ("tiny", "paired", "cycle")
    }
    found["train and go on"] = [
        "train in/tiny.yaml -o run --steps 2",
        "train in/tiny.yaml -o run",
        "train in/tiny.yaml -o run --resume --json",
        "train in/tiny.yaml -o run --overwrite --steps 2 --name other --json",
    ]
    found["train on pairs"] = [
        "pairs in/blurred.tif in/a.tif -o pairs.zarr --patch 32 --min-correlation 0.1",
        "train in/tiny.yaml -o run --pairs pairs.zarr --patch 32 --json",
        (
            "train fine-tune -o tuned --pairs pairs.zarr --patch 32 --steps 2 "
            "--start-from sem-restore --json"
        ),
    ]
    found["train, then enhance"] = [
        "train in/tiny.yaml -o run --steps 2",
        "models info run/tiny.safetensors --json",
        "enhance in/a.tif -o out.tif --model run/tiny.safetensors --json",
        "models import run/tiny.safetensors",
        "models list --json",
        "enhance in/a.tif -o out2.tif --model tiny --json",
    ]
    return found


def enhancing() -> dict[str, list[str]]:
    """Command enhance."""
    found = {}
    for model in MODELS:
        by = f"enhance in/a.tif --model {model} --precision fp32 --json"
        found[f"enhance by {model}"] = [f"{by} -o out.ome.zarr"]
        found[f"enhance by {model} in tiles"] = [f"{by} --tile 64 -o out.ome.zarr"]
    for norm in ("auto", "exact", "frozen", "tile"):
        found[f"enhance, norm {norm}"] = [
            "train in/cycle.yaml -o run --steps 1 --quiet",
            (
                "enhance in/a.tif -o out.ome.zarr --model run/cycle.safetensors --json "
                f"--norm {norm} --tile 64"
            ),
        ]
    found["enhance to other formats"] = [
        "enhance in/a.tif -o out.tif --dtype uint8",
        "enhance in/u16.tif -o out.ome.tif --json",
        "enhance in/small.png -o out.png --json",
    ]
    found["enhance a stack"] = [
        "enhance in/stack.ome.tif -o out.ome.tif --json",
        "info out.ome.tif --json",
        "enhance in/stack.ome.tif -o out.ome.zarr",
        "enhance in/stack.ome.tif -o plane.ome.zarr --plane 1 --json",
    ]
    found["enhance twice as fine, a stack"] = [
        "enhance in/stack.ome.tif -o out.ome.tif --model sem-2x --json"
    ]
    found["enhance, resampled"] = [
        f"enhance in/a.tif -o {way}.ome.zarr --model ssum-sem --resample {way} "
        "--pixel-size-nm 30 --json"
        for way in ("auto", "keep", "never")
    ]
    found["enhance otherwise"] = [
        "enhance in/a.tif -o a.tif --no-haze --json",
        "enhance in/a.tif -o b.tif --no-resample --halo-tolerance 0.1 --tile 32 --json",
        "enhance in/nan.tif -o c.tif --json",
        "enhance in/flat.png -o d.tif --json",
        "enhance in/tiny.png -o e.tif --json",
        "enhance in/store.ome.zarr -o f.ome.zarr --level 1 --json",
    ]
    found["enhance, go on"] = [
        "py: interrupted(semsr.enhance, 'in/a.tif', 'out.ome.zarr', tile=64)",
        "info out.ome.zarr",
        "enhance in/a.tif -o out.ome.zarr --tile 64",
        "enhance in/a.tif -o out.ome.zarr --tile 96 --resume",
        "enhance in/a.tif -o out.ome.zarr --tile 64 --resume --json",
        "enhance in/a.tif -o out.ome.zarr --tile 64 --resume --json",
    ]
    return found


def restoring() -> dict[str, list[str]]:
    """Command restore."""
    found = {
        f"restore by {method}": [
            f"restore in/blurred.tif -o a.tif --method {method} --psf 1.5px --json",
            f"restore in/blurred.tif -o b.tif --method {method} --psf 15nm --tile 64",
        ]
        for method in METHODS
    }
    found["restore otherwise"] = [
        "restore in/blurred.tif -o a.tif --json",
        (
            "restore in/blurred.tif -o b.tif --psf in/psf.tif --method richardson-lucy "
            "--iterations 3 --tv 0.002 --dtype uint8 --json"
        ),
        "restore in/blurred.tif -o c.tif --psf 1.5px --balance 0.1 --json",
        "restore in/stack.ome.tif -o d.ome.tif --psf 1px --json",
        "restore in/stack.ome.tif -o d.ome.tif --psf 1px",
        "restore in/stack.ome.tif -o e.ome.zarr --psf 1px",
    ]
    found["restore, go on"] = [
        (
            "py: interrupted(semsr.restore_image, 'in/blurred.tif', 'out.ome.zarr', "
            "tile=64, psf='1.5px')"
        ),
        "restore in/blurred.tif -o out.ome.zarr --tile 64 --psf 1.5px",
        "restore in/blurred.tif -o out.ome.zarr --tile 64 --psf 1.5px --resume --json",
    ]
    return found


def measuring() -> dict[str, list[str]]:
    """Commands frc, frc-map, spectrum, metrics, gaps, histogram."""
    found = {}
    for criterion in ("1/7", "half-bit", "3-sigma"):
        by = f"--criterion {criterion} --json"
        found[f"frc {criterion}"] = [
            f"frc in/e1.tif in/e2.tif {by}",
            f"frc in/e1.tif {by}",
            f"frc in/e1.tif in/e2.tif --estimator plain {by}",
        ]
        found[f"frc-map {criterion}"] = [
            f"frc-map in/e1.tif in/e2.tif -o out.ome.zarr --step 32 {by}",
            f"frc-map in/e1.tif in/e2.tif -o out.tif --blocks-per-axis 2 {by}",
        ]
    found["frc otherwise"] = [
        "frc in/e1.tif in/e2.tif",
        "frc in/e1.tif in/a.tif --reference --tukey 0.2 --json",
        "frc in/e1.tif in/e1.tif --json",
        "frc in/e1.tif in/e1.tif --allow-self --json",
        "frc in/a.png --json",
        "frc in/flat.png in/flat.png --json",
        "frc in/nan.tif --json",
    ]
    found["frc-map otherwise"] = [
        "frc-map in/e1.tif -o one.tif --block 64 --step 64 --fill nearest --json",
        "frc-map in/e1.tif in/e2.tif -o one.tif",
        "frc-map in/e1.tif in/e2.tif -o two.ome.zarr --estimator plain --step 64",
    ]
    found["spectrum"] = [
        "spectrum in/a.tif --json",
        "spectrum in/a.tif -o s.csv",
        "spectrum in/a.tif -o s.tif --tukey 0.3",
        "spectrum in/f32.tif -o s.ome.zarr --json",
        "spectrum in/a.tif -o s.csv",
    ]
    found["metrics"] = [
        "metrics in/e1.tif in/a.tif --json",
        "metrics in/e1.tif in/a.tif",
        "metrics in/e1.tif --json",
        "metrics in/f32.tif in/a.tif --match affine --json",
        "metrics in/u16.tif in/u16.tif --json",
        "metrics in/e1.tif in/a.tif --data-range 100 --json",
    ]
    found["decorrelation"] = [
        "decorrelation in/a.tif --json",
        "decorrelation in/a.tif --block 64",
    ]
    found["error-map"] = [
        "error-map in/a.tif in/e1.tif -o em.ome.zarr --json",
        "error-map in/a.tif in/e1.tif -o em.tif --unit percent --no-align",
    ]
    found["repeatability"] = [
        "repeatability in/a.tif in/e1.tif -o rp.ome.zarr --json",
        "repeatability in/a.tif in/e1.tif -o rp.tif --part rest --unit percent",
    ]
    found["gaps"] = [
        "gaps in/discs.png --json",
        "gaps in/discs.png --pixel-size-nm 5",
        "gaps in/discs_worse.png in/discs.png --json",
        "gaps in/discs_worse.png in/discs.png --table gaps.csv --bin-width 2",
        "gaps in/discs.png --dark --min-diameter-px 6 --reach 0.5 --json",
    ]
    found["replay"] = [
        "crop in/a.tif -o cut.ome.zarr --box 5 6 70 80",
        "replay cut.ome.zarr --json",
        "replay cut.ome.zarr",
    ]
    found["figure"] = [
        "figure in/a.tif -o out/one.png --dpi 100 --json",
        "figure in/a.tif in/u16.tif -o out/two.tif --dpi 100 --greys common --json",
        "figure in/a.tif -o out/part.png --dpi 100 --inset 5 5 25 30 --caption Sample.",
    ]
    found["report"] = [
        "report in/a.tif in/u16.tif -o out/page.html --json",
        "report in/a.tif::in/e1.tif -o out/pair.html --criterion half-bit --greys own",
    ]
    found["profile"] = [
        "profile in/discs.png --line 5,5,60,90 --json",
        "profile in/a.tif --line 5,5,60,70 --width 5 --pixel-size-nm 5,4",
        "profile in/u16.tif --line 5,5,60,70 --polarity dark --pixel point --json",
    ]
    found["histogram"] = [
        "histogram in/a.tif --json",
        "histogram in/a.tif in/u16.tif --bins 32 --json",
        "histogram in/f32.tif in/e1.tif",
    ]
    return found


def modelling() -> dict[str, list[str]]:
    """Commands models and demo."""
    found = {
        f"models info {name}": [f"models info {name} --json", f"models info {name}"]
        for name in MODELS
    }
    found["models list"] = ["models list --json", "models list"]
    found["models architectures"] = [
        "models architectures --json",
        "models architectures",
    ]
    found["models out and in"] = [
        "models export sem-restore -o mine.safetensors --json",
        "models export sem-restore -o mine.safetensors",
        "models import mine.safetensors",
        "models import mine.safetensors --overwrite --json",
        "models list",
    ]
    found["models check"] = [
        "models check sem-restore --discs 6 --size-px 128 --json",
        "models check sem-2x --discs 4 --size-px 128 --images in/a.tif --seed 2",
    ]
    found["models check, written"] = [
        "models export sem-restore -o m.safetensors",
        "models check m.safetensors --write --discs 4 --size-px 128 --task images",
        "models info m.safetensors --json",
    ]
    found["demo"] = [
        "demo out --frame-px 144 --size 192 --restorer sem-restore --steps 2"
    ]
    return found


def refusing() -> dict[str, list[str]]:
    """Wrong inputs for each verb: what is wrong, and the sentence that says so."""
    outputs = {
        "convert": "out.tif",
        "degrade": "out.tif",
        "crop": "-o out.tif --box 0 0 9 9",
        "enhance": "-o out.tif",
        "restore": "-o out.tif --psf 1px",
        "frc-map": "-o out.tif",
        **dict.fromkeys(
            ["info", "frc", "spectrum", "metrics", "gaps", "histogram"], ""
        ),
    }
    inputs = words("""
        missing.tif cut_off.png cut_off.tif words.txt words.png rgb.png all_nan.tif
        tiny.png empty scan stack.ome.tif
    """)
    found = {
        f"{verb} refuses {name}": [f"{verb} in/{name} {output}"]
        for verb, output in outputs.items()
        for name in inputs
    }
    found |= {
        f"{verb} refuses shapes": [f"{verb} in/a.png in/small.png {outputs[verb]}"]
        for verb in ("frc", "frc-map", "metrics", "gaps", "histogram")
    }
    reading = (
        "--level 7",
        "--plane 9",
        "--channel 3",
        "--series 5",
        "--pixel-size-nm -1",
        "--pixel-size-nm many",
        "--databar-rows 900",
        "--colour blue",
        "--level x",
    )
    for verb in ("convert", "enhance", "metrics"):
        found[f"{verb} refuses reading options"] = [
            f"{verb} in/a.tif {outputs[verb]} {option}" for option in reading
        ]
    found |= {f"{verb} without words": [verb] for verb in VERBS if verb != "demo"}
    refused = {
        "convert": [
            "in/a.png out.jpg",
            "in/a.png no/such/folder/out.tif",
            "in/a.png in/a.png --overwrite",
            "in/a.png out.tif --dtype int7",
        ],
        "degrade": [
            "in/a.png out.tif --kind rain",
            "in/a.png out.tif --photons -1",
            "in/nan.tif out.tif",
            "in/a.png out.tif --seed x",
        ],
        "simulate": [
            "out --phantom cube",
            "out --frames-grid 2",
            "out --frame-px 0",
            "out --overlap 2",
            "out --from in/tiny.png",
            "out --from in/missing.tif",
            "in/scan",
            "out --from in/a.png --sem",
            "out --pitch-nm -3",
        ],
        "stitch": [
            "in/missing -o out.tif",
            "in/empty -o out.tif",
            "in/bad_scan -o out.tif",
            "in/bad_scan -o out.tif --grid 2x2 --overlap 0.2",
            "in/scan -o out.tif --grid 5x5",
            "in/scan -o out.tif --positions in/missing.csv",
            "in/scan -o out.tif --positions in/positions_wrong.csv",
            "in/scan -o out.tif --overlap 2",
            "in/scan -o out.jpg",
            "in/scan -o out.tif --flat-field in/small.png",
            "in/scan -o out.tif --blend nothing",
            "in/a.png -o out.tif",
            "in/scan",
        ],
        "register": [
            "in/a.png in/a.tif -o out.tif",
            "in/a.tif in/coarse.tif -o out.tif --landmarks missing.csv",
            "in/a.tif in/coarse.tif -o out.tif --transform missing.json",
        ],
        "judge": [
            "in/a.png in/a.tif -o page.html",
            "in/a.tif in/coarse.tif -o page.txt",
            "in/a.tif in/coarse.tif -o page.html --models nobody",
        ],
        "crop": [
            "in/a.png -o out.tif",
            "in/a.png -o out.tif --box 50 50 10 10",
            "in/a.png -o out.tif --box 0 0 999 999",
            "in/a.png -o out.tif --box-nm 0 0 10 10",
            "in/a.png -o out.tif --like in/coarse.tif",
            "in/a.tif -o out.tif --like in/coarse.tif --box 0 0 9 9",
            "in/a.tif -o out.tif --align --box 0 0 9 9",
            "in/a.tif -o out.tif --box 0 0 9 9 --like-out like.tif",
            "in/a.tif -o out.tif --like in/missing.tif",
            "in/all_nan.tif -o out.tif --gap-free",
        ],
        "pairs": [
            "in/a.tif in/missing.tif -o out.zarr",
            "in/a.tif in/small.png -o out.zarr --patch 32",
            "in/a.tif in/a.tif -o out.tif",
            "in/a.tif in/a.tif -o out.zarr --patch 900",
            "in/a.tif in/a.tif -o out.zarr --transform in/missing.json",
            "in/low in/a.tif -o out.zarr --patch 32",
            "in/low in/empty -o out.zarr --patch 32",
            "in/a.tif in/a.tif -o out.zarr --validation 2",
            "in/flat.png in/flat.png -o out.zarr --patch 16",
            "in/nan.tif in/nan.tif -o out.zarr --patch 16",
        ],
        "train": [
            "in/missing.yaml -o run",
            "nothing -o run",
            "in/wrong_name.yaml -o run",
            "in/wrong_value.yaml -o run",
            "in/wrong_key.yaml -o run",
            "in/wrong_syntax.yaml -o run",
            "in/words.txt -o run",
            "in/tiny.yaml -o in/scan",
            "in/tiny.yaml -o run --resume",
            "in/tiny.yaml -o run --pairs in/missing.zarr",
            "in/tiny.yaml -o run --steps 0",
            "in/tiny.yaml -o run --start-from nothing",
            "fine-tune -o run",
            "in/tiny.yaml",
        ],
        "enhance": [
            "in/a.png -o out.jpg",
            "in/a.png -o out.tif --model nothing",
            "in/a.png -o out.tif --model in/a.png",
            "in/a.png -o out.tif --model in/missing.safetensors",
            "in/a.png -o out.tif --tile 0",
            "in/a.png -o out.tif --norm none",
            "in/a.png -o out.tif --device cuda:99",
            "in/a.png -o out.tif --device abacus",
            "in/a.png -o out.tif --memory-gb 0.001",
            "in/a.png -o out.tif --resume",
            "in/a.png -o out.ome.zarr --resume --overwrite",
            "in/a.png -o out.tif --dtype int7",
            "in/a.png -o out.tif --no-resample --resample keep",
            "in/a.png -o out.ome.zarr --scheduler nowhere",
            "in/nan.tif -o out.png",
        ],
        "restore": [
            "in/a.png -o out.tif --method magic",
            "in/a.png -o out.tif --psf 1.5nm",
            "in/a.png -o out.tif --psf wide",
            "in/a.png -o out.tif --psf in/missing.tif",
            "in/a.png -o out.tif --psf in/note.json",
            "in/a.png -o out.tif --psf 1px --iterations 0",
            "in/a.png -o out.tif --psf 1px --tv -1",
            "in/nan.tif -o out.tif --psf 1px",
            "in/flat.png -o out.tif",
            "in/a.png -o out.tif --resume --psf 1px",
        ],
        "frc": [
            "in/a.png --criterion 1/8",
            "in/a.png --tukey 3",
            "in/a.png --reference",
            "in/a.png in/missing.png",
            "in/a.tif in/coarse.tif",
        ],
        "frc-map": [
            "in/a.tif in/e1.tif -o out.tif --block 9000",
            "in/a.tif in/e1.tif -o out.tif --step 0",
            "in/a.tif in/e1.tif -o out.tif --block 32 --blocks-per-axis 2",
            "in/a.tif in/e1.tif -o out.jpg",
        ],
        "spectrum": ["in/a.tif -o out.jpg", "in/a.tif --tukey 2", "in/nan.tif --json"],
        "metrics": [
            "in/a.tif in/missing.tif",
            "in/a.tif in/e1.tif --data-range 0",
            "in/a.tif --match affine",
            "in/nan.tif in/nan.tif --json",
        ],
        "gaps": ["in/flat.png", "in/discs.png --reach -1", "in/nan.tif"],
        "figure": [
            "in/a.tif -o out/bad.jpg",
            "in/a.tif -o out/bad.png --inset 5 5 5 30",
            "in/a.tif -o out/bad.png --width-mm 5",
        ],
        "replay": ["in/a.tif", "in/missing.tif", "in/a.tif --inputs in/missing"],
        "report": [
            "-o out/page.html",
            "in/a.tif -o out/page.pdf",
            "in/a.tif::in/small.png -o out/page.html",
            "in/scan.json -o out/page.html",
        ],
        "profile": [
            "in/a.tif",
            "in/a.tif --line 1,2,3",
            "in/a.tif --line 5,5,5,5",
            "in/a.tif --line 5,5,5,5000",
            "in/a.tif --line 5,5,60,70 --width 0",
            "in/flat.png --line 5,5,20,20",
        ],
        "histogram": ["in/a.tif --bins 0", "in/nan.tif --json", "in/a.tif --bins x"],
        "models": [
            "info nothing",
            "info in/a.png",
            "export nothing -o out.safetensors",
            "export sem-restore",
            "export sem-restore -o out.zip",
            "import in/a.png",
            "import in/missing.pth",
            "import in/words.txt",
            "check sem-restore --discs 0",
            "check nothing",
            "list --write",
            "info sem-restore -o out.safetensors",
            "check sem-restore --images in/missing.tif",
            "remove sem-restore",
        ],
        "demo": ["out --frame-px 20", "out --size 1", "in/scan", "out --model nothing"],
    }
    found |= {
        f"{verb} refuses what is wrong": [f"{verb} {said}" for said in sayings]
        for verb, sayings in refused.items()
    }
    found["errors as JSON"] = [
        "info in/missing.tif --json",
        "metrics in/a.png in/small.png --json",
        "enhance in/a.png -o out.tif --model nothing --json --quiet",
    ]
    return found


def batches() -> dict[str, list[str]]:
    """Run steps of each image of a folder; the steps are written where they run."""
    chain = (
        "{inputs: in/low, output: out, steps: [frc, {restore: {psf: 1.5px, method: "
        "wiener}}, {name: after, frc: }, {metrics: {reference: '{input}'}}]}"
    )

    def steps(text: str) -> str:
        return f"py: open('steps.yaml', 'w').write({text!r})"

    run = "batch steps.yaml --json"
    return {
        "batch of a chain": [steps(chain), run],
        "batch of a chain, told": [steps(chain), "batch steps.yaml"],
        "batch goes on": [
            steps(chain),
            run,
            "py: import shutil; shutil.rmtree('out/restore', ignore_errors=True)",
            run,
            f"{run} --overwrite",
        ],
        "batch with another list": [
            steps(chain),
            run,
            steps(chain.replace("1.5px", "2px")),
            run,
        ],
        "batch of an image that fails": [
            steps("{inputs: in/*.png, output: out, steps: [{crop: {box: 5 6 70 80}}]}"),
            run,
        ],
        "batch by two workers": [steps(chain), f"{run} --workers 2"],
    }


def python() -> dict[str, list[str]]:
    """Check the Python interface: each function, with the same input."""
    lines = {
        "read": "!semsr.read('in/u16.tif')",
        "write": "semsr.write(semsr.read('in/u16.tif'), 'out.ome.zarr')",
        "info": "!semsr.info('in/a.tif')",
        "convert": "!semsr.convert('in/a.tif', 'out.ome.zarr', dtype='float32')",
        "degrade": "!semsr.degrade('in/a.tif', kind='hybrid', seed=3)",
        "enhance": "!semsr.enhance('in/a.tif', precision='fp32')",
        "enhance an array": "!semsr.enhance(np.eye(96), model='sem-restore')",
        "enhance to a file": "!semsr.enhance('in/a.tif', 'out.ome.zarr', tile=64)",
        "list_models": "!semsr.list_models()",
        "train": "!semsr.train('in/tiny.yaml', 'run', steps=2)",
        "check_model": "!semsr.check_model('sem-restore', discs=4, size_px=128)",
        "crop": "!semsr.crop('in/a.tif', box=(5, 6, 70, 80))",
        "crop like": "!semsr.crop('in/a.tif', 'o.tif', like='in/coarse.tif')",
        "cut_pairs": "!semsr.cut_pairs('in/low', 'in/high', 'o.zarr', patch=32)",
        "frc": "!semsr.frc('in/e1.tif', 'in/e2.tif')",
        "frc of one": "!semsr.frc('in/e1.tif', criterion='half-bit')",
        "frc_map": "!semsr.frc_map('in/e1.tif', 'in/e2.tif', step=32)",
        "spectrum": "!semsr.spectrum('in/a.tif', 'out.csv')",
        "metrics": "!semsr.metrics('in/e1.tif', 'in/a.tif')",
        "histogram": "!semsr.histogram('in/e1.tif', 'in/a.tif', bins=16)",
        "figure": "!semsr.figure(['in/a.tif'], 'out/three.png', dpi=100)",
        "report": "!semsr.report('in/a.tif', 'out/page.html')",
        "profile": "!semsr.profile('in/a.tif', (5, 5, 60, 70), width=3)",
        "gaps": "!semsr.gaps('in/discs_worse.png', 'in/discs.png')",
        "restore_image": "!semsr.restore_image('in/blurred.tif', psf='1.5px')",
        "restore to a file": "!semsr.restore_image('in/blurred.tif', 'o.tif', seed=1)",
        "simulate_scan": "!semsr.simulate_scan('o', frames_grid=(2, 2), frame_px=64)",
        "stitch_frames": "!semsr.stitch_frames('in/scan', 'o.ome.zarr', blend='seam')",
        "refuses an option": "semsr.enhance('in/a.tif', colour=3)",
        "refuses a file": "semsr.read('in/words.png')",
        "refuses shapes": "semsr.metrics(np.eye(9), np.eye(8))",
        "names": "!sorted(name for name in semsr.__all__)",
        "micrograph": "!semsr.Micrograph(np.eye(4), pixel_size_nm=(2.0, 3.0))",
    }
    return {f"python {name}": [f"py: {line}"] for name, line in lines.items()}


def real(data: Path) -> dict[str, list[str]]:
    """Check images of real instruments, cut small before anything slow."""
    found = {}
    files = sorted((data / "vendor").glob("*.tif"))
    files += sorted((data / "sem" / "matchmaker-jeol").glob("*.bmp"))[:1]
    for path in files:
        found[f"real {path.name}"] = [
            f"info {path} --json",
            f"crop {path} -o part.ome.zarr --box 0 0 128 128 --json",
            "enhance part.ome.zarr -o out.ome.zarr --model sem-restore --json",
        ]
    for path in (data / "stitch").glob("*.czi"):
        found[f"real {path.name}"] = [f"stitch {path} -o out.ome.zarr --json"]
    both = sorted((data / "frc_unclear").glob("*.tif"))
    if len(both) == 2:
        found["real frc"] = [
            f"crop {both[0]} -o 1.tif --box 0 0 256 256",
            f"crop {both[1]} -o 2.tif --box 0 0 256 256",
            "frc 1.tif 2.tif --json",
        ]
    return found
