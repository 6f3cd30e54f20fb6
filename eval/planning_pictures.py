"""The pictures of docs/planning.md: a recording and its dream, one plan taken apart, and levels token by pass.

For maintainers: `scripts/pictures --policy runs/maze2d-medium --recording data/medium.zarr --dream dream.zarr`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from forcing.datasets.recording import read_recording
from forcing.eval.drivers import PolicyDriver
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
    draw_matrix,
    inch_axes,
    new_figure,
    save_png,
)
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.palette import INK
from forcing.eval.plan_picture import dissect, draw_anatomy
from forcing.eval.recording_picture import draw_recordings
from forcing.eval.rollout import first_request, run_episode
from forcing.eval.tasks import find_maze
from forcing.policy.policy import Policy, load_policy
from forcing.policy.schedules import Schedule

PICTURES = Path("docs/pictures")
MATRIX_IN, AXIS_IN = 2.3, 0.5


@dataclass(frozen=True, slots=True)
class Shown:
    """A scheduling matrix, by caption; passes: rows after which the planner stops, None if it does them all."""

    caption: str
    schedule: Schedule
    passes: int | None = None


def make_pictures(
    policy: str,
    recording: str,
    dream: str,
    task: str = "maze2d-medium-multi",
    seed: int = 7004,
    out: Path = PICTURES,
) -> None:
    """Draws planning-dream.png, planning-plan.png and planning-levels.png.

    Plans are drawn as they are sampled, before anything improves on them. Raises NoWorld if the recording does not show
    where actions lead.

    Args:
        policy: shipped policy or folder.
        recording: what was recorded.
        dream: what `forcing data dream` made of it.
        task: of the episode whose first plan is drawn.
        seed: of that episode.
        out: folder of the pictures.
    """
    torch.set_num_threads(1)
    chosen, planner = find_maze(task), load_policy(policy)
    planner = planner.using(planner=planner.preset.planner.sampling_alone())
    draw_plan_of_episode(chosen, planner, seed, out / "planning-plan.png")
    draw_schedules(planner, out / "planning-levels.png")
    recordings = {"recorded": read_recording(recording), "dreamed": read_recording(dream)}
    draw_recordings(chosen.floor_plan(), recordings, out / "planning-dream.png")
    for name in ("plan", "levels", "dream"):
        print(f"drawn: {out / f'planning-{name}.png'}")


def draw_plan_of_episode(task: MazeTask, policy: Policy, seed: int, path: Path) -> None:
    """The first plan of the task's episode `seed`, and how the episode went."""
    episode = run_episode(task, PolicyDriver(policy, task), 0, seed)
    draw_anatomy(task, dissect(policy, first_request(task, policy, seed)), episode, path)


def draw_schedules(policy: Policy, path: Path) -> None:
    """The policy's own scheduling matrix at its longest horizon, beside two others; now and the goal at both ends."""
    config, horizon = policy.preset.planner, policy.preset.layout.horizon
    steps = config.schedule.sampling_steps
    panels = [
        Shown(f"{config.schedule.kind}, as this policy plans", config.schedule, config.passes),
        Shown("full sequence", Schedule(kind="full_sequence", sampling_steps=steps)),
        Shown("autoregressive", Schedule(kind="autoregressive", sampling_steps=steps)),
    ]
    width = (WIDTH_IN - 2 * EDGE_IN - 2 * GAP_IN) / 3 - AXIS_IN
    figure = new_figure(HEADING_IN + CAPTION_IN + MATRIX_IN + AXIS_IN + KEY_IN)
    add_heading(figure, "Which token is how noisy after which pass", "now and the goal are given, the rest is sampled")
    for index, shown in enumerate(panels):
        left = EDGE_IN + AXIS_IN + index * (width + AXIS_IN + GAP_IN)
        axes = inch_axes(figure, left, KEY_IN + AXIS_IN, width, MATRIX_IN)
        add_caption(axes, shown.caption)
        draw_matrix(axes, with_ends(shown.schedule.matrix(horizon)))
        inner = list(range(3, horizon - 1, 2))
        axes.set_xticks([1, *(token + 1 for token in inner), horizon + 2], labels=["now", *map(str, inner), "goal"])
        if index > 0:
            axes.set_ylabel("")
        if shown.passes is not None:
            axes.axhline(shown.passes + 0.5, color=INK, linestyle="--", linewidth=1.4)
    add_key(
        figure,
        [
            Line2D(
                [],
                [],
                color=INK,
                linestyle="--",
                linewidth=1.4,
                label="the planner stops here, and the far future stays noisy",
            )
        ],
    )
    save_png(figure, path)


def with_ends(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """[M, T + 2] the matrix between two columns that are clean all along: what is observed, and the goal."""
    return np.pad(matrix, ((0, 0), (1, 1)))


if __name__ == "__main__":
    try:
        tyro.cli(make_pictures)
    except (ValueError, OSError) as error:
        raise SystemExit(f"pictures: {error}") from error
