"""What several commands share: types and checks of options, threads, the world that a recording shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from forcing.usage import UsageError, at_least

if TYPE_CHECKING:
    from forcing.policy.preset import Preset
    from forcing.policy.types import Trajectories
    from forcing.policy.world import World

TaskName = Annotated[Positional[str], arg(metavar="TASK")]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Turns a ValueError of the block, which looks at options alone, into a UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def checked_workers(workers: int | None) -> int | None:
    """`workers`, where None is one a core. Raises UsageError if it is below 1."""
    return None if workers is None else at_least(1, workers=workers)


def one_thread() -> None:
    """Small networks on shared cores lose by more threads, and sums in another order would change results."""
    import torch

    torch.set_num_threads(1)


def world_for(recipe: "Preset", trajectories: "Trajectories") -> "World | None":
    """What the recording shows besides trajectories, None if nothing. Raises NoWorld if the recipe needs it."""
    from forcing.policy.world import NoWorld, fit_world

    try:
        world = fit_world(trajectories)
    except NoWorld as reason:
        if recipe.tracker.kind == "feedback":
            raise NoWorld(
                f"{reason}; a feedback tracker needs dynamics; train with --set tracker.kind=actions"
            ) from reason
        print(f"plans will not be rehearsed: {reason}")
        return None
    print("dynamics fitted; plans will be rehearsed on them")
    return world
