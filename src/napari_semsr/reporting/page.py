"""Self-contained HTML pages of images, tables and facts; no scripts or web requests.

A page is a jinja2 template composed of the macros of ``page.html``, which is next to
this module, as is the style sheet ``page.css``. All names from users and files are
escaped. The filters `fixed`, `spread`, `length` and `percent` format
numbers, so that the columns of a table line up.
"""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from napari_semsr.core import format_number, get_software_versions
from napari_semsr.io import replace_atomically

NO_VALUE = "\N{EN DASH}"


def render_template(template: str, **values: object) -> str:
    """Render a template as a complete, self-contained HTML document."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("napari_semsr.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals["version"] = get_software_versions()["napari-semsr"]
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode("ascii"),
        # width and height of a PNG, so that the page does not jump while it loads
        "width": lambda png: int.from_bytes(png[16:20], "big"),
        "height": lambda png: int.from_bytes(png[20:24], "big"),
        "fixed": lambda value, decimals: format_value(value, f".{decimals}f"),
        "spread": format_difference,
        "length": format_length,
        "percent": lambda share: f"{format_value(100 * share, '.0f')} %",
    }
    return environment.from_string(template).render(values).lstrip()


def write_page(path: Path, template: Path, **values: object) -> None:
    """Write a page atomically; `values` are the variables of its template."""
    text = render_template(template.read_text(encoding="utf-8"), **values)
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, numbers: Mapping[str, object]) -> None:
    """Write the content of a page as JSON, atomically."""
    text = json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False)
    with replace_atomically(path) as temporary:
        # lone surrogates are escaped as in JSON
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def list_provenance(
    options: Mapping[str, object], digests: Iterable[tuple[str, object]] = ()
) -> list[tuple[str, object]]:
    """Return the provenance of a page: options, image digests and versions."""
    return [
        *((f"Option {name}", value) for name, value in _flatten_options(options)),
        *((f"Digest of {name}", digest) for name, digest in digests),
        *((f"Version of {name}", v) for name, v in get_software_versions().items()),
    ]


def _flatten_options(options: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Flatten nested options, omitting unset ones."""
    for name, value in options.items():
        if isinstance(value, list) and all(isinstance(v, Mapping) for v in value):
            items = {f"{name} {n}": v for n, v in enumerate(value, 1)}
            yield from _flatten_options(items)
        elif isinstance(value, Mapping):
            inner = _flatten_options(value)
            yield from ((f"{name} {key}", item) for key, item in inner)
        elif value not in (None, ""):
            yield name, value


def format_value(value: float | None, form: str) -> str:
    """Format a number with a true minus sign, or a dash if missing."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    text = format_number(value, form)
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else text


def format_difference(difference: tuple[float | None, float | None]) -> str:
    """Format a difference with its standard error, if known."""
    value, error = difference
    text = format_value(value, "+.2f")
    if value is None or error is None or not math.isfinite(error):
        return text
    return f"{text} ± {error:.2f}"


def format_length(nm: float | None) -> str:
    """Format a length in nm, with one decimal below 1000 nm."""
    if nm is None or not math.isfinite(nm):
        return NO_VALUE
    return f"{nm:.1f} nm" if nm < 1000 else f"{nm:.0f} nm"
