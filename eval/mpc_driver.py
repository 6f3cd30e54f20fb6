"""Model-predictive control on what a recording shows, without any learned plan: a yardstick for planners.

One-step dynamics are fitted to the recording, and at every step sampled action sequences are judged by the way that is
left over the places that a dream from this recording may visit. It knows nothing that a policy trained on such a dream
does not.
"""

import time
from collections.abc import Mapping

import numpy as np

from forcing.datasets.dream import DreamConfig
from forcing.datasets.drivable import drivable_places
from forcing.datasets.reaching import VisitedDistance, reach_cost
from forcing.datasets.recording import read_recording
from forcing.eval.drivers import Trace
from forcing.eval.tasks import Task
from forcing.policy.mpc import MpcConfig, SamplingMpc
from forcing.policy.support import fastest_step
from forcing.policy.types import Array
from forcing.policy.world import fit_world


class MpcDriver:
    """Fitted and gridded once; an episode depends on its seed alone."""

    name = "mpc"

    def __init__(self, data: str, task: Task) -> None:
        """data: a recording in any supported format. Raises NoWorld if it does not show where actions lead."""
        recorded = read_recording(data)
        world, goal, action = fit_world(recorded), recorded.spec.goal, recorded.spec.action
        assert goal is not None
        assert action.low is not None
        assert action.high is not None
        self._task, self._dynamics, self._position = task, world.dynamics, world.dynamics.streams[goal]
        self._distance = VisitedDistance(drivable_places(recorded, world.dynamics, DreamConfig().room_steps))
        self._pace = fastest_step(recorded)
        self._mpc = SamplingMpc(world.dynamics, np.array(action.low), np.array(action.high), MpcConfig())

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        """Raises ValueError if the recording has other streams than the task."""
        recorded, observed = sorted(self._dynamics.streams), sorted(self._task.observe(observation))
        if recorded != observed:
            raise ValueError(f"data observes {recorded}, {self._task.name} {observed}; give a recording of this task")
        goal = self._task.goal(observation)[None]
        # Stays at the goal: what is asked for is to be there soon and for the rest of the episode.
        self._cost = reach_cost(
            self._distance,
            self._position,
            goal,
            self._distance.field(goal[0])[None],
            np.array([True]),
            reached=0.0,
            pace=self._pace,
        )
        self._plan, self._rng, self._trace = self._mpc.idle(1), np.random.default_rng(seed), Trace()
        return self._trace

    def act(self, observation: Mapping[str, Array]) -> Array:
        began = time.perf_counter()
        state = self._dynamics.state(self._task.observe(observation))[None]
        plan = self._mpc.improve(state, self._plan, self._cost, self._rng)
        self._plan = self._mpc.shifted(plan)
        self._trace.act_ms.append(1000 * (time.perf_counter() - began))
        return np.asarray(plan[0, 0])

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""
