"""How often outcomes lie within what a plan's spread promises, counted by hand and by the bench."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from forcing.eval.bench_spread import ENDS, counted, coverages, run_bench, spread_rows
from forcing.eval.drivers import Trace
from forcing.eval.rollout import Episode
from forcing.eval.spread_picture import draw_spread
from forcing.eval.spread_table import PICTURE, spread_table
from forcing.eval.tasks import find_maze
from forcing.eval.trial import Trial
from forcing.policy.checkpoint import save_spread
from forcing.policy.policy import SHIPPED, load_policy
from forcing.policy.types import Plan

TASK = find_maze("maze2d-umaze-multi")


def _plan(made_at: int, spread: float) -> Plan:
    """That the robot stays at the origin, for 12 steps in 3 frames."""
    still = np.zeros((3, 2))
    return Plan(
        made_at_step=made_at,
        start={"position": still[0]},
        steps=np.array([4, 8, 12]),
        streams={"position": still},
        level=np.zeros((3, 1)),
        spread={"position": np.full((3, 2), spread)},
        candidates=still[None],
        costs=np.zeros(1),
        chosen=0,
        feasible=True,
        passes=1,
    )


def _episode(plans: list[Plan], positions: np.ndarray) -> Episode:
    return Episode(
        index=0,
        seed=0,
        episode_return=0.0,
        normalized=0.0,
        success=True,
        steps_to_goal=1,
        goal=np.zeros(2),
        positions=positions,
        actions=np.zeros((len(positions) - 1, 2), dtype=np.float32),
        trace=Trace(plans=plans),
    )


def test_outcomes_are_counted_by_steps_ahead_and_interval_up_to_the_end_of_the_episode() -> None:
    positions = np.zeros((13, 2))
    # 0.6, 1 and 1.5 standard deviations off in x: within 95, 80 and 50 % intervals of 1.96, 1.28 and 0.67.
    positions[[4, 8, 12], 0] = [0.6, 1.0, 1.5]
    counts = counted(_episode([_plan(0, 1.0), _plan(4, 0.5)], positions))
    # The second plan saw two frames, 2 and 3 of its standard deviations off.
    assert counts[:3] == [[4, 3, 3, 3], [4, 2, 3, 3], [2, 1, 1, 2]]
    assert all(row == [0, 0, 0, 0] for row in counts[3:])


def test_normal_errors_are_covered_as_promised() -> None:
    rng = np.random.default_rng(0)
    positions = rng.normal(0, 0.3, (4000, 2))
    plans = [_plan(step, 0.3) for step in range(0, 3980)]
    shares = coverages({"coverage": [counted(_episode(plans, positions))]})
    for episodes, found in shares[:3]:
        assert episodes == 1
        np.testing.assert_allclose(found, [0.5, 0.8, 0.95], atol=0.03)
    assert shares[3:] == [(0, [])] * (len(ENDS) - 3)


def _trial(episodes: int = 2) -> Trial:
    console = Console(record=True, width=120, file=io.StringIO())
    return Trial(task=TASK, episodes=episodes, seed=11, workers=1, command="typed", console=console)


def test_the_bench_keeps_counts_of_each_episode_and_measures_nothing_twice(tmp_path: Path) -> None:
    report, trial = tmp_path / "bench-spread-umaze.json", _trial()
    run_bench(trial, policy=None, report=report)
    entries = json.loads(report.read_text())
    assert [(entry["row"], entry["faults"]) for entry in entries] == [("clean", ""), ("noise 0.2", "noise=0.2")]
    for entry in entries:
        assert np.shape(entry["coverage"]) == (2, len(ENDS), 4)
        assert len(entry["episodes_detail"]) == 2
        assert entry["calibration"] == load_policy("maze2d-umaze").card["spread"]
    rows = spread_rows(entries)
    assert rows[0][:2] == ["1 to 4", "2"]
    assert all(0 <= int(cell) <= 100 for row in rows for cell in row[2:5] if cell)
    assert PICTURE in spread_table(tmp_path)
    assert draw_spread(tmp_path, tmp_path / "spread.png")
    assert (tmp_path / "spread.png").stat().st_size > 10_000
    before = report.read_bytes()
    run_bench(trial, policy=None, report=report)
    assert report.read_bytes() == before


def test_a_policy_without_a_spread_is_told_how_to_get_one(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "ogbench-pointmaze-medium-stitch" / "policy.safetensors", tmp_path)
    with pytest.raises(
        ValueError, match=f"has no spread that was measured; do that with: forcing calibrate {tmp_path}"
    ):
        run_bench(_trial(), policy=str(tmp_path), report=None)


def test_rows_of_another_calibration_are_measured_anew(tmp_path: Path) -> None:
    mine, report = tmp_path / "mine", tmp_path / "r.json"
    shutil.copytree(SHIPPED / "maze2d-umaze", mine)
    run_bench(_trial(1), policy=str(mine), report=report)
    spread = load_policy(str(mine)).spread
    assert spread is not None
    narrow = replace(spread, moving=1e-9 * spread.moving, resting=1e-9 * spread.resting)
    save_spread(mine / "policy.safetensors", narrow, {"drives": 0})
    first = [entry["coverage"] for entry in json.loads(report.read_text())]
    run_bench(_trial(1), policy=str(mine), report=report)
    then = [entry["coverage"] for entry in json.loads(report.read_text())]
    assert np.sum(then, axis=(0, 1, 2))[1:].max() < 0.1 * np.sum(first, axis=(0, 1, 2))[1:].min()


def test_without_records_the_table_says_what_makes_them(tmp_path: Path) -> None:
    assert "forcing bench spread" in spread_table(tmp_path)[0]
    assert not draw_spread(tmp_path, tmp_path / "spread.png")
