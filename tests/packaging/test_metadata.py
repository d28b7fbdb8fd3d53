"""What the package index and a repeatable installation rely on."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
EXTRAS = PROJECT["optional-dependencies"]
BINDINGS = {"napari", "pyqt5", "pyqt6", "pyside2", "pyside6"}


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_pinned_versions_run_on_the_python_of_debian():
    refused = {}
    for pin in CONSTRAINTS:
        try:
            needs = metadata(pin.name).get("Requires-Python") or ""
        except PackageNotFoundError:  # pinned for another extra
            continue
        if "3.11.2" not in SpecifierSet(needs):
            refused[pin.name] = needs
    assert not refused


def test_licence_follows_pep_639():
    assert PROJECT["license"] == "BSD-3-Clause"
    assert [(ROOT / name).is_file() for name in PROJECT["license-files"]] == [True]
    assert not any("License ::" in text for text in PROJECT["classifiers"])


def test_hub_finds_the_plugin():
    assert "Framework :: napari" in PROJECT["classifiers"]
    entry = PROJECT["entry-points"]["napari.manifest"]
    assert entry == {"napari-semsr": "napari_semsr:napari.yaml"}


def test_base_dependencies_bring_no_window():
    assert not names(PROJECT["dependencies"]) & BINDINGS
    assert "napari" in names(EXTRAS["all"])


def test_all_has_every_extra_for_users():
    for_users = set(EXTRAS) - {"all", "bench", "dev", "docs"}
    wanted = {text for extra in for_users for text in EXTRAS[extra]}
    assert set(EXTRAS["all"]) == wanted | {"napari[pyqt6]>=0.7"}


def test_the_recipe_for_conda_requires_what_the_package_does():
    named = {"torch": "pytorch", "matplotlib": "matplotlib-base", "dask": "dask-core"}
    text = (ROOT / "conda" / "meta.yaml").read_text("utf-8")
    run = text.partition("  run:\n")[2].partition("  run_constrained:")[0]
    stated = {line.strip(" -") for line in run.splitlines()} - {"python >=3.11"}
    wanted = map(Requirement, PROJECT["dependencies"])
    assert stated == {
        f"{named.get(one.name, one.name)} {one.specifier}" for one in wanted
    }


def test_constraints_pin_exact_public_versions():
    loose = [
        str(item)
        for item in CONSTRAINTS
        if item.url
        or item.extras
        or not re.fullmatch(r"==[0-9][0-9a-z.]*", str(item.specifier))
    ]
    assert loose == []


@pytest.mark.parametrize("group", ["base", *EXTRAS])
def test_constraints_satisfy_what_is_required(group):
    wanted = PROJECT["dependencies"] if group == "base" else EXTRAS[group]
    pinned = {
        canonicalize_name(item.name): str(item.specifier).removeprefix("==")
        for item in CONSTRAINTS
    }
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, requirement
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("name", ["constraints.txt", "Makefile", "pyproject.toml"])
def test_set_up_names_no_host_of_an_index_and_no_machine(name):
    text = (ROOT / name).read_text()
    assert re.findall(r"--(?:extra-)?index-url|--find-links|file://", text) == []
    assert re.findall(r"(?m)(?<![\w.~/-])/(?:home|root|work|opt|mnt)/", text) == []


def test_links_of_the_hub_page_are_absolute_and_its_pictures_exist():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in targets if not link.startswith("https://")] == []
    pictures = re.findall(r"!\[[^\]]*\]\(\S*/main/([^)]+)\)", text)
    assert pictures
    assert [name for name in pictures if not (ROOT / name).is_file()] == []


def test_citation_names_the_current_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
