"""gymnasium-robotics' Fetch: a block is pushed, or carried, to where it is asked for.

Robot, physics, random starts and goals, 50 steps and success are the package's own; an action says where the gripper
shall be instead of how far it shall move. Knows nothing of policies or recordings.
"""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from forcing.envs.arm_control import heading
from forcing.envs.rendering import Lookout, View, without_display
from forcing.envs.reset_options import asked

Kind = Literal["push", "pick-and-place"]
CONTROL_HZ = 25.0
MAX_STEPS = 50
_LOOKOUT = Lookout(at=(1.3, 0.75, 0.5), distance=1.3, azimuth=140.0, elevation=-25.0)
# How far the package's own action leads at most, along each axis; the gripper comes two thirds of that in a step.
STEP_M = 0.05
# Where blocks and goals are, and what it takes to come behind them.
WORKSPACE_M = np.array([[1.05, 0.45, 0.41], [1.6, 1.05, 0.95]])
_WIDTH_M = 0.1  # of the open gripper

_PLACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
_CARRIED: dict[str, spaces.Space[Any]] = {
    "effector_position": _PLACE,
    "gripper": spaces.Box(0.0, 1.0, (1,), np.float32),
    "object_position": _PLACE,
    "object_heading": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "target": _PLACE,
}
OBSERVATION: dict[Kind, spaces.Dict] = {
    "push": spaces.Dict({name: space for name, space in _CARRIED.items() if name != "gripper"}),
    "pick-and-place": spaces.Dict(_CARRIED),
}
ACTION: dict[Kind, spaces.Box] = {
    "push": spaces.Box(*WORKSPACE_M.astype(np.float32)),
    "pick-and-place": spaces.Box(*np.column_stack([WORKSPACE_M, (0, 1)]).astype(np.float32)),
}
UNITS = dict.fromkeys(("effector_position", "object_position", "target"), "m")

Observation = dict[str, NDArray[np.float32]]


class Fetch(gymnasium.Env[Observation, NDArray[Any]]):
    """A block and where it shall be, on the table or, to be carried, also up to 45 cm above it; 50 steps of 40 ms.

    Observation, float32: effector_position [3] in m; gripper [1], 0 open to 1 closed, if there is carrying to do, and
    else locked; object_position [3] in m; object_heading [2], cosine and sine of four times its yaw, as a block looks
    the same after a quarter of a turn; target [3] in m. Action: [3] or [4], where the effector shall be in m, and if
    there is carrying to do the gripper, 0 to open to 1 to close; cut to the space's limits. A step leads towards there
    by up to 3.3 cm along each axis. Reward: 1 with success, else 0. Info: success, whether the block is within 5 cm of
    the target now; at an episode's last step, whether it held. Everything follows from the seed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, kind: Kind = "push", render_mode: str | None = None) -> None:
        """render_mode: rgb_array for `render`. Raises ValueError for an unknown kind or mode, RuntimeError if nothing
        renders here."""
        if kind not in OBSERVATION:
            raise ValueError(f"kind must be one of {list(OBSERVATION)}, got {kind!r}")
        self.observation_space = OBSERVATION[kind]  # type: ignore[assignment]
        self.action_space = ACTION[kind]
        self._space = ACTION[kind]
        self._simulator = _simulator(kind)
        self._steps = 0
        self.render_mode, self._view = render_mode, View(_LOOKOUT, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        asked(options)
        state, _ = self._simulator.reset(seed=int(self.np_random.integers(2**31)))
        self._steps = 0
        return self._observed(state), {"success": self._succeeded(state)}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        wanted = np.clip(np.asarray(action, np.float64), self._space.low, self._space.high)
        now = self._simulator._utils.get_site_xpos(self._simulator.model, self._simulator.data, "robot0:grip")
        move = np.clip((wanted[:3] - now) / STEP_M, -1.0, 1.0)
        gripper = 1 - 2 * wanted[3] if len(wanted) > 3 else 0.0
        state, *_ = self._simulator.step(np.append(move, gripper))
        self._steps += 1
        success = self._succeeded(state)
        return self._observed(state), float(success), False, self._steps >= MAX_STEPS, {"success": success}

    def render(self) -> NDArray[np.uint8]:
        """[240, 240, 3], for people. Raises ValueError if no render_mode was asked for."""
        return self._view.of(self._simulator.model, self._simulator.data)

    def close(self) -> None:
        self._view.close()
        self._simulator.close()

    def _succeeded(self, state: dict[str, NDArray[np.float64]]) -> bool:
        return bool(self._simulator._is_success(state["achieved_goal"], state["desired_goal"]))

    def _observed(self, state: dict[str, NDArray[np.float64]]) -> Observation:
        """state: the package's; in its observation [25] the gripper's place, the block's, ... its fingers', turns."""
        numbers = state["observation"]
        parts = {
            "effector_position": numbers[:3],
            "gripper": np.clip([1 - numbers[9:11].sum() / _WIDTH_M], 0, 1),
            "object_position": numbers[3:6],
            "object_heading": heading(numbers[13]),
            "target": state["desired_goal"],
        }
        names: Any = self.observation_space
        return {name: parts[name].astype(np.float32) for name in names}


def environment_spec(kind: Kind) -> EnvSpec:
    """What `gymnasium.make` takes, and recordings name as their environment."""
    return EnvSpec(id=f"forcing/fetch-{kind}-v0", entry_point="forcing.envs.fetch:Fetch", kwargs={"kind": kind})


def _simulator(kind: Kind) -> Any:
    """The package's own environment."""
    with without_display():
        from gymnasium_robotics.envs.fetch import pick_and_place, push
    return push.MujocoFetchPushEnv() if kind == "push" else pick_and_place.MujocoFetchPickAndPlaceEnv()
