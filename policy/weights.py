"""How much an error counts in training, by how noisy the token was that it was made on.

All weights act on the squared error of the clean token, whatever the network's target is: with SNR = ab / (1 - ab),
|x0_hat - x0|^2 is |eps_hat - eps|^2 / SNR and |v_hat - v|^2 / (1 + SNR). So `min_snr` is at most 1 in the space of the
noise, and `snr_plus_one` without its cap is a uniform weight in the space of v. Knows nothing of networks.
"""

from typing import Literal

import torch
from torch import Tensor

Weight = Literal["snr_plus_one", "min_snr", "uniform", "fused_snr"]

# Of the reference's later code, per token. (https://github.com/kwsong0113/diffusion-forcing-transformer)
FUSED_DECAY = 0.9


def loss_weight(kind: Weight, alpha_bar: Tensor, cap: float, decay: float = FUSED_DECAY) -> Tensor:
    """[B, L, S] weight of each stream of each token.

    alpha_bar: [B, L, S] share of signal. cap: largest weight, except of `uniform`.
    snr_plus_one: min(1 + SNR, cap), which leaves no level untrained. min_snr: min(SNR, cap) (Hang et al. 2023,
    arXiv:2303.09556), nothing at pure noise. uniform: 1. fused_snr: see `fused_snr`.
    """
    if kind == "uniform":
        return torch.ones_like(alpha_bar)
    snr_plus_one = 1 / (1 - alpha_bar).clamp(min=1e-6)
    if kind == "snr_plus_one":
        return snr_plus_one.clamp(max=cap)
    snr = (alpha_bar * snr_plus_one).clamp(max=cap)
    return snr if kind == "min_snr" else cap * fused_snr(snr / cap, decay)


def fused_snr(signal: Tensor, decay: float) -> Tensor:
    """[B, L, S] what is known of each token from itself and from those before it, 0 to 1, every stream by itself.

    signal: [B, L, S] clipped SNR divided by its cap, in the order of time. Chen et al. (2024), arXiv:2407.01392,
    appendix: history H_t = decay H_{t-1} + (1 - decay) S_t with H_1 = S_1, and S'_t = 1 - (1 - S_t)(1 - H_{t-1}) with
    nothing known before the first token.
    """
    history = torch.zeros_like(signal[:, 0])
    fused = []
    for token, own in enumerate(signal.unbind(dim=1)):
        fused.append(1 - (1 - own) * (1 - history))
        history = own if token == 0 else decay * history + (1 - decay) * own
    return torch.stack(fused, dim=1)
