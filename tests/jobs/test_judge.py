"""A picture is judged by the SEM image of its place, by the figures of the measures."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr
from napari_semsr.core import (
    Affine,
    Box,
    Grid,
    Micrograph,
    capture_warnings,
    digest_path,
    run,
)
from napari_semsr.core.errors import SemsrError
from napari_semsr.io import ImageIdentity, StoredTransform, write
from napari_semsr.jobs import JUDGE, JudgeOptions
from napari_semsr.jobs.report.records import read_record
from napari_semsr.registration import Landmarks
from tests.refusals import refused, warned
from tests.tiny_models import write_tiny_model
from tests.two_views import draw_views

_OFF = re.compile(r"expected error of the transform is [\d.]+ px \(60 nm\)")

STILL = Affine(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0))


def _stored(moving, fixed, transform=STILL, **quality):
    sides = ImageIdentity.from_image(moving), ImageIdentity.from_image(fixed)
    return StoredTransform(transform, *sides, {"error_nm": 3.0, **quality})


@pytest.fixture
def job_of(tmp_path):
    """Judge two images through a known map, by no network but those that are given."""

    def job(moving, fixed, transform=STILL, *, models=(), quality=None, **how):
        stored = _stored(moving, fixed, transform, **(quality or {}))
        page = tmp_path / "p.html"
        return JUDGE.job(moving, fixed, page, models=[*models], transform=stored, **how)

    return job


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Two views as files, judged through their true map, with a small network."""
    folder = tmp_path_factory.mktemp("judged")
    moving, fixed, truth = draw_views(224)
    write(moving, folder / "optical.tif")
    write(fixed, folder / "sem.tif")
    model = write_tiny_model(folder, description="A network to test with.")
    made = run(
        JUDGE.job(
            folder / "optical.tif",
            folder / "sem.tif",
            folder / "page.html",
            models=[model],
            transform=_stored(moving, fixed, truth),
        )
    )
    return folder, made, truth


def test_every_number_is_in_the_file_beside_the_page(judged):
    folder, made, _ = judged
    record = json.loads((folder / "page.json").read_text())
    assert record == {"kind": "judge", **made.to_json()}
    assert set(record["models"]["tiny"]) >= {"psnr_db", "ssim", "resolution_nm"}
    assert list(record["baselines"]) == ["input", "linear filter"]
    assert record["registration"]["error_nm"] == 3
    assert record["models"]["tiny"]["model"]["digest"].startswith("sha256:")
    names = [item["name"] for item in record["provenance"]["inputs"]]
    assert names == ["optical.tif", "sem.tif"]
    assert sorted(item.name for item in folder.iterdir()) == [
        *("optical.tif", "page.html", "page.json", "sem.tif", "tiny.safetensors")
    ]


def test_a_page_tells_the_file_by_what_is_declared(judged):
    folder, made, _ = judged
    found = read_record(folder / "page.json")
    models, baselines = (
        next(sheet for sheet in found.sheets if sheet.title == title)
        for title in ("Models", "Baselines")
    )
    assert baselines.heads[:3] == ("", "PSNR (dB)", "Over the input (dB)")
    psnr = made.models["tiny"].metrics.psnr_db
    assert models.rows[0][:2] == ("tiny", f"{psnr:.2f}")
    told = {number.name: number for number in found.numbers}
    assert told["Registration, expected error"].text.startswith("3 nm (")
    assert told["Area, patches"].value == made.area["patches"]


def test_input_has_the_figures_that_the_measures_give(judged):
    folder, made, truth = judged
    optical, sem = (napari_semsr.read(folder / f"{n}.tif") for n in ("optical", "sem"))
    found = napari_semsr.register(
        optical, sem, transform=_stored(optical, sem, truth)
    ).image
    y0, x0, y1, x1 = made.area["box_px"]
    seen = Micrograph(found.array()[y0:y1, x0:x1], sem.pixel_size_nm)
    part = Micrograph(sem.array()[y0:y1, x0:x1], sem.pixel_size_nm)
    row = made.baselines["input"]
    expected = napari_semsr.metrics(seen, part, match="affine")
    assert row.metrics.psnr_db == pytest.approx(expected.psnr_db, abs=1e-4)
    assert row.metrics.ssim == pytest.approx(expected.ssim, abs=1e-4)
    # contrast is turned over in these views, and a correlation would be negative
    assert expected.gain < 0
    upright = seen.replace(data=-seen.array())
    cross = napari_semsr.frc(upright, part, reference=True)
    assert row.frc.reason == cross.reason
    np.testing.assert_allclose(row.frc.correlation, cross.correlation, atol=1e-3)
    assert made.area["origin_nm"] == list(
        Grid.from_image(sem).box_origin(Box(y0, y1, x0, x1))
    )


def test_area_lies_where_both_show_something(judged):
    folder, made, truth = judged
    optical = napari_semsr.read(folder / "optical.tif")
    y0, x0, y1, x1 = made.area["box_px"]
    assert made.area["shape"] == [y1 - y0, x1 - x0]
    corners = np.array([(y, x) for y in (y0, y1 - 1) for x in (x0, x1 - 1)]) * 20.0
    back = truth.inverse()(corners)
    grid = Grid.from_image(optical)
    assert (back >= grid.corner).all()
    assert (back <= grid.end).all()


def test_linear_filter_undoes_a_blur(job_of):
    rng = np.random.default_rng(0)
    clear = ndimage.gaussian_filter(rng.random((128, 128)), 1.2)
    blurred = ndimage.gaussian_filter(clear, 1.5) + rng.normal(0, 1e-4, clear.shape)
    size = (10.0, 10.0)
    optical, sem = (
        Micrograph(grey.astype(np.float32), size, name)
        for grey, name in ((blurred, "blurred"), (clear, "clear"))
    )
    made = run(job_of(optical, sem))
    row = made.baselines["linear filter"]
    assert row.psnr_gain_db > 3
    assert row.psnr_gain_db > 2 * row.psnr_gain_sd_db > 0
    difference = row.metrics.psnr_db - made.baselines["input"].metrics.psnr_db
    assert row.psnr_gain_db == pytest.approx(difference, abs=1e-3)


def test_linear_filter_does_not_ring_on_a_gap(job_of, rng):
    clear = ndimage.gaussian_filter(rng.random((96, 160)), 1.2)
    clear[:, 110:] += 1
    blurred = ndimage.gaussian_filter(clear, 1.5) + rng.normal(0, 1e-4, clear.shape)
    blurred[:, 120:] = np.nan
    optical, sem = (
        Micrograph(grey.astype(np.float32), (10.0, 10.0), name)
        for grey, name in ((blurred, "blurred"), (clear, "clear"))
    )
    made = run(job_of(optical, sem))
    assert made.baselines["linear filter"].psnr_gain_db > 3


@pytest.mark.broad
def test_linear_filter_gains_nothing_from_noise(job_of, rng):
    grey = rng.normal(100, 9, (2, 160, 160)).astype(np.float32)
    optical, sem = (Micrograph(one, (10.0, 10.0), "noise") for one in grey)
    made = run(job_of(optical, sem))
    assert made.models == {}
    # each half is filtered by what the other half tells: noise cannot be learnt
    assert made.baselines["linear filter"].psnr_gain_db < 0.05
    assert made.baselines["input"].frc.resolution_nm is None


def test_page_needs_nothing_beside_itself_and_names_all(judged):
    folder, made, _ = judged
    page = (folder / "page.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    for said in ("optical.tif", "sem.tif", "tiny", "linear filter", "input", "± "):
        assert said in page
    assert "A network to test with." in page
    assert "made by networks" in page
    assert page.count("<img") == 1 + 4 + 2 * 4  # the curves, wholes, two details
    rows, columns = made.area["shape"]
    assert f"{rows} \N{MULTIPLICATION SIGN} {columns} px" in page


@pytest.mark.broad
def test_gaps_are_left_out(job_of, tmp_path):
    moving, fixed, truth = draw_views(160)
    data = moving.array().astype(np.float32)
    data[:, 90:] = np.nan
    moving = moving.replace(data=data)
    model = write_tiny_model(tmp_path, pixel_size_nm=(30.0, 30.0))
    made = run(job_of(moving, fixed, truth, models=[model]))
    assert made.area["shape"][1] < 120
    assert made.models["tiny"].metrics.psnr_db > 0
    assert made.registration["overlap"] < 1


@pytest.mark.broad
def test_model_that_learnt_here_is_told(tmp_path):
    moving, fixed, truth = draw_views(128)
    write(moving, tmp_path / "optical.tif")
    write(fixed, tmp_path / "sem.tif")
    learnt = {
        "name": "sem.tif",
        "digest": digest_path(tmp_path / "sem.tif"),
        "unit": "nm",
        "areas": [[0.0, 0.0, 1280.0, 2560.0]],
    }
    model = write_tiny_model(tmp_path, training={"learnt_from": [learnt]})
    job = JUDGE.job(
        *(tmp_path / n for n in ("optical.tif", "sem.tif", "p.html")),
        models=[model],
        transform=_stored(moving, fixed, truth),
    )
    with warned("not-independent"):
        made = run(job)
    (told,) = [text for text in made.warnings if "trained on" in text]
    assert "tiny" in told
    assert told in (tmp_path / "p.html").read_text()


@pytest.mark.broad
def test_model_of_other_pixels_is_warned_of(job_of, tmp_path):
    moving, fixed, truth = draw_views(128)
    model = write_tiny_model(tmp_path, pixel_size_nm=(2000.0, 2000.0))
    with warned("pixel-size-unsuitable", match="tiny .* 2000 nm"):
        made = run(job_of(moving, fixed, truth, models=[model]))
    assert made.models["tiny"].model["notes"][0] in made.warnings


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(1.5, "nearer to the SEM image than the input"), (-10.26, "by 10.3 dB")],
)
def test_loss_of_the_best_model_is_stated(judged, gain, verdict):
    _, made, _ = judged
    row = replace(made.models["tiny"], psnr_gain_db=gain)
    figures = replace(made, models={"tiny": row}).figures()
    assert figures["Over the input, tiny"].verdict.endswith(verdict)


@pytest.mark.broad
def test_a_length_that_is_missing_is_explained_without_a_code(judged):
    row = judged[1].models["tiny"]
    for reason, words in (("not-independent", "one acquisition"), (None, "unknown")):
        frc = replace(row.frc, interval_nm=None, reason=reason)
        shown = str(dict(replace(row, frc=frc).figures())["Agrees down to"])
        assert words in shown
        assert str(reason) not in shown


def test_doubts_of_the_map_stand_on_the_page(job_of, tmp_path):
    job = job_of(*draw_views(128), quality={"error_nm": 60.0})
    with (
        warned("map-imprecise"),
    ):
        made = run(job)
    assert any(_OFF.search(text) for text in made.warnings)
    assert _OFF.search((tmp_path / "p.html").read_text())


@pytest.mark.broad
@pytest.mark.parametrize(
    ("vendor", "name"), [("FEI", "sem-restore"), (None, "ssum-sem")]
)
def test_model_is_chosen_by_the_instrument(tmp_path, vendor, name):
    moving, fixed, truth = draw_views(96)
    moving, fixed = (
        image.replace(metadata={"vendor": vendor} if vendor else {})
        for image in (moving, fixed)
    )
    stored = _stored(moving, fixed, truth)
    made = run(JUDGE.job(moving, fixed, tmp_path / "p.html", transform=stored))
    assert list(made.models) == [name]
    assert made.models[name].model["limits"]


@pytest.mark.broad
def test_places_where_the_map_is_not_confirmed_are_told(job_of):
    places = [[500.0, 500.0], [500.0, 1400.0], [1400.0, 500.0], [9e9, 9e9]]
    residuals = {
        "places_nm": places,
        "off_nm": [[0.0, 0.0]] * 4,
        "reliable": [True, True, False, False],
        "side_nm": 400.0,
    }
    job = job_of(*draw_views(96), quality={"residuals": residuals})
    with warned("map-unconfirmed"):
        made = run(job)
    assert any("at 1 of 3 points" in text for text in made.warnings)
    assert (made.area["patches"], made.area["unreliable_patches"]) == (3, 1)


def test_page_says_nothing_of_landmarks_that_nobody_checked(tmp_path):
    moving, fixed, truth = draw_views(96)
    places = np.array([[200.0, 200.0], [200.0, 1500.0], [1500.0, 400.0]])
    marks = Landmarks(places, truth(places) + np.array([[0, 0], [0, 90], [60, 0]]))
    how = {"landmarks": marks, "options": JudgeOptions(landmarks_only=True)}
    with warned("map-error-unknown"):
        made = run(JUDGE.job(moving, fixed, tmp_path / "p.html", models=[], **how))
    facts = made.registration
    assert (facts["residual_median_nm"], facts["unreliable"]) == (None, None)
    page = (tmp_path / "p.html").read_text()
    assert "No other position was searched." in page
    for claim in ("median 0", "0 %", "No other position matches", "held-out patches"):
        assert claim not in page


@pytest.mark.broad
def test_exchanged_images_are_told(job_of):
    moving, fixed, truth = draw_views(96)
    electrons = moving.replace(metadata={"vendor": "FEI"})
    with warned("images-exchanged"):
        made = run(job_of(electrons, fixed, truth))
    assert "whether the images are swapped" in made.warnings[0]


@pytest.mark.broad
def test_cancelled_run_leaves_nothing(job_of, tmp_path):
    job = job_of(*draw_views(96))
    for step in job:
        if "filter" in step.message:
            assert list(tmp_path.iterdir())
            break
    job.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["p.html", "p.json"])
def test_what_is_there_is_not_replaced_unasked(job_of, tmp_path, name):
    views = draw_views(96)
    (tmp_path / name).write_text("mine")
    with refused(SemsrError, "output-exists"):
        run(job_of(*views))
    assert (tmp_path / name).read_text() == "mine"
    run(job_of(*views, overwrite=True))
    assert (tmp_path / name).read_text() != "mine"


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("make", "how", "code"),
    [
        (lambda _, image: image.replace(pixel_size_nm=None), {}, "pixel-size-missing"),
        (lambda folder, _: folder / "none.tif", {}, "file-missing"),
        (lambda folder, _: folder / "f.tif", {"sem": "f.tif"}, "second-image-missing"),
        (lambda _, image: image, {"models": ["nobody"]}, "model-unknown"),
        (lambda _, image: image, {"output": "p.txt"}, "suffix-unknown"),
    ],
    ids=["pixel-size", "missing", "itself", "model", "suffix"],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, make, how, code):
    moving, fixed, _ = draw_views(96)
    given = {"models": [], **how}
    page = tmp_path / given.pop("output", "p.html")
    image = make(tmp_path, moving)
    sem = tmp_path / given.pop("sem") if "sem" in given else fixed
    with refused(SemsrError, code) as said:
        run(JUDGE.job(image, sem, page, **given))
    assert "\n" not in str(said.value)
    assert not page.exists()


@pytest.mark.broad
def test_images_that_share_too_little_are_refused(job_of, tmp_path):
    moving, fixed, _ = draw_views(96)
    job = job_of(moving, fixed, Affine(STILL.matrix, (0.0, 1700.0)))
    with (
        warned("overlap-small"),
        refused(SemsrError, "overlap-too-small", match=" 64 "),
    ):
        run(job)
    assert list(tmp_path.iterdir()) == []


def _sharpener(folder):
    """Write a network that only raises what is fine: 2 δ less a Gaussian of 1.2 px."""
    import torch

    from napari_semsr.models.cards import ModelCard
    from napari_semsr.models.checkpoint import build_network, save_model

    options = {"widths": [1, 1]}
    network = build_network("srcnn", options)
    kernel = np.zeros((9, 9))
    kernel[4, 4] = 1
    kernel = 2 * kernel - ndimage.gaussian_filter(kernel, 1.2, mode="constant")
    weights = network.state_dict()
    for name, value in weights.items():
        weights[name] = torch.zeros_like(value)
    weights["patches.weight"] = torch.tensor(kernel, dtype=torch.float32)[None, None]
    weights["patches.bias"][:] = 9  # so that nothing is cut off at zero
    weights["mapping.weight"][:] = 1
    weights["head.weight"][..., 2, 2] = 1
    weights["head.bias"][:] = -9
    network.load_state_dict(weights)
    card = ModelCard(
        name="sharpener", architecture="srcnn", options=options, receptive_field=6
    )
    save_model(folder / "sharpener.safetensors", network, card)
    return folder / "sharpener.safetensors"


def test_model_with_the_name_of_another_row_has_its_own(job_of, tmp_path):
    moving, fixed, truth = draw_views(224)
    model = _sharpener(tmp_path)
    names = ["input", "linear filter"]
    models = [tmp_path / f"{name}.safetensors" for name in names]
    for one in models:
        shutil.copy(model, one)
    made = run(job_of(moving, fixed, truth, models=models))
    assert [*made.baselines] == names
    assert [*made.models] == [str(one) for one in models]


@pytest.mark.quick(1)
@pytest.mark.parametrize("known", [True, False])
def test_model_that_gains_above_the_cut_off_alone_is_told(job_of, tmp_path, known):
    rng = np.random.default_rng(0)
    spectrum = np.fft.fft2(rng.standard_normal((160, 160)))
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(160)] * 2, indexing="ij"))
    bands = ((0.0, 1 / 20), (1 / 6, 1 / 3), (1 / 40, 1 / 20))
    low, high, off = (
        np.fft.ifft2(noise * ((radius > start) & (radius < stop))).real
        for noise, (start, stop) in zip(
            (spectrum, spectrum, spectrum.T), bands, strict=True
        )
    )
    optical, sem = (
        Micrograph((128 + 200 * (low + error) + 30 * fine).astype(np.float32), (10, 10))
        for error, fine in ((0.2 * off, 0.5 * high), (0, high))
    )
    options = JudgeOptions(cut_off_nm=100 if known else None)
    job = job_of(optical, sem, models=[_sharpener(tmp_path)], options=options)
    text = "sharpener improves the image only above the optical cut-off"
    with capture_warnings([].append):
        made = run(job)
    row, record = made.models["sharpener"], made.to_json()["models"]["sharpener"]
    page = (tmp_path / "p.html").read_text()
    assert (text in page) == known
    assert any(text in told for told in made.warnings) == known
    assert ("Observed and guessed detail" in page) == known
    if not known:
        assert record["gain_above_db"] is record["cut_off_nm"] is None
        return
    assert record["cut_off_nm"] == 100
    assert record["gain_above_db"] == row.light.gain_above_db > 3
    assert abs(record["gain_below_db"]) < 0.3
    assert "band_errors" not in record
    assert 0.3 < record["correlation_above"] < 1
