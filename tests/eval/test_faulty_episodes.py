"""Sensors that lie: episodes over HTTP, with the fault on the controller's side, and the benches that measure them."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from forcing.eval import bench_faults, bench_filter
from forcing.eval.faults_picture import draw_faults
from forcing.eval.faults_tables import PICTURE, faults_table, filter_table
from forcing.eval.tasks import find_maze
from forcing.eval.trial import Trial
from forcing.policy.names import UnknownName
from forcing.policy.policy import load_policy
from forcing.server.client import ActResult, Client
from forcing.server.serve import serving

TASK = find_maze("maze2d-umaze-multi")
LOST = np.full(2, np.nan)
Floats = NDArray[np.float64]
Read = dict[str, Floats]


def _driven(spoil: Callable[[int, Read], Read], steps: int = 90) -> tuple[list[ActResult], Floats, str]:
    """What a server answered on the way, [steps, 2] where the robot really was, and the server's metrics."""
    env = TASK.make()
    replies, places = [], []
    with serving([load_policy(TASK.policy)]) as url, Client(url) as client:
        observation = TASK.reset(env, 0, 11)
        with client.open(TASK.policy, goal=TASK.goal(observation), seed=11) as session:
            for step in range(steps):
                read = {name: np.asarray(value, dtype=np.float64) for name, value in TASK.observe(observation).items()}
                places.append(read["position"])
                replies.append(session.act(spoil(step, read)))
                observation = env.step(replies[-1].action)[0]
        metrics = httpx.get(f"{url}/metrics").text
    env.close()
    for reply in replies:
        assert np.isfinite(reply.action).all()
        assert (np.abs(reply.action) <= 1).all()
    return replies, np.array(places), metrics


def test_with_all_sensors_silent_for_50_steps_the_robot_goes_on_where_it_was_going() -> None:
    silent = range(10, 60)
    replies, places, metrics = _driven(lambda step, read: dict.fromkeys(read, LOST) if step in silent else read)
    sound = _driven(lambda step, read: read)[1]
    assert [reply.sensors["position"]["unheard_steps"] for reply in replies[9:61:10]] == [0, 10, 20, 30, 40, 50]
    assert {reply.source for reply in replies} <= {"fresh", "plan"}
    assert np.linalg.norm(places[60] - sound[60]) < 0.3
    assert 'forcing_readings_missing_total{policy="maze2d-umaze",stream="position"} 50.0' in metrics


def test_nan_in_one_stream_is_looked_through() -> None:
    replies, places, _ = _driven(lambda step, read: read if step < 5 else {**read, "velocity": np.array([0.1, np.nan])})
    assert replies[-1].sensors["velocity"]["unheard_steps"] == 85
    assert not replies[-1].sensors["position"]["unheard_steps"]
    sound = _driven(lambda step, read: read)[1]
    assert np.linalg.norm(places[-1] - sound[-1]) < 0.3


def test_without_a_position_ever_the_robot_holds() -> None:
    replies, places, _ = _driven(lambda step, read: {**read, "position": LOST}, steps=30)
    assert {reply.source for reply in replies} == {"hold"}
    assert np.linalg.norm(places[-1] - places[0]) < 0.05
    assert replies[-1].sensors["position"] == {
        "noise": None,
        "noise_level": None,
        "rejected": True,
        "stuck": False,
        "unheard_steps": 30,
        "surprise": None,
    }


def test_a_spike_of_2_m_does_not_move_the_robot_and_is_counted() -> None:
    spiked = {20, 33, 47}
    replies, places, metrics = _driven(
        lambda step, read: {**read, "position": read["position"] + (2.0 if step in spiked else 0.0)}
    )
    assert {step for step, reply in enumerate(replies) if reply.sensors["position"]["rejected"]} == spiked
    assert 'forcing_readings_rejected_total{policy="maze2d-umaze",stream="position"} 3.0' in metrics
    sound = _driven(lambda step, read: read)[1]
    assert np.abs(places - sound).max() < 0.1


def test_declared_ages_are_made_up_for() -> None:
    """Everything is read 6 steps late; who says so drives as if nothing was wrong."""
    queue: list[Read] = []

    def late(step: int, read: Read) -> Read:
        queue.append(read)
        return queue[max(0, step - 6)]

    env = TASK.make()
    with serving([load_policy(TASK.policy)]) as url, Client(url) as client:
        observation, places = TASK.reset(env, 0, 11), []
        with client.open(TASK.policy, goal=TASK.goal(observation), seed=11) as session:
            for step in range(90):
                read = {name: np.asarray(value, dtype=np.float64) for name, value in TASK.observe(observation).items()}
                places.append(read["position"])
                age_ms = 10.0 * min(step, 6)
                reply = session.act(late(step, read), age_ms={"position": age_ms, "velocity": age_ms})
                observation = env.step(reply.action)[0]
    env.close()
    assert reply.late_steps == 6
    sound = _driven(lambda step, read: read)[1]
    assert np.linalg.norm(places[-1] - sound[-1]) < 0.3


@pytest.fixture
def trial() -> Trial:
    console = Console(width=120, file=io.StringIO())
    return Trial(task=TASK, episodes=1, seed=11, workers=1, command="typed", console=console)


def test_the_bench_of_faults_meets_each_in_every_way_on_the_same_episodes(trial: Trial, tmp_path: Path) -> None:
    report = tmp_path / "bench-faults-umaze.json"
    bench_faults.run_bench(trial, policy=None, faults=["none", "noise 0.1"], report=report)
    entries = json.loads(report.read_text())
    ways = ["believed", "one level", "Kalman filter", "doubted"]
    assert [entry["way"] for entry in entries] == [*ways, *ways, "declared"]
    assert {entry["faults"] for entry in entries if entry["fault"] == "noise 0.1"} == {"noise=0.1"}
    assert all(len(entry["episodes_detail"]) == 1 for entry in entries)
    by_row = {entry["row"]: entry for entry in entries}
    assert by_row["none: doubted"]["return_mean"] == by_row["none: believed"]["return_mean"], "nothing is wrong"
    table = faults_table(tmp_path)
    assert sum(line.startswith("| noise 0.1 |") for line in table) == 1
    assert PICTURE in table
    assert draw_faults(tmp_path, tmp_path / "faults.png")
    assert (tmp_path / "faults.png").stat().st_size > 10_000
    bench_faults.run_bench(trial, policy=None, faults=["none"], report=report)
    assert json.loads(report.read_text()) == entries, "nothing is measured twice"


def test_an_unknown_fault_is_named(trial: Trial) -> None:
    with pytest.raises(UnknownName, match=r"unknown fault 'noise 0\.3'; did you mean"):
        bench_faults.run_bench(trial, policy=None, faults=["noise 0.3"], report=None)


def test_the_bench_of_filters_scores_what_is_read_and_what_is_made_of_it(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_filter, "SIGMAS_M", (0.2,))
    monkeypatch.setattr(bench_filter, "BURSTS", (20,))
    report = tmp_path / "bench-filter-umaze.json"
    bench_filter.run_bench(trial, policy=None, report=report)
    noisy, lost = json.loads(report.read_text())
    # Two coordinates with noise of 0.2 m each.
    assert noisy["rmse"]["raw"]["position"] == pytest.approx(0.2 * np.sqrt(2), rel=0.25)
    assert noisy["rmse"]["belief"]["position"] < noisy["rmse"]["raw"]["position"]
    assert noisy["rmse"]["kalman"]["position"] < noisy["rmse"]["raw"]["position"]
    assert set(lost["rmse"]) == {"raw", "kalman", "belief"}
    assert len(filter_table(tmp_path)) == 6


def test_without_records_the_tables_say_what_makes_them(tmp_path: Path) -> None:
    assert "forcing bench faults" in faults_table(tmp_path)[0]
    assert "forcing bench filter" in filter_table(tmp_path)[0]
    assert not draw_faults(tmp_path, tmp_path / "faults.png")
