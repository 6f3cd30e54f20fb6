"""What a controller believes about where its robot is, from readings that may be noisy, missing, stuck, late or wild.

Knows sensors and control steps, and what was sent at each; `particles` has the arithmetic. Knows no plan, no clock and
no socket. A policy without dynamics has no belief, and takes readings as they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics
from forcing.policy.particles import (
    LEAST_NOISE,
    Particles,
    advanced,
    begin,
    disturbed,
    found_at,
    lagging,
    likeliest_lag,
    motion_of,
    of_likeliest_lag,
    unseen,
    weighed,
)
from forcing.policy.spread import COVERED, NORMAL
from forcing.policy.tokens import Normaliser
from forcing.policy.types import Array, Believed, Reading, SensorReport, TrajectorySpec

LATEST_S = 0.3  # readings that are later than this, and do not say so, are taken for noise
OLDEST_S = 2.0  # a reading that says it is older is left aside: every act would have to go over all the time since
RELENT = 0.1  # control steps by which the greatest age of a stream is forgotten at every step
VAGUE = 0.5  # recorded standard deviations: a stream that is known no better counts as missing
# Weight at which a reading is taken as it is. Nobody has reason to doubt a first one: almost half of all weight is on
# a sensor that is exact and on time before anything was read, and no other single supposition has nearly as much.
PLAIN = 0.2
# Weight that has a say on how well anything is known: the rest supposes that the robot was carried away or struck just
# now, and would say that nobody knows anything.
TRIMMED = 0.8
NODES = np.array(
    [-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645]
)  # of a normal distribution
# Weight on exact sensors from which on a reading that is where it should be changes nothing, and within how many
# standard deviations of what may happen in a step that is.
SURE, USUAL = 0.95, 3.0
MANY = 512  # particles, each of which takes some microseconds a step
REPEATS, STRAYED = 3, 3.0  # a reading so often the same, so many standard errors off, is of a stuck sensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefConfig:
    """Whether and how readings are doubted. particles: suppositions for each lag that readings may have; fewer than a
    hundred lose track now and then."""

    particles: int = 128

    def __post_init__(self) -> None:
        if self.particles < 2:
            raise ValueError(f"particles must be at least 2, got {self.particles}")


@dataclass(frozen=True, slots=True)
class Belief:
    """All that an episode's past means for its future.

    particles: None before anything was read. now: they at the present. step: the last one that was taken in. Of each
    stream, last: its last reading, repeats: how often that came again, unheard: steps since it came, told: its noise as
    said then, read_at: the step it is of; stuck: those that repeated themselves while the robot moved. waiting: (step
    it was read at,
    number of its stream, value, its standard error) of readings that the clock of the particles has not reached. ages:
    stream -> the greatest age that its readings were told to have lately, None while none ever was. trail: [n] where
    the robot was believed to be, at as many steps as the greatest lag has, oldest first. lags_apart: how late
    readings are has had its chance to show. settled: nobody has doubts. silent: steps that were passed over last.
    """

    particles: Particles | None = None
    now: Particles | None = None
    step: int = -1
    last: Mapping[str, Array] = field(default_factory=dict)
    repeats: Mapping[str, int] = field(default_factory=dict)
    unheard: Mapping[str, int] = field(default_factory=dict)
    stuck: frozenset[str] = frozenset()
    told: Mapping[str, float | None] = field(default_factory=dict)
    read_at: Mapping[str, int] = field(default_factory=dict)
    waiting: tuple[tuple[int, int, Array, float | None], ...] = ()
    ages: Mapping[str, float] | None = None
    trail: tuple[NDArray[np.float64], ...] = ()
    lags_apart: bool = False
    settled: bool = False
    silent: int = 0

    @property
    def slow(self) -> bool:
        """Whether it takes more than a millisecond or two to go on from here, as it does while several lags are
        possible."""
        return self.ages is not None or (self.particles is not None and len(self.particles.lag) > MANY)

    @property
    def late(self) -> int | None:
        """Control steps that the clock of the particles is behind, None while no age was ever told."""
        return None if self.ages is None else int(np.ceil(max(self.ages.values(), default=0.0)))


class Believer:
    """Turns readings into beliefs for one policy. memory: actions that it looks back on at the most."""

    def __init__(
        self, config: BeliefConfig, dynamics: LinearDynamics, spec: TrajectorySpec, normaliser: Normaliser
    ) -> None:
        self._count, self._spec = config.particles, spec
        self._motion = motion_of(dynamics, spec, normaliser)
        self._names = list(dynamics.streams)
        n = len(self._motion.std)
        self._push, process = dynamics.weights[n:-1], np.diagonal(self._motion.process)[:n]
        self._usual = USUAL * np.sqrt(process + 2 * np.square(LEAST_NOISE * self._motion.std))
        lags = [0]
        while lags[-1] < LATEST_S * spec.control_hz:
            lags.append(lags[-1] + max(1, lags[-1] // 4))
        self._lags = np.array(lags)
        self.memory = 1 + int(np.ceil(max(OLDEST_S * spec.control_hz, lags[-1])))

    def take(
        self, belief: Belief, readings: Mapping[str, Reading], sent: Sequence[Array], seed: int
    ) -> tuple[Belief, Believed]:
        """The belief after the next control step's readings, and what it comes to.

        readings: stream -> what came of it, left out if nothing did. sent: [m] action of every step so far, or of the
        last `memory`. The same arguments give the same belief.
        """
        step = belief.step + 1
        rng = np.random.default_rng((seed % 2**63, step))
        fresh = {
            name: reading
            for name, reading in readings.items()
            if not (name in belief.last and np.array_equal(belief.last[name], reading.value))
            or (reading.age_steps is not None and step - reading.age_steps > belief.read_at.get(name, -1))
        }
        noted = replace(
            belief,
            step=step,
            silent=0,
            stuck=belief.stuck - fresh.keys(),
            told={**belief.told, **{name: reading.noise for name, reading in readings.items()}},
            read_at={**belief.read_at, **{name: step - (reading.age_steps or 0) for name, reading in readings.items()}},
            last={**belief.last, **{name: reading.value for name, reading in readings.items()}},
            repeats={
                name: 0 if name in fresh else belief.repeats.get(name, 0) + (name in readings) for name in self._names
            },
            unheard={name: 0 if name in readings else belief.unheard.get(name, 0) + 1 for name in self._names},
        )
        state = self._as_expected(belief, readings, sent)
        if state is not None and belief.particles is not None:
            particles = found_at(belief.particles, state, step)
            values = {name: readings[name].value for name in self._names}
            sensors = {name: SensorReport(0.0, rejected=False, stuck=False, unheard_steps=0) for name in self._names}
            trail = (*noted.trail, state)[-int(self._lags[-1]) - 1 :]
            # A reading that shows what the last action did, and the robot was at rest before it, is not late.
            apart = belief.lags_apart or bool((np.abs(np.asarray(sent[-1]) @ self._push) > 2 * self._usual).any())
            noted = replace(noted, particles=particles, now=particles, trail=trail, lags_apart=apart)
            return noted, Believed(values, dict.fromkeys(self._names, 0.0), sensors, 0.0)
        if belief.particles is None and not readings:
            return noted, Believed({}, {}, {name: self._silent(noted, name) for name in self._names}, 0.0)
        actions = np.array(sent, dtype=np.float64).reshape(len(sent), self._spec.action.size)
        if belief.ages is not None or any(reading.age_steps is not None for reading in readings.values()):
            noted, now, late = self._of_told_age(noted, fresh, readings, actions, rng)
        else:
            noted, now, late = self._of_guessed_age(noted, fresh, readings, actions, rng)
        stuck, believed = self._summary(noted, now, fresh, readings, late)
        trail = (*noted.trail, now.weight @ now.mean[:, : len(self._motion.std)])[-int(self._lags[-1]) - 1 :]
        settled = believed.noise == dict.fromkeys(self._names, 0.0) and self._settled(noted, now)
        return replace(noted, now=now, stuck=stuck, trail=trail, settled=settled), believed

    def silent(self, belief: Belief, actions: Array) -> Belief:
        """The belief after control steps of which nothing was read. actions: [K, m] sent at them.

        In a few microseconds a step: the robot is where the dynamics have it, and the next `take` goes over all of them
        at once, as if what may happen besides had had one step to happen in.
        """
        unheard = {name: belief.unheard.get(name, 0) + len(actions) for name in self._names}
        trail = list(belief.trail)
        for action in actions if trail else ():
            pushed = np.asarray(action, dtype=np.float64).reshape(1, -1)
            trail.append(self._motion.dynamics.step(trail[-1][None], pushed)[0])
        return replace(
            belief,
            step=belief.step + len(actions),
            silent=belief.silent + len(actions),
            unheard=unheard,
            trail=tuple(trail[-int(self._lags[-1]) - 1 :]),
        )

    def _settled(self, belief: Belief, now: Particles) -> bool:
        """Whether nobody has doubts: sensors are exact and on time, and no lag or offset is left to be told apart."""
        if belief.ages is not None or len(now.lag) > self._count:
            return False
        sure = (now.noise <= LEAST_NOISE).all(axis=1) & ~now.off.any(axis=1) & ~now.offset & (now.lag == 0)
        return bool(now.weight @ sure > SURE)

    def _as_expected(
        self, belief: Belief, readings: Mapping[str, Reading], sent: Sequence[Array]
    ) -> NDArray[np.float64] | None:
        """[n] what was read, where nobody had doubts and a robot to which nothing happens should be just there."""
        if not belief.settled or len(readings) < len(self._names):
            return None
        if any(reading.noise is not None or reading.age_steps is not None for reading in readings.values()):
            return None
        state = np.concatenate([np.asarray(readings[n].value, dtype=np.float64).reshape(-1) for n in self._names])
        action = np.asarray(sent[-1], dtype=np.float64).reshape(1, -1)
        expected = self._motion.dynamics.step(belief.trail[-1][None], action)[0]
        return state if (np.abs(state - expected) <= (1 + belief.silent) * self._usual).all() else None

    def doubt(self, belief: Belief, believed: Believed) -> dict[str, float]:
        """Stream -> what its believed value may be off by, every supposition counted: four in five are within `NORMAL`
        times it; 0 where that is next to nothing. belief, believed: what `take` came to."""
        now = belief.now
        if now is None or belief.settled:
            return dict.fromkeys(believed.values, 0.0)
        return {name: self._doubt(now, self._number(name), value) for name, value in believed.values.items()}

    def _of_guessed_age(
        self,
        belief: Belief,
        fresh: Mapping[str, Reading],
        readings: Mapping[str, Reading],
        actions: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> tuple[Belief, Particles, set[str]]:
        """Readings that are all as late as each particle supposes, so that none comes too late; those that came before
        count again where the robot should not have moved since."""
        step, particles, apart = belief.step, belief.particles, belief.lags_apart
        if particles is None:
            particles = begin(self._motion, self._count, rng)
            particles = replace(particles, clock=np.full(len(particles.clock), step))
        else:
            # Before a robot was made to move nothing tells how late its readings are, and all lags come to the same.
            if not apart and (actions.any() or not self._rested(belief)):
                particles, apart = lagging(particles, self._lags), True
            until = np.maximum(step - particles.lag, particles.clock)
            particles = advanced(particles, self._motion, actions, step - len(actions), until)
            particles = disturbed(particles, self._motion, rng)
        resting = {name: r for name, r in readings.items() if name not in fresh and self._rests(particles, name, r)}
        heard = [(self._number(name), reading) for name, reading in {**fresh, **resting}.items()]
        particles = self._heard(particles, heard, rng, resting=apart and self._rested(belief))
        until = np.full(len(particles.clock), step)
        now = advanced(particles, self._motion, actions, step - len(actions), until)
        return replace(belief, particles=particles, lags_apart=apart), now, set()

    def _rests(self, particles: Particles, name: str, reading: Reading) -> bool:
        """Whether the particles say that a sensor should read what it read before."""
        where, scale = self._motion.places[self._number(name)], float(self._motion.scale[self._number(name)])
        mean = particles.weight @ particles.mean[:, where]
        missed = np.linalg.norm(reading.value.reshape(-1) - mean)
        return bool(missed <= 2 * LEAST_NOISE * scale * np.sqrt(len(mean)))

    def _of_told_age(
        self,
        belief: Belief,
        fresh: Mapping[str, Reading],
        readings: Mapping[str, Reading],
        actions: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> tuple[Belief, Particles, set[str]]:
        """Readings at the steps they were read at; the particles' clock is as late as the oldest that still come. Also
        the streams whose reading came when the clock had gone by."""
        step, particles, motion = belief.step, belief.particles, self._motion
        ages = {name: min(step, reading.age_steps or 0) for name, reading in readings.items()}
        greatest = {name: max(0.0, age - RELENT) for name, age in (belief.ages or {}).items()}
        told = replace(belief, ages=greatest | {name: max(age, greatest.get(name, 0.0)) for name, age in ages.items()})
        waiting = sorted(
            [*belief.waiting, *((step - ages[n], self._number(n), r.value, r.noise) for n, r in fresh.items())],
            key=lambda entry: entry[:2],
        )
        first = step - len(actions)
        if particles is None:
            particles = begin(motion, self._count, rng)
            particles = replace(particles, clock=np.full(len(particles.clock), waiting[0][0]))
            particles = self._heard(particles, _read_at(waiting, waiting[0][0]), rng)
            waiting = [entry for entry in waiting if entry[0] > waiting[0][0]]
        elif belief.ages is None:
            particles = of_likeliest_lag(particles)
        clock = int(particles.clock[0])
        late = {self._names[entry[1]] for entry in waiting if entry[0] <= clock}
        assert told.late is not None
        for at in range(clock + 1, step - told.late + 1):
            particles = advanced(particles, motion, actions, first, np.full(len(particles.clock), at))
            particles = self._heard(disturbed(particles, motion, rng), _read_at(waiting, at), rng)
        waiting = [entry for entry in waiting if entry[0] > particles.clock[0]]
        now = particles
        for at in range(int(particles.clock[0]) + 1, step + 1):
            now = advanced(now, motion, actions, first, np.full(len(now.clock), at))
            heard = _read_at(waiting, at)
            now = self._heard(now, heard, rng) if heard else now
        return replace(told, particles=particles, waiting=tuple(waiting)), now, late

    def _rested(self, belief: Belief) -> bool:
        """Whether the robot has not moved by more than is known of it, since it is known or for longer than any lag."""
        if belief.particles is None or not belief.trail:
            return True
        spread = np.einsum("n,nii->i", belief.particles.weight, belief.particles.cov)[: len(self._motion.std)]
        moved = np.ptp(np.stack(belief.trail), axis=0)
        return bool((moved <= np.maximum(3 * LEAST_NOISE * self._motion.std, 2 * np.sqrt(spread))).all())

    def _heard(
        self,
        particles: Particles,
        heard: Sequence[tuple[int, Reading]],
        rng: np.random.Generator,
        *,
        resting: bool = False,
    ) -> Particles:
        """The particles after what was read at their clocks, if anything was."""
        if not heard:
            return unseen(particles, self._motion, rng)
        values = {number: np.asarray(reading.value, dtype=np.float64).reshape(-1) for number, reading in heard}
        known = {number: reading.noise for number, reading in heard if reading.noise is not None}
        return weighed(particles, self._motion, values, known, rng, resting=resting)

    def _summary(
        self,
        belief: Belief,
        now: Particles,
        fresh: Mapping[str, Reading],
        readings: Mapping[str, Reading],
        late: set[str],
    ) -> tuple[frozenset[str], Believed]:
        """Which streams are stuck, and what the particles come to. late: streams whose reading came too late."""
        weight = now.weight
        mean = weight @ now.mean
        spread = np.diagonal(now.cov, axis1=1, axis2=2) + np.square(now.mean - mean)
        values, noise, sensors = dict[str, Array](), dict[str, float](), dict[str, SensorReport]()
        stuck, punctual = set(belief.stuck), now.lag == 0 if belief.late is None else belief.late == 0
        for number, name in enumerate(self._names):
            where, scale = self._motion.places[number], float(self._motion.scale[number])
            error = float(np.sqrt(_trimmed(spread[:, where].mean(axis=1), weight)))
            if error < VAGUE * scale:
                values[name], noise[name] = mean[where].reshape(self._spec[name].shape), error
            if name not in belief.last:
                sensors[name] = self._silent(belief, name)
                continue
            told = belief.told[name]
            sensor = float(np.exp(weight @ np.log(now.noise[:, number]))) * scale if told is None else told
            exact = now.noise[:, number] <= LEAST_NOISE if told is None else told <= LEAST_NOISE * scale
            missed = float(np.linalg.norm(belief.last[name].reshape(-1) - mean[where]))
            doubt = STRAYED * float(np.sqrt((error**2 + sensor**2) * (where.stop - where.start)))
            if belief.repeats[name] >= REPEATS and missed > doubt:
                stuck.add(name)
            # A robot at rest reads the same; a sensor that was caught repeating itself is believed when it changes.
            alive = name in fresh or (name in readings and missed <= doubt and name not in stuck)
            if alive and weight @ (exact & ~now.offset & ~now.off[:, number] & punctual) > PLAIN:
                values[name], noise[name] = readings[name].value, 0.0  # no estimate is better than what is exact
            plain = noise.get(name) == 0.0 or sensor <= 2 * LEAST_NOISE * scale
            sensors[name] = SensorReport(
                noise=0.0 if plain else sensor,
                rejected=name in late or (name in fresh and bool(weight @ now.off[:, number] > 0.5)),
                stuck=name in stuck,
                unheard_steps=belief.unheard[name],
            )
        steps = float(likeliest_lag(now) if belief.late is None else belief.late)
        return frozenset(stuck), Believed(values, noise, sensors, steps)

    def _doubt(self, now: Particles, number: int, value: Array) -> float:
        """See `doubt`: each particle's normal distribution counts by a few of its quantiles."""
        where = self._motion.places[number]
        std = np.sqrt(np.diagonal(now.cov, axis1=1, axis2=2)[:, where])
        apart = np.abs(now.mean[:, where] - value.reshape(-1) + NODES[:, None, None] * std)
        weight = np.broadcast_to(now.weight[:, None], apart.shape)
        order = np.argsort(apart, axis=None)
        share = np.cumsum(weight.reshape(-1)[order])
        doubt = float(apart.reshape(-1)[order[np.searchsorted(share, COVERED * share[-1])]]) / NORMAL
        return doubt if doubt > 2 * LEAST_NOISE * float(self._motion.scale[number]) else 0.0

    def _number(self, name: str) -> int:
        return self._names.index(name)

    def _silent(self, belief: Belief, name: str) -> SensorReport:
        return SensorReport(noise=None, rejected=False, stuck=False, unheard_steps=belief.unheard[name])


def _trimmed(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Weighted mean of the smallest values, those of `TRIMMED` of the weight."""
    order = np.argsort(values)
    share = np.diff(np.minimum(np.cumsum(weight[order]), TRIMMED), prepend=0.0)
    return float(share @ values[order] / share.sum())


def _read_at(waiting: Sequence[tuple[int, int, Array, float | None]], step: int) -> list[tuple[int, Reading]]:
    return [(number, Reading(value, noise)) for at, number, value, noise in waiting if at == step]
