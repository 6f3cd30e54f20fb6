"""Frozen config dataclasses to JSON and back, and overridden by text; an unknown key is an error."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from forcing.policy.names import UnknownName, did_you_mean

Config = TypeVar("Config")

_WORDS: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, NoneType: {"none": None}}


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
        nested = _nested(hints[key])
        if nested is not None and not (value is None and nested is not hints[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name}.{key} must have keys of its own, got {value!r}")
            value = from_json(nested, value, f"{name}.{key}")
        elif isinstance(value, list):
            value = tuple(value)
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def override(config: Config, *settings: str) -> Config:
    """`config` with every `key=value` of `settings` in place, the key dotted: `denoiser.kind=recurrent`.

    Values are read by the type of the field: numbers, true and false, one of the known words, none where that is
    allowed. All are put in place together, since one alone may not be allowed (shares that must sum to 1); of two for
    the same field the last counts. An optional config that is not there begins with its defaults. Raises ValueError,
    naming key, rule and value, if a value does not fit or the dataclass refuses it, UnknownName if there is no such
    key.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        key, given, value = setting.partition("=")
        if not given:
            raise ValueError(f"a setting must be KEY=VALUE, such as denoiser.kind=recurrent, got {setting!r}")
        *folders, name = key.split(".")
        place = changes
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ValueError(f"{key} must not be set where {folder} is set whole, to {place!r}; leave one out")
        place[name] = value
    return _changed(config, changes, "")


def _changed(config: Config, changes: Mapping[str, Any], path: str) -> Config:
    """changes: field -> text, or changes of the config that the field holds. path: of this config, ends with a dot."""
    hints = get_type_hints(type(config))
    values = {}
    for name, change in changes.items():
        if name not in hints:
            raise UnknownName(
                f"unknown setting {path + name!r}; {did_you_mean(path + name, [path + known for known in hints])}"
            )
        nested = _nested(hints[name])
        if not isinstance(change, Mapping):
            values[name] = _read(hints[name], change, path + name)
        elif nested is None:
            raise UnknownName(f"unknown setting '{path}{name}.{next(iter(change))}'; {path}{name} is a value itself")
        else:
            values[name] = _changed(getattr(config, name) or nested(), change, f"{path}{name}.")
    try:
        return replace(config, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise ValueError(f"{path}{error}") from error


def _nested(hint: Any) -> Any:
    """The dataclass that a field holds, or may hold; None if it holds something else."""
    return next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)


def _read(hint: Any, text: str, name: str) -> Any:
    """`text` as a value of the type `hint`, the first of its alternatives that fits; `none` is no name."""
    rules = []
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    for kind in sorted(kinds, key=lambda kind: kind is str):
        try:
            return _parsed(kind, text)
        except ValueError as error:
            rules.append(str(error))
    raise ValueError(f"{name} must be {' or '.join(rules)}, got {text!r}")


def _parsed(kind: Any, text: str) -> Any:
    """`text` as a value of one type. Raises ValueError with what it should have been."""
    words = {word: word for word in get_args(kind)} if get_origin(kind) is Literal else _WORDS.get(kind)
    if words is not None:
        if text in words:
            return words[text]
        raise ValueError(f"one of {', '.join(words)}" if len(words) > 1 else next(iter(words)))
    if kind is str:
        return text
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
        raise ValueError("a whole number" if kind is int else "a finite number")
    if is_dataclass(kind):
        raise ValueError(f"set key by key ({', '.join(entry.name for entry in fields(kind))})")
    raise ValueError("left as it is, text cannot say it")
