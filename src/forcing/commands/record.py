"""`forcing record`: episodes of a served policy, kept as they happen."""

from pathlib import Path

from forcing.commands.shared import TaskName, checked_folder, one_thread
from forcing.eval.console import new_console
from forcing.usage import at_least


def record(
    task: TaskName, out: Path, policy: str | None = None, url: str | None = None, episodes: int = 10, seed: int = 0
) -> None:
    """Drive a task's simulated robot with a served policy and record every step; Ctrl-C and kill -9 lose none.

    On a folder with a recording of the task it goes on with new episodes. Robots of your own are recorded by the server
    that drives them (`forcing serve --state-dir DIR`, and `record` where a session is opened), environments of your own
    by forcing.datasets.recorder.Recorder.

    Args:
        task: such as maze2d-medium-multi.
        out: folder of the recording, an episode a file; `forcing data` and `forcing train` read it.
        policy: shipped policy or folder of one; the one shipped for the task if not given.
        url: of a server that serves the policy; in a server of its own if not given.
        episodes: how many more.
        seed: of the recording's first episode; episode i has seed + i.
    """
    from forcing.eval.record import record as record_episodes
    from forcing.eval.tasks import find_task
    from forcing.progress import interrupts

    one_thread()
    chosen = find_task(task)
    checked_folder(out=out)
    with interrupts() as asked:
        record_episodes(
            chosen,
            policy=policy,
            url=url,
            out=out,
            episodes=at_least(1, episodes=episodes),
            seed=at_least(0, seed=seed),
            console=new_console(),
            stop=lambda: bool(asked),
        )
