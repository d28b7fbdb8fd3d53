"""The sources of the package, parsed once for all tests that read them."""

import ast
from functools import cache
from pathlib import Path

import napari_semsr

SOURCE = Path(napari_semsr.__file__).parent


@cache
def trees() -> dict[str, ast.Module]:
    """Parse each source; the keys are paths within the package."""
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }
