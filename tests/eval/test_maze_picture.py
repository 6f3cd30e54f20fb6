"""Whole pictures: their size, their panels, and what is where in them. Panels are found by their outer walls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from forcing.eval.drivers import Trace
from forcing.eval.maze_picture import draw_episode, draw_run
from forcing.eval.rollout import Episode
from forcing.eval.tasks import find_maze
from forcing.policy.types import Array, Plan

TASK = find_maze("maze2d-medium-multi")
HALF_M = 3.45  # of the 8 m wide maze, with 0.55 m cut off on each side
WALL, INK, CLEAN, NOISE = (198, 204, 212), (28, 36, 48), (13, 8, 135), (253, 191, 41)
Pixels = NDArray[np.int64]
Box = tuple[int, int, int, int]


def drive(plans: int) -> Episode:
    """60 steps to the right, then down; planned anew every 20 steps, the near half clean, the far half noise."""
    corner, end = np.array([-1.5, 2.5]), np.array([-1.5, -0.5])
    across = np.linspace([-2.5, 2.5], corner, 21)
    positions = np.concatenate([across, np.linspace(corner, end, 41)[1:]])
    made = [_plan(20 * index, positions[20 * index], end) for index in range(plans)]
    return Episode(
        index=3,
        seed=1003,
        episode_return=412.0,
        normalized=150.9,
        success=True,
        steps_to_goal=58,
        goal=end,
        positions=positions,
        actions=np.zeros((60, 2), dtype=np.float32),
        trace=Trace(plans=made),
    )


def _plan(step: int, here: Array, goal: Array) -> Plan:
    frames = np.linspace(here, goal, 11)[1:] + np.array([0.3, 0.0])
    return Plan(
        made_at_step=step,
        start={"position": here},
        steps=np.arange(4, 44, 4),
        streams={"position": frames},
        level=np.repeat([[0.0], [1.0]], 5, axis=0),
        spread={"position": np.zeros((10, 2))},
        candidates=frames[None],
        costs=np.zeros(1),
        chosen=0,
        feasible=True,
        passes=3,
    )


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


def panels(pixels: Pixels) -> list[Box]:
    """(left, top, right, bottom) of each maze, found by the band of wall along its top, upper panels first."""
    found: list[Box] = []
    wall = (pixels == WALL).all(axis=2)
    for row in range(1, len(wall)):
        for left, right in _runs(wall[row] & ~wall[row - 1]):
            inside = any(box[0] <= left and right <= box[2] and row <= box[3] for box in found)
            if right - left > 150 and not inside:
                bottom = row
                while bottom + 1 < len(wall) and wall[bottom + 1, left + 2]:
                    bottom += 1
                found.append((left, row, right, bottom))
    return found


def _runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return [(int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2)]


def at(pixels: Pixels, box: Box, position: Array) -> tuple[int, ...]:
    """The colour at a position in m."""
    left, top, right, bottom = box
    column = left + (position[0] + HALF_M) / (2 * HALF_M) * (right + 1 - left)
    row = top + (HALF_M - position[1]) / (2 * HALF_M) * (bottom + 1 - top)
    return tuple(pixels[int(row), int(column)].tolist())


def near(color: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(color, expected, strict=True)) <= 8


def test_a_drive_without_plans_is_one_square_maze_with_path_and_goal(tmp_path: Path) -> None:
    episode = drive(plans=0)
    draw_episode(TASK, episode, tmp_path / "new" / "episode.png")
    pixels = read(tmp_path / "new" / "episode.png")
    assert pixels.shape[1] == 1600
    (box,) = panels(pixels)
    assert box[2] - box[0] == pytest.approx(box[3] - box[1], abs=2)
    assert box[2] - box[0] > 1500
    assert episode.goal is not None
    assert at(pixels, box, episode.goal) == INK
    assert all(at(pixels, box, position) == INK for position in episode.positions[5:50:5])
    assert at(pixels, box, np.array([-1.5 + 0.2, 1.5])) == (255, 255, 255)


def test_plans_are_drawn_by_noise_level_beside_two_later_ones(tmp_path: Path) -> None:
    episode = drive(plans=3)
    draw_episode(TASK, episode, tmp_path / "episode.png")
    pixels = read(tmp_path / "episode.png")
    assert pixels.shape[1] == 1600
    boxes = sorted(panels(pixels))
    assert [box[2] - box[0] > 800 for box in boxes] == [True, False, False]
    for box, plan in zip(boxes, episode.trace.plans, strict=True):
        frames = plan.streams["position"]
        assert near(at(pixels, box, frames[2]), CLEAN)
        assert near(at(pixels, box, frames[7]), NOISE)


def test_a_later_panel_shows_what_was_driven_until_then_and_no_more(tmp_path: Path) -> None:
    episode = drive(plans=3)
    draw_episode(TASK, episode, tmp_path / "episode.png")
    pixels = read(tmp_path / "episode.png")
    # Sorted from left to right and from top to bottom: the whole drive, until step 20, until step 40.
    dark = [sum(at(pixels, box, episode.positions[30])) < 300 for box in sorted(panels(pixels))]
    assert dark == [True, False, True]


def test_the_same_episode_gives_the_same_bytes_and_leaves_no_other_file(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw_episode(TASK, drive(plans=3), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_plans_made_at_the_goal_are_left_out(tmp_path: Path) -> None:
    episode = replace(drive(plans=3), steps_to_goal=30)
    draw_episode(TASK, episode, tmp_path / "episode.png")
    assert len(panels(read(tmp_path / "episode.png"))) == 2


@pytest.mark.parametrize(("episodes", "mazes", "rows"), [(1, 1, 1), (5, 5, 2), (14, 12, 3)])
def test_a_contact_sheet_has_a_maze_for_each_of_the_first_twelve_episodes(
    tmp_path: Path, episodes: int, mazes: int, rows: int
) -> None:
    draw_run(TASK, [drive(plans=1)] * episodes, tmp_path / "run.png")
    pixels = read(tmp_path / "run.png")
    boxes = panels(pixels)
    assert pixels.shape[1] == 1600
    assert (len(boxes), len({box[1] for box in boxes})) == (mazes, rows)


def test_a_contact_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 episode, got 0"):
        draw_run(TASK, [], tmp_path / "run.png")
