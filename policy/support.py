"""Where a recording has been: the visited cells of its goal stream, and how far any place lies outside them.

Plain numpy. Not a map: a cell that nobody visited may be a wall or only unvisited.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics, states_of
from forcing.policy.types import Trajectories

MOST_CELLS = 20_000_000
CONTACT, NOTICED = 3.0, 0.01
MARGIN_CELLS = 8  # empty cells around the visited ones, so that a place just outside still has its distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """A grid of cells over the goal stream.

    origin: [d] corner of cell 0. cell: side of a cell, in the goal stream's units. visited: [X, ...] bool, d axes.
    """

    origin: NDArray[np.float64]
    cell: float
    visited: NDArray[np.bool_]

    def cells(self, positions: NDArray[np.floating]) -> NDArray[np.int64]:
        """[...] flat index of the cell that each position [..., d] lies in; the nearest one outside the grid."""
        index = np.floor((positions - self.origin) / self.cell).astype(np.int64)
        index = np.clip(index, 0, np.array(self.visited.shape) - 1)
        return np.asarray(index @ self._strides, dtype=np.int64)

    def centres(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """[..., d] middle of each cell, from flat indices [...]."""
        index = np.stack(np.unravel_index(cells, self.visited.shape), axis=-1)
        return np.asarray(self.origin + (index + 0.5) * self.cell)

    def distance(self, most: float) -> NDArray[np.float32]:
        """[cells] how far each cell lies from the nearest visited one, 0 inside, at most `most`, in the goal
        stream's units; exact up to a cell."""
        reach = int(np.ceil(most / self.cell))
        offsets = np.indices((2 * reach + 1,) * self.visited.ndim).reshape(self.visited.ndim, -1).T - reach
        lengths = self.cell * np.linalg.norm(offsets, axis=1)
        order = np.argsort(lengths)[::-1]
        result = np.full(self.visited.shape, most, dtype=np.float32)
        padded = np.pad(self.visited, reach)
        for offset, length in zip(offsets[order], lengths[order], strict=True):
            if length < most:
                window = tuple(
                    slice(reach + o, reach + o + size) for o, size in zip(offset, self.visited.shape, strict=True)
                )
                result[padded[window]] = length
        return result.reshape(-1)

    @property
    def _strides(self) -> NDArray[np.int64]:
        sizes = self.visited.shape
        return np.array([int(np.prod(sizes[axis + 1 :], dtype=int)) for axis in range(len(sizes))], dtype=np.int64)


def visited_cells(trajectories: Trajectories, cell: float | None = None) -> Support:
    """The cells that the goal stream was in at least once.

    cell: their side; what the fastest recorded steps (the 99.9 % quantile) cover if None, so that nothing moves across
    an unvisited cell unnoticed. Raises ValueError if the recording has no goal stream of at most 3 numbers, if it
    never moves, or if the grid would be too large.
    """
    goal = trajectories.spec.goal
    if goal is None or trajectories.spec[goal].size > 3:
        size = "none" if goal is None else f"{trajectories.spec[goal].size} numbers in {goal!r}"
        raise ValueError(f"visited cells need a goal stream of at most 3 numbers, the recording has {size}")
    positions = trajectories.streams[goal].reshape(-1, trajectories.spec[goal].size).astype(np.float64)
    side = cell or fastest_step(trajectories)
    if not side > 0:
        raise ValueError(f"cell must be positive, got {side}; does the recording move at all?")
    low = positions.min(axis=0) - MARGIN_CELLS * side
    shape = np.ceil((positions.max(axis=0) - low) / side).astype(int) + MARGIN_CELLS + 1
    if np.prod(shape, dtype=float) > MOST_CELLS:
        raise ValueError(f"cell {side:g} gives {np.prod(shape, dtype=float):.0f} cells, at most {MOST_CELLS} fit")
    visited = np.zeros(shape, dtype=np.bool_)
    visited[tuple(np.floor((positions - low) / side).astype(int).T)] = True
    return Support(origin=low, cell=float(side), visited=visited)


def without_contacts(support: Support, dynamics: LinearDynamics, trajectories: Trajectories) -> Support:
    """The cells from which every recorded step went as the dynamics say.

    A step did not, and touched something, if it misses by more than `CONTACT` times the 99 % quantile of all misses and
    by more than `NOTICED`, in standard deviations of the change of each entry.
    """
    states = states_of(trajectories)
    before = np.delete(np.arange(len(states)), trajectories.starts("observation") + trajectories.lengths)
    action = trajectories.spec.action
    pushes = trajectories.streams[action.name].reshape(-1, action.size).astype(np.float64)
    change = states[before + 1] - states[before]
    missed = np.abs(dynamics.step(states[before], pushes) - states[before + 1]) / np.maximum(change.std(axis=0), 1e-12)
    worst = missed.max(axis=1)
    touched = worst > max(CONTACT * float(np.quantile(worst, 0.99)), NOTICED)
    assert trajectories.spec.goal is not None
    cells = support.cells(states[before[touched]][:, dynamics.streams[trajectories.spec.goal]])
    visited = support.visited.copy().reshape(-1)
    visited[cells] = False
    return replace(support, visited=visited.reshape(support.visited.shape))


def with_room(safe: Support, visited: Support) -> Support:
    """The safe cells and all that touch one, but for visited ones that are not safe.

    Recorded robots keep to the middle of their way; where none touched anything there is room for one cell more, and
    the fastest way leads through it.
    """
    near = safe.visited.copy()
    for axis in range(near.ndim):  # the margin around the grid keeps its ends apart
        near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
    return replace(safe, visited=near & ~(visited.visited & ~safe.visited))


def fastest_step(trajectories: Trajectories) -> float:
    """The 99.9 % quantile of how far the goal stream moves in one step of an episode, in its units."""
    goal = trajectories.spec.goal
    assert goal is not None
    positions = trajectories.streams[goal].reshape(-1, trajectories.spec[goal].size).astype(np.float64)
    moved = np.delete(np.linalg.norm(np.diff(positions, axis=0), axis=1), trajectories.starts("observation")[1:] - 1)
    return float(np.quantile(moved, 0.999))
