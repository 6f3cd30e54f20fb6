"""How good plans are before any tracker drives them: jumps, walls cut, and when they say they arrive.

Measured on the plans that were followed. Knows the map, which planners do not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forcing.envs.floor_plan import FloorPlan
from forcing.envs.maze_grid import WALL
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.published import PUBLISHED
from forcing.eval.rollout import Episode
from forcing.policy.types import Plan

CROSSING_M = 0.1  # deeper in a wall than this, a plan cuts it
SPACING = 0.02  # of a cell's side, between the places of a path that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFigures:
    """One plan.

    joint_jump_m, inner_jump_m: largest jump where a token begins, the first token's start included, and elsewhere; None
    if the plan has no such place. wall_depth_m: the deepest that its path lies inside a wall. predicted_steps: control
    steps from its making until its path first lies within the goal radius, None if it never does. cost: what the
    planner ranked it by.
    """

    joint_jump_m: float | None
    inner_jump_m: float | None
    wall_depth_m: float
    predicted_steps: int | None
    cost: float


def measure_plan(task: MazeTask, plan: Plan, goal: NDArray[np.float64], token_steps: int) -> PlanFigures:
    """token_steps: control steps of a token of the policy that made the plan. goal: [2], m."""
    jumps = plan_jumps(plan, task.control_hz, task.fastest_m)
    joint = np.concatenate([[0], plan.steps[:-1]]) % token_steps == 0
    floor_plan, path = task.floor_plan(), _path(plan)
    return PlanFigures(
        joint_jump_m=_largest(jumps[joint]),
        inner_jump_m=_largest(jumps[~joint]),
        wall_depth_m=float(wall_depth(floor_plan, _dense(path, SPACING * floor_plan.cell_m)).max()),
        predicted_steps=predicted_steps(plan, goal, floor_plan.goal_radius_m),
        cost=float(plan.costs[plan.chosen]),
    )


def plan_jumps(plan: Plan, control_hz: float, fastest_m: float) -> NDArray[np.float64]:
    """[F] m by which each planned position misses what leads there from the frame before it.

    With planned velocities the distance from where they lead by the trapezoid rule; without, what the step has over
    `fastest_m`, the longest way that a control step can take.
    """
    path, apart = _path(plan), np.diff(np.concatenate([[0], plan.steps]))[:, None]
    step = np.diff(path, axis=0)
    if "velocity" not in plan.streams:
        return np.asarray(np.maximum(0, np.linalg.norm(step, axis=1) - fastest_m * apart[:, 0]))
    speed = np.concatenate([plan.start["velocity"].reshape(1, -1), plan.streams["velocity"]])
    return np.asarray(np.linalg.norm(step - apart / control_hz * 0.5 * (speed[:-1] + speed[1:]), axis=1))


def wall_depth(floor_plan: FloorPlan, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """[P] m from each place [P, 2] to the nearest free cell, 0 in the free; outside of the maze is wall."""
    cells = np.array([[value == WALL for value in row] for row in floor_plan.cells])
    row, column = np.nonzero(~cells)
    low = np.stack([floor_plan.left_m + column * floor_plan.cell_m, floor_plan.top_m - (row + 1) * floor_plan.cell_m])
    nearest = np.clip(places[:, None], low.T, low.T + floor_plan.cell_m)
    return np.asarray(np.linalg.norm(places[:, None] - nearest, axis=2).min(axis=1))


def disc_depth(plan: Plan, centre: NDArray[np.float64], radius_m: float) -> float:
    """m by which the planned path, straight between frames, lies deepest inside a disc, 0 if it stays out."""
    apart = np.linalg.norm(_dense(_path(plan), SPACING * radius_m) - centre, axis=1)
    return float(np.maximum(radius_m - apart, 0).max())


def predicted_steps(plan: Plan, goal: NDArray[np.float64], radius_m: float) -> int | None:
    """The first control step at which the planned path, straight between frames, lies within the goal radius."""
    steps, path = np.arange(1, int(plan.steps[-1]) + 1), _path(plan)
    times = np.concatenate([[0], plan.steps])
    places = np.stack([np.interp(steps, times, column) for column in path.T], axis=1)
    near = np.flatnonzero(np.linalg.norm(places - goal, axis=1) <= radius_m)
    return int(steps[near[0]]) if len(near) else None


def measure_plans(task: MazeTask, episodes: Sequence[Episode]) -> dict[str, Any] | None:
    """`first`: figures over each episode's first plan; `all`: over all plans. None if there are none, or nobody knows
    how long their tokens are.

    limit_steps: mean steps to the goal that the physics allow, None where unknown. detail: the first plan's figures for
    each episode. A prediction's error is predicted less really taken steps, of plans that say they arrive and were made
    before the robot did; a positive one is pessimistic.
    """
    measured = [_measured(task, episode) for episode in episodes]
    firsts = [plans[0] for plans in measured if plans]
    if not firsts:
        return None
    known = PUBLISHED.get(task.name)
    return {
        "first": summary_of_plans(firsts),
        "all": summary_of_plans([plan for plans in measured for plan in plans]),
        "limit_steps": None if known is None else known.limit_steps,
        "detail": [asdict(figure) for figure, _ in firsts],
    }


def _measured(task: MazeTask, episode: Episode) -> list[tuple[PlanFigures, int | None]]:
    """Each plan's figures, and how many steps the episode really took from there."""
    token_steps = episode.trace.token_steps
    if token_steps is None or episode.goal is None:
        return []
    return [(measure_plan(task, plan, episode.goal, token_steps), _left(episode, plan)) for plan in episode.trace.plans]


def _left(episode: Episode, plan: Plan) -> int | None:
    """Control steps that the episode really took from the plan on, None if it never arrived or had already."""
    if episode.steps_to_goal is None or episode.steps_to_goal <= plan.made_at_step:
        return None
    return episode.steps_to_goal - plan.made_at_step


def summary_of_plans(plans: Sequence[tuple[PlanFigures, int | None]]) -> dict[str, Any]:
    """Of figures, each with the steps that were really taken from there, None where nobody knows."""
    figures = [figure for figure, _ in plans]
    depths = [figure.wall_depth_m for figure in figures]
    predicted = [figure.predicted_steps for figure in figures if figure.predicted_steps is not None]
    errors = [
        figure.predicted_steps - left
        for figure, left in plans
        if figure.predicted_steps is not None and left is not None
    ]
    return {
        "plans": len(figures),
        "joint_jump_m": _spread([f.joint_jump_m for f in figures if f.joint_jump_m is not None]),
        "inner_jump_m": _spread([f.inner_jump_m for f in figures if f.inner_jump_m is not None]),
        "wall_depth_m": _spread(depths),
        "crossing_share": float(np.mean(np.array(depths) > CROSSING_M)),
        "arriving_share": len(predicted) / len(figures),
        "predicted_steps_mean": _mean(predicted),
        "prediction_error_mean": _mean(errors),
        "prediction_error_abs_mean": _mean([abs(error) for error in errors]),
        "cost_mean": _mean([figure.cost for figure in figures]),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "p95": float(np.percentile(values, 95)), "max": float(np.max(values))}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _largest(values: NDArray[np.float64]) -> float | None:
    return float(values.max()) if len(values) else None


def _path(plan: Plan) -> NDArray[np.float64]:
    """[F + 1, 2] where the plan begins and its positions."""
    return np.concatenate([np.asarray(plan.start["position"]).reshape(1, -1), plan.streams["position"]])


def _dense(path: NDArray[np.float64], spacing_m: float) -> NDArray[np.float64]:
    """[P, 2] the path with places added between those further apart than `spacing_m`."""
    parts = [path[:1]]
    for begin, end in pairwise(path):
        count = max(1, int(np.ceil(np.linalg.norm(end - begin) / spacing_m)))
        parts.append(begin + (end - begin) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(parts)
