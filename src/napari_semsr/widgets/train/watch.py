"""How a training is watched: curves, figures, and a held-out patch as a layer."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_semsr.core import Figure, Micrograph, SemsrError, spell_time
from napari_semsr.io import HELPER_KEY, read
from napari_semsr.jobs import TrainStep
from napari_semsr.widgets.base import (
    COLOURS,
    Findings,
    RichLabel,
    plots_ready,
    push_button,
    table,
)
from napari_semsr.widgets.layers import fill_view, layer_keywords, show_scale_bar

if TYPE_CHECKING:
    import napari.viewer
    from matplotlib.axes import Axes
    from napari.layers import Image


_LOSS, _BEST, _GAIN = COLOURS[:3]
_SMOOTH_SHARE = 25


def _draw_loss(
    axes: "Axes", losses: NDArray[np.float64], curve: dict[str, np.ndarray]
) -> None:
    """Draw every loss that was told, pale, and its running mean.

    Before the first of them, in a run that was resumed, those of the validations.
    """
    axes.set_ylabel("Loss")
    begun = np.inf
    if len(losses):
        step, loss = losses.T
        begun = step[0]
        axes.plot(step, loss, color=_LOSS, lw=0.8, alpha=0.35)
        width = max(1, len(loss) // _SMOOTH_SHARE)
        mean = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(step[width - 1 :], mean, color=_LOSS, lw=1.5)
    if "loss" in curve:
        early = curve["step"] < begun
        axes.plot(curve["step"][early], curve["loss"][early], "o", color=_LOSS, ms=3.5)


def _draw_gain(axes: "Axes", curve: dict[str, np.ndarray]) -> None:
    """Draw the gain at each validation, and mark the best."""
    blind = "hidden_db" in curve
    axes.set_ylabel("Hidden pixels (dB)" if blind else "Held-out gain (dB)")
    gain = curve.get("hidden_db" if blind else "gain_db", np.zeros(0))
    if not np.isfinite(gain).any():
        said = "no truth to judge by" if curve else "not yet judged"
        axes.text(0.5, 0.5, said, ha="center", color=_BEST, transform=axes.transAxes)
        axes.set_yticks([])
        return
    best = int(np.nanargmax(gain))
    axes.plot(curve["step"], gain, "o-", color=_GAIN, lw=1.5, ms=3.5)
    axes.plot(curve["step"][best], gain[best], "o", color=_BEST, ms=7, label="best")
    base = "neighbours' mean" if blind else "degraded"
    axes.axhline(0, color="#8d99ae", lw=1, ls="--", label=base)
    axes.legend(loc="lower right")


_CURVE, _PREVIEW = "curve.csv", "preview.tif"
_GAP_SHARE = 0.04
_MOST_POINTS = 4000
_FIGURES = {
    "gain_db": ("Held-out gain", "dB", "+.2f"),
    "psnr_db": ("PSNR", "dB", ".2f"),
    "ssim": ("SSIM", "", ".4f"),
    "frc_per_px": ("Agreement with the truth up to", "per px", ".3f"),
    "hidden_db": ("Hidden pixels, over their neighbours' mean", "dB", "+.2f"),
    "alike_rows_px": ("Noise alike from line to line, up to", "px", ".0f"),
    "alike_columns_px": ("Noise alike along a line, up to", "px", ".0f"),
}


_JUDGED = {
    "input": "Low as it is",
    "linear filter": "Best linear filter",
    "untouched": "Model before training",
    "trained": "Trained model",
}


def _told(figures: dict[str, float]) -> str:
    """Say what one of those that are compared comes to."""
    said = [f"{figures['psnr_db']:.2f} dB"]
    if "ssim" in figures:
        said.append(f"SSIM {figures['ssim']:.3f}")
    if "frc_per_px" in figures:
        said.append(f"FRC to {figures['frc_per_px']:.3f} per px")
    return ", ".join(said)


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Read the curve of a run, as far as it has been written."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("step")]
    except OSError:
        return {}
    kept = {float(row["step"]): row for row in rows}
    ordered = [kept[step] for step in sorted(kept)]
    names = [name for name in (ordered[0] if ordered else {}) if name]
    return {name: np.array([_number(row[name]) for row in ordered]) for name in names}


def _number(text: str | None) -> float:
    """Read a cell; one that is cut short or empty is NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


class TrainView(QWidget):
    """Curves and figures of a run, and its preview as a layer of the viewer."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.plot: Any = None
        self.layer: Image | None = None
        self.figures = RichLabel()
        self.look_button = push_button(
            "Look at the preview",
            self.look,
            "Fill the view with a held-out patch: degraded, restored, truth.",
        )
        self.look_button.setVisible(False)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.figures)
        self._column.addWidget(self.look_button)
        self._run: Path | None = None
        self._losses: list[tuple[float, float]] = []
        self._seen: dict[str, int] = {}
        self._left: float | None = None
        self._dirty = False
        self.comparison: Any = None  # of the run that has ended, as `Trained` has it

    @property
    def curve(self) -> dict[str, np.ndarray]:
        """Columns of the run's curve so far."""
        return {} if self._run is None else read_curve(self._run / _CURVE)

    def watch(self, run_dir: Path, *, resumed: bool = False) -> None:
        """Begin to watch a run, or go on with the one that was watched last."""
        self._dirty = True
        if resumed and run_dir == self._run:
            return
        self._run = run_dir
        self.comparison = None
        self._losses.clear()
        self._seen.clear()
        self.layer = None

    def add_step(self, step: TrainStep) -> None:
        """Take note of a step."""
        self._left = step.seconds_left
        late = self._losses and step.done <= self._losses[-1][0]  # events may nest
        if step.loss is None or late:
            return
        if len(self._losses) >= _MOST_POINTS:
            del self._losses[1::2]
        self._losses.append((float(step.done), step.loss))
        self._dirty = True

    def settle(self) -> None:
        """Show the last of a run that has ended."""
        self._left, self._dirty = None, True
        self.poll()

    def poll(self) -> None:
        """Show what is new in the folder of the run and among the steps."""
        if self._run is None:
            return
        if self._is_new(_PREVIEW):
            self._show_preview(self._run / _PREVIEW)
        if self._is_new(_CURVE) or self._dirty:
            self._dirty = False
            self._draw()

    def _is_new(self, name: str) -> bool:
        """Whether a file of the run changed since it was last looked at."""
        assert self._run is not None  # noqa: S101 - poll has looked
        try:
            stamp = (self._run / name).stat().st_mtime_ns
        except OSError:
            return False
        changed = self._seen.get(name) != stamp
        self._seen[name] = stamp
        return changed

    def _draw(self) -> None:
        """Write the figures, and draw the curves once matplotlib is there."""
        curve = self.curve
        self.figures.setText(table(self._rows(curve)))
        if not plots_ready():  # the job imports it, in its thread
            self._dirty = True
            return
        from napari_semsr.widgets.base import PlotCanvas

        if self.plot is None:
            self.plot = PlotCanvas(self.viewer, rows=2, height=170)
            self._column.insertWidget(0, self.plot)
        self.plot.clear()
        above, below = self.plot.axes
        _draw_loss(above, np.array(self._losses), curve)
        _draw_gain(below, curve)
        drawn = [axes for axes in (above, below) if axes.has_data()]
        last = max([axes.get_xlim()[1] for axes in drawn] or [1.0])
        for axes in (above, below):
            axes.set_xlim(0, last)
            axes.grid(visible=True, alpha=0.15)
        below.set_xlabel("Step")
        self.plot.refresh()

    def findings(self, title: str) -> Findings:
        """Give figures and curves as far as the run has come."""
        curve = self.curve
        step, loss = np.array(self._losses).reshape(-1, 2).T
        curves = {"training": {"step": step, "loss": loss}} if len(step) else {}
        if curve:
            curves["held out"] = curve
        numbers = self._rows(curve) if self._run is not None else {}
        return Findings(title, (str(self._run),), numbers, curves, self.plot)

    def _rows(self, curve: dict[str, np.ndarray]) -> dict[str, Figure | str]:
        """Say the best validation, and the time left."""
        rows: dict[str, Figure | str] = {}
        known = [name for name in _FIGURES if name in curve]
        if known:
            best = int(np.nanargmax(curve[known[0]]))
            rows["Best so far at step"] = Figure(curve["step"][best], form=".0f")
            for name in known:
                label, unit, form = _FIGURES[name]
                rows[label] = Figure(curve[name][best], unit, form)
        compared = self.comparison
        if compared is not None:
            where = f"{compared['pairs']} pairs of the {compared['set']} set"
            rows["Judged on"] = where
            found = compared["rows"]
            for name, figures in found.items():
                rows[_JUDGED[name]] = _told(figures)
            if "untouched" in found:
                gained = found["trained"]["psnr_db"] - found["untouched"]["psnr_db"]
                kept = "" if compared["kept"] else "not kept"
                rows["Gain of training"] = Figure(gained, "dB", "+.2f", kept)
            off_nm = compared.get("map_error_nm")
            if off_nm is not None:
                px = compared.get("map_error_px")
                note = "" if px is None else f"= {px:.2g} px"
                rows["Expected error of the map"] = Figure(off_nm, "nm", ".3g", note)
        if self._left is not None:
            rows["Time left"] = spell_time(self._left)
        rows["Folder of the run"] = str(self._run)
        return rows

    # -- the preview -----------------------------------------------------------

    def _show_preview(self, path: Path) -> None:
        """Add the preview as a layer, or renew it; one that was removed stays away."""
        try:
            picture = read(path)
        except SemsrError:  # it is being replaced; the next look finds it
            self._seen.pop(_PREVIEW, None)
            return
        data = np.asarray(picture.array(), dtype=np.float32)
        if self.layer is None:
            self._add(picture.replace(data=data))
        elif self.layer in self.viewer.layers:
            self.layer.data = data
            self.layer.name = self._title()

    def _title(self) -> str:
        """Name the preview after the step that it was made at."""
        curve = self.curve
        parts = ["low", "output"] + ["truth"] * ("gain_db" in curve)
        steps = curve.get("step", np.zeros(0))
        at = f" ({steps[-1]:.0f})" if steps.size else ""
        return " | ".join(parts) + at

    def _add(self, picture: Micrograph) -> None:
        """Put the preview to the right of all other layers."""
        place = 0.0, 0.0
        if len(self.viewer.layers):
            extent = np.asarray(self.viewer.layers.extent.world)[:, -2:]
            gap = _GAP_SHARE * float(np.ptp(extent[:, 1]))
            place = float(extent[0, 0]), float(extent[1, 1]) + gap
        shown = picture.replace(origin=place)
        keywords = layer_keywords(shown, name=self._title())
        keywords["metadata"] = {**keywords["metadata"], HELPER_KEY: True}
        self.layer = self.viewer.add_image(shown.data, **keywords)
        self.look_button.setVisible(True)
        show_scale_bar(self.viewer)
        self.viewer.reset_view()

    def look(self) -> None:
        """Fill the view with the preview."""
        if self.layer in self.viewer.layers:
            fill_view(self.viewer, self.layer)
