"""Commands that make one image from one take several, with a folder of outputs."""

import json
from pathlib import Path

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.cli import main
from napari_semsr.core import OptionError, run
from napari_semsr.io import read, write
from napari_semsr.jobs import RESTORE, OverwritePolicy, apply_to_images
from tests.refusals import refused

NAMES = ("a.tif", "b.ome.tif", "c.png")


@pytest.fixture
def images(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        grey = rng.integers(0, 255, (40, 48), dtype=np.uint8)
        write(semsr.Micrograph(grey, (5, 5), "a"), tmp_path / name)
    return [str(tmp_path / name) for name in NAMES]


@pytest.fixture
def call(capsys):
    def run_command(*words):
        status = main([*map(str, words), "--json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out), printed.err

    return run_command


def restore(images, folder="out", psf="1px", **how):
    """Restore images; `how` are arguments of the function and of the policy."""
    policy = {name: how.pop(name) for name in ("overwrite", "resume") if name in how}
    existing = OverwritePolicy(**policy)
    return run(
        apply_to_images(RESTORE, images, folder, {"psf": psf}, existing=existing, **how)
    )


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "words",
    [
        ("restore", "--psf", "1px"),
        ("convert",),
        ("crop", "--box", "2", "3", "30", "40"),
    ],
    ids=lambda words: words[0],
)
def test_outputs_are_those_of_the_command_for_one_image(words, images, call):
    verb, *options = words
    status, made, _ = call(verb, *images, "-o", "out", "--suffix", ".ome.tif", *options)
    assert (status, made["kind"]) == (0, verb)
    assert (made["done"], made["failed"], made["skipped"]) == (len(images), 0, 0)
    assert made["outputs"] == [str(Path("out", f"{s}.ome.tif")) for s in "abc"]
    for path, output in zip(images, made["outputs"], strict=True):
        assert call(verb, path, "-o", "one.ome.tif", "--overwrite", *options)[0] == 0
        one, several = read("one.ome.tif"), read(output)
        assert np.array_equal(one.array(), several.array())
        assert one.provenance.options == several.provenance.options
        assert one.provenance.inputs == several.provenance.inputs


def test_image_that_fails_is_named_and_the_others_are_done(images, call, tmp_path):
    (tmp_path / "bad.tif").write_text("no image")
    words = ("restore", images[0], "bad.tif", images[1], "-o", "out", "--psf", "1px")
    status, made, errors = call(*words)
    assert status == 2
    assert (made["done"], made["failed"], made["skipped"]) == (2, 1, 0)
    (failure,) = made["failures"]
    assert (failure["image"], failure["code"]) == ("bad.tif", "format-unknown")
    assert "semsr restore: bad.tif: " in errors
    status, made, _ = call(*words, "--resume")
    assert (status, made["done"], made["failed"], made["skipped"]) == (2, 0, 1, 2)


def test_what_is_done_is_skipped_unless_it_changed(images):
    assert restore(images).done == 3
    kept = Path("out/a.tif").stat().st_mtime_ns
    assert restore(images, resume=True).skipped == 3
    assert Path("out/a.tif").stat().st_mtime_ns == kept
    image = read(images[1])
    write(image.replace(data=image.array() // 2), images[1], overwrite=True)
    made = restore(images, resume=True)  # of another image: nothing is replaced unasked
    assert (made.skipped, made.done, made.failed) == (2, 0, 1)
    assert made.failures[0]["code"] == "output-exists"
    made = restore(images, resume=True, overwrite=True)
    assert (made.skipped, made.done) == (2, 1)
    assert restore(images, psf="2px", resume=True).failed == 3


@pytest.mark.parametrize("other", ["sub/a.png", "sub/A.tif"])
def test_images_of_one_name_are_refused(images, other, tmp_path):
    (tmp_path / "sub").mkdir()
    write(read(images[0]), tmp_path / other)
    with refused(OptionError, "outputs-coincide"):
        restore([*images, str(tmp_path / other)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("convert", "a.tif", "b.ome.tif", "out"), "missing-value"),
        (("convert", "a.tif", "x.tif", "--resume"), "option-without-effect"),
        (("convert", "a.tif", "-o", "out", "--suffix", "x"), "suffix-unknown"),
        (("convert", "a.tif", "b.ome.tif", "-o", "c.png"), "output-is-file"),
        (("convert", "a.tif", "b.ome.tif", "-o", "d.png"), "options-contradict"),
    ],
)
def test_wrong_uses_are_refused(words, code, images, call):
    status, made, _ = call(*words)
    assert (status, made["code"]) == (2, code)


@pytest.mark.usefixtures("images")
def test_quoted_pattern_is_several_images(call):
    status, made, _ = call("convert", "[ab].*", "-o", "out")
    assert (status, made["done"]) == (0, 2)
    status, made, _ = call("convert", "a.*", "-o", "out")  # even if one matches
    assert (status, made["failures"][0]["code"]) == (2, "output-exists")
