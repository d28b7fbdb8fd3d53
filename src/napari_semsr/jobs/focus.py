"""The sentence about a scan that was out of focus."""

from napari_semsr.analysis import Falloff
from napari_semsr.core import (
    Message,
    Micrograph,
)


def focus_warning(
    image: Micrograph, place: Falloff | None = None, model: str = ""
) -> Message | None:
    """Describe a scan beyond once the depth of focus; None as far as none is known.

    `place`: how fine detail falls off where the `model` was trained, if that is known.
    """
    falloff = Falloff.of(image)
    if falloff is None or not falloff.is_out_of_focus(place):
        return None
    less = (
        "than light shows of sharp edges"
        if place is None
        else f"than the place that {model} was trained on"
    )
    return Message(
        f"{image.name} has less fine detail {less}, as beyond once the depth of focus: "
        "scan it in focus, or at several heights (a focal series), which Stitch joins "
        "to one mosaic.",
        "out-of-focus",
    )
