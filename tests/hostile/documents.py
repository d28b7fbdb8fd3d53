"""Models, recipes and other files that say what is to be done, to be damaged."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from napari_semsr import io
from napari_semsr.core import Affine, BSplineDisplacement, Elastic, Micrograph, run
from tests.hostile.commands import PATIENCE, say
from tests.hostile.play import Files
from tests.mutations import damaged_bytes, damaged_json, damaged_lines, damaged_value
from tests.tiny_models import write_tiny_recipe

# Models: the header and the card in it, and the bytes.

_NETWORKS: dict[str, dict[str, Any]] = {
    "two-scale": {"width": 4, "fine_blocks": 1, "dilations": [1]},
    "informed": {"widths": [4, 8, 8], "down": [1, 1, 1], "up": [1, 1]},
    "place": {"width": 4, "dilations": [1, 2]},
    "correction": {"network": "srcnn", "options": {"widths": [4, 4]}},
    "multi-residual": {"width": 4, "blocks": 1},
    "multi-scale-unet": {"width": 8, "levels": 2},
    "de-haan-unet": {"width": 2, "levels": 2},
    "srcnn": {"widths": [4, 4]},
    "srcnn-attention": {"widths": [4, 4]},
    "espcn": {"widths": [4, 4], "scale": 2},
    "vdsr": {"width": 4, "layers": 3},
    "edsr": {"width": 4, "blocks": 1},
    "resnet": {"width": 4, "blocks": 1},
    "pix2pix": {"width": 2, "levels": 3},
    "srgan": {"width": 4, "blocks": 1},
    "esrgan": {"width": 4, "blocks": 1, "growth": 2},
}


def _write_models(folder: Path) -> None:
    """Write a small model of every architecture."""
    from napari_semsr.models import ARCHITECTURES, ModelCard, build_network, save_model

    assert set(_NETWORKS) == set(ARCHITECTURES)
    for name, options in _NETWORKS.items():
        card = ModelCard(
            name=name, architecture=name, options=options, receptive_field=24
        )
        path = folder / f"{name}.safetensors"
        save_model(path, build_network(name, options), card, half=True)


def read_model(path: Path) -> None:
    from napari_semsr.models import load_model, load_training_networks, read_card

    read_card(path)
    load_training_networks(path)
    load_model(path)


def split_model(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Give the header of a model file, and the weights behind it."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_model(header: Any, weights: bytes) -> bytes:
    """Write a model file, whose header ends at a multiple of eight bytes."""
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    return struct.pack("<Q", len(told)) + told + weights


def damaged_model(data: bytes, rng: Random) -> bytes:
    """Damage a model file: its card, the table of its weights, or any byte."""
    kind = rng.random()
    if kind < 0.2:
        return damaged_bytes(data, rng)
    header, weights = split_model(data)
    said = header["__metadata__"]
    if kind < 0.5:
        card = json.loads(said["card"])
        card["options"] = damaged_value(card["options"], rng)
        said["card"] = json.dumps(card)
    elif kind < 0.75:
        said["card"] = damaged_json(said["card"], rng).decode("latin-1")
    else:
        header = damaged_value(header, rng)
    return join_model(header, weights)


# Recipes.


def _write_recipes(folder: Path) -> None:
    write_tiny_recipe(folder / "tiny.yaml")
    for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        if "include:" not in text:
            (folder / path.name).write_text(text, encoding="utf-8")


def _read_recipe(path: Path) -> None:
    from napari_semsr.training import load_recipe

    load_recipe(path)


def damaged_yaml(data: bytes, rng: Random) -> bytes:
    """Damage YAML: what it says, or its letters."""
    if rng.random() < 0.3:
        return damaged_lines(data, rng)
    value = damaged_value(yaml.safe_load(data), rng)
    text = json.dumps(value) if rng.random() < 0.5 else _yaml(value)
    return text.encode("utf-8", "replace")


def _yaml(value: Any) -> str:
    try:
        return yaml.safe_dump(value)
    except RecursionError:
        return json.dumps(value)


# Transforms, calibrations, tables.


def _write_transforms(folder: Path) -> None:
    sizes = {"shape": (40, 50), "pixel_size_nm": (5.0, 5.0)}
    side = io.ImageIdentity(name="a", digest="sha256:0", **sizes)
    affine = Affine.from_matrix(
        np.array([[1.0, 0.1], [-0.1, 1.0]]), np.array([3.0, 4.0])
    )
    bent = BSplineDisplacement((0.0, 0.0), (50.0, 50.0), np.ones((2, 8, 9)))
    quality = {"error_nm": 2.0, "residuals": {"places_nm": [[1.0, 2.0]], "side_nm": 9}}
    for name, found in (("affine", affine), ("elastic", Elastic(affine, bent))):
        stored = io.StoredTransform(found, side, side, quality)
        io.write_transform(folder / f"{name}.json", stored)


def _use_transform(path: Path) -> None:
    stored = io.read_transform(path)
    stored.moving.describe_difference(Micrograph(np.zeros((40, 50)), (5.0, 5.0)))
    stored.transform(np.array([[0.0, 0.0], [100.0, 100.0]]))


def _write_calibration(folder: Path) -> None:
    said = {"pixel_size_nm": [5.0, 5.1], "pixel_size_sd_nm": 0.1, "distortion": 0.01}
    said |= {"distortion_sd": 0.001, "shape": [40, 50], "centre_px": [1.0, 2.0]}
    (folder / "grating.json").write_text(json.dumps(said))


def _read_calibration(path: Path) -> None:
    from napari_semsr.io import read_calibration

    read_calibration(path)


def _write_tables(folder: Path) -> None:
    columns = ("moving_y_nm", "moving_x_nm", "fixed_y_nm", "fixed_x_nm")
    for name, mark, point in (("plain", ",", "."), ("excel", ";", ",")):
        rows = [mark.join(columns)]
        rows += [mark.join(f"{n}{point}5" for n in range(4)) for _ in range(5)]
        (folder / f"{name}.csv").write_text("\n".join(rows))


def _read_tables(path: Path) -> None:
    io.read_sheet(path, "landmarks")
    image = Micrograph(np.zeros((40, 50)), (5.0, 5.0))
    io.read_landmarks(path, image, image)


def _write_measures(folder: Path) -> None:
    pair = Micrograph(np.random.default_rng(0).random((64, 64)), (5.0, 5.0))
    a, b = (folder.with_name(name) for name in ("a.tif", "b.tif"))
    for path in (a, b):
        io.write(pair, path)
    rows = f"image,reference,group\n{a},{b},1\n{b},{a},2\n"
    (folder / "images.csv").write_text(rows)


def _measure(path: Path) -> bool:
    with PATIENCE.endless():
        return say("metrics", path, "--json")[0] == 0


# Projects.


@dataclass(frozen=True)
class Projects:
    """Folders of projects whose file is damaged."""

    name: str = "project"
    damage: Callable[[bytes, Random], bytes] = damaged_json

    def prepare(self, folder: Path) -> tuple[bytes, dict[Path, bytes]]:
        """Save a project with layers of each kind."""
        place = folder / "session.semsr"
        image = Micrograph(np.random.default_rng(0).random((40, 50)), (5.0, 5.0))
        io.write(image, folder / "input.tif")
        place.mkdir()
        io.write(image, place / "made.ome.zarr")
        io.write_array(np.arange(24).reshape(2, 3, 4), place / "stack.zarr")
        key, noted = io.record_input(place, folder / "input.tif", {}, frames=False)
        shown = {"scale": [5.0, 5.0], "metadata": {"a": 1}, "features": {}}
        table = {"n": {"dtype": "int64", "values": [1, 2]}}
        more = {**shown, "features": table}
        points: Any = {"data": [[1.0, 2.0], [3.0, 4.0]], "attributes": more}
        shapes: Any = {"data": [[[0, 0], [1, 1]]], "attributes": shown}
        layers = (
            io.ProjectLayer(kind="image", name="made", store="made.ome.zarr"),
            io.ProjectLayer(kind="image", name="stack", store="stack.zarr"),
            io.ProjectLayer(kind="image", name="in", input=key, read={"layer": 0}),
            io.ProjectLayer(kind="image", name="as", input=key, read={"plane": 0}),
            io.ProjectLayer(kind="points", name="points", **points),
            io.ProjectLayer(kind="shapes", name="shapes", **shapes),
        )
        io.write_project(place, io.Project(inputs={key: noted}, layers=layers))
        opened = run(io.open_project(place))
        assert not opened.missing, opened.messages
        stored = [path for path in (place / "stack.zarr").rglob("*") if path.is_file()]
        stack = {path: path.read_bytes() for path in sorted(stored)}
        return (place / "project.json").read_bytes(), stack

    def attempt(
        self, whole: tuple[bytes, dict[Path, bytes]], folder: Path, rng: Random
    ) -> None:
        """Damage the file, or the array beside it."""
        place = folder / "session.semsr"
        said, stack = whole
        if rng.random() < 0.8:
            (place / "project.json").write_bytes(self.damage(said, rng))
            run(io.open_project(place))
            return
        (place / "project.json").write_bytes(said)
        path = rng.choice(list(stack))
        damaged = self.damage if path.name == "zarr.json" else damaged_bytes
        path.write_bytes(damaged(stack[path], rng))
        try:
            run(io.open_project(place))
        finally:
            path.write_bytes(stack[path])


# Histories, from which an output is made again.


@dataclass(frozen=True)
class Histories:
    name: str = "history"
    damage: Callable[[Any, Random], Any] = damaged_value

    def prepare(self, folder: Path) -> tuple[Micrograph, list[bytes]]:
        """Make outputs by several steps, and keep what they tell."""
        import napari_semsr as semsr
        from napari_semsr.io import read

        image = Micrograph(np.random.default_rng(0).random((64, 64)), (5.0, 5.0))
        source = folder / "source.tif"
        io.write(image, source)
        made = [folder / f"{name}.tif" for name in ("cropped", "hazy", "restored")]
        semsr.crop(source, made[0], box=(4, 4, 40, 40))
        semsr.write(semsr.degrade(source, kind="fog"), made[1])
        semsr.restore(source, made[2], psf="1px")
        told = [read(path).provenance.model_dump_json().encode() for path in made]
        return image, told

    def attempt(
        self, whole: tuple[Micrograph, list[bytes]], folder: Path, rng: Random
    ) -> None:
        """Damage a history and make the output again."""
        from napari_semsr.jobs import REPLAY

        image, told = whole
        values = self.damage(json.loads(rng.choice(told)), rng)
        path = folder / "output.tif"
        _write_with_history(path, image, values)
        run(REPLAY.job(path))


def _write_with_history(path: Path, image: Micrograph, values: Any) -> None:
    """Write an image that tells anything of its history, as no writer would."""
    import tifffile

    record = {"record": 1, "name": "made", "pixel_size_nm": [5.0, 5.0]}
    record |= {"origin": [0.0, 0.0], "spacing_px": [1.0, 1.0], "provenance": values}
    text = f"napari-semsr={json.dumps(record)}"
    tifffile.imwrite(path, image.array(), description=text, metadata=None)


DOCUMENTS = (
    Files("model", _write_models, read_model, damaged_model),
    Files("recipe", _write_recipes, _read_recipe, damaged_yaml),
    Files("transform", _write_transforms, _use_transform),
    Files("calibration", _write_calibration, _read_calibration),
    Files("landmarks", _write_tables, _read_tables, damaged_lines),
    Files("measuring-table", _write_measures, _measure, damaged_lines),
    Projects(),
    Histories(),
)
