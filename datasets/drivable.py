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

CONTACT, NOTICED = 3.0, 0.01  # see `touched_places`


def drivable_places(recorded: Trajectories, dynamics: LinearDynamics, room_steps: float) -> Support:
    """The cells visited or passed over from which every recorded step went as the dynamics say, and the others no
    further from one of them than `room_steps` times the fastest recorded step, unless something was touched as near.

    Cells are those of `visited_cells`; distances are between their middles. Recorded robots keep to the middle of their
    way; where none touched anything there is room beside it, and the fastest way leads through that. Raises ValueError
    as `visited_cells` does, and if room_steps is negative or not a number.
    """
    if not room_steps >= 0:
        raise ValueError(f"room_steps must be at least 0, got {room_steps}")
    support = visited_cells(recorded)
    touched = support.holding(touched_places(recorded, dynamics))
    safe = support.visited & ~touched
    room = room_steps * fastest_step(recorded)
    beside = ~support.visited & _within(safe, room, support.cell) & ~_within(touched, room, support.cell)
    return replace(support, visited=safe | beside)


def touched_places(recorded: Trajectories, dynamics: LinearDynamics) -> NDArray[np.float64]:
    """[K, d] of the goal stream: where a recorded step did not go as the dynamics say, and so touched something.

    It misses by more than `CONTACT` times the 99 % quantile of all misses and by more than `NOTICED`, in standard
    deviations of the change of each entry.
    """
    states, before = states_of(recorded), recorded.before_steps()
    action = recorded.spec.action
    pushes = recorded.streams[action.name].reshape(-1, action.size).astype(np.float64)
    change = states[before + 1] - states[before]
    missed = np.abs(dynamics.step(states[before], pushes) - states[before + 1]) / np.maximum(change.std(axis=0), 1e-12)
    worst = missed.max(axis=1)
    touched = worst > max(CONTACT * float(np.quantile(worst, 0.99)), NOTICED)
    assert recorded.spec.goal is not None
    return np.asarray(states[before[touched]][:, dynamics.streams[recorded.spec.goal]])


def _within(cells: NDArray[np.bool_], distance: float, cell: float) -> NDArray[np.bool_]:
    """Whether a cell's middle is at most `distance` from that of one of `cells`."""
    if not cells.any():
        return np.zeros_like(cells)
    away = cell * ndimage.distance_transform_edt(~cells)
    return np.asarray(away <= distance + 1e-9 * cell)
