import re
from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import UndefinedError

from napari_semsr.reporting import draw_image_png, list_provenance, write_page
from napari_semsr.reporting.page import (
    NO_VALUE,
    format_length,
    format_value,
    render_template,
)

MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "link", "img", "br"}


class Checker(HTMLParser):
    """Checks that tags close, and collects them with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


TAGS = """\
{% from "page.html" import page, section, said, picture, gallery, table, row, facts %}
{% call page(name, name, ", " ~ name) %}
{% call section(name) %}Inner{% endcall %}
{{ picture(png, name, name) }}{{ picture(png, name) }}
{{ gallery([(name, png)], ", whole", "plots") }}{{ said([name, name], "warning") }}
{% call table([name, "Value"]) %}
{{ row("a", [1]) }}{{ row(name, [name], marked=true) }}
{% endcall %}
{{ facts([(name, name)]) }}{{ facts([("Gain", "+1 dB")], "headline") }}
{% endcall %}
"""


def checked(name: str = "Title") -> Checker:
    """A page with every tag, in which a user or a file named all that can be named."""
    png = draw_image_png(np.eye(8), (10.0, 10.0), limits=(0, 1), width_px=64)
    checker = Checker()
    checker.feed(render_template(TAGS, name=name, png=png))
    checker.close()
    assert checker.open == []
    return checker


@pytest.mark.parametrize("wicked", ['<script>alert("x")</script>', '" onload="x'])
def test_render_escapes_what_users_and_files_name(wicked):
    found = checked(wicked)
    assert found.of("script") == []
    assert all("onload" not in attributes for _, attributes in found.found)
    assert found.of("img")[0]["alt"] == wicked


def test_render_needs_nothing_from_outside():
    found = checked()
    sources = [image["src"] for image in found.of("img")]
    sources += [link["href"] for link in found.of("link")]
    assert all(source.startswith("data:") for source in sources)
    assert (found.of("img")[0]["width"], found.of("img")[0]["height"]) == ("64", "64")
    text = render_template(TAGS, name="Title", png=b"")
    assert not re.search(r"https?://|url\(|@import|<script", text)
    policy = next(m for m in found.of("meta") if "http-equiv" in m)
    assert policy["content"].startswith("default-src 'none'")


def test_write_page_replaces_whole_files_only(tmp_path):
    path, template = tmp_path / "report.html", tmp_path / "template.html"
    template.write_text("<p>{{ unit }}</p>")
    write_page(path, template, unit="µm⁻¹")
    with pytest.raises(UndefinedError):
        write_page(path, template)
    assert path.read_text(encoding="utf-8") == "<p>µm⁻¹</p>"
    assert sorted(tmp_path.iterdir()) == [path, template]


def test_numbers_of_a_report():
    assert format_value(None, ".1f") == format_length(None) == NO_VALUE
    assert format_value(float("nan"), ".1f") == NO_VALUE
    assert [format_value(v, "+.1f") for v in (-0.5, 0.5)] == [f"{MINUS}0.5", "+0.5"]
    assert (format_length(12.34), format_length(1234.5)) == ("12.3 nm", "1234 nm")


def test_options_that_nobody_chose_are_left_out_and_nested_ones_told_apart():
    options = {"a": None, "b": {"c": 1, "d": ""}, "e": [{"f": 2}, {"f": 3}], "g": [4]}
    told = [item for item in list_provenance(options) if item[0].startswith("Option")]
    assert told == [
        *(("Option b c", 1), ("Option e 1 f", 2), ("Option e 2 f", 3)),
        ("Option g", [4]),
    ]
