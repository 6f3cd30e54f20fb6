"""One plan taken apart: what was sampled, what rehearsal made of it, how it was judged, and what was driven.

Pixels depend on the policy, the request and the episode alone.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from forcing.eval.denoising import refuse_improved
from forcing.eval.figures import (
    CAPTION_IN,
    EDGE_IN,
    GAP_IN,
    HEADING_IN,
    KEY_IN,
    WIDTH_IN,
    add_caption,
    add_heading,
    add_key,
    inch_axes,
    new_figure,
    save_png,
)
from forcing.eval.maze_axes import CANDIDATE_COLOR, draw_ends, draw_maze, draw_path, draw_plan, panel_aspect
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.palette import INK, MUTED, NOISE_COLORS, NOISE_NORM
from forcing.eval.rollout import Episode
from forcing.policy.planner import PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.types import Plan

SOUND_COLOR, SAMPLE_COLOR = "#1d4ed8", "#d9480f"
LOWER_IN, LABELS_IN, BELOW_IN = 2.0, 0.42, 0.5  # height of the lower panels, room for their labels
ZOOM_M = 0.45  # half the side of what is shown of a joint
CM = 100.0  # in a metre


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """A plan and what it came from; positions in m.

    plan: as `Policy.plan` returns it. sampled: [F + 1, 2] the chosen candidate as the network left it, from its start
    on. sound: [C] whether a candidate keeps all rules, or nearly. horizons: [C]
    plan tokens. ends: [T] index in `sampled` at which each of the plan's tokens ends.
    """

    plan: Plan
    sampled: NDArray[np.float64]
    sound: NDArray[np.bool_]
    horizons: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def path(self) -> NDArray[np.float64]:
        """[F + 1, 2] the plan's positions, from its start on: rehearsed, if the policy can."""
        return np.concatenate([self.plan.start["position"][None], self.plan.streams["position"]])

    @property
    def roughest(self) -> int:
        """Index in `sampled` of the token's end after which the sample is furthest from its rehearsal; of the first
        token if there is one alone."""
        moved = np.linalg.norm(self.sampled - self.path, axis=1)
        inner = self.ends[:-1] if len(self.ends) > 1 else self.ends
        return int(max(inner, key=lambda end: moved[end : end + 2].max()))


def dissect(policy: Policy, request: PlanRequest) -> Anatomy:
    """The plan that the policy makes for a request, with what it was chosen from.

    Raises ValueError if samples are improved on: then none of them is the plan.
    """
    planner = policy.planner
    refuse_improved(planner.config)
    with torch.no_grad():
        plan = planner.plan(request)
        *_, state = planner.sampling(request)
    sampled, layout = planner.selector.decode(state), planner.tokenizer.layout
    steps = sampled.last_steps()
    positions = sampled.streams["position"][plan.chosen, : len(plan.steps)]
    return Anatomy(
        plan=plan,
        sampled=np.concatenate([sampled.start["position"][plan.chosen][None], positions]),
        sound=planner.selector.judge(sampled, request.goal, request.obstacles).sound,
        horizons=steps // layout.token_steps,
        ends=np.flatnonzero(plan.steps % layout.token_steps == 0) + 1,
    )


def draw_anatomy(task: MazeTask, anatomy: Anatomy, episode: Episode, path: Path) -> None:
    """Writes a PNG, 1600 pixels wide. episode: the one whose first plan this is."""
    aspect = panel_aspect(task.floor_plan())
    half = (WIDTH_IN - 2 * EDGE_IN - GAP_IN) / 2
    third = (WIDTH_IN - 2 * EDGE_IN - 2 * GAP_IN) / 3 - LABELS_IN
    mazes = KEY_IN + BELOW_IN + LOWER_IN + CAPTION_IN + GAP_IN
    figure = new_figure(mazes + half * aspect + CAPTION_IN + HEADING_IN)
    plan, count, arrived = anatomy.plan, len(anatomy.horizons), episode.steps_to_goal
    add_heading(
        figure,
        "One plan, from candidates to what was driven",
        f"{count} candidates in {plan.passes} network passes; the chosen one costs {plan.costs[plan.chosen]:.0f} "
        + ("steps, the goal was never reached" if arrived is None else f"steps, the goal was reached after {arrived}"),
    )
    left = inch_axes(figure, EDGE_IN, mazes, half, half * aspect)
    right = inch_axes(figure, EDGE_IN + half + GAP_IN, mazes, half, half * aspect)
    scale = float(np.clip(1.5 * half / len(task.floor_plan().cells[0]), 0.5, 1.0))
    _draw_candidates(left, task, anatomy, episode, scale)
    _draw_chosen(right, task, anatomy, episode, scale)
    lower = [
        inch_axes(
            figure, EDGE_IN + LABELS_IN + index * (third + LABELS_IN + GAP_IN), KEY_IN + BELOW_IN, third, LOWER_IN
        )
        for index in range(3)
    ]
    _draw_costs(lower[0], anatomy)
    _draw_joint(lower[1], anatomy, episode)
    _draw_along(lower[2], anatomy)
    add_key(figure, _marks())
    save_png(figure, path)


def _draw_candidates(axes: Axes, task: MazeTask, anatomy: Anatomy, episode: Episode, scale: float) -> None:
    floor, plan = task.floor_plan(), anatomy.plan
    add_caption(axes, "candidates of every horizon, and the one that was chosen")
    draw_maze(axes, floor)
    start = anatomy.path[:1]
    for sound, color, alpha, order in ((False, CANDIDATE_COLOR, 0.35, 2), (True, SOUND_COLOR, 0.45, 3)):
        rows = [plan.candidates[index] for index in np.flatnonzero(anatomy.sound == sound)]
        paths = [np.concatenate([start, row[np.isfinite(row).all(axis=1)]]) for row in rows]
        lines = LineCollection(paths, colors=color, linewidths=1.1 * scale, alpha=alpha, zorder=order)
        axes.add_collection(lines, autolim=False)
    axes.plot(*anatomy.path.T, color=SOUND_COLOR, linewidth=2.8 * scale, zorder=4)
    draw_ends(axes, floor, episode.positions[0], episode.goal, scale)


def _draw_chosen(axes: Axes, task: MazeTask, anatomy: Anatomy, episode: Episode, scale: float) -> None:
    floor, plan = task.floor_plan(), anatomy.plan
    add_caption(axes, "the chosen one by noise level, and what was driven")
    draw_maze(axes, floor)
    alone = replace(plan, candidates=plan.candidates[[plan.chosen]], costs=plan.costs[[plan.chosen]], chosen=0)
    draw_plan(axes, floor, alone, episode.positions[0], scale)
    draw_path(axes, episode.positions, scale)
    draw_ends(axes, floor, episode.positions[0], episode.goal, scale)


def _draw_costs(axes: Axes, anatomy: Anatomy) -> None:
    plan, horizons = anatomy.plan, anatomy.horizons
    add_caption(axes, "what each candidate costs, in steps")
    for sound, color in ((False, CANDIDATE_COLOR), (True, SOUND_COLOR)):
        rows = anatomy.sound == sound
        axes.plot(horizons[rows], plan.costs[rows], linestyle="none", marker="o", markersize=3.6, color=color)
    chosen = (horizons[plan.chosen], plan.costs[plan.chosen])
    axes.plot(*chosen, marker="o", markersize=10, color="none", markeredgecolor=INK, markeredgewidth=1.4)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set_xticks(np.unique(horizons)[:: 1 + len(np.unique(horizons)) // 12])
    _label(axes, "horizon, in tokens")


def _draw_joint(axes: Axes, anatomy: Anatomy, episode: Episode) -> None:
    at = anatomy.roughest
    moved = CM * float(np.linalg.norm(anatomy.sampled - anatomy.path, axis=1)[at : at + 2].max())
    add_caption(axes, f"at a joint of two tokens: {moved:.0f} cm")
    axes.plot(*anatomy.sampled.T, color=SAMPLE_COLOR, marker="o", markersize=4, linewidth=1, linestyle=(0, (3, 2)))
    axes.plot(*anatomy.path.T, color=SOUND_COLOR, marker="o", markersize=4, linewidth=1.8)
    axes.plot(*episode.positions.T, color=INK, linewidth=1.2)
    joint = anatomy.sampled[at : at + 2]
    axes.plot(*joint.T, color=SAMPLE_COLOR, linewidth=3.5, alpha=0.35, solid_capstyle="round")
    middle = np.concatenate([joint, anatomy.path[at : at + 2]]).mean(axis=0)
    axes.set_aspect("equal", adjustable="datalim")
    across, up = axes.bbox.width, axes.bbox.height
    axes.set_xlim(middle[0] - ZOOM_M * across / up, middle[0] + ZOOM_M * across / up)
    axes.set_ylim(middle[1] - ZOOM_M, middle[1] + ZOOM_M)
    _label(axes, "m")


def _draw_along(axes: Axes, anatomy: Anatomy) -> None:
    plan = anatomy.plan
    add_caption(axes, "along the plan, in cm; above, level")
    times = np.concatenate([[0], plan.steps])
    spread = np.concatenate([[0.0], np.linalg.norm(plan.spread["position"], axis=1)])
    axes.plot(times, CM * np.linalg.norm(anatomy.sampled - anatomy.path, axis=1), color=SAMPLE_COLOR, linewidth=1.4)
    axes.plot(times, CM * spread, color=MUTED, linewidth=1.4)
    top = 1.25 * max(axes.get_ylim()[1], 1.0)
    axes.set_ylim(0, top)
    levels = plan.level.max(axis=1)
    for begin, end in pairwise([0, *anatomy.ends.tolist()]):
        band = Rectangle((times[begin], 0.92 * top), times[end] - times[begin], 0.08 * top, zorder=4)
        band.set(facecolor=NOISE_COLORS(NOISE_NORM(levels[end - 1])), edgecolor="white")
        axes.add_patch(band)
    axes.set_xlim(0, times[-1])
    _label(axes, "control steps ahead")


def _label(axes: Axes, below: str) -> None:
    axes.set_xlabel(below, fontsize=9, color=MUTED)
    axes.tick_params(labelsize=8, labelcolor=INK, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _marks() -> list[Line2D]:
    return [
        Line2D([], [], color=CANDIDATE_COLOR, marker="o", markersize=3.6, label="breaks a rule"),
        Line2D([], [], color=SOUND_COLOR, marker="o", markersize=3.6, label="rehearsed"),
        Line2D([], [], color=SAMPLE_COLOR, linestyle=(0, (3, 2)), label="sampled"),
        Line2D([], [], color=MUTED, label="spread"),
        Line2D([], [], color=INK, linewidth=1.3, label="driven"),
    ]
