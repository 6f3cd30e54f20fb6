"""What policies that remember are trained to do: guess the tokens of whole episodes that are not known.

Knows no optimiser and no file.
"""

import torch
from torch import Tensor, nn

from forcing.policy.histories import Histories
from forcing.policy.memory import Streams, draw_recall
from forcing.policy.preset import Preset
from forcing.policy.tokens import Tokenizer
from forcing.policy.weights import loss_weight


def streams_of(tokenizer: Tokenizer, cameras: frozenset[str]) -> Streams:
    """What each of the tokenizer's streams is. cameras: names of those that are latents of a camera's frames."""
    return Streams(
        actions=tuple(stream.role == "action" for stream in tokenizer.streams),
        cameras=tuple(stream.name in cameras for stream in tokenizer.streams),
    )


def recall_loss(
    denoiser: nn.Module,
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
    batch, length, _ = histories.tokens.shape
    levels, guessed = draw_recall(preset.memory.mix, streams, batch, length, generator)
    noise = torch.randn(histories.tokens.shape, generator=generator)
    used = torch.arange(length) < histories.lengths[:, None]
    counted = (guessed & used[..., None]).to(device, torch.float32)
    clean, levels, noise = (tensor.to(device) for tensor in (histories.tokens, levels, noise))
    features = tokenizer.stream_of_feature.to(device)
    noisy = preset.noise.add_noise(clean, levels[..., features], noise)
    error = (denoiser(noisy, levels, histories.lengths.to(device)) - clean).square()
    optimiser = preset.optimiser
    weight = loss_weight(optimiser.weight, preset.noise.alpha_bar(levels), optimiser.snr_cap) * counted
    each = _share_of_each(tokenizer, preset.memory.observation_share).to(device)
    loss: Tensor = (weight[..., features] * each * error).sum() / counted.any(dim=-1).sum().clamp(min=1)
    return loss


def _share_of_each(tokenizer: Tokenizer, observation_share: float) -> Tensor:
    """[D] what the error of each feature counts."""
    is_action = torch.tensor([stream.role == "action" for stream in tokenizer.streams])[tokenizer.stream_of_feature]
    return torch.where(is_action, 1.0 / is_action.sum(), observation_share / (~is_action).sum().clamp(min=1))
