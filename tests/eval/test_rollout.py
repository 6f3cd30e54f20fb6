"""Rollouts with the shipped policy, real simulators and a real server; the scores themselves belong to benchmarks."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console

from forcing.envs.maze2d import GOAL_RADIUS_M
from forcing.eval.conditions import Conditions
from forcing.eval.drivers import ServerDriver, StraightDriver, Trace
from forcing.eval.maze_tasks import Maze2D
from forcing.eval.report import build_report, table_of, write_report
from forcing.eval.rollout import DriverSpec, Episode, rollout, run_episode
from forcing.eval.tasks import TASKS, find_maze, find_task
from forcing.policy.policy import load_policy, shipped_policies
from forcing.policy.types import Array, Plan
from forcing.server.client import Session
from forcing.server.serve import serving

TASK = find_maze("maze2d-umaze-multi")
assert isinstance(TASK, Maze2D)
EPISODE_STEPS = TASK.definition.episode_steps


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


def test_a_policy_is_shipped_for_every_maze2d_task_and_none_without_a_task() -> None:
    maze2d = {task.policy for task in TASKS.values() if isinstance(task, Maze2D)}
    assert maze2d <= set(shipped_policies()) <= {task.policy for task in TASKS.values()}


def test_returns_through_a_server_are_those_in_process_to_the_last_step_and_no_session_is_left() -> None:
    here = next(iter(rollout(TASK, DriverSpec(policy=TASK.policy), episodes=1, seed=11, workers=1)))
    with serving([load_policy(TASK.policy)]) as url:
        driver = ServerDriver(url, TASK.policy, TASK)
        there = run_episode(TASK, driver, 0, 11)
        metrics = httpx.get(f"{url}/metrics").text.splitlines()
        driver.close()
    # The session is gone before the driver is, which in a worker nobody closes.
    assert "forcing_sessions_active 0.0" in metrics
    assert [line for line in metrics if line.startswith('forcing_decisions_total{source="fresh"}')]
    np.testing.assert_array_equal(there.positions, here.positions)
    assert there.episode_return == here.episode_return
    assert len(there.trace.plans) == len(here.trace.plans) > 0


def test_with_faulty_sensors_returns_are_the_same_in_process_in_workers_and_through_a_server() -> None:
    faults = "noise=0.1+dropout=0.3/10+spikes=0.1/2@position+delay=2/2"
    spec = DriverSpec(policy=TASK.policy, under=Conditions(faults=faults))
    here, other = list(rollout(TASK, spec, episodes=2, seed=11, workers=1))
    with serving([load_policy(TASK.policy)]) as url, closing(ServerDriver(url, TASK.policy, TASK)) as driver:
        there = run_episode(TASK, driver, 0, 11, Conditions(faults=faults))
    np.testing.assert_array_equal(there.actions, here.actions)
    in_workers = [episode.actions for episode in rollout(TASK, spec, episodes=2, seed=11, workers=2)]
    np.testing.assert_array_equal(in_workers, [here.actions, other.actions])
    # Told otherwise, it drives otherwise; what is kept of its way is true.
    sound = next(iter(rollout(TASK, DriverSpec(policy=TASK.policy), episodes=1, seed=11, workers=1)))
    assert not np.array_equal(sound.actions, here.actions)
    assert np.linalg.norm(np.diff(here.positions, axis=0), axis=1).max() < 2 * TASK.fastest_m


@pytest.mark.parametrize("policy", ["straight", "expert"])
def test_yardsticks_that_need_all_readings_are_not_driven_by_faulty_sensors(policy: str) -> None:
    with pytest.raises(ValueError, match=f"faults lose readings, and {policy} needs them all"):
        DriverSpec(policy=policy, under=Conditions(faults="dropout=0.1"))


def test_workers_change_nothing_and_order_is_kept() -> None:
    alone, together = (
        list(rollout(TASK, DriverSpec(policy=TASK.policy), episodes=2, seed=5, workers=workers)) for workers in (1, 2)
    )
    assert [episode.seed for episode in together] == [5, 6]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        for mine, theirs in zip(one.trace.plans, other.trace.plans, strict=True):
            np.testing.assert_array_equal(mine.streams["position"], theirs.streams["position"])


def test_every_episode_has_a_start_of_its_own_that_its_seed_alone_decides() -> None:
    drive = DriverSpec(policy="straight")
    first, second, third = rollout(TASK, drive, episodes=3, seed=5, workers=1)
    starts = [episode.positions[0].tolist() for episode in (first, second, third)]
    assert len({tuple(start) for start in starts}) == 3
    shifted = next(iter(rollout(TASK, drive, episodes=1, seed=6, workers=1)))
    np.testing.assert_array_equal(shifted.positions, second.positions)
    np.testing.assert_array_equal(shifted.goal, second.goal)


class Recorder(StraightDriver):
    """Drives straight and keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(TASK)
        self.told: list[int | str] = []

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        self.told.append(seed)
        return super().begin(observation, seed)

    def end(self) -> None:
        self.told.append("end")


def test_every_episode_is_begun_with_a_seed_of_its_own_and_ended() -> None:
    driver = Recorder()
    for index in range(3):
        run_episode(TASK, driver, index, 40)
    assert driver.told == [40, "end", 41, "end", 42, "end"]


class Broken(Recorder):
    def act(self, observation: Mapping[str, Array]) -> Array:
        raise RuntimeError("no action")


def test_an_episode_that_fails_is_ended_as_well() -> None:
    driver = Broken()
    with pytest.raises(RuntimeError, match="no action"):
        run_episode(TASK, driver, 0, 40)
    assert driver.told == [40, "end"]


def test_no_worker_outlives_an_iterator_that_is_left_half_way() -> None:
    before = set(active_children())
    episodes = rollout(TASK, DriverSpec(policy="straight"), episodes=50, seed=0, workers=2)
    next(episodes)
    assert set(active_children()) - before
    began = time.monotonic()
    episodes.close()  # type: ignore[attr-defined]
    assert set(active_children()) - before == set()
    assert time.monotonic() - began < 5


def test_the_time_of_each_action_is_kept_and_holds_the_time_of_its_plan() -> None:
    here = next(iter(rollout(TASK, DriverSpec(policy=TASK.policy), episodes=1, seed=11, workers=1))).trace
    assert len(here.act_ms) == len(here.sources) == EPISODE_STEPS
    fresh = [ms for ms, source in zip(here.act_ms, here.sources, strict=True) if source == "fresh"]
    assert all(act > plan for act, plan in zip(fresh, here.plan_ms, strict=True))
    assert np.median(here.act_ms) < min(here.plan_ms)


def test_what_is_fetched_for_pictures_does_not_count_as_time_of_the_action(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(session: Session) -> Plan | None:
        time.sleep(1.0)
        return None

    monkeypatch.setattr(Session, "plan", slow)
    env = TASK.make()
    observation, _ = env.reset(seed=3)
    env.close()
    with serving([load_policy(TASK.policy)]) as url, closing(ServerDriver(url, TASK.policy, TASK)) as driver:
        trace = driver.begin(observation, 3)
        driver.act(observation)
    assert trace.sources == ["fresh"]
    assert trace.plan_ms[0] < trace.act_ms[0] < 1000


def test_an_episode_counts_the_steps_that_end_near_the_goal() -> None:
    episode = next(iter(rollout(TASK, DriverSpec(policy="expert"), episodes=1, seed=3, workers=1)))
    assert episode.goal is not None
    distance = np.linalg.norm(episode.positions[1:] - episode.goal, axis=1)
    near = distance <= GOAL_RADIUS_M
    assert episode.episode_return == near.sum()
    assert episode.steps_to_goal == int(np.argmax(near)) + 1
    assert len(episode.actions) == EPISODE_STEPS


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
