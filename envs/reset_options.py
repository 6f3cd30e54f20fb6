"""What an environment's reset is asked for besides a seed. Knows no environment."""

from collections.abc import Mapping
from typing import Any


def asked(options: Mapping[str, Any] | None, *known: str) -> Mapping[str, Any]:
    """The options, none where none are given. Raises ValueError on one that the environment does not know."""
    for name in options or {}:
        if name not in known:
            raise ValueError(f"options must be among {', '.join(known) or 'none'}, got {name!r}")
    return options or {}
