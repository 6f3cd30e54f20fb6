"""Pictures of finished episodes: what was planned, how certain it was, what was driven.

Pixels depend on the episode alone; no display and no global state of matplotlib is used.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forcing.envs.maze2d import MAZE_MAPS
from forcing.eval.maze_axes import (
    CANDIDATE_COLOR,
    INK,
    MUTED,
    NOISE_COLORS,
    NOISE_NORM,
    PATH_DOT_STEPS,
    draw_ends,
    draw_maze,
    draw_path,
    draw_plan,
    panel_aspect,
)
from forcing.eval.rollout import Episode
from forcing.eval.tasks import Task
from forcing.policy.types import Plan

DPI = 200
WIDTH_IN = 8.0
_EDGE, _GAP, _CAPTION, _TOP, _BOTTOM = 0.16, 0.18, 0.26, 0.7, 0.66


def draw_episode(task: Task, episode: Episode, path: Path, plans: Sequence[Plan] | None = None) -> None:
    """Writes a PNG, 1600 pixels wide: the first plan under the driven path, beside it up to two later plans.

    plans: those fetched from a server, by default those in the episode's trace; without any the path alone is drawn.
    """
    plans = episode.trace.plans if plans is None else plans
    later = _later(plans, episode)
    aspect, free = panel_aspect(MAZE_MAPS[task.maze]), WIDTH_IN - 2 * _EDGE
    # Two panels above each other are as high as the large one beside them, captions included.
    small = (free - _GAP - (_CAPTION + _GAP) / aspect) / 3
    large = free - _GAP - small if later else free
    bottom = _BOTTOM if plans else _EDGE
    height = _TOP + (_CAPTION if plans else 0.0) + large * aspect + bottom
    figure = Figure(figsize=(WIDTH_IN, round(height * DPI) / DPI), dpi=DPI, facecolor="white")
    _title(figure, task, episode)
    axes = _axes(figure, (_EDGE, bottom, large, large * aspect))
    draw_maze(axes, MAZE_MAPS[task.maze])
    if plans:
        _caption(axes, "first plan, and the path driven in the end")
        draw_plan(axes, plans[0], episode.positions[plans[0].made_at_step])
        _key(figure)
    draw_path(axes, episode.positions)
    draw_ends(axes, episode.positions[0], episode.goal)
    for index, plan in enumerate(later):
        up = bottom + (1 - index) * (small * aspect + _CAPTION + _GAP)
        axes = _axes(figure, (_EDGE + large + _GAP, up, small, small * aspect))
        _replanned(axes, task, episode, plan)
    _save(figure, path)


def draw_run(task: Task, episodes: Sequence[Episode], path: Path, columns: int = 4) -> None:
    """Writes a contact sheet of the first 12 episodes as a PNG, 1600 pixels wide: first plan and driven path of each.

    Raises ValueError without episodes, or if columns is below 1.
    """
    if not episodes or columns < 1:
        raise ValueError(f"episodes and columns must be at least 1, got {len(episodes)} and {columns}")
    shown = episodes[:12]
    rows, aspect = -(-len(shown) // columns), panel_aspect(MAZE_MAPS[task.maze])
    width = (WIDTH_IN - 2 * _EDGE - (columns - 1) * _GAP) / columns
    pitch = width * aspect + _CAPTION + _GAP
    bottom = _BOTTOM if any(episode.trace.plans for episode in shown) else _EDGE
    height = _TOP + rows * pitch - _GAP + bottom
    figure = Figure(figsize=(WIDTH_IN, round(height * DPI) / DPI), dpi=DPI, facecolor="white")
    scores = [episode.normalized for episode in episodes]
    reached = sum(episode.success for episode in episodes)
    _heading(figure, task.name, f"{len(episodes)} episodes, {reached} at the goal, mean score {np.mean(scores):.1f}")
    if bottom == _BOTTOM:
        _key(figure)
    for index, episode in enumerate(shown):
        row, column = divmod(index, columns)
        up = bottom + (rows - 1 - row) * pitch
        axes = _axes(figure, (_EDGE + column * (width + _GAP), up, width, width * aspect))
        draw_maze(axes, MAZE_MAPS[task.maze])
        _caption(axes, f"{episode.index}: score {episode.normalized:.0f}, {_steps(episode)}")
        if episode.trace.plans:
            draw_plan(axes, episode.trace.plans[0], episode.positions[0], scale=0.5)
        draw_path(axes, episode.positions, scale=0.6)
        draw_ends(axes, episode.positions[0], episode.goal, scale=0.55)
    _save(figure, path)


def _later(plans: Sequence[Plan], episode: Episode) -> list[Plan]:
    """Up to two plans, at a third and two thirds of the replanning on the way to the goal."""
    end = np.inf if episode.steps_to_goal is None else episode.steps_to_goal
    moving = [plan for plan in plans[1:] if plan.made_at_step < end]
    if len(moving) <= 2:
        return moving
    return [moving[len(moving) // 3], moving[2 * len(moving) // 3]]


def _replanned(axes: Axes, task: Task, episode: Episode, plan: Plan) -> None:
    here = episode.positions[plan.made_at_step]
    draw_maze(axes, MAZE_MAPS[task.maze])
    _caption(axes, f"replanned at step {plan.made_at_step}")
    draw_plan(axes, plan, here, scale=0.6)
    draw_path(axes, episode.positions[: plan.made_at_step + 1], scale=0.7)
    draw_ends(axes, here, episode.goal, scale=0.6)


def _title(figure: Figure, task: Task, episode: Episode) -> None:
    _heading(
        figure,
        f"{task.name}, episode {episode.index}",
        f"return {episode.episode_return:.0f},  normalised score {episode.normalized:.1f},  {_arrival(episode)}",
    )


def _arrival(episode: Episode) -> str:
    return "goal not reached" if episode.steps_to_goal is None else f"goal after {episode.steps_to_goal} steps"


def _steps(episode: Episode) -> str:
    return "missed" if episode.steps_to_goal is None else f"{episode.steps_to_goal} steps"


def _heading(figure: Figure, title: str, detail: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(_EDGE / width, 1 - 0.33 / height, title, fontsize=14, fontweight="bold", color=INK)
    figure.text(_EDGE / width, 1 - 0.56 / height, detail, fontsize=10, color=MUTED)


def _caption(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, color=MUTED, loc="left", pad=4)


def _key(figure: Figure) -> None:
    """A bar of noise colours and a legend, in the strip at the bottom."""
    bar = _axes(figure, (_EDGE, 0.38, 2.6, 0.13))
    colorbar = figure.colorbar(ScalarMappable(NOISE_NORM, NOISE_COLORS), cax=bar, orientation="horizontal")
    colorbar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0 clean", "", "noise level", "", "1 pure noise"])
    for side, label in (("left", bar.get_xticklabels()[0]), ("right", bar.get_xticklabels()[-1])):
        label.set_horizontalalignment(side)
    bar.tick_params(labelsize=9, labelcolor=INK, length=0, pad=4)
    colorbar.outline.set_visible(False)
    marks = [
        Line2D([], [], color=INK, linewidth=1.3, marker=".", label=f"driven, a dot every {PATH_DOT_STEPS} steps"),
        Line2D([], [], color=CANDIDATE_COLOR, alpha=0.5, linewidth=1.0, label="other plans"),
        Line2D(
            [], [], color="white", marker="o", markeredgecolor=INK, markeredgewidth=1.8, markersize=7, label="robot"
        ),
        Line2D([], [], color=INK, marker="*", linestyle="none", markersize=11, label="goal"),
    ]
    width, height = figure.get_size_inches()
    figure.legend(
        handles=marks,
        loc="lower right",
        bbox_to_anchor=(1 - _EDGE / width, 0.2 / height),
        ncols=len(marks),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.1,
        handletextpad=0.5,
    )


def _axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Axes at (left, bottom, width, height), in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)
