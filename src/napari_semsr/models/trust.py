"""Files that tell how far a model's pictures may be off.

One lies in the folder ``trust`` beside the model, under the model's name. It belongs to
one model file, by digest.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_semsr.core import CheckpointError, one_line
from napari_semsr.io import renaming

_LARGEST = 16 * 2**20  # bytes; a table of 1000 fields has 0.3 million

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


def _terms(count: int) -> int:
    """Count numbers, their squares and products, and a constant."""
    return count + count * (count + 1) // 2 + 1


class TrustOfObjects(BaseModel):
    """What tells how likely an object of such a picture is invented.

    Attributes
    ----------
    middle, deviation, weights : tuple of float
        As `napari_semsr.analysis.ObjectDoubt` has them.
    limit : float
        Doubt that one in twenty of the objects that are there exceeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    middle: tuple[_Number, ...] = Field(min_length=1, max_length=1000)
    deviation: tuple[_Positive, ...] = Field(min_length=1, max_length=1000)
    weights: tuple[_Number, ...] = Field(min_length=1, max_length=100_000)
    limit: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _is_whole(self) -> "TrustOfObjects":
        count = len(self.middle)
        if len(self.deviation) != count or len(self.weights) != _terms(count):
            msg = "numbers, deviations and weights must fit together"
            raise ValueError(msg)
        return self


class Trust(BaseModel):
    """What tells how far a model's pictures may be off.

    Attributes
    ----------
    model, model_digest : str
        Whose pictures.
    weights : tuple of float
        Of the clues, in the logarithm of the scale of the error.
    share : float
        Of pixels whose error is below the bound.
    factor : float
        Of the scale, which makes the bound hold for that share.
    fields : tuple of tuple of float
        What the fields were like that it was calibrated on.
    familiar : float
        Distance to those fields from which a field is of another kind; of fields of
        their kind one in twenty is farther.
    objects : TrustOfObjects or None
        What tells invented objects; None in files made before these were learnt.
    training : dict
        What it learnt from, and how it did on fields that it had not seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["semsr-trust"] = "semsr-trust"
    model: str = Field(min_length=1, max_length=100)
    model_digest: str
    weights: tuple[_Number, ...] = Field(min_length=1, max_length=1000)
    share: float = Field(gt=0, lt=1)
    factor: _Positive
    fields: tuple[tuple[_Number, ...], ...] = Field(min_length=6)
    familiar: _Positive
    objects: TrustOfObjects | None = None
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_table(self) -> "Trust":
        if len({len(row) for row in self.fields}) != 1:
            msg = "rows of fields must be of one length"
            raise ValueError(msg)
        return self


def trust_path(model: Path) -> Path:
    """Give the place of what tells how far a model's pictures may be off.

    Parameters
    ----------
    model : pathlib.Path
        The model's file.

    Returns
    -------
    pathlib.Path
        In the folder ``trust`` beside it, whether there is a file or not.
    """
    return model.parent / "trust" / f"{model.stem}.json"


def save_trust(path: Path, trust: Trust) -> None:
    """Write a trust file, in place of one that is there.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    trust : Trust
        What it is to hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with renaming(path) as partial:
        partial.write_text(trust.model_dump_json(), encoding="utf-8")


def load_trust(path: Path) -> Trust:
    """Read a trust file.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Returns
    -------
    Trust
        What it holds.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or no trust file.
    """
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"A trust file must be under 16 MB, got a larger one in {path.name}."
            raise CheckpointError(msg)
        return Trust.model_validate_json(path.read_bytes())
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
