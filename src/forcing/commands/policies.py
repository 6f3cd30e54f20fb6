"""What is done with trained policies: `forcing demo`, `forcing serve`, `forcing eval` and `forcing policies`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from forcing.commands.shared import (
    Settings,
    TaskName,
    checked_folder,
    checked_report,
    checked_workers,
    one_thread,
    writable,
    wrong_usage,
)
from forcing.eval.console import new_console
from forcing.usage import UsageError, at_least, typed

if TYPE_CHECKING:
    from forcing.eval.rollout import DriverSpec
    from forcing.eval.task import Task


def demo(task: str = "maze2d-large-multi", episodes: int = 4, seed: int = 0, out: Path = Path("demo-output")) -> None:
    """Serve a shipped policy, drive a simulated robot over HTTP, score it, draw it.

    Args:
        task: what the robot must do.
        episodes: how many times.
        seed: of the first episode.
        out: folder for the report and the pictures.
    """
    from forcing.eval.demo import run_demo
    from forcing.eval.tasks import find_maze

    one_thread()
    run_demo(
        find_maze(task),
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        out=out,
        command=typed(),
        console=new_console(),
    )


def serve(
    policy: tuple[str, ...],
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_remote: bool = False,
    token_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    max_sessions: int = 64,
    requests_per_s: float | None = None,
    state_dir: Path | None = None,
    log: Literal["text", "json"] = "text",
    set_: Settings = (),
) -> None:
    """Answer controllers over HTTP until Ctrl-C or SIGTERM. SIGHUP reads the policies again, for new sessions.

    Args:
        policy: names of shipped policies or folders of trained ones; several may follow.
        host: address to listen on.
        port: 0 takes a free one.
        allow_remote: listen on other addresses than loopback without a token; anybody who reaches them can drive.
        token_file: a file with one word that every request must carry as `Authorization: Bearer WORD`; clients take it
            from the environment's FORCING_TOKEN.
        certificate: PEM file of the server's certificate and those that vouch for it, for https.
        key: PEM file of its private key.
        max_sessions: open at once; more are refused until one ends.
        requests_per_s: that one address may send; any number if not given.
        state_dir: folder in which sessions are kept as they go, so that they outlive the server; `record` of a session
            keeps its episodes there.
        log: lines on stderr, with the first characters of a session's id and the request's.
        set_: a setting of every served policy's planner or tracker, such as planner.polish=none for quicker
            plans; several --set may follow.
    """
    from forcing.eval.adjust import Adjusted
    from forcing.policy.policy import load_policy
    from forcing.server.access import read_token
    from forcing.server.logs import configure
    from forcing.server.serve import Certificate, run_server
    from forcing.server.service import ServerSettings

    one_thread()
    if (certificate is None) != (key is None):
        raise UsageError("certificate and key belong together; give both, or neither")
    with wrong_usage():
        settings = ServerSettings(
            max_sessions=max_sessions,
            requests_per_s=requests_per_s,
            processes=True,
            state_dir=state_dir,
            token=None if token_file is None else read_token(token_file),
        )
    configure(log)
    loaded = [load_policy(name) for name in policy]
    with wrong_usage():
        served = [Adjusted(set_)(entry) for entry in loaded]
    for told in filter(None, (entry.unfinished for entry in loaded)):
        print(f"note: {told}", flush=True)
    run_server(
        served,
        host,
        port,
        settings=settings,
        certificate=None if certificate is None or key is None else Certificate(certificate, key),
        allow_remote=allow_remote,
        read_again=lambda: [Adjusted(set_)(load_policy(name)) for name in policy],
        announce=lambda line: print(line, flush=True),
    )


def evaluate(
    task: TaskName,
    policy: str | None = None,
    url: str | None = None,
    served: bool = False,
    episodes: int = 100,
    seed: int = 0,
    report: Path | None = None,
    pictures: Path | None = None,
    film: Path | None = None,
    workers: int | None = None,
    most_steps: int | None = None,
    data: str | None = None,
    faults: str = "",
    distractor: str = "",
    handling: Literal["trusted", "declared", "detected"] = "trusted",
    set_: Settings = (),
) -> None:
    """Score a policy on a task, beside the yardsticks that have no planner.

    In mazes a success is to reach the goal; with an arm, what was to be done must still be done at the last step.

    Args:
        task: such as maze2d-medium-multi or swap; ogbench-pointmaze-giant-stitch and its kin take their five goals in
            turn.
        policy: shipped policy, folder of a policy or clone, or yardstick (straight, expert, mpc; of arms expert alone);
            the one shipped for the task if not given.
        url: of a server that serves the policy; in this process if not given.
        served: start a server for the policy and drive over HTTP, as real robots are.
        episodes: how many.
        seed: of the first episode; episode i has seed + i.
        report: where to write the report as JSON.
        pictures: folder for a picture of each of the first 12 episodes, in mazes.
        film: a .gif or .mp4 of what an arm's cameras showed in the first 3 episodes.
        workers: processes, one a core if not given; scores do not depend on it.
        most_steps: cut episodes after so many, to try something out.
        data: the recording that yardstick mpc stands on, and no other needs.
        faults: of a maze's sensors: noise=SIGMA, bias=SIZE, dropout=RATE[/STEPS], freeze=RATE[/STEPS],
            delay=STEPS[/JITTER], spikes=RATE/SIZE, quantise=STEP, each for all sensors or for some
            (noise=0.2@position), joined by +.
        distractor: of swap-cameras' cameras: occlusion (both for 3 s from a grasp on), bag (through both), dead (one to
            the end) or light; the episodes are the same as without.
        handling: of disturbed frames: trusted as they are, declared as missing by the controller, or detected by the
            policy itself (--set memory.doubt=true).
        set_: a setting of the policy's planner or tracker, such as tracker.kind=pd or planner.support_tolerance=0.1;
            several --set may follow.
    """
    from forcing.eval.adjust import Adjusted
    from forcing.eval.conditions import Conditions
    from forcing.eval.evaluate import evaluate_policy
    from forcing.eval.film import FILMED, check_film
    from forcing.eval.rollout import DriverSpec
    from forcing.eval.tasks import find_task

    one_thread()
    chosen = find_task(task)
    name = policy or chosen.policy
    with wrong_usage():
        under = Conditions(
            faults=faults,
            distractor=distractor,
            handling=handling,
            most_steps=most_steps,
            filmed=0 if film is None else FILMED,
        )
        adjust = Adjusted(set_) if set_ else None
        driver = DriverSpec(policy=name, url=url, adjust=adjust, data=data, under=under)
        driver.check(chosen)
        if film is not None:
            check_film(film)
    _check_settings(driver)
    _check_ways(chosen, name, url, served=served, pictures=pictures)
    evaluate_policy(
        chosen,
        driver,
        served=served,
        episodes=at_least(1, episodes=episodes),
        seed=at_least(0, seed=seed),
        report=checked_report(report),
        pictures=pictures,
        film=writable(film=film),
        workers=checked_workers(workers),
        command=typed(),
        console=new_console(),
    )


def policies() -> None:
    """List the shipped policies and those under runs/: task, size, score, training data."""
    from forcing.eval.policy_table import policy_table

    new_console().print(policy_table(Path("runs")))


def _check_ways(task: "Task", policy: str, url: str | None, *, served: bool, pictures: Path | None) -> None:
    """Raises UsageError if there is no policy for a server of our own, or nothing that pictures could be drawn of."""
    from forcing.eval.maze_tasks import MazeTask
    from forcing.eval.rollout import BASELINES
    from forcing.policy.clone import is_clone

    if served and url is not None:
        raise UsageError("served starts a server of its own, url names another; leave out one of them")
    if served and (policy in BASELINES or is_clone(policy)):
        raise UsageError(f"served needs a policy that a server can have, {policy} is a yardstick; leave out --served")
    if pictures is not None and not isinstance(task, MazeTask):
        raise UsageError(f"pictures are drawn of mazes, which {task.name} is not; --film is for arms")
    checked_folder(pictures=pictures)


def _check_settings(driver: "DriverSpec") -> None:
    """Raises UsageError if they are not for this policy, before any work is done."""
    from forcing.eval.rollout import BASELINES
    from forcing.policy.clone import is_clone
    from forcing.policy.policy import load_policy

    if driver.adjust is None and not driver.under.settings:
        return
    if driver.url is not None or driver.policy in BASELINES or is_clone(driver.policy):
        raise UsageError("set changes a policy in this process; leave out --url, and yardsticks, or leave out --set")
    with wrong_usage():
        driver.changed(load_policy(driver.policy))
