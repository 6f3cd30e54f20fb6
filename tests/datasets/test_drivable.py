"""Places to drive on against recordings and rooms drawn by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.datasets.drivable import drivable_places, touched_places
from forcing.policy.dynamics import LinearDynamics
from forcing.policy.support import Support
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

# x' = x + a, which is how `walk` moves.
MOVES = LinearDynamics(
    streams={"position": slice(0, 2)},
    weights=np.concatenate([np.zeros((2, 2)), np.eye(2), np.zeros((1, 2))]),
    low=np.full(2, -np.inf),
    high=np.full(2, np.inf),
)
STEP = 0.1
CELL = STEP / 2


def walk(positions: NDArray[np.float64]) -> Trajectories:
    """One episode through the positions [T, 2]; each action is what the step moved."""
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(2,)),
            StreamSpec(name="action", role="action", shape=(2,), low=(-1.0,) * 2, high=(1.0,) * 2),
        ),
        control_hz=10.0,
        goal="position",
    )
    streams = {"position": positions, "action": np.diff(positions, axis=0)}
    return Trajectories(spec=spec, streams=streams, lengths=np.array([len(positions) - 1]))


def corridor() -> Trajectories:
    """Ten times up and down x from 0 to 2 m along y = 0."""
    there = STEP * np.arange(21)
    x = np.append(np.tile(np.concatenate([there, there[-2:0:-1]]), 10), 0.0)
    return walk(np.stack([x, np.zeros_like(x)], axis=1))


def depth(support: Support, x: float) -> tuple[float, float]:
    """How far the drivable places reach below and above the corridor at this x."""
    y = np.arange(-1, 1, CELL / 4)
    inside = support.visited.reshape(-1)[support.cells(np.stack([np.full_like(y, x), y], axis=1))]
    return float(y[inside].min()), float(y[inside].max())


def test_without_room_the_visited_cells_are_left_but_for_those_where_something_was_touched() -> None:
    recorded = corridor()
    visited = drivable_places(recorded, MOVES, 0.0)
    along = visited.cells(np.stack([np.arange(0, 2, CELL / 4), np.zeros(160)], axis=1))
    assert set(np.flatnonzero(visited.visited)) == set(along)  # what a step passes over included
    recorded.streams["action"][7] += 0.5  # a push that moves nothing
    np.testing.assert_allclose(touched_places(recorded, MOVES), recorded.streams["position"][[7]])
    left = drivable_places(recorded, MOVES, 0.0).visited
    dropped = np.flatnonzero(visited.visited & ~left)
    assert dropped.tolist() == [int(visited.cells(recorded.streams["position"][7]))]


@pytest.mark.parametrize("room_steps", [1.0, 2.5])
def test_there_is_room_beside_the_way_as_far_as_asked_for(room_steps: float) -> None:
    below, above = depth(drivable_places(corridor(), MOVES, room_steps), x=1.02)
    assert below == pytest.approx(-room_steps * STEP, abs=1.5 * CELL)
    assert above == pytest.approx(room_steps * STEP, abs=1.5 * CELL)


def test_there_is_no_room_where_something_was_touched_as_near() -> None:
    recorded = corridor()
    recorded.streams["action"][10, 1] -= 0.5  # at x = 1, against something below
    support = drivable_places(recorded, MOVES, 2.0)
    near, far = (support.cells(np.array([[x, -0.13], [x, 0.13]])) for x in (1.07, 1.42))
    assert not support.visited.reshape(-1)[near].any()
    assert support.visited.reshape(-1)[far].all()


def test_room_is_not_negative() -> None:
    with pytest.raises(ValueError, match="room_steps must be at least 0, got -1"):
        drivable_places(corridor(), MOVES, -1.0)
