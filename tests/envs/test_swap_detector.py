"""Cubes found in frames of `swap`: drawn by hand where they are projected to, and rendered."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from forcing.envs import swap_detector
from forcing.envs.rendering import use_headless
from forcing.envs.swap import LAYOUTS, Swap
from forcing.envs.swap_detector import find_cubes
from forcing.envs.swap_layout import CAMERAS

FLOOR, RED, BLUE = (37, 45, 64), (200, 55, 70), (70, 110, 185)
PLACES = [((0.42, 0.05, 0.02), (0.40, -0.04, 0.02)), ((0.45, -0.03, 0.09), (0.39, 0.04, 0.05))]


def drawn(camera: str, places: tuple[tuple[float, ...], ...], radius: float = 8.0) -> NDArray[np.uint8]:
    """A frame with a red and a blue disc where a pinhole camera shows these places."""
    eye, target = np.array(CAMERAS[camera].position), np.array(CAMERAS[camera].target)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    frame = np.full((64, 64, 3), FLOOR, np.uint8)
    for place, colour in zip(places, (RED, BLUE), strict=True):
        away = np.array(place) - eye
        scale = 32 / np.tan(np.radians(CAMERAS[camera].fovy) / 2) / (away @ ahead)
        column, row = 32 + scale * (away @ right), 32 - scale * (away @ up)
        frame[(columns - column) ** 2 + (rows - row) ** 2 < radius**2] = colour
    return frame


@pytest.fixture(scope="module")
def filmed() -> Iterator[Swap]:
    try:
        use_headless()
    except RuntimeError:
        pytest.skip("nothing renders here")
    env = Swap(cameras=True)
    yield env
    env.close()


def test_discs_are_found_where_they_are_drawn_one_frame_or_many() -> None:
    frames = {camera: np.stack([drawn(camera, places) for places in PLACES]) for camera in CAMERAS}
    found = find_cubes(frames)
    np.testing.assert_allclose(found.position_m, np.array(PLACES), atol=0.001)
    np.testing.assert_allclose(found.pixels, np.pi * 8**2, rtol=0.05)
    alone = find_cubes({camera: frame[1] for camera, frame in frames.items()})
    np.testing.assert_array_equal(alone.position_m, found.position_m[1])
    assert alone.position_m.shape == (2, 3)


def test_frames_of_any_leading_shape_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {camera: np.stack([drawn(camera, PLACES[index % 2]) for index in range(6)]) for camera in CAMERAS}
    monkeypatch.setattr(swap_detector, "AT_ONCE", 4)
    found = find_cubes({camera: frame.reshape(2, 3, 64, 64, 3) for camera, frame in frames.items()})
    assert (found.position_m.shape, found.pixels.shape) == ((2, 3, 2, 3), (2, 3, 2, 2))
    np.testing.assert_allclose(found.position_m.reshape(6, 2, 3), np.array(PLACES * 3), atol=0.001)
    nothing = find_cubes({camera: frame[:0] for camera, frame in frames.items()})
    assert nothing.position_m.shape == (0, 2, 3)


def test_what_an_edge_cuts_off_is_supposed_to_be_there() -> None:
    # The red one's middle is 5 and 3 pixels below the views' upper edges, and it reaches 8 to each side.
    places = ((0.41, 0.0, 0.14), (0.40, -0.04, 0.02))
    frames = {camera: drawn(camera, places, radius=8.0) for camera in CAMERAS}
    assert all((frame[0] == RED).all(axis=-1).any() for frame in frames.values())
    np.testing.assert_allclose(find_cubes(frames).position_m, places, atol=0.004)


def test_a_disc_with_its_middle_hidden_is_found_as_well() -> None:
    frames = {camera: drawn(camera, PLACES[0]) for camera in CAMERAS}
    for frame in frames.values():
        rows, columns = np.nonzero((frame == RED).all(axis=-1))
        frame[rows.min() : rows.min() + 9, int(columns.mean()) - 2 : int(columns.mean()) + 4] = (90, 90, 90)
    np.testing.assert_allclose(find_cubes(frames).position_m, PLACES[0], atol=0.004)


def test_specks_of_a_colour_are_no_cube_and_do_not_move_one() -> None:
    frames = {camera: drawn(camera, PLACES[0]) for camera in CAMERAS}
    for frame in frames.values():
        frame[2::9, 3::9][(frame[2::9, 3::9] == FLOOR).all(axis=-1)] = RED
    np.testing.assert_allclose(find_cubes(frames).position_m, PLACES[0], atol=0.001)


def test_a_cube_that_one_view_does_not_show_is_not_found() -> None:
    frames = {camera: drawn(camera, PLACES[0]) for camera in CAMERAS}
    frames["side"][(frames["side"] == BLUE).all(axis=-1)] = FLOOR
    found = find_cubes(frames)
    assert np.isnan(found.position_m[1]).all()
    assert (found.pixels[1] > 0).tolist() == [True, False]
    np.testing.assert_allclose(found.position_m[0], PLACES[0][0], atol=0.001)
    black = find_cubes({camera: np.zeros((64, 64, 3), np.uint8) for camera in CAMERAS})
    assert np.isnan(black.position_m).all()
    assert not black.pixels.any()


def test_rendered_cubes_on_the_table_are_found_within_three_millimetres(filmed: Swap) -> None:
    far = []
    for seed, layout in enumerate(2 * LAYOUTS):
        observation, _ = filmed.reset(seed=seed, options={"layout": layout})
        true = np.stack([observation["red_position"], observation["blue_position"]])
        far.append(np.linalg.norm(find_cubes(observation).position_m - true, axis=-1))
    assert np.median(far) < 0.0015
    assert np.quantile(far, 0.9) < 0.003
