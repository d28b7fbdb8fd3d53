"""Options: what a user edits and a store records, frozen and validated once."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_semsr.core.errors import OptionError

__all__ = ["Options"]


def _sentence(error: ValidationError) -> str:
    """Say the first fault of a pydantic error as one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if not where:  # a rule between options: the sentence names them itself
        return f"{message[:1].upper()}{message[1:].rstrip('.')}."
    given = "" if first["type"] == "missing" else f", got {first['input']!r}"
    return f"Option {where}: {message}{given}."


class Options(BaseModel):
    """Base of all option sets; panels are built from it and stores record it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate a mapping at a public door.

        Parameters
        ----------
        values : dict
            Option names and values, as typed by a user or read from a file.

        Returns
        -------
        Options
            The validated, frozen options.

        Raises
        ------
        OptionError
            If a name is unknown or a value is out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise OptionError(_sentence(error)) from None

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some values changed.

        Parameters
        ----------
        **changes : object
            New values by option name.

        Returns
        -------
        Options
            The changed copy.
        """
        return self.parse({**self.model_dump(), **changes})
