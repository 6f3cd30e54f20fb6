"""From what was observed and a goal to a plan: candidates over several horizons, the first to arrive of those feasible.

Knows no simulator and no map; candidates come from the denoiser's idea of what trajectories look like, are judged by
`selection`, and the best of them bent a little by `polishing`, beside the rest of the plan that is being followed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forcing.policy.candidates import Candidates, Judged
from forcing.policy.guidance import Guidance
from forcing.policy.objectives import Objective, avoid, reach, smooth, sooner, weighted_sum
from forcing.policy.polishing import PolishConfig, Polished, Polisher
from forcing.policy.refinement import RefineConfig, refine
from forcing.policy.rehearsal import Feedback
from forcing.policy.sampler import Model, PlanState, denoise_step, stabilised
from forcing.policy.schedules import Schedule
from forcing.policy.search import Cost, SearchConfig, search
from forcing.policy.selection import Selector
from forcing.policy.support import Support
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array, Obstacles, Plan, Recalled

ANOTHER = 7919**4  # between the seeds of attempts at one plan: far beyond any number of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerConfig:
    """How plans are sampled and chosen.

    schedule: scheduling matrix of the plan tokens. samples: candidates of each horizon. goal_by: `clamp` holds the
    goal token clean, `guidance` leaves it unknown and steers by the gradient of the distance at the plan's end.
    guidance_scale, smooth_scale, sooner_scale, avoid_scale: weights of `reach` (with `guidance` alone), `smooth`,
    `sooner` (with a goal) and `avoid` (with obstacles) among the objectives, policy/objectives.py; 0 for none.
    futures, rollout_steps: Monte-Carlo futures that their gradient is averaged over, 0 for none, and the network
    passes of each. passes: network passes, the rows of the scheduling matrix that are done; fewer than all leave the
    far future noisy, None does all. rehearse: candidates become what following them would lead to, where the policy
    carries fitted dynamics. keep: the rest of the plan that is being followed is a candidate too, and wins if it is
    not dearer than any other. kinematic_tolerance, end_tolerance: what counts as feasible, in the goal stream's units:
    the largest distance between a candidate and its rehearsal, or without one the largest disagreement of planned
    positions and velocities from one frame to the next; and the distance between the plan's end and the goal.
    support_tolerance: how far a plan may leave visited places, None if it need not ask. half_life: control steps ahead
    after which a broken rule counts half, since another plan will be driven there; None for as much as at once.
    hold_distance: nearer to the
    goal than this, a plan that ends there is followed without making another. kinematic_tolerance, end_tolerance and
    hold_distance are a fifth of the goal stream's standard deviation if None. replan_steps: control steps after which a
    plan is made anew. replan_error: distance from the planned position at which that is done at once, or three declared
    standard errors further where there are any; None for never.
    attempts: at most as many times a first plan's candidates are sampled, and improved on, while none keeps all rules.
    search: a tree search in place of independent samples, which then number its roots. refine: rounds in which the best
    of the candidates are varied and judged again, None for none. polish: what is done to the best of them on the fitted
    dynamics then, where there are any, None for nothing. history_frames: observed frames that the planner is shown, the
    newest alone by default. stabilisation: level, at least 0 and below 1, at which planned tokens are declared to the
    network once they are clean and others are not yet (see `sampler.stabilised`); not with a search.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(sampling_steps=3, uncertainty_scale=0.5))
    samples: int = 4
    goal_by: Literal["clamp", "guidance"] = "clamp"
    guidance_scale: float = 10.0
    smooth_scale: float = 0.0
    sooner_scale: float = 0.0
    avoid_scale: float = 10.0
    futures: int = 0
    rollout_steps: int = 2
    passes: int | None = 3
    rehearse: bool = True
    keep: bool = False
    kinematic_tolerance: float | None = None
    end_tolerance: float | None = None
    support_tolerance: float | None = None
    half_life: int | None = None
    hold_distance: float | None = None
    replan_error: float | None = None
    replan_steps: int = 32
    history_frames: int = 1
    attempts: int = 1
    search: SearchConfig | None = None
    refine: RefineConfig | None = None
    polish: PolishConfig | None = None
    stabilisation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("samples", "replan_steps", "history_frames", "passes", "rollout_steps", "attempts", "half_life"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("guidance_scale", "smooth_scale", "sooner_scale", "avoid_scale", "futures"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}")
        for name in ("kinematic_tolerance", "end_tolerance", "support_tolerance", "hold_distance", "replan_error"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.stabilisation < 1:
            raise ValueError(f"stabilisation must be at least 0 and below 1, got {self.stabilisation}")
        if self.stabilisation > 0 and self.search is not None:
            raise ValueError(f"stabilisation must be 0 with a search, got {self.stabilisation}; leave one of them out")
        if self.goal_by not in ("clamp", "guidance"):
            raise ValueError(f"goal_by must be 'clamp' or 'guidance', got {self.goal_by!r}")

    def sampling_alone(self) -> "PlannerConfig":
        """The same without what improves on samples or competes with them: the plan is one of them, rehearsed."""
        return replace(self, attempts=1, keep=False, search=None, refine=None, polish=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """All that a plan depends on.

    step: control step it is made at. frames: observation stream -> [history frames, *shape], newest last; a stream that
    is missing is left out. noise: stream -> standard error of its frames in its own units. goal: [*goal shape] or
    None. seed: of the session; the same request gives the same plan. obstacles: to stay out of, in the goal stream, or
    without one in the first observation. current: the plan that is being followed, if it may be kept. sent: [k, A]
    actions of the first k steps, which are held as they are: the frames are k steps old.
    recalled: what came before and is now, for policies that remember, whose requests have no frames.
    doubt: stream -> what its newest frame may be off by, see `Believed`; it widens the spread and does nothing else.
    """

    step: int
    frames: Mapping[str, Array]
    noise: Mapping[str, float]
    goal: Array | None
    seed: int
    obstacles: Obstacles | None = None
    current: Plan | None = None
    sent: Array | None = None
    recalled: Recalled | None = None
    doubt: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """state: candidates, one a row. judged: they. samples: of the model, before any was improved. passes: of the
    network."""

    state: PlanState
    judged: Judged
    samples: Candidates
    passes: int


class Planner:
    """Samples candidate plans with a model and picks one."""

    between_frames = False  # see `Selector.rest`

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        config: PlannerConfig,
        *,
        feedback: Feedback | None = None,
        support: Support | None = None,
    ) -> None:
        """feedback: of fitted dynamics; support: visited places; None where the recording shows none."""
        self.model, self.tokenizer, self.config = model, tokenizer, config
        usual = math.inf
        if tokenizer.spec.goal is not None:
            usual = 0.2 * tokenizer.normaliser.scale(tokenizer.spec.goal)
        self.hold_distance = config.hold_distance or usual
        self.selector = Selector(
            tokenizer,
            kinematic_tolerance=config.kinematic_tolerance or usual,
            end_tolerance=config.end_tolerance or usual,
            feedback=feedback if config.rehearse else None,
            support=support if config.support_tolerance is not None else None,
            support_tolerance=config.support_tolerance or math.inf,
            half_life=config.half_life,
        )
        self._polisher = None
        if config.polish is not None and feedback is not None and config.rehearse and tokenizer.spec.goal is not None:
            self._polisher = Polisher(tokenizer, config.polish)

    def plan(self, request: PlanRequest) -> Plan:
        """The chosen plan. Raises FloatingPointError if the model's guess is not finite."""
        made = self._attempt(request, 0)
        passes = made.passes
        # A robot that stands where no plan keeps the rules would think of nothing else.
        for attempt in range(1, self.config.attempts if request.current is None else 1):
            if made.judged.sound.any():
                break
            other = self._attempt(request, attempt)
            passes += other.passes
            made = min(made, other, key=lambda one: float(one.judged.costs.min()))
        polished = None
        if self._polisher is not None and request.goal is not None:
            polished = self._polished(self._polisher, made.judged, request)
        return self.selector.choose(request.step, made.judged, made.state, made.samples, passes, polished)

    def _polished(self, polisher: Polisher, judged: Judged, request: PlanRequest) -> Polished | None:
        rng = np.random.default_rng((request.seed % 2**63, request.step))
        return polisher.polish(judged, lambda some: self._judge(some, request), rng)

    def _attempt(self, request: PlanRequest, attempt: int) -> "_Attempt":
        """Candidates sampled or searched for, and refined if they are to be."""
        config, roots = self.config, self._start(request, attempt)
        state, passes = self._sampled(request, roots) if config.search is None else self._searched(request, roots)
        samples = self.selector.decode(finite(state))
        state = self._with_rest(state, request, roots)
        if config.refine is not None:
            planned, cost, guide = self._planned(state), self._cost(request), self._guide(request)
            state, more = refine(self._model(request), state, planned, cost, config.refine, guide)
            passes += more
        return _Attempt(state, self._judge(self.selector.decode(finite(state)), request), samples, passes)

    def _judge(self, candidates: Candidates, request: PlanRequest) -> Judged:
        return self.selector.judge(candidates, request.goal, request.obstacles)

    def _sampled(self, request: PlanRequest, roots: PlanState) -> tuple[PlanState, int]:
        """Independent samples, and the network passes they took."""
        guide, previous, passes = self._guide(request), None, 0
        for state in self._sampling(request, roots):
            if previous is not None:
                passes += 1 + (0 if guide is None else guide.passes(previous, state.levels < previous.levels))
            previous = state
        return state, passes

    def _searched(self, request: PlanRequest, roots: PlanState) -> tuple[PlanState, int]:
        """The best rows that a search finds, and the network passes it took."""
        config, depth = self.config.search, self._depth(roots)
        assert config is not None
        cost, guide = self._cost(request), self._guide(request)
        found = search(self._model(request), roots, depth, self._levels_at, cost, config, guide)
        return found.state, found.passes

    def _cost(self, request: PlanRequest) -> Cost:
        return lambda state: self._judge(self.selector.decode(finite(state)), request).costs

    def _with_rest(self, state: PlanState, request: PlanRequest, roots: PlanState) -> PlanState:
        """The candidates behind the rest of the plan that is being followed, where it is to compete. roots: pure noise
        with history and goal, of every horizon."""
        assert state.x0_hat is not None
        rest = self._rest(request, roots, state.x0_hat[:1]) if self.config.keep else None
        return state if rest is None else replace(rest, generator=state.generator).joined(state)

    def _rest(self, request: PlanRequest, roots: PlanState, guess: Tensor) -> PlanState | None:
        """The rest of the plan that is being followed, one row; None if there is none, or no goal that it leads to.

        roots: pure noise with history and goal, of every horizon. guess: [1, L, D] of the clean history.
        """
        current, goal = request.current, request.goal
        rest = None
        if current is not None and goal is not None:
            rest = self.selector.rest(current, request.step, between=self.between_frames)
        if rest is None or goal is None:
            return None
        (streams, level), layout = rest, self.tokenizer.layout
        row = roots.rows(torch.nonzero(self._horizons(roots) == len(level))[0])
        end = layout.history + len(level)
        x0_hat, levels = guess.clone(), row.levels.clone()
        for name, values in streams.items():
            x0_hat[0, layout.history : end, self.tokenizer.slices[name]] = self.tokenizer.encode_frames(name, values)
        x0_hat[0, end, self._goal_slice] = self.goal_token(goal)
        levels[0, layout.history : end] = torch.from_numpy(level)
        noised = self.model.schedule.add_noise(x0_hat, levels[..., self.model.features], row.tokens)
        tokens = torch.where(self._planned(row)[..., None], noised, row.tokens)
        return replace(row, tokens=tokens, levels=levels, x0_hat=x0_hat)

    def horizons(self, request: PlanRequest) -> NDArray[np.int64]:
        """[C] plan tokens of each candidate."""
        longest = self.tokenizer.layout.horizon
        if request.goal is None:
            return np.full(self.config.samples, longest)
        return np.repeat(np.arange(1, longest + 1), self.config.samples)

    def sampling(self, request: PlanRequest) -> Iterator[PlanState]:
        """The candidates from pure noise to the plan, a state after each network pass; rows as in `horizons`."""
        return self._sampling(request, self._start(request))

    def _sampling(self, request: PlanRequest, state: PlanState) -> Iterator[PlanState]:
        guide, model = self._guide(request), self._model(request)
        yield state
        for row in range(1, self._depth(state) + 1):
            state = denoise_step(model, state, self._levels_at(state, row), guide, self._declared(state))
            yield state

    def _declared(self, state: PlanState) -> Tensor | None:
        """[B, L, S] levels that the network is told, None for the state's own."""
        if self.config.stabilisation == 0:
            return None
        return stabilised(state.levels, self._planned(state)[..., None], self.config.stabilisation)

    def _planned(self, state: PlanState) -> Tensor:
        """Bool [B, L]: tokens of the plan, neither history nor goal."""
        index = torch.arange(state.tokens.shape[1])
        return (index >= self.tokenizer.layout.history) & (index < state.lengths[:, None] - 1)

    def _start(self, request: PlanRequest, attempt: int = 0) -> PlanState:
        """History and goal at their levels, everything else pure noise, another one in each attempt."""
        layout, tokenizer = self.tokenizer.layout, self.tokenizer
        generator = torch.Generator().manual_seed((request.seed * 1_000_003 + request.step + attempt * ANOTHER) % 2**63)
        horizons = torch.from_numpy(self.horizons(request))
        batch, length = len(horizons), layout.history + int(horizons.max()) + 1
        tokens = torch.randn(batch, length, tokenizer.width, generator=generator)
        levels = torch.ones(batch, length, len(tokenizer.streams))
        for index, stream in enumerate(tokenizer.streams):
            if stream.name not in request.frames:
                continue
            where = tokenizer.slices[stream.name]
            level = torch.tensor(self.level_of(stream.name, request.noise.get(stream.name, 0.0)))
            shown = tokenizer.encode_frames(stream.name, request.frames[stream.name])
            if level < 1:
                tokens[:, : layout.history, where] = self.model.schedule.alpha_bar(level).sqrt() * shown
            levels[:, : layout.history, index] = level
        if request.goal is not None and self.config.goal_by == "clamp":
            rows, last = torch.arange(batch), layout.history + horizons
            tokens[rows, last, self._goal_slice] = self.goal_token(request.goal)
            levels[rows, last, self._goal_index] = 0.0
        return PlanState(tokens, levels, layout.history + horizons + 1, generator)

    def _model(self, request: PlanRequest) -> Model:
        """The model, which has no doubt about actions that were sent already: frames that they fill are theirs."""
        layout, where = self.tokenizer.layout, self.tokenizer.slices[self.tokenizer.spec.action.name]
        count = 0 if request.sent is None else min(len(request.sent) // layout.stride, layout.horizon * layout.frames)
        if request.sent is None or count == 0:
            return self.model
        size = self.tokenizer.spec.action.size
        frames = np.asarray(request.sent, dtype=np.float64)[: count * layout.stride]
        frames = frames.reshape(count, layout.stride, size).mean(axis=1)
        whole = np.zeros((-(-count // layout.frames) * layout.frames, size))
        whole[:count] = frames
        sent = self.tokenizer.encode_frames(self.tokenizer.spec.action.name, whole)
        held = (torch.arange(len(whole)) < count).repeat_interleave(size).reshape(sent.shape)

        def denoise(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
            x0_hat = self.model.denoise(x, levels, lengths).clone()
            ahead = slice(layout.history, min(layout.history + len(sent), x.shape[1] - 1))
            many = ahead.stop - ahead.start
            x0_hat[:, ahead, where] = torch.where(held[:many], sent[:many], x0_hat[:, ahead, where])
            return x0_hat

        return replace(self.model, denoise=denoise)

    def level_of(self, name: str, sigma: float) -> float:
        """Level at which a stream's value with the standard error `sigma`, in its units, enters."""
        if sigma == 0:  # of most values at most steps, and torch is slow at single numbers
            return 0.0
        return float(self.model.schedule.level_of(torch.tensor(sigma / self.tokenizer.normaliser.scale(name))))

    def _guide(self, request: PlanRequest) -> Guidance | None:
        """What steers the candidates, None if nothing does."""
        config, terms = self.config, list[tuple[float, Objective]]()
        if request.goal is not None:
            if config.goal_by == "guidance":
                terms.append((config.guidance_scale, reach(self.tokenizer, request.goal)))
            spread = self.tokenizer.normaliser.scale(self._goal_name)
            terms.append((config.sooner_scale, sooner(self.tokenizer, request.goal, radius=spread)))
        terms.append((config.smooth_scale, smooth(self.tokenizer, self.selector.name)))
        if request.obstacles is not None:
            terms.append((config.avoid_scale, avoid(self.tokenizer, request.obstacles, self.selector.name)))
        wanted = [(weight, term) for weight, term in terms if weight > 0]
        if not wanted:
            return None
        objective = weighted_sum(*wanted)
        return Guidance(objective=objective, futures=config.futures, rollout_steps=config.rollout_steps)

    def _depth(self, state: PlanState) -> int:
        """Network passes from pure noise to the plans: rows of the longest one's scheduling matrix, as many as asked
        for."""
        rows = max(len(self.config.schedule.matrix(int(plan))) for plan in torch.unique(self._horizons(state))) - 1
        return min(rows, self.config.passes or rows)

    def _levels_at(self, state: PlanState, row: int) -> Tensor:
        """[B, L, S] levels of each of the state's rows at a row of its scheduling matrix, the last one once that is
        over."""
        history, levels = self.tokenizer.layout.history, state.levels.clone()
        horizons = self._horizons(state)
        for plan in torch.unique(horizons).tolist():
            matrix = self.config.schedule.matrix(plan)
            column = torch.from_numpy(matrix[min(row, len(matrix) - 1)])
            levels[horizons == plan, history : history + plan] = column[:, None]
        return levels

    def _horizons(self, state: PlanState) -> Tensor:
        """[B] plan tokens of each row."""
        return state.lengths - self.tokenizer.layout.history - 1

    @property
    def _goal_name(self) -> str:
        assert self.tokenizer.spec.goal is not None, "controllers refuse a goal where the spec has none"
        return self.tokenizer.spec.goal

    @property
    def _goal_index(self) -> int:
        assert self.tokenizer.goal_index is not None
        return self.tokenizer.goal_index

    @property
    def _goal_slice(self) -> slice:
        return self.tokenizer.slices[self._goal_name]

    def goal_token(self, goal: Array) -> Tensor:
        """[frames * size]: the goal held for a whole token."""
        frames = np.repeat(np.asarray(goal, dtype=np.float64)[None], self.tokenizer.layout.frames, axis=0)
        return self.tokenizer.encode_frames(self._goal_name, frames)[0]


def attempted(make: Callable[..., Plan], *args: Any) -> Plan | Exception:
    """What `make` returns or raises: one plan that cannot be made takes no other along."""
    try:
        return make(*args)
    except Exception as error:
        return error


def finite(state: PlanState) -> PlanState:
    """The state itself. Raises FloatingPointError if the model's guess is not finite."""
    if state.x0_hat is None or not bool(torch.isfinite(state.x0_hat).all()):
        raise FloatingPointError(
            "the denoiser's guess is not finite: an observation or the goal is far from the recordings, "
            "or the policy's weights are damaged"
        )
    return state
