"""Values that mean harm, and how they get into whole tables, lists and texts."""

import json
import re
from random import Random
from typing import Any

import numpy as np
import yaml

from tests.hostile.watch import WATCH

_NAMES = (
    *("\x1b]0;owned\x07", "\x9b31mred", "\x1b[2J", "a\nsemsr: all is well", "\r", "\0"),
    *("\u202egnp.exe", "\u2028", "\x7f\x08\x08", "\ud800", "x\udcff", "\ufffe"),
    *("=cmd|' /C calc'!A0", "+1+cmd|x", "-2+3", "@SUM(1)", "\uff1d1", "\t=1", "%00"),
    *("<script>alert(1)</script>", '"><img src=x onerror=y>', "{{7*7}}", "${HOME}"),
    *("$(touch owned)", "`id`", "; rm -rf .", "%n%s%x", "{0.__class__}", "{name!r}"),
    *("__import__('os').system('id')", "!!python/object/apply:os.system [id]"),
    *("NUL", "con.tif", "a" * 5000, "..", ".", "-", "--overwrite", "--scheduler=x"),
)
_ADDRESSES = (
    *("http://127.0.0.1:9/x.tif", "https://localhost:9/model.safetensors", "tcp://"),
    *("tcp://127.0.0.1:9", "s3://bucket/store.zarr", "gs://bucket/x", "127.0.0.1:9"),
    *("ftp://127.0.0.1/x", "//127.0.0.1/share/x.tif", "\\\\127.0.0.1\\share\\x.tif"),
    *("zip::http://127.0.0.1:9/a.zip", "memory://x", "github://a:b@c/x", "data:,x"),
    *("simplecache::http://127.0.0.1:9/x", "hf://model", "doi:10.1000/1", "unix:///x"),
)
_SIZES: tuple[Any, ...] = (
    *(-1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**18, 10**400),
    *(-(2**31), -(10**30), 1e-320, 1e-300, 1e12, 1e300, -1e308, 0.0, -0.0, 5e-9),
    *(float("nan"), float("inf"), -float("inf")),
)


def hostile_path(rng: Random) -> str:
    """Choose a path that leads out: from here, from the top, from home, by a scheme."""
    known = ("secret.tif", "secret.ome.zarr", "secret.h5", "raw.bin", "tiny.yaml")
    name = rng.choice((*known, "tiny.safetensors", "new.tif", "new", "folder/../new"))
    bait = WATCH.bait
    return rng.choice(
        (
            f"../bait/{name}",
            f"../../bait/{name}",
            f"{bait}/{name}",
            f"{bait}//./{name}",
            f"file://{bait}/{name}",
            f"file:///{name}",
            f"~/{name}",
            f"~root/{name}",
            f"a/../../bait/{name}",
            f"..\\bait\\{name}",
            f"zip://{bait}/{name}",
            f"C:\\{name}",
            f"made/../../bait/{name}",
            rng.choice(("/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/passwd")),
        )
    )


def hostile_text(rng: Random) -> str:
    """Choose a path, an address or a name."""
    kind = rng.random()
    if kind < 0.45:
        return hostile_path(rng)
    return rng.choice(_ADDRESSES if kind < 0.65 else _NAMES)


def hostile_number(rng: Random) -> Any:
    """Choose a size that few expect."""
    return rng.choice(_SIZES)


def _other(value: Any, rng: Random) -> Any:
    """Put something hostile in the place of a value, mostly of its own kind."""
    if rng.random() < 0.1:
        return rng.choice((hostile_text(rng), hostile_number(rng), [hostile_text(rng)]))
    if isinstance(value, bool) or value is None:
        return rng.choice((not value, hostile_text(rng), hostile_number(rng)))
    if isinstance(value, int | float):
        number = hostile_number(rng)
        whole = isinstance(number, int) or not np.isfinite(number)
        return number if whole or isinstance(value, float) else int(number)
    return hostile_text(rng)


def _put(value: Any, rng: Random) -> Any:
    """Put something hostile in one place of a value, at whatever depth."""
    if not isinstance(value, dict | list) or not value:
        return _other(value, rng)
    kind = rng.random()
    key = rng.choice([*value] if isinstance(value, dict) else range(len(value)))
    if kind < 0.85:
        value[key] = _put(value[key], rng)
    elif isinstance(value, list):
        value.append(_other(value[0], rng))
    else:
        value[hostile_text(rng)] = value.pop(key) if kind < 0.9 else _other("", rng)
    return value


def hostile_value(value: Any, rng: Random) -> Any:
    """Put hostile values into one to four places of nested tables and lists."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _put(value, rng)
    return value


def hostile_json(data: str | bytes, rng: Random) -> bytes:
    """Put hostile values into JSON; surrogates are written as JSON has them."""
    return json.dumps(hostile_value(json.loads(data), rng)).encode()


def hostile_yaml(data: bytes, rng: Random) -> bytes:
    return hostile_json(json.dumps(yaml.safe_load(data)), rng)


_ATTRIBUTE = re.compile(r'(?<==")[^"<>]*(?=")')
_BETWEEN = re.compile(r"(?<=>)[^<>]+(?=</)")
_ENTITY = '<!DOCTYPE a [<!ENTITY e SYSTEM "file://{}/raw.bin">{}]>'
_LAUGHS = '<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 30}">'
    for old, new in zip("abcdf", "bcdfg", strict=True)
)


def hostile_xml(text: str, rng: Random) -> str:
    """Put hostile values into attributes and between tags, and entities before."""
    for pattern in (_ATTRIBUTE, _ATTRIBUTE, _BETWEEN):
        found = list(pattern.finditer(text))
        if found and rng.random() < 0.7:
            hit = rng.choice(found)
            number = re.fullmatch(r"[\d.e-]+", hit[0]) and rng.random() < 0.7
            put = str(hostile_number(rng)) if number else hostile_text(rng)
            plain = put.encode("utf-8", "replace").decode()
            plain = re.sub(r"[\0-\x08\x0b-\x1f\ufffe]", "?", plain)
            for letter, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot")):
                plain = plain.replace(letter, f"&{name};")
            text = text[: hit.start()] + plain + text[hit.end() :]
    if rng.random() < 0.15:
        more = rng.choice(("", _LAUGHS))
        name = "g" if more else "e"
        head, mark, rest = text.partition("?>")
        body = rest if mark else text
        told = _ENTITY.format(WATCH.bait, more) + _BETWEEN.sub(f"&{name};", body, 1)
        text = head + mark + told if mark else told
    return text


def hostile_lines(text: str, rng: Random) -> str:
    """Put hostile values into a text: JSON or XML within it, or what lines say."""
    at = text.find("{")
    if at >= 0:
        try:
            value = json.loads(text[at:])
        except ValueError:
            pass
        else:
            return text[:at] + json.dumps(hostile_value(value, rng))
    if text.lstrip().startswith("<"):
        return hostile_xml(text, rng)
    mark = next((mark for mark in "=:;," if mark in text), None)
    cells = re.split(f"([{mark}\n])" if mark else "(\n)", text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        hit = 2 * rng.randrange((len(cells) + 1) // 2)
        is_number = re.fullmatch(r"\s*-?[\d.,e-]+( \w+)?\s*", cells[hit])
        if is_number and rng.random() < 0.7:
            cells[hit] = str(hostile_number(rng))
        else:
            put = hostile_text(rng)
            quoted = '"' + put.replace('"', '""') + '"'
            cells[hit] = quoted if mark in (",", ";") else put
    return "".join(cells)


def hostile_bytes(data: bytes, rng: Random) -> bytes:
    told = hostile_lines(data.decode("utf-8", "replace"), rng)
    return told.encode("utf-8", "surrogatepass" if rng.random() < 0.3 else "replace")
