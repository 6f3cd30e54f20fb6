"""Recordings of `cube`: every kind of task that is scored, from places of their own, and what training is handed."""

from pathlib import Path

import numpy as np
import pytest

from forcing.cli import main
from forcing.datasets.recording import open_recording
from forcing.envs.arm_demonstrations import demonstrate
from forcing.envs.cube_demonstrations import lesson


def test_starts_and_goals_of_two_cubes_are_of_all_the_kinds_that_are_scored() -> None:
    kinds = []
    for number in range(50):
        options = lesson("double").options(number, np.random.default_rng(number))
        assert options is not None
        starts, goals = options["starts"], options["goals"]
        assert starts.shape == goals.shape == (2, 3)
        for places in (starts, goals):
            assert (places[:, :2] >= (0.30, -0.29)).all()
            assert (places[:, :2] <= (0.56, 0.29)).all()
        assert (starts[:, 2] == 0.02).all()
        assert np.linalg.norm(starts[0] - starts[1]) >= 0.09
        stays = np.linalg.norm(starts - goals, axis=1) < 0.02
        if abs(goals[0, 2] - goals[1, 2]) > 0.03:
            np.testing.assert_allclose(goals[0, :2], goals[1, :2])
            kinds.append("stack")
        elif (np.linalg.norm(starts - goals[::-1], axis=1) < 0.02).all():
            kinds.append("exchange")
        else:
            assert np.linalg.norm(goals[0] - goals[1]) >= 0.09
            kinds.append("one" if stays.sum() == 1 else "both")
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"one": 10, "both": 20, "exchange": 10, "stack": 10}


def test_starts_and_goals_of_one_cube_are_spread_over_the_table_and_apart() -> None:
    drawn = [lesson("single").options(n, np.random.default_rng(n)) for n in range(100)]
    places = np.array([[options["starts"], options["goals"]] for options in drawn if options is not None])
    assert places.shape == (100, 2, 1, 3)
    assert (np.ptp(places[..., :2], axis=(0, 1, 2)) > (0.2, 0.5)).all()
    assert np.linalg.norm(places[:, 0] - places[:, 1], axis=-1).min() >= 0.09


@pytest.mark.parametrize("bursts", [False, True])
def test_the_expert_recovers_from_what_it_is_pushed_into(bursts: bool) -> None:
    lesson_of_two = lesson("double")
    env = lesson_of_two.env()
    held = []
    for number in range(8):
        options = lesson_of_two.options(number, np.random.default_rng(number))
        episode = demonstrate(lesson_of_two, env, seed=number, options=options, bursts=bursts)
        held.append(bool(episode["infos"]["success"][-25:].all()))
        assert (episode["infos"]["executed"][:-1] != episode["actions"]).any(axis=1).all()
    # One of them takes nearly all the steps there are, and now and then, by the last bits of its numbers, more.
    assert sum(held) >= 7
    env.close()


def test_generate_hands_the_streams_to_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        f"generate cube-double --out {tmp_path} --steps 200 --workers 1",
        f"data check {tmp_path}/forcing/cube-double-v0",
    ):
        with pytest.raises(SystemExit) as left:
            main(line.split())
        assert left.value.code == 0, line
    assert "0 errors" in capsys.readouterr().out
    recording = open_recording(tmp_path / "forcing" / "cube-double-v0")
    assert {stream.name: stream.shape for stream in recording.spec.streams} == {
        "effector_position": (3,),
        "effector_heading": (2,),
        "gripper": (2,),
        "red_position": (3,),
        "red_heading": (2,),
        "blue_position": (3,),
        "blue_heading": (2,),
        "target": (6,),
        "action": (6,),
        "reward": (),
    }
    assert (recording.spec.goal, recording.spec.control_hz) == (None, 20.0)
    metres = {stream.name for stream in recording.spec.streams if stream.units == "m"}
    assert metres == {"effector_position", "red_position", "blue_position", "target"}
    assert recording.spec.action.low == pytest.approx((0.25, -0.35, 0.02, -1.0, -1.0, 0.0))
    assert recording.spec.action.high == pytest.approx((0.6, 0.35, 0.35, 1.0, 1.0, 1.0))
