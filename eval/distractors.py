"""What disturbs the cameras of `swap-cameras`, by name: seed of an episode -> its distractor.

At which grasp it begins, and of which camera, goes by the seed, so that a run has all of them as often.
"""

from collections.abc import Callable, Mapping

from forcing.envs.swap_distractors import Distractor
from forcing.envs.swap_layout import CAMERAS

GRASPS = 3  # of an exchange
STEPS = 60  # 3 s


def occlusion(seed: int) -> Distractor:
    """Both lenses are covered for 3 s from a grasp on."""
    return Distractor(kind="cover", grasp=1 + seed % GRASPS, steps=STEPS)


def bag(seed: int) -> Distractor:
    """A bag flies through both views within 3 s from a grasp on."""
    return Distractor(kind="bag", grasp=1 + seed % GRASPS, steps=STEPS)


def dead(seed: int) -> Distractor:
    """One camera is black from the first grasp to the end."""
    return Distractor(kind="dead", cameras=(tuple(CAMERAS)[seed % len(CAMERAS)],), grasp=1)


def light(seed: int) -> Distractor:
    """The light is dim and yellow from the first grasp to the end."""
    return Distractor(kind="light", grasp=1)


DISTRACTORS: Mapping[str, Callable[[int], Distractor]] = {
    "occlusion": occlusion,
    "bag": bag,
    "dead": dead,
    "light": light,
}
