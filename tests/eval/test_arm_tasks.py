"""Arms as tasks: what policies are told, what counts, and that a server between them and the arm changes nothing."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from forcing.datasets.recording import read_recording
from forcing.datasets.store import write_store
from forcing.envs.arm_control import ACTION
from forcing.envs.swap import STATE, UNITS, Swap
from forcing.eval.conditions import Conditions
from forcing.eval.drivers import sensed
from forcing.eval.report import goals_table
from forcing.eval.rollout import DriverSpec, Episode, rollout
from forcing.eval.tasks import find_maze, find_task
from forcing.policy.checkpoint import load_policy_file, save_policy
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

TASK = find_task("swap")
Command = Callable[..., Any]
STEPS = 12


def wandering(lengths: tuple[int, ...]) -> Trajectories:
    """Streams as those of `swap` in name and shape, of which nothing can be learned."""
    rng = np.random.default_rng(0)
    streams = [
        StreamSpec(name=name, role="observation", shape=space.shape or (), units=UNITS.get(name, ""))
        for name, space in STATE.items()
    ]
    streams.append(StreamSpec(name="action", role="action", shape=ACTION.shape))
    rows = {"observation": sum(lengths) + len(lengths), "action": sum(lengths)}
    drawn = {
        stream.name: rng.normal(0, 0.1, (rows[stream.role], *stream.shape)).cumsum(axis=0) % 1.0 for stream in streams
    }
    spec = TrajectorySpec(streams=tuple(streams), control_hz=20.0)
    return Trajectories(spec=spec, streams=drawn, lengths=np.array(lengths), provenance={"source": "a test"})


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, forcing: Command) -> Path:
    """A folder of a policy that was trained for two steps, and goes where it pleases."""
    folder = tmp_path_factory.mktemp("arm")
    write_store(wandering((20, 20)), folder / "arm.zarr")
    said = forcing(
        "train swap --steps 2 --data", folder / "arm.zarr", "--out", folder / "tiny", "--set denoiser.width=16"
    )
    assert said.code == 0, said.err
    return folder / "tiny"


@pytest.fixture(scope="module")
def here(policy: Path) -> list[Episode]:
    """Two episodes, one after another in this process."""
    return list(
        rollout(TASK, DriverSpec(policy=str(policy), under=Conditions(most_steps=STEPS)), episodes=2, seed=3, workers=1)
    )


def test_who_drives_with_an_unfinished_run_is_told_so(policy: Path, tmp_path: Path, forcing: Command) -> None:
    file = load_policy_file(policy / "policy.safetensors")
    save_policy(
        tmp_path / "policy.safetensors",
        file.preset,
        file.spec,
        file.normaliser,
        file.weights,
        {**file.card, "unfinished": "step 1 of 2"},
    )
    told = re.compile(r"note: policy '\S+' is of an unfinished run, step 1 of 2; if it was stopped, --resume")
    driven = "eval swap --episodes 1 --workers 1 --most-steps 2 --policy"
    assert told.search(" ".join(forcing(driven, tmp_path).out.split()))
    assert "note: policy" not in forcing(driven, policy).out


@pytest.mark.parametrize("served", ["", "--served"])
def test_ctrl_c_keeps_the_episodes_that_had_finished(
    policy: Path, served: str, tmp_path: Path, forcing: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*arguments: Any) -> Iterator[Episode]:
        yield next(rollout(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr("forcing.eval.evaluate.rollout", pressed)
    driven = "eval swap --episodes 5 --workers 1 --most-steps 2 --report", tmp_path / "kept.json", "--policy", policy
    said = forcing(*driven, served)
    assert (said.code, said.err) == (1, "forcing: stopped\n")
    assert "stopped after 1 of 5 episodes; what follows is of these" in said.out
    report = json.loads((tmp_path / "kept.json").read_text())
    assert (report["episodes"], report["stopped_of"], len(report["episodes_detail"])) == (1, 5, 1)


def test_what_was_done_and_undone_again_is_no_success() -> None:
    for successes, held, first in (
        ([False, True, True], True, 2),
        ([True, True, False], False, 1),
        ([False, False, False], False, None),
    ):
        outcome = TASK.outcome(np.zeros(3), np.array(successes))
        assert (outcome.success, outcome.first, outcome.normalized) == (held, first, 100.0 if held else 0.0)


def test_a_policy_of_cameras_is_told_nothing_of_the_cubes_and_gets_frames_as_they_are() -> None:
    task = find_task("swap-cameras")
    observation = Swap().reset(seed=0)[0] | {name: np.full((64, 64, 3), 7, np.uint8) for name in ("front", "side")}
    told = task.observe(observation)
    assert list(told) == ["effector_position", "effector_heading", "gripper", "front", "side"] == list(task.streams)
    assert told["front"].dtype == np.uint8
    np.testing.assert_array_equal(task.position(observation), observation["effector_position"])
    assert task.goal(observation) is None


def test_a_policy_is_told_the_streams_it_knows_and_which_of_them_were_not_sensed() -> None:
    observation = Swap().reset(seed=0)[0]
    dead = {name: value for name, value in observation.items() if name != "gripper"}
    told, missing = sensed(TASK, dead, ["effector_position", "gripper"])
    assert (list(told), missing) == (["effector_position"], ["gripper"])


def test_episodes_are_cut_where_they_shall_be_and_begin_as_their_seed_says(here: list[Episode]) -> None:
    env = Swap()
    for index, episode in enumerate(here):
        observation, info = env.reset(seed=3 + index)
        assert episode.layout == info["layout"]
        np.testing.assert_array_equal(episode.positions[0], observation["effector_position"])
        assert (len(episode.actions), episode.success, episode.goal) == (STEPS, False, None)
    assert not np.array_equal(here[0].actions, here[1].actions)


def test_a_served_episode_is_the_same_as_in_process_and_the_report_says_that_it_was_served(
    policy: Path, here: list[Episode], tmp_path: Path, forcing: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Episode] = []

    def keeping(*arguments: object) -> Iterator[Episode]:
        for episode in rollout(*arguments):  # type: ignore[arg-type]
            kept.append(episode)
            yield episode

    monkeypatch.setattr("forcing.eval.evaluate.rollout", keeping)
    monkeypatch.setattr("forcing.server.engine.PATIENCE_S", 600.0)  # a busy machine is no failure here
    report = tmp_path / "report.json"
    said = forcing(
        f"eval swap --served --episodes 2 --seed 3 --workers 1 --most-steps {STEPS}",
        "--policy",
        policy,
        "--report",
        report,
    )
    assert said.code == 0, said.err
    assert "serving tiny (revision " in said.out
    for there, other in zip(kept, here, strict=True):
        np.testing.assert_array_equal(there.actions, other.actions)
        np.testing.assert_array_equal(there.positions, other.positions)
        assert len(there.trace.plan_ms) == len(other.trace.plan_ms) > 0
    found = json.loads(report.read_text())
    assert (found["served"], found["most_steps"]) == (True, STEPS)
    assert [record["layout"] for record in found["episodes_detail"]] == [list(episode.layout or ()) for episode in here]
    assert [
        (record["seed"], record["steps"], record["success"], record["reached"]) for record in found["episodes_detail"]
    ] == [
        (3, STEPS, False, False),
        (4, STEPS, False, False),
    ]
    for record in found["episodes_detail"]:
        assert 0 < record["act_ms_p50"] <= record["act_ms_p99"]
        assert record["plan_ms_p50"] < record["act_ms_p99"]


def test_the_expert_succeeds_and_its_success_holds(tmp_path: Path, forcing: Command) -> None:
    report = tmp_path / "report.json"
    said = forcing("eval swap --policy expert --episodes 1 --workers 1 --report", report)
    assert said.code == 0, said.err
    found = json.loads(report.read_text())
    assert (found["success_rate"], found["reached_rate"], found["normalized_mean"]) == (1.0, 1.0, 100.0)
    (record,) = found["episodes_detail"]
    assert 100 < record["steps_to_goal"] < record["steps"] == 300
    assert record["return"] == 300 - record["steps_to_goal"] + 1
    assert "1.00" in said.out


def test_what_only_mazes_have_is_refused_in_a_line(policy: Path, forcing: Command, tmp_path: Path) -> None:
    for line, message in (
        (f"eval swap --policy {policy} --faults noise=0.1", "faults are of mazes' sensors, swap has none of those"),
        ("eval swap --policy straight", "policy straight is a yardstick of mazes, which swap is not"),
        ("eval swap --policy mpc --data x", "policy mpc is a yardstick of mazes, which swap is not"),
        (f"eval swap --policy {policy} --pictures {tmp_path}", "pictures are drawn of mazes, which swap is not"),
        ("eval swap --policy expert --served", "served needs a policy that a server can have, expert is a yardstick"),
        (f"eval swap --policy {policy} --served --url http://127.0.0.1:1", "leave out one of them"),
        (f"eval swap --policy {policy} --most-steps 0", "most_steps must be at least 1, got 0"),
        ("demo --task swap", "task 'swap' is no maze"),
        ("bench plan --task swap", "task 'swap' is no maze"),
    ):
        said = forcing(line)
        assert (said.code, said.err.count("\n")) == (2, 1), said.err
        assert message in said.err


def test_a_policy_that_needs_what_the_task_lacks_is_refused_in_a_line(
    forcing: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forcing.server.engine.PATIENCE_S", 600.0)  # a busy machine is no failure here
    for served in ("", "--served"):
        said = forcing("eval swap --policy maze2d-umaze --episodes 1", served)
        assert said.code == 1
        assert "policy maze2d-umaze needs position, velocity; swap has effector_position" in said.err


def test_what_a_served_arm_did_is_recorded_and_read_again(
    policy: Path, tmp_path: Path, forcing: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forcing.envs.swap.MAX_STEPS", STEPS)
    said = forcing("record swap --episodes 1 --seed 3 --policy", policy, "--out", tmp_path / "driven")
    assert said.code == 0, said.err
    assert f"episode 0 (1 of 1): {STEPS} steps, no success" in said.out
    found = read_recording(str(tmp_path / "driven"))
    assert (found.lengths.tolist(), found.spec.goal) == ([STEPS], None)
    assert [stream.name for stream in found.spec.of_role("observation")] == list(STATE)
    assert found.spec["red_position"].units == "m"


def test_cubes_take_their_five_goals_in_turn_which_no_session_is_told_but_every_observation(forcing: Command) -> None:
    task = find_task("cube-single")
    env = task.make()
    targets = {tuple(task.observe(task.reset(env, index, 7))["target"].round(2)) for index in range(6)}
    assert len(targets) == 5
    assert task.goal(task.reset(env, 0, 7)) is None
    said = forcing("eval cube-single --policy expert --episodes 2 --workers 1")
    assert said.code == 0, said.err
    table = said.out.partition("expert, by goal")[2].splitlines()[1:5]
    assert [line[:6].strip() for line in table] == ["goal", "task 1", "task 2", "all"]


def test_goals_of_fixed_number_are_called_as_in_meta_world_and_are_those() -> None:
    task, env = find_task("metaworld"), find_task("metaworld").make()
    said = ("reach", "push", "pick-place", "drawer-open", "button-press-topdown", "door-open", "peg-insert-side")
    assert task.goals == (*said, "window-open")
    report = {"policy": "x", "episodes": 4, "success_rate": 0.5, "success_interval": [0.15, 0.85]}
    rows = [{**report, "goal": number, "episodes": 2} for number in (2, 7)]
    console = Console(record=True, width=80)
    console.print(goals_table(task, {**report, "goals": rows}))
    assert [line.split()[0] for line in console.export_text().splitlines()[2:]] == ["push", "peg-insert-side", "all"]
    with closing(env):
        asked = [int(task.reset(env, index, 7)["task"].argmax()) for index in (1, 6)]
    assert asked == [1, 6]


def test_mazes_are_found_among_all_tasks() -> None:
    assert find_maze("maze2d-umaze-multi") is find_task("maze2d-umaze-multi")
    with pytest.raises(ValueError, match="task 'swap' is no maze"):
        find_maze("swap")
    env = find_task("swap").make()
    with closing(env):
        assert "front" not in env.observation_space.spaces  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "steps", "goals"), [("metaworld", 200, [1, 2, 3, 4, 5, 6, 7, 8]), ("fetch-push", 50, [None, None])]
)
def test_experts_hold_what_their_task_asks_for(name: str, steps: int, goals: list[int | None]) -> None:
    """Of metaworld each of the eight in turn."""
    driven = list(rollout(find_task(name), DriverSpec(policy="expert"), episodes=len(goals), seed=0, workers=1))
    assert [(len(episode.actions), episode.success) for episode in driven] == [(steps, True)] * len(goals)
    assert [episode.goal_number for episode in driven] == goals
