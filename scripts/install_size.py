"""Print packages and megabytes of the bare install and of ``[all]``.

``python scripts/install_size.py [EXTRA …]`` follows the requirements that the packages
of this environment state and adds up the files that each has recorded, so that it
downloads nothing. A package that is not installed here is listed as missing; what a
package alone requires is added to it, as what the install would lose without it.
"""

import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 12


def stated(extras: list[str]) -> list[str]:
    """List what pyproject.toml requires, with the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    return project["dependencies"] + [
        text for name in extras for text in optional[name]
    ]


@cache
def parsed(text: str) -> Requirement:
    """Read a requirement once."""
    return Requirement(text)


def closure(texts: list[str], without: str = "") -> tuple[dict[str, int], set[str]]:
    """Follow requirements to bytes by package, and to those that are not here."""
    sizes: dict[str, int] = {}
    missing, done = set[str](), set[tuple[str, str]]()
    left = [(text, "") for text in texts]
    while left:
        text, extra = left.pop()
        requirement = parsed(text)
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if name == without or (marker and not marker.evaluate({"extra": extra})):
            continue
        if (package := installed(name)) is None:
            missing.add(name)
            continue
        sizes[name], requires = package
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in done:
                done.add((name, wanted))
                left += [(one, wanted) for one in requires]
    return sizes, missing


@cache
def installed(name: str) -> tuple[int, list[str]] | None:
    """Give bytes and requirements of a package, without what Python compiles of it."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None
    files = [file for file in package.files or () if file.suffix != ".pyc"]
    return sum(file.size or 0 for file in files), package.requires or []


def main() -> None:
    """Print both installs, and the largest packages with what they alone bring."""
    for extras in ([], sys.argv[1:] or ["all"]):
        texts = stated(extras)
        sizes, missing = closure(texts)
        title = f"[{','.join(extras)}]" if extras else "bare"
        total = sum(sizes.values())
        print(f"{title}: {len(sizes)} packages, {total / 1e6:.0f} MB installed")
        if missing:
            print(f"  not installed here: {', '.join(sorted(missing))}")
        direct = {canonicalize_name(Requirement(text).name) for text in texts}
        brought = []
        for name in direct & {*sizes}:
            rest, _ = closure(texts, without=name)
            alone = total - sum(rest.values())
            brought.append((alone, len(sizes) - len(rest), name))
        for alone, count, name in sorted(brought, reverse=True)[:LARGEST]:
            print(f"  {alone / 1e6:7.1f} MB in {count:2d} for {name} alone")


if __name__ == "__main__":
    main()
