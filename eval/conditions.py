"""Under what an episode is driven, besides its task and its seed: faults, distractors, an early end, a film."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from forcing.envs.faults import parse_faults
from forcing.eval.arm_tasks import ArmTask
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.task import Info, Observation, Task
from forcing.policy.names import UnknownName, did_you_mean

Handling = Literal["trusted", "declared", "detected"]
# What makes a policy look for cameras that show something else than it expects.
DETECTING = ("memory.doubt=true",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """faults: of a maze's sensors, see `parse_faults`. distractor: of an arm's cameras, by the name that its task has
    for it. handling: what a policy is told of that; trusted: frames as they are. declared: disturbed cameras are named
    as missing, as by a controller that knows that they are covered. detected: frames as they are, and the policy looks
    for what is wrong with them by itself (`settings`). most_steps: at which an episode is cut, None for where the task
    ends it. filmed: how many episodes, from number 0 on."""

    faults: str = ""
    distractor: str = ""
    handling: Handling = "trusted"
    most_steps: int | None = None
    filmed: int = 0

    def __post_init__(self) -> None:
        if self.handling not in get_args(Handling):
            raise ValueError(f"handling must be one of {', '.join(get_args(Handling))}, got {self.handling!r}")
        if self.handling == "declared" and not self.distractor:
            raise ValueError("handling declared needs a distractor that is declared; name one, or leave it out")
        if self.most_steps is not None and self.most_steps < 1:
            raise ValueError(f"most_steps must be at least 1, got {self.most_steps}")

    @property
    def settings(self) -> tuple[str, ...]:
        """Of a policy that drives under these."""
        return DETECTING if self.handling == "detected" else ()

    def check(self, task: Task) -> None:
        """Raises ValueError if the task knows none of this, or names it otherwise."""
        if isinstance(task, MazeTask):
            parse_faults(task.sensors, self.faults)
        elif self.faults:
            raise ValueError(f"faults are of mazes' sensors, {task.name} has none of those; leave out --faults")
        known = task.distractors if isinstance(task, ArmTask) else {}
        if self.distractor and not known:
            raise ValueError(f"distractor must be left out: {task.name} has no camera that could be disturbed")
        if self.distractor and self.distractor not in known:
            raise UnknownName(f"unknown distractor {self.distractor!r}; {did_you_mean(self.distractor, known)}")
        if self.filmed and not isinstance(task, ArmTask):
            raise ValueError(f"film must be left out: {task.name} is no arm's; --pictures draws mazes")

    def options(self, task: Task, seed: int) -> dict[str, Any]:
        """What the episode's `Env.reset` is told besides."""
        if not self.distractor:
            return {}
        assert isinstance(task, ArmTask)
        return {"distractor": task.distractors[self.distractor](seed)}

    def told(self, observation: Observation, info: Info) -> Observation:
        """What a controller has to go by. info: of the same step."""
        if self.handling != "declared":
            return observation
        return {name: value for name, value in observation.items() if name not in info["distracted"]}
