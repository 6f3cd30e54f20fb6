"""What a reading of a robot's must be to be taken in at all. Knows no episode."""

import numpy as np

from forcing.policy.policy import FARTHEST, Policy
from forcing.policy.types import Array


def checked(value: Array, name: str, label: str, policy: Policy) -> Array:
    """The value as an array. Raises ValueError, naming it by its label, if it is of no robot of this policy's."""
    array = shaped(value, name, label, policy)
    wrong = unbelievable(array, name, policy)
    if wrong is not None:
        raise ValueError(f"{label} {name!r} must be {wrong}")
    return array


def shaped(value: Array, name: str, label: str, policy: Policy) -> Array:
    """The same, whatever its numbers are. Raises ValueError if it has another shape."""
    shape = policy.spec[name].shape
    try:
        array = np.asarray(value, dtype=None if name in policy.cameras else np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label} {name!r} must be numbers of shape {shape}: {error}") from error
    if array.shape != shape:
        raise ValueError(f"{label} {name!r} has shape {array.shape}, the policy {policy.name!r} expects {shape}")
    return array


def unbelievable(array: Array, name: str, policy: Policy) -> str | None:
    """The rule that no reading of a robot breaks, and what came; None if it is kept."""
    if not np.isfinite(array).all():
        return f"finite, got {array.tolist()}"
    far = policy.away(name, array)
    if far > FARTHEST:
        return (
            f"within {FARTHEST:g} standard deviations of the recordings, "
            f"got {array.tolist()}, {far:.3g} away; check its units"
        )
    return None
