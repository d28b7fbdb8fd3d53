"""CycleGAN training of two generators on unpaired images; one may be a blur.

The cycle runs from the degraded images and from the clear ones (the systems of Sun and
of Gao). With a kernel, the second generator is a convolution (Lim et al. 2020,
arXiv:1908.09414). If the kernel is fixed rather than learnt, there is no discriminator
of degraded images, since nothing would be trained by it.
"""

import functools
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from napari_semsr import core
from napari_semsr.io import read
from napari_semsr.models import build_discriminator, build_network
from napari_semsr.simulation import create_gaussian_kernel
from napari_semsr.training import validation
from napari_semsr.training.adversarial import (
    AdversarialLearner,
    ImageBuffer,
    compute_discriminator_step_loss,
    generator_loss,
)
from napari_semsr.training.learner import PIXEL_LOSSES, freeze_weights
from napari_semsr.training.patches import open_pair_store, stretch_contrast
from napari_semsr.training.recipe import EdgeOperator, KernelOptions, Recipe
from napari_semsr.training.validation import Pairs

# Evaluation of an image translation without ground truth.
#
# A run on unpaired images has held-out degraded fields and held-out clear ones of other
# areas. At each spatial frequency they determine three quantities: the expected power
# of the ground truth of a field, from the ratio of the mean power of clear and degraded
# images; the power of the output; and the correlation of the output with its input,
# which invented structure does not have. Together they give an expected error:
#
#     E(f) = P_y + P_g - 2 c sqrt(P_y P_g),  with P_y = P_x R,  R = <P_high> / <P_low>
#
# of ground truth y, output g and input x, ``c`` the correlation of g with x in a ring,
# and means of logarithms in R. It is valid if images differ only by blur, haze and grey
# scale. If their contrast differs in kind, as between light and electrons, the phases
# of the ground truth are not those of the input, and it only ranks models.
#
# Spectra or grey-level patches alone rank checkpoints wrongly: invented texture makes
# both more similar to clear images (measured on 30 checkpoints).

EXPECTED_GAIN = "expected_gain_db"
"""Metric that selects the best checkpoint without ground truth."""

_BLOCK_PX = 128
_RINGS = 24  # over half a cycle per pixel: 2.7 frequencies of a block wide
_PATCH_PX, _PATCHES, _VIEWS = 7, 400, 64
_TINY = 1e-12  # added to the power of a constant field
_SEED = 3


Fields = tuple[Sequence[core.FloatArray], Sequence[core.FloatArray]]
"""Degraded images, and clear images of other areas."""


def collect_unpaired_fields(recipe: Recipe, pairs: Pairs) -> list[Fields]:
    """Return the images for the expected gain, or an empty list if it is not needed.

    They are held-out patches of an unpaired store, or, if the recipe's measure is the
    expected gain, degraded images of one half of `pairs` with clear ones of the other.
    """
    if pairs:
        low, high = (
            [np.asarray(getattr(pair, side), float) for pair in pairs]
            for side in ("low", "high")
        )
        is_used = recipe.measure == EXPECTED_GAIN and len(pairs) > 1
        return [(low[n::2], high[1 - n :: 2]) for n in (0, 1)] if is_used else []
    if recipe.data.pairs is None or not recipe.is_unpaired:
        return []
    store = open_pair_store(recipe, 1)
    if store.is_paired:
        return []
    name = "validation" if store.counts["validation"] else "train"
    sides = (validation.read_stored_patches(store, name, n) for n in (0, 1))
    low, high = (
        [validation.WHITE * patch.astype(float) for patch in side] for side in sides
    )
    return [(low, high)]


class UnpairedValidator:
    """Evaluation of networks on degraded images and clear images of other areas."""

    def __init__(
        self, low: Sequence[core.FloatArray], high: Sequence[core.FloatArray]
    ) -> None:
        self.low = low
        side = min(_BLOCK_PX, *(n for field in (*low, *high) for n in field.shape))
        self._rings = _RingSpectrum(side)
        target_power = np.mean(
            [self._compute_log_power(field) for field in high], axis=0
        )
        input_power = np.mean([self._compute_log_power(field) for field in low], axis=0)
        self._target_power = target_power
        self._lacking = np.exp(target_power - input_power)
        self._patches = np.concatenate(
            [_crop_patches(stretch_contrast(field)) for field in high]
        )

    def evaluate(
        self, network: nn.Module, back: nn.Module | None = None
    ) -> dict[str, float]:
        """Evaluate a network and, if `back` is given, the cycle back to its input."""
        gains, spectra, patches, cycle_gains = [], [], [], []
        for field in self.low:
            output = validation.restore_field(network, field).astype(float)
            x, g = stretch_contrast(field), stretch_contrast(output)
            power_x = self._rings.cross_power(x, x)
            power_g = self._rings.cross_power(g, g)
            expected_power = power_x * self._lacking
            follows = self._rings.cross_power(x, g) / np.sqrt(power_x * power_g)
            before = (np.sqrt(expected_power) - np.sqrt(power_x)) ** 2
            cross = follows * np.sqrt(expected_power * power_g)
            after = expected_power + power_g - 2 * cross
            weight = self._rings.counts
            errors = [float(np.sum(e * weight)) + _TINY for e in (before, after)]
            gains.append(10 * np.log10(errors[0] / errors[1]))
            spectra.append(np.log(power_g))
            patches.append(_crop_patches(g))
            if back is not None:
                again = validation.restore_field(back, output.astype(np.float32))
                cycle_gains.append(float(np.abs(again - field).mean()))
        apart = np.abs(np.mean(spectra, axis=0) - self._target_power).mean()
        # sliced Wasserstein distance of the patches, relative to the target's spread
        rng = np.random.default_rng(_SEED)
        views = rng.normal(size=(self._patches.shape[1], _VIEWS))
        views -= views.mean(0)
        views /= np.linalg.norm(views, axis=0)
        own = np.concatenate(patches)
        count = min(len(own), len(self._patches))
        shares = (np.arange(count) + 0.5) / count
        a, b = (
            np.quantile(part @ views, shares, axis=0) for part in (own, self._patches)
        )
        spread = max(np.abs(b - b.mean(0)).mean(), _TINY)
        all_figures = {
            EXPECTED_GAIN: float(np.mean(gains)),
            "spectrum_db": float(10 / np.log(10) * apart),
            "patches": float(np.abs(a - b).mean() / spread),
        }
        if cycle_gains:
            all_figures["returned"] = float(np.mean(cycle_gains))
        return all_figures

    def _compute_log_power(self, field: core.FloatArray) -> core.FloatArray:
        unit = stretch_contrast(field)
        return np.asarray(np.log(self._rings.cross_power(unit, unit)))


class _RingSpectrum:
    """Mean power in spatial-frequency rings over half-overlapping blocks."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._window = np.outer(np.hanning(side), np.hanning(side))
        y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
        ring = (2 * np.hypot(y, x) * _RINGS).astype(int)
        self._ring = np.minimum(ring, _RINGS).ravel()  # the last: the corners
        self.counts = np.bincount(self._ring, minlength=_RINGS + 1)[:_RINGS]

    def cross_power(
        self, first: core.FloatArray, second: core.FloatArray
    ) -> core.FloatArray:
        """Return the mean cross-power of two images over blocks, per ring (24,)."""
        total = np.zeros(_RINGS + 1)
        rows, columns = (
            range(0, n - self.side + 1, max(1, self.side // 2)) for n in first.shape
        )
        for y, x in ((y, x) for y in rows for x in columns):
            box = np.s_[y : y + self.side, x : x + self.side]
            a, b = (
                np.fft.rfft2((part[box] - part[box].mean()) * self._window)
                for part in (first, second)
            )
            cross = np.real(a * np.conj(b)).ravel()
            total += np.bincount(self._ring, cross, _RINGS + 1)
        mean = total[:_RINGS] / (len(rows) * len(columns))
        return np.asarray(mean + _TINY if first is second else mean)


def _crop_patches(field: core.FloatArray) -> core.FloatArray:
    """Cut patches (400, 49) at random positions."""
    rng = np.random.default_rng(_SEED)
    rows, columns = (rng.integers(0, n - _PATCH_PX + 1, _PATCHES) for n in field.shape)
    cut = [
        field[y : y + _PATCH_PX, x : x + _PATCH_PX].ravel()
        for y, x in zip(rows, columns, strict=True)
    ]
    return np.stack(cut)


# A blur as a network of one convolution.
#
# A fixed kernel has no weights. A learnt one is positive and adds up to 1, as the
# point-spread function of incoherent light or of a beam is. Two sets of images of the
# same kind of sample, one blurred, determine the modulus of its transfer function: the
# mean power spectrum of the blurred set is that of the other times the modulus squared,
# plus the noise. The phase is left to the discriminator.

_LARGEST = 301  # side of a kernel; chosen
_LARGEST_FILE = 1 << 24  # bytes; chosen: twenty such kernels in the widest type
_RATE_FACTOR = 10.0  # learning rate of a kernel over that of networks
_FLOOR = 5e-5  # least value of the initial kernel, over its peak
_DECAY = 0.995  # of the running mean spectra
_EMPTY = 1e-9  # power of no signal at all


def create_kernel(options: KernelOptions) -> core.Float32Array:
    """Create or read a kernel (N, M) with odd sides, normalised to a sum of 1."""
    if options.file is None:
        kernel = create_gaussian_kernel(options.sigma_px, options.size_px)
        return np.asarray(kernel / kernel.sum(), dtype=np.float32)
    path = Path(options.file)
    try:
        if path.suffix == ".npy":
            contents = io.BytesIO(core.read_bytes(path, _LARGEST_FILE))
            kernel = np.load(contents, allow_pickle=False).astype(float)
        else:
            kernel = read(path).array().astype(float)
    except (OSError, ValueError) as error:
        msg = f"Cannot read the kernel {path.name}: {str(error).splitlines()[0]}."
        is_absent = isinstance(error, FileNotFoundError)
        raise core.ReadError(msg, code="file-missing" if is_absent else None) from error
    sides = kernel.shape
    odd = len(sides) == 2 and all(n % 2 for n in sides) and max(sides) <= _LARGEST
    if not odd or not np.isfinite(kernel).all() or kernel.sum() <= 0:
        msg = (
            f"A kernel must be a finite image with odd side lengths up to {_LARGEST} "
            f"px and a positive sum, got {' x '.join(map(str, sides))} px in "
            f"{path.name}."
        )
        raise core.ReadError(msg, code="kernel-invalid")
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


class Blur(nn.Module):
    """Blur by a kernel with reflected edges, adding noise during training."""

    kernel: Tensor

    def __init__(self, kernel: core.Float32Array, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        flipped_kernel = np.ascontiguousarray(kernel[::-1, ::-1])
        self.register_buffer("kernel", torch.from_numpy(flipped_kernel)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Blur images (B, 1, H, W), in fp32."""
        return _apply_blur(x, self.kernel, self.noise if self.training else 0.0)


class TrainableBlur(nn.Module):
    """Convolution with a kernel fitted to spectra of patches of `side` px."""

    mean_low: Tensor
    mean_high: Tensor
    window: Tensor

    def __init__(self, start: core.Float32Array, noise: float, side: int) -> None:
        super().__init__()
        self.noise, self.side = noise, side
        kernel = np.maximum(start[::-1, ::-1], _FLOOR * start.max())
        self.raised = nn.Parameter(torch.from_numpy(np.log(kernel) / _RATE_FACTOR))
        hann = torch.hann_window(side, periodic=False)
        window = hann[:, None] * hann
        self.register_buffer("window", window / window.square().mean().sqrt())
        for name in ("mean_low", "mean_high"):
            self.register_buffer(name, torch.zeros(side, side // 2 + 1))

    def kernel(self) -> Tensor:
        """Return the normalised kernel (1, 1, N, M), flipped for torch."""
        flat = torch.softmax(_RATE_FACTOR * self.raised.flatten(), 0)
        return flat.reshape(self.raised.shape)[None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Blur images (B, 1, H, W), in fp32."""
        return _apply_blur(x, self.kernel(), self.noise if self.training else 0.0)

    def spectrum_loss(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the loss between log spectra of degraded and blurred images."""
        self._update_mean_spectrum(low, self.mean_low)
        self._update_mean_spectrum(high, self.mean_high)
        transfer = torch.fft.rfft2(self.kernel()[0, 0], s=(self.side, self.side))
        expected_power = transfer.abs().square() * self.mean_high + self.noise**2
        measured_power = self.mean_low + _EMPTY
        log_ratio = (expected_power + _EMPTY).log() - measured_power.log()
        loss: Tensor = log_ratio.square().mean()  # chosen: weight 1, the cycle's is 10
        return loss

    @torch.no_grad()
    def _update_mean_spectrum(self, images: Tensor, mean: Tensor) -> None:
        """Update a mean power spectrum with a batch, in place."""
        varying = images[:, 0].float()
        varying = (varying - varying.mean((-1, -2), keepdim=True)) * self.window
        power = torch.fft.rfft2(varying, norm="ortho").abs().square().mean(0)
        # No branch on a value: it would make a GPU wait at every step.
        mean.copy_(torch.where(mean.any(), torch.lerp(power, mean, _DECAY), power))


def create_blur(options: KernelOptions, side: int) -> Blur | TrainableBlur:
    """Create the blur that a recipe specifies."""
    kernel = create_kernel(options)
    if not options.learnt:
        return Blur(kernel, options.noise)
    if max(kernel.shape) > side:
        msg = (
            f"A learnt kernel must not exceed the patch size of {side} px, got "
            f"{max(kernel.shape)} px."
        )
        raise core.OptionError(msg, code="kernel-too-large")
    return TrainableBlur(kernel, options.noise, side)


def _apply_blur(x: Tensor, kernel: Tensor, noise: float) -> Tensor:
    """Convolve in fp32 with reflected edges and add noise."""
    rows, columns = (n // 2 for n in kernel.shape[-2:])
    padded_image = functional.pad(x, (columns, columns, rows, rows), mode="reflect")
    with torch.autocast(x.device.type, enabled=False):
        blurred_image: Tensor = functional.conv2d(padded_image.float(), kernel)
    return _add_noise(blurred_image, noise)


def _add_noise(image: Tensor, noise: float) -> Tensor:
    """Add Gaussian noise of a standard deviation; 0 draws no random numbers."""
    return image + noise * torch.randn_like(image) if noise else image


Way = tuple[Tensor, Tensor, Tensor | None]
"""Cycled image, its input, and the other generator's output for that input."""


@contextmanager
def freeze_running_statistics(network: nn.Module) -> Iterator[None]:
    """Use batch statistics in batch norms without updating the running statistics."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    rates = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, rate in zip(norms, rates, strict=True):
            norm.momentum = rate


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


class CycleGan(AdversarialLearner):
    """Adversarial, cycle, identity and edge losses of two generators of scale 1."""

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        super().__init__(network, recipe, pairs)
        scale = int(getattr(network, "scale", 1))
        if scale != 1:
            msg = (
                "Training kind cycle-gan requires a network of scale 1, got scale "
                f"{scale}."
            )
            raise core.OptionError(msg, code="model-unsuitable")
        gan, side = self.gan, recipe.data.patch_px
        self.back: nn.Module
        if gan.kernel:
            self.back = create_blur(gan.kernel, side)
        else:
            architecture = gan.back_architecture or recipe.architecture
            options = gan.back_options or recipe.architecture_options
            self.back = build_network(architecture, options)
        has_kernel = gan.kernel is not None and not gan.kernel.learnt
        self.judges, self.histories = nn.ModuleDict(), nn.ModuleDict()
        for stream, name in enumerate(["high"] if has_kernel else ["high", "low"]):
            self.judges[name] = build_discriminator(
                gan.discriminator, gan.discriminator_options
            )
            seed = 2 * recipe.seed + stream
            self.histories[name] = ImageBuffer(gan.history, (1, side, side), seed)
        self.at_once = not any(isinstance(m, _BatchNorm) for m in network.modules())
        self._outputs: dict[str, Tensor] = {}
        self.start: Blur | None = None
        if gan.start_sigma_px > 0:
            weak = KernelOptions(sigma_px=gan.start_sigma_px)
            self.start = Blur(create_kernel(weak))
        fields = collect_unpaired_fields(recipe, pairs)
        self.unpaired_validators = [UnpairedValidator(*each) for each in fields]

    def generators(self) -> nn.Module:
        """Return both generators."""
        return nn.ModuleList((self.network, self.back))

    def discriminators(self) -> nn.Module:
        """Return the discriminators."""
        return self.judges

    def auxiliary_networks(self) -> nn.Module:
        """Return the second generator and the discriminators."""
        return nn.ModuleDict({"back": self.back, "judges": self.judges})

    def compute_generator_loss(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of both generators on images of different areas."""
        if step < self.gan.content_only_steps:
            # identity, or a weak blur and its inverse
            weak = None if self.start is None else self.start(high)
            image = self.network(high if weak is None else weak).float()
            warm_ups: list[Way] = [(image, high, image)]
            if self.gan.kernel is None:
                given_image, target = (low, low) if weak is None else (high, weak)
                image = self.back(given_image).float()
                warm_ups.append((image, target, image))
            return self._sum_losses(low, high, *warm_ups)
        clear, kept_high = self._translate_images(self.network, low, high)
        if self.gan.kernel is None:
            coarse, kept_low = self._translate_images(self.back, high, low)
        else:
            coarse, kept_low = self.back(high), None
        self._outputs = {"high": clear.detach(), "low": coarse.detach()}
        partly_detached = torch.lerp(coarse.detach(), coarse, self.gan.back_share)
        with freeze_running_statistics(self.generators()):
            back_low = self.back(_add_noise(clear, self.gan.cycle_noise))
            back_high = self.network(_add_noise(partly_detached, self.gan.cycle_noise))
        outputs = {"high": clear, "low": coarse}
        with freeze_weights(self.judges):
            scores = [judge(outputs[name]) for name, judge in self.judges.items()]
        with self.full_precision():
            kind = self.gan.adversarial
            factor = self.gan.generator_factor * self.gan.adversarial_weight
            adversarial = _sum(
                generator_loss(kind, score.float(), factor=factor) for score in scores
            )
        ways = (back_low.float(), low, kept_low), (back_high.float(), high, kept_high)
        return self._sum_losses(low, high, *ways, adversarial=adversarial)

    def _sum_losses(
        self, low: Tensor, high: Tensor, *ways: Way, **more: Tensor
    ) -> Tensor:
        """Sum and record the loss terms, including that of a trainable blur."""
        gan, terms = self.gan, dict[str, Tensor]()
        same = PIXEL_LOSSES[gan.identity]
        round_trip = cycle_ssim_loss if gan.cycle == "ssim" else PIXEL_LOSSES[gan.cycle]
        kept = [(b, s, image.float()) for b, s, image in ways if image is not None]
        with self.full_precision():
            if gan.cycle_weight:
                losses = (round_trip(back, original) for back, original, _ in ways)
                terms["cycle"] = gan.cycle_weight * _sum(losses)
            if gan.identity_weight and kept:
                losses = (same(image, original) for _, original, image in kept)
                terms["identity"] = gan.identity_weight * _sum(losses)
            if gan.edge_weight and kept:
                operator = gan.edge_operator
                losses = (edge_loss(back, image, operator) for back, _, image in kept)
                terms["edge"] = gan.edge_weight * _sum(losses)
            if isinstance(self.back, TrainableBlur):
                terms["spectrum"] = self.back.spectrum_loss(low, high)
        terms |= more
        self.terms = {name: value.detach() for name, value in terms.items()}
        return _sum(terms.values())

    def compute_discriminator_loss(
        self, low: Tensor, high: Tensor, step: int
    ) -> Tensor:
        """Return the summed discriminator loss."""
        true = {"high": high, "low": low}
        losses = []
        for name, judge in self.judges.items():
            history = cast("ImageBuffer", self.histories[name])
            fake = history.swap_images(self._outputs[name].float(), step)
            images = true[name], fake
            losses.append(compute_discriminator_step_loss(judge, *images, self.gan))
        return _sum(losses)

    def validate_pairs(self) -> dict[str, float]:
        """Evaluate on pairs, if available, and on unpaired images, if requested."""
        figures = super().validate_pairs() if self.validator.pairs else {}
        unpaired_figures = [
            one.evaluate(self.best_network, self.back)
            for one in self.unpaired_validators
        ]
        names = dict.fromkeys(name for each in unpaired_figures for name in each)
        return figures | {
            n: float(np.mean([each[n] for each in unpaired_figures])) for n in names
        }

    def _translate_images(
        self, generator: nn.Module, image: Tensor, other: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Translate images and also `other`, which should remain unchanged."""
        if not (self.gan.identity_weight or self.gan.edge_weight):
            return generator(image), None
        if self.at_once:
            both = generator(torch.cat((image, other)))
            output, same_output = both.split((len(image), len(other)))
            return output, same_output
        output = generator(image)
        with freeze_running_statistics(generator):
            return output, generator(other)


# Loss terms on (B, C, H, W), grey values of 0 to 1. Where a paper's formula is
# misprinted or ambiguous, the docstring states our choice.
#
# Gao: X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4. SSIM: Z. Wang
# et al., IEEE Trans. Image Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861.

_C1 = 1e-4  # K1 = 0.01, Gao's and the usual one
_C2 = 4e-4  # K2 = 0.02, Gao's; the usual one is 9e-4
_WINDOW = 11  # px, Wang's and Gao's
_SIGMA = 1.5  # px, Wang's; Gao et al. state none
_SLOPES = {  # along x; along y the transpose. Both give 8 for a slope of one per pixel
    "sobel": torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "prewitt": torch.tensor([[-1.0, 0, 1]] * 3) * 4 / 3,
}
_KIRSCH = (5.0, 5.0, 5.0, -3.0, -3.0, -3.0, -3.0, -3.0)  # around the pixel
_AROUND = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
_KIRSCH_SLOPE = 24.0 / 8.0  # its value for a slope of one per pixel, over Sobel's
_LEVEL = 1e-12  # the root has no derivative at zero; flat areas give 1e-6


def cycle_ssim_loss(output: Tensor, image: Tensor) -> Tensor:
    """Return 1 - SSIM, between 0 and 2 (half of Gao's equation 11)."""
    return 1 - ssim(output, image).mean()


def edge_loss(
    output: Tensor, image: Tensor, operator: EdgeOperator = "sobel"
) -> Tensor:
    """Return the mean squared difference of edge maps (half of Gao's equation 13)."""
    first, second = (compute_edge_magnitude(one, operator) for one in (output, image))
    return functional.mse_loss(first, second)


def ssim(first: Tensor, second: Tensor, *, c2: float = _C2) -> Tensor:
    """Compute the SSIM map, -1 to 1, of two images (B, C, H, W), excluding borders."""
    # Variances are small differences of large numbers: 16 bits are too few, and 32 are
    # more exact if each image's mean is subtracted, which changes no variance.
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (first, second))
    level_a, level_b = (x.detach().mean((-1, -2), keepdim=True) for x in (a, b))
    a, b = a - level_a, b - level_b
    products = torch.stack((a, b, a * a, b * b, a * b))
    matrices = []  # (side - 10, side), weighted window means along each axis
    reach = _WINDOW // 2
    for side in a.shape[-2:]:
        places = torch.arange(side, dtype=a.dtype, device=a.device)
        distance = places - (places[: side - 2 * reach, None] + reach)
        weights = torch.exp(-distance.square() / (2 * _SIGMA**2))
        weights = weights * (distance.abs() <= reach)
        matrices.append(weights / weights.sum(1, keepdim=True))
    down, across = matrices
    mean_a, mean_b, aa, bb, ab = down @ products @ across.T
    covariance_term = 2 * (ab - mean_a * mean_b) + c2
    spread = (aa - mean_a**2) + (bb - mean_b**2) + c2
    mean_a, mean_b = mean_a + level_a, mean_b + level_b
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    similarity: Tensor = light * covariance_term / spread
    return similarity


def compute_edge_magnitude(image: Tensor, operator: EdgeOperator = "sobel") -> Tensor:
    """Return the gradient magnitude of images (B, C, H, W); a slope of 1 gives 8."""
    kernels = _create_edge_kernels(operator, image.dtype, image.device)
    planes = image.flatten(0, 1)[:, None]
    padded_image = functional.pad(planes, (1, 1, 1, 1), mode="replicate")
    slopes = functional.conv2d(padded_image, kernels)
    if operator == "kirsch":
        steep = slopes.amax(1)
    else:
        steep = (slopes.square().sum(1) + _LEVEL).sqrt()
    return steep.reshape(image.shape)


@functools.cache  # a copy to a GPU at every step would make it wait
def _create_edge_kernels(
    operator: EdgeOperator, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the kernels (2 or 8, 1, 3, 3) of an edge operator."""
    kernels = torch.zeros(8, 3, 3)
    if operator == "kirsch":
        for turn, mask in enumerate(kernels):
            for place, (row, column) in enumerate(_AROUND):
                mask[row, column] = _KIRSCH[(place - turn) % 8] / _KIRSCH_SLOPE
    else:
        across = _SLOPES[operator]
        kernels = torch.stack((across, across.T))
    return kernels[:, None].to(device, dtype)
