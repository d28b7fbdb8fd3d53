import re
from html.parser import HTMLParser

import numpy as np
import pytest

from napari_semsr.reporting.figures import (
    Curve,
    bar_length,
    curves_png,
    image_png,
    map_png,
)
from napari_semsr.reporting.page import (
    Facts,
    Gallery,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Text,
    fixed,
    length,
    render,
    signed,
    write_page,
)

PNG = b"\x89PNG\r\n\x1a\n"
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "link", "img", "br"}


class Checker(HTMLParser):
    """Counts tags, checks that they close, and collects attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.found, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def checked(page: Page) -> Checker:
    checker = Checker()
    checker.feed(render(page))
    checker.close()
    assert checker.open == []
    return checker


def picture() -> bytes:
    return image_png(np.eye(8), (10.0, 10.0), limits=(0, 1), width_px=64)


def page_of(*blocks) -> Page:
    return Page("Title", "Lede", (Section("Part", blocks),), "Foot")


def test_render_nests_tags_and_shows_every_block():
    found = checked(
        page_of(
            Text(("One.", "Two."), code="semsr demo"),
            Gallery((Picture(picture(), "eye", "An eye"),) * 2, columns=2),
            Picture(picture(), "eye"),
            Table(("Name", "Value"), (("a", "1"), ("b", "2")), "Caption", marked=1),
            Facts((("Model", "x"),)),
            Facts((("Gain", "+1 dB"),), large=True),
        )
    )
    text = " ".join(found.text)
    for part in ("Title", "Lede", "Part", "One.", "semsr demo", "An eye", "Caption"):
        assert part in text
    assert [row.get("class") for row in found.of("tr")] == [None, None, "marked"]
    assert all(image["alt"] == "eye" for image in found.of("img"))
    assert len(found.of("img")) == 3


def test_render_escapes_what_users_and_files_name():
    wicked = '<script>alert("x")</script>'
    found = checked(
        Page(
            wicked,
            wicked,
            (
                Section(
                    wicked,
                    (
                        Text((wicked,), code=wicked),
                        Picture(picture(), f'" onload="{wicked}', wicked),
                        Table((wicked,), ((wicked,),), wicked),
                        Facts(((wicked, wicked),)),
                    ),
                ),
            ),
            wicked,
        )
    )
    assert found.of("script") == []
    assert all("onload" not in attributes for _, attributes in found.found)


def test_render_needs_nothing_from_outside():
    found = checked(page_of(Picture(picture(), "eye")))
    sources = [image["src"] for image in found.of("img")]
    sources += [link["href"] for link in found.of("link")]
    assert all(source.startswith("data:") for source in sources)
    text = render(page_of())
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"url\(|@import|<script", text)
    policy = next(m for m in found.of("meta") if "http-equiv" in m)
    assert policy["content"].startswith("default-src 'none'")


def test_render_lists_parts_and_sets_their_sections_below_them():
    inner = Section("Inner", (Text(("Mind this.",), warning=True),))
    parts = (Part("First <half>", "Of two.", (inner,)), Part("Second", "", (inner,)))
    found = checked(Page("Title", "Lede", (Section("Outer", ()), *parts)))
    assert len(found.of("h2")) == 3
    assert len(found.of("h3")) == 2
    ids = {f"#{box['id']}" for box in found.of("div") if "id" in box}
    assert {link["href"] for link in found.of("a")} == ids
    assert [p for p in found.of("p") if p.get("class") == "warning"] != []
    assert "First <half>" in found.text


def test_pictures_say_their_size():
    found = checked(page_of(Picture(picture(), "eye")))
    assert (found.of("img")[0]["width"], found.of("img")[0]["height"]) == ("64", "64")


def test_write_page_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_page(page_of(Text(("µm⁻¹",))), path)
    before = path.read_text(encoding="utf-8")
    assert "µm⁻¹" in before

    def fail(page):
        msg = "cannot be set"
        raise ValueError(msg)

    monkeypatch.setattr("napari_semsr.reporting.page.render", fail)
    with pytest.raises(ValueError, match="cannot be set"):
        write_page(page_of(), path)
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("extent", [0.3, 1, 7.77, 64, 999, 12345, 3.4e6])
def test_bar_length_is_round_and_fits(extent):
    found = bar_length(extent)
    assert 0.1 * extent <= found <= 0.28 * extent
    assert f"{found:.0e}"[0] in "125"


def test_image_png_is_the_same_every_time_and_has_the_aspect():
    drawn = [
        image_png(np.eye(10, 20), None, limits=(0, 1), width_px=100) for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(PNG)
    assert (drawn[0][19], drawn[0][23]) == (100, 50)


@pytest.mark.parametrize("values", [np.full((4, 5), np.nan), np.ones((4, 5))])
@pytest.mark.parametrize("pixel", [None, (160.0, 160.0)])
def test_map_png_of_failed_and_constant_maps(values, pixel):
    made = map_png(values, pixel, limits=(0, 1), label="resolution (nm)", width_px=200)
    assert made.startswith(PNG)


@pytest.mark.parametrize("pixel", [None, 7.7])
@pytest.mark.parametrize("log", [False, True])
def test_curves_png_with_gaps(pixel, log):
    frequency = np.linspace(0.01, 0.5, 20)
    values = np.exp(-frequency)
    values[3] = np.nan
    curves = [
        Curve("a", frequency, values, 0.2),
        Curve("b", frequency, values, colour=3),
    ]
    made = curves_png(
        curves, pixel, ylabel="y", log=log, threshold=("1/7", 1 / 7), size_px=(300, 200)
    )
    assert made.startswith(PNG)


def test_numbers_of_a_report():
    assert (fixed(1.005, 1), fixed(None, 1), fixed(float("nan"), 1)) == (
        "1.0",
        DASH,
        DASH,
    )
    assert (signed(-0.5, 1), signed(0.5, 1), signed(None, 1)) == (
        f"{MINUS}0.5",
        "+0.5",
        DASH,
    )
    assert (length(12.34), length(1234.5), length(None)) == ("12.3 nm", "1234 nm", DASH)
