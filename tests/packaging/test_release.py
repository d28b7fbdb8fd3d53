"""A tag is released under the version and with the notes that the checkout has."""

import tomllib
from pathlib import Path

import pytest
import yaml
from scripts.release_notes import main, section

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2027-01-01

### Added

- Newer.

## [0.1.0] - 2026-12-01

- Older.
"""

in_checkout = pytest.mark.skipif(
    not GITHUB.is_dir(), reason="the source archive leaves .github out"
)


@pytest.fixture
def checkout(tmp_path):
    """Make a checkout that is about to become 0.2.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n', "utf-8")
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 0.2.0\n", "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, "utf-8")
    return tmp_path


def test_notes_are_those_of_the_version(checkout, capsys):
    assert main(["v0.2.0"], checkout) == 0
    assert capsys.readouterr().out == "### Added\n\n- Newer.\n"


@pytest.mark.parametrize(
    ("words", "file", "text", "reason"),
    [
        (["v0.3.0"], None, "", "must be v0.2.0"),
        ([], None, "", "must be v0.2.0"),
        (["v0.2.0"], "CITATION.cff", "version: 0.1.0\n", "CITATION.cff"),
        (["v0.2.0"], "CHANGELOG.md", "# Changelog\n", "Unreleased"),
    ],
    ids=["other-tag", "no-tag", "other-citation", "no-notes"],
)
def test_wrong_release_is_refused(checkout, capsys, words, file, text, reason):
    if file:
        (checkout / file).write_text(text, "utf-8")
    assert main(words, checkout) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert reason in said.err


def test_changelog_has_the_version_and_a_place_for_what_comes():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert section(text, PROJECT["version"])
    assert "## [Unreleased]\n" in text


@in_checkout
def test_workflow_tests_every_python_that_the_package_names():
    test = yaml.safe_load((GITHUB / "workflows" / "test.yml").read_text("utf-8"))
    matrix = test["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: 3."
    named = {c[len(prefix) - 2 :] for c in PROJECT["classifiers"] if prefix in c}
    assert set(matrix["python"]) == named
    systems = {name.partition("-")[0] for name in matrix["platform"]}
    assert systems == {"ubuntu", "windows", "macos"}


@in_checkout
def test_workflows_run_scripts_that_are_there_and_only_the_release_writes():
    for path in GITHUB.glob("workflows/*.yml"):
        workflow = yaml.safe_load(path.read_text("utf-8"))
        steps = [s for job in workflow["jobs"].values() for s in job.get("steps", ())]
        words = " ".join(s.get("run", "") for s in steps).split()
        ours = {word for word in words if word.startswith(("scripts/", ".ci/"))}
        assert [word for word in ours if not (ROOT / word).is_file()] == []
        assert workflow["permissions"] == {"contents": "read"}, path.name
        jobs = workflow["jobs"].items()
        asked = {n: {*job["permissions"]} for n, job in jobs if "permissions" in job}
        wanted = {"publish": {"id-token"}, "describe": {"contents"}}
        wanted["manual"] = {"pages", "id-token"}
        assert asked == (wanted if path.name == "release.yml" else {})
