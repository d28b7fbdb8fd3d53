import json

SMALL = ("--frames-grid", "2x2", "--frame-px", "48", "--jitter-px", "2", "--seed", "1")


def test_phantom_scan_has_the_keys_of_the_contract(semsr, tmp_path):
    said = semsr("simulate", "scan", "--phantom", "pits", *SMALL, "--overlap", "0.3",
                 "--photons", "500", "--read-noise", "20", "--json")  # fmt: skip
    assert said.code == 0, said.err
    assert (said.record["frames"], said.record["truth"]) == (4, "scan/truth")
    told = json.loads((tmp_path / "scan/truth/microscope.json").read_text())["options"]
    assert (told["phantom"], told["overlap"], told["photons"]) == ("pits", 0.3, 500)


def test_image_scan_and_summary(semsr, images, tmp_path):
    said = semsr("simulate", "scan", "--from", "first.tif", "--frames-grid", "1x2",
                 "--frame-px", "40", "--field", "square", "--vignetting", "0.8",
                 "--bad-frames", "1")  # fmt: skip
    assert said.code == 0, said.err
    assert "2 frames (1 x 2)" in said.out
    assert "blank" in said.out
    assert (tmp_path / "scan" / "frame_001.tif").is_file()
