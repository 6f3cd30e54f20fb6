"""`forcing bench serve`: robots x rate x transport against a server, and a naive server beside it in the same run.

Server and robots have a process each; robots are simulated at their real rate. Machines differ and so do their hours,
so what counts are ratios of one run.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from forcing.eval.drivers import PolicyDriver
from forcing.eval.load import Felt, Load, felt
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.report import Report, write_report
from forcing.eval.tasks import find_maze
from forcing.policy.policy import Policy, load_policy

ROLLING = ("rolling.passes=1",)
START_TIMEOUT_S = 120.0
SHARES = (50, 99, 99.9)
NAIVE: Final = "naive"


def loads(seconds: float) -> list[Load]:
    """What is measured: alone at full rate, then fleets; a controller waits for most of its period and no longer."""
    return [
        Load(robots=1, hz=100, transport="request", seconds=seconds, deadline_ms=6),
        Load(robots=1, hz=100, transport="stream", seconds=seconds, deadline_ms=6),
        Load(robots=8, hz=20, transport="request", seconds=seconds, deadline_ms=30),
        Load(robots=8, hz=20, transport="stream", seconds=seconds, deadline_ms=30),
        Load(robots=32, hz=20, transport="stream", seconds=3 * seconds, deadline_ms=30),
        Load(robots=1, hz=100, transport=NAIVE, seconds=seconds),
        Load(robots=32, hz=20, transport=NAIVE, seconds=seconds),
    ]


def run_bench(policy: str, *, seconds: float, report: Path | None, command: str, console: Console) -> None:
    """Prints a table, and writes it. seconds: of each row, of the largest fleet thrice that. Raises UnknownPolicy."""
    loaded = load_policy(policy)
    task = find_maze(f"{loaded.card.get('task', policy)}-multi")
    console.print(f"in process, {seconds:g} s ...")
    rows = [_in_process(loaded, task, seconds)]
    with ProcessPoolExecutor(1, get_context("spawn")) as robots:
        for load in loads(seconds):
            console.print(f"{_name(load)}, {load.seconds:g} s ...")
            with _server(policy, load) as (url, pid):
                before, began = _usage(pid, url), time.perf_counter()
                what = robots.submit(felt, url, policy, task.name, load).result()
                rows.append(_row(load, what, before, _usage(pid, url), time.perf_counter() - began))
    console.print(_table(rows))
    most = max(row["robots"] for row in rows if "robots" in row)
    fleet, naive = (
        next(row for row in rows if (row.get("robots"), row.get("transport")) == (most, transport))
        for transport in ("stream", NAIVE)
    )
    console.print(
        f"actions a second, {most} robots: {fleet['actions_hz'] / naive['actions_hz']:.1f} times the naive server's"
    )
    if report is not None:
        write_report({"command": command, "policy": policy, "settings": ROLLING, "rows": rows}, report)
        console.print(f"report: {report}")


def _in_process(policy: Policy, task: MazeTask, seconds: float) -> Report:
    """One robot without a server, planning from noise as shipped."""
    env, driver, steps = task.make(), PolicyDriver(policy, task), int(seconds * task.control_hz)
    observation = task.reset(env, 0, 0)
    traces = [driver.begin(observation, 0)]
    for step in range(steps):
        observation, _, _, truncated, _ = env.step(driver.act(observation))
        if truncated:
            observation = task.reset(env, step, step)
            traces.append(driver.begin(observation, step))
    driver.close()
    env.close()
    ms = [ms for trace in traces for ms in trace.act_ms]
    row = {"row": "in process, 1 robot, no deadline", "acts": len(ms)}
    return {**row, **_quantiles(ms), "ms_counts": _counted(ms)}


def _name(load: Load) -> str:
    through = {"request": "a request each", "stream": "a stream", "naive": "naive server"}[load.transport]
    return f"{through}, {load.robots} at {load.hz:g} Hz"


def _row(load: Load, what: Felt, before: Mapping[str, float], after: Mapping[str, float], wall_s: float) -> Report:
    """late: share of answers that took longer than a period. cores: that the server's processes kept busy."""
    ms = np.array(what.ms)
    return {
        "row": _name(load),
        **asdict(load),
        "acts": len(ms),
        **_quantiles(what.ms),
        "ms_counts": _counted(what.ms),
        "late": float((ms > 1000 / load.hz).mean()),
        "without_action": what.without,
        "skipped": what.skipped,
        "actions_hz": sum(what.sources.values()) / load.seconds,
        "sources": dict(what.sources),
        "passes_hz": (after["passes"] - before["passes"]) / load.seconds,
        "cores": (after["cpu_s"] - before["cpu_s"]) / wall_s,
        "memory_mb": after["memory_mb"],
    }


def _quantiles(ms: Sequence[float]) -> Report:
    return {f"ms_p{share:g}": float(np.percentile(ms, share)) for share in SHARES}


def _counted(ms: Sequence[float]) -> Report:
    """How many answers took how many ms, to a tenth."""
    tenths, counts = np.unique(np.round(ms, 1), return_counts=True)
    return {f"{tenth:.1f}": int(count) for tenth, count in zip(tenths, counts, strict=True)}


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("", "p50 / p99 / p99.9 ms", "late", "actions/s", "hold", "passes/s", "cores", "MB"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    return table


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as people read it."""
    times = " / ".join(f"{row[f'ms_p{share:g}']:.1f}" for share in SHARES)
    if "hz" not in row:
        return [row["row"], times, *[""] * 6]
    held = row["sources"].get("hold", 0) / max(1, row["acts"])
    return [
        row["row"],
        times,
        f"{row['late']:.2%}",
        f"{row['actions_hz']:.0f}",
        f"{held:.1%}",
        f"{row['passes_hz']:.0f}" if row["transport"] != NAIVE else "",
        f"{row['cores']:.2f}",
        f"{row['memory_mb']:.0f}",
    ]


def _usage(pid: int, url: str) -> dict[str, float]:
    """cpu_s and memory_mb of a process and those it began, 0 where /proc tells nothing; network passes so far."""
    found = re.search(r"^forcing_plan_passes_sum (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    ticks, pages = 0, 0
    for process in _family(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        pages += int(fields[21])
    return {
        "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
        "memory_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "passes": float(found[1]) if found else 0.0,
    }


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return []
    return [pid, *(one for child in children.read_text().split() for one in _family(int(child)))]


@contextmanager
def _server(policy: str, load: Load) -> Iterator[tuple[str, int]]:
    """URL and process id of a server of its own, ready."""
    port = _free_port()
    command = [sys.executable, "-m", "forcing", "serve", "--policy", policy, "--port", str(port)]
    command += [word for setting in ROLLING for word in ("--set", setting)]
    if load.transport == NAIVE:
        code = f"from forcing.eval.naive_server import serve_naively; serve_naively({policy!r}, {port})"
        command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield _ready(f"http://127.0.0.1:{port}", process), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _ready(url: str, process: subprocess.Popen[bytes]) -> str:
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server at {url} did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
