"""Observations of episodes, compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def same(one: Sequence[Mapping[str, NDArray[Any]]], other: Sequence[Mapping[str, NDArray[Any]]]) -> bool:
    """Whether both episodes' observations are alike, to the last bit."""
    return all(np.array_equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)
