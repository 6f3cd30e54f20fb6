"""Recipes: settings that nothing would read are refused, and all that are shipped load."""

from dataclasses import replace

import pytest

from forcing.policy.config import override
from forcing.policy.policy import SHIPPED, load_policy
from forcing.policy.preset import PRESETS


@pytest.mark.parametrize(
    ("preset", "setting", "message"),
    [
        ("generic", "denoiser.dropout=0.1", r"denoiser.dropout must be 0.0 without memory, .*, got 0.1"),
        ("maze2d-large", "optimiser.precision=bfloat16", "optimiser.precision must be float32 without memory, .*16"),
        ("swap", "denoiser.causal=false", "denoiser.causal must be true with memory: .*, got false"),
        ("swap", "levels.goal_clean=0.5", r"levels must be left as they are with memory, .*goal_clean=0.5"),
        ("swap", "planner.attempts=3", "planner.attempts must be 1 with memory, .*, got 3"),
        ("metaworld", "planner.refine.rounds=5", r"planner.refine must be none with memory, .*, got RefineConfig"),
        ("swap", "planner.polish.rounds=2", r"planner.polish must be none with memory, .*, got PolishConfig"),
        ("remembering", "tracker.chunk_steps=11", "tracker.chunk_steps must be at most 10 with memory, .*, got 11"),
        ("swap-world", "planner.replan_steps=4", "planner.replan_steps must be at most 3 with memory, .*, got 4"),
        ("swap-world", "planner.keep=true", "planner.keep must be false with memory, .*, got true"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(preset: str, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(PRESETS[preset], setting)


@pytest.mark.parametrize(
    ("preset", "setting"),
    [
        ("swap", "denoiser.dropout=0.1"),
        ("swap", "optimiser.precision=bfloat16"),
        ("swap", "denoiser.kind=recurrent"),
        ("swap", "planner.samples=8"),
        ("swap", "planner.passes=3"),
        ("swap", "planner.replan_steps=10"),
        ("swap", "tracker.chunk_steps=10"),
        ("generic", "denoiser.causal=true"),
        ("generic", "levels.goal_clean=0.5"),
        ("generic", "planner.attempts=3"),
    ],
)
def test_one_that_is_read_is_not(preset: str, setting: str) -> None:
    assert override(PRESETS[preset], setting) != PRESETS[preset]


def test_presets_are_called_what_they_are_found_by() -> None:
    assert all(preset.name == name for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", sorted(folder.name for folder in SHIPPED.iterdir()))
def test_what_is_shipped_loads(name: str) -> None:
    policy = load_policy(name)
    assert replace(policy.preset) == policy.preset
