"""Pages of the manual: links lead somewhere, how-to pages stay short."""

import re
from pathlib import Path

import yaml

from napari_semsr.widgets.base.navigation import create_heading_anchor

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOURCES = DOCS.parent / "src" / "napari_semsr"
PAGES = [*DOCS.glob("*.md"), *(DOCS / "validation").glob("*.md")]
TEXTS = {page: page.read_text("utf-8") for page in PAGES}
ANCHORS = {
    page: set(map(create_heading_anchor, re.findall(r"^#+ +(.+)$", text, re.MULTILINE)))
    for page, text in TEXTS.items()
}
MAX_WORDS, MAX_OF_A_TASK = 33_000, 450  # aims: 33 000 and 400


def test_links_between_pages_lead_to_headings() -> None:
    broken = []
    for page, text in TEXTS.items():
        for name, heading in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", text):
            if "reference/" in name:  # written while the manual is built
                continue
            found = (page.parent / name).resolve()
            if heading not in {"", *ANCHORS.get(found, ())} or not found.is_file():
                broken.append(f"{page.name}: {name}#{heading}")
    assert not broken


def test_samples_that_pages_open_are_in_the_menu() -> None:
    manifest = yaml.safe_load((SOURCES / "napari.yaml").read_text("utf-8"))
    name, samples = manifest["display_name"], manifest["contributions"]["sample_data"]
    menu = {f"{name} > {one['display_name']}" for one in samples}
    texts = [*TEXTS.values(), (DOCS.parent / "README.md").read_text("utf-8")]
    named = [re.findall(r"Open Sample > ([^*]*)\*", text) for text in texts]
    found = {" ".join(one.split()) for names in named for one in names}
    assert found
    assert found <= {name, *menu}


def test_images_of_pages_exist() -> None:
    named = re.compile(r"(?:\{image\} |!\[[^]]*\]\()([\w./-]+\.(?:png|jpg|webp|gif))")
    gone = [
        f"{page.name}: {image}"
        for page, text in TEXTS.items()
        for image in named.findall(text)
        if not (page.parent / image).is_file()
    ]
    assert not gone


def test_every_page_is_in_the_contents() -> None:
    contents = (DOCS / "index.md", DOCS / "validation" / "index.md")
    listed = "\n".join(TEXTS[page] for page in contents)
    entries = set(re.findall(r"^([\w-]+|validation/index)$", listed, re.MULTILINE))
    names = {page.stem for page in PAGES} - {"index"}
    assert names <= entries


def test_the_manual_stays_short() -> None:
    words = {page: len(text.split()) for page, text in TEXTS.items()}
    assert sum(words.values()) <= MAX_WORDS
    contents = TEXTS[DOCS / "index.md"].partition("caption: How-to")[2]
    tasks = re.findall(r"^([\w-]+)$", contents.partition("```")[0], re.MULTILINE)
    assert len(tasks) > 20
    long = [name for name in tasks if words[DOCS / f"{name}.md"] > MAX_OF_A_TASK]
    assert long == []
