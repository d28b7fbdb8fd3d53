"""napari's command palette reaches every verb by its name."""

import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QDockWidget

from napari_semsr.core import OptionError
from napari_semsr.jobs.former import FORMER, LAST_COMMIT
from napari_semsr.widgets.window import commands
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("display")


def test_a_command_that_left_says_what_to_do_instead(monkeypatch):
    monkeypatch.setitem(FORMER, "panel Knit wool", "use `crop()`")
    monkeypatch.setitem(FORMER, "knit-wool", "only for the command line")
    with refused(OptionError, "former-name", match=rf"Crop .*{LAST_COMMIT}"):
        commands.open_knit_wool()
    with pytest.raises(AttributeError):
        commands.open_knit  # noqa: B018
    # in the window: as one sentence, without a traceback
    shown = []
    monkeypatch.setattr(commands, "current_viewer", ViewerModel)
    monkeypatch.setattr(commands, "show_error", shown.append)
    commands.open_knit_wool()
    assert len(shown) == 1
    assert LAST_COMMIT in shown[0]


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
