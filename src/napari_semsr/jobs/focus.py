"""Warning about an out-of-focus scan."""

from napari_semsr.analysis import Falloff
from napari_semsr.core import (
    Message,
    Micrograph,
)


def create_focus_warning(
    image: Micrograph, place: Falloff | None = None, model: str = ""
) -> Message | None:
    """Return a warning if a scan is out of focus by more than the depth of focus.

    `place`: falloff of fine detail in the area that `model` was trained on, if known.
    """
    falloff = Falloff.from_image(image)
    if falloff is None or not falloff.is_out_of_focus(place):
        return None
    less = (
        "than light shows at sharp edges"
        if place is None
        else f"than the area that {model} was trained on"
    )
    return Message(
        f"{image.name} has less fine detail {less}, as if out of focus by more than "
        "the depth of focus: scan the sample in focus, or at several heights (a "
        "focal series), which Stitch combines into one mosaic.",
        "out-of-focus",
    )
