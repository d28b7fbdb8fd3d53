import json

SMALL = ("--frames-grid", "2x2", "--frame-px", "48", "--jitter-px", "2", "--seed", "1")


def test_phantom_scan_has_the_keys_of_the_contract(semsr, tmp_path):
    said = semsr("simulate", "scan", "--phantom", "pits", *SMALL, "--overlap", "0.3",
                 "--photons", "500", "--read-noise", "20", "--json")  # fmt: skip
    assert said.code == 0, said.err
    assert (said.record["frames"], said.record["truth"]) == (4, "scan/truth")
    told = json.loads((tmp_path / "scan/truth/microscope.json").read_text())["options"]
    assert (told["phantom"], told["overlap"], told["photons"]) == ("pits", 0.3, 500)
