"""Write constraints that hold every direct dependency at its lowest allowed version.

Run: ``python scripts/lowest_versions.py [--extra NAME …] [--pinned PACKAGE …]``. Bounds
are read from pyproject.toml, where each is a version that was released, and printed as
``package==version``, to be given to ``pip install --constraint``. What these bring with
them is left to pip. `--pinned` takes the version of constraints.txt for a package whose
lowest one is not at hand, such as torch in a build of several gigabytes.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def lowest(requirement: Requirement) -> str:
    """Version of the lower bound; ValueError where there is not exactly one."""
    bounds = [item for item in requirement.specifier if item.operator in (">=", "==")]
    if len(bounds) != 1:
        msg = f"{requirement} needs one lower bound: write {requirement.name}>=VERSION."
        raise ValueError(msg)
    return bounds[0].version


def pins(path: Path) -> dict[str, str]:
    """Versions of a file of constraints, by canonical name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    told = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in told}


def constraints(wanted: Iterable[str], pinned: dict[str, str]) -> Iterator[str]:
    """Give a line for each requirement; those in `pinned` keep that version."""
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        yield f"{name}=={pinned.get(name) or lowest(requirement)}"


def main(words: list[str] | None = None) -> None:
    """Print the constraints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extra", action="append", default=[])
    parser.add_argument("--pinned", action="append", default=[])
    chosen = parser.parse_args(words)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    wanted = list(project["dependencies"])
    for extra in chosen.extra:
        if extra not in project["optional-dependencies"]:
            sys.exit(f"pyproject.toml has no extra {extra!r}.")
        wanted += project["optional-dependencies"][extra]
    known = pins(ROOT / "constraints.txt")
    kept = {name: known[name] for name in map(canonicalize_name, chosen.pinned)}
    print(*constraints(wanted, kept), sep="\n")


if __name__ == "__main__":
    main()
