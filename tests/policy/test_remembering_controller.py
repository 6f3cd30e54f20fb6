"""A controller of a policy that remembers, step by step, with plans written by hand: what it recalls and plays.

The arm's tokens are 3 steps, it remembers 4 of them, plans anew every 3 steps and hands out 4 actions.
"""

from typing import Any

import numpy as np
import pytest
from tests.policy.steps import ACTIONS, act, plan, seen

from forcing.policy.controller import Controller, NoPlan
from forcing.policy.policy import FARTHEST, Policy
from forcing.policy.recalling import recalled
from forcing.policy.types import Obstacles, Recalled


@pytest.fixture
def controller(remembering: Policy) -> Controller:
    return Controller(remembering, goal=None, seed=7)


def _recalled(controller: Controller, **fields: Any) -> Recalled:
    """What a plan is made from at this step, at which one must be due."""
    controller.observe(seen(controller.step), **fields)
    request = controller.request()
    assert request is not None
    assert (request.step, request.seed, request.frames, request.goal) == (controller.step, 7, {}, None)
    assert request.recalled is not None
    return request.recalled


def test_an_episode_begins_with_one_token_and_no_action(controller: Controller) -> None:
    recalled = _recalled(controller, noise={"hand": 0.02})
    np.testing.assert_array_equal(recalled.values["hand"], [[0.0, 0.0]])
    np.testing.assert_array_equal(recalled.values["load"], [0.0])
    assert recalled.noise["hand"].tolist() == [0.02]
    assert recalled.noise["load"].tolist() == [0.0], "who says nothing is taken at his word"
    assert recalled.actions.shape == (0, 3, 2)


def test_a_plan_is_due_every_token_and_made_from_the_episode_up_to_now(controller: Controller) -> None:
    decisions = []
    for step in range(9):
        controller.observe(seen(step))
        request = controller.request()
        assert (request is not None) == (step % 3 == 0)
        if request is not None:
            controller.install(plan(request))
        decisions.append(controller.decide())
    assert [decision.source for decision in decisions] == ["fresh", "plan", "plan"] * 3
    recalled = _recalled(controller)
    np.testing.assert_allclose(recalled.values["load"], [0.0, 0.3, 0.6, 0.9])
    np.testing.assert_allclose(recalled.values["hand"][:, 0], [0.0, 0.03, 0.06, 0.09])
    sent = np.array([decision.action for decision in decisions])
    np.testing.assert_array_equal(recalled.actions, sent.reshape(3, 3, 2))
    np.testing.assert_allclose(recalled.actions[1], ACTIONS[:3], atol=1e-6)


def test_what_a_server_cut_further_is_what_was_done(controller: Controller) -> None:
    for _ in range(3):
        act(controller)
        controller.correct(np.array([0.3, 0.3]))
    np.testing.assert_array_equal(_recalled(controller).actions, np.full((1, 3, 2), 0.3))


def test_what_was_missing_or_wild_is_recalled_as_not_known(controller: Controller) -> None:
    act(controller, noise={"load": 0.5})
    act(controller)
    act(controller)
    act(controller, {"load": np.array(0.3)}, missing=["hand"])
    act(controller)
    act(controller)
    wild = 2 * FARTHEST * np.ones(2)
    controller.observe({"hand": wild, "load": np.array(0.6)}, noise={"hand": 0.1})
    request = controller.request()
    assert request is not None
    assert request.recalled is not None
    recalled = request.recalled
    np.testing.assert_allclose(recalled.values["hand"], [[0.0, 0.0], [np.nan, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(recalled.noise["hand"], [0.0, np.inf, np.inf])
    np.testing.assert_allclose(recalled.values["load"], [0.0, 0.3, 0.6])
    np.testing.assert_array_equal(recalled.noise["load"], [0.5, 0.0, 0.0])
    controller.install(plan(request))
    decision = controller.decide()
    assert (decision.sensors["hand"].rejected, decision.sensors["hand"].unheard_steps) == (True, 1)


def test_a_plan_is_due_although_nothing_is_seen(controller: Controller) -> None:
    controller.observe({}, missing=["hand", "load"])
    request = controller.request()
    assert request is not None
    assert request.recalled is not None
    assert np.isnan(request.recalled.values["hand"]).all()
    assert np.isinf(request.recalled.noise["load"]).all()


def test_steps_that_the_robot_played_of_its_own_are_in_its_memory_unseen(controller: Controller) -> None:
    act(controller)
    act(controller)
    own = np.array([[0.3, 0.1], [0.31, 0.11], [0.32, 0.12], [0.33, 0.13]])
    controller.played(own)
    recalled = _recalled(controller)
    assert controller.step == 6
    np.testing.assert_allclose(recalled.values["load"], [0.0, np.nan, 0.6])  # steps 0, 3 and 6
    np.testing.assert_array_equal(recalled.noise["load"], [0.0, np.inf, 0.0])
    np.testing.assert_allclose(recalled.actions[0], [ACTIONS[0], ACTIONS[1], own[0]], atol=1e-6)
    np.testing.assert_array_equal(recalled.actions[1], own[1:])


def test_a_long_silence_is_remembered_as_one_and_not_as_a_new_episode(controller: Controller) -> None:
    act(controller)
    controller.played(np.full((8, 2), 0.4))  # 0.8 s
    recalled = _recalled(controller)
    np.testing.assert_allclose(recalled.values["load"], [0.0, np.nan, np.nan, 0.9])
    controller.played(np.full((60, 2), 0.4))
    recalled = _recalled(controller)
    np.testing.assert_allclose(recalled.values["load"], [np.nan, np.nan, np.nan, 6.9])


def test_a_step_that_nobody_tells_of_has_unknown_actions(controller: Controller) -> None:
    for step in range(3):
        controller.observe(seen(step))
        controller.passed()
    recalled = _recalled(controller)
    np.testing.assert_allclose(recalled.values["load"], [0.0, 0.3])
    assert np.isnan(recalled.actions).all()


def test_a_plan_that_comes_late_is_followed_from_where_it_was_made_for(controller: Controller) -> None:
    for _ in range(3):
        act(controller)
    controller.observe(seen(3))
    request = controller.request()
    assert request is not None
    late = plan(request, ACTIONS + 0.1)
    followed = [controller.decide()]  # of the plan at hand, made at step 0
    controller.observe(seen(4))
    followed.append(controller.decide())
    for decision, expected in zip(followed, ACTIONS[3:5], strict=True):
        np.testing.assert_allclose(decision.action, expected, atol=1e-6)
        assert decision.source == "plan"
    controller.observe(seen(5))
    controller.install(late)
    decision = controller.decide()
    np.testing.assert_allclose(decision.action_chunk, (ACTIONS + 0.1)[[2, 3, 4, 5]], atol=1e-6)
    assert (decision.source, decision.valid_until_step) == ("plan", 8)
    # The next is due a token after this one was asked for, and remembers in tokens that end now.
    controller.observe(seen(6))
    request = controller.request()
    assert request is not None
    assert request.recalled is not None
    np.testing.assert_allclose(request.recalled.values["load"], [0.0, 0.3, 0.6])


def test_tokens_are_counted_from_now_wherever_now_is(controller: Controller) -> None:
    for _ in range(3):
        act(controller)
    controller.played(np.zeros((1, 2)) + 0.4)  # no plan was asked for at step 3
    recalled = _recalled(controller)
    np.testing.assert_allclose(recalled.values["load"], [0.1, 0.4])
    np.testing.assert_allclose(recalled.actions, [[ACTIONS[1], ACTIONS[2], [0.4, 0.4]]], atol=1e-6)


@pytest.mark.parametrize("steps", [11, 12, 13, 50])
def test_no_more_is_remembered_than_the_policy_was_trained_on(controller: Controller, steps: int) -> None:
    for _ in range(steps):
        act(controller)
    controller.observe(seen(steps))
    request = controller.request()
    shown = (request and request.recalled) or recalled(controller.policy, controller._history, controller._sent)
    newest = list(range(steps, -1, -3))[:4][::-1]
    np.testing.assert_allclose(shown.values["load"], np.array(newest) / 10)
    assert shown.actions.shape == (3, 3, 2)
    np.testing.assert_allclose(shown.actions[-1, -1], ACTIONS[(steps - 1) % 3], atol=1e-6)
    assert max(len(controller._history), len(controller._sent)) <= 12


def test_without_a_plan_nothing_is_decided_and_the_step_may_be_observed_again(controller: Controller) -> None:
    assert controller.lacks_plan
    controller.observe(seen(5))
    request = controller.request()
    assert request is not None
    with pytest.raises(NoPlan, match=r"policy '.*' has no plan at step 0, and no action to hold with"):
        controller.decide()
    assert controller.step == 0
    controller.observe(seen(0))
    controller.install(plan(request))
    assert not controller.lacks_plan
    np.testing.assert_allclose(controller.decide().action, ACTIONS[0], atol=1e-6)
    for _ in range(2):
        act(controller)
    np.testing.assert_allclose(_recalled(controller).values["load"], [0.0, 0.3])


def test_a_policy_that_does_not_remember_holds_as_ever(policy: Policy) -> None:
    controller = Controller(policy, goal=None, seed=0)
    assert not controller.lacks_plan
    controller.observe({"position": np.zeros(2), "velocity": np.zeros(2)})
    assert controller.decide().source == "hold"


def test_goals_and_obstacles_are_refused(controller: Controller) -> None:
    with pytest.raises(ValueError, match=r"goal must be absent: policy '.*' has no goal stream"):
        controller.set_goal(np.zeros(2))
    with pytest.raises(ValueError, match=r"obstacles must be absent: policy '.*' knows no places to stay out of"):
        controller.set_obstacles(Obstacles(centres=np.zeros((1, 2)), radii=np.ones(1)))
    controller.set_obstacles(None)


def test_the_policys_own_plans_are_followed_within_its_limits(remembering: Policy) -> None:
    def driven(seed: int) -> list[list[float]]:
        controller, actions = Controller(remembering, goal=None, seed=seed), []
        for step in range(8):
            controller.observe(seen(step))
            if (request := controller.request()) is not None:
                controller.install(remembering.plan(request))
            actions.append(controller.decide().action.tolist())
        return actions

    actions = driven(1)
    assert driven(1) == actions
    assert driven(2) != actions
    assert (np.array(actions) >= [0.25, -0.5]).all()
    assert (np.array(actions) <= [0.75, 0.5]).all()
