"""How panels name options in sentences of jobs."""

import pytest

from napari_semsr.core import OptionError
from napari_semsr.widgets.base import convert_names_to_panel_labels, relabel_errors
from tests.refusals import refused

LABELS = {
    "norm": ("Normalisation", {"whole": "whole", "sampled": "sampled", "tile": "tile"}),
    "device": ("Device", {"auto": "automatic", "cpu": "CPU"}),
    "existing": ("If it exists", {"resume": "resume it", "replace": "replace it"}),
    "patch": ("Patch (px)", {}),
    "like": ("To the area of", {}),
    "model": ("Map", {"elastic": "elastic (bent)"}),
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("use `norm=whole`, which runs", "use 'Normalisation: whole', which runs"),
        ("use `device=cpu`.", "use 'Device: CPU'."),
        ("or use `overwrite`.", "or use 'If it exists: replace it'."),
        ("again with `resume`; kept", "again with 'If it exists: resume it'; kept"),
        ("give `like` as well", "give 'To the area of' as well"),
        ("or are bent (`model=elastic`).", "or are bent ('Map: elastic (bent)')."),
        (
            "is unknown: give it one (`pixel_size_nm`).",
            "is unknown: give it one ('Pixel size' in Open mosaic).",
        ),
        (
            "set one of them (`moving_pixel_size_nm` or `fixed_pixel_size_nm`).",
            "set one of them ('Pixel size' in Open mosaic).",
        ),
        ("lower it (`step`, or `patch`).", "lower it ('Patch (px)')."),
        ("lower it (`step`).", "lower it."),
        ("lower `step`.", "lower 'step'."),
        ("Option `patch` must be 4.", "Option 'Patch (px)' must be 4."),
        ("Option `other` must be 4.", "Option 'other' must be 4."),
        ("onto one grid (`crop()`).", "onto one grid (Crop)."),
        (
            "cut them off (`crop(gap_free=True)`).",
            "cut them off ('Exclude empty areas' in Crop).",
        ),
        (
            "; stitch with `halves`",
            "; stitch with 'Two halves for FRC' in Stitch mosaic",
        ),
        (
            "use its luminance (`colour=luminance`).",
            "use its luminance ('Colour image: use luminance' in Open mosaic).",
        ),
        ("of napari-semsr 1.0 -- no", "of napari-semsr 1.0 -- no"),
    ],
)
def test_options_become_rows_of_the_panel(text, said):
    assert convert_names_to_panel_labels(text, lambda: LABELS) == said


def test_errors_for_napari_keep_their_class_and_their_code():
    @relabel_errors()
    def refuse() -> None:
        msg = "It exists: choose another name, or use `overwrite`."
        raise OptionError(msg, code="output-exists")

    with refused(OptionError, "output-exists") as no:
        refuse()
    assert no.value.code == "output-exists"
