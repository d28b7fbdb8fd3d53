"""What is made of a verb agrees: command, function, stub, table, manual."""

import argparse
import inspect
from dataclasses import fields

import pytest
from scripts.write_stub import WRITTEN

import napari_semsr
from napari_semsr.cli.command import list_arguments
from napari_semsr.core import get_columns, get_quantities
from napari_semsr.io import ReadOptions
from napari_semsr.jobs import FUNCTIONS, get_verb

VALUES = [verb for verb in map(get_verb, FUNCTIONS.values()) if verb is not None]


def named(verb) -> list[pytest.param]:
    return pytest.param(verb, id=verb.name)


@pytest.fixture(params=map(named, VALUES))
def verb(request):
    return request.param


def fields_of(verb) -> dict[str, object]:
    models = [ReadOptions] if verb.reads else []
    models += [verb.options, *(more.options for more in verb.groups)]
    return {name: info for m in models for name, info in m.model_fields.items()}


def test_command_and_function_take_the_same(verb):
    actions = {action.dest: action for action in list_arguments(verb.name)}
    function = inspect.signature(getattr(napari_semsr, verb.function_name))
    for item in (*verb.inputs, *verb.all_outputs):
        assert actions[item.name].help.startswith(item.help)
        assert item.name in function.parameters
    for name, info in fields_of(verb).items():
        parameter = function.parameters[name]
        if not info.is_required():
            assert parameter.default == info.get_default(call_default_factory=True)
        if name in actions:
            said = " ".join(actions[name].help.replace("%%", "%").split())
            described = (info.description or "").rstrip(".")
            assert described[1:] in said
            assert actions[name].default is argparse.SUPPRESS  # the model has it


def test_function_tells_what_the_command_tells(verb):
    function = getattr(napari_semsr, verb.function_name)
    told = inspect.getdoc(function)
    assert told.lower().startswith(verb.summary.lower())
    assert inspect.unwrap(function) is verb.function  # which editors open
    for item in (*verb.inputs, *verb.all_outputs):
        assert f"\n{item.name} : " in told


def test_figures_and_columns_have_names_of_their_own(verb):
    declared = get_quantities(verb.result)
    assert len(get_columns(verb.result)) == len(set(get_columns(verb.result)))
    beside = {q.also for q, _ in declared.values()} | {""}
    labels = [q.label for n, (q, _) in declared.items() if q.shown and n not in beside]
    assert len(labels) == len(set(labels))
    held = [item.type for item in fields(verb.result) if item.metadata.get("flat")]
    for quantity, _ in declared.values():
        for name in filter(None, (quantity.also, quantity.sd, quantity.interval)):
            known = any(hasattr(kind, name) for kind in (verb.result, *held))
            assert known or name in declared


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_editors_and_napari_know_the_verbs(path):
    assert path.read_text() == WRITTEN[path](), "run scripts/write_stub.py"
