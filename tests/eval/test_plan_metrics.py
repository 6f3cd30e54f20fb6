"""Figures of plans drawn by hand: jumps, walls and arrivals that can be read off a sketch."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from forcing.envs.floor_plan import FloorPlan
from forcing.eval.drivers import Trace
from forcing.eval.plan_metrics import measure_plan, measure_plans, plan_jumps, predicted_steps, wall_depth
from forcing.eval.rollout import Episode
from forcing.eval.tasks import find_maze
from forcing.policy.types import Array, Plan

HZ = 100.0
UMAZE = find_maze("maze2d-umaze-multi")  # free: a U of 1 m cells around the wall at its centre


def _plan(
    steps: Sequence[int],
    positions: Sequence[Sequence[float]],
    velocities: Sequence[Sequence[float]] | None,
    at: int = 0,
) -> Plan:
    """The first of `positions` and `velocities` is where the plan begins."""
    streams: dict[str, Array] = {"position": np.array(positions[1:], dtype=np.float64)}
    start: dict[str, Array] = {"position": np.array(positions[0], dtype=np.float64)}
    if velocities is not None:
        streams["velocity"] = np.array(velocities[1:], dtype=np.float64)
        start["velocity"] = np.array(velocities[0], dtype=np.float64)
    spread: Mapping[str, Array] = {name: np.zeros_like(values) for name, values in streams.items()}
    return Plan(
        made_at_step=at,
        start=start,
        steps=np.array(steps),
        streams=streams,
        level=np.zeros((len(steps), len(streams))),
        spread=spread,
        candidates=streams["position"][None],
        costs=np.array([50.0, 40.0]),
        chosen=1,
        feasible=True,
        passes=1,
    )


def _constant_speed(count: int) -> tuple[list[list[float]], list[list[float]]]:
    """From (-0.995, 1) to the right at 1 m/s, a frame every 4 steps of 0.01 s."""
    return [[-0.995 + 0.04 * index, 1.0] for index in range(count + 1)], [[1.0, 0.0]] * (count + 1)


def _episode(plans: Sequence[Plan], steps_to_goal: int | None, token_steps: int | None = 8) -> Episode:
    return Episode(
        index=0,
        seed=0,
        episode_return=0.0,
        normalized=0.0,
        success=steps_to_goal is not None,
        steps_to_goal=steps_to_goal,
        goal=np.array([0.0, 1.0]),
        positions=np.zeros((2, 2)),
        actions=np.zeros((1, 2), dtype=np.float32),
        trace=Trace(plans=list(plans), token_steps=token_steps),
    )


def test_a_plan_that_obeys_its_velocities_has_no_jump_and_a_displaced_frame_jumps_by_how_far_it_is_displaced() -> None:
    positions, velocities = _constant_speed(4)
    smooth = _plan([4, 8, 12, 16], positions, velocities)
    np.testing.assert_allclose(plan_jumps(smooth, HZ, 1.0), 0, atol=1e-12)
    for frame in positions[3:]:  # all from the second token on, 0.3 m off
        frame[1] -= 0.3
    figures = measure_plan(UMAZE, _plan([4, 8, 12, 16], positions, velocities), np.array([9.0, 9.0]), token_steps=8)
    assert figures.joint_jump_m == pytest.approx(0.3)
    assert figures.inner_jump_m == pytest.approx(0)


def test_a_jump_inside_a_token_is_not_one_at_a_joint() -> None:
    positions, velocities = _constant_speed(4)
    positions[2:] = [[x, y - 0.2] for x, y in positions[2:]]
    figures = measure_plan(UMAZE, _plan([4, 8, 12, 16], positions, velocities), np.array([9.0, 9.0]), token_steps=8)
    assert figures.joint_jump_m == pytest.approx(0)
    assert figures.inner_jump_m == pytest.approx(0.2)


def test_velocities_count_by_the_trapezoid_rule() -> None:
    # 2 m/s² from rest: v = 2 t, x = t²; the rule is exact.
    times = [0.04 * index for index in range(4)]
    plan = _plan([4, 8, 12], [[t * t, 0] for t in times], [[2 * t, 0] for t in times])
    np.testing.assert_allclose(plan_jumps(plan, HZ, 1.0), 0, atol=1e-12)


def test_without_velocities_a_jump_is_what_a_step_has_over_the_fastest() -> None:
    plan = _plan([4, 8], [[0, 0], [0.3, 0.4], [1.0, 0.4]], None)
    np.testing.assert_allclose(plan_jumps(plan, HZ, 0.15), [0, 0.1], atol=1e-12)


def test_wall_depth_is_the_distance_to_the_nearest_free_cell() -> None:
    # A corridor of two free cells, 2 m each, along the bottom; x from -3 on, y from 10 on.
    plan = FloorPlan(cells=[[1, 1, 1], [0, 0, 1]], cell_m=2, left_m=-3, bottom_m=10, goal_radius_m=0.5)
    places = [[-2.0, 11.0], [-1.0, 12.0], [0.0, 12.7], [1.3, 11.0], [1.3, 12.4], [-3.2, 11.0]]
    np.testing.assert_allclose(wall_depth(plan, np.array(places)), [0, 0, 0.7, 0.3, 0.5, 0.2])


def test_a_plan_that_steps_over_a_wall_between_two_frames_is_seen_to_cut_it() -> None:
    # The wall between the arms of the U spans y from -0.5 to 0.5, x from -1.5 to 0.5: its middle is 0.5 m deep.
    over = measure_plan(UMAZE, _plan([4], [[-0.5, 1.0], [-0.5, -1.0]], None), np.array([9.0, 9.0]), token_steps=8)
    assert over.wall_depth_m == pytest.approx(0.5, abs=0.02)
    around = [[-0.5, 1.0], [1.0, 1.0], [1.0, -1.0], [-0.5, -1.0]]
    free = measure_plan(UMAZE, _plan([4, 8, 12], around, None), np.array([9.0, 9.0]), token_steps=8)
    assert free.wall_depth_m == 0


def test_arrival_is_the_first_control_step_within_the_radius_between_frames_too() -> None:
    # 0.1 m a step towards a goal 2 m away: 0.5 m off after 15 steps, within a frame that ends at step 16.
    plan = _plan([8, 16, 24], [[0, 0], [0.8, 0], [1.6, 0], [2.4, 0]], None)
    assert predicted_steps(plan, np.array([2.0, 0.0]), 0.500001) == 15
    assert predicted_steps(plan, np.array([2.0, 0.0]), 0.399999) == 17
    assert predicted_steps(plan, np.array([0.0, 5.0]), 0.5) is None


def test_an_episode_is_summed_up_by_its_first_plan_and_by_all() -> None:
    # To the goal at (0, 1) at 0.01 m a step from 0.995 m off: within 0.5 m after 50 steps. Then from below, 0.05 m a
    # step, through the wall: within 0.5 m at the height of 1 - sqrt(0.5² - 0.35²) = 0.643 m, after 33 steps.
    positions, velocities = _constant_speed(20)
    first = _plan([4 * i for i in range(1, 21)], positions, velocities)
    second = _plan([40], [[-0.35, -1.0], [-0.35, 1.0]], [[0.0, 5.0], [0.0, 5.0]], at=32)
    summary = measure_plans(UMAZE, [_episode([first, second], steps_to_goal=60)])
    assert summary is not None
    assert summary["limit_steps"] == 43
    assert (summary["first"]["plans"], summary["all"]["plans"]) == (1, 2)
    assert (summary["first"]["crossing_share"], summary["all"]["crossing_share"]) == (0.0, 0.5)
    assert summary["first"]["predicted_steps_mean"] == 50
    assert summary["first"]["prediction_error_mean"] == -10
    # From the second on 60 - 32 = 28 were taken.
    assert summary["all"]["prediction_error_mean"] == (-10 + 5) / 2
    assert summary["all"]["prediction_error_abs_mean"] == (10 + 5) / 2
    assert summary["all"]["joint_jump_m"]["max"] == pytest.approx(0, abs=1e-9)
    assert summary["first"]["cost_mean"] == 40.0
    assert [figure["predicted_steps"] for figure in summary["detail"]] == [50]


def test_plans_made_after_arrival_and_episodes_that_never_arrive_do_not_count_as_predictions() -> None:
    positions, velocities = _constant_speed(20)
    steps = [4 * i for i in range(1, 21)]
    late, never = _plan(steps, positions, velocities, at=60), _plan(steps, positions, velocities)
    summary = measure_plans(UMAZE, [_episode([late], steps_to_goal=60), _episode([never], steps_to_goal=None)])
    assert summary is not None
    assert summary["first"]["arriving_share"] == 1.0
    assert summary["first"]["prediction_error_mean"] is None


def test_without_plans_or_without_knowing_tokens_there_are_no_figures() -> None:
    positions, velocities = _constant_speed(1)
    assert measure_plans(UMAZE, [_episode([], None)]) is None
    assert measure_plans(UMAZE, [_episode([_plan([4], positions, velocities)], None, token_steps=None)]) is None
