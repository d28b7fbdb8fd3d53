"""Whether a store is of the same making as one that would be begun now."""

from typing import Any

from napari_semsr.io.record import Record

__all__ = ["changed_parts"]

_PARTS = {
    "inputs": "input",
    "model_name": "model",
    "model_digest": "model",
    "pixel_size_nm": "pixel size",
    "spacing_px": "pixel size",
}


def changed_parts(found: Record | None, wanted: Record) -> list[str]:
    """Name what is not as it was when a store was begun.

    Parameters
    ----------
    found : Record or None
        What the store says of itself.
    wanted : Record
        What it would say if it were begun now.

    Returns
    -------
    list of str
        In a user's words; empty where the store can be resumed.
    """
    if found is None:
        return ["record"]
    before, now = _making(found), _making(wanted)
    old, new = before.pop("provenance") or {}, now.pop("provenance") or {}
    asked = _asked(old), _asked(new)
    pairs = [(before, now), (old, new), asked]
    keys = [k for a, b in pairs for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
    return list(dict.fromkeys(_PARTS.get(key, key) for key in keys))


def _asked(made: dict[str, Any]) -> dict[str, Any]:
    """Take the options, those of reading among them, out of a history."""
    options = made.pop("options", None) or {}
    reading = options.get("reading")
    if isinstance(reading, dict):
        options = {**{k: v for k, v in options.items() if k != "reading"}, **reading}
    return {f"option {name}": value for name, value in options.items()}


def _making(record: Record) -> dict[str, Any]:
    """Tell what must be equal for a run to be resumed."""
    values = record.to_dict()
    made = values["provenance"]
    if made is not None:
        values["provenance"] = {
            key: made[key] for key in made if key not in ("created", "versions")
        }
    return values
