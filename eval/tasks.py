"""All benchmark tasks by name."""

from collections.abc import Mapping

from forcing.eval.arm_tasks import ArmTask, arm_tasks
from forcing.eval.maze_tasks import MazeTask, maze_tasks
from forcing.eval.task import Task
from forcing.policy.names import UnknownName, did_you_mean

TASKS: Mapping[str, Task] = {task.name: task for task in (*maze_tasks(), *arm_tasks())}


def find_task(name: str) -> Task:
    """Raises UnknownName naming the nearest, if `name` is none."""
    if name in TASKS:
        return TASKS[name]
    raise UnknownName(f"unknown task {name!r}; {did_you_mean(name, TASKS)}")


def find_maze(name: str) -> MazeTask:
    """Raises UnknownName as `find_task`, and if the task is no maze."""
    task = find_task(name)
    if not isinstance(task, MazeTask):
        raise UnknownName(f"task {name!r} is no maze, which this is for; such are {', '.join(_mazes()[:3])} and others")
    return task


def find_arm(name: str) -> ArmTask:
    """Raises UnknownName as `find_task`, and if the task is no arm's."""
    task = find_task(name)
    if not isinstance(task, ArmTask):
        arms = [name for name, task in TASKS.items() if isinstance(task, ArmTask)]
        raise UnknownName(f"task {name!r} is no arm's, which this is for; such are {', '.join(arms)}")
    return task


def _mazes() -> list[str]:
    return [name for name, task in TASKS.items() if isinstance(task, MazeTask)]
