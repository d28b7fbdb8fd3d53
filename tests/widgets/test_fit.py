"""Every panel of the manifest fits a narrow dock, in small and in large letters."""

from collections.abc import Callable, Iterator

import pytest
from napari.settings import get_settings

from tests.children import LIMIT_MS
from tests.widgets.fitting import Dock, choose_letters

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture
def letters() -> Iterator[Callable[[int], None]]:
    before = get_settings().appearance.font_size
    yield choose_letters
    choose_letters(before)


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot) -> Dock:
    viewer = make_napari_viewer_proxy(show=True)
    return Dock(viewer, lambda see: qtbot.waitUntil(see, timeout=LIMIT_MS))


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(16, marks=pytest.mark.broad),
        pytest.param(9, marks=pytest.mark.slow),
    ],
)
def test_every_panel_fits_a_narrow_dock(dock, size):
    dock.check_panels(size)
