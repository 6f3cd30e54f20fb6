"""What a network's raw output means, and the clean tokens that follow from it.

Every denoiser ends here, so that all that comes after it knows clean tokens alone. Knows nothing of networks.
"""

from typing import Literal

import torch
from torch import Tensor

Target = Literal["x0", "eps", "v"]

# Where nothing of the signal is left, a guess of the noise says nothing of the clean token, and dividing by sqrt(0)
# would not end well. The paper's chain of 1000 linear betas ends at this share (Ho et al. 2020, arXiv:2006.11239).
ALPHA_BAR_FLOOR = 4e-5


def to_x0(output: Tensor, x: Tensor, alpha_bar: Tensor, target: Target) -> Tensor:
    """The clean tokens x0_hat that `output` stands for, given the noisy tokens x = sqrt(ab) x0 + sqrt(1 - ab) eps.

    All three tensors [B, L, D]; alpha_bar: share of signal of each feature, 0 to 1.
    target: `x0`, the output is the clean token. `eps`, it is the noise: x0 = (x - sqrt(1 - ab) eps) / sqrt(ab), with ab
    in the divisor no smaller than ALPHA_BAR_FLOOR: at pure noise an error of the guess is multiplied by 158. `v`
    (Salimans and Ho 2022, arXiv:2202.00512): v = sqrt(ab) eps - sqrt(1 - ab) x0, so x0 = sqrt(ab) x - sqrt(1 - ab) v.
    """
    if target == "x0":
        return output
    noise_scale = (1 - alpha_bar).sqrt()
    if target == "eps":
        return (x - noise_scale * output) / alpha_bar.clamp(min=ALPHA_BAR_FLOOR).sqrt()
    return torch.sqrt(alpha_bar) * x - noise_scale * output
