"""Which of the sampled candidates becomes the plan: the one that arrives first among those that can be driven.

Knows no network and no map: feasible is what agrees with itself, ends at the goal, stays out of obstacles and, where
the policy carries them, follows the fitted dynamics and keeps to visited places.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from forcing.policy.candidates import Candidates, Judged
from forcing.policy.polishing import Polished
from forcing.policy.rehearsal import Feedback, Rehearsal, rehearse
from forcing.policy.sampler import PlanState
from forcing.policy.support import Support
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array, Obstacles, Plan

# A rule broken by the share e of its tolerance costs as its square until e is 1 / SOFT: rehearsals of the same plan
# differ by a little, and must not be worlds apart where a plan leads along the edge of a rule.
SOFT = 4.0
# How much dearer entering an obstacle is than breaking another rule by its tolerance: places are at most some hundreds
# of tolerances outside visited ones, so what was named is entered last.
FORBIDDEN = 1000.0
FARTHEST_OUTSIDE = 1.0  # standard deviations of the goal stream: beyond, outside is outside


class Selector:
    """Ranks candidates for one policy."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        kinematic_tolerance: float,
        end_tolerance: float,
        feedback: Feedback | None = None,
        support: Support | None = None,
        support_tolerance: float = np.inf,
        half_life: int | None = None,
    ) -> None:
        """Tolerances in the goal stream's units. feedback: to rehearse candidates with, None not to. support: visited
        places that a plan must not leave by more than `support_tolerance`, None where they are not known. half_life:
        control steps ahead after which a broken rule counts half, None for as much as at once."""
        self.tokenizer, self._feedback, self._support = tokenizer, feedback, support
        self.kinematic_tolerance, self.end_tolerance = kinematic_tolerance, end_tolerance
        self._support_tolerance, self._half_life = support_tolerance, half_life
        spec = tokenizer.spec
        self.name = spec.goal or spec.of_role("observation")[0].name
        if support is not None:
            most = FARTHEST_OUTSIDE * tokenizer.normaliser.scale(self.name)
            self._outside = support.distance(most)

    def choose(
        self,
        made_at_step: int,
        judged: Judged,
        state: PlanState,
        samples: Candidates,
        passes: int,
        polished: Polished | None = None,
    ) -> Plan:
        """The plan of the cheapest candidate, the first of those as cheap, or the polished one, if there is one.

        state: that the judged candidates are decoded from, row by row. samples: of the model before any were improved,
        for the spread. passes: network passes it took. A polished plan is listed behind the candidates.
        """
        candidates, costs = judged.candidates, judged.costs
        row = chosen = int(np.argmin(costs))
        feasible = bool(judged.sound[row])
        if polished is not None:
            row, chosen, feasible = polished.row, len(costs), polished.sound
            candidates, costs = candidates.joined(polished.candidate), np.append(costs, polished.cost)
        layout = self.tokenizer.layout
        frames = int(candidates.used[row].sum())
        level = state.levels[row, layout.history : layout.history + frames // layout.frames]
        return Plan(
            made_at_step=made_at_step,
            start={key: values[row] for key, values in candidates.start.items()},
            steps=candidates.steps[:frames],
            streams={key: values[chosen, :frames] for key, values in candidates.streams.items()},
            level=level.repeat_interleave(layout.frames, dim=0).numpy(),
            spread=self._spread(samples, frames),
            candidates=candidates.path(self.name),
            costs=costs,
            chosen=chosen,
            feasible=feasible,
            passes=passes,
        )

    def _spread(self, samples: Candidates, frames: int) -> dict[str, Array]:
        """Stream -> [frames, *shape] standard deviation between the samples of so many frames; that of the recording
        where there are fewer than two, which tell nothing."""
        siblings = np.flatnonzero(samples.used.sum(axis=1) == frames)
        if len(siblings) > 1:
            return {name: values[siblings, :frames].std(axis=0) for name, values in samples.streams.items()}
        std = self.tokenizer.normaliser.std
        return {
            name: np.broadcast_to(np.reshape(std[name], values.shape[2:]), (frames, *values.shape[2:]))
            for name, values in samples.streams.items()
        }

    def rest(self, current: Plan, step: int, *, between: bool = False) -> tuple[dict[str, Array], Array] | None:
        """What is left of a plan at this step, its end held until its last token is whole, as it would be driven.

        between: frames are moved to the present also in the midst of one, linearly; else a part of a frame is the
        rehearsal's to make up for, and a plan that is kept more often than once a frame would never go on.

        Stream -> [T * frames, *shape], and [T, S] the noise level still on each token's first frame. None if it is
        over, or if nothing would tell that the robot has strayed from it.
        """
        if self._feedback is None and self.tokenizer.spec.rate(self.tokenizer.spec.goal) is None:
            return None
        layout = self.tokenizer.layout
        over, part = divmod(max(0, step - current.made_at_step), layout.stride)  # what is planned from may be older
        left = len(current.steps) - over
        if left < 1:
            return None
        frames = -(-left // layout.frames) * layout.frames
        observed = [stream.name for stream in self.tokenizer.spec.of_role("observation")]
        before = current.start if over == 0 else {name: current.streams[name][over - 1] for name in observed}
        streams = {name: values[over:] for name, values in current.streams.items()}
        if between and part:
            share = part / layout.stride
            before = {name: _mixed(before[name], streams[name][0], share) for name in observed}
            streams = {
                name: _mixed(values, np.concatenate([values[1:], values[-1:]]), share)
                for name, values in streams.items()
            }
        held = self._held(
            Candidates(
                steps=np.arange(1, left + 1) * layout.stride,
                used=np.ones((1, left), dtype=np.bool_),
                start={name: values[None] for name, values in before.items()},
                streams={name: values[None] for name, values in streams.items()},
            )
        )
        driven = held.streams if self._feedback is None else self._rehearse(self._feedback, held).streams
        return {name: values[0, :frames] for name, values in driven.items()}, current.level[over :: layout.frames]

    def decode(self, state: PlanState) -> Candidates:
        """The candidates that the last guess of the clean tokens, `state.x0_hat`, means: one a row."""
        assert state.x0_hat is not None
        layout = self.tokenizer.layout
        horizons = state.lengths.numpy() - layout.history - 1
        past = self.tokenizer.decode(state.x0_hat[:, : layout.history])
        # A search may have dropped the longest horizon: rows can be longer than any of their plans.
        frames = (state.x0_hat.shape[1] - layout.history - 1) * layout.frames
        steps = np.arange(1, frames + 1) * layout.stride
        return Candidates(
            steps=steps,
            used=steps[None, :] <= horizons[:, None] * layout.token_steps,
            start={stream.name: past[stream.name][:, -1] for stream in self.tokenizer.spec.of_role("observation")},
            streams=self.tokenizer.decode(state.x0_hat[:, layout.history : -1]),
        )

    def _rehearse(self, feedback: Feedback, planned: Candidates) -> Rehearsal:
        return rehearse(feedback, planned.start, planned.steps, planned.streams, self.tokenizer.spec.action)

    def _held(self, sampled: Candidates) -> Candidates:
        """The candidates with another token each, in which a robot that follows them holds their end."""
        layout, spec = self.tokenizer.layout, self.tokenizer.spec
        own = sampled.used.sum(axis=1)
        index = np.arange(sampled.used.shape[1] + layout.frames)
        over = index >= own[:, None]
        streams = {}
        for stream in spec.streams:
            if stream.name not in sampled.streams:
                continue
            values = sampled.streams[stream.name]
            kept = np.minimum(index, own[:, None] - 1).reshape(*over.shape, *(1,) * len(stream.shape))
            streams[stream.name] = np.take_along_axis(values, kept, axis=1)
            if stream.role == "action" or stream.name == spec.rate(spec.goal):
                streams[stream.name][over] = 0.0
        return replace(
            sampled,
            steps=(index + 1) * layout.stride,
            used=index < own[:, None] + layout.frames,
            streams=streams,
        )

    def judge(self, sampled: Candidates, goal: Array | None, obstacles: Obstacles | None) -> Judged:
        """The candidates as they would be driven. They cost the steps to arrive, plus the longest horizon's steps for
        each tolerance by which a rule is broken, less up to a quarter of a tolerance (`SOFT`); inside an obstacle that
        much besides.

        goal: [*goal shape]. Where candidates are rehearsed, they are looked at after every control step instead of in
        their frames alone, their end is held for a token more, and all rules but that of the rehearsal itself look at
        that too.
        """
        candidates, path, steps, wrong = self._as_driven(sampled)
        cost = candidates.last_steps().astype(np.float64)
        there = ~np.isnan(path[..., 0])
        if goal is not None:
            away = np.linalg.norm(path - np.asarray(goal, dtype=np.float64).reshape(-1), axis=-1)
            last = there.sum(axis=1) - 1
            wrong.append(np.take_along_axis(away, last[:, None], axis=1)[:, 0] / self.end_tolerance)
            cost = _arrival(away, steps, self.end_tolerance) + 1e-3 * cost
        if self._support is not None:
            outside = self.outside(np.where(there[..., None], path, self._support.origin))
            wrong.append(self._worst(np.where(there, outside, 0), steps))
        penalty = float(self.tokenizer.layout.horizon * self.tokenizer.layout.token_steps)
        sound = np.ones(len(path), dtype=np.bool_)
        if obstacles is not None:
            inside = obstacle_depth(obstacles, path)
            cost = cost + FORBIDDEN * penalty * np.where(inside > 0, 1 + inside, 0)
            sound &= inside <= 0
        for excess in wrong:
            over = np.maximum(0, excess - 1)
            cost = cost + penalty * over * np.minimum(1, SOFT * over)
            sound &= over <= 1 / SOFT
        return Judged(candidates, cost, sound)

    def _as_driven(
        self, sampled: Candidates
    ) -> tuple[Candidates, NDArray[np.float64], NDArray[np.int64], list[NDArray[np.float64]]]:
        """The candidates as they would be driven; [C, T, d] the way that is looked at, NaN past a plan's end, after [T]
        control steps; and, where anything tells, the worst by which a candidate and its way disagree, in tolerances."""
        if self._feedback is None:
            path, steps = sampled.path(self.name), sampled.steps
            residual = kinematic_residual(self.tokenizer, sampled.start, sampled.streams)
            if residual is None:
                return sampled, path, steps, []
            share = np.where(sampled.used, residual, 0) / self.kinematic_tolerance
            return sampled, path, steps, [self._worst(share, steps)]
        held = self._held(sampled)
        driven = self._rehearse(self._feedback, held)
        frames = len(sampled.steps)
        candidates = replace(sampled, streams={name: values[:, :frames] for name, values in driven.streams.items()})
        strayed = np.linalg.norm(candidates.path(self.name) - sampled.path(self.name), axis=-1)
        share = np.where(sampled.used, strayed, 0) / self.kinematic_tolerance
        path, steps = driven.states[..., self._feedback.dynamics.streams[self.name]], np.arange(held.steps[-1]) + 1
        path = np.where((steps <= held.last_steps()[:, None])[..., None], path, np.nan)
        return candidates, path, steps, [self._worst(share, sampled.steps)]

    def outside(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """[...] how far places [..., d] are from visited ones, in what is tolerated; 0 where none is known."""
        if self._support is None:
            return np.zeros(places.shape[:-1])
        return self._support.between(self._outside, places) / self._support_tolerance

    def _worst(self, share: NDArray[np.float64], steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C] the most by which a rule is broken. share: [C, T] of its tolerance after so many control steps. What lies
        beyond the tolerance counts half after each half life: that far ahead, a later plan is driven."""
        if self._half_life is None:
            return np.asarray(share.max(axis=1))
        return np.asarray((share - np.maximum(share - 1, 0) * (1 - 0.5 ** (steps / self._half_life))).max(axis=1))


def _mixed(a: Array, b: Array, share: float) -> Array:
    return np.asarray((1 - share) * a + share * b)


def _arrival(away: NDArray[np.float64], steps: NDArray[np.int64], near: float) -> NDArray[np.float64]:
    """[C] steps to the first frame from which on all of a plan's frames are `near` the goal; to its last frame if none
    is. away: [C, F], NaN past a plan's end."""
    far = ~(away <= near) & ~np.isnan(away)
    last_far = np.where(far.any(axis=1), far.shape[1] - 1 - np.argmax(far[:, ::-1], axis=1), -1)
    last = (~np.isnan(away)).sum(axis=1) - 1
    return np.asarray(steps[np.minimum(last_far + 1, last)], dtype=np.float64)


def kinematic_residual(
    tokenizer: Tokenizer, start: Mapping[str, Array], decoded: Mapping[str, Array]
) -> NDArray[np.float64] | None:
    """[B, F] distance between each planned position and where the planned velocities lead from the frame before it.

    The trapezoid rule on the goal stream and the stream that is its rate. start: stream -> [B, *shape] the frame before
    the first. None if no stream is the goal's rate.
    """
    spec, rate = tokenizer.spec, tokenizer.spec.rate(tokenizer.spec.goal)
    if spec.goal is None or rate is None:
        return None
    position, velocity = (np.concatenate([start[name][:, None], decoded[name]], axis=1) for name in (spec.goal, rate))
    position, velocity = (values.reshape(*values.shape[:2], -1) for values in (position, velocity))
    dt_s = tokenizer.layout.stride / spec.control_hz
    expected = position[:, :-1] + dt_s * 0.5 * (velocity[:, :-1] + velocity[:, 1:])
    return np.asarray(np.linalg.norm(position[:, 1:] - expected, axis=-1), dtype=np.float64)


def obstacle_depth(obstacles: Obstacles, places: Array) -> NDArray[np.float64]:
    """[C] radii by which the deepest of each candidate's frames is inside an obstacle, 0 if none is.

    places: [C, F, d], NaN where a candidate has no frame, in the obstacles' units. What lies between frames is not
    looked at.
    """
    apart = np.linalg.norm(places[:, :, None] - np.asarray(obstacles.centres), axis=-1)
    depth = 1 - apart / np.asarray(obstacles.radii)
    return np.asarray(np.fmax(depth, 0).max(axis=(1, 2), initial=0), dtype=np.float64)
