"""How the rows of a bench are measured: the same episodes of a task, whoever drives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from forcing.eval.adjust import Adjusted
from forcing.eval.conditions import Conditions
from forcing.eval.evaluate import watch
from forcing.eval.fronts import Front
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.report import Report, build_report
from forcing.eval.rollout import DriverSpec
from forcing.policy.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Episodes `seed`, `seed` + 1, ... of a task. workers: processes, None for one a core.
    command: as typed."""

    task: MazeTask
    episodes: int
    seed: int
    workers: int | None
    command: str
    console: Console

    def wanted(self, policy: Policy) -> Report:
        """What all rows of a report have in common."""
        common = {"task": self.task.name, "weights": policy.revision}
        return common | {"episodes": self.episodes, "seed": self.seed}

    def run(
        self,
        name: str,
        policy: Policy | None,
        settings: Sequence[str] = (),
        *,
        faults: str = "",
        front: Front | None = None,
    ) -> Report:
        """The report of a yardstick by its name, or of a policy, found by this name, with these settings; under faults
        of the sensors, and with something between them and the policy."""
        adjust = Adjusted(tuple(settings)) if settings else None
        spec = DriverSpec(policy=name, adjust=adjust, front=front, under=Conditions(faults=faults))
        episodes = watch(self.task, spec, self.episodes, self.seed, self.workers, self.console)
        revision = None if policy is None else policy.revision
        report = build_report(self.task, name, revision, self.seed, episodes, self.command)
        plans = [plan for episode in episodes for plan in episode.trace.plans]
        return report | {"passes": float(np.mean([plan.passes for plan in plans])) if plans else None}
