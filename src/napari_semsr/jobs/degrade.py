"""Degrade an image like a scanning microscope, and simulate sample images."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from napari_semsr import core, simulation
from napari_semsr.jobs import convert, images
from napari_semsr.jobs.verb import IMAGE_OUT, ImageInput, Run, command

_UNITS = ("px", "nm")  # unit suffixes of parameter names


_OF_HAZE = {"kind": ("fog", "hybrid")}


class DegradeOptions(simulation.EffectOptions):
    """Options for degrading an image."""

    kind: Literal["blur", "fog", "hybrid", "none"] = core.option(
        "blur",
        "Degradation",
        "Gaussian blur, blur with haze, three blurs with haze, or none of these",
        choices={
            "Gaussian blur": "blur",
            "blur and haze": "fog",
            "three blurs and haze": "hybrid",
            "none of these": "none",
        },
    )
    uniform_fog: bool = core.option(
        False,
        "Even haze",
        "uniform haze instead of a smooth random field",
        when=_OF_HAZE,
    )
    airlight: float | None = core.option(
        None,
        "Grey level of haze",
        "grey level of dense haze, on the 0-255 scale; default: the image's mean",
        when=_OF_HAZE,
        ge=0,
        le=255,
    )
    stretch: bool = core.option(
        True,
        "Keep contrast",
        "restore mean and contrast from before the haze",
        when=_OF_HAZE,
    )
    seed: int = core.option(0, "Seed", "random seed", ge=0)

    @model_validator(mode="after")
    def _check_airlight(self) -> Self:
        if self.airlight is not None and self.kind not in _OF_HAZE["kind"]:
            msg = (
                "airlight applies only to haze: kind must be fog or hybrid, got "
                f"{self.kind}"
            )
            raise ValueError(core.Message(msg, "option-without-effect"))
        return self


@dataclass(frozen=True, slots=True)
class DegradedFile(images.Result):
    """Result of a degradation, with its random parameters."""

    output: str | None
    degradation: str
    parameters: dict[str, object]
    shape: core.IntPair
    pixel_size_nm: core.FloatPair | None
    image: core.Micrograph = field(metadata={"json": False})

    def figures(self) -> dict[str, core.Figure]:
        """Return the random parameters with their units."""
        rows = {"Degradation": core.Figure(self.degradation)}
        for name, value in self.parameters.items():
            word, _, unit = name.rpartition("_")
            word, unit = (word, unit) if unit in _UNITS else (name, "")
            label = word.replace("_", " ").capitalize()
            if isinstance(value, list):
                value = ", ".join(map(core.format_number, value))
            if not isinstance(value, int | float) or isinstance(value, bool):
                value = str(value)
            rows[label] = core.Figure(value, unit)
        return rows


@command(title="degradation", gives=core.Micrograph)
def degrade(
    run: Run[DegradeOptions],
    image: Annotated[
        core.Micrograph,
        ImageInput(help="a sharp grey image", label="Layer", several=True),
    ],
    output: Annotated[Path | None, replace(IMAGE_OUT, flag="")],
    options: DegradeOptions,
) -> core.Job[DegradedFile]:
    """Add blur, haze, noise and drift to an image, as in published test sets.

    Examples
    --------
    >>> sharp = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    >>> soft = semsr.degrade(sharp, kind="blur")
    >>> soft.shape, soft.dtype, [round(one.std()) for one in (sharp, soft.array())]
    ((48, 64), dtype('uint8'), [75, 22])
    """
    yield core.Progress(1, 3, f"degrading {image.name}")
    images.require_all_pixels(image)
    grey = image.array()
    degrade_plane = partial(
        simulation.degrade_plane,
        seed=options.seed,
        uniform_fog=options.uniform_fog,
        airlight=options.airlight,
        stretch=options.stretch,
    )
    if not options.has_effects and options.kind != "none":
        degradation = degrade_plane(grey, options.kind)
        data, parameters = degradation.image, degradation.parameters
    else:  # integers are rounded only once, at the end
        low, high = simulation.get_grey_range(grey)
        values, blurring = grey.astype(np.float64), dict[str, object]()
        if options.kind != "none":
            degradation = degrade_plane(values, options.kind, levels=(low, high))
            values, blurring = degradation.image, degradation.parameters
        unit, effects = simulation.add_effects(
            (values - low) / (high - low), options, seed=options.seed
        )
        del values
        data = core.convert_dtype(unit * (high - low) + low, grey.dtype)[0]
        del unit
        parameters = {**blurring, **effects, "black": low, "white": high}
    result = image.replace(data=data, provenance=(yield from run.compose_history()))
    yield core.Progress(2, 3, "writing")
    run.write_image(result)
    return DegradedFile(
        output=run.output,
        degradation=options.kind,
        parameters=images.to_json_value(parameters),
        shape=result.shape,
        pixel_size_nm=result.pixel_size_nm,
        image=result,
    )


# Sample images with known ground truth; nothing is downloaded.

# Sizes chosen: large enough for a demonstration, small enough to simulate quickly.
_PIXEL_NM = 10.0
_SHAPE = (640, 896)  # of the degraded sample
_PITCH_PX = 13.0  # of its grating; chosen: hardly resolved
_GOLD_PX = 320  # side of the gold sample; chosen: some particles
_SHOWN_GOLD = 100_000  # far from the seeds of fields used to compare models


class SpecimenOptions(core.Options):
    """Options for a simulated specimen."""

    shape: tuple[PositiveInt, PositiveInt] = _SHAPE
    seed: NonNegativeInt = 0

    def count_simulated_pixels(self) -> int:
        """Count the pixels of the specimen."""
        return self.shape[0] * self.shape[1]


class ExposureOptions(core.Options):
    """Options for a simulated SEM image of a known specimen."""

    kind: Literal["blur", "fog", "hybrid"] = "fog"  # as in `simulation.degrade`
    # electrons per pixel at white, which set the shot noise
    electrons: float = Field(default=1000.0, gt=0, le=1e12)
    # standard deviation of the detector noise, of 255 levels
    read_noise: float = Field(default=2.0, ge=0)
    seed: NonNegativeInt = 0
    noise_seed: NonNegativeInt = 0


class GoldPairOptions(core.Options):
    """Options for the gold sample: seed, and coarse or fine image."""

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
        provenance=images.compose_provenance(
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
    history = images.compose_derived_provenance(
        "exposure", settings.model_dump(), truth=truth
    )
    return truth.replace(data=noisy, name=name, provenance=history)


def simulate_gold_pair(*, seed: int = 0) -> tuple[core.Micrograph, core.Micrograph]:
    """Simulate the sample "gold on carbon at two magnifications"."""
    rng = simulation.create_gold_rng("judging", _SHOWN_GOLD + seed)
    pair = simulation.simulate_random_gold_pair(_GOLD_PX, rng)
    history = images.compose_provenance(
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
    _: Run[SpecimenOptions], output: convert.SavedImage, options: SpecimenOptions
) -> core.Job[convert.ConvertedFile]:
    """Simulate a specimen again, with `simulate_specimen`."""
    return convert.save_image(
        simulate_specimen(options.shape, seed=options.seed), output
    )


@command(reads=False)
def exposure(
    _: Run[ExposureOptions],
    truth: convert.OpenedImage,
    output: convert.SavedImage,
    options: ExposureOptions,
) -> core.Job[convert.ConvertedFile]:
    """Simulate an image of a specimen again, with `simulate_exposure`."""
    return convert.save_image(simulate_exposure(truth, **dict(options)), output)


@command(reads=False)
def gold(
    _: Run[GoldPairOptions], output: convert.SavedImage, options: GoldPairOptions
) -> core.Job[convert.ConvertedFile]:
    """Simulate an image of the gold sample again, with `simulate_gold_pair`."""
    pair = simulate_gold_pair(seed=options.seed)
    return convert.save_image(pair[options.part == "fine"], output)
