"""A call of a verb and a plan of several, as values that JSON can hold."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from napari_semsr.core import OptionError, Options


class File(Options):
    """A file, folder or store that a call reads.

    Attributes
    ----------
    path : str
        Where it is, or was when a history was written; empty if only its name is known.
    digest : str or None
        As a history records it. A file whose content has another digest is refused by
        `execute`; None if any content is right.
    name : str
        What sentences call it; by default the last part of its path.
    """

    type: Literal["file"] = "file"
    path: str
    digest: str | None = None
    name: str = ""


class CallOutput(Options):
    """What an earlier call of the plan writes.

    Attributes
    ----------
    call : str
        Its name.
    part : str or None
        Which of its files, as `output_path` finds it; None for its output.
    file : File or None
        Where that file was when a history was written, if it was ever saved.
    """

    type: Literal["output"] = "output"
    call: str
    part: str | None = None
    file: File | None = None


class Hole(Options):
    """An input that is left open, until `Plan.fill` names a file for it."""

    type: Literal["hole"] = "hole"
    name: str = "image"


Input = File | CallOutput | Hole


class Call(Options):
    """One call of a verb: exactly what `Verb.start` takes.

    Attributes
    ----------
    name : str
        Its name in the plan.
    verb : str
        Name of the verb, or of a job that has no command.
    inputs : dict of str to input or to a tuple of inputs
        What it reads, by the names of the verb's images and files; by the name of an
        option if a file is its value, such as ``psf``.
    options : dict of str to object
        Options of the verb and of reading, as JSON, by their names.
    outputs : dict of str to str
        Paths below the plan's folder, by the names of the verb's outputs.
    """

    name: str
    verb: str
    inputs: dict[str, Input | tuple[Input, ...]] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)

    def each_input(self) -> Iterator[tuple[str, Input]]:
        """Go through its inputs with their names, through several of one name too."""
        for role, value in self.inputs.items():
            for one in value if isinstance(value, tuple) else (value,):
                yield role, one


class Plan(Options):
    """Calls in an order in which each finds what it reads.

    Attributes
    ----------
    calls : tuple of Call
        Their names differ.
    result : CallOutput or None
        The file that the plan is for, if it is for one.

    Raises
    ------
    OptionError
        If two calls have one name, or one reads what no call before it writes.
    """

    calls: tuple[Call, ...]
    result: CallOutput | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        before: set[str] = set()
        for call in self.calls:
            for role, one in call.each_input():
                if isinstance(one, CallOutput) and one.call not in before:
                    msg = f"{call.name} reads {role} of {one.call}, no call before it"
                    raise ValueError(msg)
            if call.name in before:
                msg = f"two calls are named {call.name}"
                raise ValueError(msg)
            before.add(call.name)
        if self.result is not None and self.result.call not in before:
            msg = f"its result is of {self.result.call}, no call of it"
            raise ValueError(msg)
        return self

    @property
    def holes(self) -> tuple[str, ...]:
        """Names of the inputs that are left open."""
        each = (one for call in self.calls for _, one in call.each_input())
        return tuple(dict.fromkeys(one.name for one in each if isinstance(one, Hole)))

    def fill(self, **files: File) -> Self:
        """Copy the plan with a file in place of each hole, by its name.

        Raises
        ------
        OptionError
            If a hole gets no file.
        """
        left = [name for name in self.holes if name not in files]
        if left:
            msg = f"The plan needs a file for {', '.join(left)}."
            raise OptionError(msg, code="missing-value")

        def fill_input(one: Input) -> Input:
            return files[one.name] if isinstance(one, Hole) else one

        calls = []
        for call in self.calls:
            inputs = {
                role: tuple(map(fill_input, one))
                if isinstance(one, tuple)
                else fill_input(one)
                for role, one in call.inputs.items()
            }
            calls.append(call.model_copy(update={"inputs": inputs}))
        return self.model_copy(update={"calls": tuple(calls)})

    def to_json(self) -> dict[str, Any]:
        """Write it as values that JSON can hold."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; what is no plan is refused by an `OptionError`."""
        return cls.parse(dict(record))
