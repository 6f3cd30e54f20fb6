"""What is shown of sampling is what the planner did; the GIF holds each of its states still."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from forcing.eval.animation import BETWEEN_MS, LAST_MS, PASS_MS, animate_denoising
from forcing.eval.denoising import denoising_passes
from forcing.eval.tasks import find_maze
from forcing.policy.checkpoint import PolicyFile
from forcing.policy.denoiser import DenoiserConfig
from forcing.policy.network import build_denoiser
from forcing.policy.planner import PlannerConfig, PlanRequest
from forcing.policy.policy import Policy
from forcing.policy.preset import Preset
from forcing.policy.schedules import Schedule
from forcing.policy.search import SearchConfig
from forcing.policy.tokens import Normaliser, Tokenizer, TokenLayout
from forcing.policy.types import StreamSpec, TrajectorySpec

TASK = find_maze("maze2d-umaze-multi")
REQUEST = PlanRequest(
    step=0,
    frames={"position": np.full((2, 2), -0.5), "velocity": np.zeros((2, 2))},
    noise={},
    goal=np.array([0.8, 0.8]),
    seed=7,
)


def random_policy(planner: PlannerConfig, goal: str = "position") -> Policy:
    """Real classes, untrained weights; positions are in m around the middle of the maze."""
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(2,), units="m"),
            StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
            StreamSpec(name="height", role="observation", shape=(), units="m"),
            StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
        ),
        control_hz=100.0,
        goal=goal,
    )
    preset = Preset(
        name="tiny",
        layout=TokenLayout(token_steps=8, stride=4, history=1, horizon=5),
        denoiser=DenoiserConfig(width=16, depth=1, heads=2),
        planner=planner,
    )
    sizes = {stream.name: stream.size for stream in spec.streams}
    normaliser = Normaliser(
        mean={name: (0.0,) * size for name, size in sizes.items()},
        std={name: (0.5,) * size for name, size in sizes.items()},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build_denoiser(preset, Tokenizer(spec, preset.layout, normaliser)).state_dict()
    file = PolicyFile(preset=preset, spec=spec, normaliser=normaliser, weights=weights, card={}, revision="0" * 64)
    return Policy("tiny", file)


def held_frames(path: Path) -> list[tuple[int, Image.Image]]:
    """(milliseconds, picture) of the frames that are held still."""
    held = []
    with Image.open(path) as gif:
        for index in range(getattr(gif, "n_frames", 1)):
            gif.seek(index)
            if gif.info["duration"] > BETWEEN_MS:
                held.append((int(gif.info["duration"]), gif.convert("RGB")))
    return held


@pytest.mark.parametrize("kind", ["pyramid", "full_sequence", "autoregressive", "trapezoid"])
@pytest.mark.parametrize("goal", [np.array([0.8, 0.8]), None], ids=["goal", "no-goal"])
def test_levels_follow_the_scheduling_matrix_of_the_chosen_horizon(kind: str, goal: np.ndarray | None) -> None:
    schedule = Schedule(kind=kind, sampling_steps=3)  # type: ignore[arg-type]
    policy = random_policy(PlannerConfig(schedule=schedule, passes=None, samples=2))
    request = replace(REQUEST, goal=goal)
    plan, passes = policy.plan(request), denoising_passes(policy, request)
    tokens = len(plan.steps) // policy.preset.layout.frames
    np.testing.assert_array_equal([each.token_level for each in passes], schedule.matrix(tokens))


def test_sampling_starts_at_pure_noise_and_ends_at_the_plan_that_is_handed_out() -> None:
    policy = random_policy(PlannerConfig(passes=None))
    passes, plan = denoising_passes(policy, REQUEST), policy.plan(REQUEST)
    assert passes[0].guess is None
    assert (passes[0].level == 1).all()
    np.testing.assert_allclose(passes[-1].positions, plan.streams["position"], atol=1e-5)


def test_after_fewer_passes_the_far_future_stays_noise_and_its_guess_is_the_plan() -> None:
    schedule = Schedule(sampling_steps=2, uncertainty_scale=1.0)
    policy = random_policy(PlannerConfig(schedule=schedule, passes=4))
    request = replace(REQUEST, goal=None)
    last, plan = denoising_passes(policy, request)[-1], policy.plan(request)
    np.testing.assert_array_equal(last.token_level, [0, 0, 0, 0.5, 1])
    np.testing.assert_array_equal(last.level, plan.level.max(axis=1))
    assert last.guess is not None
    np.testing.assert_allclose(last.guess, plan.streams["position"])
    assert np.abs(last.positions[-2:] - last.guess[-2:]).max() > 0.05


def test_a_goal_that_is_no_place_in_the_plane_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'height' of shape \(\)"):
        denoising_passes(random_policy(PlannerConfig(), goal="height"), replace(REQUEST, goal=np.array(0.0)))


def test_the_animation_holds_as_many_states_as_the_scheduling_matrix_has_rows(tmp_path: Path) -> None:
    schedule = Schedule(kind="pyramid", sampling_steps=3, uncertainty_scale=1.0)
    policy = random_policy(PlannerConfig(schedule=schedule, passes=None))
    path = tmp_path / "new" / "denoising.gif"
    animate_denoising(policy, REQUEST, TASK, path)
    held = held_frames(path)
    tokens = len(policy.plan(REQUEST).steps) // policy.preset.layout.frames
    assert len(held) == len(schedule.matrix(tokens)) == 3 + tokens
    assert held[-1][0] == LAST_MS > max(ms for ms, _ in held[:-1]) >= PASS_MS
    assert len({picture.tobytes() for _, picture in held}) == len(held)
    assert held[0][1].width == 800
    assert path.stat().st_size < 1_500_000
    assert [entry.name for entry in path.parent.iterdir()] == ["denoising.gif"]


def test_the_mark_on_the_matrix_moves_down_one_row_a_pass(tmp_path: Path) -> None:
    policy = random_policy(PlannerConfig(schedule=Schedule(sampling_steps=4), passes=None))
    animate_denoising(policy, REQUEST, TASK, tmp_path / "denoising.gif")
    # The dark frame around a row is the longest dark line in the right third of the picture.
    tops = []
    for _, picture in held_frames(tmp_path / "denoising.gif"):
        pixels = np.asarray(picture)[:, 560:].astype(int)
        dark = (np.abs(pixels - [28, 36, 48]).max(axis=2) < 40).sum(axis=1)
        tops.append(int(np.flatnonzero(dark > 150)[0]))
    steps = np.diff(tops)
    assert (steps > 10).all()
    assert steps.max() - steps.min() <= 1


def test_noise_is_bright_at_first_and_the_plan_dark_in_the_end(tmp_path: Path) -> None:
    policy = random_policy(PlannerConfig(passes=None))
    animate_denoising(policy, REQUEST, TASK, tmp_path / "denoising.gif")
    share = {}
    for name, index in (("first", 0), ("last", -1)):
        maze = np.asarray(held_frames(tmp_path / "denoising.gif")[index][1])[110:580, 16:500].astype(int)
        bright = np.abs(maze - [253, 191, 41]).max(axis=2) < 16
        clean = np.abs(maze - [13, 8, 135]).max(axis=2) < 16
        share[name] = (int(bright.sum()), int(clean.sum()))
    assert share["first"][0] > 40
    assert share["first"][1] == 0
    assert share["last"][0] == 0
    assert share["last"][1] > 100


def test_an_animation_without_goal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goal must be given"):
        animate_denoising(random_policy(PlannerConfig()), replace(REQUEST, goal=None), TASK, tmp_path / "x.gif")


def test_a_plan_that_was_searched_for_has_no_one_sample_to_show() -> None:
    policy = random_policy(PlannerConfig(search=SearchConfig()))
    with pytest.raises(
        ValueError, match=r"planner\.search, refine and polish must be None, keep False and attempts 1, to show how"
    ):
        denoising_passes(policy, REQUEST)
