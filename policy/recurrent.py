"""The paper's cell: a latent carried through time, updated by each noisy token at its level.

Called like every denoiser, `(x [B, L, D], levels [B, L, S], lengths [B]) -> x0_hat [B, L, D]`. Causal by construction:
a token is guessed from the latent of what came before it and from itself. The goal comes first. Knows no units and no
schedule of sampling.
"""

import torch
from torch import Tensor, nn

from forcing.policy.denoiser import DenoiserConfig, level_features
from forcing.policy.noise import NoiseSchedule
from forcing.policy.targets import to_x0


class RecurrentDenoiser(nn.Module):
    """x0_hat from noisy tokens and each stream's level by a stack of gated recurrent units.

    Chen et al. (2024), arXiv:2407.01392, section 3.2: latent z_t from z_{t-1}, x_t and k_t; x0_hat of token t from the
    same three. Each row is read with its goal token before all others, so that the latent knows where it must end, and
    every token is told how many follow.
    """

    features: Tensor

    def __init__(self, config: DenoiserConfig, features: Tensor, max_length: int, schedule: NoiseSchedule) -> None:
        """features: [D] index of each feature's stream."""
        super().__init__()
        self.config, self.schedule, self.max_length = config, schedule, max_length
        self.register_buffer("features", features, persistent=False)
        width, streams = config.width, int(features.max()) + 1
        self.embed = nn.Linear(len(features), width)
        self.embed_level = nn.Sequential(nn.Linear(4 * streams, width), nn.SiLU(), nn.Linear(width, width))
        self.from_end = nn.Embedding(max_length, width)
        self.cell = nn.GRU(width, width, num_layers=config.depth, batch_first=True)
        self.read = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 4 * width), nn.GELU())
        self.head = nn.Linear(4 * width, len(features))
        nn.init.normal_(self.from_end.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, x: Tensor, levels: Tensor, lengths: Tensor) -> Tensor:
        length = x.shape[1]
        if length > self.max_length:
            raise ValueError(f"sequence must have at most {self.max_length} tokens, got {length}")
        index = torch.arange(length, device=x.device)
        real = index < lengths[:, None]
        # NaN in the padding would survive a product with zero, and return through gradients.
        inputs = torch.where(real[..., None], x, 0.0)
        remaining = (lengths[:, None] - 1 - index).clamp(min=0)
        hidden = self.embed(inputs) + self.embed_level(level_features(levels, self.schedule)) + self.from_end(remaining)
        goal_first, as_before = _goal_first(index, lengths)
        hidden = _reorder(hidden, goal_first)
        latent, _ = self.cell(hidden)
        known_before = nn.functional.pad(latent, (0, 0, 1, 0))[:, :-1]
        output = _reorder(self.head(self.read(torch.cat([known_before, hidden], dim=-1))), as_before)
        alpha_bar = self.schedule.alpha_bar(levels[..., self.features])
        return to_x0(output, inputs, alpha_bar, self.config.target)


def _goal_first(index: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """[B, L] where each place takes its token from when the last one in use moves to the front, and the way back."""
    last = lengths[:, None] - 1
    there = torch.where(index == 0, last, torch.where(index <= last, index - 1, index))
    back = torch.where(index < last, index + 1, torch.where(index == last, 0, index))
    return there, back


def _reorder(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(1, order[..., None].expand_as(values))
