"""Training: noise every token at its own level, guess it clean, and do so until the steps or the minutes are over.

Needs torch, numpy and safetensors alone. Windows come from any `WindowSource`; progress goes to a callback.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forcing.policy.cameras import Codecs, raw_spec
from forcing.policy.causal import CausalDenoiser
from forcing.policy.checkpoint import load_training_state, save_policy, save_training_state
from forcing.policy.histories import Episodes, HistorySource
from forcing.policy.levels import SequenceShape, draw_levels
from forcing.policy.memory_training import recall_loss, streams_of
from forcing.policy.network import build_denoiser
from forcing.policy.preset import Preset
from forcing.policy.resuming import restore, snapshot
from forcing.policy.tokens import Normaliser, Tokenizer
from forcing.policy.types import WindowSource
from forcing.policy.weights import loss_weight
from forcing.policy.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When training ends: after `steps` optimiser steps or `minutes` of training time, exactly one of them given."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("exactly one of steps and minutes must be given")
        limit = self.steps if self.steps is not None else self.minutes
        assert limit is not None
        if not limit > 0:
            raise ValueError(f"the training budget must be positive, got {limit}")

    def __str__(self) -> str:
        """As options of `forcing train`."""
        return f"--steps {self.steps}" if self.steps is not None else f"--minutes {self.minutes:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """step, of about `total_steps`; loss: mean since the last report; windows_per_s; remaining_s: estimated."""

    step: int
    total_steps: int
    loss: float
    windows_per_s: float
    remaining_s: float


class Interrupted(RuntimeError):
    """Training was asked to stop; its state is saved."""


def training_loss(trainer: "Trainer", clean: Tensor, generator: torch.Generator) -> Tensor:
    """Weighted mean square error of x0_hat over all noisy features; `clean` is [B, L, D].

    The weights are `loss_weight`'s and act on the clean token, whatever the network's target is. Features without a
    target (the goal token has only the goal stream) and clean features do not count.
    """
    tokenizer, preset = trainer.tokenizer, trainer.preset
    batch, length, _ = clean.shape
    plan = length - preset.layout.history - 1
    levels = draw_levels(preset.levels, trainer.shape, batch, plan, generator)
    noise = torch.randn(clean.shape, generator=generator)
    level, clean, noise = (tensor.to(trainer.device) for tensor in (levels, clean, noise))
    features = tokenizer.stream_of_feature.to(trainer.device)
    per_feature = level[..., features]
    noisy = preset.noise.add_noise(clean, per_feature, noise)
    lengths = torch.full((batch,), length, device=trainer.device)
    x0_hat = trainer.denoiser(noisy, level, lengths)
    optimiser = preset.optimiser
    weight = loss_weight(optimiser.weight, preset.noise.alpha_bar(level), optimiser.snr_cap)[..., features]
    counted = (per_feature > 0).to(weight)
    if tokenizer.goal_index is not None:
        counted[:, -1, features != tokenizer.goal_index] = 0
    else:
        counted[:, -1] = 0
    loss: Tensor = (weight * counted * (x0_hat - clean).square()).sum() / counted.sum().clamp(min=1)
    return loss


class Trainer:
    """One training run: its network, averaged weights, optimiser and random streams, saved and restored as one."""

    def __init__(
        self,
        preset: Preset,
        windows: WindowSource | Episodes,
        normaliser: Normaliser,
        *,
        seed: int = 0,
        device: str = "cpu",
        world: World | None = None,
        cameras: Codecs | None = None,
    ) -> None:
        """windows: whole episodes for a recipe with memory. world: what the recording shows besides trajectories.
        cameras: what made the windows' latents of frames. The last two are saved with the policy, not trained."""
        self.preset, self.windows, self.seed, self.device = preset, windows, seed, torch.device(device)
        self.world, self.cameras = world, dict(cameras or {})
        self.tokenizer = Tokenizer(windows.spec, preset.layout, normaliser)
        self.shape = SequenceShape(
            history=preset.layout.history,
            actions=tuple(self.tokenizer.actions.tolist()),
            goal=self.tokenizer.goal_index,
        )
        if preset.memory is not None:
            if not isinstance(windows, Episodes):
                raise ValueError(f"preset {preset.name!r} remembers, and learns from whole episodes, not from windows")
            self._histories = HistorySource(windows, self.tokenizer, preset.memory)
            self._streams = streams_of(self.tokenizer, frozenset(self.cameras))
        else:
            assert not isinstance(windows, Episodes)
            self.horizons, self.horizon_shares = _horizons(preset, windows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.denoiser = build_denoiser(preset, self.tokenizer).to(self.device)
        self.ema = {name: value.detach().clone() for name, value in self.denoiser.state_dict().items()}
        optimiser = preset.optimiser
        self.optimiser = torch.optim.AdamW(
            self.denoiser.parameters(),
            lr=optimiser.learning_rate,
            weight_decay=optimiser.weight_decay,
            betas=(0.9, 0.99),
        )
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.elapsed_s, self.windows_seen = 0, 0.0, 0
        self.decay_start: int | None = None

    def advance(self, budget: Budget) -> float:
        """One optimiser step; returns its loss. Raises FloatingPointError if loss or gradient is not finite."""
        started = time.monotonic()
        optimiser = self.preset.optimiser
        loss, count = self._window_loss() if self.preset.memory is None else self._recall_loss()
        for group in self.optimiser.param_groups:
            group["lr"] = optimiser.learning_rate * self._rate(budget)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), optimiser.clip)
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            raise FloatingPointError(
                f"loss is {float(loss.detach())} and its gradient {float(norm)} at step {self.step + 1}; "
                "lower learning_rate or check the data"
            )
        self.optimiser.step()
        self.step += 1
        self.windows_seen += count
        self._average()
        self.elapsed_s += time.monotonic() - started
        return float(loss.detach())

    def _window_loss(self) -> tuple[Tensor, int]:
        """Of windows of one horizon, and how many they were."""
        layout, windows = self.preset.layout, self.windows
        assert not isinstance(windows, Episodes)
        horizon = int(self.rng.choice(self.horizons, p=self.horizon_shares))
        count = max(1, self.preset.optimiser.batch_tokens // (layout.history + horizon + 1))
        steps, drawn = horizon * layout.token_steps, self.windows_seen
        drawn_windows = windows.sample(self.rng, count, layout.past_steps, steps, drawn=drawn)
        # Half of the histories show this moment alone, as at the start of an episode; the others a random part of the
        # past.
        shown = self.rng.integers(0, layout.past_steps + 1, count) * self.rng.integers(0, 2, count)
        clean = self.tokenizer.encode(drawn_windows, np.minimum(shown, drawn_windows.past_valid))
        return training_loss(self, clean, self.generator), count

    def _recall_loss(self) -> tuple[Tensor, int]:
        """Of whole episodes, and how many they were."""
        # Those that are guessed behind a known past pass twice.
        count = max(1, self.preset.optimiser.batch_tokens // (2 * self._histories.usual))
        histories = self._histories.draw(self.rng, count)
        assert isinstance(self.denoiser, CausalDenoiser)
        with torch.random.fork_rng(devices=[]):
            if self.preset.denoiser.dropout > 0:  # whose draws are the global generator's
                torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            loss = recall_loss(
                self.denoiser, self.preset, self.tokenizer, self._streams, histories, self.generator, self.device
            )
        return loss, count

    def total_steps(self, budget: Budget) -> int:
        """The step at which the run ends; an estimate until the learning rate begins to fall, if minutes are given."""
        constant = self.preset.optimiser.constant
        if budget.steps is not None:
            return budget.steps
        assert budget.minutes is not None
        if self.decay_start is not None:
            return max(self.decay_start + 1, round(self.decay_start / constant)) if constant > 0 else self.step
        return max(self.step + 1, round(self.step * budget.minutes * 60 / max(self.elapsed_s, 1e-9)))

    def _rate(self, budget: Budget) -> float:
        """The share of the learning rate at this step: warm-up, constant, linear decay."""
        constant = self.preset.optimiser.constant
        if self.decay_start is None:
            if budget.steps is not None:
                reached = self.step >= constant * budget.steps
            else:
                assert budget.minutes is not None
                # From here on the end is a step and no longer a time, so that the decay ends at zero.
                reached = self.step > 0 and self.elapsed_s >= constant * budget.minutes * 60
            if reached:
                self.decay_start = self.step
        warm = min(1.0, (self.step + 1) / self.preset.optimiser.warmup_steps)
        if self.decay_start is None:
            return warm
        total = self.total_steps(budget)
        return warm * max(0.0, (total - self.step) / max(1, total - self.decay_start))

    @torch.no_grad()
    def _average(self) -> None:
        # A young average forgets faster, or it would remember the initial weights.
        decay = min(self.preset.optimiser.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.denoiser.state_dict().items():
            self.ema[name].lerp_(value, 1 - decay)


def _horizons(preset: Preset, windows: WindowSource) -> tuple[list[int], list[float]]:
    """Horizons that fit some episode, and how often each is drawn.

    In proportion to the root of the number of windows: long ones are rare, and drawn as often as short ones they
    would be learned by heart.
    """
    layout = preset.layout
    counts = {t: windows.anchors(t * layout.token_steps) for t in range(1, layout.horizon + 1)}
    roots = {t: math.sqrt(count) for t, count in counts.items() if count > 0}
    if not roots:
        raise ValueError(
            f"no episode has the {layout.token_steps} steps of one token; use shorter tokens or longer recordings"
        )
    return list(roots), [root / sum(roots.values()) for root in roots.values()]


def train(
    trainer: Trainer,
    budget: Budget,
    out: Path,
    card: dict[str, object],
    *,
    resume: bool = False,
    save_every_s: float = 60.0,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """The path of the trained policy, `out`/policy.safetensors; `out`/resume.safetensors holds what `resume` needs.

    Both files are replaced atomically at least every `save_every_s` seconds, and a killed run goes on from there. On
    the same machine it ends at the very weights of an uninterrupted run if the budget is in steps. If it is in
    minutes, the clock decides at which step the decay begins: that step is saved as soon as it is known, and from then
    on the same holds. Raises Interrupted after saving if `stop()` becomes true, FloatingPointError if the loss is not
    finite, ValueError if the run to resume had another budget, seed, recipe or data.
    """
    out.mkdir(parents=True, exist_ok=True)
    if resume:
        restore(trainer, load_training_state(out / "resume.safetensors"), budget)
    saved = reported = time.monotonic()
    losses: list[float] = []
    windows_before = trainer.windows_seen
    while trainer.step < trainer.total_steps(budget):
        end_open = trainer.decay_start is None
        losses.append(trainer.advance(budget))
        end_found = end_open and trainer.decay_start is not None
        now = time.monotonic()
        if now - reported >= 1.0:
            rate = (trainer.windows_seen - windows_before) / (now - reported)
            total = trainer.total_steps(budget)
            remaining = (total - trainer.step) * trainer.elapsed_s / trainer.step
            report(
                Progress(
                    step=trainer.step,
                    total_steps=total,
                    loss=float(np.mean(losses)),
                    windows_per_s=rate,
                    remaining_s=remaining,
                )
            )
            reported, windows_before, losses = now, trainer.windows_seen, []
        if stop():
            _save(trainer, budget, out, card)
            raise Interrupted(f"stopped at step {trainer.step}; --resume goes on from there")
        if end_found or now - saved >= save_every_s:
            _save(trainer, budget, out, card)
            saved = now
    return _save(trainer, budget, out, card)


def saved_budget(out: Path) -> Budget | None:
    """The budget of the run in `out`, None if it did not say. Raises CheckpointError if no run is there."""
    saved = load_training_state(out / "resume.safetensors").facts.get("budget")
    return None if saved is None else Budget(**saved)


def _save(trainer: Trainer, budget: Budget, out: Path, card: dict[str, object]) -> Path:
    save_training_state(snapshot(trainer, budget), out / "resume.safetensors")
    path = out / "policy.safetensors"
    card = {**card, "steps": trainer.step, "minutes": round(trainer.elapsed_s / 60, 2), "windows": trainer.windows_seen}
    if trainer.step < (total := trainer.total_steps(budget)):
        card["unfinished"] = f"step {trainer.step} of {total}"
    weights = {name: value.cpu() for name, value in trainer.ema.items()}
    save_policy(
        path,
        trainer.preset,
        raw_spec(trainer.windows.spec, trainer.cameras),
        trainer.tokenizer.normaliser,
        weights,
        card,
        trainer.world,
        cameras=trainer.cameras,
    )
    return path
