"""Numbers are the same where the system writes them with a comma, as Qt makes it do."""

import locale
import shutil
from contextlib import suppress

import pytest

from napari_semsr.cli.command import main
from tests import children
from tests.hostile.commands import LINES, write_inputs

WITH_COMMA = ("de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "German_Germany.1252")
VERBS = ("gaps", "profile")


def has(*names):
    """Set a locale of these, if there is one."""
    for name in names:
        with suppress(locale.Error):
            return locale.setlocale(locale.LC_ALL, name)
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a German locale of our own; where none can be made, the reason."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        return "localedef is not installed"
    place = folder / "de_DE.UTF-8"
    said = children.run(["localedef", "-i", "de_DE", "-f", "UTF-8", place]).stderr
    return folder if place.is_dir() else said.strip()


@pytest.fixture
def comma(request, monkeypatch):
    """Set a locale with a decimal comma for C and Python, as Qt may."""
    before = locale.setlocale(locale.LC_ALL)

    def leave():
        monkeypatch.delenv("LOCPATH", raising=False)
        locale.setlocale(locale.LC_ALL, before)

    if not has(*WITH_COMMA):
        folder = request.getfixturevalue("built")
        if isinstance(folder, str):
            pytest.skip(f"no locale with a decimal comma, and none made: {folder}")
        monkeypatch.setenv("LOCPATH", str(folder))
        assert has("de_DE.UTF-8")
    assert locale.localeconv()["decimal_point"] == ","
    yield leave
    leave()


@pytest.mark.broad
@pytest.mark.parametrize("verb", VERBS)
def test_figures_and_tables_keep_the_dot(verb, comma, tmp_path, monkeypatch, capsys):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    said = []
    for _ in range(2):
        for more in ((), ("--json",)):
            assert main([verb, *LINES[verb], *more]) == 0
            table = tmp_path / "out.csv"
            said.append(capsys.readouterr().out)
            said.append(table.read_text() if table.is_file() else "")
            for made in tmp_path.glob("out*"):
                made.unlink()
        comma()  # and again without
    assert said[:4] == said[4:]
    assert (verb == "gaps") == bool(said[1])
