"""Several processes learn together as one with a larger batch would."""

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from napari_semsr.core import OptionError, WriteError, run
from napari_semsr.training import Recipe, choose_training_device, fit as loop, train
from tests import children
from tests.refusals import refused

SMALL = {
    "kind": "supervised",
    "architecture_options": {"width": 4, "fine_blocks": 1, "dilations": [1]},
    "data": {"phantoms": 1.0, "scene_px": 32, "patch_px": 32, "patches_per_scene": 1},
}
SMALL |= {"batch": 2, "steps": 3, "warmup_steps": 0, "decay_steps": 0}
SMALL |= {"validate_every": 2, "precision": "fp32", "workers": 0, "clip_norm": None}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {k: v for k, v in state.items() if k.startswith("network")}


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    together = SMALL | {"name": "two"}
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(together))
    call = [sys.executable, "-m", "napari_semsr", "train", str(recipe)]
    done = children.run([*call, "-o", tmp_path / "two", "--devices", "2"])
    assert done.returncode == 0, done.stderr
    alone = Recipe.parse(SMALL | {"name": "one", "batch": 4})
    run(train(alone, tmp_path / "one"))
    one, two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-3)
    rows = (tmp_path / "two" / "curve.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "3"]


def test_environment_is_as_before_when_a_run_ends(tmp_path, monkeypatch):
    asked, before = Recipe.parse(SMALL | {"name": "n", "devices": 2}), dict(os.environ)

    def fail(*_: object, **__: object) -> None:
        os.environ.update(LOCAL_RANK="0", MASTER_PORT="9")  # as Lightning does
        raise WriteError("no")

    monkeypatch.setattr(loop, "make_learner", fail)
    with refused(WriteError, "not-writable"):
        run(train(asked, tmp_path / "failed"))
    assert dict(os.environ) == before
    with refused(OptionError, "device-missing"):
        run(train(asked.replace(devices=1000), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_machines_without_an_address_are_refused(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "29500")
    two = Recipe(name="n", nodes=2)
    with refused(OptionError, "missing-value", match="MASTER_ADDR"):
        choose_training_device(two, "cpu")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert choose_training_device(two, "cpu").type == "cpu"


def test_devices_and_nodes_are_passed_to_lightning(tmp_path, monkeypatch):
    given: dict[str, object] = {}

    def begin(**options: object) -> None:
        given.update(options)
        raise WriteError("enough")

    monkeypatch.setattr(loop.lightning, "Trainer", begin)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    asked = Recipe.parse(SMALL | {"name": "n", "devices": 2, "nodes": 3})
    with refused(WriteError, "not-writable"):
        run(train(asked, tmp_path / "run", device="cpu"))
    assert (given["devices"], given["num_nodes"]) == (2, 3)
