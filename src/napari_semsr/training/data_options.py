"""Options of the images that a model learns from and is judged on."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from napari_semsr.core.options import Options
from napari_semsr.pairs.augment import AugmentOptions
from napari_semsr.simulate.ssum_pair import SsumPairOptions

__all__ = ["DataOptions", "ImageEntry"]

Source = Literal["images", "superlens", "gold"]


class ImageEntry(Options):
    """One clear image.

    Attributes
    ----------
    file : str
        Path below the data root.
    crop_bottom : int
        Rows of data bar to leave out.
    """

    file: str
    crop_bottom: int = Field(default=0, ge=0)


class DataOptions(Options):
    """What a model is trained and judged on.

    Attributes
    ----------
    pairs : str or None
        Store of pairs, made by ``semsr pairs``, relative to the recipe; in place of
        images that are degraded.
    sources : dict
        Relative shares of scenes that are degraded ``images``, or what a simulated
        instrument sees: ``superlens`` (and an electron microscope), ``gold`` (at two
        magnifications). Kind `supervised-l1` takes images alone.
    superlens : SsumPairOptions
        Samples, microscope and noise that the source ``superlens`` draws from.
    augment : AugmentOptions
        How the pairs of a store are varied.
    root : str
        Folder of the images, relative to the recipe; may be overridden when training.
    train, validation : tuple of ImageEntry
        Clear images; those for validation choose the checkpoint and train nothing.
    phantoms : float
        Share of scenes that are drawn instead of cut from an image.
    soft : float
        Share of clear images that are softened first, so that a network learns that
        an edge may be soft by nature; otherwise it sharpens what was never sharper.
    soft_sigma_px : float
        Largest Gaussian sigma of that softening.
    patchwork : float
        Share of clear scenes that are put together of two, so that a network learns
        that contrast may differ across a sample by nature.
    held_out : tuple of ImageEntry
        Images that neither train nor validate, named so that a benchmark may use them.
    scene_px : int
        Side of a scene, which is degraded as a whole; a multiple of 16. Haze is found
        from all of it.
    patch_px, patches_per_scene : int
        Side of the patches that the loss is taken on, and how many to a scene.
    bank : int
        Scenes that are made ahead by `workers` processes, kept on disk, and drawn from
        at random; 0 makes a new scene for every step. For a GPU, which learns faster
        than scenes are made. One of 512 px takes 1 MiB.
    bank_folder : str
        Where banks are kept, relative to the recipe; runs that want the same scenes
        share them.
    """

    pairs: str | None = None
    sources: dict[Source, NonNegativeFloat] = Field(default={"images": 1.0})
    superlens: SsumPairOptions = SsumPairOptions()
    augment: AugmentOptions = AugmentOptions()
    root: str = "."
    train: tuple[ImageEntry, ...] = ()
    validation: tuple[ImageEntry, ...] = ()
    held_out: tuple[ImageEntry, ...] = ()
    phantoms: float = Field(default=0.25, ge=0, le=1)
    soft: float = Field(default=0.3, ge=0, le=1)
    soft_sigma_px: float = Field(default=1.5, gt=0)
    patchwork: float = Field(default=0.0, ge=0, le=1)
    scene_px: int = Field(default=256, ge=32, le=4096, multiple_of=16)
    patch_px: int = Field(default=128, ge=16, le=2048)
    patches_per_scene: int = Field(default=2, ge=1, le=64)
    bank: int = Field(default=0, ge=0)
    bank_folder: str = "../runs/banks"

    @model_validator(mode="after")
    def _some_source(self) -> Self:
        if sum(self.sources.values()) <= 0:
            msg = "sources must name one whose share is above 0"
            raise ValueError(msg)
        return self
