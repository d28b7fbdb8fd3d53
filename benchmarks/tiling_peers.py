"""The same network run tile by tile by others: MONAI and bioimageio.core.

Both get the default network's local part and an image whose grey values are scaled,
and whose haze is lifted, as the engine does it; both run in this process and on the
same threads. MONAI takes windows of 256 px at an overlap of 0.25, its usual setting,
in the precision that is asked for. bioimageio.core runs the network as TorchScript,
which is fp32, in blocks of the size of our tiles, its halo stated in the model
description.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_semsr.inference.predictor import Predictor

Way = Callable[[NDArray[np.float32]], NDArray[np.float32]]
BLOCK = 512
_NAME = "image"


def monai(predictor: Predictor) -> Way | None:
    """Give MONAI's sliding window; None where it is not installed."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return None
    mixed = predictor.precision == "bf16"

    def way(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        x = torch.from_numpy(scaled)[None, None]
        with (
            torch.inference_mode(),
            torch.autocast(predictor.device.type, torch.bfloat16, enabled=mixed),
        ):
            y = sliding_window_inference(x, (256, 256), 1, predictor._module, 0.25)
        return np.asarray(y[0, 0].float().numpy())

    return way


def bioimageio(network: nn.Module, halo: int, stride: int) -> Way | None:
    """Give bioimageio.core's prediction in blocks; None where it is not installed."""
    try:
        from bioimageio.core import Tensor, create_prediction_pipeline
        from bioimageio.core.axis import AxisId
        from bioimageio.core.digest_spec import create_sample_for_model
    except ImportError:
        return None
    folder = tempfile.TemporaryDirectory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        described = _described(network, halo, stride, Path(folder.name))
        pipeline = create_prediction_pipeline(
            described, devices=["cpu"], weights_format="torchscript"
        )
    side = {AxisId("y"): BLOCK + 2 * halo, AxisId("x"): BLOCK + 2 * halo}
    block = {AxisId("batch"): 1, AxisId("channel"): 1, **side}
    member = described.inputs[0].id

    def way(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        folder.name  # noqa: B018 - the weights' folder lives as long as this
        tensor = Tensor(scaled[None, None], dims=("batch", "channel", "y", "x"))
        sample = create_sample_for_model(described, inputs={member: tensor})
        made = pipeline.predict_sample_with_fixed_blocking(sample, {member: block})
        result = next(iter(made.members.values()))
        return np.asarray(result.data)[0, 0]

    return way


def _described(network: nn.Module, halo: int, stride: int, folder: Path) -> Any:
    """Write the network down as bioimage.io wants it."""
    from bioimageio.spec.model import v0_5 as spec

    least = 4 * stride * -(-2 * halo // (4 * stride)) + 4 * stride
    example = torch.rand(1, 1, least, least)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, example), str(folder / "net.pt"))
        np.save(folder / "in.npy", example.numpy())
        np.save(folder / "out.npy", network(example).numpy())

    def size() -> Any:
        return spec.ParameterizedSize(min=least, step=stride)

    def output_axis(name: str) -> Any:
        like = spec.SizeReference(
            tensor_id=spec.TensorId(_NAME), axis_id=spec.AxisId(name)
        )
        return spec.SpaceOutputAxisWithHalo(id=spec.AxisId(name), size=like, halo=halo)

    batch, grey = (
        spec.BatchAxis(),
        spec.ChannelAxis(channel_names=[spec.Identifier("grey")]),
    )
    return spec.ModelDescr(
        name="timed network",
        description="A network that is timed.",
        authors=[],
        cite=[spec.CiteEntry(text="none", url="https://example.org")],
        license="BSD-3-Clause",
        documentation=spec.FileDescr(source=_page(folder)),
        inputs=[
            spec.InputTensorDescr(
                id=spec.TensorId(_NAME),
                axes=[
                    batch,
                    grey,
                    *(
                        spec.SpaceInputAxis(id=spec.AxisId(n), size=size())
                        for n in "yx"
                    ),
                ],
                test_tensor=spec.FileDescr(source=folder / "in.npy"),
            )
        ],
        outputs=[
            spec.OutputTensorDescr(
                id=spec.TensorId("restored"),
                axes=[batch, grey, *(output_axis(n) for n in "yx")],
                test_tensor=spec.FileDescr(source=folder / "out.npy"),
            )
        ],
        weights=spec.WeightsDescr(
            torchscript=spec.TorchscriptWeightsDescr(
                source=folder / "net.pt",
                pytorch_version=spec.Version(torch.__version__.partition("+")[0]),
            )
        ),
    )


def _page(folder: Path) -> Path:
    """Write the page that a description must have."""
    page = folder / "README.md"
    page.write_text("A network that is timed.\n", encoding="utf-8")
    return page
