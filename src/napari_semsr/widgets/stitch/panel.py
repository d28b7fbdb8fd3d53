"""Stitch: make one calibrated mosaic from a folder of frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, FileEdit, FloatSpinBox, LineEdit
from napari.utils.events import Event
from napari.viewer import Viewer
from qtpy.QtWidgets import QButtonGroup, QPushButton, QVBoxLayout, QWidget

from napari_semsr import core, io, jobs, stitching
from napari_semsr.reporting import draw_position_errors
from napari_semsr.widgets import base, layers
from napari_semsr.widgets.calibrate import PLUS_MINUS, PixelSizeEdit
from napari_semsr.widgets.stitch import by_hand
from napari_semsr.widgets.stitch.coverage import Coverage
from napari_semsr.widgets.stitch.follow import FolderFollower, stitch_scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from napari.layers import Image

# Colours that do not occur in viridis, so that a bad overlap is never read as a poor
# one.
_REJECTED_COLOUR = _LOST_COLOUR = "#c00000"
_AMBIGUOUS = "#ff8fd8"
_NOMINAL = "#5a9bd8"
_SOLVED_COLOUR = "#ffffff"
_THIN = 0.006  # width of lines over the scan; chosen
# titles of the plots: residuals of the overlaps, errors of the stage
_JOINT, _LINE = base.COLOURS[:2]

_FLAT_FILE = "file"
_FLAT_FIELDS = (
    ("from the frames", "auto"),
    ("none: frames are flat", "none"),
    ("a file", _FLAT_FILE),
)
_DISTORTION_NUMBER = "number"
_DISTORTION_CALIBRATED = "calibration"
_DISTORTIONS = (
    ("from the overlaps", "auto"),
    ("none: frames are not distorted", "none"),
    ("a number", _DISTORTION_NUMBER),
)
_NOTHING = "Choose a folder of frames to see its contents."
_LOOK_MS = 500  # between two checks for a missing folder; chosen
_TITLE = "Stitch"
# errors of a folder to which a microscope may still write frames or positions
_RUNNING_SCAN_CODES = ("too-few-frames", "frames-missing", "grid-mismatch")
_OVERLAP_COLUMNS = (
    *("used", "quality", "score", "residual_px", "sigma_px", "ambiguous", "reason"),
)
_Outcome = base.JobResult | stitching.UnplacedFramesError
_Corrected = tuple[jobs.StitchedFile, Path, Path | None, jobs.StitchFolderOptions]
FrameLayers = Sequence[tuple[object, dict[str, object], str]]
"""Data, attributes and kind of each layer of a scan's frames."""


def inspect_scan(
    folder: Path, options: jobs.StitchFolderOptions | None = None
) -> core.Job[tuple[core.Acquisition, int]]:
    """Open a scan at its lowest height; return it and the number of heights."""
    yield core.Progress(0, 0, f"looking into {folder.name}")
    heights = io.read_heights(folder) if (folder / io.HEIGHTS).is_file() else ()
    lowest = heights[0][0] if heights else folder
    scan = yield from jobs.open_scan(lowest, options=options)
    return scan.replace(name=folder.resolve().name), len(heights)


def _try_inspect_scan(
    folder: Path, options: jobs.StitchFolderOptions
) -> core.Job[tuple[core.Acquisition, int] | core.SemsrError]:
    """Inspect a scan; return the error if frames are missing.

    Such a folder can be followed, so it is not an error before a run.
    """
    try:
        return (yield from inspect_scan(folder, options))
    except core.SemsrError as error:
        if core.get_error_code(error) not in _RUNNING_SCAN_CODES:
            raise
        return error


def create_frame_layers(
    folder: Path, options: jobs.StitchFolderOptions | None = None
) -> core.Job[FrameLayers]:
    """Create layers of a scan's frames at nominal positions, for `add_frame_layers`."""
    acquisition = yield from jobs.open_scan(folder, options=options)
    yield core.Progress(0, 0, "reading the frames")
    names, options_stated = set(io.FRAMES_OPTIONS), {}
    if options is not None:
        options_stated = options.model_dump(include=names, exclude_none=True)
    return io.create_scan_layers(acquisition, folder, **options_stated)


def add_frame_layers(viewer: Viewer, frame_layers: FrameLayers) -> str:
    """Add frame layers to the viewer, and describe how the frames are placed."""
    for data, attributes, kind in frame_layers:
        getattr(viewer, f"add_{kind}")(data, **attributes)
    layers.show_scale_bar(viewer)
    if len(frame_layers) > 1:
        return "The frames are shown at their scan positions."
    return "The scan has no positions, so the frames are shown as a stack."


def correct_mosaic_file(
    mosaic_file: jobs.StitchedFile,
    folder: Path,
    corrections: stitching.Corrections,
    positions: Path | None,
    options: jobs.StitchFolderOptions,
) -> core.Job[base.JobResult]:
    """Correct a stored mosaic in place, and store the corrections with it."""
    target = Path(mosaic_file.output)
    options = options.replace(corrections=corrections if corrections.names else None)
    how: dict[str, Any] = {"overwrite": True, "keep": False, "again": mosaic_file}
    how |= {"positions": positions, "options": options}
    job = jobs.STITCH.job(folder, target, **how)
    outcome = yield from base.run_and_open(job, target, keep=lambda: True)
    by_hand.write_corrections(by_hand.get_corrections_path(target), corrections)
    return outcome


class StitchMosaicPanel(base.VerbPanel):
    """Panel that stitches a folder of frames into one mosaic."""

    plots = True
    help_place = "first-steps.md#5-stitch-frames"
    title, run_label = _TITLE, "Stitch"
    verb = jobs.STITCH

    def build_form(self) -> None:
        """Build the form."""
        tip = "Folder with the frames of one scan, and its positions if known."
        about: Any = {"label": "Folder", "mode": FileDialogMode.EXISTING_DIRECTORY}
        self.folder = FileEdit(name="folder", tooltip=tip, **about)
        tip = "Add the raw frames at the positions stated by the scan."
        text = "Show frames at nominal positions"
        self.show_button = base.create_button(text, self.show_frames, tip)
        self.about = base.RichTextLabel(_NOTHING)
        check = self._check_missing_folder
        self._missing_timer = base.create_timer(self, check, _LOOK_MS)
        show = self._show_stitched_mosaic
        self.follower = FolderFollower(self, self._read_settings, show)
        form = base.Form(self.folder, self.show_button)
        self.add_group("Frames", form, self.about, self.follower)
        self._build_settings()
        self._show_pixel_size(None, is_known=False)
        self._build_results()
        for control in (self.focus, self.flat, self.distortion, self.position_source):
            control.changed.connect(self._update_form_rows)
        self._update_form_rows()
        self.folder.changed.connect(self.look)
        # a grid that is entered has an order, and perhaps a known overlap
        self.grid.changed.connect(self.advanced_section.expand_if_set)
        self.calibration.changed.connect(self._show_calibration)
        self.form.on_change("colour", lambda _: self.look())
        self._select_open_scan()

    def _build_settings(self) -> None:
        self.focus = base.create_option_widget(jobs.StitchFolderOptions, "focus")
        tip = "Rows x columns, such as 4x5; the folder's positions are then ignored."
        self.grid = LineEdit(name="grid", label="Grid", tooltip=tip)
        self.grid.native.setPlaceholderText("from the folder, or 4x5")
        tip = "Pixel size in nm, as stated by the scan; correct it if it is wrong."
        self.pixel_size = PixelSizeEdit(tip)
        tip = "File of Calibrate from a grating in Open; by default, the scan's size."
        self.calibration = FileEdit(
            name="calibration", label="Calibration", filter="*.json", tooltip=tip
        )
        self.calibration_label = base.RichTextLabel()
        tip = "How the shading of the frames is estimated."
        self.flat = ComboBox(
            name="flat", label="Flat field", tooltip=tip, choices=_FLAT_FIELDS
        )
        tip = "Image of the bare illumination field."
        self.flat_file = FileEdit(name="flat_file", label="File", tooltip=tip)
        tip = "Grey level or image without light; by default, from the frames."
        self.dark = FileEdit(name="dark", label="Dark level", tooltip=tip)
        sizes = self.pixel_size, self.calibration, self.calibration_label
        light = self.flat, self.flat_file, self.dark
        self.how = base.Form(self.focus, self.grid, *sizes, *light)
        self.how.show_row("focus", False)
        tip = "CSV table with the columns frame,y_px,x_px or frame,y_nm,x_nm."
        self.positions = FileEdit(
            name="position_table", label="Table", filter="*.csv", tooltip=tip
        )
        tip = "Where the nominal positions of the frames come from."
        sources = ("folder or table", "auto"), ("none: not used", str(io.NO_POSITIONS))
        self.position_source = ComboBox(
            name="positions", label="Positions", tooltip=tip, choices=sources
        )
        tip = "How the distortion of the field is measured and corrected."
        self.distortion = ComboBox(
            name="distortion", label="Distortion", choices=_DISTORTIONS, tooltip=tip
        )
        self.distortion_amount = FloatSpinBox(
            name="distortion_amount",
            tooltip="Displacement at the edge of the field, divided by its radius.",
            min=-core.MAX_DISTORTION,
            max=core.MAX_DISTORTION,
            step=0.005,
        )
        self.form = base.OptionsForm(jobs.StitchFolderOptions)
        tooltip = "Frame order, overlaps and blending; rarely needed."
        rows = self.position_source, self.positions, self.distortion
        self.advanced_form = base.Form(*rows, self.distortion_amount.native)
        forms = self.advanced_form, self.form
        self.advanced_section = base.CollapsibleSection("Advanced", tooltip, *forms)
        self.add_group("Settings", self.how, self.advanced_section)

    def _build_results(self) -> None:
        self.output = base.create_store_edit("mosaic")
        tip = "Keep or replace an existing store."
        ways = ("refuse", False), ("replace it", True)
        self.existing = ComboBox(
            name="existing", label="If it exists", tooltip=tip, choices=ways
        )
        self.halves = base.create_option_widget(jobs.StitchFolderOptions, "halves")
        self.halves.value = True
        self.target = base.Form(self.output, self.existing, self.halves)
        self.add_group("Mosaic", self.target)
        self._mosaic: Image | None = None
        self.trouble, self.question = base.RichTextLabel(), QWidget()
        text = "In which grid were the frames recorded? Stitch as"
        base.stack_widgets(self.question, base.RichTextLabel(text))
        # above the footer, where scrolling does not hide it
        cast("QVBoxLayout", self.layout()).insertWidget(1, self.question)
        self.question.hide()
        self._grids: tuple[stitching.LikelyGrid, ...] = ()
        self._answers = QButtonGroup(self.question)
        self._answers.idClicked.connect(self._stitch_with_grid)
        self._coverage = Coverage(self, lambda: self._mosaic)
        self.coverage = self._coverage.tick
        tip = "Open the SEM image of the subfolder sem, and register the mosaic to it."
        self.register_button = base.create_button("Register", self.open_electrons, tip)
        self.by_hand = by_hand.CorrectionList(self, self.solve_again)
        tip = "Inspect overlaps one by one, and correct wrong ones."
        self.correcting = base.CollapsibleSection("Correct by hand", tip, self.by_hand)
        self.correcting.header.clicked.connect(self.by_hand.show_whole)
        self.add_results(
            "Result",
            self.trouble,
            self.correcting,
            helpers="Show outlines and overlaps",
            ticks=[self.coverage.native],
            below=[self.register_button],
        )
        # The mosaic that can be corrected, its folder, positions and options
        self._last_corrected: _Corrected | None = None
        self._electrons: Path | None = None

    def _update_form_rows(self, _: object = None) -> None:
        """Show only the applicable rows; scans of several heights have no halves."""
        self.how.show_row("flat_file", self.flat.value == _FLAT_FILE)
        is_number = self.distortion.value == _DISTORTION_NUMBER
        self.distortion_amount.native.setVisible(is_number)
        has_table = self.position_source.value == "auto"
        self.advanced_form.show_row("position_table", has_table)
        self.target.show_row("halves", self.focus.value != "max")

    def _show_calibration(self, _: object = None) -> None:
        """Show the pixel size of a calibration, and offer its distortion correction."""
        path = base.get_entered_path(self.calibration)
        size, sentence = self._size_stated, ""
        choices: tuple[tuple[str, str], ...] = _DISTORTIONS
        with self.messages.show_errors():
            if path is not None:
                stated, error, distortion = io.read_calibration(path)
                size = core.parse_pixel_size(stated)
                sentence = core.format_pixel_size(stated, error)
                if distortion is not None and distortion.shape is not None:
                    own = "from the calibration", _DISTORTION_CALIBRATED
                    choices = (own, *_DISTORTIONS)
                    amount, sd = 100 * distortion.amount, 100 * distortion.sd
                    field = core.format_shape(distortion.shape)
                    sentence += f"; distortion {amount:.3g} {PLUS_MINUS} {sd:.2g} %"
                    sentence += f" at the edge of the field ({field})"
        self.calibration_label.setText(sentence)
        self.pixel_size.setEnabled(not sentence)
        self.pixel_size.show_stated_size(size)
        self.distortion.choices = choices
        self.distortion.value = choices[0][1]

    # -- inspecting the scan ----------------------------------------------------

    def _on_layers_changed(self, event: Event | None = None) -> None:
        """Select the folder of frames that were opened elsewhere."""
        super()._on_layers_changed(event)
        if event is None or event.type != "inserted":
            return
        if base.is_alive(self) and io.FOLDER_KEY in event.value.metadata:
            self._select_open_scan()

    def _select_open_scan(self) -> None:
        for layer in reversed(self.viewer.layers):
            scan_folder = layer.metadata.get(io.FOLDER_KEY)
            if scan_folder is not None and Path(scan_folder).exists():
                self.folder.value = Path(scan_folder)
                return

    def typed_folder(self) -> Path:
        """Return the folder entered in the form."""
        folder = base.get_entered_path(self.folder)
        if folder is None:
            msg = f"Choose a folder of frames under {self.folder.label}."
            raise core.OptionError(msg, code="missing-value")
        return folder

    def look(self, _: object = None) -> None:
        """Describe the contents of the folder."""
        folder_chosen = base.get_entered_path(self.folder)
        self._missing_timer.stop()
        self._show_pixel_size(None, is_known=False)
        self._offer_grids(())
        if folder_chosen is None:
            self.about.setText(_NOTHING)
        elif not folder_chosen.exists():
            self.about.setText(f"{folder_chosen} does not exist.")
            self._missing_timer.start()
        else:
            self.about.setText("")
            how = jobs.StitchFolderOptions(colour=self.form.values()["colour"])
            look = partial(_try_inspect_scan, folder_chosen, how)
            self.controls.start_inspection(
                "Look into folder", look, self._show_scan_description
            )

    def _check_missing_folder(self) -> None:
        """Inspect a missing folder as soon as it exists."""
        folder = base.get_entered_path(self.folder)
        if folder is None or not folder.exists():
            return
        if self.follower.is_following:  # its frames are still being written
            self._missing_timer.stop()
            self.about.setText("")
        else:
            self.look()

    def _show_scan_description(
        self, scan: tuple[core.Acquisition, int] | core.SemsrError
    ) -> None:
        if isinstance(scan, core.SemsrError):
            follow = "If the scan is still running, use Follow this folder."
            self.about.setText(f"{self.translate(str(scan))} {follow}")
            self.messages.show_status("")
            return
        acquisition, heights = scan
        many = f" There are {heights} heights, which can be merged by focus."
        self.about.setText(describe_scan(acquisition) + (many if heights else ""))
        self.focus.value = "max" if heights else "none"
        self.how.show_row("focus", bool(heights))
        self._show_pixel_size(acquisition.pixel_size_nm)
        self.messages.show_status(f"{acquisition.name} can be stitched.")

    def _show_pixel_size(
        self, size: core.PixelSize | None, *, is_known: bool = True
    ) -> None:
        """Show the scan's pixel size once it is read, unless a calibration has one."""
        self._size_stated = size
        if self.pixel_size.isEnabled():
            self.pixel_size.show_stated_size(size)
        if not is_known:
            self.pixel_size.note.setText("")

    def show_frames(self) -> None:
        """Add the raw frames at their nominal positions."""
        with self.messages.show_errors():
            make = partial(create_frame_layers, self.typed_folder(), self.options())
            self.controls.start(make, self._add_frames, "Show frames")

    def _add_frames(self, frame_layers: FrameLayers) -> None:
        self.messages.show_status(add_frame_layers(self.viewer, frame_layers))

    # -- stitching --------------------------------------------------------------

    def options(self) -> jobs.StitchFolderOptions:
        """Create the job from the form."""
        method = str(self.flat.value)
        if method == _FLAT_FILE:
            path = self.flat_file.value
            if not isinstance(path, Path) or not path.is_file():
                msg = f"Choose a file under {self.flat_file.label}, or another method."
                raise core.OptionError(msg, code="missing-value")
            method = str(path)
        calibration = base.get_entered_path(self.calibration)
        size_options: dict[str, object] = {"pixel_size_nm": self.pixel_size.value}
        if calibration is not None:
            size_options = {"calibration": calibration}
        distortion: float | str | None = self.distortion.value
        if distortion == _DISTORTION_NUMBER:
            distortion = float(self.distortion_amount.value)
        elif distortion == _DISTORTION_CALIBRATED:
            distortion = None
        options: jobs.StitchFolderOptions = self.form.create_options(
            grid=self.grid.value,
            flat_field=method,
            dark=base.get_entered_path(self.dark),
            focus=self.focus.value,
            halves=self.halves.value and self.focus.value != "max",
            distortion=distortion,
            **io.apply_calibration(size_options, [jobs.StitchFolderOptions]),
        )
        return options

    def create_request(self) -> base.JobRequest:
        """Read the form, and return the request of the job that Run starts."""
        folder = self.typed_folder()
        options, target, how = self._read_settings(folder)

        def stitch() -> core.Job[_Outcome]:
            try:
                outcome = yield from stitch_scan(folder, target, options=options, **how)
            except stitching.UnplacedFramesError as error:
                return error
            if outcome.report.height is None:
                return outcome
            height = yield from base.open_store(outcome.report.height)
            return replace(outcome, opened=(*outcome.opened, height))

        about = {"folder": folder, "positions": how["positions"], "options": options}
        show = partial(self._show_stitched_mosaic, **about)
        return base.JobRequest(stitch, show, writes=target)

    def _read_settings(
        self, folder: Path
    ) -> tuple[jobs.StitchFolderOptions, Path, dict[str, Any]]:
        """Return options, mosaic path, and keywords for positions and overwriting."""
        name = f"{folder.name}-mosaic"
        target = base.get_entered_store(self.output) or base.find_free_store_path(name)
        positions = base.get_entered_path(self.positions)
        if self.position_source.value != "auto":
            positions = io.NO_POSITIONS
        how = {"positions": positions, "overwrite": bool(self.existing.value)}
        return self.options(), target, how

    def _show_stitched_mosaic(
        self,
        outcome: _Outcome,
        folder: Path,
        positions: Path | None,
        options: jobs.StitchFolderOptions,
    ) -> Iterator[None]:
        """Show the mosaic and allow corrections, or offer grids for its frames."""
        if isinstance(outcome, stitching.UnplacedFramesError):
            self._offer_grids(outcome.grids)
            raise outcome
        self._offer_grids(outcome.report.solution.grids)
        self._last_corrected = outcome.report, folder, positions, options
        yield from self.show_mosaic(outcome, folder)

    def solve_again(self) -> None:
        """Recompute positions with the corrections, and show the new mosaic."""
        if self._last_corrected is None:
            return
        self.by_hand.show_whole()
        mosaic_file, folder, positions, options = self._last_corrected
        corrections = self.by_hand.corrections
        self.by_hand.leave()

        def show(outcome: base.JobResult) -> Iterator[None]:
            self._last_corrected = outcome.report, folder, positions, options
            yield from self.show_mosaic(outcome, folder)

        job = partial(
            correct_mosaic_file, mosaic_file, folder, corrections, positions, options
        )
        self.messages.clear_warnings()
        self.controls.start(job, show, "Solve again")

    def show_mosaic(self, outcome: base.JobResult, folder: Path) -> Iterator[None]:
        """Add the mosaic, outlines and overlaps; draw the plots; show the metrics.

        Heights, if there are any, are added hidden below the mosaic.

        Layers of an earlier run on the same folder are replaced, except a mosaic that
        the user saved or renamed.
        """
        mosaic_file, mosaic = outcome.report, outcome.image
        name = mosaic.name.removesuffix(" mosaic")
        for layer in self.viewer.layers:
            if io.FOLDER_KEY not in layer.metadata:
                continue
            layer.visible = False
            ours = Path(layer.metadata[io.FOLDER_KEY]) == folder
            if ours and mosaic.pixel_size_nm and not layers.is_calibrated(layer):
                how = f"taken from its mosaic: {mosaic.pixel_size_from}"
                origin = core.create_size_source(how, mosaic.pixel_size_nm)
                layers.apply_pixel_size(layer, mosaic.pixel_size_nm, origin=origin)
        with self.result_layers.replace_earlier(
            str(folder), path=Path(mosaic_file.output)
        ) as earlier:
            yield from self.result_layers.remove_earlier(earlier)
            for height in outcome.opened[1:]:
                title = layers.find_free_name(self.viewer, f"{name} height")
                base.add_opened_image(self.viewer, height, name=title, visible=False)
                yield
            title = layers.find_free_name(self.viewer, mosaic.name)
            self._mosaic = base.add_opened_image(
                self.viewer, outcome.opened[0], name=title
            )
            # except in a second run on the folder
            layers.fill_view(self.viewer, self._mosaic)
            self.by_hand.show_mosaic(mosaic_file, self._mosaic)
            yield
            over = layers.create_overlay_keywords(mosaic, _TITLE, self._mosaic)
            yield from _add_shapes_layers(self.viewer, mosaic_file, over, name)
            yield
        self._electrons = _find_sem_image(folder)
        self.register_button.setVisible(self._electrons is not None)
        self._coverage.show()
        plot = self.results.clear_plot(rows=2)
        yield
        _draw_residuals(plot.axes[0], mosaic_file)
        _draw_stage(plot.axes[1], mosaic_file)
        plot.refresh()
        yield
        trouble = "".join(f"<p>{text}</p>" for text in mosaic_file.warnings)
        self.trouble.setText(self.translate(trouble))
        count, seconds = mosaic_file.frames, mosaic_file.seconds
        placed = f"{count - len(mosaic_file.left_out)} of {count}"
        joints, frames = _joints_table(mosaic_file), _frames_table(mosaic_file)
        self.results.show_result(
            {"Mosaic": mosaic_file.output, **core.get_figures(mosaic_file)},
            f"Stitched {placed} frames in {seconds:.1f} s.",
            curves={"joints": joints, "frames": frames},
            more=_legend(mosaic_file),
        )

    def _offer_grids(self, grids: Sequence[stitching.LikelyGrid]) -> None:
        """Offer grids that match the overlaps; each button stitches with its grid."""
        self._grids = tuple(grids)
        for former in self._answers.buttons():
            self._answers.removeButton(former)
            former.deleteLater()
        for number, item in enumerate(grids):
            button = QPushButton(str(item))
            count = f"{item.neighbours} of the {item.of}"
            button.setToolTip(f"{count} pairs of neighbours match in this grid.")
            self._answers.addButton(button, number)
            cast("QVBoxLayout", self.question.layout()).addWidget(button)
        self.asks_question = bool(grids)
        self.question.setVisible(self.asks_question)

    def _stitch_with_grid(self, number: int) -> None:
        """Stitch with one of the offered grids."""
        item = self._grids[number]
        rows, columns = item.grid
        self.grid.value = f"{rows}x{columns}"
        self.form.set_values(order=item.order, first=item.first)
        self.run()

    def open_electrons(self) -> None:
        """Open the folder's SEM image, and continue with its registration."""
        if (path := self._electrons) is not None:
            make = partial(base.open_image_levels, path, io.ReadOptions())
            self.controls.start(make, self._open_register_panel, "Open SEM image")

    def _open_register_panel(self, opened_store: base.OpenedImage) -> None:
        """Show the SEM image unless it is already open, and open Register."""
        there = str(cast("Path", opened_store.path).resolve())
        if all(item.metadata.get(io.STORE_KEY) != there for item in self.viewer.layers):
            image = opened_store.micrograph
            name = layers.find_free_name(self.viewer, f"{image.name} SEM")
            base.add_opened_image(self.viewer, opened_store, name=name)
        self.messages.show_status("Continue in Register.")
        base.switch_panel(self, self.viewer, "Register")


def _find_sem_image(folder: Path) -> Path | None:
    """Find the SEM image of a scan, preferring a recorded one to a simulated one."""
    place = folder / "sem"
    files = sorted(core.list_folder(place)) if place.is_dir() else []
    images = (item for item in files if io.get_reader(str(item)))
    return min(images, key=lambda item: item.stem != "view", default=None)


def _align_nominal_corners(mosaic_file: jobs.StitchedFile) -> core.FloatArray | None:
    """Return the nominal corners, aligned to the solved corners by a common offset.

    Returns (N, 2), in px of the mosaic; None if there are no nominal positions.
    """
    solution = mosaic_file.solution
    nominal = solution.nominal_px
    if nominal is None:
        return None
    has_both = solution.is_placed & np.isfinite(nominal).all(axis=1)
    offset = (solution.positions_px - nominal)[has_both].mean(axis=0)
    return np.asarray(nominal + offset)


def _create_frame_rectangles(
    corners: core.FloatArray, frame: tuple[int, int]
) -> list[core.FloatArray]:
    """Create rectangles along the outer edges of the frames."""
    rows, columns = frame
    box = np.array([[0, 0], [0, columns], [rows, columns], [rows, 0]]) - 0.5
    return [box + corner for corner in corners]


def get_overlap_colour(pair: stitching.PairReport) -> tuple[float, float, float, float]:
    """Return the colour of an overlap by its quality, faint if it is unused."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    if not pair.used:
        return to_rgba(_REJECTED_COLOUR, 0.45)
    if pair.ambiguous:
        return to_rgba(_AMBIGUOUS)
    return to_rgba(colormaps["viridis"](float(np.clip(pair.quality, 0, 1))))


def _add_shapes_layers(
    viewer: Viewer,
    mosaic_file: jobs.StitchedFile,
    over: Mapping[str, object],
    name: str,
) -> Iterator[None]:
    """Add outlines of the nominal and solved frames, and their overlaps.

    There is a line for each overlap between two placed frames.
    """
    solution, frame = mosaic_file.solution, mosaic_file.frame_shape
    keywords: dict[str, Any] = {
        **over,
        "edge_width": max(0.5, _THIN * min(frame)),
        "face_color": "transparent",
    }
    names, has_place = np.array(solution.names), solution.is_placed
    corners = solution.positions_px
    nominal = _align_nominal_corners(mosaic_file)
    if nominal is not None:
        has_nominal = np.isfinite(nominal).all(axis=1)
        is_placed = has_place[has_nominal]
        viewer.add_shapes(
            _create_frame_rectangles(nominal[has_nominal], frame),
            shape_type="rectangle",
            name=layers.create_result_name(viewer, name, "nominal outlines"),
            edge_color=[_NOMINAL if ok else _LOST_COLOUR for ok in is_placed],
            features={"frame": names[has_nominal], "placed": is_placed},
            opacity=0.6,
            **keywords,
        )
        yield
    y_px, x_px = corners[has_place].T
    viewer.add_shapes(
        _create_frame_rectangles(corners[has_place], frame),
        shape_type="rectangle",
        name=layers.create_result_name(viewer, name, "outlines"),
        edge_color=_SOLVED_COLOUR,
        features={"frame": names[has_place], "y_px": y_px, "x_px": x_px},
        opacity=0.5,
        **keywords,
    )
    yield
    pairs = [p for p in solution.pairs if has_place[[p.first, p.second]].all()]
    if not pairs:
        return
    pairs.sort(key=lambda pair: pair.used)  # those that are used are on top
    centres = corners + (np.array(frame) - 1) / 2
    features = {key: [getattr(pair, key) for pair in pairs] for key in _OVERLAP_COLUMNS}
    for key in ("first", "second"):
        features[key] = [solution.names[getattr(pair, key)] for pair in pairs]
    keywords["edge_width"] *= 2
    viewer.add_shapes(
        [centres[[pair.first, pair.second]] for pair in pairs],
        shape_type="line",
        name=layers.create_result_name(viewer, name, "overlaps"),
        edge_color=np.array([get_overlap_colour(pair) for pair in pairs]),
        features=features,
        **keywords,
    )


def _draw_residuals(axes: "Axes", mosaic_file: jobs.StitchedFile) -> None:
    """Plot the residual of each overlap against the residual expected from noise.

    Overlaps that were not refined are at the right edge, as their noise is unknown.
    """
    pairs = [
        pair
        for pair in mosaic_file.solution.pairs
        if np.isfinite(pair.residual_px)
        # without a closed loop, all that are used are 0
        and (mosaic_file.residual_px is not None or not pair.used)
    ]
    sigma, residual = np.maximum(
        [(pair.sigma_px, pair.residual_px) for pair in pairs] or np.empty((0, 2)), 1e-4
    ).T
    is_used = np.array([pair.used for pair in pairs], bool)
    is_refined = np.isfinite(sigma)
    if not is_refined.any():
        return
    edge = axes.get_yaxis_transform()
    for those, text, mark, colour in (
        (is_used, "used", "o", _JOINT),
        (~is_used, "not used", "X", _REJECTED_COLOUR),
    ):
        if those.any():
            look: Any = {"ls": "", "marker": mark, "ms": 4, "color": colour}
            here, rest = those & is_refined, residual[those & ~is_refined]
            axes.plot(sigma[here], residual[here], label=text, **look)
            if rest.size:  # without data, it would take up the layout
                look |= {"transform": edge, "clip_on": False}
                axes.plot(np.ones(len(rest)), rest, **look)
    known = sigma[is_refined]
    ends = np.array([known.min() / 1.5, known.max() * 1.5])
    axes.plot(ends, 2 * ends, "--", lw=1, color=_LINE, label=f"2 {core.SIGMA} of noise")
    axes.set_xscale("log")
    axes.set_yscale("log")
    from matplotlib.ticker import FuncFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_xlabel(f"{core.SIGMA} of the shift due to noise (px)")
    axes.set_ylabel("Residual (px)")
    axes.legend(loc="best")


def _draw_stage(axes: "Axes", mosaic_file: jobs.StitchedFile) -> None:
    """Plot the deviation of each frame from its nominal position."""
    nominal = _align_nominal_corners(mosaic_file)
    if nominal is None:
        return
    solution = mosaic_file.solution
    distances = (solution.positions_px - nominal)[solution.is_placed]
    draw_position_errors(axes, distances, _JOINT)
    axes.set_xlabel("Solved minus nominal, x (px)")
    axes.set_ylabel("y (px)")


def describe_scan(acquisition: core.Acquisition) -> str:
    """Describe the frames, pixel size and positions of a scan."""
    shape, kind = core.format_shape(acquisition.frame_shape), acquisition.dtype
    lines = [
        f"{len(acquisition)} frames of {shape}, {kind}",
        f"Pixel size: {core.format_pixel_size(acquisition.pixel_size_nm)}",
    ]
    grid = acquisition.grid
    has_size = acquisition.pixel_size_nm is not None
    has_stage = acquisition.nominal_nm is not None and has_size
    place = "The scan has no positions; they will be computed from the images."
    if grid is None and (has_stage or acquisition.nominal_px is not None):
        place = "Nominal positions are known."
    elif acquisition.nominal_nm is not None:
        place = "Nominal positions are known in nm, but the pixel size is unknown."
    elif grid is not None:
        order = f"order {acquisition.order}, first frame {acquisition.first}"
        place = f"Grid of {grid[0]} {base.TIMES} {grid[1]}, {order}."
    lines.append(place)
    lines += [f"{fault.frame}: {fault.reason}" for fault in acquisition.faults]
    return "\n".join(lines)


def _joints_table(mosaic_file: jobs.StitchedFile) -> base.Columns:
    """Return a table of all overlaps, including the values of the residual plot."""
    names, pairs = mosaic_file.solution.names, mosaic_file.solution.pairs
    table: dict[str, list[float | str | None]] = {
        "first frame": [names[pair.first] for pair in pairs],
        "second frame": [names[pair.second] for pair in pairs],
        "shift y (px)": [pair.shift_px[0] for pair in pairs],
        "shift x (px)": [pair.shift_px[1] for pair in pairs],
    }
    heads = {"residual_px": "residual (px)", "sigma_px": f"{core.SIGMA} by noise (px)"}
    for key in _OVERLAP_COLUMNS:
        table[heads.get(key, key)] = [getattr(pair, key) for pair in pairs]
    return table


def _frames_table(mosaic_file: jobs.StitchedFile) -> base.Columns:
    """Return a table of all frame positions, including deviations from the stage."""
    solution, nominal = mosaic_file.solution, _align_nominal_corners(mosaic_file)
    y, x = np.where(solution.is_placed[:, None], solution.positions_px, np.nan).T
    table: dict[str, Sequence[str] | core.FloatArray]
    table = {"frame": solution.names, "y (px)": y, "x (px)": x}
    if nominal is not None:
        table["y minus nominal (px)"] = y - nominal[:, 0]
        table["x minus nominal (px)"] = x - nominal[:, 1]
    return table


def _legend(mosaic_file: jobs.StitchedFile) -> str:
    """Return a legend for the colours of the overlaps."""
    first, last = (f'<span style="color:{c}">■</span>' for c in ("#440154", "#fde725"))
    others = {}
    if any(pair.ambiguous for pair in mosaic_file.solution.pairs):
        others[_AMBIGUOUS] = "another shift fits too"
    if mosaic_file.pairs_rejected:
        others[_REJECTED_COLOUR] = "not used"
    used_text = f"<p>Used overlaps: {first} to {last}, for correlations from 0 to 1</p>"
    return used_text + base.format_legend(others)
