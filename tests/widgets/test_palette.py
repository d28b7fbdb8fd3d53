"""napari's command palette reaches every verb by its name."""

import pytest
from qtpy.QtWidgets import QDockWidget

from napari_semsr.widgets import window as commands
from napari_semsr.widgets.base import find_title

pytestmark = pytest.mark.usefixtures("display")


def test_former_names_lead_to_the_panels_that_have_them():
    assert find_title("open_mosaic") == find_title("Image") == "Open"
    assert find_title("Train on SEM") == "Train"
    assert find_title("Restore") == "Enhance"
    assert find_title("FrcMapPanel") == find_title("decorrelation") == "Resolution"
    assert find_title("knit") is None
    with pytest.raises(AttributeError):
        commands.open_knit  # noqa: B018


@pytest.mark.broad
def test_a_verb_opens_its_panel_once(make_napari_viewer_proxy, registered, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    for command in (commands.open_enhance, commands.open_save, commands.open_enhance):
        command()
    docks = viewer.window.dock_widgets
    names = [name.partition(" (")[0] for name in docks]
    assert sorted(names) == ["Enhance", "Save"]
    enhance = docks[next(name for name in docks if name.startswith("Enhance"))]
    assert isinstance(enhance.parentWidget(), QDockWidget)
