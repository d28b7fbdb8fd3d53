"""Input and result of a panel compared: what was changed, and how it looks."""

from napari_semsr.analysis import Change
from napari_semsr.widgets.base import Quantity


def told_of_change(
    change: Change | None, maker: str
) -> tuple[dict[str, Quantity | str], str]:
    """Say in numbers and as rich text what a ``"model"`` or ``"method"`` changed."""
    if change is None:
        return {}, ""
    of_noise = change.noise or float("nan")

    def row(value: float) -> Quantity:
        times = Quantity(value / of_noise, "times the noise", ".2g")
        return Quantity(value, "grey levels", ".3g", f"({times})")

    numbers: dict[str, Quantity | str] = {
        "Mean change": row(change.mean),
        "Largest change": row(change.largest),
    }
    said = ""
    if change.looked_at < 1:
        said += (
            f"<p>The change was measured in {change.looked_at:.0%} of the field.</p>"
        )
    if change.hardly:
        said += f"<p>Hardly changed: this {maker} finds nothing to do here.</p>"
    return numbers, said
