"""The plan that is being followed, kept up instead of made anew: its rest is moved to the present, its far end made
noisy again, and a few network passes fit it to what was observed since.

A cold start costs every horizon and every round of improvement; this costs a pass or two of one horizon. After rolling
buffers that keep the far future noisy (arXiv:2406.04806, arXiv:2502.12724).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from forcing.policy.guidance import Guidance
from forcing.policy.planner import Planner, PlannerConfig, PlanRequest, attempted, finite
from forcing.policy.polishing import PolishConfig, Polisher
from forcing.policy.rehearsal import Feedback
from forcing.policy.sampler import Model, PlanState, denoise_step
from forcing.policy.support import Support
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingConfig:
    """How a plan is kept up.

    passes: network passes each time. variants: of the plan's rest that are noised and guessed anew. far: level that the
    passes leave to the last token of the longest plan; tokens before it have less, in proportion to how near they are,
    the first none. polish: what is done to the best of them, None for nothing. spare: whether a server that has nothing
    else to plan keeps plans up at every frame.
    """

    passes: int = 1
    variants: int = 4
    far: float = 0.3
    polish: PolishConfig | None = None
    spare: bool = False

    def __post_init__(self) -> None:
        for name in ("passes", "variants"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.far <= 1:
            raise ValueError(f"far must be above 0 and at most 1, got {self.far}")


@dataclass(frozen=True, slots=True)
class _Rolling:
    """A plan on its way. rest: of the plan that is followed, one row. state: its variants. planned: bool [1, L, 1].
    passes: that were taken."""

    rest: PlanState
    state: PlanState
    planned: Tensor
    guide: Guidance | None
    model: Model
    passes: int = 0


class RollingPlanner(Planner):
    """Plans from noise where there is no plan, or none that still keeps the rules; keeps it up otherwise."""

    between_frames = True

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        config: PlannerConfig,
        rolling: RollingConfig,
        *,
        feedback: Feedback | None = None,
        support: Support | None = None,
    ) -> None:
        super().__init__(model, tokenizer, config, feedback=feedback, support=support)
        self.rolling = rolling
        self._touch = None
        if self._polisher is not None and rolling.polish is not None:
            self._touch = Polisher(tokenizer, rolling.polish)

    def plan(self, request: PlanRequest) -> Plan:
        """The plan kept up, or another one. Raises FloatingPointError if the model's guess is not finite."""
        return self._finished(request, next(iter(self._guessed([self._begun(request)]))))

    def plan_many(self, requests: Sequence[PlanRequest]) -> list[Plan | Exception]:
        """As `plan` of each, what it raises in place of a plan that cannot be made. Plans that are kept up share their
        network passes, so each is what it would be alone up to rounding in float32."""
        guessed = self._guessed([self._begun(request) for request in requests])
        return [attempted(self._finished, *each) for each in zip(requests, guessed, strict=True)]

    def _begun(self, request: PlanRequest) -> "_Rolling | None":
        """Before the passes; None without a plan of which something is left."""
        roots = self._start(request)
        rest = self._rest(request, roots, roots.tokens[:1])
        if rest is None:
            return None
        planned = self._planned(rest)[..., None]
        return _Rolling(rest, self._renoised(rest, planned), planned, self._guide(request), self._model(request))

    def _guessed(self, begun: Sequence["_Rolling | None"]) -> list["_Rolling | None"]:
        """All after their passes: those with objectives or actions of their own one by one, the others together."""
        done = list(begun)
        alone = [i for i, each in enumerate(begun) if each is not None and not self._shares(each)]
        together = [i for i, each in enumerate(begun) if each is not None and self._shares(each)]
        for group in [*([index] for index in alone), together]:
            rollings = [rolling for index in group if (rolling := begun[index]) is not None]
            for index, rolling in zip(group, self._passed(rollings), strict=True):
                done[index] = rolling
        return done

    def _shares(self, rolling: "_Rolling") -> bool:
        return rolling.guide is None and rolling.model is self.model

    def _passed(self, rollings: Sequence["_Rolling"]) -> list["_Rolling"]:
        """After as many passes as there are to be, of all rows at once. Only one of them may have a guide."""
        if not rollings:
            return []
        first, passes = rollings[0], 0
        states = [rolling.state for rolling in rollings]
        counts = [len(state.tokens) for state in states]
        planned = torch.cat([r.planned.expand(count, -1, -1) for r, count in zip(rollings, counts, strict=True)])
        state = replace(
            first.state,
            tokens=torch.cat([state.tokens for state in states]),
            levels=torch.cat([state.levels for state in states]),
            lengths=torch.cat([state.lengths for state in states]),
        )
        for _ in range(self.rolling.passes):
            following = torch.where(planned, (state.levels - self._slope).clamp(min=0), state.levels)
            passes += 1 + (0 if first.guide is None else first.guide.passes(state, following < state.levels))
            state = denoise_step(first.model, state, following, first.guide)
        rows = [torch.arange(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]
        return [
            replace(rolling, state=replace(state.rows(own), generator=rolling.state.generator), passes=passes)
            for rolling, own in zip(rollings, rows, strict=True)
        ]

    def _finished(self, request: PlanRequest, rolling: "_Rolling | None") -> Plan:
        """The best of the rest and what came of it; from noise if none keeps the rules."""
        if rolling is None:
            return super().plan(request)
        state = finite(rolling.state)
        assert state.x0_hat is not None
        assert rolling.rest.x0_hat is not None
        samples = self.selector.decode(state)
        # What was not observed of the present is the network's guess.
        kept = torch.where(rolling.planned, rolling.rest.x0_hat, state.x0_hat[:1])
        state = replace(rolling.rest, x0_hat=kept, generator=state.generator).joined(state)
        judged, polished = self._judge(self.selector.decode(state), request), None
        if self._touch is not None:
            polished = self._polished(self._touch, judged, request)
        plan = self.selector.choose(request.step, judged, state, samples, rolling.passes, polished)
        if plan.feasible:
            return plan
        anew = super().plan(request)
        return replace(anew, passes=anew.passes + rolling.passes)

    @property
    def _slope(self) -> float:
        """By how much each token is noisier than the one before."""
        return self.rolling.far / max(1, self.tokenizer.layout.horizon - 1)

    def _renoised(self, rest: PlanState, planned: Tensor) -> PlanState:
        """Variants of the rest, noised along the pyramid: each token as one is, after the passes, that is as much
        farther as there are passes."""
        assert rest.x0_hat is not None
        rows = rest.rows(torch.zeros(self.rolling.variants, dtype=torch.int64))
        ahead = torch.arange(rows.tokens.shape[1]) - self.tokenizer.layout.history + self.rolling.passes
        pyramid = (self._slope * ahead).clamp(0, 1)[:, None]
        levels = torch.where(planned, pyramid, rows.levels)
        noise = torch.randn(rows.tokens.shape, generator=rest.generator)
        noised = self.model.schedule.add_noise(rest.x0_hat, levels[..., self.model.features], noise)
        return replace(rows, tokens=torch.where(planned, noised, rows.tokens), levels=levels, x0_hat=None)
