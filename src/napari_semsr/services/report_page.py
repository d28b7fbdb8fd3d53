"""A self-contained HTML page of pictures, tables and facts: no script, no request.

The page is made of frozen blocks, so that any job can compose one; everything that a
user or a file could have named is escaped.
"""

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from napari_semsr.services.report_blocks import (
    Facts,
    Gallery,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
)
from napari_semsr.services.report_style import STYLE

__all__ = ["render", "write_page"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(page: Page) -> str:
    """Set a page in HTML.

    Parameters
    ----------
    page : Page
        What to show.

    Returns
    -------
    str
        A whole document that needs nothing beside itself.
    """
    body = "\n".join(
        _part(item, number) if isinstance(item, Part) else _section(item)
        for number, item in enumerate(page.sections)
    )
    title = escape(page.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<h1>{title}</h1>\n<p class="lede">{escape(page.lede)}</p>\n'
        f"{_contents(page)}</header>\n{body}\n<footer>{escape(page.footer)}</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def write_page(page: Page, path: Path) -> None:
    """Write a page, whole or not at all.

    Parameters
    ----------
    page : Page
        What to show.
    path : pathlib.Path
        An ``.html`` file; replaced if it exists.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    from napari_semsr.io.targets import replacing

    text = render(page)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _contents(page: Page) -> str:
    """List the parts, where there are any."""
    links = "".join(
        f'<li><a href="#part-{number}">{escape(item.title)}</a></li>'
        for number, item in enumerate(page.sections)
        if isinstance(item, Part)
    )
    return f"<nav><ul>{links}</ul></nav>\n" if links else ""


def _part(part: Part, number: int) -> str:
    """Set a part, its sections one level below."""
    body = "\n".join(_section(item, level=3) for item in part.sections)
    return (
        f'<div class="part" id="part-{number}">\n<h2>{escape(part.title)}</h2>\n'
        f'<p class="lede">{escape(part.lede)}</p>\n{body}\n</div>'
    )


def _section(section: Section, *, level: int = 2) -> str:
    """Set one section."""
    blocks = "\n".join(_BLOCKS[type(block)](block) for block in section.blocks)
    title = f"<h{level}>{escape(section.title)}</h{level}>"
    return f"<section>\n{title}\n{blocks}\n</section>"


def _text(block: Text) -> str:
    """Set paragraphs."""
    kind = ' class="warning"' if block.warning else ""
    lines = [f"<p{kind}>{escape(item)}</p>" for item in block.paragraphs]
    if block.code:
        lines.append(f"<pre><code>{escape(block.code)}</code></pre>")
    return "\n".join(lines)


def _picture(block: Picture) -> str:
    """Set one picture."""
    data = base64.b64encode(block.png).decode("ascii")
    width, height = _png_size(block.png)
    caption = (
        f"<figcaption>{escape(block.caption)}</figcaption>" if block.caption else ""
    )
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" '
        f'height="{height}" alt="{escape(block.alt)}">{caption}</figure>'
    )


def _png_size(png: bytes) -> tuple[int, int]:
    """Read width and height of a PNG, so that the page does not jump while it loads."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _gallery(block: Gallery) -> str:
    """Set pictures side by side."""
    inner = "\n".join(_picture(item) for item in block.pictures)
    return f'<div class="gallery columns-{block.columns}">\n{inner}\n</div>'


def _table(block: Table) -> str:
    """Set a table that scrolls sideways where the screen is narrow."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in block.header)
    rows = []
    for index, row in enumerate(block.rows):
        first, *others = row
        mark = ' class="marked"' if index == block.marked else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        rows.append(f'<tr{mark}><th scope="row">{escape(first)}</th>{cells}</tr>')
    caption = f"<caption>{escape(block.caption)}</caption>" if block.caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{caption}'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _facts(block: Facts) -> str:
    """Set names and values."""
    kind = "headline" if block.large else "facts"
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in block.pairs
    )
    return f'<dl class="{kind}">{pairs}</dl>'


_BLOCKS: dict[type, Callable[[Any], str]] = {
    Text: _text,
    Picture: _picture,
    Gallery: _gallery,
    Table: _table,
    Facts: _facts,
}
