"""Model-predictive control on what a recording shows, without any learned plan: a yardstick for planners.

One-step dynamics are fitted to the recording, and at every step sampled action sequences are judged by the way that is
left over the places that a dream from this recording may visit. It knows nothing that a policy trained on such a dream
does not.
"""

import time
from collections.abc import Mapping

import numpy as np

from forcing.datasets.dream import DreamConfig
from forcing.datasets.reaching import Reaching
from forcing.datasets.recording import read_recording
from forcing.eval.drivers import Trace
from forcing.eval.maze_tasks import MazeTask
from forcing.policy.mpc import MpcConfig
from forcing.policy.types import Array


class MpcDriver:
    """Fitted and gridded once; an episode depends on its seed alone."""

    name = "mpc"

    def __init__(self, data: str, task: MazeTask) -> None:
        """data: a recording in any supported format. Raises NoWorld if it does not show where actions lead."""
        self._task, self._reaching = task, Reaching(read_recording(data), DreamConfig().room_steps)
        self._mpc = self._reaching.mpc(MpcConfig())

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        """Raises ValueError if the recording has other streams than the task."""
        recorded, observed = sorted(self._reaching.dynamics.streams), sorted(self._task.observe(observation))
        if recorded != observed:
            raise ValueError(f"data observes {recorded}, {self._task.name} {observed}; give a recording of this task")
        goal = self._task.goal(observation)[None]
        # Stays at the goal: what is asked for is to be there soon and for the rest of the episode.
        self._cost = self._reaching.cost(goal, self._reaching.distance.field(goal[0])[None], np.array([True]))
        self._plan, self._rng, self._trace = self._mpc.idle(1), np.random.default_rng(seed), Trace()
        return self._trace

    def act(self, observation: Mapping[str, Array]) -> Array:
        began = time.perf_counter()
        state = self._reaching.dynamics.state(self._task.observe(observation))[None]
        plan = self._mpc.improve(state, self._plan, self._cost, self._rng)
        self._plan = self._mpc.shifted(plan)
        self._trace.act_ms.append(1000 * (time.perf_counter() - began))
        return np.asarray(plan[0, 0])

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""
