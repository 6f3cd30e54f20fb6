"""Loss weights against tables worked out by hand."""

import pytest
import torch

from forcing.policy.weights import Weight, fused_snr, loss_weight

# Signal-to-noise ratios 0, 1/4, 1, 3, 9 and infinity.
ALPHA_BAR = torch.tensor([0.0, 0.2, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64).view(1, 6, 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("snr_plus_one", [1.0, 1.25, 2.0, 4.0, 5.0, 5.0]),
        ("min_snr", [0.0, 0.25, 1.0, 3.0, 5.0, 5.0]),
        ("uniform", [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_weight_of_a_token_is_that_of_the_table(kind: Weight, expected: list[float]) -> None:
    weight = loss_weight(kind, ALPHA_BAR, cap=5.0)
    torch.testing.assert_close(weight.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_fused_weights_know_of_a_token_what_its_predecessors_tell() -> None:
    # Cap 4, decay 1/2. SNR 4, 0, 1, 0: S = 1, 0, 1/4, 0; history before each token: 0, 1, 1/2, 3/8.
    # S' = 1, 1, 1 - 3/4 * 1/2 = 5/8, 3/8.
    alpha_bar = torch.tensor([0.8, 0.0, 0.5, 0.0], dtype=torch.float64).view(1, 4, 1)
    weight = loss_weight("fused_snr", alpha_bar, cap=4.0, decay=0.5)
    torch.testing.assert_close(weight.flatten(), torch.tensor([4.0, 4.0, 2.5, 1.5], dtype=torch.float64))


def test_streams_are_fused_each_by_itself() -> None:
    # First stream S = 1/2, 0, 1; second 0, 1/2, 0. Decay 1/2; histories 0, 1/2, 1/4 and 0, 0, 1/4.
    signal = torch.tensor([[[0.5, 0.0], [0.0, 0.5], [1.0, 0.0]]])
    expected = torch.tensor([[[0.5, 0.0], [0.5, 0.5], [1.0, 0.25]]])
    torch.testing.assert_close(fused_snr(signal, decay=0.5), expected)


def test_pure_noise_behind_nothing_but_noise_has_no_fused_weight() -> None:
    assert bool((loss_weight("fused_snr", torch.zeros(2, 3, 2), cap=5.0) == 0).all())
