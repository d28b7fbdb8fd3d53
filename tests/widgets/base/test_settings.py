import napari.settings
import pytest

from napari_semsr.widgets.base.form import DEFAULTS, get_preference


@pytest.mark.skipif(
    not hasattr(napari.settings, "get_plugin_settings"),
    reason="napari before 0.9 has no preferences of plugins",
)
def test_preference_is_what_the_user_set(plugin_settings, registered):
    from napari.settings import get_plugin_settings

    get_plugin_settings("napari-semsr").computing.device = "cpu"
    assert get_preference("computing", "device") == "cpu"
    assert get_preference("computing", "precision") == "auto"


def test_preference_falls_back_where_napari_has_none(monkeypatch):
    monkeypatch.delattr(napari.settings, "get_plugin_settings", raising=False)
    assert get_preference("storage", "cache_gib") == DEFAULTS["storage"]["cache_gib"]
