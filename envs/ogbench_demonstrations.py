"""Demonstrations of OGBench's pointmaze after the recipe of its paper (arXiv:2410.20092, Appendix) and its scripts.

The expert drives towards the oracle's subgoal at full speed, with Gaussian noise of 0.5 on each action. `navigate`: a
new goal whenever one is reached, among the cells that are no straight corridor; episodes of 1000 steps, 2000 on giant.
`stitch`: one goal four cells away (the start itself where there is none), stayed at; episodes of 200 steps. (ogbench's
files have one row more to an episode, whose action leads nowhere.) Every episode has a random stream of its own, so a
recording depends on the seed alone, and a longer one begins like a shorter one. Knows nothing of files.
"""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from forcing.envs.ogbench_maze import OracleSubgoals, environment_id, make, numpy_seeded, ogbench_mazes
from forcing.envs.shards import check_request, run_shards

Kind = Literal["navigate", "stitch"]
Cell = tuple[int, int]

NOISE_STD = 0.5
STITCH_CELLS = 4
SHARD_STEPS = 24_000


class Episode(TypedDict):
    """T control steps in one maze.

    observations: position [T + 1, 2] in m, float64. actions: [T, 2] float32, as executed, -1 to 1. rewards: [T]
    float64, ogbench's: 1 where a step ends within 1 m of the goal. terminations: [T] all False. truncations: [T], the
    last is True. infos: goal [T + 1, 2] in m, the one that is driven to from each observation on.
    """

    observations: dict[str, NDArray[np.float64]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """Episodes from number `first` on, `steps` control steps together; the last may be cut short."""

    maze: str
    kind: Kind
    seed: int
    first: int
    steps: int


def episode_steps(maze: str, kind: Kind) -> int:
    """Control steps of an episode. Raises ValueError for an unknown maze or kind."""
    environment_id(maze)  # an unknown maze is an error at once
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {list(get_args(Kind))}, got {kind!r}")
    if kind == "stitch":
        return 200
    return 2000 if maze == "giant" else 1000


def collect(maze: str, kind: Kind, *, steps: int, seed: int, workers: int | None = None) -> Iterator[list[Episode]]:
    """Episodes that hold `steps` control steps together, the last cut short if need be, in lists of a fixed order.

    maze: medium, large or giant. workers: processes, None for one a core; they change nothing but the time it takes
    (see `run_shards`). Raises ValueError for an unknown maze or kind or a number below its least, RuntimeError if
    ogbench is not installed.
    """
    processes = check_request(steps=steps, seed=seed, workers=workers)
    length = episode_steps(maze, kind)
    ogbench_mazes()
    together = max(1, SHARD_STEPS // length)
    shards = [
        _Shard(maze=maze, kind=kind, seed=seed, first=start // length, steps=min(together * length, steps - start))
        for start in range(0, steps, together * length)
    ]
    return run_shards(_collect_shard, shards, processes)


def recording_spec(maze: str, kind: Kind) -> EnvSpec:
    """The environment that recordings name as theirs: ogbench's, not ended by success. Raises as `collect` does."""
    length = episode_steps(maze, kind)
    ogbench_mazes()
    spec = deepcopy(gymnasium.spec(environment_id(maze)))
    spec.kwargs = {**spec.kwargs, "terminate_at_goal": False}
    spec.max_episode_steps = length
    return spec


def _collect_shard(shard: _Shard) -> list[Episode]:
    demonstrator = _Demonstrator(shard.maze, shard.kind)
    length = episode_steps(shard.maze, shard.kind)
    episodes = []
    for done in range(0, shard.steps, length):
        stream = np.random.SeedSequence(shard.seed, spawn_key=(shard.first + done // length,))
        episodes.append(demonstrator.episode(min(length, shard.steps - done), stream))
    demonstrator.env.close()
    return episodes


class _Demonstrator:
    """ogbench's noisy expert in one maze, which it steps without Gymnasium's wrappers."""

    def __init__(self, maze: str, kind: Kind) -> None:
        self.kind = kind
        self.env = make(maze, terminate_at_goal=False)
        bare: Any = self.env.unwrapped
        self.maze = bare
        self.oracle = OracleSubgoals(self.maze)
        rows, columns = np.nonzero(self.maze.maze_map == 0)
        self.free: list[Cell] = list(zip(rows.tolist(), columns.tolist(), strict=True))
        self.vertices = [cell for cell in self.free if not self._is_corridor(cell)]

    def episode(self, steps: int, stream: np.random.SeedSequence) -> Episode:
        """`steps` control steps, decided by `stream` alone."""
        for_maze, for_expert = stream.spawn(2)
        rng = np.random.default_rng(for_expert)
        for_ends, for_goals = (int(word) for word in for_maze.generate_state(2))
        start = _drawn(rng, self.free)
        goal = _drawn(rng, self.vertices if self.kind == "navigate" else self._nearby(start))
        observation, _ = self.env.reset(seed=for_ends, options={"task_info": {"init_ij": start, "goal_ij": goal}})
        noise = rng.normal(0.0, NOISE_STD, (steps, 2))
        positions, goals = [observation["position"]], [np.array(self.maze.cur_goal_xy)]
        actions, rewards = np.empty((steps, 2), np.float32), np.empty(steps)
        with numpy_seeded(for_goals):
            for step in range(steps):
                actions[step] = self._act(positions[-1], goals[-1], noise[step])
                position, rewards[step], *_ = self.maze.step(actions[step].astype(np.float64))
                if rewards[step] and self.kind == "navigate":
                    self.maze.set_goal(goal_xy=self.maze.add_noise(self.maze.ij_to_xy(_drawn(rng, self.vertices))))
                positions.append(position)
                goals.append(np.array(self.maze.cur_goal_xy))
        return Episode(
            observations={"position": np.array(positions)},
            actions=actions,
            rewards=rewards,
            terminations=np.zeros(steps, dtype=np.bool_),
            truncations=np.arange(steps) == steps - 1,
            infos={"goal": np.array(goals)},
        )

    def _act(
        self, position: NDArray[np.float64], goal: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> tuple[float, float]:
        x, y = position.tolist()
        target_x, target_y = self.oracle.subgoal(position, goal)
        noise_x, noise_y = noise.tolist()
        across, up = target_x - x, target_y - y
        norm = math.hypot(across, up) + 1e-6
        return min(max(across / norm + noise_x, -1.0), 1.0), min(max(up / norm + noise_y, -1.0), 1.0)

    def _is_corridor(self, cell: Cell) -> bool:
        """Open on two opposite sides and walled on the other two."""
        row, column = cell
        free = self.maze.maze_map == 0
        vertical = (free[row - 1, column], free[row + 1, column])
        level = (free[row, column - 1], free[row, column + 1])
        return (all(vertical) and not any(level)) or (all(level) and not any(vertical))

    def _nearby(self, start: Cell) -> list[Cell]:
        """Cells that are `STITCH_CELLS` steps away on a shortest way; the start itself if there are none."""
        here = self.maze.ij_to_xy(start)
        _, distance = self.maze.get_oracle_subgoal(here, here)
        return [cell for cell in self.free if distance[cell] == STITCH_CELLS] or [start]


def _drawn(rng: np.random.Generator, cells: Sequence[Cell]) -> Cell:
    return cells[int(rng.integers(len(cells)))]
