"""The network that guesses the clean tokens from noisy ones.

Every denoiser is called as `(x [B, L, D], levels [B, L, S], lengths [B]) -> x0_hat [B, L, D]`: row b uses its first
`lengths[b]` tokens (history, plan, goal), and what stands behind them changes nothing. Knows no units and no schedule
of sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from forcing.policy.noise import NoiseSchedule
from forcing.policy.targets import Target, to_x0

Kind = Literal["transformer", "recurrent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserConfig:
    """Size and kind of a denoiser.

    kind: `transformer`, or `recurrent`, a latent carried through time. target: what the network's raw output is, see
    `targets.to_x0`; the denoiser itself always returns clean tokens. width: model dimension. depth: blocks, or layers
    of recurrent units. heads: attention heads of a transformer, a divisor of width. causal: a token of a transformer
    sees only itself, earlier tokens and the goal; a recurrent denoiser is so in any case. dropout: share of what each
    part of a block adds that is left out in training, where a policy remembers (Srivastava et al. 2014, JMLR 15).
    pointing: whether where actions go is told from the places that were just seen (`pointing.Pointing`), where a policy
    remembers and its actions are places.
    """

    kind: Kind = "transformer"
    target: Target = "x0"

    width: int = 96
    depth: int = 4
    heads: int = 4
    causal: bool = False
    dropout: float = 0.0
    pointing: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        for name, known in (("kind", get_args(Kind)), ("target", get_args(Target))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}, got {self.heads}")


def level_features(levels: Tensor, schedule: NoiseSchedule) -> Tensor:
    """[B, L, 4 S] what a network is told of the levels [B, L, S]."""
    alpha_bar = schedule.alpha_bar(levels)
    return torch.cat([levels, alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), (levels >= 1).to(levels.dtype)], dim=-1)


def with_waves(numbers: Tensor, frequencies: Sequence[float]) -> Tensor:
    """[..., n] to [..., n (1 + 2 f)]: numbers, and sines and cosines of them at each frequency, so that small
    differences are large ones too (Tancik et al. 2020, arXiv:2006.10739)."""
    waves = [numbers * frequency for frequency in frequencies]
    return torch.cat([numbers, *(wave.sin() for wave in waves), *(wave.cos() for wave in waves)], dim=-1)


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        batch, length, width = hidden.shape
        qkv = self.qkv(self.norm_attention(hidden)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        hidden = hidden + self.project(mixed.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = hidden + self.contract(functional.gelu(self.expand(self.norm_mlp(hidden))))
        return result


class TransformerDenoiser(nn.Module):
    """x0_hat from noisy tokens and each stream's level; causal or not.

    Positions count from the start and from the end, so that the network knows when it must arrive. Neighbouring
    tokens are mixed on the way in, where their joints are decided. The clean tokens are guessed directly: adding the
    input to the output by its share of signal carries the noise through (docs/experiments.md).
    """

    features: Tensor

    def __init__(self, config: DenoiserConfig, features: Tensor, max_length: int, schedule: NoiseSchedule) -> None:
        """features: [D] index of each feature's stream."""
        super().__init__()
        self.config, self.schedule, self.max_length = config, schedule, max_length
        self.register_buffer("features", features, persistent=False)
        width, streams = config.width, int(features.max()) + 1
        self.embed = nn.Linear(3 * len(features), width)
        self.embed_level = nn.Sequential(nn.Linear(4 * streams, width), nn.SiLU(), nn.Linear(width, width))
        self.from_start = nn.Embedding(max_length, width)
        self.from_end = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(features))
        nn.init.normal_(self.from_start.weight, std=0.02)
        nn.init.normal_(self.from_end.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        length = x.shape[1]
        if length > self.max_length:
            raise ValueError(f"sequence must have at most {self.max_length} tokens, got {length}")
        index = torch.arange(length, device=x.device)
        real = index < lengths[:, None]
        remaining = (lengths[:, None] - 1 - index).clamp(min=0)
        # Padding must not leak through the neighbour mixing.
        inputs = torch.where(real[..., None], x, 0.0)
        goal = (remaining == 0) & real
        hidden = self.embed(self._with_neighbours(inputs, goal))
        hidden = (
            hidden
            + self.embed_level(level_features(levels, self.schedule))
            + self.from_start(index)
            + self.from_end(remaining)
        )
        visible = self._visible(real, goal)
        for block in self.blocks:
            hidden = block(hidden, visible)
        output = self.head(self.norm(hidden))
        alpha_bar = self.schedule.alpha_bar(levels[..., self.features])
        return to_x0(output, inputs, alpha_bar, self.config.target)

    def _with_neighbours(self, x: Tensor, goal: Tensor) -> Tensor:
        before = functional.pad(x, (0, 0, 1, 0))[:, :-1]
        after = functional.pad(x, (0, 0, 0, 1))[:, 1:]
        if self.config.causal:
            # All see the goal: what it knew of the last plan token, the first would know too.
            before, after = torch.where(goal[..., None], 0.0, before), torch.zeros_like(x)
        return torch.cat([before, x, after], dim=-1)

    def _visible(self, real: Tensor, goal: Tensor) -> Tensor | None:
        """[B, 1, L, L] which token (last axis) each token may look at; None where all may see all."""
        length = real.shape[1]
        if not self.config.causal:
            return None if bool(real.all()) else real[:, None, None, :]
        index = torch.arange(length, device=real.device)
        earlier = index[None, :] <= index[:, None]
        # The goal sees itself alone: through it, early tokens would see late ones.
        allowed = torch.where(goal[:, :, None], goal[:, None, :], earlier | goal[:, None, :])
        allowed = (allowed & real[:, None, :]) | torch.eye(length, dtype=torch.bool, device=real.device)
        return allowed[:, None]
