"""Degrade an image like published test data and like a scanning microscope."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from napari_semsr import core
from napari_semsr.jobs.images import Result, require_all_pixels, to_json_value
from napari_semsr.jobs.verb import IMAGE_OUT, ImageInput, Run, command
from napari_semsr.simulation import EffectOptions, add_effects

_UNITS = ("px", "nm")  # unit suffixes of parameter names


_OF_HAZE = {"kind": ("fog", "hybrid")}


class DegradeOptions(EffectOptions):
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
class DegradedFile(Result):
    """Result of a degradation, with its random parameters."""

    output: str | None
    degradation: str
    parameters: dict[str, Any]
    shape: core.IntPair
    pixel_size_nm: core.FloatPair | None
    image: core.Micrograph = field(metadata={"json": False})

    def figures(self) -> dict[str, core.Figure]:
        """Return the random parameters with their units."""
        rows = {"Degradation": core.Figure(self.degradation)}
        for name, value in self.parameters.items():
            word, _, unit = name.rpartition("_")
            word, unit = (word, unit) if unit in _UNITS else (name, "")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            label = word.replace("_", " ").capitalize()
            if isinstance(value, list):
                value = ", ".join(map(core.format_number, value))
            rows[label] = core.Figure(value if number else str(value), unit)
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
    from napari_semsr.simulation import degrade_plane, get_grey_range

    yield core.Progress(1, 3, f"degrading {image.name}")
    require_all_pixels(image)
    grey = image.array()
    option_values: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("seed", "uniform_fog", "airlight", "stretch")
    }
    if not options.has_effects and options.kind != "none":
        degradation = degrade_plane(grey, options.kind, **option_values)
        data, parameters = degradation.image, degradation.parameters
    else:  # integers are rounded only once, at the end
        low, high = get_grey_range(grey)
        values, blurring = grey.astype(np.float64), dict[str, object]()
        if options.kind != "none":
            degradation = degrade_plane(
                values, options.kind, levels=(low, high), **option_values
            )
            values, blurring = degradation.image, degradation.parameters
        unit, effects = add_effects(
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
        parameters=to_json_value(parameters),
        shape=result.shape,
        pixel_size_nm=result.pixel_size_nm,
        image=result,
    )
