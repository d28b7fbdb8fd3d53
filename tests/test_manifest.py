from pathlib import Path

import pytest

pytest.importorskip("npe2")

from npe2 import PluginManifest

from tests.children import run_python

ROOT = Path(__file__).resolve().parents[1]
INSIDE = ROOT / "src" / "napari_semsr" / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(INSIDE)


def test_manifest_at_the_top_equals_the_one_inside():
    top = ROOT / "napari.yaml"
    assert top.read_text(encoding="utf-8") == INSIDE.read_text(encoding="utf-8")


def test_manifest_is_valid_and_named_as_the_distribution(manifest):
    manifest.validate_imports()
    assert manifest.name == "napari-semsr"


def test_plugin_menu_is_short_and_begins_with_the_window(manifest):
    titles = [item.display_name for item in manifest.contributions.widgets]
    from napari_semsr.widgets.base import PANELS

    assert titles == list(PANELS)
    names = {c.id: c.python_name for c in manifest.contributions.commands}
    for item in manifest.contributions.widgets:
        place = names[item.command].removeprefix("napari_semsr.widgets.")
        assert place == PANELS[item.display_name][0]
    # napari would list each panel twice, and its plugin's name behind each
    assert not manifest.contributions.menus


def test_every_command_is_callable_and_used(manifest):
    contributions = manifest.contributions
    used = {item.command for item in contributions.widgets}
    used |= {item.command for item in contributions.readers}
    used |= {item.command for item in contributions.writers}
    used |= {item.command for item in contributions.sample_data}
    # for the command palette
    used |= {
        one.id for one in contributions.commands if "widgets.window:" in one.python_name
    }
    assert {command.id for command in contributions.commands} == used
    for command in contributions.commands:
        assert command.id.startswith("napari-semsr.")
        assert manifest.display_name not in command.title  # napari adds it


def test_the_palette_finds_panels_by_the_words_that_people_use(manifest):
    from napari_semsr.widgets.base import PANELS

    titles = [command.title for command in manifest.contributions.commands]
    more = {"Open": ["scale bar"], "Enhance": ["denoise"], "Figure": ["scale bar"]}
    for panel, (_, *names) in PANELS.items():
        found = [panel, *(one for one in titles if one.endswith(f"(in {panel})"))]
        for name in (*names, *more.get(panel, ())):
            words = name.lower().split()
            assert name.endswith("Panel") or any(
                all(word in f"{manifest.name} {one}".lower() for word in words)
                for one in found
            ), name


def test_reader_patterns_are_narrow(manifest):
    for reader in manifest.contributions.readers:
        for pattern in set(reader.filename_patterns) - {"project.json"}:
            assert pattern.startswith("*.")
            assert "*" not in pattern[1:]
            assert pattern != "*.zarr"


def test_preferences_have_the_defaults_that_the_panels_know(manifest):
    from napari_semsr.widgets.base.form import DEFAULTS

    declared = {
        key: {name: item.default for name, item in group.properties.items()}
        for key, group in manifest.contributions.configurations.items()
    }
    assert declared == {key: dict(value) for key, value in DEFAULTS.items()}


@pytest.mark.broad
def test_discovery_imports_nothing_of_ours_but_the_package():
    code = (
        "import sys, npe2; m = npe2.PluginManager(); m.discover();"
        "assert 'napari-semsr' in list(m._manifests);"
        "mine = [n for n in sys.modules if n.startswith('napari_semsr.')];"
        "heavy = {'torch', 'napari', 'qtpy'} & set(sys.modules);"
        "assert not mine and not heavy, (mine, heavy)"
    )
    run_python(code, cwd=ROOT)


@pytest.mark.broad
def test_files_are_read_where_there_is_no_napari(tmp_path):
    """Through the plugin engine alone, as the base dependencies install it."""
    np = pytest.importorskip("numpy")
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "field.tif", np.eye(64, dtype=np.uint8))
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('napari', 'qtpy', 'magicgui')))\n"
        "import npe2; npe2.PluginManager.instance().discover()\n"
        "layers, _ = npe2.read_get_reader(['field.tif'], stack=False,"
        " plugin_name='napari-semsr')\n"
        "assert layers[0][0].shape == (64, 64), layers"
    )
    run_python(code, cwd=tmp_path)
