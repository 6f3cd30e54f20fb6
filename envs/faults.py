"""Sensor faults between a simulator and whoever controls it, as Gymnasium wrappers.

What the robot does is untouched, what it is told is not. Faults stack: each spoils what the one below it lets through.
A reading that is lost is NaN. Everything random comes from the seed of `reset` and from where in the stack a fault
stands, so the same seed gives the same faults whatever is driven.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

Reading = NDArray[np.float64]
Readings = dict[str, Reading]
"""Sensor -> [numbers], of one control step."""
Observation = Mapping[str, NDArray[Any]]
Sensors = Mapping[str, tuple[str, slice]]
"""Name of a sensor -> the key of the observation that holds its numbers, and which of them they are."""
Env = gymnasium.Env[Any, Any]


class Fault(ABC):
    """What is wrong with some sensors, step by step."""

    def begin(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> None:
        """An episode begins. sizes: sensor -> how many numbers it reads."""
        self.rng, self.sizes = rng, sizes

    @abstractmethod
    def spoil(self, read: Readings) -> Readings:
        """What is told in place of one control step's readings."""

    def direction(self, sensor: str) -> Reading:
        """[numbers] a unit vector, uniform over all directions."""
        drawn = self.rng.standard_normal(self.sizes[sensor])
        return np.asarray(drawn / np.linalg.norm(drawn))


class FaultySensors(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with Dict observations, some of whose sensors have a fault."""

    def __init__(self, env: Env, sensors: Sensors, fault: Fault, only: Collection[str] = ()) -> None:
        """only: names of the sensors at fault, all if none is named. Raises ValueError on an unknown one."""
        super().__init__(env)
        _known(sensors, only)
        self.sensors = {name: place for name, place in sensors.items() if not only or name in only}
        self.fault = fault
        self._sizes = {name: where.stop - where.start for name, (_, where) in self.sensors.items()}
        self._below: int = env._below + 1 if isinstance(env, FaultySensors) else 0
        self._rng = np.random.default_rng()
        self._let_through: Observation = {}

    @property
    def truth(self) -> Observation:
        """The last observation as the environment gave it, before any fault."""
        return self.env.truth if isinstance(self.env, FaultySensors) else self._let_through

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._rng = np.random.default_rng([seed, self._below])
        self.fault.begin(self._rng, self._sizes)
        return self._spoiled(observation), info

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._spoiled(observation), reward, terminated, truncated, info

    def _spoiled(self, observation: Observation) -> dict[str, NDArray[Any]]:
        self._let_through = observation
        read = {name: np.array(observation[key][where], dtype=float) for name, (key, where) in self.sensors.items()}
        told = {key: np.array(value, dtype=float) for key, value in observation.items()}
        for name, value in self.fault.spoil(read).items():
            key, where = self.sensors[name]
            told[key][where] = value
        return told


@dataclass
class GaussianNoise(Fault):
    """Independent normal errors on every number at every step. sigma: standard deviation, in the sensor's units."""

    sigma: float

    def __post_init__(self) -> None:
        _positive(sigma=self.sigma)

    def spoil(self, read: Readings) -> Readings:
        return {name: value + self.sigma * self.rng.standard_normal(value.shape) for name, value in read.items()}


@dataclass
class Bias(Fault):
    """An error that is the same for an episode. size: its length, in the sensor's units, in a random direction."""

    size: float

    def __post_init__(self) -> None:
        _positive(size=self.size)

    def begin(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> None:
        super().begin(rng, sizes)
        self.offset = {name: self.size * self.direction(name) for name in sizes}

    def spoil(self, read: Readings) -> Readings:
        return {name: value + self.offset[name] for name, value in read.items()}


@dataclass
class Spikes(Fault):
    """Now and then a reading that is far off. rate: share of readings. size: the longest such error, in the sensor's
    units; its length is uniform up to that, its direction random."""

    rate: float
    size: float

    def __post_init__(self) -> None:
        _share(self.rate)
        _positive(size=self.size)

    def spoil(self, read: Readings) -> Readings:
        # All is drawn at every step, so that another rate has its spikes at the same steps and more.
        return {
            name: value + (self.rng.random() < self.rate) * self.rng.uniform(0, self.size) * self.direction(name)
            for name, value in read.items()
        }


@dataclass
class Quantisation(Fault):
    """Readings rounded to whole steps. step: in the sensor's units."""

    step: float

    def __post_init__(self) -> None:
        _positive(step=self.step)

    def spoil(self, read: Readings) -> Readings:
        return {name: self.step * np.round(value / self.step) for name, value in read.items()}


@dataclass
class Bursts(Fault):
    """Something that lasts for some steps and befalls all its sensors at once. rate: share of all steps that lie in a
    burst, in the long run. steps: control steps that a burst lasts."""

    rate: float
    steps: int = 1
    _left: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _share(self.rate)
        self.steps = _whole(1, steps=self.steps)

    def begin(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> None:
        super().begin(rng, sizes)
        self._left = 0

    def in_burst(self) -> bool:
        """Whether this step is in one; to be asked once a step. Gaps are geometric and may be nothing."""
        if self._left == 0 and self.rng.random() < self.rate / (self.rate + self.steps * (1 - self.rate)):
            self._left = self.steps
        if self._left == 0:
            return False
        self._left -= 1
        return True


@dataclass
class Dropout(Bursts):
    """Readings that are lost."""

    def spoil(self, read: Readings) -> Readings:
        return _lost(read) if self.in_burst() else read


@dataclass
class Freeze(Bursts):
    """Readings that stay what they were before the burst."""

    _last: Readings | None = field(default=None, init=False)

    def begin(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> None:
        super().begin(rng, sizes)
        self._last = None

    def spoil(self, read: Readings) -> Readings:
        if not self.in_burst() or self._last is None:
            self._last = read
        return self._last


@dataclass
class Delay(Fault):
    """Readings that come late: the newest that has come at each step, lost until the first has.

    steps: control steps that each takes at least. jitter: control steps that it takes besides, uniform from 0 to that;
    one that is overtaken by a newer one is never told.
    """

    steps: int
    jitter: int = 0

    def __post_init__(self) -> None:
        self.steps, self.jitter = _whole(0, steps=self.steps), _whole(0, jitter=self.jitter)

    def begin(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> None:
        super().begin(rng, sizes)
        self._now = 0
        self._under_way: list[tuple[int, Readings]] = []
        self._told: Readings | None = None

    def spoil(self, read: Readings) -> Readings:
        self._under_way.append((self._now + self.steps + int(self.rng.integers(0, self.jitter + 1)), read))
        come = [index for index, (when, _) in enumerate(self._under_way) if when <= self._now]
        if come:
            self._told = self._under_way[come[-1]][1]
            del self._under_way[: come[-1] + 1]
        self._now += 1
        return self._told or _lost(read)


# Kind -> the fault, and what its numbers mean; those in brackets may be left out.
FAULTS: Mapping[str, tuple[Callable[..., Fault], str]] = {
    "noise": (GaussianNoise, "SIGMA"),
    "bias": (Bias, "SIZE"),
    "dropout": (Dropout, "RATE[/STEPS]"),
    "freeze": (Freeze, "RATE[/STEPS]"),
    "delay": (Delay, "STEPS[/JITTER]"),
    "spikes": (Spikes, "RATE/SIZE"),
    "quantise": (Quantisation, "STEP"),
}


def with_faults(env: Env, sensors: Sensors, text: str) -> Env:
    """The environment under the faults that `text` names; as it is where that is empty. Raises as `parse_faults`."""
    for fault, only in parse_faults(sensors, text):
        env = FaultySensors(env, sensors, fault, only)
    return env


def parse_faults(sensors: Sensors, text: str) -> list[tuple[Fault, list[str]]]:
    """The faults that `KIND=NUMBER[/NUMBER][@SENSOR,SENSOR]+...` names, in the order in which they befall a reading,
    and the sensors that have each, none for all.

    Raises ValueError naming the fault, what is wrong with it and what is known.
    """
    found = []
    for part in text.split("+") if text else ():
        kind, equals, rest = part.strip().partition("=")
        if kind not in FAULTS or not equals:
            forms = ", ".join(f"{name}={form}" for name, (_, form) in FAULTS.items())
            raise ValueError(f"fault {part!r} must be one of {forms}; @SENSOR may follow, + joins several")
        numbers, _, only = rest.partition("@")
        names = [name for name in only.split(",") if name]
        try:
            _known(sensors, names)
            found.append((_fault(kind, numbers), names))
        except ValueError as error:
            raise ValueError(f"fault {part!r}: {error}") from error
    return found


def _fault(kind: str, text: str) -> Fault:
    make, form = FAULTS[kind]
    fewest, most = form.partition("[")[0].count("/") + 1, form.count("/") + 1
    try:
        numbers = [float(number) for number in text.split("/")]
    except ValueError:
        numbers = []
    if not fewest <= len(numbers) <= most:
        raise ValueError(f"must be {kind}={form}, in numbers")
    return make(*numbers)


def truth_of(env: Env, observation: Observation) -> Observation:
    """What the environment would have told without faults, after `observation`."""
    return env.truth if isinstance(env, FaultySensors) else observation


def _known(sensors: Sensors, names: Collection[str]) -> None:
    """Raises ValueError if one of the names is no sensor."""
    for name in names:
        if name not in sensors:
            raise ValueError(f"unknown sensor {name!r}; there are {', '.join(sensors)}")


def _lost(read: Readings) -> Readings:
    return {name: np.full_like(value, np.nan) for name, value in read.items()}


def _positive(**value: float) -> None:
    ((name, number),) = value.items()
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and above 0, got {number:g}")


def _share(rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"rate must be above 0 and below 1, got {rate:g}")


def _whole(least: int, **value: float) -> int:
    ((name, number),) = value.items()
    if not (np.isfinite(number) and number == int(number) and number >= least):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {number:g}")
    return int(number)
