"""Any Gymnasium environment recorded as it is driven, in three lines:

    env = Recorder(env, "recordings/cart")
    ...                                     # reset and step as ever
    env.close()

What is recorded is a recording like any other (`forcing data info recordings/cart`), also while it is written and after
the process was killed: `journal` has the format, `journal_writer` what a crash leaves.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from forcing.datasets.journal_writer import JournalFolder
from forcing.datasets.space_streams import Streams, streams_of
from forcing.policy.types import Array, TrajectorySpec

_64_BITS = range(-(2**63), 2**63)


class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment, unchanged, with all that is observed, done and rewarded in `folder`, an episode a file.

    Every step is kept when `step` returns, whatever becomes of the process; of a machine that loses power the last
    `flush_s` seconds may be lost. Episodes that are in the folder stay, and new ones follow them. Each is kept as it
    was: numbers in the type that they came in, with the seed and the options of its reset; infos are not.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        folder: str | Path,
        *,
        control_hz: float | None = None,
        name: str | None = None,
        flush_s: float = 1.0,
        streams: Streams | None = None,
    ) -> None:
        """control_hz: steps a second; the environment's render_fps if None. name: what the recording is called; that of
        the environment if None. streams: what is recorded, where that is not simply what its spaces say (`streams_of`).

        Raises ValueError if neither says how fast it ticks, the spaces cannot be recorded, or what the folder holds is
        of another environment; OSError if it cannot be written, or another Recorder writes there.
        """
        if not flush_s >= 0:
            raise ValueError(f"flush_s must be at least 0, got {flush_s}")
        if streams is not None and control_hz is not None:
            raise ValueError("control_hz is part of streams; give one of the two")
        super().__init__(env)
        self._streams = streams or streams_of(env, control_hz)
        spec = env.unwrapped.spec
        self._env_id = type(env.unwrapped).__name__ if spec is None else spec.id
        self._name = name or self._env_id
        self._journals = JournalFolder(folder, sync_s=flush_s)
        self._why_not: str | None = "no episode has begun"
        try:
            self._check_newest()
        except BaseException:
            self._journals.close()
            raise

    @property
    def folder(self) -> Path:
        """Where the recording is."""
        return self._journals.folder

    @property
    def next_episode(self) -> int:
        """The number of the episode that the next reset begins; those that were there before count."""
        return self._journals.next

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode. Raises OSError, naming the folder, if it cannot be written; ValueError if the Recorder was
        closed, or the observation is not what its space promises."""
        self._why_not = "no episode has begun"
        observation, info = super().reset(seed=seed, options=options)
        opened = {
            "kind": "recorded",
            "spec": self._streams.spec.to_json(),
            "name": self._name,
            "env": self._env_id,
            "left_out": list(self._streams.left_out),
            "seed": _plain(seed),
            "options": _plain(options),
        }
        first = {"kind": "reset", "observation": self._observed(observation)}
        self._journals.begin(re.sub(r"[^\w-]", "_", self._name), opened, first)
        self._why_not = None
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step, kept. Raises ResetNeeded where no episode goes on, ValueError if the action or the observation is
        not what its space promises, OSError, naming the folder, if the step cannot be kept: its episode ends before it,
        as it does if the environment raises.
        """
        if self._why_not is not None:
            raise ResetNeeded(f"{self._why_not}: call reset before step")
        given, expected = np.asarray(action), self._streams.spec.action.shape
        if given.shape != expected:
            raise ValueError(f"action must have shape {expected}, got {given.shape}")
        done = _array("action", given)  # a copy: environments may change it
        self._why_not = "the episode ended where a step could not be kept"  # so it is if anything below raises
        observation, reward, terminated, truncated, info = super().step(action)
        self._journals.add(
            {
                "kind": "stepped",
                "action": done,
                "reward": float(reward),
                "terminated": bool(terminated),
                "truncated": bool(truncated),
                "observation": self._observed(observation),
            }
        )
        self._why_not = "the episode has ended" if terminated or truncated else None
        if self._why_not is not None:
            self._journals.end()
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Ends the recording, all of it on disk, and closes the environment."""
        self._why_not = "the Recorder was closed"
        try:
            self._journals.close()
        finally:
            super().close()

    def _observed(self, observation: Any) -> dict[str, tuple[str, bytes]]:
        return {name: _array(f"observation {name!r}", value) for name, value in self._streams.read(observation).items()}

    def _check_newest(self) -> None:
        newest = self._journals.newest()
        if newest is None:
            return
        if newest.get("kind") != "recorded":
            raise ValueError(f"{self.folder} holds journals of a server; name another folder")
        if newest["env"] != self._env_id:
            raise ValueError(
                f"{self.folder} holds a recording of {newest['env']}, not {self._env_id}; name another folder"
            )
        if TrajectorySpec.from_json(newest["spec"]) != self._streams.spec:
            raise ValueError(
                f"{self.folder} holds a recording of {newest['env']} with other streams or another control_hz; "
                "name another folder"
            )


def _array(what: str, value: Array) -> tuple[str, bytes]:
    """As it stands in an entry. Raises ValueError unless it is of numbers."""
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be an array of numbers, got one of {value.dtype}")
    return value.dtype.str, value.tobytes()


def _plain(value: Any) -> Any:
    """As msgpack can hold it: lists in place of arrays, and in place of what nobody can read again its description."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, int) and value not in _64_BITS:
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
