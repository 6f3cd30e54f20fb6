"""Every planted fault is found where it was planted, and clean recordings raise nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forcing.datasets.checks import check, check_source
from forcing.datasets.findings import Finding
from forcing.datasets.store import write_store
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

Recorder = Callable[..., Trajectories]


def altered(recording: Trajectories, name: str, change: Callable[[Array], None]) -> Trajectories:
    values = recording.streams[name].copy()
    change(values)
    return replace(recording, streams={**recording.streams, name: values})


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


@pytest.fixture
def recording(point_mass: Recorder) -> Trajectories:
    return point_mass([300, 200, 400])


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_recording_raises_nothing(point_mass: Recorder, seed: int) -> None:
    assert check(point_mass([300, 20, 150, 900], seed)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found(recording: Trajectories, value: float) -> None:
    def plant(values: Array) -> None:
        values[300 + 7, 1] = value

    finding = only(check(altered(recording, "action", plant)))
    assert finding.rule == "must be finite"
    assert (finding.severity, finding.stream, finding.count, finding.where) == ("error", "action", 1, ((1, 7),))


@pytest.mark.parametrize("name", ["position", "velocity", "action"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38])
def test_infinity_at_steps_one_after_another_is_found_without_a_word_besides(
    recording: Trajectories, name: str, value: float
) -> None:
    def plant(values: Array) -> None:
        values[20:24] = value
        values[24] = -value

    found = check(altered(recording, name, plant))
    assert found
    assert any(each.kind == "not finite" and each.stream == name for each in found) == np.isinf(value)


def test_not_a_number_in_an_observation_is_placed_by_its_observation(recording: Trajectories) -> None:
    def plant(values: Array) -> None:
        values[301 + 200] = np.nan  # the last observation of episode 1

    finding = only(check(altered(recording, "position", plant)))
    assert (finding.stream, finding.rule, finding.where) == ("position", "must be finite", ((1, 200),))


def test_a_position_that_jumps_is_found_by_its_rate(recording: Trajectories) -> None:
    def plant(values: Array) -> None:
        values[301 + 50 : 301 + 201] += 0.1  # from observation 50 of episode 1 on

    finding = only(check(altered(recording, "position", plant)))
    assert (finding.severity, finding.stream, finding.count, finding.where) == ("error", "velocity", 1, ((1, 49),))


@pytest.mark.parametrize("wrong_hz", [10, 50, 1000])
def test_a_wrong_control_hz_is_found_and_the_right_one_named(recording: Trajectories, wrong_hz: float) -> None:
    finding = only(check(replace(recording, spec=replace(recording.spec, control_hz=wrong_hz))))
    assert (finding.severity, finding.stream, finding.count) == ("error", "velocity", 900)
    assert finding.rule.endswith(f"which is {wrong_hz}; the data moves as if it were 100")


def test_a_stream_without_a_rate_is_judged_by_its_own_changes() -> None:
    angle, push = (
        StreamSpec(name="angle", role="observation", shape=()),
        StreamSpec(name="push", role="action", shape=()),
    )
    spec = TrajectorySpec(streams=(angle, push), control_hz=50)
    angles = np.sin(np.arange(2001) / 40)
    streams = {"angle": angles, "push": np.cos(np.arange(2000) / 40)}
    smooth = Trajectories(spec=spec, streams=streams, lengths=np.array([2000]))
    assert check(smooth) == []
    torn = replace(smooth, streams={**streams, "angle": np.where(np.arange(2001) < 1500, angles, angles + 0.5)})
    finding = only(check(torn))
    assert (finding.severity, finding.stream, finding.where) == ("warning", "angle", ((0, 1499),))


def test_a_new_episode_elsewhere_is_no_jump(point_mass: Recorder) -> None:
    recording = point_mass([100, 100])
    starts = recording.episode(0)["position"][-1], recording.episode(1)["position"][0]
    assert np.linalg.norm(starts[0] - starts[1]) > 1
    assert check(recording) == []


def test_actions_outside_their_limits_are_found(recording: Trajectories) -> None:
    def plant(values: Array) -> None:
        values[[3, 310]] = [[1.01, 0.0], [0.0, -7.0]]

    finding = only(check(altered(recording, "action", plant)))
    assert (finding.severity, finding.count, finding.where) == ("error", 2, ((0, 3), (1, 10)))
    assert finding.rule == "must stay within its limits -1 to 1"


def test_a_dead_sensor_is_found(recording: Trajectories) -> None:
    def plant(values: Array) -> None:
        values[:, 1] = 0.3

    finding = only(check(altered(recording, "action", plant)))
    assert (finding.severity, finding.rule) == ("warning", "should vary: 1 of its 2 entries never change")


def test_episodes_too_short_to_learn_from_are_found(point_mass: Recorder) -> None:
    finding = only(check(point_mass([300, 9, 10, 1])))
    assert (finding.severity, finding.count, finding.where) == ("warning", 2, ((1, 0), (3, 0)))


def test_stale_goals_are_read_from_the_provenance(recording: Trajectories) -> None:
    goals = {"stale_first": {"count": 7, "episodes": [1, 2]}, "changed_later": {"count": 0, "episodes": []}}
    finding = only(check(replace(recording, provenance={"goals": goals})))
    assert (finding.severity, finding.stream, finding.count) == ("warning", "position", 7)


def test_a_finding_reads_as_one_line() -> None:
    finding = Finding(
        kind="not finite",
        severity="error",
        stream="action",
        rule="must be finite",
        count=9,
        where=((0, 3), (1, 10)),
        remedy="cut it",
    )
    assert str(finding) == "error: stream 'action': must be finite (9 times at episode:step 0:3, 1:10, …); cut it"


def test_a_source_that_cannot_be_read_is_a_finding(tmp_path: Path, recording: Trajectories) -> None:
    path = write_store(recording, tmp_path / "maze.zarr")
    assert check_source(path) == []
    next((path / "streams" / "action" / "c").rglob("0")).joinpath("0").unlink()
    finding = only(check_source(path))
    assert (finding.severity, finding.count) == ("error", 1)
    assert "stream 'action' must have sha256" in finding.rule
    assert finding.remedy.startswith("restore it from a copy")
