"""Damage at random: bytes, nested values, texts and command lines; by seed, the same.

What the tests of hostile inputs share. Nothing here knows a format.
"""

import json
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

_INTEGERS = (
    *(0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 257, 1000, 4095),
    *(32767, 32768, 65535, 65536, 10**6, 10**9, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1),
)
_FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-300, 5e-324, 1e39, 1e302, 1.7e308)
_FLOATS += (float("nan"), float("inf"), -float("inf"))
ODD_TEXTS = (
    *("", " ", "0", "-1", "1e309", "nan", "inf", "1,5", "0x10", "\u00bd", "\u0663"),
    *("a" * 300, "\n", "\r\n", "\t", "\0", "\ud7ff\ue000", "\u202e", "\U0001f52c"),
    *("../../etc/passwd", "/dev/zero", "C:\\x", "~", "~nobody", ".", "..", "{}", "%s"),
    *("null", "true", "[]", "__class__", "$(id)", "caf\u00e9", "cafe\u0301", "*"),
)
_FIRST, _LAST = 512, 1024  # bytes; most of what formats say stands near the ends


def _place(size: int, rng: Random) -> int:
    """Choose a byte: near the beginning, near the end, or anywhere."""
    where = rng.random()
    if where < 0.4:
        return rng.randrange(min(size, _FIRST))
    if where < 0.6:
        return size - 1 - rng.randrange(min(size, _LAST))
    return rng.randrange(size)


def _flip(data: bytearray, rng: Random) -> None:
    data[_place(len(data), rng)] ^= 1 << rng.randrange(8)


def _number(data: bytearray, rng: Random) -> None:
    """Put a number of 1, 2, 4 or 8 bytes, of either order, often a telling one."""
    at, order = _place(len(data), rng), rng.choice("<>")
    if rng.random() < 0.2:
        packed = struct.pack(f"{order}d", rng.choice(_FLOATS))
    else:
        kind, size = rng.choice((("B", 1), ("H", 2), ("I", 4), ("Q", 8)))
        packed = struct.pack(order + kind, rng.choice(_INTEGERS) % (1 << 8 * size))
    data[at : at + len(packed)] = packed


def _replace(data: bytearray, rng: Random) -> None:
    """Put nothing, random bytes, bytes from elsewhere or equal ones there."""
    at, other = _place(len(data), rng), _place(len(data), rng)
    size = rng.choice((1, 1, 2, 4, 12, 16, 64, 512))
    same = bytes([rng.choice((0, 0, 255, 32))]) * size
    put = rng.choice((b"", rng.randbytes(size), data[other : other + size], same))
    data[at : at + rng.choice((0, size, size))] = put


def _end(data: bytearray, rng: Random) -> None:
    del data[_place(len(data), rng) :]


_EDITS = (_flip, _number, _number, _end, *[_replace] * 4)


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """Damage a file in one to eight places."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        if not found:
            break
        rng.choice(_EDITS)(found, rng)
    return bytes(found)


# Nested values, as JSON and YAML hold them.


def _nested(rng: Random) -> Any:
    """Build something deep, or long."""
    value: Any = rng.choice(_INTEGERS)
    for _ in range(rng.choice((3, 60, 900))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _odd(rng: Random) -> Any:
    """Choose a value that few expect."""
    return rng.choice(
        (
            lambda: None,
            lambda: rng.random() < 0.5,
            lambda: rng.choice(_INTEGERS),
            lambda: -rng.choice(_INTEGERS),
            lambda: rng.choice(_FLOATS),
            lambda: rng.choice(ODD_TEXTS),
            list,
            dict,
            lambda: [rng.choice(_INTEGERS)] * rng.choice((1, 2, 3, 50)),
            lambda: {rng.choice(ODD_TEXTS): rng.choice(_FLOATS)},
            lambda: _nested(rng),
        )
    )()


def _changed(value: Any, rng: Random) -> Any:
    """Change one node: its kind, its value, or how many there are."""
    choice = rng.random()
    if isinstance(value, bool) or value is None or choice < 0.4:
        return _odd(rng)
    if isinstance(value, int | float):
        near = (-value, value + 1, value - 1, value * 10**9, str(value), [value])
        return rng.choice((*near, {"value": value}))
    if isinstance(value, str):
        return rng.choice((damaged_text(value, rng), [value], {value: value}))
    if isinstance(value, list):
        copied = list(value)
        if copied and choice < 0.7:
            del copied[rng.randrange(len(copied))]
        else:
            copied.append(rng.choice(copied) if copied else _odd(rng))
        return copied if choice < 0.9 else dict(enumerate(value))
    copied = dict(value)
    if copied and choice < 0.7:
        key = rng.choice(list(copied))
        kept = copied.pop(key)
        if choice < 0.5:
            copied[damaged_text(str(key), rng)] = kept
    else:
        copied[rng.choice(ODD_TEXTS)] = _odd(rng)
    return copied if choice < 0.95 else list(value)


def _damaged_once(value: Any, rng: Random) -> Any:
    """Copy a value with one of its nodes changed, at whatever depth."""
    if not isinstance(value, dict | list) or not value or rng.random() >= 0.75:
        return _changed(value, rng)
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copied[key] = _damaged_once(copied[key], rng)
    return copied


def damaged_value(value: Any, rng: Random) -> Any:
    """Damage nested tables and lists in one to four of their nodes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _damaged_once(value, rng)
    return value


def damaged_json(text: str | bytes, rng: Random) -> bytes:
    """Damage JSON: mostly what it says, now and then its letters."""
    plain = text if isinstance(text, bytes) else text.encode()
    kind = rng.random()
    if kind < 0.2:
        return damaged_bytes(plain, rng)
    if kind < 0.22:  # deeper than any stack
        return rng.choice((b"[", b'{"a":')) * 100_000
    value = damaged_value(json.loads(plain), rng)
    return json.dumps(value).encode("utf-8", "replace")


def damaged_lines(data: bytes, rng: Random) -> bytes:
    """Damage a text, now and then its bytes."""
    if rng.random() < 0.2:
        return damaged_bytes(data, rng)
    return damaged_text(data.decode(), rng).encode("utf-8", "replace")


def damaged_text(text: str, rng: Random) -> str:
    """Damage a text: letters, lines, words."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((0, 1, 2, 10)))
        put = rng.choice((*ODD_TEXTS, chr(rng.randrange(1, 0xD800)), ",", ";", '"'))
        if rng.random() < 0.15:
            put = text[:at][-20:]
        text = text[:at] + put + text[end:]
    return text


# Command lines.


def damaged_words(words: Sequence[str], rng: Random, known: Sequence[str]) -> list[str]:
    """Damage a command line: words left out, doubled, moved, odd; or words besides.

    `known`: flags and values that the command may understand.
    """
    found = [str(word) for word in words]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(len(found) + 1)
        kind = rng.random()
        if kind < 0.45 and known:
            found[at:at] = [rng.choice(known), _value(rng, known)][: rng.choice((1, 2))]
        elif at == len(found):
            found.append(_value(rng, known))
        elif kind < 0.65:
            found[at] = _value(rng, known)
        elif kind < 0.75:
            del found[at]
        elif kind < 0.85:
            found[at] = damaged_text(found[at], rng)
        elif kind < 0.95:
            found.insert(rng.randrange(len(found) + 1), found.pop(at))
        else:
            found.append(found[at])
    # a process cannot be given these at all
    return [
        word.replace("\0", "").encode("utf-8", "replace").decode() for word in found
    ]


def _value(rng: Random, known: Sequence[str]) -> str:
    """Choose what an option may be given."""
    pair = rng.choice(("{0}x{1}", "{0},{1}", "{0}:{1}", "{0}px", "{0}nm", "{0}%"))
    values = (
        rng.choice(known or ODD_TEXTS),
        rng.choice(ODD_TEXTS),
        rng.choice((1, -1)) * rng.choice(_INTEGERS),
        rng.choice((1, -1)) * rng.choice(_FLOATS),
        pair.format(rng.choice(_INTEGERS), rng.choice(_INTEGERS)),
    )
    return str(rng.choice(values))
