"""What a controller observes beside what its plan foresaw, with plans written by hand.

The arm's tokens are 3 steps, it remembers 4 of them and plans 2; its hand moves 1 cm a step along x, its load stays.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.policy.steps import foreseeing

from forcing.policy.checkpoint import (
    CheckpointError,
    PolicyFile,
    load_policy_file,
    save_policy,
    save_surprise,
)
from forcing.policy.controller import Controller
from forcing.policy.memory import MemoryConfig
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.surprise import AFTER, WAYS, Surprise, residuals_of
from forcing.policy.types import Array, Decision, Plan

SIGMA = 0.02  # of the hand, in its recorded standard deviation of 0.25 m: 5 mm
FAR = np.array([0.1, 0.0])  # m, 20 times that


def _usual() -> Surprise:
    """Normal residuals, a step ahead as six, 2 k + 1 times as much after k tokens."""
    rng = np.random.default_rng(0)
    streams = {}
    for name, size in (("hand", 2), ("load", 1)):
        heard = SIGMA * rng.standard_normal((2000, 6, size))
        streams[name] = residuals_of([[(1 + 2 * tokens) * heard for tokens in AFTER]] * WAYS)
    return Surprise(streams=streams)


@pytest.fixture(scope="module")
def surprise() -> Surprise:
    return _usual()


@pytest.fixture
def watching(remembering: Policy, surprise: Surprise) -> Policy:
    """The arm's policy, which knows what is usual and believes everything."""
    return Policy(remembering.name, replace(_file(remembering), surprise=surprise))


@pytest.fixture
def doubting(watching: Policy) -> Policy:
    return watching.using(memory=replace(_memory(watching), doubt=True))


def _file(policy: Policy) -> PolicyFile:
    _, (_, file) = policy.__reduce__()
    return file


def _memory(policy: Policy) -> MemoryConfig:
    assert policy.preset.memory is not None
    return policy.preset.memory


def _seen(step: int) -> dict[str, Array]:
    return {"hand": np.array([step / 100, 0.0]), "load": np.array(0.5)}


def _plan(request: PlanRequest) -> Plan:
    """The hand goes on from where it was last seen."""
    assert request.recalled is not None
    recalled = request.recalled.values["hand"]
    known = np.flatnonzero(np.isfinite(recalled[:, 0]))
    when = request.step - 3 * (len(recalled) - 1 - known[-1:])
    off = recalled[known[-1:], 0] - when / 100 if len(known) else 0.0
    ahead = request.step + np.arange(1, 7)
    hand = np.stack([ahead / 100 + off, np.zeros(6)], axis=1)
    streams = {"hand": hand, "load": np.full(6, 0.5), "action": np.full((6, 2), 0.3)}
    return foreseeing(request, streams)


def _act(controller: Controller, off: Array | float = 0.0, **fields: Any) -> Decision:
    """A step at which the hand is seen this far from where it moves to."""
    seen = _seen(controller.step)
    controller.observe(seen | {"hand": seen["hand"] + off}, **fields)
    if (request := controller.request()) is not None:
        controller.install(_plan(request))
    return controller.decide()


def _hand(decision: Decision) -> float:
    surprise = decision.sensors["hand"].surprise
    assert surprise is not None
    return surprise


def test_steady_motion_is_not_surprising_and_a_jump_is(doubting: Policy) -> None:
    controller = Controller(doubting, goal=None, seed=7)
    first, *steady = [_act(controller) for _ in range(8)]
    assert first.sensors["hand"].surprise is None, "nothing was foreseen yet"
    assert max(_hand(decision) for decision in steady) < 0.1
    assert not any(decision.sensors["hand"].rejected for decision in steady)
    jumped = _act(controller, FAR)
    assert _hand(jumped) > 5
    assert (jumped.sensors["hand"].rejected, jumped.sensors["hand"].unheard_steps) == (True, 1)
    assert (jumped.sensors["load"].rejected, jumped.sensors["load"].surprise) == (False, 0.0)
    assert not _act(controller).sensors["hand"].rejected, "it is back where it was foreseen"


def test_without_doubt_a_jump_is_told_and_believed(watching: Policy) -> None:
    controller = Controller(watching, goal=None, seed=7)
    for _ in range(3):
        _act(controller)
    jumped = _act(controller, FAR)
    assert _hand(jumped) > 5
    assert (jumped.sensors["hand"].rejected, jumped.sensors["hand"].unheard_steps) == (False, 0)


def test_a_policy_that_does_not_know_what_is_usual_says_nothing(remembering: Policy) -> None:
    controller = Controller(remembering, goal=None, seed=7)
    for _ in range(4):
        decision = _act(controller)
    assert decision.sensors["hand"].surprise is None


def test_doubt_needs_to_know_what_is_usual(remembering: Policy) -> None:
    with pytest.raises(CheckpointError, match=r"cannot doubt .* forcing calibrate"):
        remembering.using(memory=replace(_memory(remembering), doubt=True))


def test_more_false_alarms_leave_more_aside(doubting: Policy) -> None:
    off = np.array([0.015, 0.0])  # 3 standard deviations: one in ninety is so far
    for false_alarms, rejected in ((1e-3, False), (0.1, True)):
        policy = doubting.using(memory=replace(_memory(doubting), false_alarms=false_alarms))
        controller = Controller(policy, goal=None, seed=7)
        _act(controller)
        assert _act(controller, off).sensors["hand"].rejected == rejected


def test_declared_noise_makes_a_jump_less_surprising(watching: Policy) -> None:
    controller = Controller(watching, goal=None, seed=7)
    _act(controller)
    assert _hand(_act(controller, FAR, noise={"hand": 0.1})) < 1


def test_an_old_reading_is_held_against_what_was_foreseen_for_then(watching: Policy) -> None:
    controller = Controller(watching, goal=None, seed=7)
    _act(controller)
    _act(controller)
    late = _act(controller, np.array([-0.01, 0.0]), age_s={"hand": 0.1})
    assert _hand(late) == pytest.approx(0, abs=0.1)
    controller = Controller(watching, goal=None, seed=7)
    _act(controller)
    _act(controller)
    assert _hand(_act(controller, np.array([-0.01, 0.0]))) > 0.5


def test_what_was_rejected_is_planned_from_as_what_is_missing(doubting: Policy) -> None:
    rejecting, told = (Controller(doubting, goal=None, seed=7) for _ in range(2))
    for step in range(7):
        gone = step in (3, 4)
        for controller, given in ((rejecting, {}), (told, {"missing": ["hand"]} if gone else {})):
            off = FAR if gone and controller is rejecting else 0.0
            controller.observe(_seen(step) | {"hand": _seen(step)["hand"] + off}, **given)  # type: ignore[arg-type]
        one, other = rejecting.request(), told.request()
        assert (one is None) == (other is None) == (step % 3 != 0)
        if one is not None and other is not None:
            assert one.recalled is not None
            assert other.recalled is not None
            for name in ("hand", "load"):
                np.testing.assert_array_equal(one.recalled.values[name], other.recalled.values[name])
                np.testing.assert_array_equal(one.recalled.noise[name], other.recalled.noise[name])
            plans = [doubting.plan(request) for request in (one, other)]
            for name in ("hand", "load", "action"):
                np.testing.assert_array_equal(plans[0].streams[name], plans[1].streams[name])
            rejecting.install(_plan(one))
            told.install(_plan(other))
        decisions = rejecting.decide(), told.decide()
        assert decisions[0].sensors["hand"].rejected == gone
    assert one is not None
    assert one.recalled is not None
    assert np.isnan(one.recalled.values["hand"][1]).all()


def test_a_hand_that_was_moved_for_good_is_believed_after_a_while(doubting: Policy) -> None:
    controller = Controller(doubting, goal=None, seed=7)
    for _ in range(6):
        _act(controller)
    rejected = [_act(controller, FAR).sensors["hand"].rejected for _ in range(3 * 20)]
    assert all(rejected[:3])
    assert not any(rejected[30:]), "what is foreseen without it is vague"
    assert rejected == sorted(rejected, reverse=True)


def test_the_same_step_again_is_judged_as_if_it_were_the_first_time(watching: Policy) -> None:
    once, twice = (Controller(watching, goal=None, seed=7) for _ in range(2))
    for controller in (once, twice):
        for _ in range(4):
            _act(controller)
    seen = _seen(4) | {"hand": _seen(4)["hand"] + FAR / 10}
    twice.observe(_seen(4) | {"hand": _seen(4)["hand"] + FAR})
    for controller in (once, twice):
        controller.observe(seen)
    assert once.decide().sensors == twice.decide().sensors


def test_what_a_robot_played_of_its_own_counts_as_unheard(watching: Policy) -> None:
    """A plan that was made after silence foresees less, and expects to be off by more."""
    found = []
    for silent in (0, 12):
        controller = Controller(watching, goal=None, seed=7)
        for _ in range(3):
            _act(controller)
        controller.played(np.full((silent, 2), 0.3))
        _act(controller, missing=["hand"])
        found.append(_hand(_act(controller, FAR / 3)))
    assert found[0] > 1 > 0.5 > found[1]


def test_a_policy_keeps_what_is_usual_and_is_another_one_with_it(
    watching: Policy, surprise: Surprise, tmp_path: Path
) -> None:
    file = _file(watching)
    path = tmp_path / "policy.safetensors"
    save_policy(path, file.preset, file.spec, file.normaliser, file.weights, {"task": "arm"})
    before = load_policy_file(path)
    assert before.surprise is None
    save_surprise(path, surprise, {"seed": 3})
    after = load_policy_file(path)
    assert after.card == {"task": "arm", "surprise": {"seed": 3}}
    assert after.revision != before.revision, "it decides what is left aside"
    assert set(after.weights) == set(before.weights)
    controllers = [Controller(policy, goal=None, seed=7) for policy in (watching, Policy("arm", after))]
    for off in (0.0, 0.0, 0.003, FAR):
        decisions = [_act(controller, off) for controller in controllers]
        assert decisions[0].sensors == decisions[1].sensors


def test_other_plans_have_other_residuals(watching: Policy) -> None:
    """What is usual was measured of plans as they were made."""
    memory, planner = _memory(watching), watching.preset.planner
    for kept in (
        watching.using(memory=replace(memory, false_alarms=0.01)),
        watching.using(planner=replace(planner, replan_steps=1)),
    ):
        assert kept.surprise is not None
    for changed in (
        watching.using(memory=replace(memory, show_actions=True)),
        watching.using(planner=replace(planner, samples=4)),
    ):
        assert changed.surprise is None


def test_settings_out_of_range_are_refused() -> None:
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="false_alarms must be above 0 and below 1"):
            MemoryConfig(false_alarms=share)
