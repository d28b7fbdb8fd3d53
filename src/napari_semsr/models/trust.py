"""Files that tell how far a model's pictures may be off.

One lies in the folder ``trust`` beside the model, under the model's name. It belongs to
one model file, by digest.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_semsr.core import (
    CheckpointError,
    one_line,
    read_bytes,
)
from napari_semsr.io import renaming

_LARGEST = 16 * 2**20  # bytes; a table of 1000 fields has 0.3 million

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class Trust(BaseModel):
    """What tells how far a model's pictures may be off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["semsr-trust"] = "semsr-trust"
    model: str = Field(min_length=1, max_length=100)
    model_digest: str
    # of the clues, in the logarithm of the scale of the error
    weights: tuple[_Number, ...] = Field(min_length=1, max_length=1000)
    share: float = Field(gt=0, lt=1)  # of pixels whose error is below the bound
    factor: _Positive  # of the scale, which makes the bound hold for that share
    # what the fields were like that it was calibrated on
    fields: tuple[tuple[_Number, ...], ...] = Field(min_length=6)
    # distance to them from which a field is of another kind; of fields of their kind
    # one in twenty is farther
    familiar: _Positive
    # what former files tell of single objects; not used, and not written
    objects: dict[str, Any] | None = Field(default=None, exclude=True)
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_table(self) -> "Trust":
        if len({len(row) for row in self.fields}) != 1:
            msg = "rows of fields must be of one length"
            raise ValueError(msg)
        return self


def trust_path(model: Path) -> Path:
    """Give the place beside a model of how far it may be off, file or none."""
    return model.parent / "trust" / f"{model.stem}.json"


def save_trust(path: Path, trust: Trust) -> None:
    """Write a trust file, in place of one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with renaming(path) as partial:
        partial.write_text(trust.model_dump_json(), encoding="utf-8")


def load_trust(path: Path) -> Trust:
    """Read a trust file."""
    try:
        return Trust.model_validate_json(read_bytes(path, _LARGEST))
    except OSError as error:
        msg = f"The trust file {path} cannot be read: {error.strerror}."
        raise CheckpointError(msg) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = one_line(".".join(map(str, first["loc"]))) or "the file"
        msg = (
            f"{path.name} is no trust file: {place}: {first['msg']}; make one with "
            "semsr models trust."
        )
        raise CheckpointError(msg) from error
