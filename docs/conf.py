"""Settings of the manual."""

import sys
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

numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"

html_theme = "pydata_sphinx_theme"
html_title = "napari-semsr"
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/napari-semsr/napari-semsr",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}

write_reference(HERE / "reference")
