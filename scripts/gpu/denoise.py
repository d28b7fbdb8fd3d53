"""Go on with the training of the denoiser, in bf16, for as long as the card is lent.

It begins with the networks in ``benchmarks/campaign/sem-restore-clean``, with the
bundled ones where there are none, and writes ``sem-restore-clean.tar`` of the same
files: ``scripts/gpu_kit.sh keep FOLDER`` puts them back. Without real scans.
"""

import os
import subprocess
import sys
import tarfile

import campaign
from gpu.kit import IMAGES, ROOT, Report, read_call

NAME = "sem-restore-clean"
OPENING_S = 60.0  # scenes and the last validation; chosen


def main() -> int:
    """Write how far it came."""
    given = read_call(__doc__)
    report = Report(given, "denoise")
    training = campaign.Training(f"{NAME}.yaml", 1.0)
    training.run = given.folder / "denoise" / "run"
    with report.trying("training"):
        plain = campaign.yaml.safe_load(training.settled())
        plain["data"] |= {"scanned": 0.0, "scans": []}
        if IMAGES.exists():
            plain["data"]["root"] = str(IMAGES)
        plain |= {"workers": max(1, (os.cpu_count() or 1) - 2), "precision": "auto"}
        plain["minutes"] = max(0.05, (given.seconds - OPENING_S) / 60)
        if given.dry:
            drawn = {"phantoms": 1.0, "train": [], "validation": [], "bank": 8}
            plain["data"] |= drawn
            plain |= {"steps": 2, "warmup_steps": 0, "decay_steps": 1}
        planned = given.folder / "denoise.yaml"
        planned.write_text(campaign.yaml.safe_dump(plain))
        call = [sys.executable, "-m", "napari_semsr", "train", planned]
        subprocess.run([*call, "-o", training.run, "--overwrite"], cwd=ROOT, check=True)
        training.kept = given.folder / "denoise" / NAME
        training.best = campaign.read(training.run / "best.yaml")
        training.keep()
        with tarfile.open(given.folder / f"{NAME}.tar", "w") as packed:
            packed.add(training.kept, NAME)
        report.add("kept", campaign.read(training.kept / "kept.json"))
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
