"""Simulated sample images with known ground truth; nothing is downloaded."""

from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from napari_semsr import core, simulation
from napari_semsr.jobs.convert import (
    ConvertedFile,
    OpenedImage,
    SavedImage,
    save_image,
)
from napari_semsr.jobs.images import compose_derived_provenance, compose_provenance
from napari_semsr.jobs.verb import Run, command

# Sizes chosen: large enough for a demonstration, small enough to simulate quickly.
_PIXEL_NM = 10.0
_SHAPE = (640, 896)  # of the degraded sample
_PITCH_PX = 13.0  # of its grating; chosen: hardly resolved
_GOLD_PX = 320  # side of the gold sample; chosen: some particles
_SHOWN_GOLD = 100_000  # far from the seeds of fields used to compare models


class SpecimenOptions(core.Options):
    """core.Options for a simulated specimen."""

    shape: tuple[PositiveInt, PositiveInt] = _SHAPE
    seed: NonNegativeInt = 0

    def count_simulated_pixels(self) -> int:
        """Count the pixels of the specimen."""
        return self.shape[0] * self.shape[1]


class ExposureOptions(core.Options):
    """core.Options for a simulated SEM image of a known specimen."""

    kind: Literal["blur", "fog", "hybrid"] = "fog"  # as in `simulation.degrade`
    # electrons per pixel at white, which set the shot noise
    electrons: float = Field(default=1000.0, gt=0, le=1e12)
    # standard deviation of the detector noise, of 255 levels
    read_noise: float = Field(default=2.0, ge=0)
    seed: NonNegativeInt = 0
    noise_seed: NonNegativeInt = 0


class GoldPairOptions(core.Options):
    """core.Options for the gold sample: seed, and coarse or fine image."""

    part: Literal["coarse", "fine"] = "coarse"
    seed: NonNegativeInt = 0


def simulate_specimen(
    shape: tuple[int, int] = _SHAPE, *, seed: int = 0
) -> core.Micrograph:
    """Simulate a wiring layer next to a cracked film, as a sharp 8-bit image."""
    wiring = simulation.draw_phantom("circuit", shape, seed=seed, pitch_px=_PITCH_PX)
    film = simulation.draw_phantom("fracture", shape, seed=seed + 1)
    rows, columns = np.indices(shape)
    border = shape[1] * (0.62 + 0.05 * np.sin(rows / shape[0] * 5.0))
    share = np.clip((columns - border) / 6.0, 0.0, 1.0)
    grey = wiring * (1 - share) + (0.15 + 0.7 * film) * share
    return core.Micrograph(
        np.rint(25 + 205 * grey).astype(np.uint8),
        core.parse_pixel_size(_PIXEL_NM),
        "truth",
        provenance=compose_provenance(
            "specimen", {"shape": list(shape), "seed": seed, core.INSTRUMENT_KEY: "sem"}
        ),
    )


def simulate_exposure(
    truth: core.Micrograph, *, name: str = "exposure", **options: object
) -> core.Micrograph:
    """Simulate a blurred, hazy, noisy image of a specimen with `ExposureOptions`."""
    settings = ExposureOptions.parse(options)
    blurred_truth = simulation.degrade_plane(
        truth.array(), settings.kind, seed=settings.seed
    )
    rng = np.random.default_rng([settings.seed, settings.noise_seed])
    counts = rng.poisson(blurred_truth.image / 255.0 * settings.electrons)
    grey = counts / settings.electrons * 255.0
    grey = grey + rng.normal(0.0, settings.read_noise, grey.shape)
    noisy = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    history = compose_derived_provenance("exposure", settings.model_dump(), truth=truth)
    return truth.replace(data=noisy, name=name, provenance=history)


def simulate_gold_pair(*, seed: int = 0) -> tuple[core.Micrograph, core.Micrograph]:
    """Simulate the sample "gold on carbon at two magnifications"."""
    rng = simulation.create_gold_rng("judging", _SHOWN_GOLD + seed)
    pair = simulation.simulate_random_gold_pair(_GOLD_PX, rng)
    history = compose_provenance(
        "gold", {"side": _GOLD_PX, "seed": seed, core.INSTRUMENT_KEY: "sem"}
    )
    off = (simulation.FINE_NM - simulation.COARSE_NM) / 2
    coarse, fine = (
        core.Micrograph(
            np.clip(np.rint(25 + 205 * image), 0, 255).astype(np.uint8),
            core.parse_pixel_size(pixel_nm),
            name,
            provenance=history.model_copy(update={"part": part}),
            origin=origin,
        )
        for image, pixel_nm, name, origin, part in (
            (pair.low, simulation.COARSE_NM, "gold, 14.2 nm", (0.0, 0.0), "coarse"),
            (pair.high, simulation.FINE_NM, "gold, 7.1 nm", (off, off), "fine"),
        )
    )
    return coarse, fine


@command(reads=False)
def specimen(
    _: Run[SpecimenOptions], output: SavedImage, options: SpecimenOptions
) -> core.Job[ConvertedFile]:
    """Simulate a specimen again, with `simulate_specimen`."""
    return save_image(simulate_specimen(options.shape, seed=options.seed), output)


@command(reads=False)
def exposure(
    _: Run[ExposureOptions],
    truth: OpenedImage,
    output: SavedImage,
    options: ExposureOptions,
) -> core.Job[ConvertedFile]:
    """Simulate an image of a specimen again, with `simulate_exposure`."""
    return save_image(simulate_exposure(truth, **dict(options)), output)


@command(reads=False)
def gold(
    _: Run[GoldPairOptions], output: SavedImage, options: GoldPairOptions
) -> core.Job[ConvertedFile]:
    """Simulate an image of the gold sample again, with `simulate_gold_pair`."""
    pair = simulate_gold_pair(seed=options.seed)
    return save_image(pair[options.part == "fine"], output)
