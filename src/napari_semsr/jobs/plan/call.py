"""Command calls, and plans of several calls, in JSON form."""

from collections.abc import Container, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from napari_semsr.core import OptionError, Options
from napari_semsr.jobs.index import get_verb

if TYPE_CHECKING:
    from napari_semsr.jobs.images import Result
    from napari_semsr.jobs.verb import Verb


class File(Options):
    """A file, folder or store that a call reads.

    Attributes
    ----------
    path : str
        Its path, current or when a history was written; empty if only a name is known.
    digest : str or None
        As recorded in a history. `execute` raises an error for another digest; None
        accepts any content.
    name : str
        Its name in messages; by default the last part of its path.
    """

    type: Literal["file"] = "file"
    path: str
    digest: str | None = None
    name: str = ""


class CallOutput(Options):
    """Output of an earlier call in the plan.

    Attributes
    ----------
    call : str
        Name of the call.
    part : str or None
        Which of its files, as for `find_output_path`; None for its output.
    file : File or None
        The file when a history was written, if it was saved.
    """

    type: Literal["output"] = "output"
    call: str
    part: str | None = None
    file: File | None = None


class Placeholder(Options):
    """Placeholder for an input: `Plan.fill` sets a file, or `execute` takes a value."""

    type: Literal["hole"] = "hole"
    name: str = "image"


Input = File | CallOutput | Placeholder


class Call(Options):
    """Command call with the arguments of `Verb.start`.

    Attributes
    ----------
    name : str
        Its name in the plan.
    verb : str
        Name of the command, or of a job that is not a command.
    inputs : dict of str to input or to a tuple of inputs
        Inputs by the names of the command's images and files, or of an option with
        a file as its value, such as ``psf``.
    options : dict of str to object
        Options of the command and of reading, as JSON, by their names.
    outputs : dict of str to str
        Paths below the plan's folder, by the names of the command's outputs.
    """

    name: str
    verb: str
    inputs: dict[str, Input | tuple[Input, ...]] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)

    def iterate_inputs(self) -> Iterator[tuple[str, Input]]:
        """Iterate over the inputs with their names; a name may occur several times."""
        for role, value in self.inputs.items():
            for one in value if isinstance(value, tuple) else (value,):
                yield role, one


def require_verb(name: str) -> "Verb[Options, Result]":
    """Import a command by name; raise an `OptionError` for unknown names."""
    verb = get_verb(name)
    if verb is None:
        msg = f"A plan calls {name!r:.60}, which is not a command."
        raise OptionError(msg, code="verb-unknown")
    return verb


def create_call(
    name: str,
    verb: str,
    inputs: Mapping[str, Input | str | tuple[Input | str, ...]],
    outputs: Mapping[str, str] = MappingProxyType({}),
    **sets: Options | None,
) -> Call:
    """Create a call of a command from its option groups; a text names a placeholder."""

    def create_input(one: Input | str) -> Input:
        return Placeholder(name=one) if isinstance(one, str) else one

    return Call(
        name=name,
        verb=verb,
        inputs={
            role: tuple(map(create_input, one))
            if isinstance(one, tuple)
            else create_input(one)
            for role, one in inputs.items()
        },
        options=require_verb(verb).list_values(**sets),
        outputs=dict(outputs),
    )


class Plan(Options):
    """Sequence of calls, each placed after the calls whose outputs it reads.

    Attributes
    ----------
    calls : tuple of Call
        Calls with different names.
    result : CallOutput or None
        The file that the plan creates, if it creates only one.

    Raises
    ------
    OptionError
        If two calls have the same name, or one reads what no earlier call writes.
    """

    calls: tuple[Call, ...]
    result: CallOutput | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        before: set[str] = set()
        for call in self.calls:
            for role, one in call.iterate_inputs():
                if isinstance(one, CallOutput) and one.call not in before:
                    msg = (
                        f"{call.name} reads {role} from {one.call}, which is not an "
                        "earlier call"
                    )
                    raise ValueError(msg)
            if call.name in before:
                msg = f"two calls have the name {call.name}"
                raise ValueError(msg)
            before.add(call.name)
        if self.result is not None and self.result.call not in before:
            msg = (
                f"the result is the output of {self.result.call}, which is not in the "
                "plan"
            )
            raise ValueError(msg)
        return self

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Names of the placeholders."""
        each = (one for call in self.calls for _, one in call.iterate_inputs())
        return tuple(
            dict.fromkeys(one.name for one in each if isinstance(one, Placeholder))
        )

    def check_placeholders(self, names: Container[str]) -> None:
        """Raise an `OptionError` if a placeholder has another name."""
        left = [name for name in self.placeholders if name not in names]
        if left:
            msg = f"The plan needs a file for {', '.join(left)}."
            raise OptionError(msg, code="missing-value")

    def fill(self, **files: File) -> Self:
        """Return a copy of the plan with placeholders replaced by the given files.

        Raises
        ------
        OptionError
            If a placeholder gets no file.
        """
        self.check_placeholders(files)

        def fill_input(one: Input) -> Input:
            return files[one.name] if isinstance(one, Placeholder) else one

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

    def to_json(self) -> dict[str, object]:
        """Convert the plan to JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Self:
        """Read the output of `to_json`; raise an `OptionError` if it is not a plan."""
        return cls.parse(dict(record))
