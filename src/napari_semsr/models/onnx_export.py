"""Networks out, as ONNX that any program can run on fields of any size.

The file holds the network, and what the tiled engine does around it where a field is
run whole: sides are reflect-padded to multiples of the stride, and the result is cut.
Grey values are not scaled in it, since percentiles are those of the whole field; what
to give it, and the whole card, stand in its metadata.
"""

import copy
import io
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import CheckpointError
from napari_semsr.models.architectures import InformedRestorer
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.onnx_graph import onnx_library
from napari_semsr.models.onnx_network import OnnxNetwork

CARD_KEY = "semsr_card"
OPSET = 17  # chosen: what ONNX Runtime of 2022 and deepImageJ's read
_SPAN = 1e-5  # of the range, by which ONNX Runtime may differ from torch
_TRIED = ((0, 0), (5, 0), (1, 11))  # pixels beyond the side that was traced


class _AnySize(nn.Module):
    """A network for fields of any size, not only of multiples of its stride."""

    def __init__(self, network: nn.Module, stride: int, scale: int) -> None:
        super().__init__()
        self.network, self.stride, self.scale = network, stride, scale

    def forward(self, field: Tensor) -> Tensor:
        """Pad, run and cut; `field` (B, 1, H, W)."""
        rows, columns = field.shape[-2], field.shape[-1]
        if self.stride > 1:
            beyond = (0, -columns % self.stride, 0, -rows % self.stride)
            field = functional.pad(field, beyond, mode="reflect")
        made: Tensor = self.network(field)
        return made[..., : rows * self.scale, : columns * self.scale]


def export_onnx(module: nn.Module, card: ModelCard) -> bytes:
    """Write a network as ONNX, and try that ONNX Runtime gives the same.

    It maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``, for any batch and size
    with sides of at least the stride; the card goes into the file's metadata.
    """
    if isinstance(module, InformedRestorer):
        msg = (
            f"{card.name} looks at the whole field for haze, noise and blur before it "
            "restores it, which ONNX cannot say: export what it is told of one field "
            "(--field IMAGE), without the haze."
        )
        raise CheckpointError(msg)
    onnx = onnx_library()
    if isinstance(module, OnnxNetwork):
        model = onnx.load_model_from_string(module.graph.numpy().tobytes())
    else:
        whole = _AnySize(copy.deepcopy(module), card.stride, card.scale).eval()
        model = onnx.load_model_from_string(_traced(whole, card))
    _write_card(model, card)
    data: bytes = model.SerializeToString()
    if not isinstance(module, OnnxNetwork):
        _check_same(data, whole, card)
    return data


def _side(stride: int) -> int:
    """Side of a field that is small, and large enough for every layer."""
    return max(64, 2 * stride)


def _traced(whole: nn.Module, card: ModelCard) -> bytes:
    """Follow a network over a field, and write what it does."""
    side = _side(card.stride)
    field = torch.rand(1, 1, side + 1, side + 3)
    written = io.BytesIO()
    axes = {
        "input": {0: "batch", 2: "height", 3: "width"},
        "output": {0: "batch", 2: "output_height", 3: "output_width"},
    }
    try:
        with warnings.catch_warnings():
            # of the exporter's age, and of sizes that it cannot follow: checked below
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                (field,),
                written,  # type: ignore[arg-type]
                dynamo=False,  # the other needs onnxscript, and splits off weights
                opset_version=OPSET,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes=axes,
            )
    except Exception as error:  # the exporter's own, and whatever a layer raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = f"{card.name} cannot be written as ONNX: {first.rstrip('.')}."
        raise CheckpointError(msg) from error
    return written.getvalue()


def _write_card(model: Any, card: ModelCard) -> None:
    """Say in the file what it is, for us and for people."""
    said = {
        CARD_KEY: card.model_dump_json(),
        "name": card.name,
        "description": card.description,
        "input": scaling_sentence(card),
        "limits": card.limits,
        "licence": card.licence,
    }
    if card.pixel_size_nm is not None:
        said["pixel_size_nm"] = " to ".join(f"{v:g}" for v in card.pixel_size_nm)
    del model.metadata_props[:]
    onnx_library("onnx.helper").set_model_props(model, said)
    model.doc_string = card.description


def scaling_sentence(card: ModelCard) -> str:
    """Say what grey values a network takes."""
    low, high = card.input_percentiles
    ways = {
        "percentiles": f"percentiles {low:g} and {high:g} of the whole field",
        "deviation": "the whole field's mean, and one standard deviation above it,",
        "levels": "the grey values {:g} and {:g}".format(*card.input_levels),
    }
    return (
        f"One grey channel (batch, 1, y, x), scaled so that {ways[card.input_scaling]} "
        "are 0 and 1; the output is on that scale."
    )


def _check_same(data: bytes, whole: nn.Module, card: ModelCard) -> None:
    """Compare ONNX Runtime with torch on fields of several sizes."""
    network = OnnxNetwork(card.scale, card.stride, data=data).eval()
    side, rng = _side(card.stride), torch.Generator().manual_seed(0)
    for rows, columns in _TRIED:
        field = torch.rand(1, 1, side + rows, side + columns, generator=rng)
        with torch.no_grad():
            ours, theirs = whole(field).numpy(), network(field).numpy()
        spread = max(float(np.ptp(ours)), float(field.max() - field.min()))
        off = float(np.abs(ours - theirs).max()) / spread
        if not off <= _SPAN:
            msg = (
                f"{card.name} cannot be exported: ONNX Runtime differs from torch by "
                f"{off:.1e} of the range on {side + rows} x {side + columns} px, and "
                f"{_SPAN:g} is allowed."
            )
            raise CheckpointError(msg)
