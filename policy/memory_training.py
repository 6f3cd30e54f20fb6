"""What policies that remember are trained to do: guess the tokens of whole episodes that are not known.

Knows no optimiser and no file.
"""

import torch
from torch import Tensor

from forcing.policy.causal import CausalDenoiser
from forcing.policy.histories import Histories
from forcing.policy.memory import Streams, draw_behind, draw_whole
from forcing.policy.preset import Preset
from forcing.policy.tokens import Tokenizer
from forcing.policy.weights import loss_weight


def streams_of(tokenizer: Tokenizer, cameras: frozenset[str]) -> Streams:
    """What each of the tokenizer's streams is. cameras: names of those that are latents of a camera's frames."""
    return Streams(
        actions=tuple(tokenizer.actions.tolist()),
        cameras=tuple(stream.name in cameras for stream in tokenizer.streams),
    )


def recall_loss(
    denoiser: CausalDenoiser,
    preset: Preset,
    tokenizer: Tokenizer,
    streams: Streams,
    histories: Histories,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Weighted mean square error of x0_hat over the streams that are to be guessed, of the tokens in use.

    An error of the actions counts 1, of all observations together `memory.observation_share`; besides, by its level as
    `loss_weight` says.
    """
    assert preset.memory is not None
    mix, clean = preset.memory.mix, histories.tokens.to(device)
    batch, length, _ = clean.shape
    features = tokenizer.stream_of_feature.to(device)

    def noised(levels: Tensor) -> Tensor:
        noise = torch.randn(clean.shape, generator=generator).to(device)
        return preset.noise.add_noise(clean, levels[..., features], noise)

    lowered = torch.autocast(device.type, torch.bfloat16, enabled=preset.optimiser.precision == "bfloat16")
    if float(torch.rand((), generator=generator)) < mix.behind:
        known, levels, guessed = (
            drawn.to(device) for drawn in draw_behind(mix, streams, batch, length, generator)
        )  # fmt: skip
        with lowered:
            x0_hat = denoiser.behind(noised(known), known, noised(levels), levels)
    else:
        levels, guessed = (drawn.to(device) for drawn in draw_whole(mix, streams, batch, length, generator))
        with lowered:
            x0_hat = denoiser(noised(levels), levels)
    used = torch.arange(length, device=device) < histories.lengths.to(device)[:, None]
    counted = (guessed & used[..., None]).to(torch.float32)
    error, optimiser = (x0_hat - clean).square(), preset.optimiser
    weight = loss_weight(optimiser.weight, preset.noise.alpha_bar(levels), optimiser.snr_cap) * counted
    each = _share_of_each(tokenizer, preset.memory.observation_share, preset.memory.streams_alike).to(device)
    loss: Tensor = (weight[..., features] * each * error).sum() / counted.any(dim=-1).sum().clamp(min=1)
    return loss


def _share_of_each(tokenizer: Tokenizer, observation_share: float, streams_alike: bool) -> Tensor:
    """[D] what the error of each feature counts."""
    stream, is_action = tokenizer.stream_of_feature, tokenizer.actions
    if streams_alike:
        share = torch.where(is_action, 1.0 / is_action.sum(), observation_share / (~is_action).sum().clamp(min=1))
        return (share / torch.bincount(stream))[stream]
    acts = is_action[stream]
    return torch.where(acts, 1.0 / acts.sum(), observation_share / (~acts).sum().clamp(min=1))
