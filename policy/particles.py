"""Where a robot may be, given readings of doubtful sensors: a Rao-Blackwellised particle filter on fitted dynamics.

Each particle supposes how noisy every sensor is, whether a rate is read with an offset, by how many steps all readings
are late, which of them are off and when the robot was jolted; given these, where the robot is and what the offset is
have a closed form, Kalman's. (Doucet et al. 2000, UAI.)
Plain numpy. Knows no network, plan or socket; `belief` decides what is a reading and what is believed in the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from forcing.policy.dynamics import LinearDynamics
from forcing.policy.tokens import Normaliser
from forcing.policy.types import TrajectorySpec

Floats = NDArray[np.float64]

# How often things happen, a step; docs/observations.md tells what was measured and how much hangs on each.
JOLTED = 0.003  # the robot is stopped or pushed by what its dynamics do not know
MOVED = 1e-4  # it is anywhere: nothing that was believed counts
OFF = 0.05  # a reading says nothing, of a sensor of which little is known; then as often as it was so
CHANGED = 0.002  # a sensor's noise becomes another
UNTOLD = 0.02  # of a step's usual change: what fitted dynamics miss of it at every step
EXACT, PUNCTUAL = 0.5, 0.9  # a sensor without noise, and readings that are not late, at the beginning
OFFSET = 0.02  # all rates are read with an offset, the same all the time
# Sensor noise, in recorded standard deviations: what counts as none, and the most there may be.
LEAST_NOISE, MOST_NOISE = 1e-3, 1.0
NOISE_DRIFT = 0.1  # by which the logarithm of a sensor's noise may change in a step
OFF_READINGS, OFF_MEMORY = 4.0, 200.0  # readings that this first guess is worth, and that are remembered
ANYWHERE = 30.0  # recorded standard deviations: robots may be where no recording was
EXPLORED = 1 / 32  # share of particles that suppose the robot was moved, whatever their weight
HOPELESS, UNLIKELY = 1e-9, 1e-4  # of all weight: a lag with less is given up, and offsets with less


@dataclass(frozen=True)
class Motion:
    """How the state of a robot moves, [n] numbers in physical units, and [k] offsets of the sensors of its rates, which
    stay as they are: m = n + k numbers.

    drift: [m, m] of these themselves. process: [m, m] covariance of what the dynamics may miss in a step. jolt: [m, m]
    covariance of what a contact may do: a rate changes by anything that was recorded, and what it is the rate of moves
    by that for a step; the others change as much as they usually do. anywhere: [m, m] covariance while nothing is known
    but that there is no offset; offset: [m, m] that of offsets. senses: of each stream, [size, m] what a sensor reads.
    mean, std: [n] of the recordings. scale: [S] mean std of each stream.
    """

    dynamics: LinearDynamics
    drift: Floats
    process: Floats
    jolt: Floats
    anywhere: Floats
    offset: Floats
    senses: tuple[Floats, ...]
    mean: Floats
    std: Floats
    scale: Floats

    @cached_property
    def places(self) -> list[slice]:
        """Where each stream lies in the state."""
        return list(self.dynamics.streams.values())


def motion_of(dynamics: LinearDynamics, spec: TrajectorySpec, normaliser: Normaliser) -> Motion:
    """What the recordings say about how a state moves."""
    places, n = dynamics.streams, len(dynamics.low)
    std, mean = (np.concatenate([table[name] for name in places]) for table in (normaliser.std, normaliser.mean))
    drift, push = dynamics.weights[:n], dynamics.weights[n:-1]
    usual = np.sqrt((drift**2).T @ std**2 + (push**2).T @ np.square(normaliser.std[spec.action.name]))
    rates = {
        stream.name: stream.rate_of
        for stream in spec.of_role("observation")
        if stream.rate_of is not None and stream.rate_of in places
    }
    jolts, offsets = np.diag(usual), dict[str, slice]()
    for name, of in rates.items():
        rate, moved = places[name], places[of]
        jolts[:, rate], jolts[:, moved] = 0.0, 0.0
        jolts[rate, rate] = np.diag(std[rate])
        jolts[moved, rate] = np.diag(std[rate]) / spec.control_hz
        begin = n + sum(place.stop - place.start for place in map(places.__getitem__, offsets))
        offsets[name] = slice(begin, begin + rate.stop - rate.start)
    m = max((place.stop for place in offsets.values()), default=n)
    identity, offset = np.eye(m), np.zeros(m)
    for name, place in offsets.items():
        offset[place] = std[places[name]]
    whole = np.eye(m)
    whole[:n, :n] += drift.T
    return Motion(
        dynamics=dynamics,
        drift=whole,
        process=_padded(np.diag((UNTOLD * usual) ** 2), m),
        jolt=_padded(jolts @ jolts.T, m),
        anywhere=_padded(np.diag((ANYWHERE * std) ** 2), m),
        offset=np.diag(offset**2),
        senses=tuple(
            identity[place] + (identity[offsets[name]] if name in offsets else 0) for name, place in places.items()
        ),
        mean=mean,
        std=std,
        scale=np.array([std[where].mean() for where in places.values()]),
    )


def _padded(matrix: Floats, size: int) -> Floats:
    """[size, size] the matrix in the upper left of zeros."""
    return np.pad(matrix, (0, size - len(matrix)))


@dataclass(frozen=True, slots=True)
class Particles:
    """N suppositions, in groups of `count`: one for each lag, and one for offsets of readings on time.

    mean, cov: [N, m], [N, m, m] of state and offsets, see `Motion`, at step `clock` [N]. offset: [N] whether there is
    one. noise: [N, S] of every sensor, in recorded standard
    deviations. off: [N, S] whether the last reading of each sensor said nothing. lag: [N] control steps that readings
    are late. log_weight: [N], normalised. counted: [S, 2] readings of each sensor lately that said nothing, and all, by
    what was believed of them.
    """

    mean: Floats
    cov: Floats
    offset: NDArray[np.bool_]
    noise: Floats
    off: NDArray[np.bool_]
    lag: NDArray[np.int64]
    clock: NDArray[np.int64]
    log_weight: Floats
    counted: Floats
    count: int

    @property
    def off_rate(self) -> Floats:
        """[S] how often a reading of each sensor says nothing."""
        return np.asarray((OFF * OFF_READINGS + self.counted[:, 0]) / (OFF_READINGS + self.counted[:, 1]))

    @property
    def weight(self) -> Floats:
        """[N], sum 1."""
        return np.asarray(np.exp(self.log_weight))

    def rows(self, index: NDArray[np.int64], log_weight: Floats) -> "Particles":
        """Some of the particles, at other weights."""
        return replace(
            self,
            mean=self.mean[index],
            cov=self.cov[index],
            offset=self.offset[index],
            noise=self.noise[index],
            off=self.off[index],
            lag=self.lag[index],
            clock=self.clock[index],
            log_weight=log_weight - np.logaddexp.reduce(log_weight),
        )


def begin(motion: Motion, count: int, rng: np.random.Generator) -> Particles:
    """Particles of a robot that may be anywhere, with readings on time."""
    share = np.ones(1)
    if motion.offset.any():
        share = np.array([1 - OFFSET, OFFSET])
    offset = np.repeat(np.arange(len(share)) == 1, count)
    many = len(offset)
    noise = np.where(rng.random((many, len(motion.scale))) < EXACT, LEAST_NOISE, _noise(many, motion, rng))
    return Particles(
        mean=np.tile(np.pad(motion.mean, (0, len(motion.drift) - len(motion.mean))), (many, 1)),
        cov=np.where(offset[:, None, None], motion.anywhere + motion.offset, motion.anywhere),
        offset=offset,
        noise=noise,
        off=np.zeros(noise.shape, dtype=np.bool_),
        lag=np.zeros(many, dtype=np.int64),
        clock=np.zeros(many, dtype=np.int64),
        log_weight=np.log(np.repeat(share, count) / count),
        counted=np.zeros((len(motion.scale), 2)),
        count=count,
    )


def lagging(particles: Particles, lags: NDArray[np.int64]) -> Particles:
    """The particles, whose readings are all on time, and besides them those who suppose of the same readings that they
    were late. lags: [G] control steps, rising from 0. An offset is supposed of readings on time alone."""
    punctual = np.flatnonzero(~particles.offset)
    index = np.concatenate([punctual, np.flatnonzero(particles.offset), np.tile(punctual, len(lags) - 1)])
    lag = np.concatenate([np.zeros(len(particles.lag), dtype=np.int64), np.repeat(lags[1:], len(punctual))])
    share = np.where(lag == 0, np.log(PUNCTUAL), np.log((1 - PUNCTUAL) / max(1, len(lags) - 1)))
    late = particles.rows(index, particles.log_weight[index] + share)
    return replace(late, lag=lag, clock=np.maximum(late.clock - lag, 0))


def _noise(many: int, motion: Motion, rng: np.random.Generator) -> Floats:
    """[many, S] noise of sensors about which nothing is known."""
    low, high = np.log(3 * LEAST_NOISE), np.log(MOST_NOISE)
    return np.asarray(np.exp(rng.uniform(low, high, (many, len(motion.scale)))))


def advanced(particles: Particles, motion: Motion, actions: Floats, first: int, until: NDArray[np.int64]) -> Particles:
    """The particles with their clocks at `until` [N], none of which is behind, as the dynamics move them without a
    jolt. actions: [T, m] sent at the steps from `first` on, which no clock is before."""
    mean, cov, clock, n = particles.mean, particles.cov, particles.clock, len(motion.mean)
    while True:
        moves = np.asarray(clock < until)
        if not moves.any():
            return replace(particles, mean=mean, cov=cov, clock=clock)
        action = actions[np.minimum(clock - first, len(actions) - 1)]
        moved = moves[:, None]
        following = np.concatenate([motion.dynamics.step(mean[:, :n], action), mean[:, n:]], axis=1)
        mean = np.where(moved, following, mean)
        cov = np.where(moved[..., None], motion.drift @ cov @ motion.drift.T + motion.process, cov)
        clock = clock + moves


def disturbed(particles: Particles, motion: Motion, rng: np.random.Generator) -> Particles:
    """The particles after what may have happened in a step besides: sensors that changed, a robot that was moved."""
    shape, noise = particles.noise.shape, particles.noise
    exact = noise <= LEAST_NOISE
    drifted = noise * np.exp(NOISE_DRIFT * rng.standard_normal(shape))
    noise = np.where(exact, noise, drifted.clip(1.01 * LEAST_NOISE, MOST_NOISE))
    other = np.where(exact, _noise(shape[0], motion, rng), LEAST_NOISE)
    noise = np.where(rng.random(shape) < CHANGED, other, noise)
    moved = np.asarray(rng.random(shape[0]) < EXPLORED)
    log_weight = particles.log_weight + np.where(moved, np.log(MOVED / EXPLORED), np.log((1 - MOVED) / (1 - EXPLORED)))
    mean, cov, n = particles.mean.copy(), particles.cov.copy(), len(motion.mean)
    mean[moved, :n] = motion.mean
    cov[moved, :n], cov[moved, :, :n] = 0.0, 0.0  # what is known of offsets stays
    cov[moved] += motion.anywhere
    return replace(
        particles,
        mean=mean,
        cov=cov,
        noise=noise,
        log_weight=log_weight - np.logaddexp.reduce(log_weight),
    )


def found_at(particles: Particles, state: Floats, clock: int) -> Particles:
    """The particles of sensors that are exact, a step later, when the state [n] was read where it was expected: what
    they suppose stays, and where they have the robot moves along."""
    mean, n = particles.mean.copy(), len(state)
    mean[:, :n] += state - particles.weight @ particles.mean[:, :n]
    counted = particles.counted + np.array([0.0, 1.0])
    counted *= np.minimum(1, OFF_MEMORY / np.maximum(counted[:, 1:], 1))
    return replace(particles, mean=mean, clock=np.full(len(mean), clock), counted=counted)


def unseen(particles: Particles, motion: Motion, rng: np.random.Generator) -> Particles:
    """The particles after a step of which nothing was read: some were jolted. Resampled as well: else those that were
    supposed to be moved took the place of all others in a long silence."""
    jolted = np.asarray(rng.random(len(particles.mean)) < JOLTED)
    cov = np.where(jolted[:, None, None], particles.cov + motion.jolt, particles.cov)
    return _resampled(replace(particles, cov=cov), rng)


def weighed(
    particles: Particles,
    motion: Motion,
    readings: Mapping[int, Floats],
    known: Mapping[int, float],
    rng: np.random.Generator,
    *,
    resting: bool = False,
) -> Particles:
    """The particles after readings of the state at their clocks, resampled where few of a lag still count.

    readings: number of the stream -> [size]. known: number of a stream -> standard error of its sensor, where that
    needs no guess. resting: the robot has not moved, so that only chance tells lags apart, and each keeps
    its weight. Each particle supposes a jolt or none, by how well either explains the readings.
    """
    many = len(particles.mean)
    mean = np.concatenate([particles.mean, particles.mean])
    cov = np.concatenate([particles.cov, particles.cov + motion.jolt])
    log_weight = np.concatenate([particles.log_weight + np.log1p(-JOLTED), particles.log_weight + np.log(JOLTED)])
    off = np.concatenate([particles.off, particles.off])
    for number, reading in readings.items():
        noise = np.tile(particles.noise[:, number] * motion.scale[number], 2)
        if number in known:
            noise = np.full(2 * many, np.hypot(known[number], LEAST_NOISE * motion.scale[number]))
        senses = motion.senses[number]
        towards = _times(cov, senses.T)
        missed, before = reading - mean @ senses.T, _times(towards.swapaxes(1, 2), senses.T)
        eye = np.eye(len(reading))
        fits, weights = [], []
        for more in (0.0, motion.scale[number] ** 2):
            spread = before + (noise**2 + more)[:, None, None] * eye
            inverse, log_det = _inverse(spread)
            distance = (missed * (inverse @ missed[..., None])[..., 0]).sum(axis=1)
            fits.append(-0.5 * (distance + log_det))
            weights.append(inverse)
        fits = [fits[0] + np.log1p(-particles.off_rate[number]), fits[1] + np.log(particles.off_rate[number])]
        either = np.logaddexp(*fits)
        off[:, number] = np.log(rng.random(2 * many)) < fits[1] - either
        log_weight = log_weight + either
        weights[0][off[:, number]] = weights[1][off[:, number]]
        gain = towards @ weights[0]
        mean = mean + (gain @ missed[..., None])[..., 0]
        cov = cov - gain @ towards.swapaxes(1, 2)
    pair = log_weight.reshape(2, many)
    either = np.logaddexp(*pair)
    chosen = np.arange(many) + many * (np.log(rng.random(many)) < pair[1] - either)
    cov = cov[chosen]
    either = either - np.logaddexp.reduce(either)
    cov, off = (cov + cov.swapaxes(1, 2)) / 2, off[chosen]
    counted = particles.counted.copy()
    for number in readings:
        counted[number] += (np.exp(either) @ off[:, number], 1.0)
    counted *= np.minimum(1, OFF_MEMORY / np.maximum(counted[:, 1:], 1))
    if resting:
        either = _as_before(particles, either)
    weighed_all = replace(particles, mean=mean[chosen], cov=cov, off=off, log_weight=either, counted=counted)
    return _resampled(weighed_all, rng)


def _times(stack: Floats, matrix: Floats) -> Floats:
    """[N, a, c] each [a, b] of the stack times [b, c], as one product: a quarter of the time of N small ones."""
    return (stack.reshape(-1, stack.shape[2]) @ matrix).reshape(*stack.shape[:2], -1)


def _inverse(matrices: Floats) -> tuple[Floats, Floats]:
    """[N, d, d] inverses of covariances and [N] logarithms of their determinants; of two numbers in closed form, in a
    fifth of the time."""
    if matrices.shape[1] != 2:
        return np.asarray(np.linalg.inv(matrices)), np.asarray(np.linalg.slogdet(matrices)[1])
    (a, b), (c, d) = matrices.transpose(1, 2, 0)
    determinant = a * d - b * c
    return np.stack([d, -b, -c, a], axis=-1).reshape(-1, 2, 2) / determinant[:, None, None], np.log(determinant)


def _as_before(particles: Particles, log_weight: Floats) -> Floats:
    """[N] log weights after a reading, those of each lag together what they were before it."""
    groups, before = log_weight.reshape(-1, particles.count), particles.log_weight.reshape(-1, particles.count)
    change = np.logaddexp.reduce(before, axis=1) - np.logaddexp.reduce(groups, axis=1)
    return np.asarray((groups + change[:, None]).reshape(-1))


def _resampled(particles: Particles, rng: np.random.Generator) -> Particles:
    """Within each group, which keeps its weight, systematically; groups that are hopeless are given up."""
    count = particles.count
    groups = particles.log_weight.reshape(-1, count)
    total = np.logaddexp.reduce(groups, axis=1)
    kept, log_weight = [], []
    least = np.where(particles.offset[::count], UNLIKELY, HOPELESS)
    for group in np.flatnonzero(total >= total.max() + np.log(least)):
        share = np.exp(groups[group] - total[group])
        index, weight = np.arange(count), groups[group]
        if 1 / (share**2).sum() < count / 2:
            at = (rng.random() + index) / count
            index = np.minimum(np.searchsorted(np.cumsum(share), at), count - 1)
            weight = np.full(count, total[group] - np.log(count))
        kept.append(group * count + index)
        log_weight.append(weight)
    return particles.rows(np.concatenate(kept), np.concatenate(log_weight))


def of_likeliest_lag(particles: Particles) -> Particles:
    """Those of one lag alone, whose clock they keep."""
    index = np.flatnonzero(particles.lag == likeliest_lag(particles))
    return particles.rows(index, particles.log_weight[index])


def likeliest_lag(particles: Particles) -> int:
    """Control steps that readings are late by what most particles suppose, by weight."""
    lags = np.unique(particles.lag)
    weights = [particles.weight[particles.lag == lag].sum() for lag in lags]
    return int(lags[np.argmax(weights)])
