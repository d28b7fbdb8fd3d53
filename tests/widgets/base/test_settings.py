import napari.settings
import pytest

from napari_semsr.widgets.base.form import get_preference


@pytest.mark.skipif(
    not hasattr(napari.settings, "get_plugin_settings"),
    reason="napari before 0.9 has no preferences of plugins",
)
def test_preference_is_what_the_user_set(plugin_settings, registered):
    from napari.settings import get_plugin_settings

    get_plugin_settings("napari-semsr").computing.device = "cpu"
    assert get_preference("computing", "device") == "cpu"
    assert get_preference("computing", "precision") == "auto"
