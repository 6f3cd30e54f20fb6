"""Frozen config dataclasses to JSON and back; an unknown key is an error."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

Config = TypeVar("Config")


def from_json(kind: type[Config], document: Mapping[str, Any], name: str = "config") -> Config:
    """An instance of dataclass `kind`, nested and optional dataclasses included; lists become tuples.

    Raises ValueError on an unknown key, a missing key without default, or a value that the dataclass refuses.
    """
    hints = get_type_hints(kind)
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise ValueError(f"{name} has unknown keys {unknown}; known are {known}")
    values = {}
    for key, value in document.items():
        nested = next((hint for hint in (hints[key], *get_args(hints[key])) if is_dataclass(hint)), None)
        if nested is not None and not (value is None and nested is not hints[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name}.{key} must have keys of its own, got {value!r}")
            value = from_json(nested, value, f"{name}.{key}")  # type: ignore[arg-type]  # a class, as a type hint
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
