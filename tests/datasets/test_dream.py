"""Dreams against the worlds that they are dreamed from: a cart, rooms, the real Maze2D; and what cannot be dreamed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.datasets.dream import DreamConfig, dream
from forcing.envs.demonstrations import collect
from forcing.envs.maze2d import point_maze
from forcing.policy.mpc import MpcConfig
from forcing.policy.support import fastest_step
from forcing.policy.types import StreamSpec, Trajectories, TrajectorySpec

HZ = 10.0
QUICK = DreamConfig(steps=2000, robots=16, controller=MpcConfig(sequences=32))
LIMITS: dict[str, tuple[float, ...]] = {"low": (-1.0,), "high": (1.0,)}


def recording(
    episodes: list[dict[str, NDArray[np.float64]]], limits: dict[str, tuple[float, ...]] | None = None
) -> Trajectories:
    """Of episodes of `position` and other observations [L + 1, n] and `push` [L, m]."""
    streams = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    size = streams["push"].shape[1]
    bounds = {name: value * size for name, value in (LIMITS if limits is None else limits).items()}
    spec = TrajectorySpec(
        streams=tuple(
            StreamSpec(name=name, role="action", shape=(size,), **bounds)
            if name == "push"
            else StreamSpec(name=name, role="observation", shape=values.shape[1:])
            for name, values in streams.items()
        ),
        control_hz=HZ,
        goal="position",
    )
    lengths = np.array([len(episode["push"]) for episode in episodes])
    return Trajectories(spec=spec, streams=streams, lengths=lengths, provenance={"source": "test"})


def carts(count: int = 60, steps: int = 60) -> list[dict[str, NDArray[np.float64]]]:
    """x' = x + v / 10, v' = v + u / 10, pushed to random places by a careful driver."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(count):
        goal, state, states, pushes = rng.uniform(-1, 1), np.array([rng.uniform(-1, 1), 0.0]), [], []
        for _ in range(steps):
            states.append(state)
            pushes.append(np.clip([2 * (goal - state[0]) - 3 * state[1] + rng.normal(0, 0.2)], -1, 1))
            state = state + 0.1 * np.array([state[1], pushes[-1][0]])
        rows = np.array([*states, state])
        episodes.append({"position": rows[:, :1], "velocity": rows[:, 1:], "push": np.array(pushes)})
    return episodes


@pytest.fixture(scope="module")
def cart() -> Trajectories:
    return recording(carts())


@pytest.fixture(scope="module")
def dreamed(cart: Trajectories) -> Trajectories:
    return dream(cart, QUICK, seed=0)


def test_every_dreamed_step_is_one_that_the_cart_takes(dreamed: Trajectories) -> None:
    for index in range(len(dreamed.lengths)):
        episode = dreamed.episode(index)
        position, velocity, push = episode["position"], episode["velocity"], episode["push"]
        np.testing.assert_allclose(position[1:], position[:-1] + 0.1 * velocity[:-1], atol=1e-5)
        np.testing.assert_allclose(velocity[1:], velocity[:-1] + 0.1 * push, atol=1e-5)
        assert np.abs(push).max() <= 1.0


def test_a_dream_has_the_steps_it_was_asked_for_the_streams_of_its_recording_and_says_where_it_is_from(
    cart: Trajectories, dreamed: Trajectories
) -> None:
    assert int(dreamed.lengths.sum()) >= QUICK.steps
    assert dreamed.spec == cart.spec
    assert dreamed.provenance["dreamed_from"] == {"source": "test"}
    assert dreamed.provenance["dream"]["seed"] == 0
    told: list[int] = []
    dream(cart, replace(QUICK, steps=500), 0, told.append)
    assert told == sorted(told)
    assert told[-1] == 500


def test_the_same_seed_dreams_the_same_and_another_does_not(cart: Trajectories) -> None:
    short = replace(QUICK, steps=300)
    one, again, other = (dream(cart, short, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.streams["position"], again.streams["position"])
    np.testing.assert_array_equal(one.lengths, again.lengths)
    assert one.streams["position"][0] != other.streams["position"][0]


def test_a_dreamed_cart_is_faster_than_the_recorded_one_and_keeps_to_where_that_was(
    cart: Trajectories, dreamed: Trajectories
) -> None:
    recorded, faster = (np.abs(data.streams["velocity"]) for data in (cart, dreamed))
    assert np.median(faster) > 2 * np.median(recorded)
    room = QUICK.room_steps * fastest_step(cart)
    low, high = cart.streams["position"].min() - room, cart.streams["position"].max() + room
    beyond = (dreamed.streams["position"] < low) | (dreamed.streams["position"] > high)
    assert beyond.mean() < 0.05


def test_who_stops_stays_and_who_does_not_passes_at_speed(cart: Trajectories) -> None:
    # The noise-free last quarter of a second, of those that had time to get there.
    def speed_at_end(stops: float) -> float:
        found = dream(cart, replace(QUICK, steps=2500, stops=stops, noise=0.0, stay_steps=40), seed=1)
        ends = [np.abs(found.episode(int(i))["velocity"][-3:]).mean() for i in np.flatnonzero(found.lengths > 30)]
        return float(np.median(ends))

    # Who stays may have just arrived when the next goal is given; passing is several times as fast.
    assert speed_at_end(1.0) < speed_at_end(0.0) / 3
    assert speed_at_end(0.0) > 0.3


def test_an_episode_begins_where_another_ended(dreamed: Trajectories) -> None:
    starts, ends = (
        {tuple(np.concatenate([e["position"][row], e["velocity"][row]]).tolist()) for e in episodes}
        for row, episodes in ((0, _episodes(dreamed)), (-1, _episodes(dreamed)))
    )
    # But the first of each robot begins where the recording was.
    assert len(starts - ends) == QUICK.robots


def _episodes(trajectories: Trajectories) -> list[dict[str, NDArray[np.float64]]]:
    return [trajectories.episode(index) for index in range(len(trajectories.lengths))]


def rooms(*where: tuple[float, int]) -> Trajectories:
    """Random walks of (left side, episodes) in rooms one metre wide; the walker has no inertia."""
    rng = np.random.default_rng(0)
    episodes = []
    for left, count in where:
        for _ in range(count):
            push, position = rng.uniform(-1, 1, (100, 2)), [np.array([left, 0.0]) + rng.uniform(0, 1, 2)]
            for step in range(100):
                # Turned back at the walls by pushing the other way, so that x' = x + u / 10 always.
                beyond = np.abs(position[-1] + push[step] / 10 - [left + 0.5, 0.5]) > 0.5
                push[step, beyond] *= -1
                position.append(position[-1] + push[step] / 10)
            episodes.append({"position": np.array(position), "push": push})
    return recording(episodes)


def test_of_rooms_that_do_not_hang_together_the_larger_is_dreamed_in() -> None:
    found = dream(rooms((0.0, 5), (5.0, 30)), replace(QUICK, steps=1000), seed=0)
    assert found.streams["position"][:, 0].min() > 4.5


def test_a_dreamed_maze_window_ends_where_the_real_simulator_ends() -> None:
    shards = collect("umaze", steps=20_000, seed=0, workers=1)
    episodes = [
        {
            "position": np.asarray(episode["observations"]["observation"])[:, :2].astype(np.float64),
            "velocity": np.asarray(episode["observations"]["observation"])[:, 2:].astype(np.float64),
            "push": np.asarray(episode["actions"]).astype(np.float64),
        }
        for shard in shards
        for episode in shard
    ]
    found = dream(recording(episodes), replace(QUICK, controller=MpcConfig()), seed=0)
    env, rng, missed = point_maze("umaze"), np.random.default_rng(0), []
    env.reset(seed=0)
    long = np.flatnonzero(found.lengths >= 32)
    for _ in range(60):
        episode = found.episode(int(rng.choice(long)))
        start = int(rng.integers(0, len(episode["push"]) - 31))
        env.point_env.set_state(
            episode["position"][start].astype(np.float64), episode["velocity"][start].astype(np.float64)
        )
        for push in episode["push"][start : start + 32]:
            observation, *_ = env.point_env.step(push)
        missed.append(np.linalg.norm(observation[:2] - episode["position"][start + 32]))
    env.close()
    assert np.mean(np.array(missed) < 0.01) > 0.9


def pendulums() -> Trajectories:
    """Swung right over the top: the torque of gravity is no linear function of the angle."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(60):
        angle, speed, angles, speeds, pushes = rng.uniform(-3, 3), rng.uniform(-3, 3), [], [], []
        for _ in range(60):
            angles.append(angle)
            speeds.append(speed)
            pushes.append(rng.uniform(-1, 1))
            speed = speed + 0.1 * (-10 * np.sin(angle) + pushes[-1])
            angle = angle + 0.1 * speed
        rows = np.array([[*angles, angle], [*speeds, speed]]).T
        episodes.append({"position": rows[:, :1], "velocity": rows[:, 1:], "push": np.array(pushes)[:, None]})
    return recording(episodes)


def without(trajectories: list[dict[str, NDArray[np.float64]]], name: str) -> list[dict[str, NDArray[np.float64]]]:
    return [{key: value for key, value in episode.items() if key != name} for episode in trajectories]


def reached(episodes: list[dict[str, NDArray[np.float64]]], size: int) -> list[dict[str, NDArray[np.float64]]]:
    """The same with goals of `size` numbers."""
    return [{**episode, "position": np.repeat(episode["position"], size, axis=1)} for episode in episodes]


def deaf() -> Trajectories:
    """A cart that rolls freely, whatever is pushed."""
    rng = np.random.default_rng(0)
    episodes = []
    for speed in rng.uniform(-1, 1, 60):
        position = rng.uniform(-1, 1) + 0.1 * speed * np.arange(61)
        velocity = np.full(61, speed)
        push = rng.uniform(-1, 1, (60, 1))
        episodes.append({"position": position[:, None], "velocity": velocity[:, None], "push": push})
    return recording(episodes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pendulums, "predict badly: 30 steps ahead the median error .* not linear, .*the goal stream is position"),
        (lambda: _spoiled(recording(carts())), "stream 'velocity' has non-finite values; `forcing data check` says"),
        (lambda: recording(without(carts(), "velocity")), "dynamics predict badly: 30 steps ahead"),
        (lambda: recording(carts(), limits={}), "'push' has no finite limits"),
        (lambda: recording(carts(), limits={"low": (-1.0,), "high": (np.inf,)}), "'push' has no finite limits"),
        (lambda: recording(reached(carts(), 4)), "at most 3 numbers, the recording has 4 numbers in 'position'"),
        (lambda: _goalless(recording(carts())), "at most 3 numbers, the recording has none"),
        (lambda: recording(carts(count=200, steps=20)), "no episode has 30 steps .* the longest has 20"),
        (lambda: recording(carts(count=1, steps=2)), "the recording has 2 transitions, a fit needs 8"),
        (deaf, "dreamed goals were not reached within 40 steps; the action hardly moves 'position'"),
    ],
)
def test_what_cannot_be_dreamed_is_refused_with_the_reason(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        dream(make(), replace(QUICK, longest=40), seed=0)


def _spoiled(trajectories: Trajectories) -> Trajectories:
    velocity = trajectories.streams["velocity"].copy()
    velocity[7] = np.nan
    return replace(trajectories, streams={**trajectories.streams, "velocity": velocity})


def _goalless(trajectories: Trajectories) -> Trajectories:
    return replace(trajectories, spec=replace(trajectories.spec, goal=None))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"robots": 0}, "robots must be at least 1, got 0"),
        ({"noise": -0.1}, "noise must be from 0 to 1, got -0.1"),
        ({"stops": 1.5}, "stops must be from 0 to 1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **setting)
