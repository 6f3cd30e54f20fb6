"""Rollouts with the shipped policy, real simulators and a real server; the scores themselves belong to benchmarks."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from forcing.envs.maze2d import GOAL_RADIUS_M
from forcing.eval.drivers import ServerDriver, Trace
from forcing.eval.report import build_report, table_of, write_report
from forcing.eval.rollout import DriverSpec, Episode, rollout, run_episode
from forcing.eval.tasks import TASKS, find_task
from forcing.policy.policy import load_policy, shipped_policies
from forcing.server.serve import serving

TASK = find_task("maze2d-umaze-multi")


def _episode(index: int, rewards: Sequence[float]) -> Episode:
    reached = [step for step, reward in enumerate(rewards, start=1) if reward > 0]
    return Episode(
        index=index,
        seed=index,
        episode_return=sum(rewards),
        normalized=TASK.normalized(sum(rewards)),
        success=bool(reached),
        steps_to_goal=reached[0] if reached else None,
        goal=np.zeros(2),
        positions=np.zeros((len(rewards) + 1, 2)),
        actions=np.zeros((len(rewards), 2), dtype=np.float32),
        trace=Trace(plan_ms=[10.0, 30.0] if index == 0 else []),
    )


def test_a_policy_is_shipped_for_every_task() -> None:
    assert {task.policy for task in TASKS.values()} == set(shipped_policies())


def test_returns_through_a_server_are_those_in_process_to_the_last_step() -> None:
    here = next(iter(rollout(TASK, DriverSpec(policy=TASK.policy), episodes=1, seed=11, workers=1)))
    with serving([load_policy(TASK.policy)]) as url:
        driver = ServerDriver(url, TASK.policy, TASK)
        there = run_episode(TASK, driver, 0, 11)
        driver.close()
    np.testing.assert_array_equal(there.positions, here.positions)
    assert there.episode_return == here.episode_return
    assert len(there.trace.plans) == len(here.trace.plans) > 0


def test_workers_change_nothing_and_order_is_kept() -> None:
    alone = list(rollout(TASK, DriverSpec(policy="straight"), episodes=3, seed=5, workers=1))
    together = list(rollout(TASK, DriverSpec(policy="straight"), episodes=3, seed=5, workers=2))
    assert [episode.seed for episode in together] == [5, 6, 7]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)


def test_an_episode_counts_the_steps_that_end_near_the_goal() -> None:
    episode = next(iter(rollout(TASK, DriverSpec(policy="expert"), episodes=1, seed=3, workers=1)))
    distance = np.linalg.norm(episode.positions[1:] - episode.goal, axis=1)
    near = distance <= GOAL_RADIUS_M
    assert episode.episode_return == near.sum()
    assert episode.steps_to_goal == int(np.argmax(near)) + 1
    assert len(episode.actions) == TASK.definition.episode_steps


@pytest.mark.parametrize(("episodes", "workers"), [(0, 1), (1, 0)])
def test_fewer_than_one_episode_or_worker_is_refused(episodes: int, workers: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        list(rollout(TASK, DriverSpec(policy="straight"), episodes=episodes, seed=0, workers=workers))


def test_a_report_is_the_mean_of_its_records(tmp_path: Path) -> None:
    episodes = [_episode(0, [0, 0, 1, 1]), _episode(1, [0, 1, 1, 1]), _episode(2, [0, 0, 0, 0])]
    report = build_report(TASK, "some", "abc", 0, episodes, "forcing eval")
    assert report["return_mean"] == pytest.approx(5 / 3)
    # Sample standard deviation of 2, 3, 0 over the root of 3.
    assert report["return_sem"] == pytest.approx(np.sqrt(7 / 3) / np.sqrt(3))
    assert report["normalized_mean"] == pytest.approx(100 * (5 / 3 - 23.85) / (161.86 - 23.85))
    assert report["success_rate"] == pytest.approx(2 / 3)
    assert report["steps_to_goal_mean"] == pytest.approx(2.5)
    assert (report["plan_ms_p50"], report["plans_per_episode"]) == (20.0, pytest.approx(2 / 3))
    assert [record["steps_to_goal"] for record in report["episodes_detail"]] == [3, 2, None]
    write_report(report, tmp_path / "deep" / "report.json")
    assert json.loads((tmp_path / "deep" / "report.json").read_text()) == report
    console = Console(record=True, width=80)
    console.print(table_of([{**report, "task": "maze2d-medium-single", "policy": "maze2d-medium"}]))
    said = console.export_text()
    assert "…" not in said
    assert "2 ± 1" in said


def test_a_report_needs_an_episode() -> None:
    with pytest.raises(ValueError, match="at least 1 episode"):
        build_report(TASK, "some", None, 0, [], "forcing eval")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'maze2d-medium-multi'"):
        find_task("maze2d-medium-mlti")
