"""Two-scale networks: for restoration, for one area, and for a survey of a field.

TwoScaleNet is designed for speed on a CPU:

=======  =========================================================  ==========
part     layers                                                     resolution
=======  =========================================================  ==========
stem     pixel-unshuffle 2, 3x3 convolution to `width`              1/2
encoder  `fine_blocks` residual blocks                              1/2
context  2x2 stride-2 convolution to twice the width, residual      1/4
         blocks with the dilations of `dilations`, 1x1, shuffle up
decoder  sum with the encoder, `fine_blocks` residual blocks        1/2
head     3x3 convolution to 4 x scale squared, pixel-shuffle        1
=======  =========================================================  ==========

The output is added to the input, and the head starts at zero, so that an untrained
network returns its input. There is no normalisation layer: every output pixel depends
only on its receptive field, and tiles are exact. All numbers are our choice.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import FAULTS
from napari_semsr.models.architectures.blocks import (
    Edges,
    init_layer_zero,
    run_in_full_precision,
)

BLOCK = 16  # side of a block in px; chosen
Conditions = Iterator[Tensor] | None
"""Scales (minus 1) and shifts of the blocks, (B, 2, C) each, in order."""


def add_features(x: Tensor, features: Tensor) -> Tensor:
    """Add features to `x`; without gradients in its memory, a few rows at a time.

    On a CPU, torch would first copy all features of another precision to that of `x`.
    """
    if torch.is_grad_enabled():
        return x + features
    if x.dtype == features.dtype or x.device.type != "cpu":
        return x.add_(features)
    parts = (torch.split(tensor, BLOCK, 2) for tensor in (x, features))
    for rows, added in zip(*parts, strict=True):
        rows.add_(added)
    return x


class DilatedBlock(nn.Module):
    """Two 3x3 convolutions with a rectifier between them, added to the input.

    Both have the same dilation unless `second_dilation` is set.
    """

    rectifier = staticmethod(torch.relu_)

    def __init__(
        self,
        width: int,
        dilation: int = 1,
        edges: Edges = "zeros",
        second_dilation: int | None = None,
    ) -> None:
        super().__init__()

        def build_convolution(step: int) -> nn.Conv2d:
            return nn.Conv2d(
                width, width, 3, padding=step, dilation=step, padding_mode=edges
            )

        self.first = build_convolution(dilation)
        self.second = init_layer_zero(build_convolution(second_dilation or dilation))

    def forward(self, x: Tensor, condition: Conditions = None) -> Tensor:
        """Add the block's correction to `x` (B, C, H, W), in place without gradients.

        A condition scales and shifts the first layer.
        """
        features: Tensor = self.first(x)
        if condition is not None:
            scale, shift = next(condition).to(features.dtype)[..., None, None].unbind(1)
            features = (features + shift).addcmul_(features, scale)
        features = self.rectifier(features)  # frees what it replaces
        features = self.second(features)
        return add_features(x, features)


class TwoScaleNet(nn.Module):
    """Residual network without normalisation at 1/2 and 1/4 of the resolution.

    `scale`: output pixels per input pixel along each axis.
    """

    stride = 4

    def __init__(
        self,
        width: int = 48,
        fine_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 1),
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.scale, deep = scale, 2 * width
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.encoder = nn.Sequential(*(DilatedBlock(width) for _ in range(fine_blocks)))
        self.down = nn.Conv2d(width, deep, 2, stride=2)
        self.context = nn.Sequential(*(DilatedBlock(deep, d) for d in dilations))
        self.up = nn.Conv2d(deep, 4 * width, 1)
        self.decoder = nn.Sequential(*(DilatedBlock(width) for _ in range(fine_blocks)))
        self.head = init_layer_zero(nn.Conv2d(width, 4 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Restore normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        fine = run_in_full_precision(self.stem, functional.pixel_unshuffle(x, 2))
        for block in self.encoder:  # a call would hold its input
            fine = block(fine)
        coarse = self.down(fine).to(fine.dtype)
        for block in self.context:
            coarse = block(coarse)
        fine = add_features(fine, functional.pixel_shuffle(self.up(coarse), 2))
        del coarse
        for block in self.decoder:
            fine = block(fine)
        output = run_in_full_precision(self.head, fine)
        correction: Tensor = functional.pixel_shuffle(output, 2 * self.scale)
        if self.scale > 1:  # exact when tiled; the head learns the rest
            x = x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return x + correction


# Small residual network for one area, trained in minutes on a CPU.
#
# =======  =========================================================  ==========
# part     layers                                                     resolution
# =======  =========================================================  ==========
# stem     pixel-unshuffle 2, 3x3 convolution to `width`              1/2
# body     residual blocks of two 3x3 convolutions, of which the      1/2
#          first has the dilations of `dilations`
# head     3x3 convolution to 4, pixel-shuffle                        1
# =======  =========================================================  ==========
#
# The output is added to the input, and the head starts at zero, so that an untrained
# network returns its input. There is no normalisation layer: every output pixel depends
# only on its receptive field, and tiles are exact. All numbers are our choice; by
# default it has 0.13 million weights.


class PlaceNet(nn.Module):
    """Residual network without normalisation at half the resolution.

    Parameters
    ----------
    width : int, default=32
        Channels of the body.
    dilations : sequence of int, default=(1, 2, 4, 1, 8, 2, 1)
        Dilations of the first convolution of each block.
    """

    scale, stride = 1, 2

    def __init__(
        self, width: int = 32, dilations: Sequence[int] = (1, 2, 4, 1, 8, 2, 1)
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        blocks = (DilatedBlock(width, d, second_dilation=1) for d in dilations)
        self.body = nn.Sequential(*blocks)
        self.head = init_layer_zero(nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Restore normalised (B, 1, H, W) with even sides to (B, 1, H, W)."""
        features = self.body(self.stem(functional.pixel_unshuffle(x, 2)))
        output: Tensor = x + functional.pixel_shuffle(self.head(features), 2)
        return output


# Estimation of the haze, noise and blur of a whole field.
#
# Haze dims contrast about one grey level, the airlight (Gao et al. 2024): ``I = f t + A
# (1 - t)``, so that ``A + (I - A) g`` with ``g`` in proportion to ``1 / t`` brings the
# clear image back. A tile is too small to distinguish a hazy region from a flat one, or
# noise from detail: so statistics of blocks of 16 px of the whole field are used, each
# computed separately, so that they do not depend on the tiling.
#
# =======  ============================================================  ==========
# part     layers                                                        resolution
# =======  ============================================================  ==========
# input    mean and log energy in four bands of each block, and their    1/16
#          means over the field, 1x1 convolution to `width`
# down     two residual blocks each, then mean over 2x2                  1/16-1/128
# bottom   two residual blocks, plus two dense layers on their mean      1/128
# up       bilinear, added to what went down, one residual block each    1/64-1/16
# output   1x1 convolution to the log of g; and to a correction of the   1/16
#          airlight that grey levels say with g, of which the mean is
#          taken
# names    three dense layers from a summary of all blocks to the nine   none
#          numbers of `core.FAULTS`
# =======  ============================================================  ==========
#
# All numbers are our choice.


_LEVELS, _COARSE = 4, 4
_MIN_PASSED = 0.1  # standard deviation of transmission that determines the airlight
_MIN_ENERGY = 1e-6  # about the rounding of 8 bits, for a range of 1
_NOTHING = 0.3 * math.log(1.01 * _MIN_ENERGY)  # log energy of a constant block
_DRAWN_ROW = 0.2  # share of constant blocks in a row of a data bar
_MAX_DRAWN = 0.5  # of a field; if more seems to be a data bar, it is image content
_LARGEST_LOG = 1.5  # haze seldom reduces contrast by more than this factor e**1.5
_SLIGHT = 0.085  # standard deviation of the log gain; up to 0.081 for clear samples
_EDGES = (0.5, 1.5, 2.5, 3.5, 5.0, 6.5, 8.0, 9.5, 11.0, 12.5, 14.0, 16.0, 23.0)
_SHARES, _NAMING = (0.25, 0.5, 0.75, 0.9, 0.97), 256  # of blocks, by detail
_MIDDLE, _SPAN = -2.0, 0.8  # mean and scale of log energies, to normalise inputs
_DETAIL = slice(1, 5)  # bands by which blocks are sorted from flat to full of detail
_HIGH, _LOW = 12, 5  # cosines of a block: fine from 12 on, coarse up to 5

# Mean and spread of a condition, to normalise it, from the ranges used in training.
_USUAL = (-3.8, 0.3, 0.1, 0.05, 0.03, -0.5, -0.5, 0.0, 0.1)
SPREAD = (1.5, 0.4, 0.2, 0.1, 0.1, 0.9, 0.9, 0.4, 0.3)


class Haze(NamedTuple):
    """Estimated haze of fields."""

    log_gain: Tensor  # (B, 1, h, w), log of the gain that removes it, for each block
    airlight: Tensor  # (B, 1, 1, 1), grey level to which haze shifts every pixel

    def drop_uncertain(self) -> "Haze":
        """Return a copy without haze that is too weak to be reliable."""
        slight = self.log_gain.flatten(1).std(1, correction=0) < _SLIGHT
        log_gain = torch.where(slight[:, None, None, None], 0.0, self.log_gain)
        return Haze(log_gain, self.airlight)


class SurveyResult(NamedTuple):
    """Haze, noise and blur estimated for fields."""

    haze: Haze
    condition: Tensor  # (B, 9), in the order of `core.FAULTS`
    rings: Tensor  # (B, 12), mean power at `RINGS`, over the range squared


RINGS = tuple((low + high) / 4 / BLOCK for low, high in itertools.pairwise(_EDGES))
"""Frequencies of `SurveyResult.rings`, in cycles per pixel."""


def dehaze(field: Tensor, haze: Haze) -> Tensor:
    """Remove haze with a gain interpolated bilinearly between block centres.

    `field` (B, 1, H, W) are the images in which it was estimated, not larger than its
    blocks; the grey scale is kept.
    """
    gain, (rows, columns) = haze.log_gain.exp(), field.shape[-2:]
    gain = functional.interpolate(gain, scale_factor=BLOCK, mode="bilinear")
    return haze.airlight + (field - haze.airlight) * gain[..., :rows, :columns]


def _find_blank_blocks(logs: Tensor) -> Tensor:
    """Find blank blocks: constant blocks and block rows of a data bar.

    `logs` (B, 16, h, w), log energy of each block; returns (B, h * w), bool. A data bar
    extends across the field and has many constant blocks; adjacent rows of blocks are
    included, as they may overlap it.
    """
    plain = (logs <= _NOTHING).all(1)
    rows = (plain.float().mean(2, keepdim=True) >= _DRAWN_ROW).float()
    rows = functional.max_pool1d(rows[..., 0], 3, 1, 1)[..., None] > 0
    is_blank = (plain | rows).flatten(1)
    few = is_blank.float().mean(1, keepdim=True) <= _MAX_DRAWN
    return torch.where(few, is_blank, plain.flatten(1))


def _summarise_blocks(means: Tensor, logs: Tensor, is_blank: Tensor) -> Tensor:
    """Summarise the blocks of fields by statistics that separate noise from detail.

    Mean and scatter of the spectra of six classes of blocks, from the flattest, which
    show only noise, to those with most detail, which show blur; and mean spectra of the
    darker and the brighter half of the flat ones, which differ by shot noise. `means`
    (B, N), `logs` (B, 16, N), mean grey and log energy of each block; `is_blank` (B,
    N), blocks to ignore; returns (B, 225).
    """
    detail = logs[:, _DETAIL].mean(1).masked_fill(is_blank, -math.inf)
    order = detail.argsort(1)
    many = order.shape[1]
    # ignored blocks come first; the others are spread over all positions
    blank_count = is_blank.sum(1, keepdim=True).clamp_max(many - 1)
    steps = torch.arange(many, device=logs.device) * (many - blank_count) // many
    order = order.gather(1, blank_count + steps)
    unit = (logs - _MIDDLE) / _SPAN

    def gather_spectra(places: Tensor) -> Tensor:
        places = places if places.shape[1] else order  # for a field of very few blocks
        return unit.gather(2, places[:, None].expand(-1, unit.shape[1], -1))

    cuts = [max(1, round(many * share)) for share in _SHARES]
    classes = [gather_spectra(part) for part in order.tensor_split(cuts, dim=1)]
    flat = order[:, : max(2, many // 2)]
    by_grey = means.gather(1, flat).argsort(1)
    halves = [flat.gather(1, part) for part in by_grey.tensor_split(2, dim=1)]
    halves = [part if part.shape[1] else flat for part in halves]
    step = means.gather(1, halves[1]).mean(1) - means.gather(1, halves[0]).mean(1)
    features = [part.mean(2) for part in classes]
    # 1e-4: so that the derivative is finite if all blocks are equal
    features += [(part.var(2, correction=0) + 1e-4).sqrt() for part in classes]
    features += [gather_spectra(part).mean(2) for part in halves]
    return torch.cat([*features, step[:, None]], dim=1)


class _ReplicatedBlock(DilatedBlock):
    """Dilated block with replicated borders and a smooth rectifier."""

    rectifier = staticmethod(functional.gelu)

    def __init__(self, width: int) -> None:
        super().__init__(width, edges="replicate")


def _compute_log_energies(energies: Tensor) -> Tensor:
    """Compute log energies, scaled to order unity."""
    return 0.3 * (energies + _MIN_ENERGY).log()


class TransmissionNet(nn.Module):
    """Network that estimates haze from the means and energies of blocks."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2 * (1 + _COARSE), width, 1)
        self.down = nn.ModuleList(
            nn.Sequential(_ReplicatedBlock(width), _ReplicatedBlock(width))
            for _ in range(_LEVELS)
        )
        self.all = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.up = nn.ModuleList(_ReplicatedBlock(width) for _ in range(_LEVELS - 1))
        self.leave = init_layer_zero(nn.Conv2d(width, 2, 1))

    def forward(self, means: Tensor, energies: Tensor) -> Haze:
        """Estimate the haze; `means` (B, 1, h, w), `energies` (B, 4, h, w)."""
        inputs = torch.cat([means, _compute_log_energies(energies)], dim=1)
        overall = inputs.mean((-1, -2), keepdim=True)
        x = self.enter(torch.cat([inputs - overall, overall.expand_as(inputs)], dim=1))
        skips: list[Tensor] = []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        x = self.down[-1](x)
        x = x + self.all(x.mean((-1, -2)))[..., None, None]
        for level, fine in zip(self.up, reversed(skips), strict=True):
            x = functional.interpolate(x, size=fine.shape[-2:], mode="bilinear")
            x = level(x + fine)
        output = self.leave(x)
        log_gain = _LARGEST_LOG * torch.tanh(output[:, :1] / _LARGEST_LOG)
        # normalise the transmission to a mean of 1: even dimming is not haze
        transmission = (-log_gain).exp()
        share = transmission.mean((-1, -2), keepdim=True)
        # the lower its transmission, the closer a block is to the airlight, the grey
        # level at zero transmission: extrapolated by a line of means over transmission
        grey = means.mean((-1, -2), keepdim=True)
        away = transmission / share - 1
        slope = ((means - grey) * away).mean((-1, -2), keepdim=True)
        slope = slope / (away.square().mean((-1, -2), keepdim=True) + _MIN_PASSED**2)
        airlight = grey - slope + output[:, 1:].mean((-1, -2), keepdim=True)
        return Haze(log_gain + share.log(), airlight)


class SurveyNet(nn.Module):
    """Network that estimates haze, noise and blur from a field's blocks.

    Haze is estimated at four scales, with `width` channels; noise and blur from a
    summary of the spectra of all blocks, regardless of position.
    """

    cosines: Tensor
    bands: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        with torch.device("cpu"):  # on "meta", hypot would load torch's compiler, 1 s
            # the orthonormal DCT matrix for one line of a block, (16, 16)
            n = torch.arange(BLOCK, dtype=torch.float64)
            waves = torch.cos(torch.pi / BLOCK * (n + 0.5) * n[:, None])
            waves = waves * (2 / BLOCK) ** 0.5
            waves[0] = BLOCK**-0.5
            # weights that average a block's 256 energies into bands, (16, 256): twelve
            # rings of frequency, the finest along each axis only, and the finest of one
            # axis with the coarse of the other, where streaks and slow detectors appear
            y, x = torch.meshgrid(2 * [torch.arange(BLOCK)], indexing="ij")
            radius = torch.hypot(y.double(), x.double())
            rings = itertools.pairwise(_EDGES)
            masks = [(radius >= low) & (radius < high) for low, high in rings]
            masks += [(x == 0) & (y >= _LOW), (y == 0) & (x >= _LOW)]
            masks += [
                (y >= _HIGH) & (x > 0) & (x <= _LOW),
                (x >= _HIGH) & (y > 0) & (y <= _LOW),
            ]
            bands = torch.stack([m.flatten() / m.sum() for m in masks]).float()
        self.register_buffer("cosines", waves.float(), persistent=False)
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("usual", torch.tensor(_USUAL), persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD), persistent=False)
        self.veil = TransmissionNet(width)
        input_count = (2 * (len(_SHARES) + 1) + 2) * len(bands) + 1
        self.name = nn.Sequential(
            nn.Linear(input_count, _NAMING),
            nn.GELU(),
            nn.Linear(_NAMING, _NAMING),
            nn.GELU(),
            init_layer_zero(nn.Linear(_NAMING, len(FAULTS))),
        )

    def compute_statistics(self, field: Tensor) -> Tensor:
        """Compute the mean and energies of every block: (B, 21, H / 16, W / 16).

        The mean, the spectrum in 16 bands, and the energy in four bands from
        differences of means, for images (B, 1, H, W) scaled so that the percentiles are
        0 and 1; sides are multiples of 16.
        """
        blocks = field.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)[:, 0]
        spectrum = (self.cosines @ blocks @ self.cosines.T).square().flatten(-2)
        bands = (spectrum @ self.bands.T).permute(0, 3, 1, 2)
        mean = blocks.mean((-1, -2))[:, None]
        energies = []
        for band in range(_COARSE):  # from fine to coarse: means over 1, 2, 4, 8, 16 px
            coarse = functional.avg_pool2d(field, 2)
            squares = functional.avg_pool2d(field.square(), 2) - coarse.square()
            side = BLOCK >> (band + 1)
            energies.append(functional.avg_pool2d(squares.clamp_min(0), side))
            field = coarse
        return torch.cat([mean, bands, *energies], dim=1)

    def estimate_haze(self, statistics: Tensor) -> Haze:
        """Estimate the haze of fields from their `statistics`."""
        haze: Haze = self.veil(statistics[:, :1], statistics[:, 1 + len(self.bands) :])
        return haze

    def estimate_faults(self, statistics: Tensor) -> Tensor:
        """Estimate noise and blur (B, 9), as in `core.FAULTS`, from `statistics`."""
        mean, spectrum = statistics[:, 0], statistics[:, 1 : 1 + len(self.bands)]
        logs = _compute_log_energies(spectrum)
        is_blank = _find_blank_blocks(logs)
        summary = _summarise_blocks(mean.flatten(1), logs.flatten(2), is_blank)
        names: Tensor = self.name(summary)
        return self.usual + self.spread * names

    def average_rings(self, statistics: Tensor) -> Tensor:
        """Average the power at `RINGS` over all blocks without a data bar, (B, 12)."""
        power = statistics[:, 1 : 1 + len(self.bands)]
        is_blank = _find_blank_blocks(_compute_log_energies(power))
        has_signal = 1 - is_blank.float()[:, None]
        rings = (power[:, : len(RINGS)].flatten(2) * has_signal).sum(2)
        return rings / has_signal.sum(2).clamp_min(1)

    def forward(self, statistics: Tensor) -> SurveyResult:
        """Estimate haze, noise and blur of fields from their `statistics`."""
        return SurveyResult(
            self.estimate_haze(statistics),
            self.estimate_faults(statistics),
            self.average_rings(statistics),
        )
