"""Options of what is minimised where discriminators take part."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from napari_semsr.core.options import Options

__all__ = ["Adversarial", "GanOptions", "KernelOptions"]

Adversarial = Literal["least-squares", "cross-entropy", "relativistic"]


class KernelOptions(Options):
    """A blur that stands for the second generator of a cycle, known or learnt.

    Attributes
    ----------
    sigma_px : float
        Standard deviation of a Gaussian.
    size_px : int
        Odd side of the square that it is cut to.
    file : str or None
        Image or array (``.npy``) of a measured point-spread function, relative to the
        recipe, in place of the Gaussian.
    noise : float
        Standard deviation of noise that is added after the blur, on the unit scale.
        A blur alone loses little, and the generator would learn to raise detail of
        which a real image, rounded to 8 bits (about 0.0015), has none left.
    learnt : bool
        The Gaussian is where it begins; what it is, is learnt from both sets of images,
        as their spectra and a discriminator tell.
    spectrum_weight : float
        Weight of the loss between the spectrum of the degraded images and that of the
        clear ones through the kernel, where it is learnt.
    """

    sigma_px: float = Field(default=1.0, gt=0, le=50)
    size_px: int = Field(default=7, ge=1, le=301)
    file: str | None = None
    noise: float = Field(default=0.0, ge=0, le=1)
    learnt: bool = False
    spectrum_weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.size_px % 2 == 0:
            msg = f"size_px of the kernel must be odd, got {self.size_px}"
            raise ValueError(msg)
        return self


class GanOptions(Options):
    """Discriminators, terms of the loss, and their weights.

    Attributes
    ----------
    discriminator, discriminator_options : str, dict
        Which network judges images, and its arguments.
    conditional : bool
        The discriminator sees the degraded image beside the clear one, as in Pix2Pix.
    adversarial : {"least-squares", "cross-entropy", "relativistic"}
        How scores become a loss; the last is the relativistic average of ESRGAN.
    content : {"l1", "mse"}
        How a prediction is compared with its truth (`paired-gan`).
    adversarial_weight, content_weight, tv_weight : float
        Weights of the generator's terms (`paired-gan`).
    shares : tuple of float or None
        Shares of adversarial, content and total-variation term in the loss, from which
        weights are found during the first steps and kept; replaces the weights.
    calibration_steps : int
        Over how many steps the shares are measured.
    content_only_steps : int
        Steps at the start in which the content alone counts.
    cycle, identity : {"l1", "ssim"}, {"l1", "mse"}
        How what came back, and what was to stay, are compared (`cycle-gan`).
    cycle_weight, identity_weight, edge_weight : float
        Their weights, and that of the Sobel edges (`cycle-gan`).
    discriminator_every : int
        The discriminator learns at every n-th step.
    discriminator_rate : float
        Its learning rate over the generator's.
    discriminator_factor : float
        Factor of its loss.
    history : int
        Generated images that are remembered for it; 0 for the newest alone.
    kernel : KernelOptions or None
        A physical blur in place of the second generator (`cycle-gan`).
    """

    discriminator: str = "patch-gan"
    discriminator_options: dict[str, Any] = Field(default_factory=dict)
    conditional: bool = False
    adversarial: Adversarial = "least-squares"
    content: Literal["l1", "mse"] = "l1"
    adversarial_weight: float = Field(default=1.0, ge=0)
    content_weight: float = Field(default=100.0, ge=0)
    tv_weight: float = Field(default=0.0, ge=0)
    shares: tuple[float, float, float] | None = None
    calibration_steps: int = Field(default=200, ge=1)
    content_only_steps: int = Field(default=0, ge=0)
    cycle: Literal["l1", "ssim"] = "l1"
    cycle_weight: float = Field(default=10.0, ge=0)
    identity: Literal["l1", "mse"] = "l1"
    identity_weight: float = Field(default=5.0, ge=0)
    edge_weight: float = Field(default=0.0, ge=0)
    discriminator_every: int = Field(default=1, ge=1)
    discriminator_rate: float = Field(default=1.0, gt=0)
    discriminator_factor: float = Field(default=0.5, gt=0)
    history: int = Field(default=50, ge=0, le=1000)
    kernel: KernelOptions | None = None

    @model_validator(mode="after")
    def _positive_shares(self) -> Self:
        if self.shares is not None and min(self.shares) <= 0:
            msg = f"shares must be positive, got {self.shares}"
            raise ValueError(msg)
        return self
