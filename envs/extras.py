"""Simulators that are extras: a missing one is said by name, and importing one needs no display. Knows none of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from forcing.envs.rendering import without_display


@contextmanager
def extra_needed(task: str, extra: str) -> Iterator[None]:
    """Where `task` imports what the extra `extra` brings: RuntimeError naming it if that is not installed."""
    try:
        with without_display():
            yield
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{task} needs the extra {extra!r} ({error}); install it: pip install 'forcing[{extra}]'"
        ) from error
