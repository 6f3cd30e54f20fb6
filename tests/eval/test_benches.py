"""The benches run from end to end and write the figures they print; how large the figures are is not tested."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forcing.eval import bench_plan, bench_serve, bench_train
from forcing.eval.bench_plan import ROWS
from forcing.eval.tasks import find_task
from forcing.policy.policy import load_policy
from forcing.policy.preset import PRESETS


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_serving_bench_times_one_robot_in_process_one_and_several_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_serve, "STEPS", 40)
    monkeypatch.setattr(bench_serve, "ROBOTS", 2)
    console = Console(record=True, width=80, file=io.StringIO())
    bench_serve.run_bench("maze2d-umaze", report=tmp_path / "r.json", command="c", console=console)
    rows = _read(tmp_path / "r.json")["rows"]
    assert [row["steps"] for row in rows] == [40, 40, 80]
    for row in rows:
        assert 0 < row["follow_ms_p50"] <= row["follow_ms_p99"]
        assert row["follow_ms_p50"] < row["fresh_ms_p50"]
        assert row["plans"] >= 1
        assert 0 < row["achieved_hz"] <= 101
    assert [row["ratio"] > 0 for row in rows] == [True] * 3
    said = console.export_text()
    assert "through the socket, 2 robots" in said
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_planning_bench_keeps_each_rows_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guided = next(row for row in ROWS if "MCG N = 4" in row.name)
    asked = {"goal_by": "guidance", "futures": 4, "guidance_scale": bench_plan.SCALE, "samples": 1, "passes": None}
    monkeypatch.setattr(bench_plan, "ROWS", (ROWS[0], guided))
    bench_plan.run_bench(
        find_task("maze2d-umaze-multi"),
        policy=None,
        episodes=1,
        seed=1,
        report=tmp_path / "r.json",
        workers=1,
        command="c",
        console=Console(quiet=True),
    )
    rows = _read(tmp_path / "r.json")
    assert [row["row"] for row in rows][:2] == ["as shipped", guided.name]
    assert [len(row["episodes_detail"]) for row in rows] == [1, 1, 1, 1]
    assert [row["policy"] for row in rows] == ["maze2d-umaze", "maze2d-umaze", "straight", "expert"]
    assert [row["revision"] is None for row in rows] == [False, False, True, True]
    # The shipped planner takes three passes a plan, the guided one as many as its plans are long.
    assert rows[0]["passes"] == 3
    assert rows[1]["passes"] > 3
    assert rows[0]["changed"] == {"planner": {}, "tracker": {}}
    assert rows[1]["changed"]["planner"] | asked == rows[1]["changed"]["planner"]
    assert rows[1]["changed"]["planner"]["schedule"]["kind"] == "pyramid"


def test_a_row_changes_the_same_in_a_worker_as_here() -> None:
    policy = load_policy("maze2d-umaze")
    for row in ROWS:
        adjust = pickle.loads(pickle.dumps(row.adjust))
        assert adjust(policy).preset == row.adjust(policy).preset


def test_every_row_of_the_planning_bench_fits_the_shipped_planner() -> None:
    policy = load_policy("maze2d-umaze")
    adjusted = [row.adjust(policy).preset for row in ROWS]
    assert adjusted[0] == policy.preset
    assert len({repr(preset) for preset in adjusted}) == len(ROWS)


def test_the_training_bench_counts_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "SECONDS", 0.2)
    preset = PRESETS["maze2d-umaze"]
    bench_train.run_bench(preset, report=tmp_path / "r.json", command="c", console=Console(quiet=True))
    from_memory, training = _read(tmp_path / "r.json")["windows_per_s"].values()
    assert from_memory > training > 0
