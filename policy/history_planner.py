"""From all that an episode has shown to the next actions: its tokens recalled, the next ones sampled behind them.

Knows no simulator, no goal but those that are observed, and no rule by which plans could be judged: of several samples
the one in the middle is played.
"""

import numpy as np
import torch
from torch import Tensor

from forcing.policy.causal import CausalDenoiser, Past
from forcing.policy.memory import MemoryConfig
from forcing.policy.noise import NoiseSchedule
from forcing.policy.planner import PlannerConfig, PlanRequest, finite
from forcing.policy.sampler import Model, PlanState, denoise_step
from forcing.policy.tokens import Tokenizer
from forcing.policy.types import Array, Plan, Recalled


class HistoryPlanner:
    """Samples what comes next with a causal network."""

    def __init__(
        self,
        denoiser: CausalDenoiser,
        schedule: NoiseSchedule,
        tokenizer: Tokenizer,
        config: PlannerConfig,
        memory: MemoryConfig,
    ) -> None:
        self.tokenizer, self.config, self.memory = tokenizer, config, memory
        self._denoiser, self._schedule = denoiser, schedule

    def plan(self, request: PlanRequest) -> Plan:
        """The sample in the middle of all. Raises FloatingPointError if the network's guess is not finite."""
        assert request.recalled is not None
        generator = torch.Generator().manual_seed((request.seed * 1_000_003 + request.step) % 2**63)
        known, levels = self.tokens_of(request.recalled)
        state, passes = self._sampled(known, levels, generator)
        assert state.x0_hat is not None
        ahead = state.x0_hat[:, -self.tokenizer.layout.horizon :]
        return self._plan(request, ahead, state.levels[:, -self.tokenizer.layout.horizon :], passes)

    def foreseen(self, known: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        """[B, horizon, D] what is planned behind each of B pasts, [B, n, D], known at levels [B, n, S]: as `plan` does,
        normalised."""
        signal = self._schedule.alpha_bar(levels).sqrt()[..., self.tokenizer.stream_of_feature]
        state, _ = self._sampled(known * signal, levels, generator)
        assert state.x0_hat is not None
        ahead = torch.split(state.x0_hat[:, -self.tokenizer.layout.horizon :], self.config.samples)
        return torch.stack([samples[self._costs(samples).argmin()] for samples in ahead])

    def tokens_of(self, recalled: Recalled) -> tuple[Tensor, Tensor]:
        """[1, n, D] what is known, with as much signal as there is at the levels [1, n, S] that it is known at."""
        tokenizer, layout = self.tokenizer, self.tokenizer.layout
        count = len(recalled.actions) + 1
        tokens = torch.zeros(1, count, tokenizer.width)
        levels = torch.ones(1, count, len(tokenizer.streams))
        for index, stream in enumerate(tokenizer.streams):
            where = tokenizer.slices[stream.name]
            if stream.role == "action":
                if self.memory.show_actions and count > 1:
                    shown = recalled.actions.reshape((count - 1) * layout.token_steps, stream.size)
                    encoded = tokenizer.encode_frames(stream.name, shown)
                    told = encoded.isfinite().all(dim=1)
                    tokens[0, 1:, where] = torch.where(told[:, None], encoded, 0.0)
                    levels[0, 1:, index] = torch.where(told, self.memory.recall_level, 1.0)
                continue
            noise, known = recalled.noise[stream.name], np.isfinite(recalled.noise[stream.name])
            level = self._schedule.level_of(torch.from_numpy(noise / tokenizer.normaliser.scale(stream.name)))
            levels[0, :, index] = level.clamp(min=self.memory.recall_level).to(levels)
            values = np.where(known.reshape(-1, *[1] * len(stream.shape)), recalled.values[stream.name], 0.0)
            tokens[0, :, where] = tokenizer.encode_frames(stream.name, values)
        return tokens * self._schedule.alpha_bar(levels).sqrt()[..., tokenizer.stream_of_feature], levels

    def _sampled(self, known: Tensor, levels: Tensor, generator: torch.Generator) -> tuple[PlanState, int]:
        """What comes next behind each row that is known, samples as rows, and the passes that were taken for it."""
        samples, horizon = len(known) * self.config.samples, self.tokenizer.layout.horizon
        if len(known) > 1:
            known, levels = (rows.repeat_interleave(self.config.samples, dim=0) for rows in (known, levels))
        noise = torch.randn(samples, horizon, known.shape[2], generator=generator)
        state = PlanState(
            tokens=noise,
            levels=torch.ones(samples, horizon, levels.shape[2]),
            lengths=torch.full((samples,), horizon),
            generator=generator,
        )
        matrix = torch.from_numpy(self.config.schedule.matrix(horizon))
        rows = matrix[1 : None if self.config.passes is None else 1 + self.config.passes]
        if self.memory.equal_levels:
            return self._inpainted(known, levels, state, rows), len(rows)
        past = self._denoiser.remember(known, levels).rows(samples)
        model = self.model(past)
        for row in rows:
            state = denoise_step(model, state, row[:, None].expand_as(state.levels[0]).expand_as(state.levels))
        return finite(state), len(rows) + 1

    def model(self, past: Past | None = None) -> Model:
        """The network, for tokens behind what it keeps of a past."""

        def denoise(x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
            guess: Tensor = self._denoiser(x, levels, lengths, past)
            return guess

        return Model(denoise, self._schedule, self.tokenizer.stream_of_feature)

    def _inpainted(self, known: Tensor, levels: Tensor, state: PlanState, rows: Tensor) -> PlanState:
        """As full-sequence diffusion recalls, which knows one level for a whole sequence: the past noised to the level
        of what is sampled, in every pass anew (Lugmayr et al. 2022, arXiv:2201.09865, without resampling)."""
        samples, model = len(state.tokens), self.model(None)
        for row in rows:
            level = torch.maximum(levels, state.levels[:1, :1]).expand(samples, -1, -1)
            noise = torch.randn(samples, *known.shape[1:], generator=state.generator)
            before = self._noised(known, levels, level, noise)
            whole = PlanState(
                tokens=torch.cat([before, state.tokens], dim=1),
                levels=torch.cat([level, state.levels], dim=1),
                lengths=state.lengths + known.shape[1],
                generator=state.generator,
            )
            following = torch.cat([level, row[:, None].expand_as(state.levels[0]).expand_as(state.levels)], dim=1)
            whole = denoise_step(model, whole, following)
            here = slice(known.shape[1], None)
            assert whole.x0_hat is not None
            state = PlanState(
                tokens=whole.tokens[:, here],
                levels=whole.levels[:, here],
                lengths=state.lengths,
                generator=state.generator,
                x0_hat=whole.x0_hat[:, here],
            )
        return finite(state)

    def _noised(self, known: Tensor, levels: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """Tokens at `levels` moved up to `level`."""
        features = self.tokenizer.stream_of_feature
        here, there = self._schedule.alpha_bar(levels)[..., features], self._schedule.alpha_bar(level)[..., features]
        kept = torch.where(here > 0, there / here.clamp(min=1e-12), 0.0)
        return kept.sqrt() * known + (1 - kept).clamp(min=0).sqrt() * noise

    def _costs(self, ahead: Tensor) -> Tensor:
        """[N] how far the actions of each of N samples are from those of the others."""
        features = self.tokenizer.actions[self.tokenizer.stream_of_feature]
        played = ahead[:, :, features].flatten(1)
        return torch.cdist(played, played).sum(dim=1)

    def _plan(self, request: PlanRequest, ahead: Tensor, levels: Tensor, passes: int) -> Plan:
        """ahead: [N, horizon, D] samples of what comes next."""
        tokenizer, layout = self.tokenizer, self.tokenizer.layout
        assert request.recalled is not None
        costs = self._costs(ahead)
        chosen, steps = int(costs.argmin()), layout.horizon * layout.token_steps
        decoded = tokenizer.decode(ahead)
        # Who is not seen is supposed to be where he is seen next.
        start = {
            name: np.where(np.isfinite(values[-1]), values[-1], decoded[name][chosen, 0])
            for name, values in request.recalled.values.items()
        }
        streams, spread = {}, {}
        for stream in tokenizer.streams:
            values = decoded[stream.name]
            if stream.role == "observation":
                values = between(start[stream.name], values, layout.token_steps)
            streams[stream.name] = values[chosen]
            usual = np.asarray(tokenizer.normaliser.std[stream.name]).reshape(stream.shape)
            spread[stream.name] = values.std(axis=0) if len(values) > 1 else np.broadcast_to(usual, values.shape[1:])
        name = next(stream.name for stream in tokenizer.streams if stream.role == "observation")
        return Plan(
            made_at_step=request.step,
            start=start,
            steps=np.arange(1, steps + 1),
            streams=streams,
            level=levels[chosen].repeat_interleave(layout.token_steps, dim=0).numpy(),
            spread=spread,
            candidates=between(start[name], decoded[name], layout.token_steps).reshape(len(ahead), steps, -1),
            costs=costs.numpy().astype(np.float64),
            chosen=chosen,
            feasible=True,
            passes=passes,
        )


def between(start: Array, values: Array, steps: int) -> Array:
    """[N, F * steps, *shape] from a value a token, [N, F, *shape]: straight from one to the next, the first from
    `start`, of one for all or of each, where that is known."""
    first = np.where(np.isfinite(start), start, values[:, 0])[:, None]
    edges = np.concatenate([first, values], axis=1)
    share = (np.arange(1, steps + 1) / steps).reshape(1, 1, -1, *[1] * len(values.shape[2:]))
    ways: Array = edges[:, :-1, None] + share * (edges[:, 1:] - edges[:, :-1])[:, :, None]
    result: Array = ways.reshape(len(values), -1, *values.shape[2:])
    return result
