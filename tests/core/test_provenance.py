import pytest

from napari_semsr.core import PICTURE_KEY, InputRecord, Provenance, digest_path


def enhanced(digest: str, network: str) -> Provenance:
    source = InputRecord(role="image", name="a.tif", digest=digest)
    return Provenance(job="enhance", inputs=(source,), model_digest=network)


def derived(*parents: Provenance) -> Provenance:
    inputs = tuple(
        InputRecord(role="image", name="x", digest=f"made-{i}", provenance=parent)
        for i, parent in enumerate(parents)
    )
    return Provenance(job="convert", inputs=inputs)


def test_networks_and_sources_are_gathered_from_all_generations():
    image = derived(derived(enhanced("a", "net-1")), enhanced("b", "net-2"))
    assert set(image.network_names()) == {"net-1", "net-2"}
    assert Provenance(job="convert").network_names() == {}
    assert image.source_digests() == {"a", "b"}


PUPIL = {"optics": "pupil", "wavelength_nm": 540.0, "numerical_aperture": 1.8}


def scan(part: str = "frame_000.tif", **changes: object) -> Provenance:
    return Provenance(job="simulate", options=PUPIL | changes, part=part)


def test_optical_cut_off_is_that_of_the_pupil_upstream():
    assert scan().optical_cut_off_nm() == pytest.approx(150)
    assert derived(derived(scan())).optical_cut_off_nm() == pytest.approx(150)
    assert scan("truth/seen.ome.tif").optical_cut_off_nm() == pytest.approx(150)
    finest = derived(scan(), scan(numerical_aperture=2), Provenance(job="x"))
    assert finest.optical_cut_off_nm() == pytest.approx(135)


def test_no_optical_cut_off_where_nothing_tells_it():
    for made in (
        scan(optics="gaussian"),
        scan("sem/sem.ome.tif"),
        scan("truth/object.ome.tif"),
        scan(numerical_aperture=0),
        scan(wavelength_nm="green"),
        scan(numerical_aperture=None),
    ):
        assert derived(made).optical_cut_off_nm() is None, made


def test_digest_of_a_file_depends_on_its_bytes_only(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    same, again, other = (digest_path(tmp_path / name) for name in "abc")
    assert same == again != other
    assert same.startswith("sha256:")


def test_digest_of_a_folder_sees_each_change(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a").write_bytes(b"one")
    digests = [digest_path(tmp_path)]
    assert digest_path(tmp_path) == digests[0]
    (inner / "a").write_bytes(b"two")
    digests.append(digest_path(tmp_path))
    (inner / "a").rename(inner / "b")
    digests.append(digest_path(tmp_path))
    (tmp_path / "more").write_bytes(b"")
    digests.append(digest_path(tmp_path))
    assert len(set(digests)) == 4


def step(job: str, *parents: Provenance, **changes: object) -> Provenance:
    inputs = derived(*parents).inputs
    return Provenance(job=job, inputs=inputs).model_copy(update=changes)


@pytest.mark.parametrize(
    ("made", "quantity"),
    [
        (step("convert", step("crop", step("frc-map"))), "resolution ({unit})"),
        (step("restore", step("frc-map")), None),
        (step("crop", step("frc-map"), options={PICTURE_KEY: [0, 1]}), None),
        (step("error-map", options={"unit": "percent"}), "error (%)"),
        (step("trust"), "likely error (grey levels)"),
        (step("trust", options={"show": "spread"}), "spread (grey levels)"),
        (step("crop", step("stitch", part="height")), "height (nm)"),
        (step("stitch"), None),
    ],
)
def test_a_map_shows_what_its_step_computed(made, quantity):
    for unit, short in (("nm", "nm"), ("pixel", "px")):
        assert made.quantity(unit) == (quantity and quantity.format(unit=short))
    assert made.depends_on_pixel_size == ("{" in (quantity or ""))


def test_the_defining_step_is_no_crop_and_no_copy():
    made = step("restore", step("stitch"), step("other"))
    assert step("convert", step("crop", made)).defining_step() == made
    copies = step("convert", step("crop"))
    assert copies.defining_step() == copies
    found = [one.job for one in step("crop", made).steps()]
    assert found == ["crop", "restore", "stitch"]


def test_a_reproducible_record_has_no_circumstances_at_any_depth():
    circumstances = {"device": "cpu", "threads": 3, "precision": "bf16"}
    options = {"sigma": 2, "pixel_size_origin": {"how": "typed"}}
    before = step("crop", options=options, **circumstances)
    made = step("restore", before, guides=derived(before).inputs)
    record = made.reproducible_record()
    assert not {"created", "versions", *circumstances} & set(record)
    for [one] in (record["inputs"], record["guides"]):
        assert "path" not in one
        assert one["provenance"]["options"] == {"sigma": 2}
        assert not {"created", *circumstances} & set(one["provenance"])
