"""An arm that sees nothing waits where it is: what is remembered, planned and counted meanwhile.

The arm's tokens are 3 steps, and it plans anew every 3 steps. Without cameras it is blind when nothing is observed.
"""

from dataclasses import replace

import numpy as np
import pytest
from tests.policy.steps import ACTIONS, act, plan, seen

from forcing.policy.controller import Controller
from forcing.policy.memory import MemoryConfig
from forcing.policy.policy import Policy
from forcing.policy.types import Array, Decision

NAMES = ["hand", "load"]
MOST = 4  # steps


@pytest.fixture
def controller(remembering: Policy) -> Controller:
    assert remembering.preset.memory is not None
    policy = remembering.using(memory=replace(remembering.preset.memory, wait_steps=MOST))
    return Controller(policy, goal=None, seed=7)


def _blind(controller: Controller) -> Decision:
    return act(controller, {}, missing=NAMES)


def test_meanwhile_the_last_action_is_held_and_the_clock_goes_on(controller: Controller) -> None:
    before = [act(controller) for _ in range(2)]
    held = [_blind(controller) for _ in range(MOST)]
    assert [decision.step for decision in held] == [2, 3, 4, 5]
    assert controller.step == 6
    for decision in held:
        left = min(4, MOST - (decision.step - 2))
        np.testing.assert_array_equal(decision.action_chunk, np.tile(before[-1].action, (left, 1)))
        assert (decision.source, decision.valid_until_step) == ("hold", decision.step + left - 1)
        assert not decision.feasible
    assert [decision.sensors["hand"].unheard_steps for decision in held] == [1, 2, 3, 4]


def test_what_was_going_on_goes_on_where_it_stopped_and_remembers_nothing_of_it(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    for _ in range(3):
        _blind(controller)
    decision = act(controller, seen(2))  # at step 5, as if it were step 2
    np.testing.assert_allclose(decision.action, ACTIONS[2], atol=1e-6)
    assert decision.source == "plan"
    controller.observe(seen(3))
    request = controller.request()
    assert request is not None, "three steps that count after the last plan was asked for"
    assert request.recalled is not None
    assert request.step == 6
    np.testing.assert_allclose(request.recalled.values["load"], [0.0, 0.3])
    np.testing.assert_allclose(request.recalled.actions, ACTIONS[None, :3], atol=1e-6)


def test_it_goes_on_from_memory_in_the_end_and_waits_again_after_it_has_seen(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    decisions = [_blind(controller) for _ in range(MOST + 2)]
    assert [decision.source for decision in decisions] == ["hold"] * MOST + ["plan", "fresh"]
    assert act(controller).source == "plan"
    assert _blind(controller).source == "hold"


def test_one_sensor_that_is_heard_is_enough(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    assert act(controller, {"load": np.array(0.2)}, missing=["hand"]).source == "plan"


def test_the_step_observed_again_may_end_it(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    controller.observe({}, missing=NAMES)
    assert controller.request() is None
    controller.observe(seen(2))
    np.testing.assert_allclose(controller.decide().action, ACTIONS[2], atol=1e-6)


def test_a_plan_that_was_asked_for_before_is_followed_from_where_the_episode_stopped(controller: Controller) -> None:
    for _ in range(3):
        act(controller)
    controller.observe(seen(3))
    request = controller.request()
    assert request is not None
    controller.decide()
    for _ in range(2):
        _blind(controller)
    controller.observe(seen(4))
    controller.install(plan(request, ACTIONS + 0.1))
    np.testing.assert_allclose(controller.decide().action, ACTIONS[1] + 0.1, atol=1e-6)


def test_the_first_plan_is_followed_though_nothing_is_seen(controller: Controller) -> None:
    assert _blind(controller).source == "fresh"


@pytest.mark.parametrize("own", [np.full((2, 2), 0.4), None], ids=["played", "passed"])
def test_what_was_done_before_the_first_plan_is_not_held(controller: Controller, own: Array | None) -> None:
    if own is None:
        controller.observe(seen(0))
        controller.passed()
    else:
        controller.played(own)
    assert _blind(controller).source == "fresh"


def test_what_is_said_of_a_step_that_was_waited_changes_nothing_that_is_remembered(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    _blind(controller)
    controller.correct(np.array([0.9, 0.9]))
    act(controller, seen(2))
    controller.observe(seen(3))
    request = controller.request()
    assert request is not None
    assert request.recalled is not None
    np.testing.assert_allclose(request.recalled.actions, ACTIONS[None, :3], atol=1e-6)


def test_a_step_that_is_observed_again_as_blind_wins_no_time(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    for _ in range(MOST):
        _blind(controller)
    controller.observe(seen(2))
    assert _blind(controller).source == "plan"


@pytest.mark.parametrize("steps", [11, 12, 13])
def test_a_full_memory_loses_a_step_at_the_most(controller: Controller, steps: int) -> None:
    for _ in range(steps):
        act(controller)
    for _ in range(3):
        _blind(controller)
    controller.observe(seen(controller.step))
    while (request := controller.request()) is None:
        controller.decide()
        controller.observe(seen(controller.step))
    assert request.recalled is not None
    assert np.isfinite(request.recalled.values["load"]).all()


def test_what_a_robot_did_of_its_own_is_no_waiting(controller: Controller) -> None:
    for _ in range(2):
        act(controller)
    controller.played(np.full((1, 2), 0.4))
    controller.observe(seen(3))
    request = controller.request()
    assert request is not None
    assert request.recalled is not None
    np.testing.assert_allclose(request.recalled.values["load"], [0.0, 0.3])
    np.testing.assert_allclose(request.recalled.actions[0, -1], [0.4, 0.4])


def test_fewer_than_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="wait_steps must be at least 0, got -1"):
        MemoryConfig(wait_steps=-1)
