"""What disturbs the cameras of `swap`: as announced, when announced, and frames alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.envs.rendering import use_headless
from forcing.envs.swap import Observation, Swap
from forcing.envs.swap_distractors import Distractor, Disturbance, Grasps, flight
from forcing.envs.swap_layout import CAMERAS

FAR, TABLE, AIR = (0.42, 0.0, 0.3), (0.4, 0.1, 0.02), (0.4, 0.1, 0.1)
OWN = Distractor(kind="dead", cameras=("side",))


@pytest.fixture(scope="module")
def filmed() -> Iterator[Swap]:
    try:
        use_headless()
    except RuntimeError:
        pytest.skip("nothing renders here")
    env = Swap(cameras=True, distractor=OWN)
    yield env
    env.close()


def state(effector: tuple[float, ...] = FAR, closed: float = 0.0, red: tuple[float, ...] = TABLE) -> Observation:
    return {
        "effector_position": np.array(effector),
        "gripper": np.array([closed, 0.0]),
        "red_position": np.array(red),
        "blue_position": np.array([0.5, -0.1, 0.02]),
    }


def filmed_episode(env: Swap, distractor: Distractor | None, steps: int = 14) -> tuple[list[Observation], list[Any]]:
    """An arm that moves about over the table, the same for every distractor."""
    observation, info = env.reset(seed=4, options={"distractor": distractor})
    observations, distracted = [observation], [info["distracted"]]
    for turn in np.linspace(0, 3, steps):
        target = np.array(
            [0.42 + 0.08 * np.cos(turn), 0.08 * np.sin(turn), 0.12, 1.0, turn - 1, 0.5 + 0.5 * np.sin(turn)]
        )
        observation, *_, info = env.step(target.astype(np.float32))
        observations.append(observation)
        distracted.append(info["distracted"])
    return observations, distracted


@pytest.fixture(scope="module")
def undisturbed(filmed: Swap) -> list[Observation]:
    observations, distracted = filmed_episode(filmed, None)
    assert set(distracted) == {()}
    return observations


@pytest.mark.parametrize(
    "distractor",
    [
        Distractor(kind="bag", steps=14),
        Distractor(kind="bag", cameras=("front",), steps=10, start=2),
        Distractor(kind="bag", cameras=("side",), steps=10, start=2),
        Distractor(kind="cover", start=3, steps=5),
        Distractor(kind="light", start=6),
        Distractor(kind="dead", cameras=("side",), start=5),
    ],
    ids=lambda distractor: f"{distractor.kind} {' '.join(distractor.cameras)}",
)
def test_frames_said_to_be_disturbed_are_and_all_else_is_as_without(
    filmed: Swap, undisturbed: list[Observation], distractor: Distractor
) -> None:
    observations, distracted = filmed_episode(filmed, distractor)
    for with_it, without, names in zip(observations, undisturbed, distracted, strict=True):
        assert set(names) == {camera for camera in CAMERAS if (with_it[camera] != without[camera]).any()}
        for name in set(with_it) - set(CAMERAS):
            np.testing.assert_array_equal(with_it[name], without[name])
    assert {name for names in distracted for name in names} == set(distractor.cameras)
    assert distracted[-1] == (distractor.cameras if distractor.steps is None else ())


def test_covered_lenses_give_a_dull_frame_and_dead_cameras_a_black_one(filmed: Swap) -> None:
    observation, info = filmed.reset(seed=4, options={"distractor": Distractor(kind="cover", cameras=("front",))})
    assert info["distracted"] == ("front",)
    frame = observation["front"].astype(float)
    assert 40 < frame.mean() < 110
    assert 2 < frame.std(axis=(0, 1)).max() < 15
    assert frame.min() > 0
    observation, _ = filmed.reset(seed=4, options={"distractor": Distractor(kind="dead")})
    assert not observation["front"].any()
    assert not observation["side"].any()


def test_light_is_scaled_for_each_colour(filmed: Swap) -> None:
    def lit(*light: float) -> Observation:
        return filmed.reset(seed=4, options={"distractor": Distractor(kind="light", light=light)})[0]  # type: ignore[arg-type]

    bright, dim = lit(0.4, 0.4, 0.4), lit(0.2, 0.4, 0.04)  # in full light some colours are cut at white
    for camera in CAMERAS:
        ratio = dim[camera].sum(axis=(0, 1)) / bright[camera].sum(axis=(0, 1))
        np.testing.assert_allclose(ratio, (0.5, 1.0, 0.1), atol=0.02)


def test_a_bag_hides_most_of_each_view_on_its_way_and_both_are_free_before_and_after(filmed: Swap) -> None:
    distractor = Distractor(kind="bag", steps=30)
    hidden: dict[str, list[float]] = {camera: [] for camera in CAMERAS}
    disturbed = [filmed.reset(seed=4, options={"distractor": distractor})[0]]
    plain = [filmed.reset(seed=4, options={"distractor": None})[0]]
    hold = np.array([0.42, 0.0, 0.3, 1.0, 0.0, 0.0], np.float32)
    for observations, option in ((disturbed, distractor), (plain, None)):
        filmed.reset(seed=4, options={"distractor": option})
        observations += [filmed.step(hold)[0] for _ in range(30)]
    for with_it, without in zip(disturbed, plain, strict=True):
        for camera in CAMERAS:
            hidden[camera].append(float((with_it[camera] != without[camera]).any(axis=-1).mean()))
    for camera in CAMERAS:
        assert max(hidden[camera]) > 0.6
        assert hidden[camera][0] == hidden[camera][-1] == 0


def off_axis(camera: str, place: NDArray[np.float64]) -> float:
    """Angle in degrees between a place and what the camera looks at, seen from it."""
    eye = np.array(CAMERAS[camera].position)
    ahead, there = np.array(CAMERAS[camera].target) - eye, place - eye
    return float(np.degrees(np.arccos(ahead @ there / np.linalg.norm(ahead) / np.linalg.norm(there))))


@pytest.mark.parametrize("cameras", [("front",), ("side",), ("front", "side"), ("side", "front")])
def test_a_bag_crosses_the_middle_of_the_views_it_is_thrown_through_and_falls_as_it_flies(
    cameras: tuple[str, ...],
) -> None:
    path = np.array([flight(cameras, along) for along in np.linspace(0, 1, 801)])
    nearest = [int(np.argmin([off_axis(camera, place) for place in path])) for camera in cameras]
    assert nearest == sorted(nearest)
    for camera, index in zip(cameras, nearest, strict=True):
        assert off_axis(camera, path[index]) < 0.1
        assert min(off_axis(camera, path[0]), off_axis(camera, path[-1])) > 12  # 5 degrees to an edge, 7 to a corner
    bend = np.diff(path, n=2, axis=0)
    np.testing.assert_allclose(bend[:, :2], 0, atol=1e-12)
    np.testing.assert_allclose(bend[:, 2], bend[0, 2])
    assert bend[0, 2] < 0


def test_a_grasp_is_the_gripper_closing_around_a_cube_on_the_table() -> None:
    at_it = (0.4, 0.1, 0.025)
    rows = [
        (state(), 0),
        (state(FAR, 0.5), 0),  # closed, nothing near
        (state(at_it, 0.1), 0),
        (state(at_it, 0.3), 1),
        (state(at_it, 0.6), 1),
        (state(FAR, 0.9), 1),  # missed
        (state(at_it, 0.0), 1),
        (state(at_it, 0.5), 1),  # and tried again
        (state(AIR, 0.56, AIR), 1),
        (state(at_it, 0.56), 1),  # put down
        (state(at_it, 0.15), 1),
        (state(FAR, 0.0), 1),
        (state(at_it, 0.4), 2),
    ]
    grasps = Grasps()
    for row, count in rows:
        grasps.see(row)
        assert grasps.count == count


def times(distractor: Distractor, states: list[Observation]) -> list[int | None]:
    disturbance = Disturbance(distractor)
    due = []
    for each in states:
        disturbance.see(each)
        due.append(disturbance.at)
    return due


def test_it_lasts_from_its_start_for_its_steps_counted_from_the_grasp_where_one_is_given() -> None:
    still, closing = [state()] * 3, [state((0.4, 0.1, 0.025), 0.5)] * 6
    both = still + closing
    none = None
    assert times(Distractor(kind="cover", start=2, steps=3), both) == [none, none, 0, 1, 2, *4 * [none]]
    assert times(Distractor(kind="cover", steps=2), both)[:3] == [0, 1, none]
    assert times(Distractor(kind="dead", start=7), both) == [*7 * [none], 0, 1]
    assert times(Distractor(kind="cover", grasp=1, steps=4), both) == [*3 * [none], 0, 1, 2, 3, none, none]
    assert times(Distractor(kind="dead", grasp=1, start=4), both) == [*7 * [none], 0, 1]
    assert times(Distractor(kind="dead", grasp=2), both) == 9 * [none]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fog"}, "kind must be one of bag, cover, light, dead, got 'fog'"),
        ({"kind": "dead", "cameras": ()}, "cameras must be one or more of front, side"),
        ({"kind": "dead", "cameras": ("front", "front")}, "cameras must be one or more of front, side"),
        ({"kind": "dead", "cameras": ("wrist",)}, "cameras must be one or more of front, side"),
        ({"kind": "light", "cameras": ("front",)}, "light changes for front and side alike"),
        ({"kind": "light", "light": (1, -1, 1)}, "light must be at least 0"),
        ({"kind": "bag"}, "steps must be given for a bag"),
        ({"kind": "cover", "steps": 0}, "steps must be at least 1, got 0"),
        ({"kind": "cover", "start": -1}, "start must be at least 0, got -1"),
        ({"kind": "cover", "grasp": 0}, "grasp must be at least 1, got 0"),
    ],
)
def test_a_distractor_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distractor(**options)


def test_without_cameras_there_is_nothing_to_disturb() -> None:
    with pytest.raises(ValueError, match="it needs cameras=True"):
        Swap(distractor=Distractor(kind="cover"))


def test_an_environments_own_distractor_comes_with_every_episode_that_names_none(filmed: Swap) -> None:
    assert filmed.reset(seed=0)[1]["distracted"] == ("side",)
    assert filmed.reset(seed=0, options={"distractor": None})[1]["distracted"] == ()
    assert filmed.reset(seed=0)[1]["distracted"] == ("side",)
