"""A training that cannot start leaves what an earlier run learns from."""

from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core import Micrograph, OptionError, run
from napari_semsr.jobs import OverwritePolicy, PairRequest, train_process
from napari_semsr.jobs.train_process import train_and_import
from napari_semsr.pairing.options import PairOptions
from napari_semsr.simulation.canvas import draw_phantom
from tests.tiny_models import list_train_values


def _contents(folder: Path) -> dict[str, bytes]:
    files = (item for item in folder.rglob("*") if item.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def _cut(seed: int) -> PairRequest:
    high = draw_phantom("particles", (96, 96), seed=seed).astype(np.float32)
    layers = (Micrograph(part, name="f") for part in (high, 2 * high))
    return PairRequest(*layers, options=PairOptions(patch=24, scale=1))


@pytest.mark.quick(1)
@pytest.mark.parametrize("begins", [False, True])
def test_failed_start_gives_the_earlier_run_its_pairs_again(
    begins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    def training(values, existing: OverwritePolicy):
        if existing.overwrite and not begins:
            msg = "no such discriminator"
            raise OptionError(msg)
        Path(values["output"], "recipe.yaml").write_text("name: a\n")
        raise OptionError("stopped") if existing.overwrite else KeyboardInterrupt
        yield

    monkeypatch.setattr(train_process, "train_in_subprocess", training)
    values = list_train_values("fine-tune", folder)
    with pytest.raises(KeyboardInterrupt):
        run(train_and_import({**values, "cut": _cut(0)}))
    before = _contents(tmp_path)
    with pytest.raises(OptionError):
        run(
            train_and_import(
                {**values, "cut": _cut(1)}, OverwritePolicy(overwrite=True)
            )
        )
    assert (_contents(tmp_path) == before) != begins
    assert not list(tmp_path.glob(".*"))
