"""What a report is made of: frozen blocks, sections, parts, a page."""

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_semsr.analysis import FrcResult


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs.

    Attributes
    ----------
    paragraphs : tuple of str
        Plain text.
    code : str
        Shown below in a fixed-width font, for what a user may copy.
    warning : bool
        Set off the paragraphs, so that nobody misses them.
    """

    paragraphs: tuple[str, ...]
    code: str = ""
    warning: bool = False


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
class Part:
    """Sections under a heading of their own.

    Attributes
    ----------
    title : str
        Its heading.
    lede : str
        One or two sentences below it.
    sections : tuple of Section
        What belongs to it.
    """

    title: str
    lede: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes
    ----------
    title : str
        Heading of the page.
    lede : str
        One or two sentences below it.
    sections : tuple of Section or Part
        What it shows; parts are listed at its top.
    footer : str
        Small print.
    """

    title: str
    lede: str
    sections: tuple[Section | Part, ...] = field(default_factory=tuple)
    footer: str = ""


# The style sheet of reports: one column, readable on a phone, light and dark.

STYLE = """\
:root {
  --ground: #fbfbfa; --card: #ffffff; --ink: #1d2126; --soft: #5b636e;
  --line: #dfe2e6; --mark: #eaf3ef; --accent: #14705a; --warn: #b3541e;
  --warned: #fbf0e6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15181c; --card: #1e2227; --ink: #e7e9ec; --soft: #a2abb6;
    --line: #343a42; --mark: #1d332c; --accent: #6fcfb1; --warn: #e89a5d;
    --warned: #33261a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
    sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
.part > h2 { font-size: clamp(1.35rem, 3vw, 1.7rem); margin-top: 3.5rem;
  padding-top: 1rem; border-top: 3px solid var(--accent); }
h3 { font-size: 1.12rem; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
.part > .lede + section h3 { border-top: 0; margin-top: 1rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem 1.4rem;
  margin: .8rem 0 0; padding: 0; }
a { color: var(--accent); }
p.warning { background: var(--warned); border-left: 4px solid var(--warn);
  border-radius: 4px; padding: .6rem .9rem; }
p { max-width: 46rem; margin: .6rem 0; }
.lede { font-size: 1.08rem; color: var(--soft); }
figure { margin: 0; }
section > figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; }
section > figure img { max-width: 52rem; }
figcaption { font-size: .88rem; color: var(--soft); margin: .4rem 0 .2rem;
  max-width: 46rem; }
.gallery { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(2, minmax(0, 1fr)); }
@media (min-width: 48rem) {
  .columns-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .columns-4 { grid-template-columns: repeat(4, minmax(0, 1fr)); }
}
@media (max-width: 34rem) {
  .columns-1, .columns-2, .columns-3 { grid-template-columns: minmax(0, 1fr); }
}
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .95rem; background: var(--card); }
caption { text-align: left; color: var(--soft); font-size: .88rem;
  padding: 0 0 .4rem; }
th, td { padding: .42rem .8rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600;
  color: var(--soft); vertical-align: bottom; }
th:first-child { text-align: left; }
tbody th { font-weight: 500; }
tr.marked th, tr.marked td { background: var(--mark); font-weight: 650; }
dl { margin: 1rem 0; }
dd { margin: 0; overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: .88rem; }
.facts > div { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr;
  gap: .2rem 1rem; padding: .3rem 0; border-bottom: 1px solid var(--line); }
.headline { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.headline > div { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .75rem .9rem; }
.headline dd { font-size: 1.3rem; font-weight: 650; color: var(--accent);
  font-variant-numeric: tabular-nums; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem .9rem; overflow-x: auto; font-size: .9rem; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
@media print { body { background: #fff; color: #000; } h2 { break-after: avoid; } }
"""


# A self-contained HTML page of pictures, tables and facts: no script, no request.
#
# The page is made of frozen blocks, so that any job can compose one; everything that a
# user or a file could have named is escaped.

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
    from napari_semsr.io import replacing

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


# Numbers of a report: fixed decimals, so that the columns of a table line up.

_MISSING = "\N{EN DASH}"


def fixed(value: float | None, decimals: int) -> str:
    """Say a number with a fixed count of decimals.

    Parameters
    ----------
    value : float or None
        The number.
    decimals : int
        Digits after the point.

    Returns
    -------
    str
        A dash where there is no finite number.
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int) -> str:
    """Say a difference with its sign.

    Parameters
    ----------
    value : float or None
        The difference.
    decimals : int
        Digits after the point.

    Returns
    -------
    str
        With a true minus sign; a dash where there is no finite number.
    """
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def length(nm: float | None) -> str:
    """Say a length in nm with as many decimals as make sense.

    Parameters
    ----------
    nm : float or None
        The length.

    Returns
    -------
    str
        One decimal below 1000 nm.
    """
    if nm is None or not math.isfinite(nm):
        return _MISSING
    return f"{nm:.1f} nm" if nm < 1000 else f"{nm:.0f} nm"


def resolution(found: "FrcResult | None") -> str:
    """Say a resolution, or that there is none.

    Parameters
    ----------
    found : FrcResult or None
        A measurement.

    Returns
    -------
    str
        In nm.
    """
    if found is None or found.resolution_nm is None:
        return "none"
    return length(found.resolution_nm)
