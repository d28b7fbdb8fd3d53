"""A self-contained HTML page of pictures, tables and facts: no script, no request.

The page is made of frozen blocks, so that any job can compose one; everything that a
user or a file could have named is escaped.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from napari_semsr.services.report_style import STYLE

__all__ = [
    "Block",
    "Facts",
    "Gallery",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "render",
    "write_page",
]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs.

    Attributes
    ----------
    paragraphs : tuple of str
        Plain text.
    code : str
        Shown below in a fixed-width font, for what a user may copy.
    """

    paragraphs: tuple[str, ...]
    code: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with its caption.

    Attributes
    ----------
    png : bytes
        The picture.
    alt : str
        What it shows, for those who cannot see it.
    caption : str
        Printed below.
    """

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures side by side, as many as the screen is wide.

    Attributes
    ----------
    pictures : tuple of Picture
        Of about the same size.
    columns : int
        At most so many in a row.
    """

    pictures: tuple[Picture, ...]
    columns: int = 3


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under a header.

    Attributes
    ----------
    header : tuple of str
        Names of the columns, with units.
    rows : tuple of tuple of str
        Cells; the first names the row, the others are aligned to the right.
    caption : str
        Printed above.
    marked : int or None
        Row to set off.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    marked: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values.

    Attributes
    ----------
    pairs : tuple of (str, str)
        In the order of reading.
    large : bool
        Show the values as headline figures.
    """

    pairs: tuple[tuple[str, str], ...]
    large: bool = False


Block = Text | Picture | Gallery | Table | Facts


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    title : str
        Its heading.
    blocks : tuple of Block
        Its contents.
    """

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes
    ----------
    title : str
        Heading of the page.
    lede : str
        One or two sentences below it.
    sections : tuple of Section
        Its parts.
    footer : str
        Small print.
    """

    title: str
    lede: str
    sections: tuple[Section, ...] = field(default_factory=tuple)
    footer: str = ""


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
    body = "\n".join(_section(item) for item in page.sections)
    title = escape(page.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<h1>{title}</h1>\n<p class="lede">{escape(page.lede)}</p>\n'
        f"</header>\n{body}\n<footer>{escape(page.footer)}</footer>\n"
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


def _section(section: Section) -> str:
    """Set one section."""
    blocks = "\n".join(_BLOCKS[type(block)](block) for block in section.blocks)
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>"


def _text(block: Text) -> str:
    """Set paragraphs."""
    lines = [f"<p>{escape(item)}</p>" for item in block.paragraphs]
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
