"""One network in every role, on what its dynamics are known to do: the fitted ones, which the simulator's are.

What is asked for is measured against what anybody could say without a network.
"""

from typing import Any

import numpy as np
import pytest

from forcing.policy.controller import Controller
from forcing.policy.policy import Policy, load_policy
from forcing.policy.roles import guess
from forcing.policy.types import Array

CASES = [(start, seed) for seed, start in enumerate(([2.5, -2.5], [-2.5, 2.5], [2.5, 2.5], [-0.4, -2.5], [1.6, 1.5]))]
GOALS = ([-2.5, 1.5], [2.5, -2.5], [-1.4, -1.5], [2.4, 2.4], [-2.5, -2.4])


@pytest.fixture(scope="module")
def shipped() -> Policy:
    return load_policy("maze2d-medium")


@pytest.fixture(scope="module")
def tokens(shipped: Policy) -> list[dict[str, Any]]:
    """Pairs of successive tokens of plans, which were rehearsed on the dynamics: `past` and `future` streams."""
    frames, found = shipped.preset.layout.frames, []
    for (start, seed), goal in zip(CASES, GOALS, strict=True):
        controller = Controller(shipped, goal=np.array(goal), seed=seed)
        controller.observe({"position": np.array(start), "velocity": np.zeros(2)})
        request = controller.request()
        assert request is not None
        streams = shipped.plan(request).streams
        for begin in range(0, len(streams["position"]) - 2 * frames, frames):
            past = {name: values[begin : begin + frames] for name, values in streams.items()}
            future = {name: values[begin + frames : begin + 2 * frames] for name, values in streams.items()}
            left = len(streams["position"]) // frames - begin // frames - 1
            found.append({"past": past, "future": future, "goal": np.array(goal), "left": left})
    assert len(found) >= 8
    return found


def _rms(errors: list[Array]) -> float:
    return float(np.sqrt(np.mean(np.square(np.stack(errors)))))


def _observed(streams: dict[str, Array]) -> dict[str, Array]:
    return {name: streams[name] for name in ("position", "velocity")}


def test_as_a_forward_model_it_says_where_actions_lead(shipped: Policy, tokens: list[dict[str, Any]]) -> None:
    layout = shipped.preset.layout
    ahead = layout.stride / shipped.spec.control_hz * np.arange(1, layout.frames + 1)[:, None]
    known, coasting, blind = [], [], []
    for case in tokens:
        past, future = _observed(case["past"]), case["future"]
        guessed = guess(shipped, "forward", past, future={"action": future["action"]})
        opposite = guess(shipped, "forward", past, future={"action": -future["action"]})
        known.append(guessed["position"] - future["position"])
        blind.append(opposite["position"] - future["position"])
        coasting.append(past["position"][-1] + ahead * past["velocity"][-1] - future["position"])
    assert _rms(known) < 0.6 * _rms(coasting)
    assert _rms(known) < 0.8 * _rms(blind), "it listens to the actions"


def test_as_an_inverse_model_it_says_which_actions_lead_there(shipped: Policy, tokens: list[dict[str, Any]]) -> None:
    missed, nothing = [], []
    for case in tokens:
        future = case["future"]
        guessed = guess(shipped, "inverse", _observed(case["past"]), future=_observed(future))
        missed.append(guessed["action"] - future["action"])
        nothing.append(future["action"])
    assert _rms(missed) < 0.8 * _rms(nothing)


def test_as_a_filter_it_knows_more_than_a_bad_sensor(shipped: Policy, tokens: list[dict[str, Any]]) -> None:
    rng, missed, read = np.random.default_rng(0), [], []
    for case in tokens:
        past = _observed(case["past"])
        noisy = {name: values + 0.5 * rng.standard_normal(values.shape) for name, values in past.items()}
        guessed = guess(shipped, "filter", noisy, noise=dict.fromkeys(noisy, 0.5))
        missed.append(guessed["position"] - past["position"])
        read.append(noisy["position"] - past["position"])
    assert _rms(missed) < 0.7 * _rms(read)


def test_as_a_filter_it_leaves_alone_what_is_exact(shipped: Policy, tokens: list[dict[str, Any]]) -> None:
    past = _observed(tokens[0]["past"])
    guessed = guess(shipped, "filter", past)
    np.testing.assert_allclose(guessed["position"], past["position"], atol=1e-5)


def test_as_a_policy_it_heads_for_its_goal(shipped: Policy, tokens: list[dict[str, Any]]) -> None:
    """The first actions for a goal have more to do with those of the plan to it than those for no goal at all."""
    aimed, aimless = [], []
    for case in tokens:
        past, action = _observed(case["past"]), case["future"]["action"]
        aimed.append(guess(shipped, "policy", past, goal=case["goal"], tokens=case["left"])["action"][:8] - action)
        aimless.append(guess(shipped, "policy", past, tokens=case["left"])["action"][:8] - action)
    assert _rms(aimed) < _rms(aimless)


@pytest.mark.parametrize(
    ("role", "future", "message"),
    [
        ("planner", None, "role must be policy, forward, inverse, filter, got 'planner'"),
        ("forward", None, r"future must have \['action'\] for role 'forward', got \[\]"),
        (
            "forward",
            {"action": np.zeros((5, 2))},
            r"future must be 1 to 9 tokens of 8 frames, .* got \[5\] frames",
        ),
    ],
)
def test_what_a_role_needs_is_named(shipped: Policy, role: Any, future: Any, message: str) -> None:
    past = {"position": np.zeros((8, 2)), "velocity": np.zeros((8, 2))}
    with pytest.raises(ValueError, match="history 'speed' is unknown"):
        guess(shipped, "policy", {**past, "speed": np.zeros((8, 2))})
    with pytest.raises(ValueError, match="history 'velocity' must be 8 frames, got 3"):
        guess(shipped, "policy", {**past, "velocity": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=message):
        guess(shipped, role, past, future=future)
