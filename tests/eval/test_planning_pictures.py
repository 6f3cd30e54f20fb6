"""What the pictures of planning show, against recordings and plans drawn by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from forcing.datasets.store import write_store
from forcing.eval.plan_picture import Anatomy, dissect
from forcing.eval.planning_pictures import draw_plan_of_episode, make_pictures, with_ends
from forcing.eval.recording_picture import draw_recordings, shown_episodes, speeds_of
from forcing.eval.rollout import first_request
from forcing.eval.tasks import find_maze
from forcing.policy.checkpoint import PolicyFile, save_policy
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.network import build_denoiser
from forcing.policy.planner import PlannerConfig
from forcing.policy.policy import FILE_NAME, Policy
from forcing.policy.polishing import PolishConfig
from forcing.policy.preset import Preset
from forcing.policy.refinement import RefineConfig
from forcing.policy.search import SearchConfig
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import Plan, StreamSpec, Trajectories, TrajectorySpec
from forcing.policy.world import fit_world

TASK = find_maze("maze2d-umaze-multi")
SPEC = TrajectorySpec(
    streams=(
        StreamSpec(name="position", role="observation", shape=(2,), units="m"),
        StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
        StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    ),
    control_hz=100.0,
    goal="position",
)
VISITED, CONTACT = (219, 231, 243), (240, 165, 143)


def room(wall: float = 9.0) -> Trajectories:
    """60 drives of a point mass to places around the middle of the maze, the last one to the right: where it meets a
    wall at x = `wall` it turns round."""
    rng = np.random.default_rng(0)
    goals = np.concatenate([rng.uniform(-0.6, 0.6, (59, 2)), [[1.2, 0.0]]])
    positions, velocities, actions = [], [], []
    for goal in goals:
        x, v = rng.uniform(-0.6, 0.6, 2), np.zeros(2)
        positions.append(x)
        velocities.append(v)
        for _ in range(150):
            u = np.clip(3 * (goal - x) - v + rng.normal(0, 0.3, 2), -1, 1)
            v = 0.99 * v + 0.2 * u
            x = x + 0.01 * v
            if x[0] > wall:
                x, v, goal = np.array([wall, x[1]]), np.array([0.0, v[1]]), -goal
            positions.append(x)
            velocities.append(v)
            actions.append(u)
    streams = {"position": np.array(positions), "velocity": np.array(velocities), "action": np.array(actions)}
    return Trajectories(spec=SPEC, streams=streams, lengths=np.full(60, 150))


@pytest.fixture(scope="module")
def recorded() -> Trajectories:
    return room()


@pytest.fixture(scope="module")
def policy_file(recorded: Trajectories) -> PolicyFile:
    """Real classes, untrained weights, the room's dynamics and places."""
    return file_of(recorded, PlannerConfig(samples=2))


def file_of(recorded: Trajectories, planner: PlannerConfig) -> PolicyFile:
    layout = TokenLayout(token_steps=8, stride=4, history=1, horizon=4)
    preset = Preset(name="tiny", layout=layout, denoiser=DenoiserConfig(width=16, depth=1, heads=2), planner=planner)
    normaliser = Normaliser.fit(recorded)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build_denoiser(preset, Tokenizer(SPEC, layout, normaliser)).state_dict()
    world = fit_world(recorded)
    return PolicyFile(
        preset=preset, spec=SPEC, normaliser=normaliser, weights=weights, card={}, world=world, revision="0" * 64
    )


def read(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


def count(pixels: NDArray[np.int64], color: tuple[int, ...]) -> int:
    return int((np.abs(pixels - color).max(axis=-1) <= 2).sum())


def test_speeds_are_distances_by_time_and_none_leads_from_one_episode_to_the_next() -> None:
    positions = np.array([[0.0, 0.0], [0.03, 0.04], [0.03, 0.05], [9.0, 9.0], [9.0, 9.02]])
    streams = {"position": positions, "velocity": np.zeros((5, 2)), "action": np.zeros((3, 2))}
    recording = Trajectories(spec=SPEC, streams=streams, lengths=np.array([2, 1]))
    assert speeds_of(recording) == pytest.approx([5.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("lengths", "steps", "expected"),
    [([100] * 50, 500, [0, 12, 24, 36, 49]), ([100] * 3, 5000, [0, 1, 2]), ([9000, 9000], 5000, [0])],
)
def test_episodes_are_drawn_from_all_over_the_recording(lengths: list[int], steps: int, expected: list[int]) -> None:
    assert shown_episodes(np.array(lengths), steps).tolist() == expected


def test_places_where_something_was_touched_are_marked_and_only_there(tmp_path: Path) -> None:
    draw_recordings(TASK.floor_plan(), {"stopped": room(wall=0.9)}, tmp_path / "stopped.png")
    draw_recordings(TASK.floor_plan(), {"free": room()}, tmp_path / "free.png")
    stopped, free = read(tmp_path / "stopped.png"), read(tmp_path / "free.png")
    # The key has a patch of each colour, as large in both.
    assert count(stopped, CONTACT) > count(free, CONTACT) + 100
    assert count(free, VISITED) > 20 * count(free, CONTACT)


def test_without_recordings_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 recording is needed"):
        draw_recordings(TASK.floor_plan(), {}, tmp_path / "none.png")


def test_a_plan_is_taken_apart_into_its_sample_its_tokens_and_its_rivals(policy_file: PolicyFile) -> None:
    policy = Policy("tiny", policy_file)
    request = first_request(TASK, policy, seed=3)
    anatomy, plan = dissect(policy, request), policy.plan(request)
    assert anatomy.plan.costs.tolist() == plan.costs.tolist()
    assert anatomy.horizons.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    tokens = anatomy.horizons[plan.chosen]
    assert anatomy.ends.tolist() == [2, 4, 6, 8][:tokens]  # tokens of 8 steps, a frame every 4
    assert anatomy.sampled.shape == anatomy.path.shape == (2 * tokens + 1, 2)
    # Rehearsal moves what the network made up; nobody moves where the robot is.
    assert anatomy.sampled[0] == pytest.approx(anatomy.path[0])
    assert np.abs(anatomy.sampled - anatomy.path).max() > 0.01


def test_what_nobody_rehearses_is_handed_out_as_it_was_sampled(policy_file: PolicyFile) -> None:
    policy = Policy("tiny", policy_file).using(planner=PlannerConfig(samples=2, rehearse=False))
    anatomy = dissect(policy, first_request(TASK, policy, seed=3))
    assert np.array_equal(anatomy.sampled, anatomy.path)


@pytest.mark.parametrize(("tolerance", "sound"), [(1e6, True), (1e-6, False)])
def test_candidates_are_sound_where_rules_are_loose_and_not_where_none_can_be_kept(
    policy_file: PolicyFile, tolerance: float, sound: bool
) -> None:
    loose = PlannerConfig(samples=2, kinematic_tolerance=tolerance, end_tolerance=tolerance)
    policy = Policy("tiny", policy_file).using(planner=loose)
    assert dissect(policy, first_request(TASK, policy, seed=3)).sound.tolist() == [sound] * 8


def test_the_roughest_joint_is_the_one_after_which_the_sample_is_furthest_off() -> None:
    path = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    plan = Plan(
        made_at_step=0,
        start={"position": path[0]},
        steps=np.arange(4, 36, 4),
        streams={"position": path[1:]},
        level=np.zeros((8, 3)),
        spread={},
        candidates=path[None, 1:],
        costs=np.zeros(1),
        chosen=0,
        feasible=True,
        passes=3,
    )
    sampled = path.copy()
    sampled[3], sampled[5], sampled[8] = [3.0, 0.2], [5.0, -0.3], [8.0, 2.0]
    one = {"plan": plan, "sampled": sampled, "sound": np.ones(1, bool), "horizons": np.array([4])}
    assert Anatomy(**one, ends=np.array([2, 4, 6, 8])).roughest == 4  # type: ignore[arg-type]  # between frames 4 and 5
    assert Anatomy(**one, ends=np.array([8])).roughest == 8  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["search", "refine", "polish"])
def test_a_plan_that_is_no_sample_as_it_came_is_refused(recorded: Trajectories, part: str) -> None:
    improved = {"search": SearchConfig(budget=2), "refine": RefineConfig(), "polish": PolishConfig()}[part]
    policy = Policy("tiny", file_of(recorded, PlannerConfig(samples=1, **{part: improved})))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"planner\.search, refine and polish must be None, keep False and attempts 1"):
        dissect(policy, first_request(TASK, policy, seed=3))


def test_now_and_the_goal_stand_clean_beside_the_plan() -> None:
    matrix = np.array([[1.0, 1.0], [0.5, 1.0], [0.0, 0.5]], dtype=np.float32)
    assert with_ends(matrix).tolist() == [[0.0, 1.0, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.5, 0.0]]


def test_all_pictures_come_from_one_command_and_the_same_ones_again(
    recorded: Trajectories, policy_file: PolicyFile, tmp_path: Path
) -> None:
    file, folder = policy_file, tmp_path / "tiny"
    folder.mkdir()
    save_policy(folder / FILE_NAME, file.preset, file.spec, file.normaliser, file.weights, {"task": "t"}, file.world)
    store = str(write_store(recorded, tmp_path / "recorded.zarr"))
    make_pictures(str(folder), store, store, task=TASK.name, seed=3, out=tmp_path / "new")
    drawn = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in drawn] == ["planning-dream.png", "planning-levels.png", "planning-plan.png"]
    assert all(read(path).shape[1] == 1600 for path in drawn)
    draw_plan_of_episode(TASK, Policy("tiny", policy_file), 3, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == drawn[2].read_bytes()
