"""What the demonstration says of the model, sentence by sentence from its figures."""

from napari_semsr.services.demo_measure import Measured
from napari_semsr.services.report_blocks import Text
from napari_semsr.services.report_text import fixed, resolution, signed
from napari_semsr.services.shelf import DEFAULT_MODEL

__all__ = ["judge_mosaic", "psnr_gain"]

_WORTH_DB = 0.2
_TRAINING = (
    "The bundled model was trained to take simulated blur, haze and noise off electron "
    "images, drawn and real; no superlens mosaic was among them."
)
_OWN = "Whether this model has seen superlens mosaics in training, its card must say."
_CAUTION = (
    "This is one drawn sample under a simulated microscope. For an instrument it "
    "proves nothing: measure there too, against electron images of the same place, or "
    "train on such pairs."
)


def psnr_gain(measured: Measured) -> float | None:
    """Decibels that the enhancement brings, against the truth.

    Parameters
    ----------
    measured : Measured
        All figures.

    Returns
    -------
    float or None
        None where one of both is unknown.
    """
    after, before = measured.enhanced.metrics.psnr_db, measured.degraded.metrics.psnr_db
    return None if after is None or before is None else after - before


def judge_mosaic(measured: Measured, model: str) -> Text:
    """Say what the model does to a superlens mosaic, and warn where it is no gain.

    Parameters
    ----------
    measured : Measured
        Figures of the mosaic.
    model : str
        What was asked for.

    Returns
    -------
    Text
        A warning where the enhanced mosaic is not clearly nearer to the truth.
    """
    gain = psnr_gain(measured)
    better = gain is not None and gain >= _WORTH_DB
    lines = [_TRAINING if model == DEFAULT_MODEL else _OWN]
    if better:
        lines.append(f"On this mosaic it still gains: {_figures(measured)}.")
    else:
        lines.append(
            f"On this mosaic it brings no gain: {_figures(measured)}. Do not use it on "
            "such mosaics."
        )
    beside = _beside_wiener(measured)
    return Text((" ".join([*lines, *beside]), _CAUTION), warning=not better)


def _figures(measured: Measured) -> str:
    """Say before and after, against the truth."""
    before, after = measured.degraded, measured.enhanced
    return (
        f"PSNR {signed(psnr_gain(measured), 2)} dB, SSIM "
        f"{fixed(before.metrics.ssim, 3)} → {fixed(after.metrics.ssim, 3)}, resolution "
        f"{resolution(before.cross)} → {resolution(after.cross)}, all against the truth"
    )


def _beside_wiener(measured: Measured) -> list[str]:
    """Say whether a filter that is told the blur does better."""
    classical, network = measured.baseline.metrics, measured.enhanced.metrics
    if classical.psnr_db is None or network.psnr_db is None:
        return []
    ahead = network.psnr_db - classical.psnr_db
    if ahead >= 0:
        return [f"It is {ahead:.2f} dB ahead of a Wiener filter told the blur's width."]
    return [f"A Wiener filter told the blur's width is {-ahead:.2f} dB ahead of it."]
