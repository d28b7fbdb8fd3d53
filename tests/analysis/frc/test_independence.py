import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import FrcOptions, measure_frc
from napari_semsr.analysis.frc.map import FrcMapOptions, measure_frc_map
from napari_semsr.analysis.frc.validity import is_noise_dependent
from napari_semsr.core import InputRecord, Micrograph, Provenance, run

IMAGE = np.zeros((64, 64))


def enhanced(source: str, data=IMAGE) -> Micrograph:  # type: ignore[no-untyped-def]
    record = InputRecord(role="image", name="raw", digest=source)
    made = Provenance(job="enhance", inputs=(record,), model_digest="sha256:net")
    return Micrograph(data, provenance=made)


def test_outputs_of_one_acquisition_alone_are_not_independent():
    assert is_noise_dependent(enhanced("a"), enhanced("a"))
    assert is_noise_dependent(enhanced("a"), None)
    assert not is_noise_dependent(enhanced("a"), enhanced("b"))
    assert not is_noise_dependent(enhanced("a"), Micrograph(IMAGE))
    assert not is_noise_dependent(Micrograph(IMAGE), None)
    record = InputRecord(role="image", name="raw", digest="a")
    plane = Micrograph(IMAGE, provenance=Provenance(job="convert", inputs=(record,)))
    assert not is_noise_dependent(plane, plane.replace(data=IMAGE + 1))  # of one stack


def test_frc_refuses_them_and_names_what_it_is_told_to_do(make_pair) -> None:
    first, second = (enhanced("a", image) for image in make_pair())
    assert measure_frc(first, second).reason == "not-independent"
    told = measure_frc(first, second, FrcOptions(allow_self=True))
    assert told.resolution_px is not None
    assert "repeatability" in told.method


def test_map_marks_every_block(make_pair) -> None:
    first, _ = make_pair((128, 128))
    found = run(measure_frc_map(enhanced("a", first), None, FrcMapOptions(block=64)))
    assert found.reason_counts == {"not-independent": found.blocks}


def step(job: str, *digests: str, before: Provenance | None = None, **options):  # type: ignore[no-untyped-def]
    role = "frames" if job == "stitch" else "image"
    inputs = tuple(
        InputRecord(role=role, name="raw", digest=digest, provenance=before)
        for digest in digests
    )
    return Provenance(job=job, inputs=inputs, options=options)


def half(name: str, *frames: str) -> Provenance:
    return step("stitch", "scan", half={"name": name, "frames": list(frames)})


def with_positions(frames: str) -> Provenance:
    positions = InputRecord(role="positions", name="p.csv", digest="positions")
    stitched = step("stitch", frames)
    return stitched.model_copy(update={"inputs": (positions, *stitched.inputs)})


DRAW = step("degrade", "object", photons=20, seed=1)
OTHER_DRAW = step("degrade", "object", photons=20, seed=2)
OBJECT = step("crop", "object")
RAW = step("crop", "raw")


@pytest.mark.parametrize(
    ("first", "second", "dependent"),
    [
        (RAW, step("restore", "raw"), True),
        (step("restore", "raw"), step("degrade", "raw", kind="blur"), True),
        (step("restore", "raw#z=1"), step("restore", "raw#z=2"), False),
        (half("a", "1.tif", "3.tif"), half("b", "2.tif", "4.tif"), False),
        (half("a", "1.tif", "3.tif"), half("b", "2.tif", "3.tif"), True),
        (half("a", "1.tif", "3.tif"), step("stitch", "scan"), True),
        (with_positions("scan"), step("stitch", "scan", blend="seam"), True),
        (DRAW, OTHER_DRAW, False),
        (step("restore", "x", before=DRAW), step("crop", "y", before=DRAW), True),
    ],
)
def test_histories_show_which_images_share_noise(first, second, dependent):
    pair = (Micrograph(IMAGE, provenance=made) for made in (first, second))
    assert is_noise_dependent(*pair) is dependent


def test_a_reference_may_be_the_object_but_no_version_of_the_image():
    restored = step("restore", "x", before=DRAW)
    image, truth, other, raw = (
        Micrograph(IMAGE, provenance=made)
        for made in (restored, OBJECT, step("restore", "raw"), RAW)
    )
    assert not is_noise_dependent(image, truth, reference=True)
    assert is_noise_dependent(truth, image, reference=True)
    assert is_noise_dependent(raw, other, reference=True)


def exposures(seed: int, *, lines: float = 0.0):  # type: ignore[no-untyped-def]
    """Two exposures of blobs; a slow detector smears the noise along the lines."""
    rng = np.random.default_rng(seed)
    shapes = ndimage.gaussian_filter(rng.normal(size=(384, 384)), 6) > 0
    truth = 90 + 60 * ndimage.gaussian_filter(shapes.astype(float), 1.5)
    noise = rng.normal(0, 25, (2, *truth.shape))
    if lines:
        noise = 1.5 * ndimage.gaussian_filter1d(noise, lines, axis=2)
    return truth + noise


COPIES = {
    "blurred": lambda a: ndimage.gaussian_filter(a, 1.5),
    "sharpened": lambda a: a + 1.5 * (a - ndimage.gaussian_filter(a, 1.5)),
    "gain": lambda a: 0.6 * a + 20,
}


@pytest.mark.parametrize("lines", [0.0, 0.7])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_an_image_is_seen_by_its_noise(name, lines):
    first, second = np.rint(exposures(3, lines=lines))
    copy = np.rint(COPIES[name](first))
    made = Micrograph(first), Micrograph(copy)
    assert measure_frc(*made).reason == "not-independent"
    assert measure_frc(*made[::-1]).reason == "not-independent"
    assert measure_frc(made[0], Micrograph(second)).reason is None
    both = Micrograph(copy), Micrograph(COPIES[name](second))
    assert measure_frc(*both).reason != "not-independent"


def test_known_draws_are_not_tested_by_their_noise():
    first, _ = exposures(5)
    copy = np.rint(ndimage.gaussian_filter(first, 1.5))
    pair = Micrograph(first, provenance=DRAW), Micrograph(copy, provenance=OTHER_DRAW)
    assert measure_frc(*pair).reason is None
