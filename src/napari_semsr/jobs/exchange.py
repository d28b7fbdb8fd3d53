"""Model export and import: ONNX files and bioimage.io packages.

A package is a zip of ONNX weights and an ``rdf.yaml`` that describes their input;
``bioimageio.spec`` checks the description, without a network. What it cannot express is
an error, or becomes text in the package. Imported files are read as data: nothing in
them is unpickled or executed.
"""

import hashlib
import io
import json
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import FiniteFloat, ValidationError

from napari_semsr import core, inference, models
from napari_semsr.io import ReadOptions, replace_atomically
from napari_semsr.jobs.degrade import simulate_exposure, simulate_specimen
from napari_semsr.jobs.images import Image, get_image_name, open_image

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["semsr", "onnx", "bioimageio"]

SUFFIXES: Mapping[Kind, str] = {
    "semsr": ".safetensors",
    "onnx": ".onnx",
    "bioimageio": ".zip",
}
"""File suffix of each export format."""

_RUNS_CODE: Mapping[str, str] = {
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".ckpt": "a pickle of a training run",
    ".pt": "a pickle or TorchScript",
    ".pth": "a pickle or TorchScript",
    ".torchscript": "TorchScript",
    ".h5": "a model of Keras",
    ".keras": "a model of Keras",
    ".pb": "a graph of TensorFlow",
}  # suffixes of files that can execute code when loaded

_ONNX_LIMIT = 2**31  # bytes
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    LookupError,
    RuntimeError,  # also for features that zipfile lacks
    ValueError,
)  # errors from reading a damaged archive
_TEXT_LENGTH = 300  # characters of a file's text in a message; chosen: a few lines
_MAX_VALUES = 100_000  # chosen: descriptions at bioimage.io have some hundred
_TEXT_LIMIT = 2**20  # bytes of a description: those at bioimage.io have some thousand


class ExportOptions(core.Options):
    """Options for exporting a model."""

    to: Kind | None = core.option(None, "", "format; default: by the suffix")


class ImportOptions(core.Options):
    """Model card values that may be missing from an imported file."""

    name: str | None = core.option(
        None,
        "Name",
        "Name in the model library; default: the name in the file, or the file name.",
        pattern=r"^[\w.+-]{1,100}$",
    )
    pixel_size_nm: FiniteFloat | None = core.option(
        None,
        "Pixel size",
        "Pixel size that the model was trained on, in nm; images with other pixel "
        "sizes are resampled.",
        unit="nm",
        gt=0,
    )
    scaling: Literal["percentiles", "deviation", "levels"] | None = core.option(
        None,
        "Scaling",
        "Grey values mapped to 0 and 1 in the network input: percentiles of the "
        "image, its mean and one standard deviation above it, or fixed grey levels; "
        "default: as in the file, or percentiles.",
        choices={
            "percentiles of the image": "percentiles",
            "mean and standard deviation": "deviation",
            "fixed grey levels": "levels",
        },
    )
    percentiles: tuple[FiniteFloat, FiniteFloat] | None = core.option(
        None, "", "the two percentiles; default: 0.1 99.9", metavar=("LOW", "HIGH")
    )
    levels: tuple[FiniteFloat, FiniteFloat] | None = core.option(
        None, "", "the two grey levels; default: 0 1", metavar=("LOW", "HIGH")
    )
    grey: Literal["input", "unit"] | None = core.option(
        None,
        "Result",
        "input: scale the output back to the grey levels of the input; unit: keep "
        "it unchanged; default: as in the file, or input.",
        choices={
            "grey levels of the input": "input",
            "of the network": "unit",
        },
    )

    def get_card_values(self) -> dict[str, object]:
        """Return the values that were set, keyed as in a model card."""
        size = self.pixel_size_nm
        card_values = {
            "name": self.name,
            "pixel_size_nm": None if size is None else (size, size),
            "input_scaling": self.scaling or ("levels" if self.levels else None),
            "input_percentiles": self.percentiles,
            "input_levels": self.levels,
            "grey": self.grey,
        }
        return {key: value for key, value in card_values.items() if value is not None}


# Export.


def export_model_file(
    model: Path,
    target: Path,
    kind: Literal["onnx", "bioimageio"],
    *,
    field: Image | None,
    opening: ReadOptions,
    authors: Sequence[str],
) -> "models.ModelCard":
    """Export a model for other programs, and return its model card.

    `field`: the image whose statistics are fixed in a network that uses whole-image
    statistics.
    """
    loaded_model, note = models.load_model(model), ""
    if field is not None:
        loaded_model, note = _fix_statistics(loaded_model, field, opening)
    card, people = loaded_model.card, tuple[str, ...]()
    if kind == "bioimageio":
        named = card.training.get("authors")
        named = named if isinstance(named, list | tuple) else ()
        is_bundled = model.parent.resolve() == models.WEIGHTS.resolve()
        people = tuple(map(str, authors or named)) or (_OURS if is_bundled else ())
        if not people:
            msg = "A bioimage.io package must name its authors: set `authors`."
            raise core.CheckpointError(msg, code="missing-value")
    data = models.export_onnx(loaded_model.module, card)
    if kind == "bioimageio":
        ours = field is None and model.suffix == SUFFIXES["semsr"]
        own = model.read_bytes() if ours else None
        data = _create_package(loaded_model, note, data, people, own)
    with replace_atomically(target) as place:
        place.write_bytes(data)
    return card


def _fix_statistics(
    model: "models.LoadedModel", field: Image, opening: ReadOptions
) -> tuple["models.LoadedModel", str]:
    """Create a network with the statistics of one image fixed in its weights.

    Also returns a note on what the file does not contain.
    """
    image, usual = open_image(field, opening), inference.EnhanceOptions()
    module, condition = inference.configure_model_for_image(image, model, usual)
    if condition is None:
        msg = (
            f"{model.card.name} cannot use {get_image_name(field)}: `field` applies "
            "only to networks with whole-image statistics and to images with contrast."
        )
        raise core.CheckpointError(msg, code="option-without-effect")
    sentence = (
        f"It is fixed to the degradation of one image, {image.name}, and is intended "
        f"for similar images. Unlike {model.card.name}, it neither re-estimates noise "
        "and blur nor removes haze."
    )
    values = (round(value, 6) for value in condition)
    facts = dict(zip(core.FAULTS, values, strict=True))
    card = model.card.model_copy(
        update={
            "name": f"{model.card.name}-told"[:100],
            "description": f"{model.card.description} {sentence}",
            "training": {**model.card.training, "told": facts},
        }
    )
    return replace(module, card=card), sentence


_OURS = ("The napari-semsr developers",)
_HOME = "https://github.com/napari-semsr/napari-semsr"
_ARXIV = "https://arxiv.org/abs/"
_PAPERS: Mapping[str, tuple[str, str, str]] = {
    "multi-scale-unet": (
        "X. Gao et al., Sci. Rep. 14 (2024)",
        "doi",
        "10.1038/s41598-024-57056-4",
    ),
    "de-haan-unet": (
        "K. de Haan et al., Sci. Rep. 9, 12050 (2019)",
        "doi",
        "10.1038/s41598-019-48444-2",
    ),
    "srcnn": ("C. Dong et al., 2014", "url", f"{_ARXIV}1501.00092"),
    "espcn": ("W. Shi et al., CVPR 2016", "url", f"{_ARXIV}1609.05158"),
    "vdsr": ("J. Kim et al., CVPR 2016", "url", f"{_ARXIV}1511.04587"),
    "edsr": ("B. Lim et al., CVPRW 2017", "url", f"{_ARXIV}1707.02921"),
    "resnet": ("J.-Y. Zhu et al., ICCV 2017", "url", f"{_ARXIV}1703.10593"),
    "pix2pix": ("P. Isola et al., CVPR 2017", "url", f"{_ARXIV}1611.07004"),
    "srgan": ("C. Ledig et al., CVPR 2017", "url", f"{_ARXIV}1609.04802"),
    "esrgan": ("X. Wang et al., ECCVW 2018", "url", f"{_ARXIV}1809.00219"),
}
_SCALING = (
    "The package specifies grey-value scaling over the whole image. A program that "
    "scales each tile separately gives different results, with seams. Unlike in "
    "napari-semsr, the output is not scaled back to the grey values of the input."
)
_SHORTEST_NAME = 5  # of a package
_TINY = 1e-12  # added to the range by the reader of packages: below float32 precision
_SPARE = 64  # px of the test image beyond the influence of its borders; chosen


def _create_package(
    model: "models.LoadedModel",
    note: str,
    weights: bytes,
    authors: Sequence[str],
    ours: bytes | None,
) -> bytes:
    """Package a network, its description and test data as a zip file."""
    card = model.card
    probe_result = models.probe_network(model.module, stride=card.stride)
    if probe_result.norms or probe_result.halo is None:
        msg = (
            f"{card.name} uses whole-image statistics or context, but a bioimage.io "
            "package may be run in tiles: export the model as ONNX."
        )
        raise core.CheckpointError(msg, code="model-unsuitable")
    least = core.round_up(2 * probe_result.halo + card.stride, card.stride)
    side = core.round_up(least + _SPARE, card.stride)
    test_input, network_input, test_output = _create_test_data(model, side)
    files = {
        "weights.onnx": weights,
        "cover.png": _draw_cover(network_input, test_output),
        "README.md": _create_readme(card, note, probe_result.halo).encode(),
    }
    for name, array in (("test_input", test_input), ("test_output", test_output)):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        files[f"{name}.npy"] = buffer.getvalue()
    if ours is not None and card.architecture != "onnx":  # ONNX contains its weights
        files[card.name + SUFFIXES["semsr"]] = ours
    sides = {"least": least, "halo": probe_result.halo}
    description = _create_description(card, files, authors, **sides)
    _check_description(description, card.name)
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    package_bytes = io.BytesIO()
    with zipfile.ZipFile(package_bytes, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("rdf.yaml", text)
        for name, data in files.items():
            package.writestr(name, data)
    return package_bytes.getvalue()


def _create_test_data(
    model: "models.LoadedModel", side: int
) -> tuple[core.RealArray, core.RealArray, core.RealArray]:
    """Simulate a test image, and return its grey values, network input and output."""
    import torch

    sample = simulate_exposure(simulate_specimen((side, side))).data
    test_input = np.asarray(sample, dtype=np.float32)[None, None]
    card = model.card
    if card.input_scaling == "percentiles":
        low, high = core.measure_percentiles(sample, *card.input_percentiles)
    elif card.input_scaling == "levels":
        low, high = card.input_levels
    else:
        low = float(test_input.mean())
        high = low + float(test_input.std())
    network_input = (test_input - np.float32(low)) / np.float32(high - low)
    network_input = network_input.astype(np.float32)
    with torch.no_grad():
        test_output = model.module(torch.from_numpy(network_input)).numpy()
    return test_input, network_input, test_output


def _draw_cover(network_input: core.RealArray, test_output: core.RealArray) -> bytes:
    """Draw input and output side by side, in an image twice as wide as high."""
    from PIL import Image as Pictures

    side = 256
    halves = []
    for plane in (network_input[0, 0], test_output[0, 0]):
        low, high = np.percentile(plane, (0.1, 99.9))
        grey = np.clip((plane - low) / ((high - low) or 1), 0, 1)
        picture = Pictures.fromarray(np.rint(255 * grey).astype(np.uint8))
        halves.append(np.asarray(picture.resize((side, side))))
    cover = io.BytesIO()
    Pictures.fromarray(np.concatenate(halves, axis=1)).save(cover, "png")
    return cover.getvalue()


def _create_readme(card: "models.ModelCard", note: str, halo: int) -> str:
    pixels = ""
    if card.pixel_size_nm is not None:
        low, high = card.pixel_size_nm
        pixels = (
            f"The model was trained on pixel sizes from {low:g} to {high:g} nm. "
            "napari-semsr first resamples images with other pixel sizes, which a "
            "package cannot specify."
        )
    facts = json.dumps(card.training, indent=1, ensure_ascii=False)
    parts = (
        f"# {card.name}",
        card.description,
        note and f"**{note}**",
        "## Input and output",
        models.describe_input_scaling(card),
        _SCALING,
        (
            f"Each output pixel depends on a context margin of {halo} px on each side. "
            f"Tiles start at multiples of {card.stride} px. An output pixel is "
            f"1/{card.scale} the size of an input pixel."
        ),
        pixels,
        f"## Limits\n\n{card.limits or 'Not stated.'}",
        f"## Licence\n\n{card.licence}.",
        f"## Training and validation\n\n```json\n{facts}\n```",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _create_description(
    card: "models.ModelCard",
    files: Mapping[str, bytes],
    authors: Sequence[str],
    *,
    least: int,
    halo: int,
) -> dict[str, object]:
    """Create the description of a package, in the format of ``bioimageio.spec`` 0.5."""

    def describe_file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    citations = [{"text": "napari-semsr", "url": _HOME}]
    inner = str(card.options.get("network", card.architecture))
    if inner in _PAPERS:  # paper of the architecture
        text, kind, where = _PAPERS[inner]
        citations.append({"text": text, kind: where})
    return {
        "format_version": "0.5.3",
        "type": "model",
        "name": card.name.ljust(_SHORTEST_NAME, "-"),
        "description": card.description[:1024] or card.name,
        "authors": [{"name": name} for name in authors],
        "cite": citations,
        "license": card.licence,
        "covers": ["cover.png"],
        "documentation": "README.md",
        "git_repo": _HOME,
        "tags": ["2d", "electron-microscopy", "restoration", "super-resolution"],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [
            {
                "id": "input",
                "axes": _describe_axes(card, {"min": least, "step": card.stride}),
                "test_tensor": describe_file("test_input.npy"),
                "data": {"type": "float32"},
                "preprocessing": _describe_scaling(card),
            }
        ],
        "outputs": [
            {
                "id": "output",
                "axes": _describe_axes(card, None, halo=halo * card.scale),
                "test_tensor": describe_file("test_output.npy"),
                "data": {"type": "float32"},
            }
        ],
        "weights": {
            "onnx": {**describe_file("weights.onnx"), "opset_version": models.OPSET}
        },
        "attachments": [
            describe_file(n) for n in files if n.endswith(SUFFIXES["semsr"])
        ],
        "config": {"semsr": {"card": card.model_dump(mode="json")}},
    }


def _describe_axes(
    card: "models.ModelCard", size: dict[str, int] | None, *, halo: int = 0
) -> list[dict[str, object]]:
    """Describe the axes of the input, or of the output if `size` is None."""
    scale, unit = 1.0, {}
    if card.pixel_size_nm is not None:
        scale, unit = card.pixel_size_nm[0], {"unit": "nanometer"}
    axes: list[dict[str, object]] = [
        {"type": "batch"},
        {"type": "channel", "channel_names": ["grey"]},
    ]
    for name in ("y", "x"):
        axis: dict[str, object] = {"type": "space", "id": name, **unit, "scale": scale}
        if size is None:
            follows = {"tensor_id": "input", "axis_id": name, "offset": 0}
            axis |= {"scale": scale / card.scale, "size": follows, "halo": halo}
        else:
            axis["size"] = size
        axes.append(axis)
    return axes


def _describe_scaling(card: "models.ModelCard") -> list[dict[str, object]]:
    """Describe the grey-value scaling in terms of the bioimage.io specification."""
    if card.input_scaling == "levels":
        zero, one = card.input_levels
        gain = 1 / (one - zero)
        linear = {"gain": gain, "offset": -zero * gain}
        return [{"id": "scale_linear", "kwargs": linear}]
    name, kwargs = "zero_mean_unit_variance", dict[str, object]()
    if card.input_scaling == "percentiles":
        low, high = card.input_percentiles
        name, kwargs = "scale_range", {"min_percentile": low, "max_percentile": high}
    kwargs |= {"axes": ["channel", "y", "x"], "eps": _TINY}
    return [{"id": name, "kwargs": kwargs}]


# Import.


def check_no_executable_code(path: Path) -> None:
    """Raise an error if a file can execute code when loaded."""
    kind = _RUNS_CODE.get(path.suffix.lower())
    if kind is not None:
        msg = (
            f"{path.name} is {kind}, which can execute code when loaded: convert the "
            "network to ONNX."
        )
        raise core.CheckpointError(msg, code="unsafe-content")


def import_model_file(
    path: Path, options: ImportOptions
) -> tuple["nn.Module", "models.ModelCard"]:
    """Import a network from an ONNX file or a package, and probe it."""
    if path.suffix.lower() == ".zip":
        return _read_package(path, options)
    data = core.read_bytes(path, _ONNX_LIMIT)
    description = _clean_text(f"ONNX network {path.name}", 2000)
    start = {"name": _clean_name(path.stem), "description": description}
    return _create_network(data, path.name, path.parent, start, {}, options)


def _clean_name(text: str) -> str:
    """Return a valid name for a model card."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")[:100] or "model"


def _create_network(
    data: bytes,
    name: str,
    folder: Path | None,
    start: Mapping[str, object],
    statements: dict[str, object],
    options: ImportOptions,
) -> tuple["nn.Module", "models.ModelCard"]:
    """Check and probe a graph; `statements` override the defaults in `start`."""
    graph = models.read_graph(data, name, folder)
    card_base = {"licence": "as stated by its author", **start}
    card_values: dict[str, Any] = {}
    try:
        if models.CARD_KEY in graph.metadata:
            own = models.ModelCard.model_validate_json(graph.metadata[models.CARD_KEY])
            card_values = own.model_dump()
            training_record = {"architecture": own.architecture, **own.training}
            card_base = {**card_values, "training": training_record}
            size = own.pixel_size_nm
            # axes state only one bound
            if size is not None and statements.get("pixel_size_nm") == (size[0],) * 2:
                statements = {**statements, "pixel_size_nm": size}
        network, probe_result = models.probe_onnx_network(
            graph.serialise(), stride=card_values.get("stride")
        )
        new_card = {
            **card_base,
            **statements,
            **options.get_card_values(),
            "architecture": "onnx",
            "options": {"scale": network.scale, "stride": network.stride},
            "scale": network.scale,
            "stride": network.stride,
            "norms": False,
            "receptive_field": probe_result.halo or 0,
        }
        card = models.ModelCard.model_validate(new_card)
    except ValidationError as error:
        raise _create_invalid_error(error, name) from None
    if card_values.get("receptive_field") != card.receptive_field:  # differs
        fields = models.measure_effective_fields(
            network, stride=network.stride, halo=probe_result.halo
        )
        card = card.model_copy(update={"effective_field": fields})
    return network, card


_NANOMETRES: Mapping[str, float] = {
    "picometer": 1e-3,
    "angstrom": 0.1,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
}  # in nm


def _read_package(
    path: Path, options: ImportOptions
) -> tuple["nn.Module", "models.ModelCard"]:
    """Read a bioimage.io package: its description, then its ONNX weights."""
    try:
        with core.open_file(path) as file, zipfile.ZipFile(file) as package:
            content = _read_description(package, path.name)
            source, weights = _read_weights(package, content, path.name)
            description = _check_description(content, path.name)
    except _BAD_ZIP as error:
        text = str(error) or type(error).__name__
        reason = core.format_one_line(text, _TEXT_LENGTH).rstrip(".")
        msg = f"Cannot read {path.name} as a package: {reason}."
        raise core.CheckpointError(msg, code="model-damaged") from error
    statements = _get_card_values(description, path.name)
    licence = description.license or "as stated by its author"
    authors = [_clean_text(one.name, 200) for one in description.authors[:100]]
    start = {
        "name": _clean_name(description.name),
        "description": _clean_text(description.description or "", 2000),
        "licence": _clean_text(licence, 200),
        "grey": "unit",
        "training": {"authors": authors, "package": _clean_text(path.name, 200)},
    }
    name = f"{source} in {path.name}"
    return _create_network(weights, name, None, start, statements, options)


def _clean_text(value: object, longest: int) -> str:
    """Clean a string for a model card by joining or replacing surrogates."""
    whole = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole[:longest]


def _read_member(package: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read one file of a package, up to a size limit."""
    with package.open(name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        msg = f"{name} must be smaller than {limit / 2**20:g} MiB."
        raise core.CheckpointError(msg, code="file-too-large")
    return data


def _read_description(package: zipfile.ZipFile, name: str) -> dict[str, object]:
    """Read the description of a package."""
    names = set(package.namelist())
    description_files = [
        n for n in ("bioimageio.yaml", "rdf.yaml", "model.yaml") if n in names
    ]
    if not description_files:
        msg = f"{name} is not a bioimage.io package: it has no rdf.yaml."
        raise core.CheckpointError(msg, code="format-unknown")
    text = _read_member(package, description_files[0], _TEXT_LIMIT)
    try:
        description = yaml.safe_load(text.decode())
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        msg = f"Cannot read {description_files[0]} in {name}: {first.rstrip('.')}."
        raise core.CheckpointError(msg, code="model-damaged") from error
    if core.count_values(description) > _MAX_VALUES:
        msg = (
            f"{description_files[0]} in {name} must have at most {_MAX_VALUES} values, "
            "after expanding aliases."
        )
        raise core.CheckpointError(msg, code="unsafe-content")
    if not isinstance(description, dict) or description.get("type") != "model":
        msg = f"{name} does not describe a model."
        raise core.CheckpointError(msg, code="format-unknown")
    version = str(description.get("format_version"))
    if not version.startswith("0.5."):
        msg = (
            f"{name} has format version {core.format_one_line(version)}, but version "
            "0.5 is required: update the package with `bioimageio update-format`."
        )
        raise core.CheckpointError(msg, code="other-version")
    return description


def _read_weights(
    package: zipfile.ZipFile, description: dict[str, object], name: str
) -> tuple[str, bytes]:
    """Read the ONNX weights of a package; other formats can execute code."""
    weights: object = description.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    entry = weights.get("onnx")
    if not isinstance(entry, dict):
        kinds = core.format_one_line(", ".join(sorted(map(str, weights))))
        msg = (
            f"The weights in {name} must be in ONNX format, got {kinds or 'nothing'}: "
            "loading other formats can execute code."
        )
        raise core.CheckpointError(msg, code="format-unsupported")
    source = str(entry.get("source"))
    source_text = core.format_one_line(source)
    place = PurePosixPath(source.replace("\\", "/"))
    if "://" in source or place.is_absolute() or ".." in place.parts:
        msg = (
            f"The weights of {name} are at {source_text}, outside the package: get the "
            "complete package."
        )
        raise core.CheckpointError(msg, code="weights-elsewhere")
    if source not in package.namelist():
        msg = (
            f"{name} does not contain the weights file {source_text}; copy the package "
            "again."
        )
        raise core.CheckpointError(msg, code="model-damaged")
    data = _read_member(package, source, _ONNX_LIMIT)
    digest = entry.get("sha256")
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        msg = (
            f"{source_text} in {name} does not match its checksum; copy the package "
            "again."
        )
        raise core.CheckpointError(msg, code="content-changed")
    return source_text, data


def _describe_axis(axis: Any) -> str:
    if axis.type == "channel" and len(axis.channel_names) != 1:
        return f"{len(axis.channel_names)} channels"
    return f"{axis.type} {axis.id}" if axis.type == "space" else str(axis.type)


def _check_description(content: Mapping[str, Any], name: str) -> Any:
    """Parse a description by ``bioimageio.spec``, without files or network."""
    try:
        from bioimageio.spec import ValidationContext, build_description
    except ImportError as error:
        msg = (
            "bioimage.io packages need bioimageio.spec: pip install "
            "'napari-semsr[bioimageio]'."
        )
        raise core.CheckpointError(msg, code="extra-missing") from error
    texts = {  # with surrogates joined or replaced
        key: _clean_text(value, _TEXT_LIMIT) if isinstance(value, str) else value
        for key, value in content.items()
    }
    offline = ValidationContext(
        perform_io_checks=False,
        disable_cache=True,
        log_warnings=False,
        raise_errors=True,
    )
    try:
        return build_description(texts, context=offline)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise _create_invalid_error(error, name) from None


def _create_invalid_error(error: Exception, name: str) -> core.CheckpointError:
    """Describe the first fault of an invalid description."""
    where, sentence, code = "its top", repr(error), "model-damaged"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or where
        sentence = first["msg"].removeprefix("Value error, ")
        if where.startswith("license"):
            sentence = f"{first['input']!r} is not an SPDX name, such as BSD-3-Clause"
            code = "licence-unknown"
    msg = (
        f"The description of {name} is invalid at {core.format_one_line(where)}: "
        f"{core.format_one_line(sentence, _TEXT_LENGTH).rstrip('.')}."
    )
    return core.CheckpointError(msg, code=code)


def _get_card_values(description: Any, name: str) -> dict[str, object]:
    """Convert a description to values keyed as in a model card."""
    inputs, outputs = description.inputs, description.outputs
    found = [[_describe_axis(one) for one in a.axes] for a in (*inputs, *outputs)]
    if len(inputs) != 1 or found != [["batch", "channel", "space y", "space x"]] * 2:
        listed = "; ".join(", ".join(axes) for axes in found)
        msg = (
            "A network must have one input and one output, each with the axes batch, "
            f"channel (one), y, x, but {name} has {core.format_one_line(listed)}."
        )
        raise core.CheckpointError(msg, code="model-unsuitable")
    after = [step.id for step in outputs[0].postprocessing]
    if set(after) - {"ensure_dtype"}:
        msg = (
            f"{name} requires {', '.join(after)} for postprocessing, which is not "
            "supported."
        )
        raise core.CheckpointError(msg, code="model-unsuitable")
    sizes = [
        _NANOMETRES[axis.unit] * axis.scale
        for axis in inputs[0].axes[2:]
        if axis.unit in _NANOMETRES
    ]
    scaling = _translate_scaling(inputs[0].preprocessing, name)
    return scaling | ({"pixel_size_nm": (min(sizes), max(sizes))} if sizes else {})


def _translate_scaling(steps: Sequence[Any], name: str) -> dict[str, object]:
    """Translate the grey-value scaling of a package, if it is supported."""
    real = [step for step in steps if step.id != "ensure_dtype"]
    if not real:
        return {"input_scaling": "levels", "input_levels": (0.0, 1.0)}
    kind, how = real[0].id, dict(real[0].kwargs)
    axes = set(map(str, how.get("axes") or ("y", "x")))
    numbers = {  # each a number, or a list with one
        key: np.ravel(value)
        for key, value in how.items()
        if key in ("mean", "std", "gain", "offset")
    }
    is_plain = all(value.size == 1 for value in numbers.values())
    is_plain &= {"y", "x"} <= axes and how.get("reference_tensor") is None
    if len(real) == 1 and is_plain:
        one = {key: float(value[0]) for key, value in numbers.items()}
        if kind == "scale_range":
            ends = how["min_percentile"], how["max_percentile"]
            return {"input_scaling": "percentiles", "input_percentiles": ends}
        if kind == "zero_mean_unit_variance":
            return {"input_scaling": "deviation"}
        if kind == "fixed_zero_mean_unit_variance":
            mean, spread = one["mean"], one["std"]
            return _create_input_levels(mean, mean + spread, name)
        if kind == "scale_linear" and one["gain"]:
            zero = -one["offset"] / one["gain"]
            return _create_input_levels(zero, zero + 1 / one["gain"], name)
    msg = (
        f"{name} uses an unsupported form of preprocessing: "
        f"{core.format_one_line(', '.join(step.id for step in real))}."
    )
    raise core.CheckpointError(msg, code="model-unsuitable")


def _create_input_levels(zero: float, one: float, name: str) -> dict[str, object]:
    if not (math.isfinite(zero) and math.isfinite(one) and zero < one):
        msg = f"The grey values {zero} and {one} of {name} cannot become 0 and 1."
        raise core.CheckpointError(msg, code="model-unsuitable")
    return {"input_scaling": "levels", "input_levels": (zero, one)}
