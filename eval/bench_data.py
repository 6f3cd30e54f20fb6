"""`forcing bench data`: random windows a second and memory, of our store and of plain readers beside it, in one run.

Every reader has the same recording, batch and length of windows, and a process of its own that lives to the end; they
are measured in turns, forwards and backwards, so that what slows the machine slows all of them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from forcing.datasets.windows import VISIT_WINDOWS
from forcing.eval.bench_data_files import (
    PICTURE_STEPS,
    WALK_STEPS,
    MovingPictures,
    random_walks,
    write_larger,
    write_pictures,
    write_walks,
)
from forcing.eval.bench_data_worker import MIB, READERS, Job
from forcing.eval.console import rows_table
from forcing.eval.report import Report, write_report

COLUMNS = ("", "drawn", "windows/s", "per CPU s", "of memmap", "peak MB")
TITLES = {"numbers": "64-step windows of numbers", "frames": "32-frame windows of frames"}
NAMES = {"forcing": "forcing", "minari": "Minari", "zarr": "zarr", "memmap": "memory map"}
KINDS = {"numbers": (64, 256), "frames": (31, 64)}  # steps after the first of a window, windows in a batch
ONE_THREAD = {"BLOSC_NTHREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WARM_UP_SHARE = 2.0  # of a repeat's time, before the first


@dataclass(frozen=True, slots=True, kw_only=True)
class DataBench:
    """frames: of the recording of pictures, side: their height and width in pixels. steps: of the recording of numbers.
    repeats: measurements of each reader, seconds: of each. seed: of recordings and windows. cache_mb: for decoded
    frames. larger_mb: limit of a process that draws from a store three times as large; 0 leaves that out."""

    frames: int = 16_000
    side: int = 96
    steps: int = 200_000
    repeats: int = 5
    seconds: float = 1.0
    seed: int = 0
    cache_mb: int = 256
    larger_mb: int = 0


def run_bench(bench: DataBench, *, report: Path | None, command: str, console: Console) -> None:
    """Makes the recordings in a temporary folder, measures all readers, prints tables and writes the report."""
    with tempfile.TemporaryDirectory(prefix="forcing-bench-data-") as name:
        folder = Path(name)
        console.print("making the recordings …")
        pictures = MovingPictures(max(bench.frames // (PICTURE_STEPS + 1), 1), side=bench.side, seed=bench.seed)
        write_pictures(pictures, folder / "frames")
        write_walks(random_walks(max(bench.steps // WALK_STEPS, 1), bench.seed), folder / "numbers")
        rows = [row for kind in KINDS for row in _measured(bench, kind, folder / kind)]
        larger = _larger(bench, folder / "larger") if bench.larger_mb else None
    for kind, title in TITLES.items():
        console.print(rows_table(title, COLUMNS, [cells(row, rows) for row in rows if row["kind"] == kind]))
    if larger is not None:
        console.print(larger_line(larger))
    if report is not None:
        write_report({"command": command, "bench": asdict(bench), "rows": rows, "larger": larger}, report)


def cells(row: Report, rows: Sequence[Report]) -> list[str]:
    """A row as people read it. of memmap: ratio of the medians, per second of CPU time."""
    mapped = next(other for other in rows if (other["kind"], other["reader"]) == (row["kind"], "memmap"))
    return [
        NAMES[row["reader"]],
        row["drawn"],
        f"{row['windows_per_s']:,.0f}",
        f"{row['windows_per_cpu_s']:,.0f}",
        f"{row['windows_per_cpu_s'] / mapped['windows_per_cpu_s']:.3f}",
        f"{row['peak_mb']:.0f}",
    ]


def larger_line(larger: Report) -> str:
    """What came of a store that is larger than memory, in a sentence."""
    peaks = larger["peak_mb"]
    return (
        f"A store of {larger['store_mb']:,.0f} MB of frames under a limit of {larger['limit_mb']} MB, a pass of "
        f"{larger['windows']:,} windows from a {larger['drawn']}: {larger['windows_per_s']:,.0f} a second; the peak of "
        f"memory was {peaks[0]:.0f} MB after a tenth of them and {peaks[-1]:.0f} MB after all, and "
        f"{larger['write_peak_mb']:.0f} MB in the process that wrote it."
    )


def _measured(bench: DataBench, kind: str, folder: Path) -> list[Report]:
    """A row a reader: medians, and every single measurement."""
    future, batch = KINDS[kind]
    measured: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
    with ExitStack() as stack:
        workers, drawn = {}, {}
        for reader in READERS:
            job = Job(
                reader=reader,
                folder=str(folder),
                future=future,
                batch=batch,
                seed=bench.seed,
                cache_mb=bench.cache_mb,
            )
            workers[reader] = stack.enter_context(_worker(job))
            drawn[reader] = str(_line(workers[reader])["drawn"])
            _ask(workers[reader], seconds=WARM_UP_SHARE * bench.seconds)
        for repeat in range(bench.repeats):
            for reader in list(READERS)[:: -1 if repeat % 2 else 1]:
                measured[reader].append(_ask(workers[reader], seconds=bench.seconds))
    return [
        {
            "kind": kind,
            "reader": reader,
            "drawn": drawn[reader],
            "steps": future,
            "batch": batch,
            "windows_per_s": statistics.median(one["windows"] / one["seconds"] for one in found),
            "windows_per_cpu_s": statistics.median(one["windows"] / one["cpu_seconds"] for one in found),
            "peak_mb": found[-1]["peak_mb"],
            "measured": found,
        }
        for reader, found in measured.items()
    ]


def _larger(bench: DataBench, folder: Path) -> Report:
    """A pass over a store three times the limit under which it is drawn from, tenth by tenth."""
    frame = bench.side * bench.side * 3
    episodes = -(-3 * bench.larger_mb * MIB // (frame * (PICTURE_STEPS + 1)))
    write_peak = write_larger(folder, episodes, bench.seed)
    future, batch = KINDS["frames"]
    rows = episodes * (PICTURE_STEPS + 1)
    job = Job(
        reader="forcing",
        folder=str(folder),
        future=future,
        batch=batch,
        seed=bench.seed,
        cache_mb=bench.cache_mb,
        limit_mb=bench.larger_mb,
    )
    with _worker(job) as worker:
        drawn = _line(worker)["drawn"]
        tenths = [_ask(worker, windows=VISIT_WINDOWS * rows / 10) for _ in range(10)]
    return {
        "limit_mb": bench.larger_mb,
        "store_mb": rows * frame / MIB,
        "drawn": drawn,
        "windows": sum(one["windows"] for one in tenths),
        "windows_per_s": sum(one["windows"] for one in tenths) / sum(one["seconds"] for one in tenths),
        "peak_mb": [one["peak_mb"] for one in tenths],
        "write_peak_mb": write_peak,
    }


@contextmanager
def _worker(job: Job) -> Iterator["subprocess.Popen[str]"]:
    """The process of one reader."""
    command = [sys.executable, "-m", "forcing.eval.bench_data_worker", json.dumps(asdict(job))]
    pipe, environment = subprocess.PIPE, {**os.environ, **ONE_THREAD}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(worker: "subprocess.Popen[str]", **what: float) -> dict[str, Any]:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(what) + "\n")
    worker.stdin.flush()
    return _line(worker)


def _line(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a reader of the bench ended before it answered; what it said stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer
