"""`forcing bench serve`: one control step in process, over HTTP and over a WebSocket, with one robot and with eight.

The server runs in a process of its own, as in use; robots are simulated at their real control rate. All in one run,
because machines differ and so do their hours.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from forcing.eval.drivers import Driver, PolicyDriver, ServerDriver
from forcing.eval.report import write_report
from forcing.eval.tasks import Task, find_task
from forcing.policy.policy import load_policy

STEPS = 600
ROBOTS = 8
START_TIMEOUT_S = 120.0


def run_bench(policy: str, *, report: Path | None, command: str, console: Console) -> None:
    """Latency of `act` in ms, p50 and p99, apart for steps that follow a plan and steps that make one.

    Raises UnknownPolicy.
    """
    loaded = load_policy(policy)
    task = find_task(f"{loaded.card.get('task', policy)}-multi")
    console.print(f"in process, {STEPS} steps ...")
    rows = [_row("in process, 1 robot", [_drive(PolicyDriver(loaded, task), task, 0, STEPS)])]
    context = get_context("spawn")
    with _server(policy) as url, context.Manager() as manager, ProcessPoolExecutor(ROBOTS, context) as pool:
        for robots, name in ((1, "1 robot"), (ROBOTS, f"{ROBOTS} robots")):
            for through, stream in (("a request each", False), ("a stream", True)):
                console.print(f"through {url}, {through}, {name} ...")
                start = manager.Barrier(robots, timeout=START_TIMEOUT_S)
                rows.append(_row(f"{through}, {name}", _fleet(pool, start, url, policy, task, stream)))
    for row in rows:
        row["ratio"] = row["follow_ms_p50"] / rows[0]["follow_ms_p50"]
    console.print(f"{policy}: one control step, ms (p50 / p99), robots at {task.control_hz:.0f} Hz")
    console.print(_table(rows))
    if report is not None:
        write_report({"command": command, "policy": policy, "control_hz": task.control_hz, "rows": rows}, report)
        console.print(f"report: {report}")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """80 columns wide; the last is the time to follow a plan over that of the first row."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("", "follows a plan", "makes a plan", "plans", "Hz", "ratio"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        follow = f"{row['follow_ms_p50']:.2f} / {row['follow_ms_p99']:.2f}"
        fresh = f"{row['fresh_ms_p50']:.0f} / {row['fresh_ms_p99']:.0f}"
        table.add_row(row["row"], follow, fresh, str(row["plans"]), f"{row['achieved_hz']:.0f}", f"{row['ratio']:.1f}")
    return table


def _drive(driver: Driver, task: Task, seed: int, steps: int) -> dict[str, Any]:
    """Drives so many steps at the control rate; ms of each act, and whether it made a plan."""
    env = task.make()
    period_s = 1 / task.control_hz
    try:
        observation, _ = env.reset(seed=seed)
        traces = [driver.begin(observation, seed)]
        began = due = time.perf_counter()
        for _ in range(steps):
            observation, _, _, truncated, _ = env.step(driver.act(observation))
            if truncated:
                observation, _ = env.reset()
                traces.append(driver.begin(observation, seed))
            due = max(due + period_s, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
        elapsed_s = time.perf_counter() - began
    finally:
        env.close()
        driver.close()
    ms = [ms for trace in traces for ms in trace.act_ms]
    fresh = [source == "fresh" for trace in traces for source in trace.sources]
    return {"ms": ms, "fresh": fresh, "hz": steps / elapsed_s}


def _fleet(pool: Executor, start: Barrier, url: str, policy: str, task: Task, stream: bool) -> list[dict[str, Any]]:
    """Robots in a process each, as in use: one does not wait for another's interpreter."""
    robots = range(start.parties)
    driven = [pool.submit(_drive_robot, url, policy, task.name, seed, start, STEPS, stream) for seed in robots]
    return [robot.result() for robot in driven]


def _drive_robot(
    url: str, policy: str, task_name: str, seed: int, start: Barrier, steps: int, stream: bool
) -> dict[str, Any]:
    """Waits for the others, then drives."""
    task = find_task(task_name)
    task.make().close()  # the first one loads the simulator
    start.wait()
    return _drive(ServerDriver(url, policy, task, stream=stream), task, seed, steps)


def _row(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    ms = np.concatenate([run["ms"] for run in runs])
    fresh = np.concatenate([run["fresh"] for run in runs])
    quantiles = {}
    for label, values in (("follow", ms[~fresh]), ("fresh", ms[fresh])):
        for share in (50, 99):
            quantiles[f"{label}_ms_p{share}"] = float(np.percentile(values, share))
    hz = float(np.mean([run["hz"] for run in runs]))
    return {"row": name, "steps": len(ms), "plans": int(fresh.sum()), "achieved_hz": hz, **quantiles}


@contextmanager
def _server(policy: str) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, "-m", "forcing", "serve", "--policy", policy, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if " at " not in line:
            raise RuntimeError(f"the server did not start, it said {line!r}")
        yield line.rsplit(" at ", 1)[1].strip()
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()
