"""Curve of a training run, and a layer with its held-out part."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core, jobs
from napari_semsr.analysis import choose_gain
from napari_semsr.io import read
from napari_semsr.widgets import base, layers

if TYPE_CHECKING:
    from napari.layers import Image

_CURVE, _PREVIEW = "curve.csv", "preview.tif"
_MAX_POINTS = 4000  # points of a drawn curve; chosen
_GAP_PX = 4  # px between the images of the held-out part
_GAINS = {  # labels by column of the curve
    "hidden_db": ("Hidden pixels", "neighbours' mean"),
    "gain_db": ("Held-out gain", "degraded"),
    "expected_gain_db": ("Expected gain", "degraded"),
}


def read_training_curve(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read the training curve of a run, as far as it has been written."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("step")]
    except OSError:
        return {}
    by_step = {float(row["step"]): row for row in rows}
    rows = [by_step[step] for step in sorted(by_step)]
    names = [name for name in (rows[0] if rows else {}) if name]
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def _number(text: str | None) -> float:
    """Convert a table cell to a number; truncated and empty cells become NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


class TrainingView:
    """Progress of a run: a curve in the results of a panel, and a helper layer."""

    def __init__(self, panel: base.VerbPanel) -> None:
        self._panel, self._viewer = panel, panel.viewer
        self.layer: Image | None = None
        self._view: NDArray[np.float64] | None = None  # when the layer was added
        self._run: Path | None = None
        self._pixel_size: core.PixelSize | None = None
        self._stamps_seen: dict[str, int] = {}
        self._points: list[tuple[float, float]] = []
        self.curves: dict[str, dict[str, Any]] = {}  # to save with the results

    def watch(
        self, run: Path, size: core.PixelSize | None = None, *, is_resumed: bool = False
    ) -> None:
        """Start watching a run, or continue watching the previous one.

        `size`: pixel size of a held-out part that comes with the steps.
        """
        self._pixel_size = size
        if not (is_resumed and run == self._run):
            self._run, self.layer = run, None
            self._stamps_seen, self._points, self.curves = {}, [], {}
            if self._panel.results.plot is not None:  # of an earlier training
                self._panel.results.clear_plot().refresh()

    def add_step(self, step: core.Progress) -> None:
        """Show what is new at a step of a training."""
        if isinstance(step, jobs.AdaptProgress) and step.preview_images:
            # the held-out area side by side: optical, enhanced, SEM
            planes = step.preview_images
            low = np.concatenate([plane.ravel() for plane in planes]).min()
            gap = np.full((planes[0].shape[0], _GAP_PX), low)
            parts = [part for plane in planes for part in (plane, gap)][:-1]
            data = np.concatenate(parts, axis=1).astype(np.float32)
            title = "held-out part: optical | now | SEM"
            self._show_preview(core.Micrograph(data, self._pixel_size, title))
            key, name = choose_gain({"gain_below_cutoff_db": step.gain_below_cutoff_db})
            if step.gain_db is not None:
                self._points.append((step.seconds, getattr(step, key)))
                line = "linear filter", getattr(step, f"linear_{key}")
                self._draw("Time trained (s)", f"{name} ({core.DB})", line)
        elif isinstance(step, jobs.TrainStep):
            is_late = self._points and step.done <= self._points[-1][0]
            if step.loss is not None and not is_late:
                if len(self._points) >= _MAX_POINTS:
                    del self._points[1::2]
                self._points.append((step.done, step.loss))
                if not self._find_gain():
                    self._draw("Step", "Loss")
            self.poll()

    def _find_gain(self) -> str:
        """Return the column of the curve with a gain, or an empty text."""
        curve = self.curves.get("held out", {})
        known = (k for k in _GAINS if np.isfinite(curve.get(k, np.zeros(0))).any())
        return next(known, "")

    def poll(self) -> None:
        """Show the curve and the held-out patch in the folder of the run."""
        if self._run is None:
            return
        if self._has_changed(_CURVE):
            self.curves["held out"] = read_training_curve(self._run / _CURVE)
            if gain := self._find_gain():
                curve, (label, other) = self.curves["held out"], _GAINS[gain]
                points = [*zip(curve["step"], curve[gain], strict=True)]
                self._draw("Step", f"{label} ({core.DB})", (other, 0.0), points)
        if self._has_changed(_PREVIEW):
            try:
                picture = read(self._run / _PREVIEW)
            except core.SemsrError:  # it is being replaced; the next check finds it
                self._stamps_seen.pop(_PREVIEW, None)
                return
            curve = self.curves.get("held out", {})
            parts = ["low", "output"] + ["truth"] * ("gain_db" in curve)
            at = f" ({curve['step'][-1]:.0f})" if curve else ""
            data = np.asarray(picture.array(), dtype=np.float32)
            self._show_preview(picture.replace(data=data, name=" | ".join(parts) + at))

    def _has_changed(self, name: str) -> bool:
        """Return whether a file of the run has changed since the last check."""
        assert self._run is not None  # noqa: S101 - poll has looked
        try:
            stamp = (self._run / name).stat().st_mtime_ns
        except OSError:  # not written yet
            return False
        has_changed = self._stamps_seen.get(name) != stamp
        self._stamps_seen[name] = stamp
        return has_changed

    def _draw(
        self,
        x: str,
        y: str,
        line: tuple[str, float] | None = None,
        points: list[tuple[float, float]] | None = None,
    ) -> None:
        """Plot the points of the run with a line to compare them with."""
        points = self._points if points is None else points
        if not base.is_plotting_imported() or not points:
            return  # the job imports it in its thread
        plot = self._panel.results.clear_plot()
        (axes,) = plot.axes
        axes.plot(*np.array(points).T, "o-", color=base.COLOURS[0], lw=1.5, ms=3.5)
        if line is not None:
            axes.axhline(line[1], color="#8d99ae", ls="--", label=line[0])
            axes.legend(loc="lower right")
        axes.set_xlabel(x)
        axes.set_ylabel(y[:1].upper() + y[1:])
        axes.grid(visible=True, alpha=0.15)
        plot.refresh()
        if points is self._points:
            self.curves["training"] = dict(zip((x, y), np.array(points).T, strict=True))

    # -- the held-out part ----------------------------------------------------------

    def _show_preview(self, image: core.Micrograph) -> None:
        """Add or update the layer, unless the user removed it."""
        if self.layer is None:
            title, helper = image.name, self._panel.title
            self.layer = layers.add_image_beside(self._viewer, image, title, helper)
            layers.show_scale_bar(self._viewer)
            self._viewer.reset_view()
            self._view = layers.get_view(self._viewer)
        elif self.layer in self._viewer.layers:
            self.layer.data, self.layer.name = image.data, image.name

    def remove_layer(self) -> None:
        """Remove the layer, and show the rest unless the user has moved the view."""
        if self.layer in self._viewer.layers:
            view = layers.get_view(self._viewer)
            self._panel.history.remove_layers([self.layer])
            if self._view is not None and np.allclose(view, self._view, atol=0):
                self._viewer.reset_view()
        self.layer = None
