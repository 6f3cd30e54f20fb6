"""Demonstrations of Maze2D: D4RL's expert drives from goal to goal, as episodes in D4RL pointmaze's Minari schema.

The ball is never put back: an episode starts where the one before it ended. Work is cut into shards with a random
stream each, so the recording depends on the seed alone and not on how many processes made it. Knows nothing of files.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypedDict

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from forcing.envs.maze2d import maze_map, point_maze
from forcing.envs.shards import check_request, run_shards
from forcing.envs.waypoint_expert import DEMONSTRATION_NOISE, REACHED_M, WaypointExpert

SHARD_STEPS = 25_000
REST_SPEED = 0.1
SUCCESS_RADIUS_M = 0.45


class Episode(TypedDict):
    """One drive to one goal, T control steps long.

    observations: observation [T + 1, 4] (x, y, vx, vy in m and m/s), achieved_goal, desired_goal [T + 1, 2], float64.
    actions: [T, 2] float32, as executed. rewards: [T] float64, PointMaze's own: 1 within 0.45 m of the goal.
    terminations: [T] all False. truncations: [T] bool, the last is True. infos: success [T + 1] bool, within 0.45 m;
    qpos, qvel, goal [T + 1, 2] float64.
    """

    observations: dict[str, NDArray[np.float64]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    infos: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    maze: str
    steps: int
    seed: np.random.SeedSequence


def collect(maze: str, *, steps: int, seed: int, workers: int | None = None) -> Iterator[list[Episode]]:
    """Episodes that hold `steps` control steps together, a list for each shard of 25,000, in a fixed order.

    maze: umaze, medium or large. An episode ends when the ball rests at its goal (within 0.1 m, slower than 0.1 m/s)
    or with its shard. workers: processes, None for one a core; they change nothing but the time it takes. With more
    than one, the calling script must be importable (`if __name__ == "__main__":`). Raises ValueError for an unknown
    maze, or a number below its least.
    """
    maze_map(maze)  # an unknown maze is an error at once
    processes = check_request(steps=steps, seed=seed, workers=workers)
    starts = range(0, steps, SHARD_STEPS)
    seeds = np.random.SeedSequence(seed).spawn(len(starts))
    shards = [
        _Shard(maze=maze, steps=min(SHARD_STEPS, steps - start), seed=child)
        for start, child in zip(starts, seeds, strict=True)
    ]
    return run_shards(_collect_shard, shards, processes)


def recording_spec(maze: str) -> EnvSpec:
    """The Gymnasium environment that recordings name as theirs: PointMaze with D4RL pointmaze's arguments.

    Raises ValueError for an unknown maze.
    """
    maze_map(maze)  # an unknown maze is an error at once
    label = {"umaze": "UMaze"}.get(maze, maze.capitalize())
    spec = deepcopy(gymnasium.spec(f"PointMaze_{label}-v3"))
    spec.kwargs = {**spec.kwargs, "continuing_task": True, "reset_target": True}
    spec.max_episode_steps = 1_000_000
    return spec


def _collect_shard(shard: _Shard) -> list[Episode]:
    for_env, for_noise = shard.seed.spawn(2)
    env = point_maze(shard.maze)
    rng = np.random.default_rng(for_noise)
    expert = WaypointExpert(maze_map(shard.maze), noise_std=DEMONSTRATION_NOISE, rng=rng)
    observation, _ = env.reset(seed=int(for_env.generate_state(1)[0]))
    episodes: list[Episode] = []
    left = shard.steps
    while left > 0:
        states = [observation["observation"]]
        actions: list[NDArray[np.float32]] = []
        while left > 0 and not _rests_at_goal(observation):
            action = expert.act(observation)
            observation = env.step(action)[0]
            states.append(observation["observation"])
            actions.append(action)
            left -= 1
        episodes.append(_episode(np.array(states), np.array(actions), observation["desired_goal"]))
        observation = {**observation, "desired_goal": _draw_goal(env, observation["achieved_goal"])}
    env.close()
    return episodes


def _rests_at_goal(observation: dict[str, NDArray[np.float64]]) -> bool:
    near = np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) < REACHED_M
    return bool(near and np.linalg.norm(observation["observation"][2:]) < REST_SPEED)


def _draw_goal(env: Any, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """A goal as PointMaze draws them, beyond the success radius, set in `env`."""
    while np.linalg.norm(position - env.goal) <= SUCCESS_RADIUS_M:
        env.goal = env.add_xy_position_noise(env.generate_target_goal())
    env.update_target_site_pos()
    return np.array(env.goal)


def _episode(states: NDArray[np.float64], actions: NDArray[np.float32], goal: NDArray[np.float64]) -> Episode:
    steps = len(actions)
    goals = np.tile(goal, (steps + 1, 1))
    position, velocity = states[:, :2].copy(), states[:, 2:].copy()
    success = np.linalg.norm(position - goals, axis=1) <= SUCCESS_RADIUS_M
    return Episode(
        observations={"observation": states, "achieved_goal": position, "desired_goal": goals},
        actions=actions,
        rewards=success[1:].astype(np.float64),
        terminations=np.zeros(steps, dtype=np.bool_),
        truncations=np.arange(steps) == steps - 1,
        infos={"success": success, "qpos": position.copy(), "qvel": velocity, "goal": goals.copy()},
    )
