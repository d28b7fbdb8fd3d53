"""Denoise one image by a peer, in an environment of the peer's own.

Run: ``PYTHON own_image_peers.py METHOD IN.npy OUT.npy SECONDS REACH
NOISE.npy``; `own_image.py` does so.

METHOD is ``n2v``, ``n2v2`` (CAREamics; with REACH above 0 px its structured form),
``bm3d``, which takes the noise for white, or ``bm3d-lines``, which is told its spectrum
along lines. SECONDS is the processor time that a training gets, from its first batch
on; NOISE is the variance of the noise by frequency along lines.
Needs in that environment: careamics 0.3, bm3d, torch. CAREamics imports torchvision for
a network that N2V does not use; where that does not load, it goes without.
"""

import sys
import tempfile
import time
import types

import numpy as np


def by_careamics(image, seconds, reach, *, second_version):
    """Train CAREamics' N2V on the image for so long, and run it on the image."""
    import lightning.pytorch as lightning
    import torchmetrics  # noqa: F401 - asks for torchvision before there is a stand-in

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        names = "torchvision", "torchvision.transforms"
        names = (*names, "torchvision.transforms.functional")
        parts = [types.ModuleType(name) for name in names]
        parts[0].transforms, parts[1].functional = parts[1:]
        parts[0].__version__ = "0"
        sys.modules.update(zip(names, parts, strict=True))
    from careamics import CAREamist
    from careamics.config import create_advanced_n2v_config

    class Clock(lightning.Callback):
        begun = None
        steps = 0

        def on_train_batch_start(self, *_):
            self.begun = self.begun or time.process_time()

        def on_train_batch_end(self, trainer, *_):
            self.steps += 1
            if time.process_time() - self.begun > seconds:
                trainer.should_stop = True
                trainer.limit_train_batches = 0

    clock = Clock()
    along_lines = {"struct_n2v_axes": "horizontal", "struct_n2v_span": 2 * reach + 1}
    config = create_advanced_n2v_config(
        experiment_name="own",
        data_type="array",
        axes="YX",
        patch_size=(64, 64),
        batch_size=8,
        num_epochs=10_000,
        use_n2v2=second_version,
        augmentations=[] if reach else None,
        num_workers=0,
        **(along_lines if reach else {}),
    )
    with tempfile.TemporaryDirectory() as folder:
        peer = CAREamist(
            config, work_dir=folder, callbacks=[clock], enable_progress_bar=False
        )
        peer.train(train_data=image)
        lacking = [(0, -n % 16) for n in image.shape]  # its U-Net halves them
        made, _ = peer.predict(np.pad(image, lacking, mode="reflect"))
    print(f"{clock.steps} steps", file=sys.stderr)
    return np.squeeze(np.asarray(made[0]))[: image.shape[0], : image.shape[1]]


def by_bm3d(image, power, *, lines):
    """Denoise by BM3D, told the noise as one deviation or by its spectrum."""
    np.trapz = np.trapezoid  # noqa: NPY201 - by its former name bm4d asks for it
    import bm3d

    if not lines:
        return bm3d.bm3d(image, sigma_psd=float(np.sqrt(power.mean())))
    # of a plane, in units of its own transform
    return bm3d.bm3d(image, sigma_psd=np.tile(power, (len(image), 1)) * image.size)


def main():
    """Do as the command says."""
    method, source, target, seconds, reach, noise = sys.argv[1:]
    image = np.load(source).astype(np.float32)
    if method.startswith("bm3d"):
        made = by_bm3d(image, np.load(noise), lines=method.endswith("lines"))
    else:
        made = by_careamics(
            image, float(seconds), int(reach), second_version=method == "n2v2"
        )
    np.save(target, made)


if __name__ == "__main__":
    main()
