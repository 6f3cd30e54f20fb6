"""`forcing bench serve`: the time of one control step in process, through the socket, and with eight robots at once.

The server runs in a process of its own, as in use; robots are simulated at their real control rate. All in one run,
because machines differ and so do their hours.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from forcing.eval.drivers import Driver, PolicyDriver, ServerDriver
from forcing.eval.report import write_report
from forcing.eval.tasks import Task, find_task
from forcing.policy.policy import load_policy

STEPS = 600
ROBOTS = 8


def run_bench(policy: str, *, report: Path | None, command: str, console: Console) -> None:
    """Latency of `act` in ms, p50 and p99, apart for steps that follow a plan and steps that make one."""
    loaded = load_policy(policy)
    task = find_task(f"{loaded.card.get('task', policy)}-multi")
    rows = []
    console.print(f"in process, {STEPS} steps ...")
    rows.append(_row("in process, 1 robot", [_drive(PolicyDriver(loaded, task), task, seed=0)]))
    with _server(policy) as url:
        console.print(f"through {url}, {STEPS} steps ...")
        rows.append(_row("through the socket, 1 robot", _fleet(url, policy, task, 1)))
        console.print(f"through {url}, {ROBOTS} robots ...")
        rows.append(_row(f"through the socket, {ROBOTS} robots", _fleet(url, policy, task, ROBOTS)))
    table = Table(
        title=f"{policy}: one control step, ms (p50 / p99), robots at {loaded.spec.control_hz:.0f} Hz",
        box=box.SIMPLE_HEAD,
    )
    for column in ("", "follows a plan", "makes a plan", "plans", "achieved Hz", "ratio to in process"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        ratio = row["follow_ms_p50"] / rows[0]["follow_ms_p50"]
        plain = f"{row['follow_ms_p50']:.2f} / {row['follow_ms_p99']:.2f}"
        fresh = f"{row['fresh_ms_p50']:.0f} / {row['fresh_ms_p99']:.0f}"
        table.add_row(row["row"], plain, fresh, str(row["plans"]), f"{row['achieved_hz']:.0f}", f"{ratio:.1f}")
    console.print(table)
    if report is not None:
        write_report({"command": command, "policy": policy, "rows": rows}, report)
        console.print(f"report: {report}")


def _drive(driver: Driver, task: Task, seed: int) -> dict[str, Any]:
    """Drives `STEPS` steps at the control rate; ms of each act, and whether it made a plan."""
    env = task.make()
    period_s = 1 / task.control_hz
    ms, fresh = [], []
    try:
        observation, _ = env.reset(seed=seed)
        trace = driver.begin(observation, seed)
        began = due = time.perf_counter()
        for _ in range(STEPS):
            started = time.perf_counter()
            action = driver.act(observation)
            ms.append(1000 * (time.perf_counter() - started))
            fresh.append(trace.sources[-1] == "fresh")
            observation, _, _, truncated, _ = env.step(action)
            if truncated:
                observation, _ = env.reset()
                trace = driver.begin(observation, seed)
            due = max(due + period_s, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
        elapsed_s = time.perf_counter() - began
    finally:
        env.close()
        driver.close()
    return {"ms": ms, "fresh": fresh, "hz": STEPS / elapsed_s}


def _fleet(url: str, policy: str, task: Task, robots: int) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda seed=seed: runs.append(_drive(ServerDriver(url, policy, task), task, seed)))
        for seed in range(robots)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(runs) < robots:
        raise RuntimeError(f"only {len(runs)} of {robots} robots finished; the errors are above")
    return runs


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
