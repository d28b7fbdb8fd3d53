"""What a report is made of: frozen blocks, sections, parts, a page."""

from dataclasses import dataclass, field

__all__ = [
    "Block",
    "Facts",
    "Gallery",
    "Page",
    "Part",
    "Picture",
    "Section",
    "Table",
    "Text",
]


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
