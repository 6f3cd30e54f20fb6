"""Cameras of arms that are disturbed, on the same episodes as without: what is told, reported and filmed."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from forcing.datasets.store import write_store
from forcing.envs.arm_control import ACTION
from forcing.envs.swap import STATE, UNITS, Swap
from forcing.envs.swap_distractors import Distractor, cover
from forcing.eval.arm_tasks import ArmTask
from forcing.eval.conditions import Conditions, Handling
from forcing.eval.distractors import DISTRACTORS
from forcing.eval.drivers import ExpertDriver, PolicyDriver, ServerDriver, Trace
from forcing.eval.film import Shot, Take, write_film
from forcing.eval.rollout import DriverSpec, Episode, drive_episode, run_episode
from forcing.eval.tasks import find_task
from forcing.policy.policy import load_policy
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec
from forcing.server.serve import serving

TASK = find_task("swap-cameras")
Command = Callable[..., Any]
STEPS, FROM, FOR = 6, 2, 3


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distractor that does not wait for a grasp."""

    def covered(seed: int) -> Distractor:
        return Distractor(kind="cover", cameras=("side",), start=FROM, steps=FOR)

    monkeypatch.setitem(DISTRACTORS, "soon", covered)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, forcing: Command) -> Path:
    """A folder of a policy of an arm with cameras that was trained for two steps, on noise."""
    folder, rng = tmp_path_factory.mktemp("cameras"), np.random.default_rng(0)
    streams = [
        StreamSpec(name=name, role="observation", shape=STATE[name].shape or (), units=UNITS.get(name, ""))
        for name in TASK.streams
        if name in STATE
    ]
    streams += [StreamSpec(name=name, role="observation", shape=(64, 64, 3)) for name in ("front", "side")]
    streams.append(StreamSpec(name="action", role="action", shape=ACTION.shape))
    rows = {"observation": 82, "action": 80}
    recorded = Trajectories(
        spec=TrajectorySpec(streams=tuple(streams), control_hz=20.0),
        streams={s.name: rng.normal(0.3, 0.1, (rows[s.role], *s.shape)) for s in streams if not s.image},
        frames={s.name: rng.integers(0, 256, (82, 64, 64, 3), dtype=np.uint8) for s in streams if s.image},
        lengths=np.array([40, 40]),
        provenance={"source": "a test"},
    )
    write_store(recorded, folder / "arm.zarr")
    made = ("--data", folder / "arm.zarr", "--out", folder / "seeing")
    said = forcing("train generic --steps 2 --set denoiser.width=16", *made)
    assert said.code == 0, said.err
    return folder / "seeing"


class Still:
    """Holds the arm in the middle, and keeps what it was told."""

    name = "still"

    def __init__(self) -> None:
        self.told: list[Mapping[str, Array]] = []

    def begin(self, observation: Mapping[str, Array], seed: int) -> Trace:
        return Trace()

    def act(self, observation: Mapping[str, Array]) -> Array:
        self.told.append(observation)
        return np.asarray((ACTION.low + ACTION.high) / 2)

    def end(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture(scope="module")
def env() -> Iterator[Swap]:
    """One for all, as it takes a second to make."""
    env = Swap(cameras=True)
    yield env
    env.close()


def driven(env: Swap, handling: Handling, distractor: str = "soon") -> tuple[Episode, list[Mapping[str, Array]]]:
    driver = Still()
    under = Conditions(distractor=distractor, handling=handling, most_steps=STEPS)
    return drive_episode(env, TASK, driver, 0, 4, under), driver.told


def disturbed(episode: Episode) -> list[int]:
    """At which observations."""
    return [step for step, cameras in enumerate(episode.distracted) if cameras]


def test_a_disturbed_episode_is_the_same_as_without_and_frames_are_trusted_or_declared_as_missing(env: Swap) -> None:
    plain, clear = driven(env, "trusted", "")
    trusted, seen = driven(env, "trusted")
    declared, told = driven(env, "declared")
    for episode in (trusted, declared):
        np.testing.assert_array_equal(episode.positions, plain.positions)
        assert (episode.layout, disturbed(episode)) == (plain.layout, [FROM, FROM + 1, FROM + 2])
    assert disturbed(plain) == []
    for step in range(STEPS):
        now = FROM <= step < FROM + FOR
        np.testing.assert_array_equal(seen[step]["side"], cover("side") if now else clear[step]["side"])
        assert ("side" in told[step]) == (not now)
        np.testing.assert_array_equal(told[step]["front"], clear[step]["front"])


def test_a_policy_is_driven_alike_in_process_and_served_and_what_is_declared_changes_what_it_does(
    env: Swap, policy: Path
) -> None:
    handlings: tuple[Handling, ...] = ("trusted", "declared")
    under = {name: Conditions(distractor="soon", handling=name, most_steps=STEPS) for name in handlings}
    loaded = load_policy(str(policy))
    here = {name: drive_episode(env, TASK, PolicyDriver(loaded, TASK), 0, 4, under[name]) for name in handlings}
    with serving([loaded]) as url, closing(ServerDriver(url, "seeing", TASK)) as driver:
        for name in handlings:
            there = drive_episode(env, TASK, driver, 0, 4, under[name])
            np.testing.assert_array_equal(there.actions, here[name].actions)
            assert there.trace.sensors == here[name].trace.sensors
    assert not np.array_equal(here["trusted"].actions, here["declared"].actions)
    unheard = [sensors["side"].unheard_steps for sensors in here["declared"].trace.sensors]
    assert unheard == [0, 0, 1, 2, 3, 0]


def test_every_named_distractor_is_one_of_the_environments_and_a_run_has_all_grasps_and_cameras_alike() -> None:
    named = {name: [make(seed) for seed in range(6)] for name, make in DISTRACTORS.items() if name != "soon"}
    assert {name: each[0].kind for name, each in named.items()} == {
        "occlusion": "cover",
        "bag": "bag",
        "dead": "dead",
        "light": "light",
    }
    for name in ("occlusion", "bag"):
        assert [each.grasp for each in named[name]] == [1, 2, 3, 1, 2, 3]
        assert {(each.steps, each.cameras) for each in named[name]} == {(60, ("front", "side"))}
    assert [each.cameras for each in named["dead"]] == [("front",), ("side",)] * 3
    assert {each.steps for each in named["dead"] + named["light"]} == {None}


def test_the_report_says_what_disturbed_and_how_it_was_handled(
    policy: Path, tmp_path: Path, forcing: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forcing.eval.conditions.DETECTING", ("planner.replan_steps=2",))
    report = tmp_path / "report.json"
    said = forcing(
        f"eval swap-cameras --episodes 1 --workers 1 --most-steps {STEPS} --distractor soon --handling detected",
        "--policy", policy, "--report", report,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "cameras disturbed: soon, detected" in said.out
    found = json.loads(report.read_text())
    assert [found[key] for key in ("distractor", "handling")] == ["soon", "detected"]
    assert found["changed"] == ["planner.replan_steps=2"]
    assert found["episodes_detail"][0]["distracted_steps"] == FOR


def test_whoever_drives_under_detection_doubts_without_being_told_so_besides(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forcing.eval.conditions.DETECTING", ("planner.replan_steps=2",))
    loaded = load_policy(str(policy))
    trusting, doubting = (
        DriverSpec(policy=str(policy), under=Conditions(distractor="soon", handling=handling)).changed(loaded)
        for handling in ("trusted", "detected")
    )
    assert trusting is loaded
    assert doubting.preset.planner.replan_steps == 2


def test_what_cannot_be_disturbed_or_filmed_is_refused_in_a_line(forcing: Command, policy: Path) -> None:
    for line, message in (
        ("eval swap-cameras --policy expert --distractor bagg", "unknown distractor 'bagg'; did you mean 'bag'?"),
        ("eval swap --policy expert --distractor bag", "swap has no camera that could be disturbed"),
        ("eval maze2d-umaze-multi --distractor bag", "maze2d-umaze-multi has no camera that could be disturbed"),
        ("eval swap-cameras --policy expert --handling declared", "handling declared needs a distractor"),
        ("eval swap-cameras --policy expert --handling detected", "handling detected changes a policy in this process"),
        ("eval swap-cameras --url http://127.0.0.1:9 --handling detected", "serve with --set memory.doubt=true and"),
        ("eval swap-cameras --policy expert --set memory.doubt=true", "set changes a policy in this process"),
        ("eval maze2d-umaze-multi --film x.gif", "film must be left out: maze2d-umaze-multi is no arm"),
        ("eval swap --policy expert --film x.avi", "film must end in .gif or .mp4, got 'x.avi'"),
    ):
        said = forcing(line)
        assert (said.code, said.err.count("\n")) == (2, 1), said.err
        assert message in said.err


def test_a_film_shows_what_the_cameras_saw_and_filming_a_task_of_state_changes_nothing(env: Swap) -> None:
    task = find_task("swap")
    filmed = run_episode(task, Still(), 0, 4, Conditions(most_steps=3, filmed=1))
    plain = run_episode(task, Still(), 0, 4, Conditions(most_steps=3))
    np.testing.assert_array_equal(filmed.positions, plain.positions)
    assert (len(filmed.shots), len(plain.shots)) == (4, 0)
    observation, _ = env.reset(seed=4)
    np.testing.assert_array_equal(filmed.shots[0].frames["front"], observation["front"])
    red, blue = filmed.layout or ()
    assert filmed.shots[0].said == f"red: slot {red}, blue: slot {blue}"


def _shot(grey: int, success: bool, distracted: tuple[str, ...] = ()) -> Shot:
    frames = {name: np.full((64, 64, 3), grey, np.uint8) for name in ("front", "side")}
    return Shot(frames, "words", success, distracted)


def test_episodes_are_filmed_side_by_side_and_the_last_picture_says_whether_success_held(tmp_path: Path) -> None:
    held = Take("seed 1", [_shot(40 + 20 * step, step > 3) for step in range(9)], held=True)
    lost = Take("seed 2", [_shot(200, False, ("side",))] * 3, held=False)
    write_film([held, lost], 20.0, tmp_path / "new" / "film.gif")
    with Image.open(tmp_path / "new" / "film.gif") as film:
        first = np.asarray(film.convert("RGB")).astype(int)
        film.seek(film.n_frames - 1)  # type: ignore[attr-defined]
        last = np.asarray(film.convert("RGB")).astype(int)
    left, right = slice(8, 264), slice(280, 536)
    for picture, grey in ((first, 40), (last, 200)):
        front = picture[80:336, left]
        assert np.abs(front - grey).max() <= 8
    assert np.abs(first[90:330, right] - 200).max() <= 8
    assert _is(first[364, right], (185, 28, 28)), "a red frame around what is disturbed"
    assert not _is(first[82, right], (185, 28, 28))
    assert _is(last[46, left][-50:], (21, 128, 61))
    assert _is(last[46, right][-50:], (185, 28, 28))


def _is(pixels: Array, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixels - colour).max() <= 12)


def test_an_mp4_has_a_picture_a_control_step_and_holds_the_last(tmp_path: Path) -> None:
    write_film([Take("seed 1", [_shot(90, False)] * 9, held=False)], 20.0, tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.video[0].average_rate == 20
        frames = list(container.decode(video=0))
    assert len(frames) == 9 + 40
    assert frames[0].width % 16 == frames[0].height % 16 == 0
    with pytest.raises(ValueError, match="at least 1 episode"):
        write_film([], 20.0, tmp_path / "none.gif")


@pytest.mark.parametrize("name", ["cube-single", "cube-double", "metaworld", "fetch-push", "fetch-pick-and-place"])
def test_arms_without_cameras_are_filmed_as_they_are_rendered_which_changes_nothing(name: str) -> None:
    task = find_task(name)
    assert isinstance(task, ArmTask)
    filmed = run_episode(task, ExpertDriver(task), 0, 4, Conditions(most_steps=12, filmed=1))
    plain = run_episode(task, ExpertDriver(task), 0, 4, Conditions(most_steps=12))
    np.testing.assert_array_equal(filmed.positions, plain.positions)
    views = [shot.frames["view"] for shot in filmed.shots]
    assert {view.shape for view in views} == {(240, 240, 3)}
    moved = np.abs(views[-1].astype(int) - views[0]).max(axis=2) > 30
    assert 0.001 < moved.mean() < 0.5, "the arm, before what stands still"
