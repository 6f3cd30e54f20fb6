"""`forcing bench train`: windows a second out of memory and through the network, in one run."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from forcing.datasets.windows import TrajectoryWindows
from forcing.eval.report import write_report
from forcing.policy.preset import Preset
from forcing.policy.tokens import Normaliser
from forcing.policy.training import Budget, Trainer
from forcing.policy.types import Array, StreamSpec, Trajectories, TrajectorySpec

SECONDS = 10.0


def run_bench(preset: Preset, *, report: Path | None, command: str, console: Console) -> None:
    """Rates on a synthetic recording of a million steps."""
    windows = TrajectoryWindows(_recording(1000, 1000))
    trainer = Trainer(preset, windows, Normaliser.fit(_recording(10, 1000)))
    layout, rng = preset.layout, np.random.default_rng(0)
    budget = Budget(minutes=60)

    def sample() -> int:
        windows.sample(rng, 256, 0, 64)
        return 256

    def step() -> int:
        before = trainer.windows_seen
        trainer.advance(budget)
        return trainer.windows_seen - before

    rates = {
        "64-step windows from memory": _rate(sample),
        f"training windows, up to {layout.horizon} tokens of {layout.token_steps} steps": _rate(step),
    }
    table = Table(
        title=f"{preset.name}: {sum(p.numel() for p in trainer.denoiser.parameters()) / 1e6:.2f} M parameters"
    )
    table.add_column("")
    table.add_column("windows/s", justify="right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}")
    console.print(table)
    if report is not None:
        write_report({"command": command, "preset": preset.name, "windows_per_s": rates}, report)


def _rate(work: Callable[[], int]) -> float:
    """What `work` counts, per second, over `SECONDS` after a warm-up."""
    for _ in range(3):
        work()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        count += work()
    return count / (time.perf_counter() - started)


def _recording(episodes: int, steps: int) -> Trajectories:
    """Random walks with their velocity and action, 100 Hz."""
    rng = np.random.default_rng(0)
    spec = TrajectorySpec(
        streams=(
            StreamSpec(name="position", role="observation", shape=(2,), units="m"),
            StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s", rate_of="position"),
            StreamSpec(name="action", role="action", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
        ),
        control_hz=100.0,
        goal="position",
    )
    velocity: Array = rng.standard_normal((episodes * (steps + 1), 2)).astype(np.float32)
    action: Array = rng.uniform(-1, 1, (episodes * steps, 2)).astype(np.float32)
    streams: dict[str, Array] = {"position": np.cumsum(velocity, axis=0) / 100, "velocity": velocity, "action": action}
    return Trajectories(spec=spec, streams=streams, lengths=np.full(episodes, steps))
