"""How panels name options in sentences of jobs."""

import pytest

from napari_semsr.widgets.base import convert_names_to_panel_labels

LABELS = {
    "norm": ("Normalisation", {"whole": "whole", "sampled": "sampled", "tile": "tile"}),
    "patch": ("Patch (px)", {}),
    "model": ("Map", {"elastic": "elastic (bent)"}),
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("use `norm=whole`, which runs", "use 'Normalisation: whole', which runs"),
        ("or are bent (`model=elastic`).", "or are bent ('Map: elastic (bent)')."),
        (
            "is unknown: give it one (`pixel_size_nm`).",
            "is unknown: give it one ('Pixel size' in Open).",
        ),
        ("lower it (`step`, or `patch`).", "lower it ('Patch (px)')."),
        ("Option `other` must be 4.", "Option 'other' must be 4."),
        ("onto one grid (`crop()`).", "onto one grid (Open)."),
        ("of napari-semsr 1.0 -- no", "of napari-semsr 1.0 -- no"),
    ],
)
def test_options_become_rows_of_the_panel(text, said):
    assert convert_names_to_panel_labels(text, lambda: LABELS) == said
