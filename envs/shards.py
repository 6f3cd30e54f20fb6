"""Shards of work in processes side by side, results in the order of the shards. Knows nothing of what a shard is."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

Shard = TypeVar("Shard")
Result = TypeVar("Result")


def check_request(*, steps: int, seed: int, workers: int | None) -> int:
    """The number of processes: `workers`, or one a core for None. Raises ValueError for a number below its least."""
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value, least in (("steps", steps, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    return workers


def run_shards(work: Callable[[Shard], Result], shards: Sequence[Shard], workers: int) -> Iterator[Result]:
    """`work(shard)` of each shard, in order.

    workers: processes; with more than one, `work` and the shards must be picklable and the calling script importable
    (`if __name__ == "__main__":`). No process is left when the iterator ends or is closed.
    """
    workers = min(workers, len(shards))
    if workers == 1:
        yield from map(work, shards)
        return
    # Workers leave Ctrl-C to the caller, and only a few shards wait for a caller that is slower than they are.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        waiting = iter(shards)
        pending: deque[Future[Result]] = deque()
        pending.extend(pool.submit(work, shard) for shard in islice(waiting, 2 * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, shard) for shard in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
