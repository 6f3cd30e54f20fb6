"""Plans to actions, by hand, on a straight plan along x at 1 m/s, a tenth of a metre a step, made at step 10:

steps from then     0     4     8    12
x in m              0    .4    .8   1.2
action              -     1     2     3
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.tracker import Tracker, TrackerConfig
from forcing.policy.types import Array, Plan, TrajectorySpec

PURSUIT = TrackerConfig(kind="pursuit", lookahead_steps=4, position_gain=10.0, velocity_gain=1.0, chunk_steps=3)
PD, ACTIONS = replace(PURSUIT, kind="pd"), replace(PURSUIT, kind="actions")
START = {"position": np.zeros(2), "velocity": np.array([1.0, 0.0])}


def _along_x(*values: float) -> NDArray[np.float64]:
    return np.stack([np.array(values), np.zeros(len(values))], axis=-1)


def _plan(*x: float, speed: float = 1.0) -> Plan:
    frames = len(x)
    streams = {
        "position": _along_x(*x),
        "velocity": np.tile([speed, 0.0], (frames, 1)),
        "action": _along_x(*range(1, frames + 1)),
    }
    return Plan(
        made_at_step=10,
        start=START,
        steps=4 * np.arange(1, frames + 1),
        streams=streams,
        level=np.zeros((frames, 3)),
        spread={name: np.zeros((frames, 2)) for name in streams},
        candidates=_along_x(*x)[None],
        costs=np.zeros(1),
        chosen=0,
        feasible=True,
        passes=1,
    )


LINE = _plan(0.4, 0.8, 1.2)


def _seen(x: float, y: float = 0.0, speed: float = 0.0) -> dict[str, Array]:
    return {"position": np.array([x, y]), "velocity": np.array([speed, 0.0])}


def test_pursuit_steers_to_the_point_a_lookahead_after_the_nearest_and_brakes(spec: TrajectorySpec) -> None:
    chunk, frame = Tracker(PURSUIT, spec, LINE).chunk(_seen(0.2, 0.1, 0.5), 11)
    # Nearest is (.2, 0) at 2, so that (.6, 0) at 6 is pursued; then, as planned, at 1 m/s from .3 to .7, from .4 to .8.
    np.testing.assert_allclose(chunk, [[10 * 0.4 - 0.5, 10 * -0.1], [10 * 0.4 - 1, 0], [10 * 0.4 - 1, 0]], atol=1e-12)
    assert frame == 0


def test_pursuit_lets_the_plans_timing_go(spec: TrajectorySpec) -> None:
    early, _ = Tracker(PURSUIT, spec, LINE).chunk(_seen(0.5), 10)
    late, frame = Tracker(PURSUIT, spec, LINE).chunk(_seen(0.5), 30)
    assert np.array_equal(early, late)
    assert frame == 1


def test_pursuit_never_goes_back_along_the_plan(spec: TrajectorySpec) -> None:
    tracker = Tracker(PURSUIT, spec, LINE)
    tracker.chunk(_seen(0.8), 18)
    pushed_back, frame = tracker.chunk(_seen(0.2), 19)
    np.testing.assert_allclose(pushed_back[0], [10 * (1.2 - 0.2), 0])
    assert frame == 1


def test_pursuit_stays_on_its_branch_where_a_plan_comes_back_near_itself(spec: TrajectorySpec) -> None:
    there_and_back = _plan(0.4, 0.8, 0.8, 0.4, 0.0)
    there_and_back.streams["position"][2:, 1] = 0.1
    tracker = Tracker(replace(PURSUIT, lookahead_steps=3), spec, there_and_back)
    # Nearer to the way back at 17 than to the way there at 3, but it cannot be there yet: (.6, 0) at 6 is pursued.
    chunk, frame = tracker.chunk(_seen(0.3, 0.06), 13)
    np.testing.assert_allclose(chunk[0], [10 * 0.3, 10 * -0.06], atol=1e-12)
    assert frame == 0


def test_pd_follows_planned_places_and_velocities_at_the_planned_times(spec: TrajectorySpec) -> None:
    chunk, frame = Tracker(PD, spec, LINE).chunk(_seen(0.2, 0.1, 0.5), 15)
    # Step 5 of the plan: wanted at 6 are .6 and 1 m/s. What follows supposes that the robot is where it should be.
    np.testing.assert_allclose(chunk, [[10 * 0.4 + 0.5, 10 * -0.1], [10 * 0.1, 0], [10 * 0.1, 0]], atol=1e-12)
    assert frame == 1


def test_planned_actions_are_played_from_the_frame_before_to_their_own(spec: TrajectorySpec) -> None:
    tracker = Tracker(ACTIONS, spec, LINE)
    for step, actions in ((10, [1, 1, 1]), (13, [1, 2, 2]), (17, [2, 3, 3]), (40, [3, 3, 3])):
        chunk, frame = tracker.chunk(_seen(9.0), step)
        assert chunk.tolist() == _along_x(*actions).tolist()
        assert frame == actions[0] - 1


@pytest.mark.parametrize("config", [PURSUIT, PD])
@pytest.mark.parametrize("over", [22, 23, 400])
def test_when_the_plan_is_over_its_last_frame_is_held_and_nothing_beyond_it_sought(
    spec: TrajectorySpec, config: TrackerConfig, over: int
) -> None:
    tracker = Tracker(config, spec, LINE)
    for x in (0.4, 0.8, 1.2):
        tracker.chunk(_seen(x), 10 + round(10 * x))
    assert tracker.chunk(_seen(1.2), over)[0].tolist() == np.zeros((3, 2)).tolist()
    off_course, frame = tracker.chunk(_seen(1.5, -0.1, 0.5), over)
    np.testing.assert_allclose(off_course[0], [10 * (1.2 - 1.5) - 0.5, 10 * 0.1], atol=1e-12)
    assert frame == 2


def test_without_a_stream_of_velocities_positions_alone_are_followed(spec: TrajectorySpec) -> None:
    streams = tuple(replace(stream, rate_of=None) for stream in spec.streams)
    chunk, _ = Tracker(PURSUIT, replace(spec, streams=streams), LINE).chunk(_seen(0.2, 0.1, 0.5), 12)
    np.testing.assert_allclose(chunk, [[4, -1], [4, 0], [4, 0]], atol=1e-12)


@pytest.mark.parametrize("config", [PURSUIT, PD])
def test_without_a_goal_stream_only_planned_actions_can_be_played(spec: TrajectorySpec, config: TrackerConfig) -> None:
    aimless = replace(spec, goal=None)
    with pytest.raises(ValueError, match=f"a {config.kind} tracker needs a goal stream to follow; use kind 'actions'"):
        Tracker(config, aimless, LINE)
    assert Tracker(ACTIONS, aimless, LINE).chunk(_seen(0), 10)[0].tolist() == [[1, 0]] * 3


@pytest.mark.parametrize("config", [PURSUIT, PD])
def test_actions_of_another_size_than_the_goal_cannot_be_made_from_places(
    spec: TrajectorySpec, config: TrackerConfig
) -> None:
    streams = tuple(replace(s, shape=(1,), low=None, high=None) if s.role == "action" else s for s in spec.streams)
    with pytest.raises(ValueError, match=r"needs an action of the goal stream's size 2, got 1; use kind 'actions'"):
        Tracker(config, replace(spec, streams=streams), LINE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "wish"}, "kind must be pursuit, pd, feedback, actions, got 'wish'"),
        ({"lookahead_steps": 0}, "lookahead_steps must be at least 1, got 0"),
        ({"chunk_steps": 0}, "chunk_steps must be at least 1, got 0"),
    ],
)
def test_a_tracker_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrackerConfig(**fields)  # type: ignore[arg-type]
