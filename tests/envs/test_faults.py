"""Faults of sensors, on an environment that counts its steps: what is told against what is true."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.envs.faults import FAULTS, FaultySensors, parse_faults, truth_of, with_faults

SENSORS = {"position": ("state", slice(0, 2)), "velocity": ("state", slice(2, 4))}


class Counting(gymnasium.Env[Any, Any]):
    """At step t the position is (t, -t), the velocity (1, -1), and the goal never moves."""

    observation_space = gymnasium.spaces.Dict(
        state=gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64),
        goal=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def _observed(self) -> dict[str, NDArray[np.float64]]:
        return {"state": np.array([self.t, -self.t, 1.0, -1.0]), "goal": np.array([7.0, 8.0])}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0.0
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._observed(), 1.0, False, False, {}


def _told(text: str, steps: int = 10_000, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[steps, 4] the state as it was told, and as it was."""
    env = with_faults(Counting(), SENSORS, text)
    observation, _ = env.reset(seed=seed)
    told, true = [observation["state"]], [truth_of(env, observation)["state"]]
    for _ in range(steps - 1):
        observation, *_ = env.step(None)
        assert observation["goal"].tolist() == [7.0, 8.0]
        told.append(observation["state"])
        true.append(truth_of(env, observation)["state"])
    assert [state[0] for state in true] == list(range(steps)), "the truth is the environment's"
    return np.array(told), np.array(true)


def test_noise_is_normal_independent_and_of_the_size_asked_for() -> None:
    told, true = _told("noise=0.2")
    error = told - true
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(error.std(axis=0), 0.2, rtol=0.03)
    np.testing.assert_allclose(np.corrcoef(error.T), np.eye(4), atol=0.03)
    assert abs(np.corrcoef(error[1:, 0], error[:-1, 0])[0, 1]) < 0.03
    assert np.mean(np.abs(error) < 0.2) == pytest.approx(0.683, abs=0.01)


def test_a_bias_stays_for_an_episode_and_is_another_in_the_next() -> None:
    offsets = []
    for seed in (0, 1):
        told, true = _told("bias=0.3@position", 50, seed)
        error = told - true
        np.testing.assert_allclose(error, np.broadcast_to(error[0], error.shape), atol=1e-9)
        assert np.linalg.norm(error[0, :2]) == pytest.approx(0.3)
        assert error[0, 2:].tolist() == [0, 0]
        offsets.append(error[0])
    assert np.linalg.norm(offsets[0] - offsets[1]) > 0.01


@pytest.mark.parametrize(("text", "steps"), [("dropout=0.3", 1), ("dropout=0.3/20", 20), ("freeze=0.3/20", 20)])
def test_bursts_take_the_share_of_steps_asked_for_and_last_as_long(text: str, steps: int) -> None:
    told, true = _told(text, 30_000)
    fault = np.isnan(told[:, 0]) if "dropout" in text else told[:, 0] != true[:, 0]
    assert fault.mean() == pytest.approx(0.3, abs=0.04)
    edges = np.flatnonzero(np.diff(fault.astype(int)))
    runs = np.diff(edges)[(0 if fault[edges[0] + 1] else 1) :: 2]
    assert (runs % steps == 0).all(), "a burst may follow another at once"
    if "dropout" in text:
        assert np.isnan(told[fault]).all(), "all sensors at once"
    else:
        start = edges[0]
        assert (told[start : start + steps + 1, 0] == true[start, 0]).all(), "the last reading before it stays"


def test_a_delayed_reading_comes_when_it_should() -> None:
    told, true = _told("delay=3", 50)
    assert np.isnan(told[:3]).all()
    np.testing.assert_array_equal(told[3:], true[:-3])


def test_with_jitter_readings_are_late_by_as_much_and_never_go_back() -> None:
    told, true = _told("delay=5/4", 5000)
    late = (true - told)[9:, 0]
    assert late.min() == 5
    assert late.max() <= 9
    assert (np.diff(told[9:, 0]) >= 0).all(), "what was overtaken is not told"
    assert len(set(late)) > 2


def test_spikes_are_as_frequent_and_as_long_as_asked_for() -> None:
    told, true = _told("spikes=0.1/3@position")
    length = np.linalg.norm((told - true)[:, :2], axis=1)
    spike = length > 1e-9
    assert spike.mean() == pytest.approx(0.1, abs=0.01)
    assert length.max() <= 3
    assert length[spike].mean() == pytest.approx(1.5, abs=0.1)
    angle = np.arctan2(*(told - true)[spike, :2].T)
    assert abs(np.exp(1j * angle).mean()) < 0.1, "in all directions"


def test_quantised_readings_are_whole_steps_and_the_nearest() -> None:
    told, true = _told("quantise=7", 100)
    np.testing.assert_array_equal(told % 7, 0)
    assert np.abs(told - true).max() <= 3.5


def test_faults_stack_in_the_order_in_which_they_are_named() -> None:
    told, true = _told("delay=2+quantise=4@position", 50)
    np.testing.assert_array_equal(told[2:, :2], 4 * np.round(true[:-2, :2] / 4))
    np.testing.assert_array_equal(told[2:, 2:], true[:-2, 2:])


def test_the_seed_gives_the_same_faults_whatever_ran_before_and_another_gives_others() -> None:
    text = "noise=0.1+dropout=0.2/5+spikes=0.1/1+noise=0.1"
    env = with_faults(Counting(), SENSORS, text)

    def episode(seed: int) -> NDArray[np.float64]:
        states = [env.reset(seed=seed)[0]["state"]]
        return np.array([*states, *(env.step(None)[0]["state"] for _ in range(30))])

    first, other, again = episode(3), episode(4), episode(3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(np.nan_to_num(first), np.nan_to_num(other))
    # Two of the same kind in a stack are not the same noise twice.
    error = np.nan_to_num(_told("noise=0.1+noise=0.1")[0] - _told("noise=0.1")[0])
    assert error.std() == pytest.approx(0.1, rel=0.05)


def test_the_environment_underneath_is_not_touched() -> None:
    env = with_faults(Counting(), SENSORS, "noise=1")
    env.reset(seed=0)
    observation, reward, terminated, truncated, _ = env.step(None)
    assert (reward, terminated, truncated) == (1.0, False, False)
    assert truth_of(env, observation)["state"].tolist() == [1, -1, 1, -1]
    bare = Counting()
    assert with_faults(bare, SENSORS, "") is bare


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nois=0.2", "fault 'nois=0.2' must be one of noise=SIGMA, bias=SIZE, dropout"),
        ("noise", "fault 'noise' must be one of"),
        ("noise=", "fault 'noise=': must be noise=SIGMA, in numbers"),
        ("noise=0.1/2", "must be noise=SIGMA, in numbers"),
        ("spikes=0.1", "must be spikes=RATE/SIZE, in numbers"),
        ("noise=nan", "sigma must be finite and above 0, got nan"),
        ("noise=-1", "sigma must be finite and above 0, got -1"),
        ("dropout=1", "rate must be above 0 and below 1, got 1"),
        ("dropout=0.1/2.5", "steps must be a whole number of at least 1, got 2.5"),
        ("delay=-1", "steps must be a whole number of at least 0, got -1"),
        ("noise=0.1+bias=0@position", "fault 'bias=0@position': size must be finite and above 0, got 0"),
        ("noise=0.1@camera", "fault 'noise=0.1@camera': unknown sensor 'camera'; there are position, velocity"),
    ],
)
def test_a_fault_that_makes_no_sense_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="fault") as caught:
        parse_faults(SENSORS, text)
    assert said in str(caught.value)


def test_every_kind_passes_gymnasiums_own_interface() -> None:
    numbers = {"spikes": "0.1/2", "dropout": "0.1/2", "freeze": "0.1/2", "delay": "2/1"}
    for kind in FAULTS:
        env = with_faults(Counting(), SENSORS, f"{kind}={numbers.get(kind, '0.5')}")
        assert isinstance(env, FaultySensors)
        assert env.observation_space == Counting.observation_space
        observation, info = env.reset(seed=1)
        assert (sorted(observation), info) == (["goal", "state"], {})
