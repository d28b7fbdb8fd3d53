"""Default restorer: a survey of a field's faults, and a network that corrects them.

`SurveyNet` analyses the whole field once, and estimates the haze and nine numbers for
noise and blur (`core.FAULTS`). `ThreeScaleNet` restores the dehazed field tile by tile.
The numbers condition it in two ways: the field after Wiener filters computed from them
is an additional input, and they scale and shift each block's first layer, channel by
channel. For one field this yields a plain network with its own weights
(`InformedRestorer.build_restorer`), so that conditioning takes no time per tile, and
tiles agree.

It estimates two corrections of an image, the noise and the detail lost by blur, each
with a weight that the user may change.

If the blur is known, a second network of such layers may be used instead, the
sharpener. Its filters are computed from that blur and the field's own spectrum.
Untrained it is just a Wiener filter, to which it learns a correction.

=======  ==========================================================  ==========
part     layers of `ThreeScaleNet`                                      resolution
=======  ==========================================================  ==========
stem     Wiener filters, pixel-unshuffle 2, 3x3 convolution          1/2
down     residual blocks, 2x2 stride-2 convolution, twice            1/2, 1/4
bottom   residual blocks                                             1/8
up       1x1 convolution, pixel-shuffle 2, sum, residual blocks      1/4, 1/2
head     3x3 convolution to 16 x `corrections`, pixel-shuffle        1
=======  ==========================================================  ==========

A correction is the sum of an image predicted by the network and, at each pixel, a share
of the change by each filter; so the network can apply a linear filter, and decide
where. There is no normalisation layer, and the head starts at zero: an untrained
network returns its input. All numbers are our choice.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr import core
from napari_semsr.models.architectures import two_scale, wiener
from napari_semsr.models.architectures.blocks import (
    disable_autocast,
    init_layer_zero,
    run_in_full_precision,
)
from napari_semsr.models.devices import has_float64, to_device


def compute_wiener_filters(condition: Tensor, rings: Tensor) -> Tensor:
    """Compute packed Wiener filters from `condition` (B, 9) and `rings` (B, 12)."""
    device = condition.device
    with torch.no_grad(), disable_autocast(condition):
        condition, rings = _convert_to_float64(condition), _convert_to_float64(rings)
        noise = (condition.float()[:, 0].exp() - core.NO_NOISE).clamp(0, 0.5)
        frequency = to_device(torch.tensor(two_scale.RINGS), condition.device)
        blur, measured = _extract_blur(condition), (frequency, rings.float())
        taps = wiener.compute_wiener_taps(noise, blur, measured)
    return wiener.pack_taps(taps.to(device))


def _convert_to_float64(values: Tensor) -> Tensor:
    """Convert values to double precision, on the CPU if unsupported by the device."""
    return values if has_float64(values.device) else values.cpu()


def _extract_blur(condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the blur widths along rows and columns and their correlation, (B,)."""
    blur = condition.float()
    rows, columns = (
        (blur[:, 5:7].exp() - core.NO_BLUR).clamp(0, core.WIDEST_BLUR).unbind(1)
    )
    return rows, columns, blur[:, 7].clamp(-0.95, 0.95)


def replace_blur(estimate: Tensor, true: Tensor) -> Tensor:
    """Replace the estimated blur with the known blur, or with none if unknown.

    Both (B, 9) in the order of `core.FAULTS`, NaN where the true value is unknown. The
    rim is set to that of a Gaussian, as users know no more.
    """
    true_blur = torch.where(torch.isfinite(true), true, 0.0)[:, 5:8]
    sharp = math.log(core.NO_BLUR)
    widths = torch.where(torch.isfinite(true[:, 5:7]), true_blur[:, :2], sharp)
    parts = [estimate[:, :5], widths, true_blur[:, 2:], 0 * estimate[:, 8:]]
    return torch.cat(parts, dim=1)


def compute_sharpening_filters(
    condition: Tensor, spectrum: Tensor, noise: Tensor | None = None
) -> Tensor:
    """Compute packed sharpening filters for a `condition` (B, 9)."""
    device = condition.device
    with torch.no_grad(), disable_autocast(condition):
        spectrum = _convert_to_float64(spectrum)
        blur = _extract_blur(_convert_to_float64(condition))
        noise = None if noise is None else _convert_to_float64(noise)
        taps = wiener.compute_sharpening_taps(spectrum.float(), blur, noise)
    return wiener.pack_taps(taps.to(device))


class ThreeScaleNet(nn.Module):
    """Residual network without normalisation at 1/2, 1/4 and 1/8 of the resolution.

    `widths`: channels at each; `down`, `up`: residual blocks at each, on the way down,
    including the lowest, and on the way up; `corrections`: number of predicted
    corrections.
    """

    filters: Tensor  # (48, 16, 7, 7), packed Wiener filters of the field
    filter_shares: Tensor | None  # (3, 1, 1), fixed shares of the filters' changes
    most: Tensor | None  # (corrections, 1, 1), limits of further changes

    scale = 1
    stride = 8
    leaves_out = True  # `forward` has the argument `keep`

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 160),
        down: Sequence[int] = (1, 2, 3),
        up: Sequence[int] = (2, 2),
        corrections: int = 1,
    ) -> None:
        super().__init__()
        self.corrections = corrections
        first, second, third = widths

        def build_level(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(two_scale.DilatedBlock(width) for _ in range(count))

        size = wiener.STEP**2
        filters = torch.zeros(wiener.FILTERS * size, size, 7, 7)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("filter_shares", None, persistent=False)
        self.register_buffer("most", None, persistent=False)
        self.stem = nn.Conv2d(4 * (1 + wiener.FILTERS), first, 3, padding=1)
        levels = (
            zip(widths, down, strict=True),
            zip((second, first), up[::-1], strict=True),
        )
        self.down, self.up = (
            nn.ModuleList(itertools.starmap(build_level, n)) for n in levels
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in ((first, second), (second, third))
        )
        self.enlarge = nn.ModuleList(
            nn.Conv2d(a, 4 * b, 1) for a, b in ((third, second), (second, first))
        )
        output_count = 4 * corrections * (1 + wiener.FILTERS)
        self.head = init_layer_zero(nn.Conv2d(first, output_count, 3, padding=1))

    def list_blocks(self) -> list[two_scale.DilatedBlock]:
        """Return all residual blocks in execution order."""
        blocks = (part for level in (*self.down, *self.up) for part in level.children())
        return [part for part in blocks if isinstance(part, two_scale.DilatedBlock)]

    def estimate_corrections(
        self,
        planes: Tensor,
        condition: Sequence[Tensor] | None = None,
        keep: core.Box | None = None,
    ) -> Tensor:
        """Estimate corrections for images.

        `planes` (B, 4, H, W), images and their Wiener-filtered versions; `condition`
        (B, 2, C) for each block, scale minus 1 and shift of its first layer; returns
        (B, corrections, H, W), or the part of it in `keep`.
        """
        turn = None if condition is None else iter(condition)
        whole = core.Box.from_shape((planes.shape[2], planes.shape[3]))
        needs: Iterator[core.Box | None] = itertools.repeat(None)
        if keep is not None:
            needs = iter(self._compute_input_regions(keep))

        def run_level(level: nn.Module, x: _FeatureMap, grid: int) -> _FeatureMap:
            for block in level.children():
                x = x.crop(next(needs), grid)
                x = x.replace_map(block(x.map, turn))
            return x

        fine = run_in_full_precision(self.stem, functional.pixel_unshuffle(planes, 2))
        x = _FeatureMap(fine, whole, 2)
        parts: list[_FeatureMap] = []
        for level, shrink in zip(self.down[:-1], self.shrink, strict=True):
            x = run_level(level, x, self.stride)
            parts.append(x)
            x = x.replace_map(shrink(x.map).to(x.map.dtype), 2 * x.step)
        x = run_level(self.down[-1], x, self.stride)
        for level, enlarge in zip(self.up, self.enlarge, strict=True):
            x = x.replace_map(functional.pixel_shuffle(enlarge(x.map), 2), x.step // 2)
            need = None if keep is None else x.box
            skip = parts.pop().crop(need, x.step).map
            x = x.replace_map(two_scale.add_features(skip, x.map))
            x = run_level(level, x, x.step)
        x = x.crop(next(needs), x.step)
        output = run_in_full_precision(self.head, x.map)
        maps = x.replace_map(functional.pixel_shuffle(output, 2), 1).crop(keep, 1).map
        maps = maps.reshape(len(maps), self.corrections, -1, *maps.shape[-2:])
        kept_planes = planes if keep is None else planes[..., *keep.slices]
        changes = (kept_planes[:, 1:] - kept_planes[:, :1])[:, None]
        corrections: Tensor = maps[:, :, 0] + (maps[:, :, 1:] * changes).sum(2)
        return corrections

    def _compute_input_regions(self, keep: core.Box) -> list[core.Box]:
        """Compute the input regions that each block and the head need for an output."""
        need = _snap_box_to_grid(keep, 2).grow(2)
        needs = [need]
        steps = [2 ** (1 + n) for n in range(len(self.down))]
        levels = zip((*self.down, *self.up), (*steps, *steps[-2::-1]), strict=True)
        for level, step in reversed(list(levels)):
            need = _snap_box_to_grid(need, step)
            for _ in level.children():
                need = need.grow(2 * step)  # two layers of 3 x 3
                needs.append(need)
        return needs[::-1]

    def forward(self, x: Tensor, keep: core.Box | None = None) -> Tensor:
        """Add the estimated corrections to images.

        `x` (B, 1, H, W); returns (B, 1, H, W), or the part of it in `keep`. Each layer
        then computes only what later layers need for that part.
        """
        planes = torch.cat([x, wiener.filter_images(x, self.filters)], dim=1)
        corrections = self.estimate_corrections(planes, keep=keep)
        inner_planes = planes if keep is None else planes[..., *keep.slices]
        image = inner_planes[:, :1]
        if self.filter_shares is not None and self.most is not None:
            corrections = corrections.clamp(-self.most, self.most)
            changes = (inner_planes[:, 1:] - image) * self.filter_shares
            corrections = torch.cat([changes, corrections], dim=1)
        # limits the output for inputs unlike the training data
        most = 1 + image.abs()
        return image + corrections.sum(1, keepdim=True).clamp(-most, most)


class _FeatureMap(NamedTuple):
    """Feature map with its position in the window."""

    map: Tensor  # (B, C, h, w)
    box: core.Box  # in pixels of the window
    step: int  # pixels of the window per pixel of the map

    def crop(self, need: core.Box | None, grid: int) -> "_FeatureMap":
        """Crop to a region extended to the grid; None keeps the whole map."""
        if need is None:
            return self
        box = _snap_box_to_grid(need, grid).intersection(self.box)
        y0, y1, x0, x1 = (v // self.step for v in astuple(box.relative_to(self.box)))
        return _FeatureMap(self.map[..., y0:y1, x0:x1], box, self.step)

    def replace_map(self, output: Tensor, step: int | None = None) -> "_FeatureMap":
        return _FeatureMap(output, self.box, step or self.step)


def _snap_box_to_grid(box: core.Box, grid: int) -> core.Box:
    """Extend a box outwards to the grid."""
    y0, x0 = (v // grid * grid for v in (box.y0, box.x0))
    y1, x1 = (-(-v // grid) * grid for v in (box.y1, box.x1))
    return core.Box(y0, y1, x0, x1)


class Sharpener(nn.Module):
    """Network for a known blur that learns a correction to a Wiener filter.

    The less noise a field has, the smaller is the share of the correction that is
    applied: without noise the filter is nearly optimal, and apparent grain belongs to
    the sample. No pixel is corrected by more than a share of the noise, so that for a
    wrong blur the error is that of the filter. `widths`, `down`, `up` as in
    `ThreeScaleNet`.
    """

    start: Tensor  # bias of the head for which the output is that of the filters

    def __init__(
        self, widths: Sequence[int], down: Sequence[int], up: Sequence[int]
    ) -> None:
        super().__init__()
        self.shape = (tuple(widths), tuple(down), tuple(up))
        self.local = ThreeScaleNet(*self.shape, corrections=2)
        self.embed, self.tell = _build_condition_layers(self.local)
        shares = torch.zeros(2, 1 + wiener.FILTERS)
        shares[0, 3] = 1.0  # the noise is the change by the filter against noise
        shares[1, 1], shares[1, 3] = 1.0, -1.0
        start = shares.flatten().repeat_interleave(4)  # one for each pixel
        self.register_buffer("start", start, persistent=False)
        with torch.no_grad():
            self.local.head.get_parameter("bias").copy_(start)

    def limit_corrections(
        self, corrections: Tensor, planes: Tensor, gate: "Gate"
    ) -> Tensor:
        """Scale and limit the network's corrections relative to the filters'.

        `corrections` (B, 2, H, W); `planes` (B, 4, H, W).
        """
        quiet = planes[:, 3:] - planes[:, :1]
        filters = torch.cat([quiet, planes[:, 1:2] - planes[:, 3:]], dim=1)
        share, most = (part[:, None, None, None] for part in gate)
        return filters + (share * (corrections - filters)).clamp(-most, most)

    def build_network(
        self, filters: Tensor, gate: "Gate", shares: Tensor
    ) -> ThreeScaleNet:
        """Build a plain network for one field, without conditioning.

        `shares` (2,), the weights of the two corrections.
        """
        plain = ThreeScaleNet(*self.shape, corrections=2)
        state = dict(self.local.state_dict())
        state["head.bias"] = state["head.bias"] - self.start
        for part in _HEAD:
            weighted = _apply_correction_weights(state[part], gate.share * shares)
            state[part] = weighted.flatten(0, 1)
        plain.load_state_dict(state)
        denoise, deblur = shares.unbind()
        changes = torch.stack([deblur, torch.zeros_like(deblur), denoise - deblur])
        plain.filters, plain.filter_shares = filters, changes[:, None, None]
        plain.most = (gate.most * shares)[:, None, None]
        return plain


_HEAD = "head.weight", "head.bias"


def _apply_correction_weights(part: Tensor, shares: Tensor) -> Tensor:
    """Weight a head's corrections, in the channel order of pixel-shuffle."""
    both: Tensor = part.reshape(2, -1, *part.shape[1:])
    return both * shares.reshape(2, *[1] * part.ndim)


class Gate(NamedTuple):
    """Limits of a sharpener's correction, (B,) each."""

    share: Tensor
    most: Tensor  # largest correction of a pixel, over the range

    @classmethod
    def from_spectrum(cls, spectrum: Tensor, noise: Tensor | None = None) -> "Gate":
        """Compute the limits from a field's spectrum, or from a known noise level."""
        floor = wiener.estimate_white_noise_floor
        power = floor(spectrum) if noise is None else noise.square()
        return cls(power / (power + _FAINT**2), _MAX_CHANGED * power.sqrt())


def _build_condition_layers(
    local: ThreeScaleNet,
) -> tuple[nn.Sequential, nn.ModuleList]:
    """Build the layers that compute scales and shifts for a local network's blocks."""
    embed = nn.Sequential(
        nn.Linear(len(core.FAULTS), _CONDITION_WIDTH),
        nn.GELU(),
        nn.Linear(_CONDITION_WIDTH, _CONDITION_WIDTH),
        nn.GELU(),
    )
    tell = [
        init_layer_zero(nn.Linear(_CONDITION_WIDTH, 2 * block.first.out_channels))
        for block in local.list_blocks()
    ]
    return embed, nn.ModuleList(tell)


_FAINT = 1.5 / 255  # noise, over the range, at which half of a correction is used
# standard deviations of noise; the best of 0.5, 1 and 2 on development images
_MAX_CHANGED = 0.5
_CONDITION_WIDTH = 64  # channels of the embedded condition


class InformedRestorer(nn.Module):
    """Combination of `SurveyNet` and a local network conditioned on its estimates.

    `widths`, `down` and `up` are those of `ThreeScaleNet`, `survey_width` is the number
    of channels of `SurveyNet`.

    `survey` analyses the whole field once. `local` restores tiles of the dehazed field;
    its own weights are those for a field with average faults, and it predicts noise and
    loss by blur separately. If the blur is known, a `Sharpener` with the widths
    `sharpener` replaces it, which has the same receptive field.
    """

    scale = 1
    stride = two_scale.BLOCK

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 160),
        down: Sequence[int] = (1, 2, 3),
        up: Sequence[int] = (2, 2),
        survey_width: int = 32,
        sharpener: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.survey = two_scale.SurveyNet(survey_width)
        self.shape = (tuple(widths), tuple(down), tuple(up))
        self.local = ThreeScaleNet(*self.shape, corrections=2)
        self.embed, self.tell = _build_condition_layers(self.local)
        self.sharpener = Sharpener(sharpener, down, up) if sharpener else None

    def analyse_field(self, field: Tensor) -> two_scale.SurveyResult:
        """Analyse whole fields (B, 1, H, W) in fp32.

        Grey levels are scaled so that the percentiles are 0 and 1; sides are multiples
        of 16.
        """
        with disable_autocast(field):
            statistics = self.survey.compute_statistics(field.float())
            survey: two_scale.SurveyResult = self.survey(statistics)
        return survey

    def stack_planes(self, clear: Tensor, condition: Tensor, rings: Tensor) -> Tensor:
        """Stack images with their Wiener-filtered versions: (B, 4, H, W).

        These are the inputs of the local part. The images (B, 1, H, W) are dehazed, the
        condition (B, 9) is in the order of `core.FAULTS`, `rings` (B, 12) is the power
        at `RINGS`. No gradient passes through the filters.
        """
        filters = compute_wiener_filters(condition, rings)
        return torch.cat([clear, wiener.filter_images(clear.detach(), filters)], dim=1)

    def stack_sharpening_planes(
        self, clear: Tensor, condition: Tensor
    ) -> tuple[Tensor, Gate]:
        """Stack images with their sharpener-filtered versions: (B, 4, H, W).

        As `planes`, but uses only the blur of the condition; also returns the limits of
        the correction.
        """
        fixed_clear = clear.detach()
        spectrum = wiener.compute_power_spectrum(fixed_clear)
        filters = compute_sharpening_filters(condition, spectrum)
        planes = torch.cat([clear, wiener.filter_images(fixed_clear, filters)], dim=1)
        return planes, Gate.from_spectrum(spectrum)

    def compute_conditions(
        self, condition: Tensor, *, sharpen: bool = False
    ) -> list[Tensor]:
        """Compute the conditions for the blocks of the local network or the sharpener.

        Returns scales minus 1 and shifts (B, 2, C), one for each block, for a condition
        (B, 9) in the order of `core.FAULTS`.
        """
        part: InformedRestorer | Sharpener = self
        if sharpen and self.sharpener is not None:
            part = self.sharpener
        with disable_autocast(condition):
            unit = (condition.float() - self.survey.usual) / self.survey.spread
            embedding = part.embed(unit)
            return [layer(embedding).unflatten(1, (2, -1)) for layer in part.tell]

    @torch.no_grad()
    def build_restorer(
        self,
        condition: Tensor,
        rings: Tensor,
        *,
        denoise: float = 1.0,
        deblur: float = 1.0,
        spectrum: Tensor | None = None,
        noise: float | None = None,
    ) -> ThreeScaleNet:
        """Build the network that restores tiles of a dehazed field.

        From the condition (9,) in the order of `core.FAULTS`, the power (12,) at
        `RINGS`, and the weights of the two corrections. With the field's `spectrum`
        (64, 33), from `compute_power_spectrum`, the sharpener is used; `noise` is the
        standard deviation of the noise, if that is known in addition to the blur.
        """
        shares = torch.tensor([denoise, deblur], device=condition.device)
        if spectrum is not None and self.sharpener is not None:
            noise_tensor = None if noise is None else shares.new_tensor([noise])
            measured = spectrum[None], noise_tensor
            filters = compute_sharpening_filters(condition[None], *measured)
            gate = Gate.from_spectrum(*measured)
            local = self.sharpener.build_network(filters, gate, shares)
        else:
            local = ThreeScaleNet(*self.shape)
            local.filters = compute_wiener_filters(condition[None], rings[None])
            state = dict(self.local.state_dict())
            for part in _HEAD:
                state[part] = _apply_correction_weights(state[part], shares).sum(0)
            local.load_state_dict(state)
        if not local.filters.isfinite().all():
            msg = "no Wiener filter could be computed from the field's spectrum"
            raise RuntimeError(msg)
        numbers = self.compute_conditions(condition[None], sharpen=spectrum is not None)
        for block, ((scale, shift),) in zip(local.list_blocks(), numbers, strict=True):
            block.first.weight.mul_(1 + scale[:, None, None, None])
            block.first.bias.mul_(1 + scale).add_(shift)  # type: ignore[union-attr]
        return local.train(self.training)

    def forward(self, field: Tensor, faults: Tensor | None = None) -> Tensor:
        """Restore whole fields (B, 1, H, W), keeping their grey scale.

        With `faults` (B, 9), in the order of `core.FAULTS`, the sharpener is used with
        their blur.
        """
        survey, sharpener = self.analyse_field(field), self.sharpener
        haze, condition = survey.haze, survey.condition
        if faults is None or sharpener is None:
            clear = two_scale.dehaze(field, haze)
            planes = self.stack_planes(clear, condition, survey.rings)
            numbers = self.compute_conditions(condition)
            corrections = self.local.estimate_corrections(planes, numbers)
        else:
            clear = two_scale.dehaze(field, haze.drop_uncertain())
            condition = replace_blur(condition, faults)
            planes, gate = self.stack_sharpening_planes(clear, condition)
            numbers = self.compute_conditions(condition, sharpen=True)
            corrections = sharpener.local.estimate_corrections(planes, numbers)
            corrections = sharpener.limit_corrections(corrections, planes, gate)
        return clear + corrections.sum(1, keepdim=True)
