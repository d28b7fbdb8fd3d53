"""What a test expects to be refused or warned of, by the stable code of its cause."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from napari_semsr.core import SemsrError, get_error_code

Refusal = TypeVar("Refusal", bound=SemsrError)


@contextmanager
def refused(
    kind: type[Refusal], code: str, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """Expect an error of this class and code; `match` is of values in its sentence."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    found = get_error_code(caught.value)
    assert found == code, f"{found!r} is no {code!r}"


@contextmanager
def warned(code: str, match: str | None = None) -> Iterator[pytest.WarningsRecorder]:
    """Expect a warning of this code; `match` is of values in its sentence.

    Other warnings are warned of again, as `pytest.warns` does.
    """
    with pytest.warns(UserWarning, match=match) as caught:
        yield caught
    told = {
        get_error_code(one.message.args[0]): one
        for one in caught
        if isinstance(one.message, Warning) and re.search(match or "", str(one.message))
    }
    assert code in told, f"{code!r} is not in {[*told]}"
    for other in told.keys() - {code}:
        one = told[other]
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
