"""Shards of work in processes side by side, results in the order of the shards. Knows nothing of what a shard is."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

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
    with process_pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:  # Ctrl-C is the caller's
        # Only a few shards wait for a caller that is slower than they are.
        waiting = iter(shards)
        pending: deque[Future[Result]] = deque()
        pending.extend(pool.submit(work, shard) for shard in islice(waiting, 2 * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, shard) for shard in islice(waiting, 1))
            yield result


@contextmanager
def process_pool(
    workers: int, initialise: Callable[..., Any], arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each initialised. None is left when the block ends; where it ends by an error, by Ctrl-C or as
    nobody wants the rest, they are ended in the midst of what they do."""
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initialise, arguments)
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
