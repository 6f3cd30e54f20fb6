"""OGBench's tasks from end to end: its protocol of five goals, its yardsticks, its recordings."""

import json
from collections.abc import Mapping
from pathlib import Path

import gymnasium
import numpy as np
import ogbench.locomaze  # noqa: F401  # registers the environments
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from forcing.cli import main
from forcing.datasets.recording import read_recording
from forcing.envs.ogbench_maze import make
from forcing.eval.drivers import StraightDriver
from forcing.eval.evaluate import evaluate_policy
from forcing.eval.maze_picture import draw_episode
from forcing.eval.report import build_report, goals_table, table_of, wilson_interval
from forcing.eval.rollout import DriverSpec, Episode, rollout, run_episode
from forcing.eval.tasks import TASKS, find_maze
from forcing.policy.types import Array

TASK = find_maze("ogbench-pointmaze-medium-stitch")
KINDS = ("navigate", "stitch")


@pytest.fixture(scope="module")
def straight() -> list[Episode]:
    return list(rollout(TASK, DriverSpec(policy="straight"), episodes=10, seed=40, workers=1))


def test_there_is_a_task_for_each_of_its_mazes_and_kinds_of_recordings() -> None:
    names = [f"ogbench-pointmaze-{maze}-{kind}" for maze in ("medium", "large", "giant") for kind in KINDS]
    assert [name for name in TASKS if name.startswith("ogbench")] == names
    assert [TASKS[name].policy for name in names] == names


def test_episodes_take_the_five_goals_in_turn_from_the_packages_starts(straight: list[Episode]) -> None:
    assert [episode.goal_number for episode in straight] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
    tasks = gymnasium.make("pointmaze-medium-v0").unwrapped.task_infos  # type: ignore[attr-defined]
    for episode in straight:
        task = tasks[episode.index % 5]
        assert (np.abs(episode.positions[0] - task["init_xy"]) <= 1).all()
        assert (np.abs(_goal(episode) - task["goal_xy"]) <= 1).all()
    assert len({tuple(_goal(episode)) for episode in straight}) == 10


def test_an_episode_is_won_and_over_at_the_first_step_within_a_metre(straight: list[Episode]) -> None:
    for episode in straight:
        near = np.linalg.norm(episode.positions[1:] - _goal(episode), axis=1) <= 1.0
        assert episode.success == near.any()
        assert not near[:-1].any()
        assert len(near) == (episode.steps_to_goal or 1000)
        assert episode.normalized == (100.0 if episode.success else 0.0)


def test_straight_goes_in_the_goals_direction_as_far_as_a_step_leads() -> None:
    driver = StraightDriver(TASK)
    for offset, expected in (([8.0, -4.0], [1.0, -0.5]), ([0.0, 3.0], [0.0, 1.0]), ([0.1, -0.02], [0.5, -0.1])):
        seen = {"position": np.array([2.0, 5.0]), "desired_goal": np.array([2.0, 5.0]) + offset}
        driver.begin(seen, 0)
        np.testing.assert_allclose(driver.act(seen), expected, atol=1e-6)


def test_the_expert_wins_where_straight_does_not() -> None:
    for name in ("large", "giant"):
        task = find_maze(f"ogbench-pointmaze-{name}-navigate")
        expert = list(rollout(task, DriverSpec(policy="expert"), episodes=5, seed=3, workers=1))
        assert all(episode.success for episode in expert)


def test_an_episode_depends_on_its_seed_and_goal_alone(straight: list[Episode]) -> None:
    driver = DriverSpec(policy="straight").build(TASK)
    alone = run_episode(find_maze("ogbench-pointmaze-medium-navigate"), driver, 7, 40)
    np.testing.assert_array_equal(alone.positions, straight[7].positions)
    np.testing.assert_array_equal(alone.goal, straight[7].goal)


def test_a_controller_is_told_its_position_alone() -> None:
    env = make("medium")
    observation: Mapping[str, Array] = TASK.reset(env, 0, 5)
    assert list(TASK.observe(observation)) == ["position"]
    np.testing.assert_array_equal(TASK.goal(observation), observation["desired_goal"])


def test_the_report_says_how_each_goal_fares_and_how_sure_that_is(straight: list[Episode]) -> None:
    report = build_report(TASK, "straight", None, 40, straight, "forcing eval")
    assert [row["goal"] for row in report["goals"]] == [1, 2, 3, 4, 5]
    for row in report["goals"]:
        won = [episode.success for episode in straight if episode.goal_number == row["goal"]]
        assert (row["episodes"], row["success_rate"]) == (2, np.mean(won))
    assert report["success_rate"] == pytest.approx(np.mean([row["success_rate"] for row in report["goals"]]))
    assert report["normalized_mean"] == pytest.approx(100 * report["success_rate"])
    assert [record["goal_number"] for record in report["episodes_detail"]] == [1, 2, 3, 4, 5] * 2
    console = Console(record=True, width=80)
    console.print(table_of([{**report, "task": "ogbench-pointmaze-medium-navigate", "policy": TASK.policy}]))
    console.print(goals_table(TASK, report))
    said = console.export_text()
    assert "…" not in said
    assert [line.split()[0] for line in said.splitlines()[-6:]] == ["1", "2", "3", "4", "5", "all"]


def test_the_interval_is_wilsons() -> None:
    # The roots p of (s - p)^2 = z^2 p (1 - p) / n, by numpy's polynomial solver.
    for successes, trials in ((0, 10), (3, 10), (50, 50), (243, 250)):
        share, weight = successes / trials, 1.959964**2 / trials
        roots = np.sort(np.roots([1 + weight, -2 * share - weight, share**2]).real)
        assert wilson_interval(successes, trials) == pytest.approx(roots.tolist(), abs=1e-9)
    with pytest.raises(ValueError, match="successes must be between 0 and trials"):
        wilson_interval(3, 2)


def test_eval_prints_the_goals_and_draws_the_maze(tmp_path: Path) -> None:
    console = Console(record=True, width=80)
    evaluate_policy(
        TASK,
        DriverSpec(policy="expert"),
        episodes=5,
        seed=0,
        report=tmp_path / "r.json",
        pictures=None,
        workers=1,
        command="forcing eval",
        console=console,
    )
    assert "expert, by goal" in console.export_text()
    assert [row["success_rate"] for row in json.loads((tmp_path / "r.json").read_text())["goals"]] == [1.0] * 5


def test_a_picture_shows_the_walls_where_the_ball_cannot_be(straight: list[Episode], tmp_path: Path) -> None:
    path = tmp_path / "episode.png"
    draw_episode(TASK, straight[0], path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    grey = (np.abs(pixels - [198, 204, 212]).max(axis=2) < 3).nonzero()
    top, bottom, left, right = grey[0].min(), grey[0].max(), grey[1].min(), grey[1].max()
    unit = (right - left + 1) / (8 - 1.1)  # cells, of 8, less the margin
    inner, compared = make("medium").unwrapped, 0
    for row in range(8):
        for column in range(8):
            # Off the middle of the cell; rows count upwards, columns to the right, 0.55 of a cell is cut off.
            x, y = left + (column + 0.2 - 0.55) * unit, bottom - (row + 0.2 - 0.55) * unit
            if left < x < right and top < y < bottom and not _near_path(straight[0], row, column):
                wall = inner.maze_map[row, column] == 1  # type: ignore[attr-defined]
                seen = np.abs(pixels[round(y), round(x)] - [198, 204, 212]).max() < 3
                assert seen == wall, (row, column)
                compared += 1
    assert compared > 30


def _goal(episode: Episode) -> NDArray[np.float64]:
    assert episode.goal is not None
    return episode.goal


def _near_path(episode: Episode, row: int, column: int) -> bool:
    cells = np.round((np.concatenate([episode.positions, _goal(episode)[None]]) + 4) / 4)
    return bool((np.abs(cells - [column, row]).max(axis=1) < 1).any())


def test_generate_check_and_convert_hand_a_position_with_its_goal_to_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recording = "out/forcing/ogbench-pointmaze-medium-stitch-v0"
    for line in (
        "generate ogbench-pointmaze-medium-stitch --out out --steps 1000 --workers 1",
        f"data check {recording}",
        f"data convert {recording} --out store.zarr",
    ):
        with pytest.raises(SystemExit) as left:
            main(line.split())
        assert left.value.code == 0, line
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    stored = read_recording("store.zarr")
    spec = stored.spec
    assert (spec.goal, spec.control_hz, spec["position"].units) == ("position", 10.0, "m")
    assert [(stream.name, stream.shape) for stream in spec.streams] == [
        ("position", (2,)),
        ("action", (2,)),
        ("reward", ()),
    ]
    assert (spec.action.low, spec.action.high) == ((-1.0, -1.0), (1.0, 1.0))
    assert stored.lengths.tolist() == [200] * 5
