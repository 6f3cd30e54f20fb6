"""Reaching a goal over places that a recording has visited: distances along them, and the cost of getting there.

Knows no simulator and no map; a cell counts as visited if the support it is given says so (see `drivable_places`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from forcing.datasets.drivable import drivable_places
from forcing.policy.mpc import Array32, Cost, MpcConfig, SamplingMpc
from forcing.policy.support import Support, fastest_step
from forcing.policy.types import Trajectories
from forcing.policy.world import trusted_dynamics

OUTSIDE_WEIGHT = 40.0  # steps that a step spent one cell outside the visited places costs


class VisitedDistance:
    """Shortest ways over visited cells, from any cell to a goal."""

    def __init__(self, support: Support) -> None:
        """Raises ValueError if no cell is visited."""
        if not support.visited.any():
            raise ValueError("a distance over visited cells needs at least 1 visited cell, got none")
        self.support = support
        flat = support.visited.reshape(-1)
        self.nodes = np.flatnonzero(flat)
        self._graph = _neighbours(support)
        away, nearest = ndimage.distance_transform_edt(~support.visited, return_indices=True)
        node_of = np.full(flat.size, -1)
        node_of[self.nodes] = np.arange(len(self.nodes))
        self.outside = (away * support.cell).astype(np.float32).reshape(-1)
        self._nearest = node_of[np.ravel_multi_index(nearest.reshape(support.visited.ndim, -1), support.visited.shape)]

    def field(self, goal: NDArray[np.float64]) -> Array32:
        """[nodes] way from each visited cell to the goal [d], in the goal stream's units; infinite where there is
        none."""
        node = self._nearest[self.support.cells(goal)]
        return np.asarray(csgraph.dijkstra(self._graph, directed=False, indices=node), dtype=np.float32)

    def ways(self, fields: Array32, cells: NDArray[np.int64]) -> Array32:
        """[E, ...] way from each robot's cells [E, ...], flat indices, to its goal, whose field is a row of `fields`
        [E, nodes]; from outside the visited cells by way of the nearest one."""
        robots = np.arange(len(fields)).reshape(-1, *(1,) * (cells.ndim - 1))
        return np.asarray(fields[robots, self._nearest[cells]] + self.outside[cells])

    def largest_part(self) -> NDArray[np.int64]:
        """Flat indices of the visited cells that hang together, the largest such part."""
        _, labels = csgraph.connected_components(self._graph, directed=False)
        return np.asarray(self.nodes[labels == np.bincount(labels).argmax()])


class Reaching:
    """What driving to goals stands on, all of it read off a recording.

    dynamics: fitted. distance: over the places where one may drive. position: where the goal stream is in a state.
    pace: the fastest recorded step. low, high: of the action.
    """

    def __init__(self, recorded: Trajectories, room_steps: float) -> None:
        """room_steps: see `drivable_places`. Raises NoWorld if the recording does not show where actions lead,
        ValueError if it has no goal stream of at most 3 numbers, or if steps that did not go as the dynamics say are
        everywhere."""
        action, goal = recorded.spec.action, recorded.spec.goal
        self.dynamics = trusted_dynamics(recorded)
        self.distance = VisitedDistance(drivable_places(recorded, self.dynamics, room_steps))
        assert goal is not None
        self.position, self.pace = self.dynamics.streams[goal], fastest_step(recorded)
        self.low, self.high = np.array(action.low), np.array(action.high)

    def mpc(self, config: MpcConfig) -> SamplingMpc:
        """A controller within the limits of the action."""
        return SamplingMpc(self.dynamics, self.low, self.high, config)

    def cost(self, goals: NDArray[np.float64], fields: Array32, stops: NDArray[np.bool_], reached: float = 0.0) -> Cost:
        """`reach_cost` at the recorded pace."""
        return reach_cost(self.distance, self.position, goals, fields, stops, reached, self.pace)


def reach_cost(
    distance: VisitedDistance,
    position: slice,
    goals: NDArray[np.float64],
    fields: Array32,
    stops: NDArray[np.bool_],
    reached: float,
    pace: float,
) -> Cost:
    """Steps to the goal: those not yet there, the way that is left at the end at `pace`, and a price for leaving
    visited places.

    goals: [E, d]. fields: [E, nodes]. stops: [E] whether the robot should stay there, which costs its distance at every
    step instead. reached: how near counts as there. pace: units covered in a step.
    """

    def cost(states: Array32) -> Array32:
        where = states[..., position]
        cells = distance.support.cells(where)
        away = np.linalg.norm(where - goals[:, None, None].astype(np.float32), axis=-1)
        there = np.logical_or.accumulate(away < reached, axis=-1)
        # Near the goal the grid is too coarse to say how near.
        way = np.maximum(distance.ways(fields, cells), away)
        passing = np.where(there, 0.0, 1.0).sum(axis=-1) + np.where(there[..., -1], 0.0, way[..., -1] / pace)
        staying = way.mean(axis=-1) / pace + way[..., -1] / pace
        off = distance.outside[cells].sum(axis=-1) / distance.support.cell
        return np.asarray(np.where(stops[:, None], staying, passing) + OUTSIDE_WEIGHT * off, dtype=np.float32)

    return cost


def _neighbours(support: Support) -> sparse.csr_matrix:
    """Visited cells that touch, corners included, with the distance of their middles."""
    flat = support.visited.reshape(-1)
    count, dimensions = int(flat.sum()), support.visited.ndim
    node_of = np.full(flat.size, -1)
    node_of[np.flatnonzero(flat)] = np.arange(count)
    grid = node_of.reshape(support.visited.shape)
    offsets = np.indices((3,) * dimensions).reshape(dimensions, -1).T - 1
    rows, columns, lengths = [], [], []
    for offset in offsets[len(offsets) // 2 + 1 :]:  # of two opposite ones, one
        here, there = grid[_shifted(-offset, grid.shape)], grid[_shifted(offset, grid.shape)]
        both = (here >= 0) & (there >= 0)
        rows.append(here[both])
        columns.append(there[both])
        lengths.append(np.full(int(both.sum()), support.cell * np.linalg.norm(offset)))
    entries = (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(count, count))


def _shifted(offset: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of a grid that is left when it is moved by `offset` and cut to its old place."""
    return tuple(slice(max(0, o), size - max(0, -o)) for o, size in zip(offset.tolist(), shape, strict=True))
