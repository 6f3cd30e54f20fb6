"""Options of a reset that are misspelt are refused by every arm."""

from collections.abc import Callable
from typing import Any

import pytest

from forcing.envs.cube import Cube
from forcing.envs.fetch import Fetch
from forcing.envs.metaworld import MetaWorld
from forcing.envs.swap import Swap


@pytest.mark.parametrize(
    ("made", "misspelt", "known"),
    [
        (Swap, "layuot", "layout, distractor"),
        (lambda: Cube("single"), "taskid", "task_id, starts, goals"),
        (lambda: MetaWorld("reach"), "taskid", "task_id"),
        (lambda: Fetch("push"), "goal", "none"),
    ],
)
def test_an_option_that_an_arm_does_not_know_is_refused(made: Callable[[], Any], misspelt: str, known: str) -> None:
    env = made()
    with pytest.raises(ValueError, match=f"options must be among {known}, got '{misspelt}'"):
        env.reset(seed=0, options={misspelt: 1})
    env.reset(seed=0, options={})
    env.close()
