"""`cube-single`, `cube-double`: cubes are put where they shall be, ogbench's manipulation tasks (arXiv:2410.20092).

Robot, physics, five official tasks each, limits and success are ogbench's own; an action says where the effector shall
be instead of how it shall move, an episode depends on its seed alone, and success does not end it. ogbench is an extra,
imported when it is first needed. Knows nothing of policies or recordings.
"""

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from forcing.envs.arm_control import ACTION, state_spaces
from forcing.envs.extras import extra_needed
from forcing.envs.rendering import Lookout, View
from forcing.envs.reset_options import asked

Kind = Literal["single", "double"]
CONTROL_HZ = 20.0
TASKS = 5
MAX_STEPS = {"single": 200, "double": 500}
_LOOKOUT = Lookout(at=(0.42, 0.0, 0.05), distance=0.95, azimuth=180.0, elevation=-35.0)

Observation = dict[str, NDArray[np.float32]]


class Cube(gymnasium.Env[Observation, NDArray[Any]]):
    """One or two cubes and where they shall be; an episode is cut after 200 or 500 steps of 0.05 s, never ends before.

    Observation, float32: effector_position [3] in m; effector_heading [2], cosine and sine of four times its yaw;
    gripper [2], 0 open to 1 closed, and 0 to 1 for the force on a finger; red_position [3] in m and red_heading [2], as
    the effector's, and with two cubes blue's; target [3] or [6] in m, where red, and blue, shall be. Action: [6], where
    the effector and the gripper shall be: x, y, z in m, heading [2] as observed, and 0 open to 1 closed; cut to the
    space's limits. A step leads towards there, up to 0.05 m along each axis and 0.3 rad by the nearest way. Reward: 1
    with success, else 0. Info: success, whether each cube is within 4 cm of its target now, in the gripper or not; at
    an episode's last step, whether it held. reset takes options={"task_id": 1 to 5}, drawn from the seed if not given,
    or {"starts": [n, 3], "goals": [n, 3]} in m; all else follows from the seed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, kind: Kind = "single", render_mode: str | None = None) -> None:
        """render_mode: rgb_array for `render`. Raises ValueError for an unknown kind or mode, RuntimeError if ogbench
        is not installed, or nothing renders here."""
        self.observation_space = observation_space(kind)  # type: ignore[assignment]
        self.action_space = ACTION
        self._scene = _scene(kind)
        self._limit = MAX_STEPS[kind]
        self.render_mode, self._view = render_mode, View(_LOOKOUT, render_mode)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        wanted = asked(options, "task_id", "starts", "goals")
        task_id = wanted.get("task_id", int(self.np_random.integers(1, TASKS + 1)))
        if task_id not in range(1, TASKS + 1):
            raise ValueError(f"task_id must be 1 to {TASKS}, got {task_id}")
        official = self._scene.official(task_id, self.np_random)
        self._scene.starts, self._scene.goals = _placed(wanted, *official)
        # ogbench would draw a task of its own from numpy's global generator.
        state, _ = self._scene.reset(seed=int(self.np_random.integers(2**31)), options={"task_id": task_id})
        self._steps = 0
        return state, self._info()

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        state = self._scene.step_to(np.clip(np.asarray(action, np.float64), ACTION.low, ACTION.high))
        self._steps += 1
        info = self._info()
        return state, float(info["success"]), False, self._steps >= self._limit, info

    def render(self) -> NDArray[np.uint8]:
        """[240, 240, 3], for people. Raises ValueError if no render_mode was asked for."""
        return self._view.of(self._scene._model, self._scene._data)

    def close(self) -> None:
        self._view.close()

    def _info(self) -> dict[str, Any]:
        return {"success": self._scene.success}


def observation_space(kind: Kind) -> spaces.Dict:
    """Of `Cube`. Raises ValueError for an unknown kind."""
    if kind not in MAX_STEPS:
        raise ValueError(f"kind must be one of {list(MAX_STEPS)}, got {kind!r}")
    cubes = list(MAX_STEPS).index(kind) + 1
    target = spaces.Box(-np.inf, np.inf, (3 * cubes,), np.float32)
    return spaces.Dict({**state_spaces(cubes), "target": target})


def units(kind: Kind) -> dict[str, str]:
    """Of observations by name."""
    return {name: "m" for name in observation_space(kind) if name.endswith(("position", "target"))}


def environment_spec(kind: Kind) -> EnvSpec:
    """What `gymnasium.make` takes, and recordings name as their environment."""
    return EnvSpec(id=f"forcing/cube-{kind}-v0", entry_point="forcing.envs.cube:Cube", kwargs={"kind": kind})


def _placed(options: Mapping[str, Any], *official: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Starts and goals, of the options or else the official ones."""
    asked = []
    for name, places in zip(("starts", "goals"), official, strict=True):
        given = np.asarray(options.get(name, places), np.float64)
        if given.shape != places.shape:
            raise ValueError(f"{name} must have the shape {places.shape}, got {given.shape}")
        asked.append(given)
    return asked


def _scene(kind: Kind) -> Any:
    with extra_needed(f"cube-{kind}", "ogbench"):
        from forcing.envs.cube_scene import CubeScene
    return CubeScene(kind)
