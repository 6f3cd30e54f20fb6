"""Where a robot may be driven, judged from a recording: where it went without touching anything, and some room beside.

Knows no map: what was never visited may be a wall, and what is near it too.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from forcing.policy.dynamics import LinearDynamics, states_of
from forcing.policy.support import Support, fastest_step, visited_cells
from forcing.policy.types import Trajectories

CELL_STEPS = 0.5  # side of a cell, in fastest recorded steps
CONTACT, NOTICED = 3.0, 0.01  # see `touched_places`


def drivable_places(recorded: Trajectories, dynamics: LinearDynamics, room_steps: float) -> Support:
    """The cells visited or passed over from which every recorded step went as the dynamics say, and the others no
    further from one of them than `room_steps` times the fastest recorded step, unless something was touched as near.

    A cell's side is `CELL_STEPS` of the fastest recorded steps; distances are between middles of cells. Recorded robots
    keep to the middle of their way; where none touched anything there is room beside it, and the fastest way leads
    through that. Raises ValueError as `visited_cells` does, and if room_steps is negative or not a number.
    """
    if not room_steps >= 0:
        raise ValueError(f"room_steps must be at least 0, got {room_steps}")
    step = fastest_step(recorded)
    support = visited_cells(recorded, cell=CELL_STEPS * step)
    visited = support.visited | _occupied(support, _halfway(recorded))  # a step may pass over a cell
    touched = _occupied(support, touched_places(recorded, dynamics))
    safe = visited & ~touched
    room = room_steps * step
    beside = ~visited & _within(safe, room, support.cell) & ~_within(touched, room, support.cell)
    return replace(support, visited=safe | beside)


def touched_places(recorded: Trajectories, dynamics: LinearDynamics) -> NDArray[np.float64]:
    """[K, d] of the goal stream: where a recorded step did not go as the dynamics say, and so touched something.

    It misses by more than `CONTACT` times the 99 % quantile of all misses and by more than `NOTICED`, in standard
    deviations of the change of each entry.
    """
    states, before = states_of(recorded), _before_steps(recorded)
    action = recorded.spec.action
    pushes = recorded.streams[action.name].reshape(-1, action.size).astype(np.float64)
    change = states[before + 1] - states[before]
    missed = np.abs(dynamics.step(states[before], pushes) - states[before + 1]) / np.maximum(change.std(axis=0), 1e-12)
    worst = missed.max(axis=1)
    touched = worst > max(CONTACT * float(np.quantile(worst, 0.99)), NOTICED)
    assert recorded.spec.goal is not None
    return np.asarray(states[before[touched]][:, dynamics.streams[recorded.spec.goal]])


def _halfway(recorded: Trajectories) -> NDArray[np.float64]:
    """[steps, d] of the goal stream: the middle of each recorded step."""
    assert recorded.spec.goal is not None
    positions = recorded.streams[recorded.spec.goal].reshape(len(recorded.streams[recorded.spec.goal]), -1)
    before = _before_steps(recorded)
    return np.asarray((positions[before].astype(np.float64) + positions[before + 1]) / 2)


def _before_steps(recorded: Trajectories) -> NDArray[np.int64]:
    """[steps] the observation that each recorded step began with."""
    rows = np.arange(int(recorded.lengths.sum()) + len(recorded.lengths))
    return np.delete(rows, recorded.starts("observation") + recorded.lengths)


def _occupied(support: Support, places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Cells that one of the places [K, d] lies in."""
    cells = np.zeros(support.visited.size, dtype=np.bool_)
    cells[support.cells(places)] = True
    return cells.reshape(support.visited.shape)


def _within(cells: NDArray[np.bool_], distance: float, cell: float) -> NDArray[np.bool_]:
    """Whether a cell's middle is at most `distance` from that of one of `cells`."""
    if not cells.any():
        return np.zeros_like(cells)
    away = cell * ndimage.distance_transform_edt(~cells)
    return np.asarray(away <= distance + 1e-9 * cell)
