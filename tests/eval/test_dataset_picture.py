"""A recording's picture against recordings made by hand: mazes, arms with cameras, broken ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from forcing.eval import dataset_picture
from forcing.eval.dataset_panels import coverage_of, draw_lengths, thinned
from forcing.eval.dataset_picture import MOST_TASKS, STRIP_FRAMES, draw_dataset
from forcing.eval.figures import save_png
from forcing.policy.types import EpisodeNote, StreamSpec, Trajectories, TrajectorySpec


def recorded(
    *streams: StreamSpec, lengths: tuple[int, ...] = (40, 60), goal: str | None = None, hz: float = 10
) -> Trajectories:
    """Random walks; frames that brighten from step to step."""
    rng = np.random.default_rng(0)
    steps, episodes = sum(lengths), len(lengths)
    numbers, frames = {}, {}
    for stream in streams:
        rows = steps + episodes if stream.role == "observation" else steps
        if stream.image:
            brightness = np.arange(rows, dtype=np.uint8)[:, None, None, None]
            frames[stream.name] = np.broadcast_to(brightness, (rows, *stream.shape)).copy()
        else:
            numbers[stream.name] = np.cumsum(rng.normal(size=(rows, *stream.shape)), axis=0).astype(np.float32)
    spec = TrajectorySpec(streams=streams, control_hz=hz, goal=goal)
    return Trajectories(spec=spec, streams=numbers, frames=frames, lengths=np.array(lengths))


MAZE = (
    StreamSpec(name="position", role="observation", shape=(2,), units="m"),
    StreamSpec(name="velocity", role="observation", shape=(2,), units="m/s"),
    StreamSpec(name="action", role="action", shape=(2,), low=(-1, -1), high=(1, 1)),
)
ARM = (
    *(StreamSpec(name=f"joints_{side}", role="observation", shape=(14,), units="rad") for side in "abcdefg"),
    StreamSpec(name="scan", role="observation", shape=(100,)),
    *(StreamSpec(name=f"camera_{side}", role="observation", shape=(12, 16, 3)) for side in "abcde"),
    StreamSpec(name="action", role="action", shape=(20,)),
)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Trajectories], tuple[Figure, Path]]:
    """The figure that is drawn, and its file."""
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        kept.append(figure)
        save_png(figure, path)

    monkeypatch.setattr(dataset_picture, "save_png", keep)

    def draw(recording: Trajectories) -> tuple[Figure, Path]:
        draw_dataset(recording, "mine", tmp_path / "mine.png")
        return kept[-1], tmp_path / "mine.png"

    return draw


def titles(figure: Figure) -> list[str]:
    return [title for axes in figure.axes if (title := axes.get_title(loc="left"))]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_a_maze_is_shown_on_one_page(drawn: Any) -> None:
    figure, path = drawn(recorded(*MAZE, goal="position"))
    assert texts(figure) == ["mine", "2 episodes, 100 steps, 10 s at 10 Hz"]
    assert titles(figure) == [
        "episodes by length",
        "where position was",
        "position, m: range of each entry",
        "velocity, m/s",
        "action[0]: how often, logarithmic",
        "action[1]",
    ]
    pixels = imread(path)
    across, up = figure.get_size_inches() * figure.dpi
    assert pixels.shape[:2] == (round(up), round(across))
    assert path.read_bytes() == drawn(recorded(*MAZE, goal="position"))[1].read_bytes()


def test_an_arm_with_many_streams_is_shown_in_part_and_the_rest_named(drawn: Any) -> None:
    recording = recorded(*ARM)
    notes = tuple(EpisodeNote(task=f"task {index}", subsets=("train",)) for index in range(2))
    figure, _ = drawn(replace(recording, notes=notes))
    assert "camera_d, 12×16×3: the first episode, 4 s" in titles(figure)
    assert texts(figure)[2:] == [
        "task, 1 episodes: task 0",
        "task, 1 episodes: task 1",
        "subsets, episodes: train 2",
        "not shown: streams joints_g, scan; 4 entries of the action; cameras camera_e",
    ]
    heights = [axes.get_position() for axes in figure.axes]
    assert min(place.y0 for place in heights) > 0
    assert max(place.x1 for place in heights) <= 1
    overlapping = [
        (a, b) for i, a in enumerate(heights) for b in heights[i + 1 :] if a.overlaps(b) and a.bounds != b.bounds
    ]
    assert overlapping == []


def test_the_strip_is_the_first_episode_from_its_first_frame_to_its_last(drawn: Any) -> None:
    camera = StreamSpec(name="camera", role="observation", shape=(12, 16, 3))
    figure, _ = drawn(recorded(camera, MAZE[-1], lengths=(70, 30)))
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes if axes.images]
    assert len(shown) == STRIP_FRAMES
    assert shown == [0, 10, 20, 30, 40, 50, 60, 70]  # a frame's brightness is its row


def test_many_tasks_are_counted_and_long_ones_shortened(drawn: Any) -> None:
    recording = recorded(*MAZE, lengths=(20,) * 10)
    notes = tuple(EpisodeNote(task=f"{index} " + "very " * 60 + "long") for index in range(9))
    figure, _ = drawn(replace(recording, notes=(*notes, EpisodeNote(task="8 short"))))
    lines = texts(figure)[2:]
    assert lines[-1] == f"not shown: {10 - MOST_TASKS} tasks"
    assert all(len(line) < 130 for line in lines)
    assert lines[0].endswith("…")


def test_what_is_broken_is_drawn_and_said(drawn: Any) -> None:
    recording = recorded(*MAZE, lengths=(30,), goal="position")
    position, action = recording.streams["position"].copy(), recording.streams["action"].copy()
    position[3] = np.nan
    position[:, 1] = np.inf
    action[:] = np.nan
    figure, path = drawn(replace(recording, streams={**recording.streams, "position": position, "action": action}))
    assert "position, m, 32 not finite" in titles(figure)
    assert path.stat().st_size > 0
    assert texts(figure)[1] == "1 episode, 30 steps, 3 s at 10 Hz"


def test_frames_that_are_no_bytes_and_gray_ones_are_drawn(drawn: Any) -> None:
    camera = StreamSpec(name="camera", role="observation", shape=(12, 16, 1))
    recording = recorded(camera, MAZE[-1])
    drawn(recording)
    numbers = recording.frames["camera"][:].astype(np.float32) / 7
    numbers[0, 0, 0, 0] = np.nan
    _, path = drawn(replace(recording, frames={"camera": numbers}))
    assert path.exists()


def test_coverage_is_the_goals_two_liveliest_entries() -> None:
    place = StreamSpec(name="place", role="observation", shape=(3,), units="m")
    wide = StreamSpec(name="wide", role="observation", shape=(9,))
    recording = recorded(wide, place, MAZE[-1], goal="place")
    values = recording.streams["place"] * np.array([5, 0.01, 9], np.float32)
    found = coverage_of(replace(recording, streams={**recording.streams, "place": values}))
    assert found is not None
    assert (found.x_label, found.y_label, found.equal) == ("place[0], m", "place[2], m", True)
    np.testing.assert_array_equal(found.y, values[:, 2])


def test_coverage_of_many_entries_is_their_principal_components() -> None:
    """Six entries that follow one angle, and its sine: two components say it all."""
    angle = np.linspace(0, 3, 82)
    joints = np.stack([angle, 2 * angle, -angle, np.sin(9 * angle), 3 * np.sin(9 * angle), angle + 1], axis=1)
    recording = recorded(StreamSpec(name="joints", role="observation", shape=(6,)), MAZE[-1], lengths=(40, 40))
    found = coverage_of(replace(recording, streams={**recording.streams, "joints": joints}))
    assert found is not None
    shares = [int(label.partition("(")[2].rstrip("%)")) for label in (found.x_label, found.y_label)]
    assert sum(shares) in (99, 100, 101)
    assert abs(np.corrcoef(found.x, angle)[0, 1]) > 0.9


def test_coverage_of_one_entry_is_over_time_and_of_none_nothing() -> None:
    height = StreamSpec(name="height", role="observation", shape=(), units="m")
    found = coverage_of(recorded(height, MAZE[-1], lengths=(2, 3)))
    assert found is not None
    np.testing.assert_allclose(found.x, [0, 0.1, 0.2, 0, 0.1, 0.2, 0.3])
    assert found.y_label == "height, m"
    camera = StreamSpec(name="camera", role="observation", shape=(12, 16, 3))
    assert coverage_of(recorded(camera, MAZE[-1])) is None


def test_lengths_are_counted_in_seconds() -> None:
    axes = Figure().add_axes((0.1, 0.1, 0.8, 0.8))
    draw_lengths(axes, recorded(*MAZE, lengths=(10, 10, 50)))
    bars = {round(bar.get_x() + bar.get_width() / 2, 1): bar.get_height() for bar in axes.patches}  # type: ignore[attr-defined]
    assert sorted(height for height in bars.values() if height) == [1, 2]
    assert sum(bars.values()) == 3
    assert (axes.patches[0].get_x(), max(bars)) == (pytest.approx(1.0), pytest.approx(4.6))  # type: ignore[attr-defined]


def test_many_rows_are_thinned_evenly() -> None:
    rows = np.arange(250_001)
    kept = thinned(rows)
    assert len(kept) <= 100_000
    assert set(np.diff(kept).tolist()) == {3}
