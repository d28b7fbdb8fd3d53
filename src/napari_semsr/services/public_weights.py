"""Weights that others published, turned into models of ours."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from napari_semsr.models.cards import ModelCard

__all__ = ["PUBLIC_SUFFIXES", "public_model"]

PUBLIC_SUFFIXES = (".pth", ".pt")


def public_model(path: Path) -> "tuple[nn.Module, ModelCard]":
    """Read published weights of an ESRGAN generator, and write their card.

    Parameters
    ----------
    path : pathlib.Path
        A ``.pth`` file; what is in it is not executed.

    Returns
    -------
    torch.nn.Module
        The network for grey images, in evaluation mode.
    ModelCard
        Its card, with the file's name.
    """
    from napari_semsr.models.cards import ModelCard
    from napari_semsr.models.effective_field import effective_fields
    from napari_semsr.models.esrgan_weights import load_esrgan
    from napari_semsr.models.receptive_field import probe

    network, options = load_esrgan(path)
    probed = probe(network, stride=network.stride)
    card = ModelCard(
        name=re.sub(r"[^\w.+-]+", "-", path.stem)[:100],
        architecture="esrgan",
        options=options,
        description=f"ESRGAN generator, published weights of {path.name}, for grey",
        scale=network.scale,
        stride=network.stride,
        receptive_field=probed.halo or 0,
        effective_field=effective_fields(
            network, stride=network.stride, halo=probed.halo
        ),
        training={"source": path.name},
        limits="Not trained here. Published weights of this kind learned from "
        "photographs and draw texture that may not be in the sample.",
        licence="that of the published weights",
    )
    return network, card
