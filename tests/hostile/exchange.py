"""Networks of other programs to be damaged: ONNX files, and packages of bioimage.io."""

import io
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from tests.hostile.documents import damaged_yaml
from tests.hostile.play import Files
from tests.mutations import damaged_bytes

TEXT, WEIGHTS = "rdf.yaml", "weights.onnx"
_KERNEL = np.full((1, 1, 3, 3), 0.1, np.float32)
_FOUR = np.full((4, 1, 3, 3), 0.1, np.float32)


def _write_graphs(folder: Path) -> None:
    """Write graphs of one or a few layers, with sizes that are told and computed."""
    import onnx
    from onnx import helper

    same = {"pads": [1] * 4}
    shuffled = [
        helper.make_node("Conv", ["x", "w"], ["a"], **same),
        helper.make_node("DepthToSpace", ["a"], ["y"], blocksize=2),
    ]
    pooled = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[3, 3], **same),
        helper.make_node("Resize", ["a", "", "s"], ["y"], mode="nearest"),
    ]
    computed = [
        helper.make_node("Shape", ["x"], ["a"]),
        helper.make_node("Reshape", ["x", "a"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 1, 3, 2]),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 1, 3, 2]),
    ]
    repeated = [
        helper.make_node("Tile", ["x", "r"], ["a"]),
        helper.make_node("Slice", ["a", "i", "j", "k"], ["y"]),
    ]
    doubled = np.array([1, 1, 2, 2], np.float32)
    pairs = {"r": np.array([1, 2, 1, 1]), "i": np.array([0]), "j": np.array([1])}
    graphs: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "conv": ([helper.make_node("Conv", ["x", "w"], ["y"], **same)], {"w": _KERNEL}),
        "shuffle": (shuffled, {"w": _FOUR}),
        "pool": (pooled, {"s": doubled}),
        "sizes": (computed, {}),
        "repeat": (repeated, {**pairs, "k": np.array([1])}),
    }
    for name, (nodes, numbers) in graphs.items():
        stored = [onnx.numpy_helper.from_array(v, key) for key, v in numbers.items()]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", 1, (None, 1, None, None))],
            [helper.make_tensor_value_info("y", 1, None)],
            initializer=stored,
        )
        opsets = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString())


def damaged_graph(data: bytes, rng: Random) -> bytes:
    """Damage a graph: its bytes, or the numbers, operators and names of its layers."""
    import onnx

    if rng.random() < 0.5:
        return damaged_bytes(data, rng)
    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        node = rng.choice(model.graph.node)
        kind = rng.random()
        if kind < 0.4 and node.attribute:
            _change_attribute(rng.choice(node.attribute), rng)
        elif kind < 0.7 and model.graph.initializer:
            tensor = rng.choice(model.graph.initializer)
            values = onnx.numpy_helper.to_array(tensor).copy()
            values.flat[rng.randrange(values.size)] = _size(rng)
            made = onnx.numpy_helper.from_array(values, tensor.name)
            tensor.CopyFrom(made)
        elif kind < 0.9:
            names = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
            node.op_type = rng.choice(names)
        elif node.input:
            other = rng.choice(model.graph.node)
            place = rng.randrange(len(node.input))
            node.input[place] = rng.choice([*other.input, *other.output, ""])
    return bytes(model.SerializeToString())


def _change_attribute(attribute: Any, rng: Random) -> None:
    """Put another number into an attribute, or one number more."""
    if attribute.ints:
        if rng.random() < 0.2:
            attribute.ints.append(_size(rng))
        attribute.ints[rng.randrange(len(attribute.ints))] = _size(rng)
    elif attribute.HasField("i"):
        attribute.i = _size(rng)
    elif attribute.HasField("s"):
        attribute.s = rng.choice((b"", b"cubic", b"SAME_UPPER", b"\xff\n"))


def _size(rng: Random) -> int:
    """Choose a size, a stride or a count, mostly one that might be meant."""
    large = (-1, 0, 255, 4096, 65536, 10**6, 2**24, 2**31 - 1)
    return rng.choice((*range(10), 16, 31, 64, *large))


def _write_own(folder: Path, **card: Any) -> Path:
    """Write a small model of ours, always the same."""
    import torch

    from napari_semsr.models import ModelCard, build_network, save_model

    options = {"widths": [4, 4]}
    told = {"name": "tiny", "architecture": "srcnn", "options": options, **card}
    path = folder / "tiny.safetensors"
    torch.manual_seed(0)
    made = ModelCard(receptive_field=12, **told)
    save_model(path, build_network("srcnn", options), made)
    return path


def _write_onnx(folder: Path) -> None:
    """Write graphs of others, and one of ours with its card."""
    import napari_semsr as semsr

    _write_graphs(folder)
    own = _write_own(folder)
    semsr.export_model(own, folder / "ours.onnx")
    own.unlink()


def _write_packages(folder: Path) -> None:
    """Write packages of each scaling; the weights do not say what the text says."""
    import napari_semsr as semsr

    _write_graphs(folder)
    graphs = sorted(folder.glob("*.onnx"))
    scalings: tuple[dict[str, Any], ...] = (
        {"input_scaling": "percentiles", "pixel_size_nm": (5.0, 5.0)},
        {"input_scaling": "deviation"},
        {"input_scaling": "levels", "input_levels": (0.0, 255.0)},
    )
    for card in scalings:
        name = card["input_scaling"]
        own, made = _write_own(folder, **card), folder / f"{name}.zip"
        semsr.export_model(own, made, authors=["A. Tester"])
        own.unlink()
        files = unpacked(made.read_bytes())
        said, ours = yaml.safe_load(files[TEXT]), files[WEIGHTS]
        plain = {**said["weights"]["onnx"], "sha256": None}
        foreign = {**said, "weights": {"onnx": plain}}
        made.write_bytes(packed({TEXT: _told(said), WEIGHTS: ours}))
        files = {TEXT: _told(foreign), WEIGHTS: graphs[0].read_bytes()}
        (folder / f"{name}-foreign.zip").write_bytes(packed(files))
    for path in graphs:
        path.unlink()


def _told(said: Any) -> bytes:
    return yaml.safe_dump(said, sort_keys=False).encode()


def unpacked(data: bytes) -> dict[str, bytes]:
    """Give the files of a package by their names."""
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        return {name: held.read(name) for name in held.namelist()}


def packed(files: dict[Any, bytes]) -> bytes:
    """Pack files by their names, or by more that is said of them."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in files.items():
            package.writestr(name, data, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def damaged_package(data: bytes, rng: Random) -> bytes:
    """Damage a package: mostly its description, else its weights or any byte."""
    kind = rng.random()
    if kind < 0.25:
        return damaged_bytes(data, rng)
    files = unpacked(data)
    if kind < 0.85:
        files[TEXT] = damaged_yaml(files[TEXT], rng)
    else:
        files[WEIGHTS] = damaged_graph(files[WEIGHTS], rng)
    return packed(files)


def _import(path: Path) -> None:
    """Import a network, as ``semsr models import`` does."""
    import napari_semsr as semsr

    semsr.import_model(path, overwrite=True)


EXCHANGE = (
    Files("onnx", _write_onnx, _import, damaged_graph),
    Files("package", _write_packages, _import, damaged_package),
)
