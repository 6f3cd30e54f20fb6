"""What a Minari dataset's environment said besides observations: infos, which are no streams. Knows none by name."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from minari.dataset.minari_storage import MinariStorage

from forcing.datasets.minari_places import locate_minari
from forcing.datasets.minari_rows import INFOS, Leaves, minari_rows
from forcing.policy.types import Array


def minari_infos(id_or_path: str | Path, names: Sequence[str]) -> Iterator[dict[str, Array]]:
    """Of each episode of L steps, one after another, the named infos, [L + 1, *shape] numbers;
    what is one number a step is [L + 1, 1] in Arrow and Parquet files.

    Raises ValueError naming the dataset if it is not there, or the file and the info that is not in it.
    """
    folder = locate_minari(id_or_path)
    metadata = MinariStorage.read_raw_metadata(folder / "data")
    leaves: Leaves = {(INFOS, name): None for name in names}
    for rows in minari_rows(folder, metadata["data_format"], int(metadata["total_episodes"]), leaves):
        yield {name: rows[INFOS, name] for name in names}
