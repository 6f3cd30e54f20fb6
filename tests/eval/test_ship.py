"""A run is scored, installed and described; no path of this machine gets into what is published."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from forcing.eval import evaluate as evaluate_module
from forcing.eval import ship as ship_module
from forcing.eval.report import build_report
from forcing.eval.ship import ship
from forcing.eval.tasks import TASKS
from forcing.policy.checkpoint import load_policy_file, read_tensors, save_policy, write_tensors
from forcing.policy.dynamics import LinearDynamics, state_slices
from forcing.policy.policy import SHIPPED, load_policy, shipped_policies
from forcing.policy.support import Support
from forcing.policy.types import TrajectorySpec
from forcing.policy.world import World


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run below the working directory: the shipped policy, as if it were new."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ship_module, "SHIPPED", tmp_path / "package")
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    file = load_policy_file(SHIPPED / "maze2d-umaze" / "policy.safetensors")
    card = {**file.card, "device": "cpu", "data": "recordings/umaze"}
    world = _world(file.spec)
    save_policy(folder / "policy.safetensors", file.preset, file.spec, file.normaliser, file.weights, card, world)
    return folder


def _world(spec: TrajectorySpec) -> World:
    """Maze2D's motion away from walls, everywhere visited: v' = 0.9976 v + 0.238 a, x' = x + 0.01 v'."""
    speeds = np.concatenate([-0.0024 * np.eye(2), 0.238 * np.eye(2), np.zeros((1, 2))])  # by vx, vy, ax, ay, 1
    places = 0.01 * (speeds + np.concatenate([np.eye(2), np.zeros((3, 2))]))
    weights = np.concatenate([np.zeros((2, 4)), np.concatenate([places, speeds], axis=1)])
    far = np.full(4, 10.0)
    dynamics = LinearDynamics(streams=state_slices(spec), weights=weights, low=-far, high=far)
    return World(
        dynamics=dynamics, support=Support(origin=np.array([-3.0, -3.0]), cell=6.0, visited=np.ones((1, 1), bool))
    )


def test_a_run_is_scored_on_its_tasks_and_installed_with_scores_and_a_readme(run: Path, tmp_path: Path) -> None:
    ship(run, episodes=1, seed=3, workers=1)
    reports = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "docs/results").iterdir()}
    assert sorted(reports) == ["maze2d-umaze-multi", "maze2d-umaze-single"]
    for report in reports.values():
        assert report["command"] == "scripts/ship runs/mine --episodes 1 --seed 3"
        assert str(tmp_path) not in json.dumps(report)
    installed = load_policy_file(tmp_path / "package/maze2d-umaze/policy.safetensors")
    assert installed.world is not None, "shipped plans are rehearsed and followed on its dynamics"
    np.testing.assert_array_equal(installed.world.dynamics.weights, _world(installed.spec).dynamics.weights)
    assert installed.card["scores"] == {name: round(r["normalized_mean"], 1) for name, r in reports.items()}
    readme = (tmp_path / "package/maze2d-umaze/README.md").read_text()
    assert f"revision {installed.revision}." in readme
    assert {report["revision"] for report in reports.values()} == {installed.revision}
    assert "Input at 100 Hz: position [2] m, velocity [2] m/s; goal: a position; output: action [2] from -1 to 1" in (
        readme
    )
    assert "on CPU, " in readme
    assert str(tmp_path) not in readme


def test_a_run_of_an_older_version_is_scored_as_the_revision_that_is_installed(run: Path, tmp_path: Path) -> None:
    path = run / "policy.safetensors"
    header, tensors = read_tensors(path, "policy")
    del header["preset"]["planner"]["attempts"]
    write_tensors(path, "policy", header, tensors)
    ship(run, episodes=1, seed=3, workers=1)
    installed = load_policy_file(tmp_path / "package/maze2d-umaze/policy.safetensors")
    assert installed.revision != load_policy_file(path).revision
    report = json.loads((tmp_path / "docs/results/maze2d-umaze-multi.json").read_text())
    assert report["revision"] == installed.revision


def test_a_policy_that_never_reaches_its_goal_is_described_all_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluate_module, "build_report", lambda *facts: {**build_report(*facts), "steps_to_goal_mean": None}
    )
    ship(run, episodes=1, seed=3, workers=1)
    assert "| - |" in (tmp_path / "package/maze2d-umaze/README.md").read_text()


def test_a_run_outside_the_working_directory_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = run.parents[1] / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ValueError, match="run must lie below the working directory"):
        ship(run, episodes=1, workers=1)
    shutil.copytree(run, elsewhere / "copy")
    ship(elsewhere / "copy", episodes=1, seed=3, workers=1)


@pytest.mark.parametrize("name", shipped_policies())
def test_the_records_and_the_card_are_of_the_very_policy_that_is_shipped(name: str) -> None:
    revision = load_policy(name).revision
    assert f"revision {revision}." in (SHIPPED / name / "README.md").read_text()
    for task in (task for task in TASKS.values() if task.policy == name):
        report = json.loads((Path(__file__).parents[2] / "docs/results" / f"{task.name}.json").read_text())
        assert report["revision"] == revision
        assert round(report["normalized_mean"], 1) == load_policy(name).card["scores"][task.name]
