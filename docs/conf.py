"""Settings of the manual."""

import re
import sys
import typing
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from generate_reference import write_reference  # noqa: E402

project = "napari-semsr"
author = "the napari-semsr developers"
copyright = f"2026, {author}"  # noqa: A001 - the name that Sphinx reads
release = installed_version("napari-semsr")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
default_role = "code"

nitpicky = True
nitpick_ignore_regex = [  # other packages' manuals are not fetched while building
    ("py:class", r"(collections|pydantic)\..*"),
    ("py:class", r".*\._\w+"),  # private validators within annotated types
]

numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"

html_theme = "pydata_sphinx_theme"
html_title = "napari-semsr"
html_show_sourcelink = False
html_sidebars = {"*": [], "reference/commands": []}
html_theme_options = {
    "github_url": "https://github.com/napari-semsr/napari-semsr",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}

write_reference(HERE / "reference")


def skip_new_types(  # noqa: D103
    app: object, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    # numpydoc cannot read the signature of a NewType.
    return True if isinstance(value, typing.NewType) else None


def escape_bars(  # noqa: D103
    app: object, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    # |A| in a docstring is a modulus; reStructuredText reads it as a substitution, and
    # words in a command's help as emphasis and links.
    for number, line in enumerate(lines):
        if name.startswith("napari_semsr.functions.") and ">>>" not in line:
            parts = re.split(r"(`[^`]*`)", line)
            mark = re.compile(r"(?<![\\*\w])\*(?=\w)|(?<=\w)_(?=[\s,.;)'])")
            parts[::2] = [mark.sub(lambda m: f"\\{m[0]}", part) for part in parts[::2]]
            line = lines[number] = "".join(parts)
        if "|" in line and not line.lstrip().startswith(("|", "+", "..")):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
            lines[number] = "".join(parts)


def setup(app: typing.Any) -> None:  # noqa: D103
    app.connect("autodoc-skip-member", skip_new_types)
    app.connect("autodoc-process-docstring", escape_bars, priority=900)


# For `make links`. Publishers block programs that follow a DOI.
linkcheck_ignore = [r"https://doi\.org/"]
linkcheck_retries = 2
linkcheck_timeout = 20
