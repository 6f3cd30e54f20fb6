"""Figures that are not ours to measure: the best published scores, and what the physics allow at most.

Scores are the tasks' own (`Task.normalized`).
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """best: highest score known to us of any published method, and whose it is, "" if several papers share the table
    that it stands in. limit, limit_steps: mean score and steps to the goal that the physics allow, None where nobody
    has computed them.
    """

    best: float
    source: str = ""
    limit: float | None = None
    limit_steps: float | None = None


# The limit of Maze2D is 4-D value iteration (position and velocity) with the exact physics, on 100 to 200 episodes
# drawn like the task's own, standard error 0.9 to 2.2. The figures came with the project's brief; what computed them is
# not in this repository, so they are estimates here.
PUBLISHED: Mapping[str, Published] = {
    "maze2d-umaze-single": Published(best=146.3, limit=165.4, limit_steps=49),
    "maze2d-umaze-multi": Published(best=158.2, limit=169.9, limit_steps=43),
    "maze2d-medium-single": Published(best=156.0, limit=188.5, limit_steps=90),
    "maze2d-medium-multi": Published(best=170.5, limit=196.0, limit_steps=70),
    "maze2d-large-single": Published(best=205.2, limit=254.0, limit_steps=115),
    "maze2d-large-multi": Published(best=216.5, limit=252.4, limit_steps=120),
    "ogbench-pointmaze-medium-navigate": Published(best=100.0, source="HorizonFlow"),
    "ogbench-pointmaze-large-navigate": Published(best=99.8, source="HorizonFlow"),
    "ogbench-pointmaze-giant-navigate": Published(best=97.1, source="HorizonFlow"),
    "ogbench-pointmaze-medium-stitch": Published(best=100.0, source="CompDiffuser"),
    "ogbench-pointmaze-large-stitch": Published(best=100.0, source="CompDiffuser"),
    "ogbench-pointmaze-giant-stitch": Published(best=100.0, source="XDiffuser"),
}
