"""Settings given as text."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from forcing.policy.config import override
from forcing.policy.names import UnknownName
from forcing.policy.preset import PRESETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    share: float = 0.5
    rest: float = 0.5

    def __post_init__(self) -> None:
        if self.share + self.rest != 1:
            raise ValueError(f"share and rest must sum to 1, got {self.share + self.rest:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    count: int = 1
    scale: float = 1.0
    flag: bool = False
    word: str = "a"
    kind: Literal["left", "right"] = "left"
    most: int | None = 3
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    other: Inner | None = None


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("count=7", "count", 7),
        ("scale=2", "scale", 2.0),
        ("scale=1e-3", "scale", 0.001),
        ("flag=true", "flag", True),
        ("word=x=y", "word", "x=y"),
        ("kind=right", "kind", "right"),
        ("most=none", "most", None),
        ("most=4", "most", 4),
    ],
)
def test_a_value_is_read_by_the_type_of_its_field(setting: str, field: str, value: object) -> None:
    changed = override(Outer(), setting)
    assert changed == replace(Outer(), **{field: value})  # type: ignore[arg-type]
    assert type(getattr(changed, field)) is type(value)


def test_nested_settings_are_put_in_place_together() -> None:
    changed = override(Outer(), "inner.share=0.25", "count=2", "inner.rest=0.75")
    assert changed == Outer(count=2, inner=Inner(share=0.25, rest=0.75))


def test_an_optional_config_begins_with_its_defaults_and_can_be_taken_away() -> None:
    changed = override(Outer(), "other.share=1", "other.rest=0")
    assert changed.other == Inner(share=1.0, rest=0.0)
    assert override(changed, "other=none").other is None


def test_of_two_values_the_last_counts_and_none_at_all_changes_nothing() -> None:
    assert override(Outer(), "count=2", "count=3").count == 3
    assert override(Outer()) == Outer()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("count", "a setting must be KEY=VALUE, such as denoiser.kind=recurrent, got 'count'"),
        ("count=1.5", "count must be a whole number, got '1.5'"),
        ("scale=fast", "scale must be a finite number, got 'fast'"),
        ("scale=nan", "scale must be a finite number, got 'nan'"),
        ("flag=1", "flag must be one of true, false, got '1'"),
        ("kind=up", "kind must be one of left, right, got 'up'"),
        ("most=many", "most must be a whole number or none, got 'many'"),
        ("sizes=1", "sizes must be left as it is, text cannot say it, got '1'"),
        ("inner=1", "inner must be set key by key (share, rest), got '1'"),
        ("inner.share=0.2", "inner.share and rest must sum to 1, got 0.7"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_key_rule_and_value(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        override(Outer(), setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cuont=2", "unknown setting 'cuont'; did you mean 'count'?"),
        ("inner.shade=1", "unknown setting 'inner.shade'; did you mean 'inner.share'?"),
        ("iner.share=1", "unknown setting 'iner'; did you mean 'inner'?"),
        ("count.more=2", "unknown setting 'count.more'; count is a value itself"),
    ],
)
def test_an_unknown_key_is_answered_by_the_nearest(setting: str, message: str) -> None:
    with pytest.raises(UnknownName, match=re.escape(message)):
        override(Outer(), setting)


def test_a_config_is_not_set_whole_and_key_by_key_at_once() -> None:
    with pytest.raises(ValueError, match=r"other\.share must not be set where other is set whole, to 'none'"):
        override(Outer(), "other=none", "other.share=1")


def test_every_number_and_word_of_the_presets_can_be_set_to_what_it_is() -> None:
    def leaves(config: Any, path: str = "") -> list[str]:
        found = []
        for name in config.__dataclass_fields__:
            value = getattr(config, name)
            if hasattr(value, "__dataclass_fields__"):
                found += leaves(value, f"{path}{name}.")
            else:
                word = str(value).lower() if value is None or isinstance(value, bool) else value
                found.append(f"{path}{name}={word}")
        return found

    for preset in PRESETS.values():
        settings = leaves(preset)
        assert "denoiser.kind=transformer" in settings
        assert override(preset, *settings) == preset
