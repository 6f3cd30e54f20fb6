"""What is chosen for recordings at robots' usual rates, from one-second episodes to ten-minute ones."""

import numpy as np
import pytest

from forcing.policy.config import override
from forcing.policy.inferring import inferred, told
from forcing.policy.preset import PRESETS
from forcing.policy.types import StreamSpec, TrajectorySpec

RATES = (5, 10, 20, 30, 50, 100)
EPISODES_S = (1, 2, 5, 20, 60, 600)


def _spec(
    hz: float, *, state: int = 14, goal: bool = False, camera: bool = False, rates: bool = False
) -> TrajectorySpec:
    streams = [StreamSpec(name="state", role="observation", shape=(state,))]
    if rates:
        streams.append(StreamSpec(name="speed", role="observation", shape=(state,), rate_of="state"))
    if camera:
        streams.append(StreamSpec(name="front", role="observation", shape=(96, 96, 3)))
    streams.append(StreamSpec(name="action", role="action", shape=(7,)))
    return TrajectorySpec(streams=tuple(streams), control_hz=hz, goal="state" if goal else None)


@pytest.mark.parametrize("seconds", EPISODES_S)
@pytest.mark.parametrize("hz", RATES)
def test_tokens_are_a_tenth_to_four_tenths_of_a_second_and_plans_go_as_far_as_most_episodes(
    hz: int, seconds: int
) -> None:
    lengths = np.full(40, hz * seconds)
    preset, choices = inferred(_spec(hz), lengths)
    layout = preset.layout
    ahead_s = layout.horizon * layout.token_steps / hz
    assert 0.1 <= layout.token_steps / hz <= 0.4
    assert layout.horizon * layout.token_steps <= hz * seconds
    # 1.5 to 3 s, or an episode that is shorter but for less than a token.
    assert (1.5 <= ahead_s <= 3.0) or seconds - layout.token_steps / hz < ahead_s <= seconds
    assert 1 <= preset.planner.replan_steps <= layout.horizon * layout.token_steps
    assert 0.1 <= preset.planner.replan_steps / hz <= 0.3
    assert layout.frames <= 8
    assert preset.tracker.kind == "actions"
    horizon = next(choice for choice in choices if choice.key == "layout.horizon")
    assert horizon.why.endswith("no episode is shorter")


@pytest.mark.parametrize("hz", RATES)
def test_a_goal_is_led_to_as_far_as_episodes_and_sixteen_tokens_go(hz: int) -> None:
    for seconds, tokens in ((4, 4 * hz), (600, 600 * hz)):
        layout = inferred(_spec(hz, goal=True), np.full(9, tokens))[0].layout
        assert layout.horizon == min(16, seconds * hz // layout.token_steps)


def test_few_short_episodes_change_nothing_and_their_share_is_said() -> None:
    mostly = np.array([3, 12] + [200] * 38)
    preset, choices = inferred(_spec(10), mostly)
    assert preset == inferred(_spec(10), np.full(40, 200))[0]
    said = "\n".join(told(choices, ()))
    assert "layout.horizon = 5: 2 s ahead, of about 2 s wanted; 5% of the episodes are shorter" in said
    assert "layout.token_steps = 4: 0.4 s a token at 10 Hz; 2% of the episodes are shorter than that and not" in said


def test_where_many_episodes_are_short_plans_are_as_short() -> None:
    layout = inferred(_spec(10), np.array([8] * 20 + [200] * 20))[0].layout
    assert (layout.token_steps, layout.horizon) == (2, 4)


@pytest.mark.parametrize("hz", [0.2, 1, 2])
def test_a_robot_slower_than_a_token_has_a_token_a_step(hz: float) -> None:
    layout = inferred(_spec(hz), np.full(5, 100))[0].layout
    assert (layout.token_steps, layout.stride) == (1, 1)
    assert layout.horizon == max(1, round(2 * hz))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_episodes_still_have_a_plan(length: int) -> None:
    layout = inferred(_spec(50), np.full(5, length))[0].layout
    assert layout.horizon * layout.token_steps <= length


def test_two_frames_are_shown_where_no_rates_are_recorded() -> None:
    long = np.full(5, 1000)
    assert inferred(_spec(20), long)[0].planner.history_frames == 2
    assert inferred(_spec(20, rates=True), long)[0].planner.history_frames == 1
    assert inferred(_spec(2), long)[0].planner.history_frames == 1  # a token has no second frame


def test_the_network_grows_with_what_a_token_holds() -> None:
    long = np.full(5, 1000)
    widths = [
        inferred(spec, long)[0].denoiser.width
        for spec in (_spec(10, state=2), _spec(20, state=14, camera=True), _spec(20, state=300))
    ]
    assert widths == [96, 128, 192]  # 4·9, 8·(21 + 32) and 8·307 numbers


def test_settings_win_and_their_line_says_so() -> None:
    preset, choices = inferred(_spec(10), np.full(5, 1000))
    settings = ("layout.horizon=12", "planner.replan_steps=1")
    lines = told(choices, settings)
    assert "layout.horizon = 12, as --set says (inferred: 5)" in lines
    assert "planner.replan_steps = 1, as --set says (inferred: 2)" in lines
    assert len(lines) == len(choices)
    changed = override(preset, *settings)
    assert (changed.layout.horizon, changed.planner.replan_steps) == (12, 1)
    for choice in choices:  # every key is one that --set knows, and means what was chosen
        assert override(preset, f"{choice.key}={choice.value}") == preset


def test_the_rest_is_the_preset_for_recordings_that_nobody_tuned_for() -> None:
    preset, generic = inferred(_spec(10), np.full(5, 1000))[0], PRESETS["generic"]
    assert (preset.name, preset.noise, preset.levels, preset.tracker, preset.belief) == (
        "generic",
        generic.noise,
        generic.levels,
        generic.tracker,
        generic.belief,
    )
