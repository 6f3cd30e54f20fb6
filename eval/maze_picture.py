"""Pictures of finished episodes: what was planned, how certain it was, what was driven.

Pixels depend on the episode alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

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
from forcing.eval.maze_axes import (
    CANDIDATE_COLOR,
    PATH_DOT_STEPS,
    draw_ends,
    draw_maze,
    draw_path,
    draw_plan,
    panel_aspect,
)
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.palette import INK
from forcing.eval.rollout import Episode
from forcing.policy.types import Plan

SHEET_EPISODES, SHEET_COLUMNS = 12, 4


def draw_episode(task: MazeTask, episode: Episode, path: Path) -> None:
    """Writes a PNG, 1600 pixels wide: the first plan under the driven path, beside it up to two later plans.

    An episode whose trace holds no plan is drawn as its path alone.
    """
    plans = episode.trace.plans
    later = _later(plans, episode)
    aspect, free = panel_aspect(task.floor_plan()), WIDTH_IN - 2 * EDGE_IN
    # Two panels above each other are as high as the large one beside them, captions included.
    small = (free - GAP_IN - (CAPTION_IN + GAP_IN) / aspect) / 3
    large = free - GAP_IN - small if later else free
    bottom, above = (KEY_IN, CAPTION_IN) if plans else (EDGE_IN, 0.0)
    figure = new_figure(HEADING_IN + above + large * aspect + bottom)
    add_heading(
        figure,
        f"{task.name}, episode {episode.index}",
        f"return {episode.episode_return:.0f},  normalised score {episode.normalized:.1f},  "
        + ("goal not reached" if episode.steps_to_goal is None else f"goal after {episode.steps_to_goal} steps"),
    )
    axes = inch_axes(figure, EDGE_IN, bottom, large, large * aspect)
    if plans:
        add_caption(axes, f"plan made at step {plans[0].made_at_step}, and the path driven in the end")
        add_key(figure, _marks())
    _draw_panel(axes, task, episode, plans[0] if plans else None, len(episode.positions), large)
    for index, plan in enumerate(later):
        up = bottom + (1 - index) * (small * aspect + CAPTION_IN + GAP_IN)
        axes = inch_axes(figure, EDGE_IN + large + GAP_IN, up, small, small * aspect)
        add_caption(axes, f"replanned at step {plan.made_at_step}")
        _draw_panel(axes, task, episode, plan, plan.made_at_step + 1, small)
    save_png(figure, path)


def draw_run(task: MazeTask, episodes: Sequence[Episode], path: Path) -> None:
    """Writes a contact sheet of the first 12 episodes as a PNG, 1600 pixels wide: first plan and driven path of each.

    Raises ValueError without episodes.
    """
    if not episodes:
        raise ValueError("a contact sheet needs at least 1 episode, got 0")
    shown = episodes[:SHEET_EPISODES]
    columns = min(SHEET_COLUMNS, len(shown))
    rows, aspect = -(-len(shown) // columns), panel_aspect(task.floor_plan())
    width = (WIDTH_IN - 2 * EDGE_IN - (columns - 1) * GAP_IN) / columns
    pitch = width * aspect + CAPTION_IN + GAP_IN
    planned = any(episode.trace.plans for episode in shown)
    bottom = KEY_IN if planned else EDGE_IN
    figure = new_figure(HEADING_IN + rows * pitch - GAP_IN + bottom)
    reached = sum(episode.success for episode in episodes)
    score = float(np.mean([episode.normalized for episode in episodes]))
    add_heading(figure, task.name, f"{len(episodes)} episodes,  {reached} at the goal,  mean score {score:.1f}")
    if planned:
        add_key(figure, _marks())
    for index, episode in enumerate(shown):
        row, column = divmod(index, columns)
        up = bottom + (rows - 1 - row) * pitch
        axes = inch_axes(figure, EDGE_IN + column * (width + GAP_IN), up, width, width * aspect)
        arrival = "missed" if episode.steps_to_goal is None else f"{episode.steps_to_goal} steps"
        add_caption(axes, f"{episode.index}: score {episode.normalized:.0f}, {arrival}")
        first = episode.trace.plans[0] if episode.trace.plans else None
        _draw_panel(axes, task, episode, first, len(episode.positions), width)
    save_png(figure, path)


def _later(plans: Sequence[Plan], episode: Episode) -> list[Plan]:
    """Up to two plans, at a third and two thirds of the replanning on the way to the goal."""
    end = np.inf if episode.steps_to_goal is None else episode.steps_to_goal
    moving = [plan for plan in plans[1:] if plan.made_at_step < end]
    return moving if len(moving) <= 2 else [moving[len(moving) // 3], moving[2 * len(moving) // 3]]


def _draw_panel(axes: Axes, task: MazeTask, episode: Episode, plan: Plan | None, driven: int, width: float) -> None:
    """The plan, and the first `driven` positions, in axes of `width` inches."""
    made_at = plan.made_at_step if plan else 0
    floor = task.floor_plan()
    # Marks shrink with the maze, but stay readable.
    scale = float(np.clip(1.5 * width / len(floor.cells[0]), 0.5, 1.0))
    draw_maze(axes, floor)
    if plan is not None:
        draw_plan(axes, floor, plan, episode.positions[made_at], scale)
    draw_path(axes, episode.positions[:driven], scale)
    draw_ends(axes, floor, episode.positions[made_at], episode.goal, scale)


def _marks() -> list[Line2D]:
    robot = Line2D([], [], color="white", marker="o", markersize=7, label="planned from")
    robot.set(markeredgecolor=INK, markeredgewidth=1.8)
    return [
        Line2D([], [], color=INK, linewidth=1.3, marker=".", label=f"driven, dot every {PATH_DOT_STEPS} steps"),
        Line2D([], [], color=CANDIDATE_COLOR, alpha=0.6, linewidth=1.0, label="runners-up"),
        robot,
        Line2D([], [], color=INK, marker="*", linestyle="none", markersize=11, label="goal"),
    ]
