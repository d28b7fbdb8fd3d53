"""Print what CHANGELOG.md says of the version of a tag.

Run: ``python scripts/release_notes.py vX.Y.Z``. A tag that is not the version of
pyproject.toml and of CITATION.cff, or of which the changelog says nothing, ends with 1
and the reason, so that nothing is released under a wrong name.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def section(changelog: str, version: str) -> str:
    """Part of a changelog under the heading of a version; empty where there is none."""
    heads = list(re.finditer(r"^## \[(\S+)\].*$", changelog, re.MULTILINE))
    ends = [head.start() for head in heads[1:]] + [len(changelog)]
    for head, end in zip(heads, ends, strict=False):
        if head[1] == version:
            return changelog[head.end() : end].strip()
    return ""


def main(words: list[str], root: Path = ROOT) -> int:
    """Print the notes of a tag; the status says whether it may be released."""
    tag = words[0] if len(words) == 1 else ""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(text)["project"]["version"]
    cited = (root / "CITATION.cff").read_text(encoding="utf-8")
    notes = section((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    problem = ""
    if tag != f"v{version}":
        problem = f"The tag must be v{version}, as pyproject.toml says, got {tag!r}."
    elif f"\nversion: {version}\n" not in cited:
        problem = f"CITATION.cff must name version {version}: change it."
    elif not notes:
        problem = f"CHANGELOG.md has no part on {version}: rename *Unreleased*."
    print(problem or notes, file=sys.stderr if problem else sys.stdout)
    return bool(problem)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
