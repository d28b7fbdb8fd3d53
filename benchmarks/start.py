"""What a run measures of a network before its first tile, at the first start and later.

Run: ``OMP_NUM_THREADS=1 python benchmarks/start.py``. Every start is a process of its
own; loading torch and the weights is not counted. Times are processor times. The
figures are kept in an empty folder that is removed.
"""

import os
import subprocess
import sys
import tempfile
import time

CASES = {
    "the bundled model": "sem-restore",
    "residual generator, instance norm": "resnet",
    "Gao's U-Net": "multi-scale-unet",
}


def start(kind: str) -> float:
    """Take the processor time of what is measured in this process."""
    import torch

    from napari_semsr.inference.exact.plan import halo_and_script
    from napari_semsr.inference.predictor import Predictor
    from napari_semsr.models.cards import ModelCard, bundled
    from napari_semsr.models.checkpoint import LoadedModel, load_model
    from napari_semsr.models.registry import build

    if kind in bundled():
        loaded = load_model(kind)
    else:
        torch.manual_seed(0)
        module = build(kind, {}).eval()
        stride = int(getattr(module, "stride", 4))
        card = ModelCard(name=kind, architecture=kind, stride=stride, receptive_field=0)
        loaded = LoadedModel(module, card, "sha256:none")
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    begun = time.process_time()
    deep = predictor.probe.halo is None or predictor.probe.halo > 192
    if predictor.probe.norms or deep:
        halo_and_script(predictor)
    return time.process_time() - begun


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        sys.stdout.write(f"{start(sys.argv[1])}\n")
        return
    for name, kind in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            took = [
                float(
                    subprocess.run(
                        [sys.executable, __file__, kind],
                        env={**os.environ, "SEMSR_CACHE": folder},
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for _ in range(2)
            ]
        sys.stdout.write(f"{name:36s} {took[0]:7.2f} s, then {took[1]:5.2f} s\n")


if __name__ == "__main__":
    main()
