"""`forcing generate`: demonstrations by a scripted expert."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forcing.commands.shared import TaskName, checked_folder, checked_workers
from forcing.usage import at_least, known


def generate(task: TaskName, out: Path, steps: int = 1_000_000, seed: int = 0, workers: int | None = None) -> None:
    """Record demonstrations by a scripted expert, as a Minari dataset.

    Args:
        task: what is demonstrated: maze2d-umaze, -medium, -large, or ogbench-pointmaze-medium-navigate, -medium-stitch,
            -large-navigate and so on to -giant-stitch, or an arm's: swap, swap-cameras, cube-single, cube-double,
            fetch-push, fetch-pick-and-place, metaworld (eight tasks in turn), metaworld-reach, -push and so on.
        out: folder of Minari datasets; the new one appears below it, under its id.
        steps: control steps to record; of an arm, whole episodes that hold as many.
        seed: of everything random; the same seed gives the same recording.
        workers: processes, one a core if not given; the recording does not depend on it.
    """
    from forcing.datasets.minari_writer import write_minari
    from forcing.envs.recipes import RECIPES
    from forcing.progress import progress_bar

    recipe = known(task, RECIPES, "task")
    checked_folder(out=out)
    # HDF5 does not survive a disk that fills up under it.
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    needed, free = steps * recipe.bytes_a_step, shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(f"{out} needs about {needed / 1e6:.0f} MB for {steps} steps, {free / 1e6:.0f} MB are free there")
    shards = recipe.collect(
        steps=at_least(1, steps=steps), seed=at_least(0, seed=seed), workers=checked_workers(workers)
    )

    def episodes(progress: Any) -> Iterator[Mapping[str, Any]]:
        bar = progress.add_task(f"driving {task}", total=steps)
        for shard in shards:
            for episode in shard:
                progress.advance(bar, len(episode["actions"]))
                yield episode

    with progress_bar() as progress:
        path = write_minari(
            out,
            f"forcing/{task}-v0",
            episodes(progress),
            description=f"{recipe.expert} with action noise {recipe.noise} on {task}: --steps {steps} --seed {seed}.",
            env=recipe.env(),
            observation_space=recipe.observation_space,
            action_space=recipe.action_space,
            control_hz=recipe.control_hz,
            algorithm_name=recipe.expert,
            goal=recipe.goal,
            units=recipe.units,
        )
    print(f"wrote {path}")
