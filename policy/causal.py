"""The network of policies that remember: tokens of an episode in the order of time, each guessed from those before it.

Called like every denoiser, `(x [B, L, D], levels [B, L, S], lengths [B]) -> x0_hat [B, L, D]`, without a goal token.
What comes before the tokens that are being sampled is gone through once and kept (`remember`), so that a pass costs
what the new tokens cost. Positions are relative: a sequence may be longer than any in training. Knows no units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from forcing.policy.denoiser import DenoiserConfig, level_features, with_waves
from forcing.policy.noise import NoiseSchedule
from forcing.policy.pointing import Places, Pointing
from forcing.policy.targets import to_x0

# Of the sines and cosines in which each number is told besides: millimetres count in a room of a metre.
FREQUENCIES = (1.0, 2.0, 4.0, 8.0)
ROTATION_BASE = 1000.0  # sequences have hundreds of tokens, not thousands

Turns = tuple[Tensor, Tensor]
"""Cosine and sine, [L, d / 2], of the angles that stand for tokens' positions."""
_Kept = tuple[int, tuple[tuple[Tensor, Tensor], ...]]
"""`length` and `layers` of a `Past`."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a network keeps of tokens that it has gone through.

    length: their number. layers: of a transformer, keys and values of each block, [B, H, L, d]; of a recurrent network,
    its latent [depth, B, width] and what its last layer said of it [B, width]. last: [B, 1, D] the last of the tokens.
    """

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]
    last: Tensor

    def rows(self, count: int) -> "Past":
        """The same for `count` rows, of one."""

        def repeated(tensor: Tensor) -> Tensor:
            where = 1 if tensor.dim() == 3 else 0
            sizes = [count if axis == where else -1 for axis in range(tensor.dim())]
            return tensor.expand(*sizes)

        layers = tuple((repeated(a), repeated(b)) for a, b in self.layers)
        return Past(self.length, layers, self.last.expand(count, -1, -1))


class CausalDenoiser(nn.Module):
    """x0_hat from noisy tokens and each stream's level; a token sees itself and those before it.

    `transformer`: rotary positions (Su et al. 2021, arXiv:2104.09864). `recurrent`: the paper's cell, a latent carried
    through time (Chen et al. 2024, arXiv:2407.01392, section 3.2).
    """

    features: Tensor

    def __init__(
        self,
        config: DenoiserConfig,
        features: Tensor,
        max_length: int,
        schedule: NoiseSchedule,
        places: Places | None = None,
    ) -> None:
        """features: [D] index of each feature's stream. max_length: of sequences in training; longer ones are read.
        places: given if `config.pointing`."""
        super().__init__()
        self.config, self.schedule, self.max_length = config, schedule, max_length
        self.register_buffer("features", features, persistent=False)
        width, streams = config.width, int(features.max()) + 1
        self.embed = nn.Linear((1 + 2 * len(FREQUENCIES)) * len(features), width)
        self.embed_level = nn.Sequential(nn.Linear(4 * streams, width), nn.SiLU(), nn.Linear(width, width))
        body = _Recurrent if config.kind == "recurrent" else _Transformer
        self.body = body(config)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(features))
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.02)
        self.pointing = None if places is None else Pointing(places, width)

    def forward(self, x: Tensor, levels: Tensor, lengths: Tensor | None = None, past: Past | None = None) -> Tensor:
        """[B, L, D]. lengths: [B] tokens in use, which are the first; those behind change nothing. past: what comes
        before."""
        inputs = self._told(x, levels)
        hidden, _ = self.body(self._embedded(inputs, levels), past)
        first = torch.zeros_like(inputs[:, :1]) if past is None else past.last
        return self._guess(hidden, inputs, levels, torch.cat([first, inputs[:, :-1]], dim=1))

    def remember(self, x: Tensor, levels: Tensor, past: Past | None = None) -> Past:
        """What is kept of tokens [B, L, D] at their levels, and of what came before them."""
        inputs = self._told(x, levels)
        length, layers = self.body(self._embedded(inputs, levels), past)[1]
        return Past(length, layers, inputs[:, -1:])

    def behind(self, known: Tensor, known_levels: Tensor, x: Tensor, levels: Tensor) -> Tensor:
        """[B, L, D] x0_hat of every token of x, each as if it came next behind the known tokens before its own place.

        known, x: [B, L, D], the same tokens at levels of their own. What `remember` and a pass for each place would
        say, in one pass of twice as many tokens.
        """
        told, inputs = self._told(known, known_levels), self._told(x, levels)
        hidden = self.body.behind(self._embedded(told, known_levels), self._embedded(inputs, levels))
        before = torch.cat([torch.zeros_like(told[:, :1]), told[:, :-1]], dim=1)
        return self._guess(hidden, inputs, levels, before)

    def _told(self, x: Tensor, levels: Tensor) -> Tensor:
        """Pure noise says nothing."""
        return torch.where(levels[..., self.features] < 1, x, 0.0)

    def _guess(self, hidden: Tensor, inputs: Tensor, levels: Tensor, before: Tensor) -> Tensor:
        """x0_hat [B, L, D]. before: [B, L, D] what is told of each token's predecessor."""
        normed = self.norm(hidden)
        alpha_bar = self.schedule.alpha_bar(levels[..., self.features])
        guess = to_x0(self.head(normed), inputs, alpha_bar, self.config.target)
        return guess if self.pointing is None else guess + self.pointing(normed, before)

    def _embedded(self, inputs: Tensor, levels: Tensor) -> Tensor:
        told = self.embed(with_waves(inputs, FREQUENCIES))
        embedded: Tensor = told + self.embed_level(level_features(levels, self.schedule))
        return embedded if self.pointing is None else embedded + self.pointing.between(inputs)


class _Transformer(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.turned = config.width // config.heads // 2

    def _turns(self, positions: Tensor) -> Turns:
        rates = ROTATION_BASE ** (-torch.arange(self.turned, device=positions.device) / self.turned)
        angles = positions[:, None] * rates
        return angles.cos(), angles.sin()

    def forward(self, hidden: Tensor, past: Past | None) -> tuple[Tensor, _Kept]:
        before, length = 0 if past is None else past.length, hidden.shape[1]
        index = torch.arange(before + length, device=hidden.device)
        visible = index[None, :] <= index[before:, None]
        turns = self._turns(index[before:])
        layers = []
        for number, block in enumerate(self.blocks):
            hidden, kept = block(hidden, turns, visible, None if past is None else past.layers[number])
            layers.append(kept)
        return hidden, (before + length, tuple(layers))

    def behind(self, known: Tensor, hidden: Tensor) -> Tensor:
        """Each hidden token as if it stood behind the known ones before its place, [B, L, width]."""
        length = hidden.shape[1]
        index = torch.arange(length, device=hidden.device)
        earlier, itself = index[None, :] < index[:, None], index[None, :] == index[:, None]
        visible = torch.cat(
            [torch.cat([earlier | itself, torch.zeros_like(itself)], 1), torch.cat([earlier, itself], 1)]
        )
        cosine, sine = self._turns(index)
        turns = torch.cat([cosine, cosine]), torch.cat([sine, sine])
        both = torch.cat([known, hidden], dim=1)
        for block in self.blocks:
            both, _ = block(both, turns, visible, None)
        return both[:, length:]


class _Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropped = nn.Dropout(config.dropout)

    def forward(
        self, hidden: Tensor, turns: Turns, visible: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = hidden.shape
        qkv = self.qkv(self.norm_attention(hidden)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = _turned(query, turns), _turned(key, turns)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        # In bfloat16 on a processor its backward pass takes nearly four times as long, unlike all the rest.
        with torch.autocast(hidden.device.type, enabled=False):
            mixed = functional.scaled_dot_product_attention(query, key, value.to(query.dtype), attn_mask=visible)
        hidden = hidden + self.dropped(self.project(mixed.transpose(1, 2).reshape(batch, length, width)))
        hidden = hidden + self.dropped(self.contract(functional.gelu(self.expand(self.norm_mlp(hidden)))))
        return hidden, (key, value)


def _turned(x: Tensor, turns: Turns) -> Tensor:
    """[B, H, L, d] turned by the tokens' positions, so that products depend on how far apart two tokens are."""
    (cosine, sine), half = turns, turns[0].shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine, rest], dim=-1)


class _Recurrent(nn.Module):
    """A token is read from the latent of those before it and from itself."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        between = dropout if config.depth > 1 else 0.0
        self.cell = nn.GRU(width, width, num_layers=config.depth, batch_first=True, dropout=between)
        self.read = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, hidden: Tensor, past: Past | None) -> tuple[Tensor, _Kept]:
        latent, last = (None, torch.zeros_like(hidden[:, 0])) if past is None else past.layers[0]
        said, latent = self.cell(hidden, None if latent is None else latent.contiguous())
        before = torch.cat([last[:, None], said[:, :-1]], dim=1)
        read = self.read(torch.cat([before, hidden], dim=-1))
        return read, (hidden.shape[1] + (0 if past is None else past.length), ((latent, said[:, -1]),))

    def behind(self, known: Tensor, hidden: Tensor) -> Tensor:
        """As the transformer's."""
        said, _ = self.cell(known)
        before = torch.cat([torch.zeros_like(said[:, :1]), said[:, :-1]], dim=1)
        read: Tensor = self.read(torch.cat([before, hidden], dim=-1))
        return read
