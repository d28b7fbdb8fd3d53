"""Take screenshots of the panels for the manual: ``make screenshots``.

Needs a display (``xvfb-run`` will do). All images shown are simulated; the screenshots
are written to ``docs/images``. Names select some of them, such as ``story``, the
animation of training a model on a mosaic and an SEM image.

``--every FOLDER`` instead takes screenshots of every panel of the manifest in both
themes, in a dock of 320 px and in the default width: as opened, after a run, and after
an error. Look at them after panels have changed.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

# Before napari is imported, so that no user's settings, models or runs are used.
_SCRATCH = tempfile.TemporaryDirectory(prefix="semsr-pictures-")
for _name, _place in (
    ("NAPARI_CONFIG", "settings.yaml"),
    ("SEMSR_MODELS", "models"),
    ("SEMSR_RUNS", "runs"),
):
    os.environ[_name] = str(Path(_SCRATCH.name) / _place)

import napari  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402
from napari.settings import get_settings  # noqa: E402
from PIL import Image  # noqa: E402
from qtpy.QtCore import Qt  # noqa: E402
from qtpy.QtGui import QPainter, QPixmap  # noqa: E402
from qtpy.QtWidgets import (  # noqa: E402
    QApplication,
    QDockWidget,
    QScrollArea,
    QWidget,
)

import napari_semsr  # noqa: E402
from napari_semsr.core.progress import run  # noqa: E402
from napari_semsr.io.formats import write  # noqa: E402
from napari_semsr.jobs import SIMULATE, STITCH, degrade  # noqa: E402
from napari_semsr.jobs.simulate import SimulateOptions  # noqa: E402
from napari_semsr.widgets import base  # noqa: E402
from napari_semsr.widgets.base import open_panel  # noqa: E402
from napari_semsr.widgets.base.panel import VerbPanel  # noqa: E402
from napari_semsr.widgets.layers import fill_view  # noqa: E402

IMAGES = Path(__file__).parent / "images"
PLUGIN = "napari-semsr"
SIZE = (1360, 860)
DOCK_PX = 400
PATIENCE_S = 900
FILM_SIZE, FILM_EVERY_S, FILM_ZOOM = (1100, 680), 8.0, 2.5
OPEN, STITCHING, REGISTER = "Open", "Stitch", "Register"
LINE_PX = ((96, 110), (166, 110))  # ends of the line drawn on the sample
QUALITY = 50  # of 100: text stays sharp


def settle(seconds: float = 0.3) -> None:
    """Process Qt events for some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def finish(panel: VerbPanel) -> None:
    """Wait until the panel's job has ended; raise an error after a time limit."""
    end = time.monotonic() + PATIENCE_S
    while panel.is_busy:
        if time.monotonic() > end:
            msg = f"{panel.title} did not end within {PATIENCE_S} s."
            raise TimeoutError(msg)
        settle(0.05)
    settle()


def new_viewer(sample: str | None = None) -> napari.Viewer:
    """Open an empty window, or one with a sample."""
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(*SIZE)
    if sample is not None:
        viewer.open_sample(PLUGIN, sample)
    settle()
    return viewer


def dock(viewer: napari.Viewer, name: str) -> VerbPanel:
    """Open a panel by name."""
    place = panel = open_panel(viewer, name)
    while not isinstance(place, QDockWidget):
        place = place.parentWidget()
    place.window().resizeDocks([place], [DOCK_PX], Qt.Orientation.Horizontal)
    settle()
    return panel


def work(panel: VerbPanel) -> None:
    """Run a panel, and wait until it has ended."""
    panel.run()
    finish(panel)


def ran(viewer: napari.Viewer, title: str, **chosen: Any) -> VerbPanel:
    """Open a panel, choose its layers or their names, and run it."""
    panel = dock(viewer, title)
    boxes = getattr(panel, "boxes", {})  # of panels generated from their command
    for name, layer in chosen.items():
        box = boxes[name] if name in boxes else getattr(panel, name)
        box.value = viewer.layers[layer] if isinstance(layer, str) else layer
    work(panel)
    return panel


def keep(viewer: napari.Viewer, name: str) -> None:
    """Write one screenshot and close the window."""
    photograph(viewer, name)
    viewer.close()
    settle()


def photograph(viewer: napari.Viewer, name: str, *, fit: bool = True) -> None:
    """Write one screenshot, of all layers or of the current view."""
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.canvas.overlays.scale_bar.font_size = 14
    if fit:
        viewer.reset_view()
    settle(0.6)
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.webp"
    taken = viewer.window.screenshot(canvas_only=False, flash=False)
    Image.fromarray(taken).convert("RGB").save(path, quality=QUALITY, method=6)
    print(path)


def photograph_open_mosaic() -> None:
    """Show a file with its calibration."""
    path = Path(_SCRATCH.name) / "wafer.tif"
    write(degrade.simulate_specimen().replace(name="wafer"), path)
    viewer = new_viewer()
    panel = dock(viewer, OPEN)
    panel.path.value = path
    finish(panel)
    work(panel)
    keep(viewer, "open_mosaic")


def photograph_stitch() -> None:
    """Stitch the simulated scan, and show what was found."""
    viewer = new_viewer("scan")
    panel = dock(viewer, STITCHING)
    finish(panel)  # the panel first inspects the folder of the sample
    work(panel)
    panel.helpers.value = True
    keep(viewer, "stitch")


def photograph_window() -> None:
    """Go from the simulated scan to an enhanced mosaic in the window of all steps."""
    viewer = new_viewer("scan")
    window: Any = dock(viewer, "Start here")
    for step in range(2):
        finish(window.page.panel)
        work(window.page.panel)
        if not step:
            window.show_next()
    keep(viewer, "window")


def photograph_story() -> None:
    """Record an animation of training a model on a mosaic and its SEM image."""
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(*FILM_SIZE)
    viewer.open_sample(PLUGIN, "place")
    viewer.reset_view()
    frames = [(_frame(viewer), 2.0)]
    panel: Any = dock(viewer, "Train")
    viewer.reset_view()
    frames.append((_frame(viewer), 3.0))
    frames += _film_training(viewer, panel)
    if panel.report is None:
        msg = "The model was not kept: record the animation while nothing else runs."
        raise RuntimeError(msg)
    panel.results.reveal()
    frames.append((_frame(viewer), 4.0))
    enhanced = viewer.layers[-1]
    light = panel.low.value
    for layer in viewer.layers:
        layer.visible = layer in (light, enhanced)
    viewer.reset_view()
    viewer.scene.camera.zoom *= FILM_ZOOM
    for shown, seconds in ((False, 3.0), (True, 5.0)):
        enhanced.visible = shown
        viewer.layers.selection.active = enhanced if shown else light
        frames.append((_frame(viewer), seconds))
    viewer.close()
    settle()
    _write_film(frames, IMAGES / "story.webp")


def _film_training(
    viewer: napari.Viewer, panel: Any
) -> list[tuple[Image.Image, float]]:
    """Train, and choose frames of the animation."""
    panel.run_button.click()
    settle(2)
    first, taken = _frame(viewer), list[Image.Image]()
    due = time.monotonic()
    while panel.is_busy:
        settle(0.2)
        if not panel.view.curves or time.monotonic() < due:
            continue
        due = time.monotonic() + FILM_EVERY_S
        panel.results.reveal()
        taken.append(_frame(viewer))
    finish(panel)
    count = min(6, len(taken))
    chosen = np.linspace(0, len(taken) - 1, count).round().astype(int)
    return [(one, 2.0) for one in (first, *(taken[number] for number in chosen))]


def _frame(viewer: napari.Viewer) -> Image.Image:
    """Take one frame of an animation, at the resolution of the window."""
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.canvas.overlays.scale_bar.font_size = 14
    settle(0.6)
    taken = viewer.window.screenshot(canvas_only=False, flash=False)
    return Image.fromarray(taken).convert("RGB")


def _write_film(frames: list[tuple[Image.Image, float]], path: Path) -> None:
    """Write frames, each with its duration in seconds."""
    first, *others = (picture for picture, _ in frames)
    times = [round(1000 * seconds) for _, seconds in frames]
    how = {"save_all": True, "append_images": others, "duration": times, "loop": 0}
    first.save(path, quality=80, method=6, minimize_size=True, **how)
    print(path, f"{sum(times) / 1000:.0f} s, {path.stat().st_size / 1e6:.2f} MB")


def photograph_enhance() -> None:
    """Enhance the degraded sample."""
    viewer = new_viewer("degraded")
    panel = dock(viewer, "Enhance")
    panel.layer.value = viewer.layers["degraded"]
    panel.form.set_values(tile=256)
    work(panel)
    keep(viewer, "enhance")


def photograph_train() -> None:
    """Fine-tune the bundled model on the degraded sample, and look at a patch."""
    viewer = new_viewer("degraded")
    panel = dock(viewer, "Train")
    panel.have.value = "pairs"
    panel.low.value = viewer.layers["degraded"]
    panel.high.value = viewer.layers["truth"]
    panel.steps.value = 300
    panel.run()
    end = time.monotonic() + PATIENCE_S
    while (
        panel.runner.is_busy
        and len(panel.view.curves.get("held out", {}).get("step", ())) < 5
    ):
        if time.monotonic() > end:
            msg = f"No model was evaluated within {PATIENCE_S} s."
            raise TimeoutError(msg)
        settle(0.2)
    panel.results.reveal()
    panel.view.poll()
    fill_view(viewer, panel.view.layer)
    photograph(viewer, "train", fit=False)
    panel.controls.cancel()
    finish(panel)
    viewer.close()
    settle()


def photograph_frc_map() -> None:
    """Map the resolution of two exposures."""
    viewer = new_viewer("exposures")
    ran(viewer, "Resolution", first=viewer.layers[0], second=viewer.layers[1])
    keep(viewer, "frc_map")


def photograph_metrics() -> None:
    """Compare the degraded image with the ground truth."""
    viewer = new_viewer("degraded")
    ran(viewer, "Spectrum and quality", image="degraded", reference="truth")
    keep(viewer, "metrics")


def photograph_error_map() -> None:
    """Compare a restored image with the degraded image it was computed from."""
    viewer = new_viewer("degraded")
    restored(viewer)
    viewer.window.remove_dock_widget("all")
    ran(viewer, "Compare", reference="degraded", enhanced=viewer.layers[-1])
    keep(viewer, "error_map")


def restored(viewer: napari.Viewer) -> VerbPanel:
    """Restore the degraded sample by a Wiener filter."""
    panel: Any = dock(viewer, "Enhance")
    panel.model.show_model("classical: wiener")
    panel.layer.value = viewer.layers["degraded"]
    work(panel)
    return panel


def photograph_restore() -> None:
    """Undo the blur of the degraded sample."""
    viewer = new_viewer("degraded")
    restored(viewer)
    keep(viewer, "restore")


def photograph_profile() -> None:
    """Plot ground truth and degraded image along a line across some wires."""
    viewer = new_viewer("degraded")
    panel = dock(viewer, "Profile")
    panel.layers.value = list(viewer.layers)
    panel.start_drawing()
    panel.line.value.add(np.array(LINE_PX, float), shape_type="line")
    work(panel)
    keep(viewer, "profile")


def photograph_gaps() -> None:
    """Compare the gaps in an enhanced image of gold with those in the finer image."""
    viewer = new_viewer("gold")
    enhance = dock(viewer, "Enhance")
    coarse = max(viewer.layers, key=lambda layer: layer.scale[0])
    fine = min(viewer.layers, key=lambda layer: layer.scale[0])
    enhance.layer.value = coarse
    enhance.model.box.value = "sem-2x"
    work(enhance)
    made = viewer.layers.selection.active
    viewer.window.remove_dock_widget("all")
    ran(viewer, "Particles", image=made, reference=fine)
    for layer in viewer.layers:
        layer.visible = layer is made or layer.name.startswith("Particles")
    keep(viewer, "gaps")


def photograph_project() -> None:
    """Show the results before they are saved in a project."""
    viewer = new_viewer("degraded")
    restored(viewer)
    viewer.window.remove_dock_widget("all")
    dock(viewer, "Save")
    keep(viewer, "project")


def photograph_crop() -> None:
    """Align the SEM image of a simulated scan with its mosaic."""
    folder = Path(_SCRATCH.name) / "chip"
    options = SimulateOptions(
        frames_grid=(3, 3), overlap=0.5, focus_nm=80, seed=1, sem=True
    )
    run(SIMULATE.job(out_dir=folder, options=options))
    mosaic = Path(_SCRATCH.name) / "mosaic.ome.zarr"
    run(STITCH.job(folder, mosaic))
    viewer = new_viewer()
    for path in (mosaic, folder / "sem" / "sem.ome.tif"):
        viewer.open(str(path), plugin=PLUGIN)
    viewer.layers[-1].name = "electron image"
    panel = dock(viewer, OPEN)
    panel.crop.set_expanded()
    panel.crop.form.set_values(align=True, gap_free=True)
    panel.crop.keep.value = True
    panel.crop.crop()
    finish(panel)
    upper, lower = viewer.layers[-1], viewer.layers[-2]
    upper.colormap, lower.colormap, upper.blending = "magenta", "green", "additive"
    keep(viewer, "crop")


def photograph_register() -> None:
    """Register the optical scan to the SEM image of the same area."""
    viewer = new_viewer("place")
    panel = ran(viewer, REGISTER)
    panel.look.overlay.value = True
    keep(viewer, "register")


# -- every panel, for visual inspection ----------------------------------------------

THEMES = ("dark", "light")
NARROW_PX = 320
ERROR = (
    "The folder /home/microscope/2026-11-21/a_name_that_has_no_place_to_break/mosaic"
    ".ome.zarr cannot be written, since the disk is full: free some space, or choose "
    "another place under Save as."
)
SHOWN = {STITCHING: "scan", REGISTER: "place"}
"""Samples for panels that need something other than two exposures."""
UNTRIED = ("Train",)  # a long run; the manual has its screenshot


def every_name() -> list[str]:
    """Return the titles of the panels of the manifest."""
    text = Path(napari_semsr.__file__).with_name("napari.yaml").read_text("utf-8")
    return [
        item["display_name"]
        for item in yaml.safe_load(text)["contributions"]["widgets"]
    ]


def photograph_every(folder: Path, only: list[str]) -> None:
    """Take screenshots of every panel, or of some."""
    specimen = Path(_SCRATCH.name) / "wafer.tif"
    write(degrade.simulate_specimen().replace(name="wafer"), specimen)
    for theme in THEMES:
        get_settings().appearance.theme = theme
        for name in only or every_name():
            # A dialog would wait for an answer forever.
            new = Path(_SCRATCH.name) / f"{theme}.semsr"
            base.ask_new_project_path = lambda _, new=new: new
            viewer = new_viewer(SHOWN.get(name, "exposures"))
            place, panel = viewer.window.add_plugin_dock_widget(PLUGIN, name)
            settle()
            look_at(place, panel, folder, f"{name}-{theme}-opens-1-opened")
            main = place.window()
            main.resizeDocks([place], [NARROW_PX], Qt.Orientation.Horizontal)
            look_at(place, panel, folder, f"{name}-{theme}-{NARROW_PX}-1-opened")
            if isinstance(panel, VerbPanel):
                run_and_look(
                    place, panel, specimen, folder, f"{name}-{theme}-{NARROW_PX}"
                )
            viewer.close()
            settle()


def run_and_look(
    place: QDockWidget, panel: VerbPanel, specimen: Path, folder: Path, name: str
) -> None:
    """Take screenshots of a panel after a run and after an error."""
    finish(panel)
    if panel.title == OPEN:
        panel.path.value = specimen
        finish(panel)
    if panel.title not in UNTRIED:
        panel.run_button.click()
        finish(panel)
        look_at(place, panel, folder, f"{name}-2-made")
    panel.messages.show_problem(ERROR)
    look_at(place, panel, folder, f"{name}-3-error")


def look_at(place: QDockWidget, panel: QWidget, folder: Path, name: str) -> None:
    """Write one screenshot of a dock, with its pages side by side."""
    settle()
    area = panel.findChild(QScrollArea)
    bar = area.verticalScrollBar()
    bar.setValue(0)
    pages = []
    while True:
        settle(0.1)
        pages.append(place.grab())
        if bar.value() >= bar.maximum():
            break
        bar.setValue(bar.value() + bar.pageStep())
    sheet = QPixmap(sum(page.width() for page in pages), pages[0].height())
    ratio = pages[0].devicePixelRatio()  # 2 with QT_SCALE_FACTOR=2
    sheet.setDevicePixelRatio(ratio)
    with QPainter(sheet) as painter:
        for number, page in enumerate(pages):
            painter.drawPixmap(round(number * page.width() / ratio), 0, page)
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(str(folder / f"{name.lower().replace(' ', '-')}.png"))


PICTURES = (
    photograph_open_mosaic,
    photograph_stitch,
    photograph_window,
    photograph_story,
    photograph_register,
    photograph_enhance,
    photograph_train,
    photograph_frc_map,
    photograph_metrics,
    photograph_error_map,
    photograph_restore,
    photograph_profile,
    photograph_gaps,
    photograph_project,
    photograph_crop,
)


def main() -> None:
    """Take the screenshots of the manual, or those of every panel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=Path, metavar="FOLDER")
    told = "names of screenshots; with --every, titles of panels"
    parser.add_argument("names", nargs="*", help=told)
    asked = parser.parse_args()
    if asked.every is not None:
        photograph_every(asked.every, asked.names)
        _SCRATCH.cleanup()
        return
    for take in PICTURES:
        if not asked.names or take.__name__.removeprefix("photograph_") in asked.names:
            take()
    _SCRATCH.cleanup()


if __name__ == "__main__":
    main()
