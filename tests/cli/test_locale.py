"""Numbers are the same where the system writes them with a comma, as Qt makes it do."""

import json
import locale

import pytest

from napari_semsr.cli.command import main
from tests.hostile.commands import LINES, write_inputs

WITH_COMMA = ("de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "German_Germany.1252")
VERBS = ("info", "metrics", "frc", "decorrelation", "gaps", "profile", "histogram")


@pytest.fixture
def comma():
    """Set a locale with a decimal comma for C and Python, as Qt may."""
    before = locale.setlocale(locale.LC_ALL)
    for name in WITH_COMMA:
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        assert locale.localeconv()["decimal_point"] == ","
        yield lambda: locale.setlocale(locale.LC_ALL, before)
        locale.setlocale(locale.LC_ALL, before)
        return
    pytest.skip("no locale with a decimal comma is installed")


@pytest.mark.parametrize("verb", VERBS)
def test_figures_and_tables_keep_the_dot(verb, comma, tmp_path, monkeypatch, capsys):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    said, tables = [], []
    for _ in range(2):
        words = [verb, *LINES[verb]]
        assert main([*words, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        table = tmp_path / "out.csv"
        tables.append(table.read_text() if table.is_file() else "")
        table.unlink(missing_ok=True)
        assert main(words) == 0
        said.append((json.dumps(told), capsys.readouterr().out))
        table.unlink(missing_ok=True)
        comma()  # and again without
    assert said[0] == said[1]
    assert tables[0] == tables[1]
    assert (verb == "gaps") == bool(tables[0])
