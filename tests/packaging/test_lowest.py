"""The constraints of `scripts/lowest_versions.py` are the bounds of pyproject.toml."""

import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import children

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lowest(*words: str) -> dict[str, str]:
    """Versions that the script gives, by name."""
    script = ROOT / "scripts" / "lowest_versions.py"
    done = children.run([sys.executable, script, *words])
    assert done.returncode == 0, done.stderr
    return dict(line.split("==") for line in done.stdout.splitlines())


@pytest.mark.parametrize("extra", [None, "all", "czi", "table"])
def test_every_requirement_is_met_and_by_nothing_lower(extra):
    given = lowest(*(["--extra", extra] if extra else []))
    wanted = PROJECT["dependencies"] + EXTRAS.get(extra, [])
    for requirement in map(Requirement, wanted):
        version = given[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
        floor = min(Version(item.version) for item in requirement.specifier)
        assert Version(version) == floor, requirement
    assert len(given) == len({Requirement(text).name.lower() for text in wanted})


def test_pinned_packages_keep_the_usual_version():
    pin = next(
        line.partition("==")[2]
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line.startswith("torch==")
    )
    usual, changed = lowest(), lowest("--pinned", "torch")
    assert changed == {**usual, "torch": pin}
    assert usual["torch"] != pin
