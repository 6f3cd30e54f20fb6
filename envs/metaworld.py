"""Meta-World (arXiv:1910.10897): eight of its tasks in one environment, or one of them alone, repeatable from a seed.

Robot, physics, random goals and success are Meta-World's own, goals visible; an action says where the hand shall be
instead of how its pull shall change, and success does not end an episode. metaworld is an extra, imported when it is
first needed. Knows nothing of policies or recordings.
"""

from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from forcing.envs.extras import extra_needed
from forcing.envs.rendering import Lookout, View
from forcing.envs.reset_options import asked

Task = Literal[
    "reach",
    "push",
    "pick-place",
    "drawer-open",
    "button-press-topdown",
    "door-open",
    "peg-insert-side",
    "window-open",
]
TASKS: tuple[Task, ...] = get_args(Task)
CONTROL_HZ = 80.0
# Meta-World's own limit is 500; its experts, and ours, are done before 120.
MAX_STEPS = 200
_LOOKOUT = Lookout(at=(0.0, 0.7, 0.1), distance=1.4, azimuth=145.0, elevation=-30.0)
# Meta-World moves what pulls the hand by up to 1 cm a step. Its own experts set that to 4 to 50 times the distance, and
# to all of it from REACH_M on.
REACH_M = 0.05
# Where Meta-World lets the hand be in all eight.
ACTION = spaces.Box(np.array([-0.5, 0.4, 0.05, 0.0], np.float32), np.array([0.5, 1.0, 0.5, 1.0], np.float32))
_PLACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
OBSERVATION = spaces.Dict(
    {
        "effector_position": _PLACE,
        "gripper": spaces.Box(0.0, 1.0, (1,), np.float32),
        "object_position": _PLACE,
        "object_rotation": spaces.Box(-1.0, 1.0, (4,), np.float32),
        "target": _PLACE,
        "task": spaces.Box(0.0, 1.0, (len(TASKS),), np.float32),
    }
)
UNITS = dict.fromkeys(("effector_position", "object_position", "target"), "m")

Observation = dict[str, NDArray[np.float32]]


class MetaWorld(gymnasium.Env[Observation, NDArray[Any]]):
    """One of the eight tasks in each episode; it is cut after 200 steps of 12.5 ms and never ends before.

    Observation, float32: effector_position [3] in m, the hand's; gripper [1], 0 open to 1 closed; object_position [3]
    in m and object_rotation [4], the puck's, peg's, handle's or button's, as Meta-World has them (a quaternion, zeros
    for a window); target [3] in m, where the object, or the hand, shall be; task [8], 1 for the one that is asked for.
    Meta-World's 39 numbers but for the frame before and for a second object, which none of the eight has. Action: [4],
    where the hand shall be in m, and the gripper, 0 to open and 1 to close with all its force; cut to the space's
    limits. What pulls the hand moves by up to 1 cm a step, as far as that when the hand is 5 cm away or more. Reward: 1
    with success, else 0. Info: success, Meta-World's own, now; at an episode's last step, whether it held. reset takes
    options={"task_id": 1 to 8} where no task is fixed, drawn from the seed if not given; all else follows from the
    seed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, task: Task | None = None, render_mode: str | None = None) -> None:
        """task: plays this one alone. render_mode: rgb_array for `render`. Raises ValueError for an unknown one,
        RuntimeError if metaworld is missing, or nothing renders here."""
        if task is not None and task not in TASKS:
            raise ValueError(f"task must be one of {list(TASKS)}, got {task!r}")
        self.observation_space = OBSERVATION  # type: ignore[assignment]
        self.action_space = ACTION
        self._tasks = TASKS if task is None else (task,)
        self._simulators: dict[Task, Any] = {self._tasks[0]: _simulator(self._tasks[0])}
        self._task = self._tasks[0]
        self._steps = 0
        self.render_mode, self._view = render_mode, View(_LOOKOUT, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(1, len(self._tasks) + 1))
        number = asked(options, "task_id").get("task_id", drawn)
        if number not in range(1, len(self._tasks) + 1):
            raise ValueError(f"task_id must be 1 to {len(self._tasks)}, got {number}")
        self._task = self._tasks[number - 1]
        if self._task not in self._simulators:
            self._simulators[self._task] = _simulator(self._task)
        simulator = self._simulators[self._task]
        simulator.seed(int(self.np_random.integers(2**31)))
        state, _ = simulator.reset()
        self._steps = 0
        return self._observed(state), {"success": False}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        simulator = self._simulators[self._task]
        wanted = np.clip(np.asarray(action, np.float64), ACTION.low, ACTION.high)
        pull = np.clip((wanted[:3] - simulator.get_endeff_pos()) / REACH_M, -1.0, 1.0)
        state, _, _, _, found = simulator.step(np.append(pull, 2 * wanted[3] - 1))
        self._steps += 1
        success = bool(found["success"])
        return self._observed(state), float(success), False, self._steps >= MAX_STEPS, {"success": success}

    def render(self) -> NDArray[np.uint8]:
        """[240, 240, 3], for people. Raises ValueError if no render_mode was asked for."""
        simulator = self._simulators[self._task]
        return self._view.of(simulator.model, simulator.data)

    def close(self) -> None:
        self._view.close()
        for simulator in self._simulators.values():
            simulator.close()

    def _observed(self, state: NDArray[np.float64]) -> Observation:
        """state: Meta-World's 39 numbers: hand, gripper, two objects; the same of the step before; the goal."""
        parts = {
            "effector_position": state[:3],
            "gripper": 1 - state[3:4],
            "object_position": state[4:7],
            "object_rotation": state[7:11],
            "target": state[36:],
            "task": np.eye(len(TASKS))[TASKS.index(self._task)],
        }
        return {name: part.astype(np.float32) for name, part in parts.items()}


def environment_spec(task: Task | None = None) -> EnvSpec:
    """What `gymnasium.make` takes, and recordings name as their environment."""
    name = "metaworld" if task is None else f"metaworld-{task}"
    return EnvSpec(id=f"forcing/{name}-v0", entry_point="forcing.envs.metaworld:MetaWorld", kwargs={"task": task})


def _simulator(task: Task) -> Any:
    """Meta-World's own environment, which shows goals and draws from its own generator alone."""
    with extra_needed("metaworld", "metaworld"):
        from metaworld.env_dict import ENV_CLS_MAP
    simulator: Any = ENV_CLS_MAP[f"{task}-v3"]()
    simulator._partially_observable = False
    del simulator.sawyer_observation_space  # it is remembered, and cuts goals to 0
    simulator._freeze_rand_vec = False
    simulator.seeded_rand_vec = True
    simulator._set_task_called = True
    return simulator
