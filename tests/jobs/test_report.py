"""Reports: numbers with how they were found, sentences, and what is refused."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from scipy import ndimage

from napari_semsr.analysis import ProfileOptions, measure_metrics
from napari_semsr.core import (
    DisplaySettings,
    Micrograph,
    Provenance,
    SemsrError,
    digest_path,
    run,
)
from napari_semsr.io import read, write
from napari_semsr.jobs import (
    FRC,
    GAPS,
    METRICS,
    PROFILE,
    REPORT,
    PanelFindings,
    measure_table_job,
    to_json_value,
)
from napari_semsr.jobs.report.job import ReportOptions
from napari_semsr.jobs.report.records import read_record
from tests.refusals import refused, warned
from tests.stopping import stop_at

VOID = {"meta", "link", "img", "br"}
pytestmark = pytest.mark.filterwarnings("ignore:.*has no pixel size")


class Page(HTMLParser):
    """Closes every tag in its order, and keeps text, ids and links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures = 0
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.ids += [told["id"]] if "id" in told else []
        self.links += [told[key] for key in ("src", "href") if key in told]
        self.pictures += tag == "img"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def made_of(inputs, folder: Path, **how):
    """Write a report, and give result, page and numbers."""
    path = folder / "report.html"
    result = run(REPORT.job(inputs, path, overwrite=True, **how))
    numbers = json.loads(Path(result.numbers).read_text(encoding="utf-8"))
    return result, Page(path), numbers


def by_name(told: list[dict]) -> dict[str, dict]:
    return {item["name"]: item for item in told}


def test_page_stands_alone_and_json_has_what_it_says(folder: Path) -> None:
    result, page, told = made_of([folder / "first.tif"], folder)
    assert page.pictures >= 4
    assert len(set(page.ids)) == len(page.ids)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|@import|url\(", source)
    [image] = told["images"]
    digest = digest_path(folder / "first.tif")
    assert image["digest"] == digest
    assert digest in page.text
    assert image["pixel_size_nm"] == [10, 10]
    assert result.images == ("first",)
    for number in image["numbers"]:
        assert number["inputs"] == [digest]
        assert number["version"] in page.text
        assert number["method"] or number["reason"]
        assert number["name"] in page.text
    assert told["provenance"]["inputs"][0]["digest"] == digest
    assert told["methods"] == list(result.methods)


def test_numbers_are_those_of_the_measures(folder: Path) -> None:
    first, second = folder / "first.tif", folder / "second.tif"
    _, _, told = made_of([f"{first}::{second}"], folder)
    [pair] = told["pairs"]
    numbers = by_name(pair["numbers"])
    frc = run(FRC.job(first, second)).result
    assert numbers["Resolution, FRC"]["value"] == pytest.approx(frc.resolution_nm)
    assert numbers["Resolution, FRC"]["interval"] == pytest.approx(frc.interval_nm)
    assert numbers["Resolution, FRC"]["threshold"] == "1/7"
    metrics = run(METRICS.job(second, first)).result
    assert numbers["PSNR"]["value"] == pytest.approx(metrics.psnr_db)
    assert numbers["SSIM"]["value"] == pytest.approx(metrics.ssim)
    assert numbers["RSP"]["value"] == pytest.approx(pair["results"]["error_map"]["rsp"])
    alone = by_name(told["images"][1]["numbers"])
    own = run(METRICS.job(second)).result
    assert alone["Contrast"]["value"] == pytest.approx(own.contrast)


@pytest.mark.broad
def test_threshold_is_the_one_that_was_chosen(folder: Path) -> None:
    images = [(folder / "first.tif", folder / "second.tif")]
    options = ReportOptions(criterion="half-bit")
    result, _, told = made_of(images, folder, options=options)
    number = by_name(told["pairs"][0]["numbers"])["Resolution, FRC"]
    assert number["threshold"] == "half-bit"
    assert any("van Heel" in reference for reference in result.references)


def test_what_is_refused_is_shown_with_its_reason(tmp_path: Path) -> None:
    flat = Micrograph(np.full((80, 96), 7, np.uint8), (5.0, 5.0), "flat")
    result, page, told = made_of([flat], tmp_path)
    numbers = by_name(told["images"][0]["numbers"])
    assert numbers["Resolution, FRC"]["value"] is None
    assert numbers["Resolution, FRC"]["reason"].startswith("no-signal")
    assert numbers["Mean grey level"]["value"] == 7
    assert "nothing but noise" in page.text
    assert result.refused == sum("reason" in item for item in numbers.values()) > 0
    assert "No value is given for flat" in " ".join(result.methods)


def test_a_measure_that_cannot_be_taken_leaves_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = Micrograph(rng.normal(size=(30, 40)), None, "small")
    _, page, told = made_of([small], tmp_path)
    numbers = by_name(told["images"][0]["numbers"])
    assert "64x64" in numbers["Cut-off, decorrelation"]["reason"]
    assert numbers["Average gradient"]["value"] > 0
    assert "64x64" in page.text


def test_missing_pixels_are_cut_off_and_counted(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(128, 160)).astype(np.float32)
    data[:32] = np.nan
    _, page, told = made_of([Micrograph(data, (5.0, 5.0), "holes")], tmp_path)
    [image] = told["images"]
    assert image["measured_box_px"] == [32, 0, 128, 160]
    assert by_name(image["numbers"])["Without a grey level"]["value"] == 25
    assert "largest rectangle without gaps" in page.text


def test_measured_and_stored_values_are_the_same(folder: Path) -> None:
    image = folder / "first.tif"
    record = run(METRICS.job(image)).to_json()
    stored = folder / "metrics.json"
    stored.write_text(json.dumps({"kind": "metrics", **to_json_value(record)}))
    _, _, told = made_of([image, stored], folder)
    measured = told["images"][0]["results"]["metrics"]
    assert measured == {**to_json_value(record), "images": ["first"], "warnings": []}
    assert read_record(stored).content["method"] == measured["method"]
    numbers = by_name(told["images"][0]["numbers"])
    for number in read_record(stored).numbers:
        if number.name in numbers:
            assert numbers.pop(number.name).items() >= number.to_json().items()
    assert set(numbers) == {"Resolution, FRC", "Cut-off, decorrelation"}


def test_warnings_of_a_measurement_are_on_the_page_once(scene, tmp_path: Path) -> None:
    grey = np.roll(scene.truth.array(), 2, axis=1)
    shifted = scene.truth.replace(data=grey, name="shifted")
    with warned("images-shifted"):
        _, page, told = made_of([(scene.truth, shifted)], tmp_path)
    [warning] = [n for n in told["pairs"][0]["notes"] if "is shifted relative" in n]
    assert page.text.count(warning) == 1


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_saturated_pixels_of_every_depth_are_counted(bits: int, tmp_path) -> None:
    data = np.random.default_rng(0).integers(0, 200, (64, 64)).astype(np.uint16)
    data[:8] = 2**bits - 1
    image = Micrograph(data.astype(np.uint8) if bits == 8 else data)
    _, _, told = made_of([image], tmp_path)
    assert by_name(told["images"][0]["numbers"])["Saturated"]["value"] == 12.5


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:second was made by the network a-net")
def test_networks_are_named_and_are_not_the_reference(scene, tmp_path: Path) -> None:
    history = Provenance(job="enhance", model_name="a-net", model_digest="sha256:12ab")
    enhanced = scene.second.replace(provenance=history)
    result, page, told = made_of([(enhanced, scene.first)], tmp_path)
    assert told["pairs"][0]["reference"] == "first"
    made = next(item for item in told["images"] if item["name"] == "second")
    assert made["networks"] == [{"name": "a-net", "digest": "sha256:12ab"}]
    assert "sha256:12ab" in page.text
    assert "decorrelation describes the network's output" in made["notes"][0]
    assert "made by the network a-net (sha256:12ab)" in " ".join(result.methods)


@pytest.mark.broad
def test_methods_name_nothing_that_was_refused(scene, tmp_path: Path) -> None:
    coarse = scene.first.replace(pixel_size_nm=(20, 20))
    result, _, told = made_of([(scene.second, coarse)], tmp_path)
    numbers = by_name(told["pairs"][0]["numbers"])
    assert numbers["PSNR"]["value"] is numbers["RSE"]["value"] is None
    words = " ".join(result.methods)
    assert not re.search("PSNR|SSIM|Error map", words)
    assert not any("Culley" in item or "Wang" in item for item in result.references)
    hole = np.full((80, 96), np.nan, np.float32)
    hole[::2] = 1
    result, _, told = made_of([Micrograph(hole, (5.0, 5.0), "hole")], tmp_path)
    assert by_name(told["images"][0]["numbers"])["Contrast"]["value"] is None
    assert "average gradient" not in " ".join(result.methods)


@pytest.mark.broad
def test_methods_name_nothing_that_was_not_done(folder: Path) -> None:
    alone, _, _ = made_of([folder / "first.tif"], folder)
    words = " ".join(alone.methods)
    assert "SSIM" not in words
    assert "Error maps" not in words
    assert "network" not in words
    assert not any("Culley" in item or "Wang" in item for item in alone.references)
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", words) for n in
             group.split(", ")}  # fmt: skip
    assert cited == set(range(1, len(alone.references) + 1))
    pair, _, _ = made_of([(folder / "first.tif", folder / "second.tif")], folder)
    assert "SSIM" in " ".join(pair.methods)
    assert any("Culley" in item for item in pair.references)


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:The image is shifted")
@pytest.mark.parametrize(("shift", "moved"), [(0.0, False), (0.4, True)])
def test_methods_move_the_enhanced_image_where_it_was_moved(
    scene, tmp_path: Path, shift: float, moved: bool
) -> None:
    grey = ndimage.shift(scene.truth.array().astype(float), shift, mode="mirror")
    result, _, told = made_of([(scene.truth, scene.truth.replace(data=grey))], tmp_path)
    assert any(told["pairs"][0]["results"]["error_map"]["shift_px"]) is moved
    words = "enhanced image shifted by" if moved else "image blurred"
    assert words in " ".join(result.methods)


@pytest.mark.parametrize(
    ("searched", "words"),
    [("near", "correlation of orientation fields"), ("landmarks", "from landmarks")],
)
def test_methods_say_how_a_stored_map_was_found(
    folder: Path, searched: str, words: str
) -> None:
    record = {"kind": "register", "searched": searched, "overlap": 0.5}
    (folder / "map.json").write_text(json.dumps(record))
    result, _, _ = made_of([folder / "map.json"], folder)
    assert words in result.methods[-1]
    assert "mutual information" not in result.methods[-1]


def test_pixel_size_of_a_registered_image_is_that_of_the_other(
    scene, tmp_path: Path
) -> None:
    told = {"fixed": "view.tif", "pixel_size_nm": [8.0, 8.0]}
    made = Provenance(job="register", options=told)
    result, _, _ = made_of([scene.first.replace(provenance=made)], tmp_path)
    assert "taken from view.tif, to which it was registered." in result.methods[1]


@pytest.mark.broad
def test_several_images_stand_in_one_table(scene, tmp_path: Path) -> None:
    images = [scene.first.replace(name=f"image-{n}") for n in range(3)]
    result, page, _ = made_of(images, tmp_path)
    assert result.images == tuple(f"image-{n}" for n in range(3))
    assert "Side by side" in page.text
    assert "different data ranges" not in page.text
    assert "All images share one grey scale." in page.text
    own, page, _ = made_of(images, tmp_path, options=ReportOptions(greys="own"))
    assert own.images == result.images
    assert "Each image has its own grey scale." in page.text


@pytest.mark.broad
def test_sharpness_of_unequal_data_ranges_is_not_compared(tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 200, (96, 96))
    images = [Micrograph(grey.astype(t), None, t) for t in ("uint8", "float32")]
    _, page, told = made_of(images, tmp_path)
    assert "do not compare them between images with different data ranges" in page.text
    ranges = [by_name(one["numbers"])["Data range"] for one in told["images"]]
    assert [one["value"] for one in ranges] == [255, np.ptp(grey)]
    assert "full scale of the type" in ranges[0]["method"]


@pytest.mark.broad
def test_images_of_one_grey_scale_are_shown_alike(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(80.0), np.arange(90.0))
    pair = [
        Micrograph(ramp, None, name, look=DisplaySettings(limits=(0, 168), gamma=gamma))
        for name, gamma in (("one", 1.0), ("half", 0.5))
    ]
    _, page, _ = made_of(pair, tmp_path)
    assert "All images share one grey scale." in page.text
    coded = (link.partition("base64,")[2] for link in page.links)
    opened = [Picture.open(io.BytesIO(base64.b64decode(c))) for c in coded if c]
    first, second = (np.asarray(i) for i in opened if i.width < 400)
    np.testing.assert_array_equal(first, second)


@pytest.mark.broad
def test_images_of_unlike_greys_have_their_own_scale(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(80.0), np.arange(90.0))
    dark, bright = (
        Micrograph(ramp, None, "dark"),
        Micrograph(ramp + 9e3, None, "bright"),
    )
    _, page, _ = made_of([dark, bright], tmp_path)
    assert "Each image has its own grey scale." in page.text


@pytest.mark.broad
def test_images_of_one_name_are_told_apart(scene, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(scene.first, tmp_path / folder / "same.tif")
    inputs = [tmp_path / "one" / "same.tif", tmp_path / "two" / "same.tif"]
    result, _, _ = made_of(inputs, tmp_path)
    assert result.images == ("one/same.tif", "two/same.tif")
    again, _, _ = made_of([inputs[0], inputs[0]], tmp_path)
    assert again.images == ("same",)


@pytest.mark.broad
def test_pair_is_split_where_the_history_tells_what_light_carried(folder: Path) -> None:
    optics = {"optics": "pupil", "wavelength_nm": 240.0, "numerical_aperture": 1.5}
    images = [read(folder / f"{name}.tif") for name in ("first", "second")]
    made = Provenance(job="simulate", options=optics, part="frame_000.tif")
    write(images[1].replace(provenance=made), folder / "lit.tif")
    _, _, told = made_of([f"{folder / 'first.tif'}::{folder / 'lit.tif'}"], folder)
    numbers = by_name(told["pairs"][0]["numbers"])
    figures = measure_metrics(images[1], images[0], match="affine", cut_off_nm=80)
    for band in ("below", "above"):
        number = numbers[f"PSNR {band} the optical cut-off"]
        wanted = getattr(figures, f"psnr_{band}_db")
        assert number["value"] == pytest.approx(wanted, abs=0.01)
        assert "cut-off 80 nm" in number["method"]


@pytest.mark.quick(1)
@pytest.mark.parametrize("verb", ["frc", "metrics", "gaps", "profile"])
def test_measurements_that_were_stored_are_told(folder: Path, verb: str) -> None:
    image = folder / "first.tif"
    line = ProfileOptions(line=(10, 10, 60, 80))
    jobs = {
        "frc": lambda: FRC.job(image, folder / "second.tif"),
        "metrics": lambda: METRICS.job(image, folder / "truth.tif"),
        "gaps": lambda: GAPS.job(image),
        "profile": lambda: PROFILE.job(image, options=line),
    }
    record = run(jobs[verb]()).to_json()
    stored = folder / f"{verb}.json"
    stored.write_text(json.dumps(to_json_value(record)), encoding="utf-8")
    result, page, told = made_of([stored], folder)
    [item] = told["files"]
    assert (item["verb"], item["content"]) == (verb, record)
    assert item["digest"] == digest_path(stored)
    assert item["digest"] in page.text
    shown = {
        "frc": f"{record.get('resolution_nm') or 0:.4g} nm",
        "metrics": f"{record.get('psnr_db') or 0:.4g} dB",
        "gaps": str(record.get("particles")),
        "profile": f"{(record.get('fwhm_nm') or 0):.4g} ± ",
    }
    assert shown[verb] in page.text
    assert f"semsr {verb}" in " ".join(result.methods)


@pytest.mark.filterwarnings("ignore:1 of 3 images")
@pytest.mark.parametrize("verb", ["frc", "metrics", "error-map"])
def test_a_table_that_was_stored_is_told(folder: Path, verb: str) -> None:
    write(Micrograph(np.ones((30, 20), np.uint8), (10, 10)), folder / "flat.tif")
    first = folder / "first.tif"
    pairs = [(first, folder / "second.tif")] * 2 + [(first, folder / "flat.tif")]
    record = run(measure_table_job(verb, pairs)).to_json()
    stored = folder / "table.json"
    stored.write_text(json.dumps({**to_json_value(record), "kind": verb}))
    result, page, told = made_of([stored], folder)
    column, total = next(iter(record["summary"].items()))
    for part in ("Over all images", "Each image", column, "1. ", "2. ", "first.tif"):
        assert part in page.text
    for value in (total["mean"], record["rows"][0][column]):
        assert f"{value:.4g}" in page.text
    assert record["rows"][2]["error"] in page.text
    assert digest_path(stored) in page.text
    assert told["files"][0]["content"]["rows"] == to_json_value(record["rows"])
    sharpness = "Average gradient, contrast and spatial frequency"
    assert sharpness not in " ".join(result.methods)


@pytest.mark.parametrize("part", ["rows", "summary"])
@pytest.mark.parametrize("odd", [None, 3, "x", [], {}, [3], {"a": 3}, [{"image": []}]])
def test_a_table_that_is_none_is_no_fault(folder: Path, part: str, odd) -> None:
    record = {"kind": "metrics", "measure": "metrics", "rows": [], "summary": {}}
    (folder / "odd.json").write_text(json.dumps({**record, part: odd}))
    made_of([folder / "odd.json"], folder)


def test_records_within_a_record_are_tables(folder):
    line = {"model": "box", "place_nm": 40.0, "place_sd_nm": 0.5, "place_px": 8.0}
    line |= {"fwhm_nm": None, "fwhm_px": 3.0}
    records = {
        "profile": {"fwhm_nm": 15.0, "fwhm_px": 3.0, "fwhm_interval_nm": [14.0, 16.0]},
        "gaps": {"mean_width_nm": None, "mean_width_px": {"no": "number"}},
    }
    records["profile"] |= {"image": "a.tif", "lines": [line, line], "edge": None}
    paths = []
    for verb, record in records.items():
        paths.append(folder / f"{verb}.json")
        paths[-1].write_text(json.dumps({"kind": verb, **record}))
    _, page, _ = made_of(paths, folder)
    for part in (
        "15 nm (3 px)",
        "14 to 16 nm",
        "At (nm)",
        "40 ± 0.5",
        "FWHM (px)",
    ):
        assert part in page.text
    assert "At (px)" not in page.text


def test_numbers_of_a_record_have_their_units_and_errors(folder):
    times = "\N{MULTIPLICATION SIGN}"
    size = {"pixel_size_nm": [5.01, 5.02], "pixel_size_sd_nm": [0.02, 0.03]}
    record = {"kind": "calibrate", **size, "skew": 0.1, "skew_sd": 0.05}
    (folder / "size.json").write_text(json.dumps(record))
    scans = {"kind": "repeatability", "pixel_size_nm": [5, 5], "shift_px": [4, 6.5]}
    (folder / "scans.json").write_text(json.dumps(scans))
    _, page, _ = made_of([folder / "size.json", folder / "scans.json"], folder)
    for part in (
        f"5.01 {times} 5.02 nm (y {times} x) ± 0.03 nm (calibrated)",
        "0.1 ± 0.05 degrees",
        "5 nm (stated)",
        "4, 6.5 px",
    ):
        assert part in page.text


@pytest.mark.quick(1)
@pytest.mark.parametrize("y", ["correlation", "power", "intensity"])
def test_numbers_that_no_axis_can_hold_are_left_out(folder, y):
    keys = {
        "correlation": ("frequency_per_px", {"criterion": "1/7", "resolution_px": 2}),
        "power": ("frequency_per_px", {}),
        "intensity": ("distance_px", {"fwhm_px": None}),
    }
    x, record = keys[y]
    record |= {x: [0.1, 0.2, 0.3], y: [-1.7e308, 1, 1e308]}
    record |= {"pixel_size_nm": [5, 5], "images": ["a.tif"]}
    (folder / "odd.json").write_text(json.dumps(record))
    _, page, _ = made_of([folder / "odd.json"], folder)
    assert page.pictures == 1


def test_what_a_panel_found_is_told(tmp_path: Path) -> None:
    found = PanelFindings("Gaps <1>", ("image A",), (("Median width", "41 nm"),))
    _, page, told = made_of([], tmp_path, found=[found])
    assert told["found"] == [
        {"title": "Gaps <1>", "of": ["image A"], "numbers": {"Median width": "41 nm"}}
    ]
    assert "Gaps <1>" in page.text
    assert "41 nm" in page.text


def test_maps_are_not_measured_as_images(tmp_path: Path) -> None:
    data = np.full((20, 30), 40.0)
    data[:5] = np.nan
    history = Provenance(job="frc-map")
    shown = Micrograph(data, (160.0, 160.0), "map", provenance=history)
    _, _, told = made_of([shown], tmp_path)
    numbers = by_name(told["images"][0]["numbers"])
    assert set(numbers) == {"Median of the map", "Without a value"}
    assert numbers["Median of the map"]["value"] == 40
    assert numbers["Median of the map"]["unit"] == "nm"
    assert numbers["Without a value"]["value"] == 25


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("inputs", "name", "code"),
    [
        ([], "r.html", "missing-value"),
        (["first.tif"], "r.pdf", "suffix-unknown"),
        (["missing.tif"], "r.html", "file-missing"),
        (["first.tif::small.tif"], "r.html", "sizes-differ"),
        (["first.tif::first.tif"], "r.html", "same-image"),
        (["first.tif::second.tif::truth.tif"], "r.html", "wrong-type"),
        (["first.tif::"], "r.html", "wrong-type"),
        (["first.tif::other.json"], "r.html", "wrong-type"),
        (["other.json"], "r.html", "format-unknown"),
        (["text.json"], "r.html", "content-invalid"),
        (["list.json"], "r.html", "format-unknown"),
        (["other.json"], "other.html", "output-is-input"),
        (["first.tif"], "kept.html", "output-exists"),
    ],
)
def test_wrong_input_is_one_sentence_and_loses_nothing(
    folder: Path, monkeypatch, inputs, name, code
) -> None:
    monkeypatch.chdir(folder)
    write(Micrograph(np.eye(70, 81), (10.0, 10.0), "small"), folder / "small.tif")
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "text.json").write_text("{")
    (folder / "kept.json").write_text("mine")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with refused(SemsrError, code) as told:
        run(REPORT.job(inputs, name))
    assert "\n" not in str(told.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.broad
def test_names_of_a_pair_may_hold_the_mark(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    first, second = sorted(path.name for path in folder.glob("*.tif"))[:2]
    Path(first).rename("a::1.tif")
    result = run(REPORT.job([f"a::1.tif::{second}"], "page.html"))
    assert len(result.pairs) == 1
    with refused(SemsrError, "wrong-type"):
        run(REPORT.job(["a::2.tif::b.tif"], "other.html"))


def test_picture_of_a_strip_goes_on_a_sheet(tmp_path: Path) -> None:
    strip = Micrograph(np.random.default_rng(0).normal(size=(200, 1)), None, "strip")
    page = tmp_path / "strip.html"
    run(REPORT.job([strip], page))
    pictures = re.findall(r'base64,([^"]+)"', page.read_text(encoding="utf-8"))
    sizes = [Picture.open(io.BytesIO(base64.b64decode(one))).size for one in pictures]
    assert sizes
    assert max(max(size) for size in sizes) < 195 / 25.4 * 1000


def test_a_report_that_is_stopped_leaves_nothing(folder: Path) -> None:
    before = set(folder.iterdir())
    stop_at(REPORT.job([folder / "first.tif"], folder / "r.html"), "decorrelation")
    assert set(folder.iterdir()) == before


@pytest.mark.broad
def test_finer_image_of_a_pair_is_compared_by_its_error_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.normal(100, 20, size=(80, 96))
    fine = np.kron(coarse, np.ones((2, 2)))
    images = (
        Micrograph(fine, (5.0, 5.0), "fine"),
        Micrograph(coarse, (10, 10), "coarse"),
    )
    _, _, told = made_of([images], tmp_path)
    [pair] = told["pairs"]
    assert pair["reference"] == "coarse"
    numbers = by_name(pair["numbers"])
    assert "same shape" in numbers["PSNR"]["reason"]
    assert numbers["RSP"]["value"] > 0.9
