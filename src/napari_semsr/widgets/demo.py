"""Demonstration: the whole workflow on simulated samples, with layers and a report."""

from collections.abc import Iterator

from magicgui.types import FileDialogMode
from magicgui.widgets import FileEdit

from napari_semsr.core import Job, get_figures
from napari_semsr.demonstration import DEMO, DemoOptions, DemoResult
from napari_semsr.widgets.base import (
    Form,
    OpenedImage,
    OptionsForm,
    PanelCall,
    RichTextLabel,
    VerbPanel,
    add_opened_image,
    create_button,
    find_free_path,
    find_free_store_path,
    get_entered_path,
    open_store,
    show_file,
)
from napari_semsr.widgets.layers import create_result_name, find_free_name

_NAME = "demonstration"
_MOSAIC, _SEM = "mosaic", "SEM image"
_ABOUT = (
    "Simulated frames are stitched. A network is trained for one minute on the area of "
    "an SEM image, evaluated on a held-out part of that area, and tried on another "
    "sample, for which it must not be used. The images are added as layers, and the "
    "report contains all numbers."
)


# images that become layers, from bottom to top
_LAYERS = ("mosaic", "place_sem", "enhanced")


def _run_demonstration(
    request: PanelCall,
) -> Job[tuple[DemoResult, dict[str, OpenedImage]]]:
    demo_result: DemoResult = yield from request.run()
    stores = {}
    for name in _LAYERS:
        stores[name] = yield from open_store(getattr(demo_result, name))
    return demo_result, stores


class DemoPanel(VerbPanel):
    """Panel that runs the demonstration and opens its images and report."""

    help_place = "demonstration.md#in-napari"
    title, run_label = "Demonstration", "Run the demonstration"
    verb = DEMO

    def build_form(self) -> None:
        """Build the form."""
        self.form = OptionsForm(DemoOptions)
        self.folder = FileEdit(
            name="folder",
            label="Save in",
            tooltip=(
                "Parent folder of the demonstration. If empty, a temporary folder is "
                "used, which is removed when napari closes."
            ),
            mode=FileDialogMode.EXISTING_DIRECTORY,
        )
        self.report_button = create_button(
            "Open the report",
            self.open_report,
            "Show the report in the web browser.",
        )
        self.report = ""
        self.add_group("What it does", RichTextLabel(_ABOUT))
        self.add_group("Samples", self.form, Form(self.folder))
        self.add_results("Results", self.report_button)

    def create_call(self) -> PanelCall:
        """Read the form, and return the call that Run starts."""
        options, folder_kept = self.form.create_options(), get_entered_path(self.folder)
        place = (
            find_free_path(folder_kept, _NAME, "")
            if folder_kept
            else find_free_store_path(_NAME, "")
        )
        return self.compose_call(
            {},
            self.show_demonstration,
            outputs={"folder": place},
            work=_run_demonstration,
            options=options,
        )

    def show_demonstration(
        self, outcome: tuple[DemoResult, dict[str, OpenedImage]]
    ) -> Iterator[None]:
        """Add the images as layers, and show the results."""
        demo_result, stores = outcome
        self.report = demo_result.report
        name = find_free_name(self.viewer, _MOSAIC)
        add_opened_image(self.viewer, stores["mosaic"], name=name)
        yield
        sem = find_free_name(self.viewer, _SEM)
        add_opened_image(self.viewer, stores["place_sem"], name=sem)
        yield
        title = create_result_name(self.viewer, name, "adapted")
        layer = add_opened_image(self.viewer, stores["enhanced"], name=title)
        self.viewer.layers.selection.active = layer
        yield
        self.results.show_result(
            get_figures(demo_result),
            f"Done in {demo_result.seconds:.0f} s. The layers show the same area, "
            "and the report contains all numbers.",
            network="the model of this area",
        )

    def open_report(self) -> None:
        """Show the report."""
        show_file(self.report)
