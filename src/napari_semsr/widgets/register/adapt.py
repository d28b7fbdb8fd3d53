"""Train on SEM: train a model on the user's own sample, and enhance the mosaic."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.utils.events import Event

from napari_semsr import core, jobs
from napari_semsr.analysis import choose_gain
from napari_semsr.io import StoredTransform, replace_atomically
from napari_semsr.widgets import base, host, layers
from napari_semsr.widgets.enhance import NEWS
from napari_semsr.widgets.placement import TransformSelector
from napari_semsr.widgets.register.panel import find_image_pair

_PAGES = {"Report (*.html)": ".html"}
_RESULTS_KEPT = shutil.ignore_patterns(jobs.STOP, "*.zarr", "*.safetensors", "*.html")
_LIST_HEIGHT = 70
_GAP_PX = 4  # px between the three images of the held-out part


@dataclass(frozen=True, slots=True)
class _AdaptOutcome:
    result: jobs.Adapted
    mosaic: base.OpenedImage
    linear: base.OpenedImage
    look_here: base.OpenedImage


def _run_adaptation(
    stopped: Path | None, folder: Path, **how: Any
) -> core.Job[_AdaptOutcome]:
    """Train, add the model to the library, and open the enhanced mosaic.

    `stopped`: folder of a run whose training is resumed, and whose results are kept.
    """
    if stopped is not None:
        shutil.copytree(stopped, folder, ignore=_RESULTS_KEPT, dirs_exist_ok=True)
    adaptation = yield from jobs.ADAPT.job(output=folder, **how)
    yield from jobs.MODELS_IMPORT.rerun(Path(adaptation.model))
    return _AdaptOutcome(
        adaptation,
        (yield from base.open_store(adaptation.applied[0].output)),
        (yield from base.open_store(adaptation.linear)),
        (yield from base.open_store(adaptation.look_here)),
    )


class AdaptPanel(base.VerbPanel):
    """Panel that trains a small network on the area shared by mosaic and SEM image.

    While it trains, a layer shows the held-out part: optical, enhanced so far, and SEM;
    afterwards the report has it.
    """

    plots = True
    queue = "training"
    help_place = "adapt.md#in-napari"
    title, run_label = "Train on SEM", "Train"
    verb = jobs.ADAPT
    after_cancel = "no model was added, and Train resumes the training"

    def build_form(self) -> None:
        """Build the form."""
        self.mosaic = self.input_layers.create_box(
            "mosaic", "Mosaic", "The optical image of the sample, such as a mosaic."
        )
        self.sem = self.input_layers.create_box(
            "sem", "SEM image", "SEM image of an area within the mosaic."
        )
        self.more = self.input_layers.create_list(
            "SEM images of further areas of the mosaic, also for training",
            _LIST_HEIGHT,
            name="more",
            label="Further SEM images",
            accepts=self._fits_as_further_image,
        )
        for box in (self.mosaic, self.sem):
            box.changed.connect(lambda _: self.input_layers.refresh())
        self.images = base.Form(self.mosaic, self.sem, self.more)
        where = base.Form()
        self.map = TransformSelector(
            where,
            "Registration",
            "Transform from Mosaic to SEM image. In Register to SEM, the button 'Train "
            "on SEM' selects the registration result here, including landmarks.",
            images=("Mosaic", "SEM image"),
            otherwise=("by the images", "search"),
            remedy="let the images be registered",
        )
        self.placed, self.transform = self.map.kind_box, self.map.transform
        self.form = base.OptionsForm(jobs.AdaptOptions)
        self.form.show_row("landmarks_only", visible=False)
        self.add_group("Images", self.images)
        self.add_group("Settings", where, self.form)
        self.placed.changed.connect(self._update_form_rows)
        self._layers_offered: tuple[Layer | None, ...] = ()
        self._propose_layers()
        self._update_form_rows()
        self.stop_button = base.create_button(
            "Stop here",
            self.stop_here,
            "End the training now, then evaluate and use the current model. "
            "Available while the network is training.",
        )
        self.stop_button.setEnabled(False)
        self.runner.busy_changed.connect(self._disable_stop_button)
        self.runner.stepped.connect(self._show_training_step)
        self.buttons.insert_widget(1, self.stop_button)
        self.report: Path | None = None
        self.report_button = base.create_button(
            "Open the report", self.open_report, "Open the report in the web browser."
        )
        self.keep_button = base.create_button(
            "Save report…",
            self.save_report,
            "Save the report, and a .json file with all its numbers next to it.",
        )
        self.report_row = base.WrappingRow(self.report_button, self.keep_button)
        self.add_results("Training", self.report_row)
        self.layer: Image | None = None  # the held-out part
        self._view: tuple[object, ...] = ()  # when it was added
        self._folder: Path | None = None
        self._request: tuple[object, ...] | None = None  # request of that folder
        self._pixel_size: core.PixelSize | None = None  # of its mosaic
        self._curve: list[tuple[float, float]] = []
        self._linear: float | None = None
        self._gain_name = ""  # which of the gains the curve has

    def _fits_as_further_image(self, layer: Layer) -> bool:
        """Return whether a layer may be another SEM image, not yet registered."""
        mosaic, sem = self.mosaic.value, self.sem.value
        return layer is not sem and all(
            one is None or layers.fits_beside(one, layer, anywhere=True)
            for one in (mosaic, sem)
        )

    # -- which layers -------------------------------------------------------------

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Update the lists of layers, and propose newly opened layers."""
        super()._on_layers_changed(event)
        if not self.is_busy:
            self._propose_layers()
        self._update_form_rows()

    def _propose_layers(self) -> None:
        """Propose a mosaic and an SEM image, unless the user has already chosen."""
        optical, sem = self.mosaic, self.sem
        layers = optical.value, sem.value
        if self._layers_offered and self._layers_offered != layers:
            return
        pair = find_image_pair(self.viewer, self.result_layers.own)
        if pair is None:  # without pixel sizes; a layer cannot be its own reference
            left = [item for item in optical.choices if item is not sem.value]
            if optical.value is not sem.value or not left:
                return
            pair = left[0], sem.value
        optical.value, sem.value = self._layers_offered = pair

    def take_registered(
        self, optical: Layer, sem: Layer, transform_file: StoredTransform
    ) -> None:
        """Select two registered layers and their transform."""
        self.mosaic.value, self.sem.value = optical, sem
        self._layers_offered = (None, None)  # chosen by the user
        self.map.select_registration(transform_file)

    def _update_form_rows(self, _: object = None) -> None:
        for name in ("model", "search"):
            self.form.show_row(name, not self.map.has_transform)
        # a registration has one SEM image
        more = bool(self.more.choices)
        self.images.show_row("more", more and not self.map.has_transform)

    # -- running --------------------------------------------------------------------

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        mosaic, sem = self.mosaic.value, self.sem.value
        # a given registration is of one SEM image only
        more = () if self.map.has_transform else self.more.value
        sems: list[Layer] = [sem, *(one for one in more if one is not sem)]
        images, (options, settings) = self.read_pair(*sems[1:]), self.read_settings()
        # of unchanged layers; a longer training resumes a shorter one
        request = (
            tuple((id(one), id(one.data)) for one in (mosaic, *sems)),
            tuple(image.pixel_size_nm for image in images),
            options.replace(minutes=None),
            settings["transform"],
        )
        folder = self._folder
        resume = folder is not None and folder.is_dir() and request == self._request
        stopped = (
            folder if folder and resume and (folder / jobs.STOP).is_file() else None
        )
        if folder is None or not resume or stopped is not None:
            folder = base.find_free_store_path(f"{images[0].name} adapted", "")
        size = images[0].pixel_size_nm
        settings |= {"mosaic": images[0], "sem": images[1:], "resume": resume}
        return base.JobRequest(
            partial(_run_adaptation, stopped, folder, options=options, **settings),
            partial(self.show_adaptation, mosaic),
            partial(
                self._prepare_progress, folder, request, size, resumes=bool(resume)
            ),
            saves_state=True,
        )

    def read_pair(self, *more: Image) -> list[core.Micrograph]:
        """Read the optical image, the SEM image and `more` SEM images."""
        optical, sem = self.mosaic.value, self.sem.value
        # the rotation of a layer on the screen is not used besides a transform
        has_transform = self.map.get_transform() is not None
        first = self.input_layers.read(optical, is_unturned=has_transform)
        images = [first, *map(self.input_layers.read, (sem, *more))]
        if optical in (sem, *more):
            msg = (
                f"Layer {first.name!r} is chosen as both images; open an SEM image of "
                f"the same area, and choose it under {self.sem.label}."
            )
            raise core.ShapeError(msg, code="same-image")
        return images

    def read_settings(self) -> tuple[jobs.AdaptOptions, dict[str, Any]]:
        """Return the options, and the transform and wording of messages."""
        transform, options = self.map.get_transform(), self.form.create_options()
        if transform is not None:
            options = options.replace(model="affine", search="near")  # not used
        labels = self.get_labels()  # read now: the job runs in a thread
        translate = partial(base.convert_names_to_panel_labels, read=lambda: labels)
        return options, {"transform": transform, "translate": translate}

    def translate(self, text: str) -> str:
        """Rephrase messages for this panel, which has no landmarks of its own."""
        advice = "as landmarks in Register to SEM, then press 'Train on SEM' there"
        return super().translate(text).replace("as landmarks", advice)

    def _prepare_progress(
        self,
        folder: Path,
        request: tuple[object, ...],
        size: core.PixelSize | None,
        *,
        resumes: bool,
    ) -> None:
        """Prepare to show the progress; a resumed run keeps its curve and layer."""
        if not resumes:
            self._curve.clear()
            if self.results.plot is not None:  # of an earlier training
                self.results.plot.clear()
                self.results.plot.refresh()
            self.history.remove_layers(self.result_layers.find_helpers())
            self.layer = None
        self._folder, self._request, self._linear = folder, request, None
        self._pixel_size = size
        self.results.show_result({}, "Training starts after the registration.")
        self.report_row.setVisible(False)

    def _disable_stop_button(self, _: bool) -> None:
        self.stop_button.setEnabled(False)

    def _show_training_step(self, step: core.Progress) -> None:
        self.stop_button.setEnabled(isinstance(step, jobs.AdaptProgress))
        if not isinstance(step, jobs.AdaptProgress):
            return
        if step.preview_images:
            # the held-out area side by side: optical, enhanced, SEM
            planes = step.preview_images
            low = np.concatenate([plane.ravel() for plane in planes]).min()
            gap = np.full((planes[0].shape[0], _GAP_PX), low)
            parts = [part for plane in planes for part in (plane, gap)][:-1]
            data = np.concatenate(parts, axis=1).astype(np.float32)
            if self.layer is None:
                self.layer = layers.add_image_beside(
                    self.viewer,
                    core.Micrograph(data, self._pixel_size),
                    "held-out part: optical | now | SEM",
                    helper=self.title,
                )
                self.viewer.reset_view()
                self._view = self._get_camera_state()
            elif self.layer in self.viewer.layers:
                self.layer.data = data
            if step.gain_db is not None:
                below = {"gain_below_cutoff_db": step.gain_below_cutoff_db}
                key, self._gain_name = choose_gain(below)
                self._linear = getattr(step, f"linear_{key}")
                self._curve.append((step.seconds, getattr(step, key)))
                self._draw_gain_curve()

    def stop_here(self) -> None:
        """End the training with the current model."""
        if self._folder is not None and self._folder.is_dir():
            (self._folder / jobs.STOP).touch()
            self.stop_button.setEnabled(False)
            self.messages.show_status("Ending the training with the current model …")

    def _get_camera_state(self) -> tuple[object, ...]:
        camera = host.get_camera(self.viewer)
        return camera.center, camera.zoom

    def _draw_gain_curve(self) -> None:
        """Plot the gain over training time, with the gain of the linear filter."""
        if not base.is_plotting_imported() or len(self._curve) < 1:
            return
        plot = self.results.clear_plot()
        seconds, gains = np.array(self._curve).T
        (axes,) = plot.axes
        axes.plot(
            seconds, gains, "o-", color=base.COLOURS[0], lw=1.5, ms=3.5, label="model"
        )
        if self._linear is not None:
            axes.axhline(self._linear, color="#8d99ae", ls="--", label="linear filter")
        axes.set_xlabel("Time trained (s)")
        axes.set_ylabel(f"{self._gain_name.capitalize()} ({core.DB})")
        axes.legend(loc="lower right")
        axes.grid(visible=True, alpha=0.15)
        plot.refresh()

    def show_adaptation(self, mosaic: Image, outcome: _AdaptOutcome) -> Iterator[None]:
        """Add the enhanced mosaic, and show the gain and the invented objects."""
        adaptation = outcome.result
        was_stopped = (Path(adaptation.output) / jobs.STOP).is_file()
        if not was_stopped:
            self._request = None  # it is finished
        if self.layer in self.viewer.layers:
            self.history.remove_layers([self.layer])
            if self._get_camera_state() == self._view:  # the user has not moved it
                self.viewer.reset_view()
        self.layer = None
        self.report = Path(adaptation.report)
        self.report_row.setVisible(True)
        name = Path(adaptation.model).stem
        # next to those of earlier trainings, which took minutes
        stores_hidden = {
            "linear filter": outcome.linear,
            "look here": outcome.look_here,
        }
        for what, opened_store in stores_hidden.items():
            title = layers.create_result_name(self.viewer, mosaic.name, what)
            base.add_opened_image(self.viewer, opened_store, name=title, visible=False)
        title = layers.create_result_name(self.viewer, mosaic.name, name)
        base.add_opened_image(self.viewer, outcome.mosaic, name=title)
        yield
        NEWS.changed.emit()
        self._draw_gain_curve()
        seconds, gains = np.array(self._curve).reshape(-1, 2).T
        self.results.show_result(
            core.get_figures(adaptation),
            f"Trained {name} for {adaptation.minutes:.1f} min and enhanced "
            f"{mosaic.name}; the model is now listed in Enhance."
            f"{' Train resumes the training.' if was_stopped else ''} The report is "
            "deleted when napari is closed; use Save report… to keep it.",
            curves={
                "training": {"time (s)": seconds, f"{self._gain_name} (dB)": gains}
            },
            more="".join(
                f'<p class="warning">{text}</p>' for text in adaptation.warnings
            ),
            network=name,
        )

    # -- the report ---------------------------------------------------------------

    def open_report(self) -> None:
        """Open the report in the web browser."""
        if self.report is not None:
            base.show_file(self.report)

    def save_report(self) -> None:
        """Ask for a file name, and save the report and its numbers."""
        report = self.report
        if report is None:
            return

        def keep(path: Path) -> None:
            for suffix in (".html", ".json"):
                with replace_atomically(path.with_suffix(suffix)) as place:
                    shutil.copyfile(report.with_suffix(suffix), place)

        sentence = "Report saved as {}, with its numbers next to it."
        self.sharing.save_file("Save report", report.stem, _PAGES, keep, sentence)
