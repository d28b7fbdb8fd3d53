"""Model cards: metadata stored in a weights file and read without torch.

A model is one safetensors file, with the card in its header, which is plain JSON. It
contains no code, and nothing is unpickled.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from safetensors import SafetensorError, safe_open

from napari_semsr import core

DEFAULT_MODEL = "sem-restore"
MOSAIC_MODEL = "ssum-sem"  # trained on superlens mosaics
MODELS_BY_INSTRUMENT = {"sem": DEFAULT_MODEL, "optical": MOSAIC_MODEL}
"""Bundled model for the images of each kind of microscope."""
SUFFIX = ".safetensors"
WEIGHTS = Path(__file__).parent.parent / "weights"

_Percentile = Annotated[float, Field(ge=0, le=100)]
_Reach = Annotated[int, Field(ge=0, le=65536)]
# as for files; chosen: resampling by at most a factor of 16 along each axis
_Length = Annotated[float, Field(ge=1e-5, le=1e9, strict=True)]
_LeastFactor = Annotated[float, Field(ge=1 / 16, le=1)]
_LargestFactor = Annotated[float, Field(ge=1, le=16)]


class ModelCard(BaseModel):
    """Metadata that users need before using a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # short name, as listed
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.+-]+$")
    architecture: str  # key of `ARCHITECTURES`
    # arguments that rebuild the network
    options: dict[str, object] = Field(default_factory=dict)
    description: str = ""
    # output pixels per input pixel along each axis
    scale: int = Field(default=1, ge=1, le=8)
    # tiles start on multiples of this many pixels
    stride: int = Field(default=1, ge=1, le=1024)
    # pixels on each side that an output pixel depends on, aligned to the stride;
    # measured, not calculated
    receptive_field: _Reach
    # pixels on each side beyond which the input changes the output by less than a
    # tolerance; keys are tolerances over the output's range; measured with the weights
    effective_field: dict[str, _Reach] = Field(default_factory=dict)
    # whether a normalisation layer computes statistics from the image itself
    norms: bool = False
    # meaning of the network's grey values 0 and 1: ``"percentiles"`` of the field;
    # ``"deviation"``, its mean and one standard deviation above it; or ``"levels"``,
    # the same for every field
    input_scaling: Literal["percentiles", "deviation", "levels"] = "percentiles"
    # percentiles of the field that are mapped to 0 and 1
    input_percentiles: tuple[_Percentile, _Percentile] = (0.1, 99.9)
    # grey values mapped to 0 and 1 if they are the same for every field
    input_levels: tuple[FiniteFloat, FiniteFloat] = (0.0, 1.0)
    # smallest and largest pixel size in training; None if irrelevant. A field with
    # another one is resampled to the nearest of them.
    pixel_size_nm: tuple[_Length, _Length] | None = None
    # smallest and largest pixel size of a field to resample, over the trained one;
    # other fields are not resampled, with a warning
    resample_factors: tuple[_LeastFactor, _LargestFactor] = (0.5, 2.0)
    # ``"input"``: the output is in the grey scale of the input
    grey: Literal["input", "unit"] = "input"
    # training data, and evaluation on other images
    training: dict[str, Any] = Field(default_factory=dict)
    # test results of the finished model, by `benchmarks/check_model.py`
    checks: dict[str, object] = Field(default_factory=dict)
    limits: str = ""  # limits of the model
    licence: str = "BSD-3-Clause"

    @field_validator("input_percentiles", "input_levels", "pixel_size_nm")
    @classmethod
    def _check_order(
        cls, value: core.FloatPair | None, info: ValidationInfo
    ) -> core.FloatPair | None:
        may_equal = info.field_name == "pixel_size_nm"
        if value and (value[0] > value[1] or (value[0] == value[1] and not may_equal)):
            msg = f"the first number must be the smaller one, got {value}"
            raise ValueError(msg)
        return value


def list_bundled_models() -> list[str]:
    """Return the names of the models shipped with the package."""
    return sorted(path.stem for path in WEIGHTS.glob(f"*{SUFFIX}"))


def resolve_model_path(name_or_path: str | Path) -> Path:
    """Find a model by its bundled name or by the path of a ``.safetensors`` file."""
    if str(name_or_path) in list_bundled_models():
        return WEIGHTS / f"{name_or_path}{SUFFIX}"
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix == SUFFIX:
        msg = f"{path} does not exist: check the path."
        raise core.CheckpointError(msg, code="file-missing")
    names, given = ", ".join(list_bundled_models()), str(name_or_path)
    msg = f"A model must be one of {names} or a {SUFFIX} file, got {given!r}."
    raise core.CheckpointError(msg, code="model-unknown")


def get_library_folder() -> Path:
    """Return the folder of imported models."""
    folder_name = os.environ.get("SEMSR_MODELS")
    if folder_name:
        return Path(folder_name)
    return platformdirs.user_data_path("napari-semsr", appauthor=False) / "models"


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the path of a bundled model, an imported model, or a model file."""
    name = str(name_or_path)
    imported = get_library_folder() / f"{name}{SUFFIX}"
    is_name = {"/", "\\"}.isdisjoint(name) and name not in list_bundled_models()
    return imported if is_name and imported.is_file() else resolve_model_path(name)


def read_card(path: Path) -> ModelCard:
    """Read a model card without loading the weights."""
    try:
        core.open_file(path).close()  # refuses a pipe
        with safe_open(path, framework="np") as weights:
            text = (weights.metadata() or {}).get("card")
    except (SafetensorError, OSError) as error:
        code = (
            "file-truncated" if "incomplete" in f"{error}".lower() else "model-damaged"
        )
        why = f"{path.name} is not a usable model file ({error}): export it again."
        message = core.describe_access_error(path, error) or core.Message(why, code)
        raise core.CheckpointError(message) from error
    if text is None:
        msg = f"{path.name} has no model card; import it with its model card."
        raise core.CheckpointError(msg, code="card-missing")
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = core.format_one_line(".".join(map(str, first["loc"]))) or "its top"
        why = first["msg"].removeprefix("Value error, ")
        msg = f"The model card of {path.name} is invalid at {where}: {why}."
        raise core.CheckpointError(msg, code="card-invalid") from None
