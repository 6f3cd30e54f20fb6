"""A controller step by step, with plans written by hand: whoever plans, the controller must follow.

The toy policy replans every 6 steps, holds within .25 m of its goal, looks 4 steps ahead with gain 10 and hands out 3
actions within -1 and 1. Its history is 8 steps long with frames 4 steps apart.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forcing.policy.controller import Controller
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy, load_policy
from forcing.policy.types import Array, Decision, Plan, SensorReport, TrajectorySpec

GOAL = np.array([2.0, 0.0])


def _seen(x: float = 0.0, y: float = 0.0) -> dict[str, Array]:
    return {"position": np.array([x, y]), "velocity": np.zeros(2)}


def _plan(step: int, *x: float, y: float = 0.0) -> Plan:
    """Along x, frames 4 steps apart."""
    frames = len(x)
    places = np.stack([np.array(x), np.full(frames, y)], axis=-1)
    streams = {"position": places, "velocity": np.zeros((frames, 2)), "action": np.zeros((frames, 2))}
    return Plan(
        made_at_step=step,
        start=_seen(),
        steps=4 * np.arange(1, frames + 1),
        streams=streams,
        level=np.arange(frames)[:, None] / 8 * np.array([1, 0.5, 0]),
        spread={name: np.arange(frames)[:, None] * np.array([0.3, 0.4]) for name in streams},
        candidates=places[None],
        costs=np.zeros(1),
        chosen=0,
        feasible=True,
        passes=1,
    )


TO_GOAL = (0.05, 0.1, 1.0, 2.0)


@pytest.fixture
def controller(policy: Policy) -> Controller:
    return Controller(policy, goal=GOAL, seed=0)


def _planned(controller: Controller, *x: float) -> Controller:
    """The controller, following a plan made for the observation of the origin at this step."""
    controller.observe(_seen())
    assert controller.request() is not None
    controller.install(_plan(controller.step, *(x or TO_GOAL)))
    return controller


def _follow(controller: Controller, steps: int, x: float) -> Decision:
    """So many steps at one place, during which no plan may be due; the last decision."""
    for _ in range(steps):
        controller.observe(_seen(x))
        assert controller.request() is None
        decision = controller.decide()
    return decision


def test_before_any_plan_the_robot_is_told_to_hold(controller: Controller) -> None:
    controller.observe(_seen())
    decision = controller.decide()
    assert (decision.source, decision.step, decision.valid_until_step) == ("hold", 0, 0)
    assert decision.action.tolist() == [0, 0]
    assert (decision.noise_level, decision.feasible, decision.clipped) == (1.0, False, False)


@pytest.mark.parametrize("feasible", [True, False])
def test_whether_the_plan_is_feasible_is_told_as_long_as_it_is_followed(controller: Controller, feasible: bool) -> None:
    controller.observe(_seen())
    assert controller.request() is not None
    controller.install(replace(_plan(0, *TO_GOAL), feasible=feasible))
    assert controller.decide().feasible is feasible
    assert _follow(controller, 3, 0.05).feasible is feasible


def test_a_plan_is_fresh_for_the_step_it_was_made_for_and_old_for_the_next(controller: Controller) -> None:
    _planned(controller)
    first = controller.decide()
    # Nearest is the start, so that (.05, 0), 4 steps ahead, is pursued.
    np.testing.assert_allclose(first.action, [0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(first.action_chunk[0], first.action)
    assert (first.source, first.step, first.valid_until_step) == ("fresh", 0, 2)
    assert first.action_chunk.shape == (3, 2)
    second = _follow(controller, 1, 0.05)
    assert (second.source, second.step, second.valid_until_step) == ("plan", 1, 3)


def test_level_and_spread_are_those_of_the_frame_that_is_followed(controller: Controller) -> None:
    _planned(controller, 0.1, 0.2, 0.3, 0.4)
    controller.decide()
    decision = _follow(controller, 1, 0.15)  # between the first frame and the second
    assert decision.noise_level == pytest.approx(1 / 8)
    assert decision.spread == pytest.approx(0.5)


def test_the_plan_is_made_anew_after_so_many_steps_and_not_before(controller: Controller) -> None:
    _planned(controller)
    controller.decide()
    _follow(controller, 5, 0.1)
    controller.observe(_seen(0.1))
    request = controller.request()
    assert request is not None
    assert (request.step, request.seed) == (6, 0)
    assert request.goal is not None
    assert request.goal.tolist() == GOAL.tolist()


def test_a_robot_at_its_goal_holds_the_end_of_its_plan_without_planning(controller: Controller) -> None:
    _planned(controller)
    controller.decide()
    _follow(controller, 30, 1.76)
    controller.observe(_seen(1.74))  # .26 m away
    assert controller.request() is not None


def test_a_robot_at_its_goal_plans_anew_if_its_plan_leads_elsewhere(controller: Controller) -> None:
    _planned(controller, 0.5, 1.0, 1.7)
    controller.decide()
    _follow(controller, 5, 2.0)
    controller.observe(_seen(2.0))
    assert controller.request() is not None


def test_when_the_plan_is_over_the_goal_itself_is_not_sought(controller: Controller) -> None:
    _planned(controller, 0.5)
    controller.decide()
    assert _follow(controller, 5, 0.5).action.tolist() == [0, 0]


def test_a_new_goal_wants_a_new_plan_at_once_and_the_same_goal_none(controller: Controller) -> None:
    _planned(controller)
    controller.decide()
    controller.set_goal(GOAL.copy())
    _follow(controller, 1, 0.0)
    controller.set_goal(np.array([0.0, 1.0]))
    controller.observe(_seen())
    request = controller.request()
    assert request is not None
    assert request.goal is not None
    assert request.goal.tolist() == [0, 1]
    controller.set_goal(None)
    assert controller.request() is not None


def test_a_plan_for_a_goal_that_has_changed_meanwhile_is_followed_until_the_next(controller: Controller) -> None:
    controller.observe(_seen())
    assert controller.request() is not None
    controller.set_goal(np.array([0.0, 1.0]))
    controller.install(_plan(0, *TO_GOAL))
    assert controller.decide().source == "fresh"
    controller.observe(_seen())
    assert controller.request() is not None


def test_a_plan_that_comes_late_is_followed_but_is_not_fresh(controller: Controller) -> None:
    controller.observe(_seen())
    assert controller.request() is not None
    assert controller.decide().source == "hold"
    controller.observe(_seen())
    controller.install(_plan(0, *TO_GOAL))
    assert controller.decide().source == "plan"
    # The robot held its place until it came: the plan begins now.
    assert controller.plan is not None
    assert controller.plan.made_at_step == 1


def test_a_plan_that_answers_no_request_is_refused_and_changes_nothing(controller: Controller) -> None:
    with pytest.raises(ValueError, match="plan must answer the last request, it was made at step 0"):
        controller.install(_plan(0, *TO_GOAL))
    controller.observe(_seen())
    assert controller.request() is not None
    with pytest.raises(ValueError, match="plan must answer the last request, it was made at step 3"):
        controller.install(_plan(3, *TO_GOAL))
    assert controller.plan is None
    _planned(controller)
    followed = controller.plan
    for stray in (_plan(0, 1.0), _plan(3, 1.0)):
        with pytest.raises(ValueError, match="plan must answer the last request"):
            controller.install(stray)
    assert controller.plan is followed


def test_nothing_is_asked_for_or_decided_without_an_observation_of_this_very_step(controller: Controller) -> None:
    for step in (0, 1):
        for ask in (controller.request, controller.decide):
            with pytest.raises(ValueError, match=f"observe must be called first at step {step}"):
                ask()
        if step == 0:
            _planned(controller).decide()


def test_actions_are_cut_to_their_limits_and_that_is_said(controller: Controller) -> None:
    _planned(controller, 0.3, 0.35, 2.0)  # .3 m ahead: an action of 3
    decision = controller.decide()
    assert decision.action.tolist() == [1, 0]
    assert decision.clipped
    assert float(np.abs(decision.action_chunk).max()) == 1
    assert decision.action.dtype == np.float32
    assert not _follow(controller, 1, 0.3).clipped


def test_without_limits_nothing_is_cut(policy: Policy) -> None:
    streams = tuple(replace(stream, low=None, high=None) for stream in policy.spec.streams)
    unlimited = Policy("unlimited", replace(policy._file, spec=replace(policy.spec, streams=streams)))
    decision = _planned(Controller(unlimited, goal=GOAL, seed=0), 0.3, 0.35, 2.0).decide()
    np.testing.assert_allclose(decision.action, [3, 0], rtol=1e-6)
    assert not decision.clipped


def test_an_action_that_is_not_finite_is_never_handed_out(controller: Controller) -> None:
    _planned(controller, np.nan, 1.0)
    with pytest.raises(FloatingPointError, match="policy 'toy' produced a non-finite action at step 0"):
        controller.decide()
    assert controller.step == 0


def _history(policy: Policy, steps: int, frames: int) -> Array:
    """x of the observed frames in the request after so many steps, of a robot that is at x = step."""
    shown = policy.using(planner=replace(policy.preset.planner, history_frames=frames))
    controller = Controller(shown, goal=GOAL, seed=0)
    for step in range(steps + 1):
        controller.observe(_seen(step))
        if step < steps:
            controller.decide()
    request = controller.request()
    assert request is not None
    return np.asarray(request.frames["position"][:, 0])


@pytest.mark.parametrize(
    ("steps", "frames", "expected"),
    [(0, 1, [0, 0]), (9, 1, [9, 9]), (9, 2, [5, 9]), (6, 2, [2, 6]), (2, 2, [0, 2]), (0, 2, [0, 0])],
)
def test_the_planner_is_shown_frames_a_stride_apart_as_far_as_the_episode_goes_back(
    policy: Policy, steps: int, frames: int, expected: list[float]
) -> None:
    assert _history(policy, steps, frames).tolist() == expected


def test_an_observation_given_twice_at_a_step_counts_once_and_the_newer_one(policy: Policy) -> None:
    shown = policy.using(planner=replace(policy.preset.planner, history_frames=2))
    once, twice = (Controller(shown, goal=GOAL, seed=0) for _ in range(2))
    for step in range(6):
        once.observe(_seen(step))
        twice.observe(_seen(50 + step), noise={"position": 3.0})
        twice.observe(_seen(step))
        requests = once.request(), twice.request()
        once.decide()
        twice.decide()
    first, second = requests
    assert first is not None
    assert second is not None
    assert np.array_equal(first.frames["position"], second.frames["position"])
    assert first.noise == second.noise


def test_a_missing_stream_is_not_in_the_request(controller: Controller) -> None:
    controller.observe({"position": np.zeros(2)}, missing=["velocity"])
    request = controller.request()
    assert request is not None
    assert set(request.frames) == {"position"}
    assert request.noise == {"position": 0.0}


def test_a_history_ends_where_it_was_sensed_otherwise(policy: Policy) -> None:
    shown = policy.using(planner=replace(policy.preset.planner, history_frames=2))
    controller = Controller(shown, goal=GOAL, seed=0)
    for step, noise in enumerate((0.0, 0.5, 0.5, 0.5, 0.5)):
        controller.observe(_seen(step), noise={"position": noise})
        request = controller.request()
        controller.decide()
    assert request is not None
    # Four steps ago the position was exact and the velocity as it is now.
    assert request.frames["position"][:, 0].tolist() == [4, 4]
    assert request.frames["velocity"].shape == (2, 2)


def test_without_a_position_there_is_no_plan_and_the_robot_holds(controller: Controller) -> None:
    controller.observe({"velocity": np.ones(2)}, missing=["position"])
    assert controller.request() is None
    decision = controller.decide()
    assert decision.source == "hold"
    assert decision.action.tolist() == [0, 0]


def test_while_the_position_is_missing_the_plan_is_followed_as_if_the_robot_were_on_it(controller: Controller) -> None:
    _planned(controller, 0.05, 0.1, 0.15, 0.2).decide()
    for step in range(1, 9):
        controller.observe({"velocity": np.zeros(2)}, missing=["position"])
        assert controller.request() is None  # although a new plan would be due after 6 steps
        decision = controller.decide()
        # A lookahead of 4 steps is one frame, .05 m ahead of where the plan is.
        ahead = min(0.05, 0.2 - 0.05 * step / 4)
        assert decision.action[0] == pytest.approx(10 * ahead, abs=1e-6)
        assert decision.source == "plan"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"observation": {**_seen(), "position": np.zeros(3)}},
            r"observation 'position' has shape \(3,\), the policy 'toy' expects \(2,\)",
        ),
        (
            {"observation": _seen(), "age_s": {"velocity": -0.1}},
            r"age_s 'velocity' must be finite and at least 0, got -0\.1",
        ),
        (
            {"observation": {**_seen(), "gripper": np.zeros(1)}},
            r"observation 'gripper' is unknown; policy 'toy' has \['position', 'velocity'\]",
        ),
        (
            {"observation": {"position": np.zeros(2)}},
            r"observation 'velocity' is missing; send it or name it in 'missing'",
        ),
        (
            {"observation": {**_seen(), "action": np.zeros(2)}},
            r"observation 'action' is unknown",
        ),
        (
            {"observation": {**_seen(), "position": "left"}},
            r"observation 'position' must be numbers of shape \(2,\)",
        ),
        (
            {"observation": {**_seen(), "position": {"x": 1}}},
            r"observation 'position' must be numbers of shape \(2,\)",
        ),
        (
            {"observation": {**_seen(), "position": [[1.0], [1.0, 2.0]]}},
            r"observation 'position' must be numbers of shape \(2,\)",
        ),
        ({"observation": _seen(), "noise": {"speed": 1.0}}, r"noise 'speed' is unknown; policy 'toy' has"),
        ({"observation": _seen(), "noise": {"velocity": -1.0}}, r"noise 'velocity' must be finite and at least 0"),
        ({"observation": _seen(), "noise": {"velocity": float("nan")}}, r"noise 'velocity' must be .*, got nan"),
        ({"observation": _seen(), "missing": ["speed"]}, r"missing 'speed' is unknown; policy 'toy' has"),
    ],
)
def test_a_wrong_observation_is_named_with_what_was_expected_and_changes_nothing(
    controller: Controller, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        controller.observe(**given)
    with pytest.raises(ValueError, match="observe must be called first at step 0"):
        controller.request()


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (np.zeros(3), r"goal 'position' has shape \(3,\), the policy 'toy' expects \(2,\)"),
        (np.array([np.inf, 0]), r"goal 'position' must be finite, got \[inf, 0\.0\]"),
        ("home", r"goal 'position' must be numbers of shape \(2,\)"),
    ],
)
def test_a_wrong_goal_is_refused_and_the_old_one_kept(controller: Controller, goal: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        controller.set_goal(goal)
    assert controller.goal is not None
    assert controller.goal.tolist() == GOAL.tolist()


def test_a_policy_without_goals_refuses_one(
    write_policy: Callable[..., Path], spec: TrajectorySpec, tmp_path: Path
) -> None:
    aimless = load_policy(str(write_policy(tmp_path / "aimless", spec=replace(spec, goal=None))))
    with pytest.raises(ValueError, match="goal must be absent: policy 'aimless' has no goal stream"):
        Controller(aimless, goal=GOAL, seed=0)


def _drive(policy: Policy, seed: int) -> list[Decision]:
    """20 steps of a point that does what it is told, planned by the untrained network."""
    controller, position, decisions = Controller(policy, goal=GOAL, seed=seed), np.zeros(2), []
    for _ in range(20):
        controller.observe({"position": position, "velocity": np.zeros(2)}, noise={"position": 0.1})
        request: PlanRequest | None = controller.request()
        if request is not None:
            controller.install(policy.plan(request))
        decisions.append(controller.decide())
        position = position + 0.1 * decisions[-1].action
    return decisions


def test_the_same_seed_gives_the_same_decisions_bit_for_bit_and_another_seed_others(policy: Policy) -> None:
    first, second, other = (_drive(policy, seed) for seed in (3, 3, 4))
    assert [decision.source for decision in first].count("fresh") == 4  # at 0, 6, 12, 18
    for one, two in zip(first, second, strict=True):
        assert one.action_chunk.tobytes() == two.action_chunk.tobytes()
        assert (one.noise_level, one.spread, one.clipped) == (two.noise_level, two.spread, two.clipped)
    assert any(not np.array_equal(one.action, two.action) for one, two in zip(first, other, strict=True))


def test_a_value_a_thousand_deviations_away_is_a_matter_of_units(controller: Controller, policy: Policy) -> None:
    # The toy's positions have a standard deviation of about 2 and 4 m around (1, -2).
    with pytest.raises(ValueError, match=r"goal 'position' must be within 1000 standard .* check its units"):
        controller.set_goal(np.array([0.0, 1e30]))


def test_who_does_not_doubt_plans_from_the_last_reading_whatever_came_before() -> None:
    """Between readings of a history nobody knows what was sent: a robot that jumped is no reason to doubt it."""
    shipped = load_policy("maze2d-umaze")
    requests = []
    for doubting in (False, True):
        controller = Controller(shipped, goal=np.array([1.0, 1.0]), seed=0, doubting=doubting)
        for x in (-1.0, -0.9, -0.8, 1.0):
            controller.observe({"position": np.array([x, -1.0]), "velocity": np.array([5.0, 0.0])})
            request = controller.request()
            controller.decide()
        assert request is not None
        requests.append(request)
    assert requests[0].frames["position"][-1].tolist() == [1.0, -1.0]
    assert requests[1].frames["position"][-1].tolist() != [1.0, -1.0], "a belief takes this for a spike"


def test_without_a_belief_an_old_observation_is_planned_from_where_it_was_and_what_was_sent_since_is_held(
    controller: Controller,
) -> None:
    _planned(controller)
    sent = [controller.decide().action]
    for step in range(5):
        controller.observe(_seen(0.01 * step), age_s=dict.fromkeys(_seen(), 0.0))
        assert controller.request() is None
        sent.append(controller.decide().action)
    # 10 Hz: the position is 3 steps old, the velocity 1; what was known of it 3 steps ago goes with the position.
    here = {"position": np.array([0.02, 0.0]), "velocity": np.array([9.0, 9.0])}
    controller.observe(here, age_s={"position": 0.3, "velocity": 0.1})
    request = controller.request()
    assert request is not None
    assert request.step == 3
    assert request.frames["position"][-1].tolist() == [0.02, 0.0]
    assert request.frames["velocity"][-1].tolist() == [0.0, 0.0]
    assert request.sent is not None
    np.testing.assert_array_equal(request.sent, sent[-3:])
    controller.install(_plan(3, *TO_GOAL))
    decision = controller.decide()
    assert (decision.source, decision.step) == ("fresh", 6)
    for _ in range(5):
        controller.observe(here, age_s={"position": 0.3, "velocity": 0.1})
        assert controller.request() is None, "a plan lasts as long as one of a fresh observation"
        controller.decide()


@pytest.mark.parametrize("wild", [1e5, np.nan, np.inf])
def test_a_wild_reading_is_left_aside_and_told(controller: Controller, wild: float) -> None:
    _planned(controller)
    controller.decide()
    controller.observe({**_seen(), "position": np.array([wild, 0.0])})
    assert controller.request() is None
    decision = controller.decide()
    assert decision.source == "plan"
    assert np.isfinite(decision.action).all()
    assert decision.sensors["position"] == SensorReport(noise=None, rejected=True, stuck=False, unheard_steps=1)
    assert decision.sensors["velocity"] == SensorReport(noise=None, rejected=False, stuck=False, unheard_steps=0)


def test_a_sensors_own_error_is_no_reason_for_another_plan(policy: Policy) -> None:
    strict = policy.using(planner=replace(policy.preset.planner, replan_error=0.05))
    asked = []
    for noise in (0.0, 0.05):
        controller = Controller(strict, goal=np.array([2.0, 0.0]), seed=0)
        controller.observe(_seen(), noise={"position": noise})
        assert controller.request() is not None
        controller.install(_plan(0, *TO_GOAL))
        controller.decide()
        controller.observe(_seen(x=0.15), noise={"position": noise})
        asked.append(controller.request() is not None)
    assert asked == [True, False]


def test_steps_that_a_robot_played_of_its_own_are_gone_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy("maze2d-medium")
    assert policy.believer is not None
    controller = Controller(policy, goal=np.array([2.7, -2.7]), seed=0)
    state, taken = np.array([-2.5, 2.5, 0.0, 0.0]), []
    step = policy.believer._motion.dynamics.step
    take = type(policy.believer).take

    def counted(*args: Any) -> Any:
        taken.append(1)
        return take(*args)

    monkeypatch.setattr(type(policy.believer), "take", counted)

    def sensed() -> dict[str, Array]:
        return {"position": state[:2], "velocity": state[2:]}

    for _ in range(10):
        controller.observe(sensed())
        state = step(state[None], np.asarray(controller.decide().action, dtype=np.float64)[None])[0]
    played = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    for action in played:
        state = step(state[None], action[None])[0]
    taken.clear()
    controller.played(played)
    assert (taken, controller.step) == ([], 50)
    controller.observe(sensed())
    decision = controller.decide()
    assert len(taken) == 1
    assert decision.step == 50
    assert not controller.slow, "what was read is where it was expected"
    for report in decision.sensors.values():
        assert (report.rejected, report.stuck, report.unheard_steps, report.noise) == (False, False, 0, 0.0)


def test_a_robot_that_is_not_where_its_own_steps_lead_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy("maze2d-medium")
    controller = Controller(policy, goal=np.array([2.7, -2.7]), seed=0)
    for _ in range(10):
        controller.observe({"position": np.array([-2.5, 2.5]), "velocity": np.zeros(2)})
        controller.decide()
    assert controller._belief.settled
    controller.played(np.ones((20, 2)))
    controller.observe({"position": np.array([-2.5, 2.5]), "velocity": np.zeros(2)})  # it should have moved by 0.5 m
    assert not controller._believing.settled
