"""The benches run from end to end and write the figures they print; how large the figures are is not tested."""

import io
import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from rich.console import Console

from forcing.eval import bench_plan, bench_serve, bench_train, plan_rows
from forcing.eval.ablation_rows import VARIANTS, variants_of
from forcing.eval.adjust import Adjusted
from forcing.eval.bench_ablation import Recipe, Train
from forcing.eval.bench_ablation import run_bench as run_ablation
from forcing.eval.load import Load
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.plan_rows import ROWS, Row, rows_of
from forcing.eval.report import Report
from forcing.eval.tasks import find_maze
from forcing.eval.trial import Trial
from forcing.policy.config import override
from forcing.policy.names import UnknownName
from forcing.policy.policy import load_policy
from forcing.policy.preset import PRESETS
from forcing.policy.training import Budget, Trainer, train
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_serving_bench_measures_robots_at_their_rate_and_a_naive_server_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(seconds: float) -> list[Load]:
        return [
            Load(robots=2, hz=20, transport="request", seconds=seconds, deadline_ms=30),
            Load(robots=4, hz=20, transport="stream", seconds=seconds, deadline_ms=30),
            Load(robots=1, hz=20, transport="naive", seconds=seconds),
            Load(robots=4, hz=20, transport="naive", seconds=seconds),
        ]

    monkeypatch.setattr(bench_serve, "loads", few)
    console = Console(record=True, width=120, file=io.StringIO())
    bench_serve.run_bench("maze2d-umaze", seconds=2, report=tmp_path / "r.json", command="c", console=console)
    alone, requests, stream, *naive = _read(tmp_path / "r.json")["rows"]
    assert alone["acts"] == 200
    for row, robots in ((requests, 2), (stream, 4)):
        assert row["without_action"] == 0
        assert sum(row["sources"].values()) == row["acts"]
        assert 0.5 * robots * 20 < row["actions_hz"] <= robots * 20
        assert 0 < row["ms_p50"] <= row["ms_p99"] <= row["ms_p99.9"]
        assert sum(row["ms_counts"].values()) == row["acts"]
        assert row["sources"]["plan"] > 0
        assert row["passes_hz"] > 0
        assert row["cores"] > 0
        assert row["memory_mb"] > 50
    assert all(row["sources"] == {"fresh": row["acts"]} for row in naive), "every answer is a plan"
    assert naive[1]["actions_hz"] < stream["actions_hz"]
    assert "times the naive server's" in console.export_text()


def _trial(**changes: Any) -> Trial:
    asked = {"task": find_maze("maze2d-umaze-multi"), "episodes": 1, "seed": 1, "workers": 1, "command": "c"}
    return Trial(**{**asked, "console": Console(quiet=True), **changes})


def _bench_plan(report: Path, *groups: str, policy: str | None = None, trial: Trial | None = None) -> str:
    """What the bench says."""
    console = Console(record=True, width=120, file=io.StringIO())
    bench_plan.run_bench(trial or _trial(), policy=policy, groups=groups, report=report, console=console)
    return console.export_text()


SHORT = (
    Row(name="as shipped", group="shipped"),
    Row(name="one sample", group="samples", settings=("planner.samples=1",), passes=3),
    Row(name="three passes", group="samples", settings=("planner.passes=3",)),
    Row(name="straight on", group="yardsticks", driver="straight"),
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a bench of `SHORT`."""
    report = tmp_path_factory.mktemp("plan") / "r.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_rows, "ROWS", SHORT)
        _bench_plan(report)
    return report


def test_the_planning_bench_keeps_settings_episodes_plans_and_cost_of_each_row(planned: Path) -> None:
    shipped, single, same, straight = _read(planned)
    assert [row["row"] for row in (shipped, single, same, straight)] == [row.name for row in SHORT]
    assert [row["policy"] for row in (shipped, single, straight)] == ["maze2d-umaze", "maze2d-umaze", "straight"]
    assert (straight["revision"], straight["plan_metrics"], straight["planner"]) == (None, None, None)
    assert shipped["revision"] == load_policy("maze2d-umaze").revision
    for row in (shipped, single, straight):
        assert [episode["seed"] for episode in row["episodes_detail"]] == [1]
    assert (single["settings"], single["budget"]) == (["planner.samples=1"], 3)
    assert (shipped["planner"]["samples"], single["planner"]["samples"]) == (2, 1)
    # Umaze plans have up to 6 tokens.
    assert (shipped["rows_a_pass"], single["rows_a_pass"]) == (12, 6)
    assert shipped["passes"] == 8  # three to sample, five to refine
    assert shipped["plan_metrics"]["first"]["plans"] == 1
    assert len(shipped["plan_metrics"]["detail"]) == 1


def test_a_row_that_changes_nothing_is_copied_not_measured_again(planned: Path) -> None:
    shipped, _, same, _ = _read(planned)
    assert same["same_as"] == "as shipped"
    assert "episodes_detail" not in same
    assert (same["normalized_mean"], same["plan_ms_p50"]) == (shipped["normalized_mean"], shipped["plan_ms_p50"])
    assert same["settings"] == ["planner.passes=3"]


def test_an_interrupted_bench_goes_on_where_it_was(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, measured = tmp_path / "r.json", list[str]()
    entries = _read(planned)
    report.write_text(json.dumps(entries[:1]))
    monkeypatch.setattr(plan_rows, "ROWS", SHORT)

    def remembered(trial: Trial, name: str, *_: Any) -> Report:
        measured.append(name)
        return dict(entries[1])

    monkeypatch.setattr(Trial, "run", remembered)
    _bench_plan(report)
    assert measured == ["maze2d-umaze", "straight"]
    assert [row["row"] for row in _read(report)] == [row.name for row in SHORT]
    assert _read(report)[0] == entries[0]


def test_a_report_of_other_episodes_is_refused_and_kept(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "r.json"
    report.write_text(planned.read_text())
    monkeypatch.setattr(plan_rows, "ROWS", SHORT)
    with pytest.raises(ValueError, match=r"has seed 1 in row 'as shipped', this run 2; ask for the same"):
        _bench_plan(report, "shipped", trial=_trial(seed=2))
    assert report.read_text() == planned.read_text()


def test_a_report_of_another_bench_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "r.json"
    report.write_text(json.dumps([{"row": "samples, not told", "entering_share": 1.0}]))
    monkeypatch.setattr(plan_rows, "ROWS", SHORT)
    before = report.read_text()
    with pytest.raises(ValueError, match=r"is of another bench, row 'samples, not told' has no plan_metrics"):
        _bench_plan(report)
    assert report.read_text() == before


def test_a_row_that_plans_like_one_of_an_earlier_run_is_copied(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "r.json"
    report.write_text(json.dumps(_read(planned)[:1]))
    monkeypatch.setattr(plan_rows, "ROWS", (Row(name="same", group="other", settings=("planner.passes=3",)),))
    monkeypatch.setattr(Trial, "run", lambda *_: pytest.fail("measured again"))
    _bench_plan(report)
    assert [row["same_as"] for row in _read(report)] == [None, "as shipped"]


def test_every_row_of_the_planning_bench_fits_a_policy_here_and_in_a_worker() -> None:
    policy = load_policy("maze2d-umaze")
    rows = [row for row in ROWS if row.driver is None and not row.needs_world]
    for row in rows:
        adjust = Adjusted(row.settings)
        assert pickle.loads(pickle.dumps(adjust))(policy).preset == adjust(policy).preset
    assert len({row.settings for row in rows}) == len(rows) - 1  # three steps of a full sequence are in two groups
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_rows_on_sampling_have_nothing_that_improves_samples(name: str) -> None:
    preset = PRESETS[name]
    assert override(preset, *plan_rows.ALONE).planner == preset.planner.sampling_alone()


def test_rows_of_the_search_curve_spend_at_most_their_budget() -> None:
    policy = load_policy("maze2d-umaze")
    budgets = set()
    for row in ROWS:
        if row.passes is not None:
            budgets.add(row.passes)
            planner = Adjusted(row.settings)(policy).preset.planner
            spent = planner.search.budget if planner.search else planner.samples * (planner.passes or 0)
            spent += planner.refine.rounds if planner.refine else 0
            assert (planner.polish, planner.attempts) == (None, 1)
            assert row.passes - 2 <= spent <= row.passes
    assert budgets == {1, 4, 16, 64, 256}


def test_an_unknown_group_of_rows_is_named() -> None:
    with pytest.raises(UnknownName, match="unknown rows 'serch'; did you mean 'search'"):
        rows_of(["serch"])
    assert {row.group for row in rows_of(["world", "tracker"])} == {"world", "tracker"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("levels.shared=1", "begin with planner, tracker, belief, rolling or memory, got 'levels.shared=1'"),
        ("planner.samples=0", "samples must be at least 1, got 0"),
    ],
)
def test_settings_that_only_training_can_change_and_wrong_values_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Adjusted((setting,))(load_policy("maze2d-umaze"))


def _recording() -> Trajectories:
    """A walk in circles around the umaze's middle wall."""
    angle = np.linspace(0, 20 * np.pi, 4001)
    position = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    velocity = np.gradient(position, 0.01, axis=0)
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(2,), units="m"),
            StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
            StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
        ),
        control_hz=100.0,
        goal="position",
    )
    streams = {"position": position, "velocity": velocity, "action": np.zeros((4000, 2))}
    return Trajectories(spec=spec, streams=streams, lengths=np.array([4000]))


def _train(trainer: Trainer, budget: Budget, out: Path, card: dict[str, object], *, resume: bool) -> Path:
    return train(trainer, budget, out, card, resume=resume)


def _recipe(out: Path, train: Train = _train) -> Recipe:
    preset = override(PRESETS["maze2d-umaze"], "tracker.kind=pd", "planner.replan_error=none", "denoiser.width=8")
    return Recipe(preset=preset, data="d", recording=_recording(), world=None, steps=2, out=out, train=train)


@pytest.fixture
def short_task() -> Iterator[MazeTask]:
    task = find_maze("maze2d-umaze-multi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(task),
            "make",
            lambda self, render_mode=None: gymnasium.make(self.definition.env_id, max_episode_steps=40),
        )
        yield task


def test_the_ablation_trains_each_variant_from_each_seed_and_keeps_what_it_took(
    tmp_path: Path, short_task: MazeTask
) -> None:
    report, trial = tmp_path / "r.json", _trial(task=short_task)
    variants, quiet = variants_of(["as-is", "half-tokens", "history"]), Console(quiet=True)
    run_ablation(trial, _recipe(tmp_path), seeds=[0, 1], variants=variants, report=report, console=quiet)
    entries = _read(report)
    assert [entry["row"] for entry in entries] == [variant.name for variant in variants]
    folders = sorted(path.name for path in (tmp_path / "maze2d-umaze").iterdir())
    # What only plans otherwise uses the weights that are there.
    assert folders == ["as-is-seed0", "as-is-seed1", "half-tokens-seed0", "half-tokens-seed1"]
    for entry in entries:
        assert entry["seeds"] == [0, 1]
        scores = [run["normalized_mean"] for run in entry["runs"]]
        assert entry["seeds_mean"] == pytest.approx(sum(scores) / 2)
        assert entry["seeds_sem"] == pytest.approx(abs(scores[0] - scores[1]) / 2)
        assert all(run["parameters"] > 0 and run["windows"] > 0 for run in entry["runs"])
        assert np.isfinite([run["nats_per_number"] for run in entry["runs"]]).all()
    halved = load_policy(str(tmp_path / "maze2d-umaze/half-tokens-seed0"))
    assert (halved.preset.layout.token_steps, halved.preset.layout.horizon) == (16, 12)
    settings = ["layout.token_steps=16", "layout.horizon=12", *plan_rows.ALONE]
    assert halved.card["command"].endswith(" ".join(["--steps 2 --seed 0", *(f"--set {one}" for one in settings)]))
    assert entries[0]["runs"][0]["revision"] == entries[2]["runs"][0]["revision"]


def test_an_ablation_goes_on_where_it_was_and_trains_nothing_twice(
    tmp_path: Path, short_task: MazeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, trial = tmp_path / "r.json", _trial(task=short_task)
    steps = list[int]()

    def counted(trainer: Trainer, budget: Budget, out: Path, card: dict[str, object], *, resume: bool) -> Path:
        path = train(trainer, budget, out, card, resume=resume)
        steps.append(trainer.step)
        return path

    def run(seeds: list[int]) -> Any:
        recipe, quiet = _recipe(tmp_path, counted), Console(quiet=True)
        run_ablation(trial, recipe, seeds=seeds, variants=variants_of(["as-is"]), report=report, console=quiet)
        return _read(report)

    first = run([1])
    assert run([1]) == first
    assert steps == [2]
    both = run([0, 1])[0]
    assert both["seeds"] == [0, 1]
    assert both["runs"][1] == first[0]["runs"][0]
    assert steps == [2, 2]


def test_every_variant_of_the_ablation_fits_every_recipe_with_a_benchmark() -> None:
    for task in (find_maze("maze2d-umaze-multi"), find_maze("maze2d-large-multi")):
        preset = PRESETS[task.policy]
        changed = {variant.key: override(preset, *variant.settings(preset)) for variant in VARIANTS}
        assert changed["as-is"] == replace(preset, planner=preset.planner.sampling_alone())
        assert len({repr(other) for other in changed.values()}) == len(VARIANTS)


def test_the_training_bench_counts_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "SECONDS", 0.2)
    preset = PRESETS["maze2d-umaze"]
    bench_train.run_bench(preset, report=tmp_path / "r.json", command="c", console=Console(quiet=True))
    from_memory, training = _read(tmp_path / "r.json")["windows_per_s"].values()
    assert from_memory > training > 0
