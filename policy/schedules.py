"""Scheduling matrices: which token is at which noise level in each row of sampling.

A matrix is [M, T], from all pure noise (1) to all clean (0), and no column ever rises. Chen et al. (2024),
arXiv:2407.01392, section 3.3 and appendix D. Knows nothing of networks.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["pyramid", "full_sequence", "autoregressive", "trapezoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A family of scheduling matrices.

    kind: how the tokens follow each other. sampling_steps: DDIM steps each token takes, at least 1.
    uncertainty_scale: steps by which each token lags the one before it, at least 0; pyramid and trapezoid only.
    """

    kind: Kind = "pyramid"
    sampling_steps: int = 4
    uncertainty_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"schedule must be {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.sampling_steps < 1:
            raise ValueError(f"sampling_steps must be at least 1, got {self.sampling_steps}")
        if not self.uncertainty_scale >= 0:
            raise ValueError(f"uncertainty_scale must be at least 0, got {self.uncertainty_scale}")

    def matrix(self, horizon: int) -> NDArray[np.float32]:
        """[M, horizon] levels, row by row."""
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 token, got {horizon}")
        if self.kind == "full_sequence":
            return pyramid(horizon, self.sampling_steps, 0.0)
        if self.kind == "autoregressive":
            return pyramid(horizon, self.sampling_steps, float(self.sampling_steps))
        if self.kind == "trapezoid":
            return trapezoid(horizon, self.sampling_steps, self.uncertainty_scale)
        return pyramid(horizon, self.sampling_steps, self.uncertainty_scale)


def pyramid(horizon: int, sampling_steps: int, uncertainty_scale: float) -> NDArray[np.float32]:
    """Near future ahead of far future: level[m, t] = clip(S + int(t u) - m, 0, S) / S, [M, horizon].

    u = 0 moves all tokens together, u = S one token after another.
    """
    lag = np.floor(np.arange(horizon) * uncertainty_scale)
    return _descend(lag, sampling_steps)


def trapezoid(horizon: int, sampling_steps: int, uncertainty_scale: float) -> NDArray[np.float32]:
    """Both ends ahead of the middle, for plans whose goal is as certain as their start, [M, horizon]."""
    tokens = np.arange(horizon)
    lag = np.floor(np.minimum(tokens, horizon - 1 - tokens) * uncertainty_scale)
    return _descend(lag, sampling_steps)


def _descend(lag: NDArray[np.float64], sampling_steps: int) -> NDArray[np.float32]:
    rows = np.arange(sampling_steps + int(lag.max()) + 1)[:, None]
    matrix = np.clip(sampling_steps + lag - rows, 0, sampling_steps) / sampling_steps
    # A lag of more than S steps would leave rows in which nothing moves.
    moves = np.concatenate([[True], (np.diff(matrix, axis=0) < 0).any(axis=1)])
    return np.asarray(matrix[moves], dtype=np.float32)
