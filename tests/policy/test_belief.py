"""What is believed of a cart whose sensors lie: its dynamics and what it was told are known, its readings are not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.policy.belief import Belief, BeliefConfig, Believer
from forcing.policy.types import Believed, Reading

STEPS = 150
Readings = dict[str, Reading]


@dataclass
class Drive:
    """A drive of `STEPS` steps, and what was believed at each."""

    states: NDArray[np.float64]
    believed: list[Believed]

    def error(self, name: str, steps: slice = slice(30, None)) -> float:
        """Root mean square, over those steps of which anything was believed."""
        column = {"position": 0, "velocity": 1}[name]
        misses = [
            float(now.values[name][0] - state[column])
            for now, state in zip(self.believed[steps], self.states[steps], strict=True)
        ]
        return float(np.sqrt(np.mean(np.square(misses))))


Told = Callable[[int, NDArray[np.float64]], Readings]
Watch = Callable[..., Drive]


def _exact(t: int, states: NDArray[np.float64]) -> Readings:
    return {"position": Reading(states[t, :1]), "velocity": Reading(states[t, 1:])}


@pytest.fixture
def watch(cart: Any) -> Watch:
    """(told, seed=0, at_rest=False) -> the drive. told: (step, states) -> readings."""

    def run(told: Told, seed: int = 0, at_rest: bool = False) -> Drive:
        rng = np.random.default_rng(seed)
        states, actions = cart.drive(STEPS - 1, rng, at_rest=at_rest)
        believer = Believer(BeliefConfig(), cart.dynamics, cart.spec, cart.normaliser)
        belief, believed = Belief(), []
        for t in range(STEPS):
            belief, now = believer.take(belief, told(t, states), list(actions[:t]), seed)
            believed.append(now)
        return Drive(states, believed)

    return run


def _noisy(sigma: float, seed: int = 0, declared: float | None = None) -> Told:
    noise = sigma * np.random.default_rng(seed + 100).standard_normal((STEPS, 2))

    def told(t: int, states: NDArray[np.float64]) -> Readings:
        read = states[t] + noise[t]
        return {"position": Reading(read[:1], declared), "velocity": Reading(read[1:], declared)}

    return told


def test_where_nothing_is_wrong_readings_are_taken_as_they_are(watch: Watch) -> None:
    drive = watch(_exact)
    for now, state in zip(drive.believed, drive.states, strict=True):
        assert now.values["position"].tolist() == state[:1].tolist()
        assert now.values["velocity"].tolist() == state[1:].tolist()
        assert now.noise == {"position": 0.0, "velocity": 0.0}
        assert not any(report.rejected or report.stuck or report.unheard_steps for report in now.sensors.values())
    assert drive.believed[-1].late == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.5])
def test_noise_that_nobody_declared_is_estimated_and_averaged_out(watch: Watch, sigma: float) -> None:
    drive = watch(_noisy(sigma))
    assert drive.error("position") < 0.4 * sigma
    assert drive.error("velocity") < 0.4 * sigma
    last = drive.believed[-1]
    for name in ("position", "velocity"):
        assert last.sensors[name].noise == pytest.approx(sigma, rel=0.35)
        assert 0 < last.noise[name] < 0.5 * sigma, "what is believed is known better than what is read"


def test_what_is_believed_is_as_uncertain_as_it_says(watch: Watch) -> None:
    """Over drives, errors are about as large as they are thought to be."""
    share = []
    for seed in range(12):
        drive = watch(_noisy(0.3, seed), seed)
        now, state = drive.believed[-1], drive.states[-1]
        share.append((now.values["position"][0] - state[0]) / now.noise["position"])
    assert 0.4 < np.sqrt(np.mean(np.square(share))) < 1.8


def test_declaring_the_noise_is_at_least_as_good(watch: Watch) -> None:
    guessed = [watch(_noisy(0.3, seed), seed).error("position", slice(5, 60)) for seed in range(6)]
    declared = [watch(_noisy(0.3, seed, declared=0.3), seed).error("position", slice(5, 60)) for seed in range(6)]
    assert np.mean(declared) < 1.05 * np.mean(guessed)


def test_a_spike_is_rejected_and_the_next_reading_is_not(watch: Watch) -> None:
    def told(t: int, states: NDArray[np.float64]) -> Readings:
        read = _exact(t, states)
        return read if t != 50 else {**read, "position": Reading(states[t, :1] + 2.0)}

    drive = watch(told)
    spiked = drive.believed[50]
    assert spiked.sensors["position"].rejected
    assert not spiked.sensors["velocity"].rejected
    assert abs(spiked.values["position"][0] - drive.states[50, 0]) < 0.02
    assert not drive.believed[51].sensors["position"].rejected
    assert drive.believed[51].noise["position"] == 0.0


def test_a_sensor_that_was_good_for_long_is_still_not_trusted_with_a_spike(cart: Any) -> None:
    believer = Believer(BeliefConfig(particles=32), cart.dynamics, cart.spec, cart.normaliser)
    rng, belief = np.random.default_rng(0), Belief()
    states, actions = cart.drive(2500, rng)
    for t in range(2500):
        read = {"position": Reading(states[t, :1]), "velocity": Reading(states[t, 1:])}
        if t == 2499:
            read["position"] = Reading(states[t, :1] + 2.0)
        belief, now = believer.take(belief, read, list(actions[max(0, t - believer.memory) : t]), 0)
    assert now.sensors["position"].rejected
    assert abs(now.values["position"][0] - states[2499, 0]) < 0.02


def test_a_sensor_that_stays_stuck_is_never_believed_again(watch: Watch) -> None:
    drive = watch(lambda t, states: _exact(min(t, 40), states))
    for now in drive.believed[50:]:
        assert now.sensors["position"].stuck
        assert now.noise.get("position", 1.0) > 0


def test_a_long_silence_costs_certainty_and_nothing_else(watch: Watch) -> None:
    # How many contacts particles suppose in the silence is chance, so one drive tells little of how much is doubted.
    drives = [watch(lambda t, states: _exact(t, states) if t < 20 else {}, seed) for seed in range(5)]
    missed = [abs(d.believed[-1].values["position"][0] - d.states[-1, 0]) for d in drives]
    doubted = [d.believed[-1].noise["position"] for d in drives]
    assert np.median(missed) < 0.1
    assert np.median(doubted) < 0.5
    assert all(miss < 3 * doubt for miss, doubt in zip(missed, doubted, strict=True))


def test_a_stuck_sensor_is_noticed_seen_through_and_taken_back(watch: Watch) -> None:
    def told(t: int, states: NDArray[np.float64]) -> Readings:
        return _exact(50 if 50 < t < 90 else t, states)

    drive = watch(told)
    assert [step for step, now in enumerate(drive.believed) if now.sensors["position"].stuck]
    assert drive.believed[85].sensors["position"].stuck
    assert drive.error("position", slice(51, 90)) < 0.05
    assert not drive.believed[90].sensors["position"].stuck
    assert drive.believed[90].noise["position"] == 0.0


def test_a_sensor_that_rests_with_its_robot_is_not_stuck(cart: Any) -> None:
    believer = Believer(BeliefConfig(), cart.dynamics, cart.spec, cart.normaliser)
    belief, still = Belief(), {"position": Reading(np.array([0.7])), "velocity": Reading(np.zeros(1))}
    for t in range(40):
        belief, now = believer.take(belief, still, [np.zeros(1)] * t, 0)
    assert not now.sensors["position"].stuck
    assert now.values["position"][0] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_robot_may_rest_for_long_and_nothing_is_made_of_it(cart: Any, noise: float) -> None:
    believer = Believer(BeliefConfig(particles=32), cart.dynamics, cart.spec, cart.normaliser)
    rng, belief = np.random.default_rng(0), Belief()
    for t in range(400):
        read = np.array([0.7, 0.0]) + noise * rng.standard_normal(2)
        readings = {"position": Reading(read[:1]), "velocity": Reading(read[1:])}
        belief, now = believer.take(belief, readings, [np.zeros(1)] * min(t, believer.memory), 0)
    assert now.late == 0, "nothing tells how late a robot at rest is read"
    assert now.values["position"][0] == pytest.approx(0.7, abs=0.5 * noise + 1e-9)
    assert (now.noise["position"] == 0) == (noise == 0)


def test_silence_is_counted_and_seen_through(watch: Watch) -> None:
    drive = watch(lambda t, states: {} if 60 <= t < 100 else _exact(t, states))
    assert [drive.believed[t].sensors["velocity"].unheard_steps for t in (59, 60, 99, 100)] == [0, 1, 40, 0]
    assert drive.error("position", slice(60, 100)) < 0.05
    assert 0 < drive.believed[70].noise["position"] < drive.believed[99].noise["position"]
    assert drive.believed[100].noise["position"] == 0.0


def test_a_robot_that_was_carried_away_meanwhile_is_found_again(watch: Watch) -> None:
    drive = watch(lambda t, states: _exact(t, states + (np.array([3.0, 0.0]) if t >= 70 else 0.0)))
    assert drive.believed[70].sensors["position"].rejected, "one reading is no reason to believe that"
    assert drive.believed[80].values["position"][0] == pytest.approx(drive.states[80, 0] + 3.0, abs=0.01)


@pytest.mark.parametrize("late", [4, 8])
def test_readings_that_are_late_are_looked_ahead_from(watch: Watch, late: int) -> None:
    drive = watch(lambda t, states: _exact(t - late, states) if t >= late else {}, at_rest=True)
    assert drive.believed[-1].late == pytest.approx(late, abs=0.5)
    assert drive.error("position", slice(60, None)) < 0.02
    assert drive.error("velocity", slice(60, None)) < 0.1


def test_readings_whose_age_is_told_are_placed_where_they_belong(watch: Watch) -> None:
    """Velocities are fresh, positions between 5 and 9 steps old."""
    ages = np.random.default_rng(0).integers(5, 10, STEPS)

    def told(t: int, states: NDArray[np.float64]) -> Readings:
        age = int(min(t, ages[t]))
        position = Reading(states[t - age, :1], age_steps=age)
        return {"position": position, "velocity": Reading(states[t, 1:], age_steps=0)}

    drive = watch(told)
    assert drive.error("position", slice(20, None)) < 0.02
    assert drive.error("velocity", slice(20, None)) < 0.05
    assert drive.believed[-1].late == 9, "as late as the oldest reading lately"


def test_a_first_reading_may_be_older_than_the_session(cart: Any) -> None:
    believer = Believer(BeliefConfig(), cart.dynamics, cart.spec, cart.normaliser)
    read = {"position": Reading(np.array([0.7]), age_steps=5), "velocity": Reading(np.zeros(1), age_steps=5)}
    _, now = believer.take(Belief(), read, [], 0)
    assert now.values["position"][0] == pytest.approx(0.7, abs=0.05)
    assert now.late == 0


def test_a_rare_old_reading_counts_between_fresh_ones_of_another_sensor(watch: Watch) -> None:
    def told(t: int, states: NDArray[np.float64]) -> Readings:
        read = {"velocity": Reading(states[t, 1:], age_steps=0)}
        return read | ({"position": Reading(states[t - 8, :1], age_steps=8)} if t % 3 == 0 and t >= 8 else {})

    drive = watch(told)
    assert drive.error("position", slice(40, None)) < 0.03
    assert not any(now.sensors["position"].rejected for now in drive.believed[20:])


def test_a_robot_far_from_all_recordings_is_believed_to_be_there(cart: Any) -> None:
    believer = Believer(BeliefConfig(), cart.dynamics, cart.spec, cart.normaliser)
    read = {"position": Reading(np.array([40.0])), "velocity": Reading(np.zeros(1))}
    _, now = believer.take(Belief(), read, [], 0)
    assert now.values["position"].tolist() == [40.0]
    assert not now.sensors["position"].rejected


def test_before_anything_was_read_nothing_is_believed_and_what_never_comes_counts_as_missing(watch: Watch) -> None:
    assert watch(lambda t, states: {}).believed[-1].values == {}
    drive = watch(lambda t, states: {"velocity": Reading(states[t, 1:])})
    assert {tuple(now.values) for now in drive.believed} == {("velocity",)}, "nothing says where the cart began"
    assert drive.believed[-1].sensors["position"].unheard_steps == STEPS


def test_the_same_readings_give_the_same_belief(watch: Watch) -> None:
    first, second, other = watch(_noisy(0.2)), watch(_noisy(0.2)), watch(_noisy(0.2, seed=1))
    for one, two in zip(first.believed, second.believed, strict=True):
        assert one.values["position"].tobytes() == two.values["position"].tobytes()
    assert first.believed[-1].noise != other.believed[-1].noise


def test_too_few_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="particles must be at least 2, got 1"):
        BeliefConfig(particles=1)
