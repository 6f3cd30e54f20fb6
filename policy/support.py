"""Where a recording has been: the visited cells of its goal stream, and how far any place lies outside them.

Plain numpy. Not a map: a cell that nobody visited may be a wall or only unvisited.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.types import Trajectories

MOST_CELLS = 20_000_000
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

    def holding(self, positions: NDArray[np.floating]) -> NDArray[np.bool_]:
        """[X, ...] bool, whether a cell holds one of the positions [K, d]."""
        held = np.zeros(self.visited.size, dtype=np.bool_)
        held[self.cells(positions)] = True
        return held.reshape(self.visited.shape)

    def centres(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """[..., d] middle of each cell, from flat indices [...]."""
        index = np.stack(np.unravel_index(cells, self.visited.shape), axis=-1)
        return np.asarray(self.origin + (index + 0.5) * self.cell)

    def distance(self, most: float) -> NDArray[np.float32]:
        """[cells] how far each cell lies from the nearest visited one, 0 inside, at most `most`, in the goal
        stream's units; between middles of cells."""
        # Squared distances in cells, one axis after another: d(x) = min over y of d(y) + (x - y)^2.
        far = sum(size**2 for size in self.visited.shape)
        squared = np.where(self.visited, 0, far).astype(np.int64)
        for axis, size in enumerate(self.visited.shape):
            rows = np.moveaxis(squared, axis, -1)
            apart = (np.arange(size)[:, None] - np.arange(size)) ** 2
            nearest = [(row[None] + apart).min(axis=1) for row in rows.reshape(-1, size)]
            squared = np.moveaxis(np.array(nearest).reshape(rows.shape), -1, axis)
        return np.asarray(np.minimum(self.cell * np.sqrt(squared), most), dtype=np.float32).reshape(-1)

    def between(self, values: NDArray[np.float32], positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """[...] values [cells] of the cells, linear between their middles, at positions [..., d]; at the edge of the
        grid where a position lies beyond."""
        last = np.array(self.visited.shape) - 1
        place = np.clip((positions - self.origin) / self.cell - 0.5, 0, last)
        low = np.minimum(place.astype(np.int64), np.maximum(last - 1, 0))
        share, strides = place - low, self._strides
        weights = (1 - share, share)
        cells = (np.minimum(low, last) * strides, np.minimum(low + 1, last) * strides)
        result = np.zeros(positions.shape[:-1])
        for corner in np.ndindex(*(2,) * len(last)):
            weight, cell = weights[corner[0]][..., 0], cells[corner[0]][..., 0]
            for axis, side in enumerate(corner[1:], start=1):
                weight, cell = weight * weights[side][..., axis], cell + cells[side][..., axis]
            result += weight * values[cell]
        return result

    @property
    def _strides(self) -> NDArray[np.int64]:
        sizes = self.visited.shape
        return np.array([int(np.prod(sizes[axis + 1 :], dtype=int)) for axis in range(len(sizes))], dtype=np.int64)


def visited_cells(trajectories: Trajectories, cell_steps: float = 0.5) -> Support:
    """The cells that the goal stream was in or passed over at least once.

    cell_steps: their side, in fastest recorded steps; a step is cut into so many parts that none is longer than that,
    and where they meet counts as visited too. Raises ValueError if the recording has no goal stream of at most 3
    numbers, if it never moves, or if the grid would be too large.
    """
    goal = trajectories.spec.goal
    if goal is None or trajectories.spec[goal].size > 3:
        size = "none" if goal is None else f"{trajectories.spec[goal].size} numbers in {goal!r}"
        raise ValueError(f"visited cells need a goal stream of at most 3 numbers, the recording has {size}")
    positions, before = _positions(trajectories, goal), trajectories.before_steps()
    side = cell_steps * fastest_step(trajectories)
    if not side > 0:
        raise ValueError(f"cell must be positive, got {side}; does the recording move at all?")
    low = positions.min(axis=0) - MARGIN_CELLS * side
    shape = np.ceil((positions.max(axis=0) - low) / side).astype(int) + MARGIN_CELLS + 1
    if np.prod(shape, dtype=float) > MOST_CELLS:
        raise ValueError(f"cell {side:g} gives {np.prod(shape, dtype=float):.0f} cells, at most {MOST_CELLS} fit")
    empty = Support(origin=low, cell=float(side), visited=np.zeros(shape, dtype=np.bool_))
    visited, parts = empty.holding(positions), int(np.ceil(1 / cell_steps))
    for share in np.arange(1, parts) / parts:
        visited |= empty.holding((1 - share) * positions[before] + share * positions[before + 1])
    return replace(empty, visited=visited)


def fastest_step(trajectories: Trajectories) -> float:
    """The 99.9 % quantile of how far the goal stream moves in one step of an episode, in its units."""
    assert trajectories.spec.goal is not None
    positions, before = _positions(trajectories, trajectories.spec.goal), trajectories.before_steps()
    return float(np.quantile(np.linalg.norm(positions[before + 1] - positions[before], axis=1), 0.999))


def _positions(trajectories: Trajectories, goal: str) -> NDArray[np.float64]:
    """[rows, d] of the goal stream."""
    values = trajectories.streams[goal]
    return np.asarray(values.reshape(len(values), -1), dtype=np.float64)
