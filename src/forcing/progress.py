"""What long commands show while they work: a bar with rate and time left, or plain lines where nobody watches."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from forcing.eval.console import LINE_EVERY_S
from forcing.policy import training

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Rate(ProgressColumn):
    """Work done a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def progress_bar(extra: str = "") -> Iterator[Progress]:
    """A bar on stderr; `extra` is a format of the task's own fields."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn(extra),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


@contextmanager
def counted(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """What to tell how much of the total is done, for a bar, or a line every ten seconds."""
    with progress_bar() as progress:
        bar, began = progress.add_task(name, total=total), time.monotonic()
        printed = began

        def report(done: int) -> None:
            nonlocal printed
            progress.update(bar, completed=done)
            if not progress.console.is_terminal and (now := time.monotonic()) - printed >= LINE_EVERY_S:
                printed, left = now, (total - done) * (now - began) / max(1, done)
                print(f"{name}: {done} of {total}, {left / 60:.1f} min left", flush=True)

        yield report


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM fill instead of breaking off the block."""
    asked: list[int] = []
    before = {number: signal.signal(number, lambda got, _: asked.append(got)) for number in STOPPING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that Ctrl-C fills besides raising KeyboardInterrupt, which is lost where it meets a finaliser."""
    asked: list[int] = []

    def interrupt(number: int, _: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


Training = Callable[[Callable[[training.Progress], None], Callable[[], bool]], Path]
"""Trains, given what to report to and what says whether to stop; returns the file of what was trained."""


def train_watched(
    trainer: training.Trainer, budget: training.Budget, out: Path, card: dict[str, object], *, resume: bool
) -> Path:
    """`training.train`, `watched`."""
    return watched(
        trainer.preset.name,
        lambda report, stop: training.train(trainer, budget, out, card, resume=resume, report=report, stop=stop),
    )


def watched(name: str, train: Training) -> Path:
    """What `train` returns, with a bar, or a line every ten seconds; Ctrl-C or SIGTERM asks it to stop."""
    with stop_requests() as asked, progress_bar("{task.fields[loss]}") as progress:
        bar = progress.add_task(f"training {name}", total=None, loss="")
        printed = time.monotonic()

        def report(now: training.Progress) -> None:
            nonlocal printed
            progress.update(bar, completed=now.step, total=now.total_steps, loss=f"loss {now.loss:.3f}")
            if not progress.console.is_terminal and time.monotonic() - printed >= LINE_EVERY_S:
                printed = time.monotonic()
                rate, left = f"{now.windows_per_s:.0f} windows/s", f"{now.remaining_s / 60:.1f} min left"
                print(f"step {now.step} of {now.total_steps}, loss {now.loss:.3f}, {rate}, {left}", flush=True)

        path = train(report, lambda: bool(asked))
        if (task := progress.tasks[bar]).total is None:  # over before there was anything to report
            progress.update(bar, completed=1, total=1)
        elif not asked:
            progress.update(bar, completed=task.total)
        return path
