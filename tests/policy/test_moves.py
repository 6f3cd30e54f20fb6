"""Actions told as moves: by hand, over the seam of two episodes, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from forcing.policy.config import override
from forcing.policy.memory import MemoryConfig, RecallMix
from forcing.policy.moves import LONGEST_M, moves, told_as_moves
from forcing.policy.preset import PRESETS
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="hand", role="observation", shape=(3,), units="m"),
        StreamSpec(name="gripper", role="observation", shape=(1,)),
        StreamSpec(name="action", role="action", shape=(4,), low=(-1, -1, -1, 0), high=(1, 1, 1, 1)),
    ),
    control_hz=20.0,
)

TOLD = RecallMix(known_actions=1.0)


def _recorded(lengths: tuple[int, ...] = (2, 3)) -> Trajectories:
    """Before a step the hand of episode e is at e + step / 10 along x; it is sent 0.02 m on, 0.3 m down, and shut."""
    lines = [np.array([[e + i / 10, 0.0, 0.5] for i in range(length + 1)]) for e, length in enumerate(lengths)]
    sent = [line[:-1] + np.array([0.02, -0.01, -0.3]) for line in lines]
    hand, targets = np.concatenate(lines), np.concatenate(sent)
    streams = {
        "hand": hand.astype(np.float32),
        "gripper": np.zeros((len(hand), 1), np.float32),
        "action": np.concatenate([targets, np.ones((len(targets), 1))], axis=1).astype(np.float32),
    }
    return Trajectories(spec=SPEC, streams=streams, lengths=np.array(lengths))


def test_a_move_is_the_way_from_where_the_robot_was_cut_to_what_an_arm_takes() -> None:
    told = moves(np.array([0.4, 0.1, 0.3, 0.7]), np.array([0.38, 0.3, 0.3]))
    assert told.tolist() == pytest.approx([0.02, -LONGEST_M, 0.0, 0.7])


def test_each_step_is_told_from_its_own_observation_in_every_episode() -> None:
    told = told_as_moves(_recorded(), "hand")
    np.testing.assert_allclose(
        told.streams["action"], np.tile([0.02, -0.01, -LONGEST_M, 1.0], (5, 1)), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(told.streams["hand"], _recorded().streams["hand"])
    assert told.spec.action.low == (-LONGEST_M, -LONGEST_M, -LONGEST_M, 0)
    assert told.spec.action.high == (LONGEST_M, LONGEST_M, LONGEST_M, 1)


def test_no_limits_stay_none() -> None:
    unlimited = tuple(replace(stream, low=None, high=None) for stream in SPEC.streams)
    recorded = replace(_recorded(), spec=replace(SPEC, streams=unlimited))
    action = told_as_moves(recorded, "hand").spec.action
    assert (action.low, action.high) == (None, None)


@pytest.mark.parametrize("name", ["gripper", "wrist", "action"])
def test_where_the_robot_is_must_be_an_observation_of_a_place(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"moves_from must be an observation of a place, .*, one of hand, got '{name}'"
    ):
        told_as_moves(_recorded(), name)


def test_actions_that_are_no_place_are_refused() -> None:
    short = tuple(replace(s, shape=(2,), low=None, high=None) if s.role == "action" else s for s in SPEC.streams)
    recorded = _recorded()
    recorded = replace(
        recorded,
        spec=replace(SPEC, streams=short),
        streams={**recorded.streams, "action": recorded.streams["action"][:, :2]},
    )
    with pytest.raises(ValueError, match="actions must begin with x, y, z in m to be told as moves, got 2 entries"):
        told_as_moves(recorded, "hand")


def test_a_policy_that_acts_is_not_told_moves() -> None:
    with pytest.raises(ValueError, match=r"moves_from must be none unless actions are known .*, got 'hand'"):
        MemoryConfig(moves_from="hand")
    told = MemoryConfig(mix=TOLD, moves_from="hand", hold_tokens=0)
    assert told.moves_from == "hand"
    assert not told.acts


@pytest.mark.parametrize(("name", "value"), [("moved_m", 0.1), ("hold_tokens", 24), ("wait_steps", 3)])
def test_what_takes_actions_for_places_is_refused_with_moves(name: str, value: float) -> None:
    with pytest.raises(
        ValueError, match=f"{name} must be 0 with moves_from, where an action is no place to be, got {value}"
    ):
        override(PRESETS["swap-world"], f"memory.{name}={value}")


def test_moves_are_not_pointed_at() -> None:
    with pytest.raises(ValueError, match=r"pointing must be false with memory\.moves_from"):
        override(PRESETS["swap-world"], "denoiser.pointing=true")
