"""Trust: how far a layer that a network made may be off, and where."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Layer

from napari_semsr.core import OptionError
from napari_semsr.jobs import TRUST
from napari_semsr.widgets.base import Work, legend, preference
from napari_semsr.widgets.layers import network_of
from napari_semsr.widgets.measure.verb_panel import ResultPanel

if TYPE_CHECKING:
    import napari.viewer


class TrustPanel(ResultPanel):
    """Maps how far what a network made may be off, of a layer that is there."""

    help_place = "trust.md"
    verbs = {"trust": TRUST}  # noqa: RUF012

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(viewer, "Trust", "Map the trust")
        self.form.set_values(device=preference("computing", "device"))

    def layers_for(self, name: str) -> Callable[[], Sequence[Layer]]:
        """Offer as enhanced what a network made, and nothing else."""
        listed = super().layers_for(name)
        if name != "enhanced":
            return listed
        return lambda: [item for item in listed() if network_of(item)]

    def job(self) -> Work:
        """Read the form."""
        if self.boxes["enhanced"].value is None:
            msg = (
                "A layer that a network made must be chosen, but none is open; make "
                "one in Enhance, or open one."
            )
            raise OptionError(msg)
        return super().job()

    def legend(self, report: Any) -> str:
        """Say what the three colours mean, and of how many places each is."""
        return legend(report.legend())
