"""One reader of `forcing bench data` in a process of its own: random windows as fast as they come, and its memory.

`python -m forcing.eval.bench_data_worker '{"reader": …}'` answers each line of {"seconds": …} or {"windows": …} with a
line of figures. What each reader does is what its users would write.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forcing.datasets.store import open_store
from forcing.datasets.windows import TrajectoryWindows
from forcing.eval.bench_data_files import MINARI_ID
from forcing.policy.types import Array

MIB = 1 << 20
Draw = Callable[[], Mapping[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """folder: of the recording, see bench_data_files. future: steps after the first of a window. batch: windows in a
    draw. limit_mb: of memory, enforced by the system; 0 for none."""

    reader: str
    folder: str
    future: int
    batch: int
    seed: int
    cache_mb: int
    limit_mb: int = 0


def store_draw(job: Job) -> tuple[Draw, str]:
    """Ours."""
    windows = TrajectoryWindows(open_store(Path(job.folder) / "store.zarr"), cache_bytes=job.cache_mb * MIB)
    rng = np.random.default_rng(job.seed)
    slots, segments = windows.pool_segments(0, job.future)
    drawn = "uniformly" if slots == segments else f"pool of {slots} of {segments} segments"
    return lambda: windows.sample(rng, job.batch, 0, job.future).streams, drawn


def minari_draw(job: Job) -> tuple[Draw, str]:
    """A random episode of a MinariDataset, and a random slice of it."""
    from minari import MinariDataset

    dataset = MinariDataset(Path(job.folder) / "minari" / MINARI_ID / "data")
    dataset.set_seed(job.seed)
    rng = np.random.default_rng(job.seed)

    def one() -> Mapping[str, Array]:
        episode = dataset.sample_episodes(1)[0]
        start = int(rng.integers(0, len(episode.actions) - job.future + 1))
        found = {name: rows[start : start + job.future + 1] for name, rows in episode.observations.items()}
        return {**found, "action": episode.actions[start : start + job.future]}

    return _batches(one, job.batch), "episode, then slice"


def zarr_draw(job: Job) -> tuple[Draw, str]:
    """One slice of a zarr array a window and stream."""
    import zarr

    group = zarr.open_group(Path(job.folder) / "plain.zarr", mode="r")
    return _sliced(dict(group.arrays()), job), "uniformly"


def memmap_draw(job: Job) -> tuple[Draw, str]:
    """One slice of an uncompressed memory map a window and stream."""
    files = sorted((Path(job.folder) / "memmap").glob("*.npy"))
    return _sliced({file.stem: np.load(file, mmap_mode="r") for file in files}, job), "uniformly"


READERS: Mapping[str, Callable[[Job], tuple[Draw, str]]] = {
    "forcing": store_draw,
    "minari": minari_draw,
    "zarr": zarr_draw,
    "memmap": memmap_draw,
}


def _sliced(arrays: Mapping[str, Any], job: Job) -> Draw:
    lengths = np.load(Path(job.folder) / "lengths.npy")
    fits = lengths - job.future + 1
    ends, starts = np.cumsum(fits), np.cumsum(lengths) - lengths
    rng = np.random.default_rng(job.seed)

    def one() -> Mapping[str, Array]:
        drawn = int(rng.integers(0, ends[-1]))
        episode = int(np.searchsorted(ends, drawn, side="right"))
        step = int(starts[episode]) + drawn - int(ends[episode] - fits[episode])
        return {
            name: array[step : step + job.future]
            if name == "action"
            else array[step + episode : step + episode + job.future + 1]
            for name, array in arrays.items()
        }

    return _batches(one, job.batch)


def _batches(one: Callable[[], Mapping[str, Array]], batch: int) -> Draw:
    """Windows copied into a batch, whose memory is made once."""
    memory: dict[str, Array] = {}

    def draw() -> Mapping[str, Array]:
        for index in range(batch):
            for name, rows in one().items():
                if name not in memory:
                    memory[name] = np.empty((batch, *rows.shape), rows.dtype)
                memory[name][index] = rows
        return memory

    return draw


def peak_mb() -> float:
    """The most memory that this process has had in RAM, MiB; of this program alone where /proc tells."""
    status = Path("/proc/self/status")
    if status.exists():
        found = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if found is not None:
            return int(found.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(settings: str) -> None:
    """Answers lines of stdin until there are no more."""
    job = Job(**json.loads(settings))
    if job.limit_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (job.limit_mb * MIB, job.limit_mb * MIB))
    draw, drawn = READERS[job.reader](job)
    print(json.dumps({"drawn": drawn}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began, cpu, windows = time.perf_counter(), time.process_time(), 0
        while windows < asked.get("windows", np.inf) and time.perf_counter() - began < asked.get("seconds", np.inf):
            draw()
            windows += job.batch
        figures = {
            "windows": windows,
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mb": peak_mb(),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
