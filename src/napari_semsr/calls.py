"""Functions of the Python interface, generated from the commands.

A function takes a `Micrograph`, an array or the path of an image; options are
keywords with the names of the command's flags.
"""

import inspect
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from numpy.typing import ArrayLike

from napari_semsr import core
from napari_semsr.io import ReadOptions, array_to_image, is_array
from napari_semsr.jobs import ImageInput, Result, Verb, get_verb

PathLike = str | os.PathLike[str]
Source = core.Micrograph | ArrayLike | PathLike
Report = Callable[[core.Progress], None]

_NO_DEFAULT = inspect.Parameter.empty
_IMAGE = "Micrograph, (Y, X) array_like or path"
_IMPORTS = (  # imports of examples, in order, with the text that requires each
    ("json", "json."),
    ("tempfile", "tempfile."),
    ("numpy as np", "np."),
    ("napari_semsr as semsr", "semsr."),
)
_OUTPUT_FLAGS = {
    "overwrite": "Replace an existing output",
    "resume": "Resume an interrupted output",
}


def convert_source(
    image: Any, item: ImageInput | None = None, *, several: bool = False
) -> Any:
    """Convert an array to an image; return paths and other arguments unchanged.

    In a sequence of images each image is converted, if there may be `several`.
    """
    if isinstance(image, (core.Micrograph, str, os.PathLike)):
        return image
    if is_array(image):
        return array_to_image(image)
    if several and isinstance(image, (list, tuple)):
        return type(image)(convert_source(one, several=True) for one in image)
    if several or (image is None and item is not None and item.optional):
        return image
    msg = (
        "An image must be a path, a Micrograph or a (Y, X) array, got "
        f"{type(image).__name__}."
    )
    raise core.ShapeError(msg, code="wrong-type")


@cache
def get_function(name: str) -> Callable[..., object]:
    """Return the function of a command."""
    verb = get_verb(name)
    if verb is None:
        msg = f"There is no function for the command {name}."
        raise core.OptionError(msg, code="verb-unknown")
    signature = create_signature(verb)
    parameters = set(signature.parameters)
    further_types = _find_further_types(verb)
    images = {item.name: item for item in verb.images}
    named_files = {item.name for item in (*verb.inputs, *verb.all_outputs)}
    named_files |= _OUTPUT_FLAGS.keys()

    def call(*positional: object, **options: object) -> object:
        own_arguments = {n: options.pop(n) for n in [*options] if n in parameters}
        try:
            arguments = signature.bind(*positional, **own_arguments).arguments
        except TypeError as error:
            msg = f"{verb.function_name}(): {error}"
            raise TypeError(msg) from None
        report = arguments.pop("progress", None)
        files = {n: arguments.pop(n) for n in [*arguments] if n in named_files}
        for name in files.keys() & images.keys():
            item = images[name]
            several = item.many or further_types[name] is not None
            files[name] = convert_source(files[name], item, several=several)
        settings = verb.parse_options({**arguments, **options})
        return verb.get_return_value(core.run(verb.job(**files, **settings), report))

    call.__name__ = call.__qualname__ = verb.function_name
    call.__doc__ = _create_docstring(verb)
    call.__module__ = "napari_semsr.functions"
    call.__signature__ = signature  # type: ignore[attr-defined]
    # the source that editors and `inspect` show
    call.__wrapped__ = verb.function  # type: ignore[attr-defined]
    return call


def create_signature(verb: Verb[core.Options, Result]) -> inspect.Signature:
    """Return the signature of a command's function, with types and defaults."""
    settings = [*_list_settings(verb)]
    others = {one.name: one for one in (*_list_files(verb), *settings)}
    names = [item.name for item in verb.inputs if not item.flag]
    names += [one.name for one in settings if one.default is _NO_DEFAULT]
    names += [] if verb.output is None else [verb.output.name]
    names += [item.name for item in verb.images if item.flag]
    at = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first = [others.pop(name).replace(kind=at) for name in dict.fromkeys(names)]
    required = (n for n, one in enumerate(first) if one.default is _NO_DEFAULT)
    for place in range(max(required, default=0)):  # none with a default may come first
        first[place] = first[place].replace(default=_NO_DEFAULT)
    parameters = [*first, *others.values()]
    # reading options of a single image, prefixed with its name
    if verb.reading_prefixes:
        rest = inspect.Parameter.VAR_KEYWORD
        parameters.append(inspect.Parameter("sides", rest, annotation=Any))
    return inspect.Signature(parameters, return_annotation=verb.return_type)


def _declare(name: str, annotation: object, default: object) -> inspect.Parameter:
    """Return a keyword parameter."""
    how = {"default": default, "annotation": annotation}
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, **how)


_PATHS = {core.Micrograph, Path, str, os.PathLike[str], NoneType}


def _find_further_types(verb: Verb[core.Options, Result]) -> dict[str, Any]:
    """Return what a command takes besides an image or a path, by input; None if no."""
    hints, found = get_type_hints(verb.function), {}
    for item in verb.inputs:
        hint = hints[item.name]
        kinds = [
            kind
            for kind in get_args(hint) or (hint,)
            if kind not in _PATHS and get_origin(kind) is not Mapping  # of histories
        ]
        found[item.name] = kinds[0] if kinds and not item.many else None
    return found


def _list_files(verb: Verb[core.Options, Result]) -> Iterator[inspect.Parameter]:
    """Yield the parameters for the input and output files of a command."""
    further_types = _find_further_types(verb)
    for item in verb.inputs:
        kind: Any = Source if isinstance(item, ImageInput) else PathLike
        kind = Sequence[kind] if item.many else kind
        default = getattr(item, "default", None)
        further_type = further_types[item.name]
        kind = kind if further_type is None else further_type | kind
        if item.optional and default is None:
            kind |= None
        default = default if item.optional or default else _NO_DEFAULT
        yield _declare(item.name, kind, default)
    for output in verb.all_outputs:
        optional = not output.is_required or output.may_stay_in_memory
        kind = PathLike | None if optional else PathLike
        yield _declare(output.name, kind, None if optional else _NO_DEFAULT)


def _list_settings(verb: Verb[core.Options, Result]) -> Iterator[inspect.Parameter]:
    """Yield the parameters for a command's own and common options."""
    for model in (one.options for one in verb.option_groups if not one.before):
        for name, info in model.model_fields.items():
            if model is ReadOptions and name in verb.hidden_options:
                continue
            kind: Any = info.annotation
            default: object = _NO_DEFAULT
            if not info.is_required():
                default = info.get_default(call_default_factory=True)
            # one number may be given for both axes, as in the options
            kind = kind | float if core.FloatPair in get_args(kind) else kind
            yield _declare(name, kind, default)
    if verb.overwrites:
        yield _declare("overwrite", bool, default=False)
    if verb.resumes:
        yield _declare("resume", bool, default=False)
    yield _declare("progress", Report | None, None)


def _create_docstring(verb: Verb[core.Options, Result]) -> str:
    """Return the docstring of a command's function."""
    lines = [_format_sentence(verb.summary), "", "Parameters", "-" * 10]

    def describe(heading: str, text: str) -> None:
        wrapped = textwrap.wrap(_format_sentence(text), 80)
        lines.extend([heading, *(f"    {line}" for line in wrapped)])

    defaults = {one.name: one.default for one in _list_files(verb)}
    for item in (*verb.inputs, *verb.all_outputs):
        kind = _IMAGE if isinstance(item, ImageInput) else "path"
        kind = f"sequence of {kind}" if getattr(item, "many", False) else kind
        more = "" if defaults[item.name] is _NO_DEFAULT else ", optional"
        describe(f"{item.name} : {kind}{more}", item.help)
    for one in verb.option_groups:
        own = {} if one.options is ReadOptions else one.options.model_fields
        for name, info in own.items():
            describe(f"{name} : optional", info.description or name)
    if verb.reads:
        reading = f"{', '.join(ReadOptions.model_fields)} : optional"
        describe(reading, "How files are read: the options of `read`")
    if verb.reading_prefixes:
        before = "_ or ".join(verb.reading_prefixes)
        more = f"The same options for only one of the images, with the prefix {before}_"
        describe("**sides : object", more)
    settings = {one.name for one in _list_settings(verb)}
    for name in filter(settings.__contains__, _OUTPUT_FLAGS):
        describe(f"{name} : bool, optional", _OUTPUT_FLAGS[name])
    describe("progress : callable, optional", "Receives every `Progress`")
    return_types = get_args(verb.return_type) or (verb.return_type,)
    result = inspect.cleandoc(return_types[-1].__doc__ or "").partition("\n\n")[0]
    lines += ["", "Returns", "-" * 7]
    describe(" or ".join(kind.__name__ for kind in return_types), result)
    if verb.example:
        code = inspect.cleandoc(verb.example).splitlines()
        used = (f">>> import {one}" for one, name in _IMPORTS if name in verb.example)
        imports = [line for line in used if line not in code]
        lines += ["", "Examples", "-" * 8, *imports, *code]
    return "\n".join(lines)


def _format_sentence(text: str) -> str:
    """Capitalise the first letter of a text and end it with a full stop."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."
