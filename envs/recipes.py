"""What can be demonstrated, by name: who drives, in which environment, and how the recording is laid out.

Nothing is imported from a simulator's extra before a recipe is followed. Knows nothing of files.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from forcing.envs import (
    arm_demonstrations,
    cube,
    cube_demonstrations,
    demonstrations,
    fetch,
    fetch_demonstrations,
    maze2d,
    metaworld,
    metaworld_demonstrations,
    ogbench_demonstrations,
    ogbench_maze,
    swap,
    swap_demonstrations,
)
from forcing.envs.arm_control import ACTION
from forcing.envs.swap_layout import IMAGE_SIZE


class Collect(Protocol):
    """Lists of episodes that hold `steps` control steps together; see `demonstrations.collect`."""

    def __call__(self, *, steps: int, seed: int, workers: int | None = None) -> Iterator[list[Mapping[str, Any]]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One kind of demonstrations.

    collect: makes them. env: the environment that the recording names as its own. observation_space, action_space: of
    what is recorded, None for the environment's. control_hz: steps a second. expert: who drives; noise: the standard
    deviation of what is added to what it does, of swap's in OGBench's steps, else in the actions' units. goal: the
    observation in which goals are given, None where there are none or readers know the layout; units: of observations.
    bytes_a_step: of a Minari dataset, generously.
    """

    collect: Collect
    env: Callable[[], EnvSpec]
    control_hz: float
    expert: str
    noise: float = 0.5
    observation_space: gymnasium.Space[Any] | None = None
    action_space: gymnasium.Space[Any] | None = None
    goal: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    bytes_a_step: int = 500


def _maze2d(maze: str) -> Recipe:
    return Recipe(
        collect=partial(demonstrations.collect, maze),  # type: ignore[arg-type]  # an Episode is a mapping
        env=partial(demonstrations.recording_spec, maze),
        control_hz=maze2d.CONTROL_HZ,
        expert="D4RL waypoint controller",
    )


def _ogbench(maze: str, kind: ogbench_demonstrations.Kind) -> Recipe:
    return Recipe(
        collect=partial(ogbench_demonstrations.collect, maze, kind),  # type: ignore[arg-type]
        env=partial(ogbench_demonstrations.recording_spec, maze, kind),
        control_hz=ogbench_maze.CONTROL_HZ,
        expert="OGBench oracle subgoals",
        observation_space=spaces.Dict(position=spaces.Box(-np.inf, np.inf, (2,), np.float64)),
        action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
        goal="position",
        units={"position": "m"},
    )


def _swap(cameras: bool) -> Recipe:
    space = swap_demonstrations.observation_space(cameras=cameras)
    frames = sum(box.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) for box in space.values())
    return Recipe(
        collect=partial(swap_demonstrations.collect, cameras=cameras),  # type: ignore[arg-type]
        env=partial(swap.environment_spec, cameras=cameras),
        control_hz=swap.CONTROL_HZ,
        expert="OGBench cube oracle",
        noise=swap_demonstrations.NOISE_STD,
        observation_space=space,
        action_space=ACTION,
        units={name: unit for name, unit in swap.UNITS.items() if name in space.spaces},
        bytes_a_step=1000 + frames * IMAGE_SIZE * IMAGE_SIZE * 3,
    )


def _cube(kind: cube.Kind) -> Recipe:
    return Recipe(
        collect=partial(arm_demonstrations.collect, cube_demonstrations.lesson(kind)),  # type: ignore[arg-type]
        env=partial(cube.environment_spec, kind),
        control_hz=cube.CONTROL_HZ,
        expert="after OGBench's cube oracle",
        noise=cube_demonstrations.NOISE_STD,
        observation_space=cube.observation_space(kind),
        action_space=ACTION,
        units=cube.units(kind),
        bytes_a_step=1000,
    )


def _metaworld(task: metaworld.Task | None) -> Recipe:
    return Recipe(
        collect=partial(arm_demonstrations.collect, metaworld_demonstrations.lesson(task)),  # type: ignore[arg-type]
        env=partial(metaworld.environment_spec, task),
        control_hz=metaworld.CONTROL_HZ,
        expert="after Meta-World's experts",
        noise=metaworld_demonstrations.NOISE_STD,
        observation_space=metaworld.OBSERVATION,
        action_space=metaworld.ACTION,
        units=metaworld.UNITS,
        bytes_a_step=1000,
    )


def _fetch(kind: fetch.Kind) -> Recipe:
    return Recipe(
        collect=partial(arm_demonstrations.collect, fetch_demonstrations.lesson(kind)),  # type: ignore[arg-type]
        env=partial(fetch.environment_spec, kind),
        control_hz=fetch.CONTROL_HZ,
        expert="script for Fetch",
        noise=fetch_demonstrations.NOISE_STD,
        observation_space=fetch.OBSERVATION[kind],
        action_space=fetch.ACTION[kind],
        units=fetch.UNITS,
        bytes_a_step=1000,
    )


RECIPES: Mapping[str, Recipe] = {
    **{f"maze2d-{maze}": _maze2d(maze) for maze in maze2d.MAZE_MAPS},
    **{
        f"ogbench-pointmaze-{maze}-{kind}": _ogbench(maze, kind)
        for maze in ogbench_maze.MAZES
        for kind in get_args(ogbench_demonstrations.Kind)
    },
    "swap": _swap(cameras=False),
    "swap-cameras": _swap(cameras=True),
    **{f"cube-{kind}": _cube(kind) for kind in get_args(cube.Kind)},
    "metaworld": _metaworld(None),
    **{f"metaworld-{task}": _metaworld(task) for task in metaworld.TASKS},
    **{f"fetch-{kind}": _fetch(kind) for kind in fetch.OBSERVATION},
}
