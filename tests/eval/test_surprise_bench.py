"""Flags held against what was disturbed, counted by hand and by the bench; its tables and its picture."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from forcing.eval import bench_surprise
from forcing.eval.bench_surprise import SurpriseBench, run_bench, surprise_row, threshold_row
from forcing.eval.detection import FALSE_ALARMS, Record, beyond, counted, detection, recorded, spans
from forcing.eval.drivers import Trace
from forcing.eval.rollout import DriverSpec, Episode
from forcing.eval.surprise_picture import draw_surprise
from forcing.eval.surprise_table import PICTURE, surprise_table
from forcing.eval.tasks import find_arm
from forcing.policy.memory import MemoryConfig
from forcing.policy.policy import SHIPPED
from forcing.policy.surprise import Surprise
from forcing.policy.types import SensorReport

TASK = find_arm("swap-cameras")
QUIET, ODD, LOUD = 0.2, 2.4, 6.0


def _report(surprise: float | None, rejected: bool = False) -> SensorReport:
    return SensorReport(None, rejected=rejected, stuck=False, unheard_steps=0, surprise=surprise)


def _sensors(front: str, side: str) -> list[dict[str, SensorReport]]:
    """A letter a step: "." quiet, "?" odd, but believed, "!" loud and left aside, "l" loud, but believed, "w" so wild
    that it was left aside without a look, " " nobody knows. The gripper is quiet."""
    said = {
        ".": _report(QUIET),
        "?": _report(ODD),
        "!": _report(LOUD, rejected=True),
        "l": _report(LOUD),
        "w": _report(None, rejected=True),
        " ": _report(None),
    }
    return [
        {"front": said[one], "side": said[other], "gripper": said["."]} for one, other in zip(front, side, strict=True)
    ]


def _episode(front: str, side: str, distracted: Sequence[tuple[str, ...]], seed: int = 0) -> Episode:
    steps = len(front)
    return Episode(
        index=0,
        seed=seed,
        episode_return=0.0,
        normalized=100.0,
        success=True,
        steps_to_goal=1,
        goal=None,
        positions=np.zeros((steps + 1, 3)),
        actions=np.zeros((steps, 5), dtype=np.float32),
        trace=Trace(sensors=list(_sensors(front, side))),
        distracted=distracted,
    )


# Front is disturbed at steps 2 to 5, of which 3 and 4 are flagged; side never, and flagged at 0 and at 6 and 7.
FRONT, SIDE = " .?!!?..", "!.....!!"
DISTRACTED = [("front",) if 2 <= step <= 5 else () for step in range(9)]


def _record(front: str, side: str, distracted: Sequence[tuple[str, ...]], false_alarms: float = FALSE_ALARMS) -> Record:
    return recorded(_episode(front, side, distracted), false_alarms)


def test_spans_are_first_and_behind_the_last() -> None:
    assert spans([True, False, True, True]) == [[0, 1], [2, 4]]
    assert spans([False, False]) == []


def test_an_episode_is_recorded_as_spans_and_counts() -> None:
    record = _record(FRONT, SIDE, DISTRACTED)
    assert record["front"]["flagged"] == [[3, 5]]
    assert record["front"]["distracted"] == [[2, 6]], "of what acts answered; the last observation had none"
    assert record["side"]["flagged"] == [[0, 1], [6, 8]]
    assert record["side"]["distracted"] == []
    assert record["front"]["disturbed"] == [0] * 4 + [2] + [0] * 7 + [2] + [0] * 8, "bins of half a decade"
    assert sum(record["front"]["undisturbed"]) == 3, "of the first frame nobody knew anything"
    assert (record["front"]["undisturbed"][0], record["side"]["undisturbed"][12]) == (3, 3)


def test_flags_are_counted_as_by_hand() -> None:
    record = _record(FRONT, SIDE, DISTRACTED)
    counts = counted([record, record], [8, 8])
    # Of three streams at eight steps each, but for one that nobody judged.
    assert (counts.frames, counts.disturbed, counts.flagged, counts.hits, counts.alarms) == (46, 8, 10, 4, 4)
    assert (counts.recall, counts.precision) == (0.5, 0.4)
    assert counts.false_alarms == pytest.approx(6 / 38)
    assert (counts.spans, counts.delays) == (2, (1, 1))
    assert counts.alarms_a_minute(control_hz=20.0) == pytest.approx(4 / (16 / 20 / 60))


def test_a_run_that_begins_before_and_reaches_into_what_is_disturbed_is_no_false_alarm() -> None:
    counts = counted([_record(".!!!....", "........", DISTRACTED)], [8])
    assert (counts.alarms, counts.delays, counts.hits) == (0, (0,), 2)


def test_without_anything_disturbed_there_is_no_recall() -> None:
    counts = counted([_record("........", "........", [()] * 9)], [8])
    assert (counts.recall, counts.precision, counts.alarms, counts.delays) == (None, None, 0, ())


def test_what_is_rare_is_flagged_whether_it_was_left_aside_or_not() -> None:
    assert _record("..?ll!..", "........", [()] * 9)["front"]["flagged"] == [[3, 6]]
    assert _record("..?ll!..", "........", [()] * 9, false_alarms=0.01)["front"]["flagged"] == [[2, 6]]


def test_what_was_left_aside_without_a_look_is_flagged_and_most_surprising_and_what_was_not_read_is_no_frame() -> None:
    record = _record("ww......", "  ......", [("front", "side")] * 2 + [()] * 7)
    assert record["front"]["flagged"] == [[0, 2]]
    assert (record["front"]["disturbed"][-1], sum(record["side"]["disturbed"])) == (2, 0)
    assert (counted([record], [8]).disturbed, counted([record], [8]).recall) == (2, 1.0)


def test_reports_say_how_many_were_judged_and_found_and_nothing_of_a_driver_without_sensors() -> None:
    episode = _episode(FRONT, SIDE, DISTRACTED)
    assert detection([episode, episode]) == {
        "frames": 46,
        "disturbed": 8,
        "precision": 0.4,
        "recall": 0.5,
        "false_alarms": pytest.approx(6 / 38),
    }
    assert detection([replace(episode, trace=Trace())]) is None
    assert detection([_episode("  ", "  ", [()] * 3)]) is not None, "of the gripper something is known"


def test_other_thresholds_are_read_off_the_same_scores() -> None:
    record = _record(FRONT, SIDE, DISTRACTED)
    assert beyond([record], "disturbed", 2.0) == 1.0
    assert beyond([record], "disturbed", 3.0) == 0.5
    assert beyond([record], "disturbed", 6.5) == 0.0
    assert beyond([record], "undisturbed", 3.0) == pytest.approx(3 / 19)  # of 24 frames, 4 disturbed and one unknown
    assert beyond([_record("....", "....", [()] * 5)], "disturbed", 3.0) is None


def _bench(console: Console, policy: str, **changed: Any) -> SurpriseBench:
    how: dict[str, Any] = {"task": TASK, "policy": policy, "episodes": 2, "seed": 7, "workers": 1, "command": "typed"}
    return SurpriseBench(**(how | changed), console=console)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[DriverSpec], str]:
    """A report of two episodes a row, who drove them, and what was printed."""
    drove: list[DriverSpec] = []

    def watch(task: object, spec: DriverSpec, *_: object) -> list[Episode]:
        drove.append(spec)
        true = DISTRACTED if spec.under.distractor else [()] * 9
        return [_episode(FRONT, SIDE, true, seed) for seed in (7, 8)]

    policy = SimpleNamespace(
        revision="abc", surprise=Surprise(streams={}), preset=SimpleNamespace(memory=MemoryConfig(false_alarms=1e-3))
    )
    monkeypatch.setattr(bench_surprise, "watch", watch)
    monkeypatch.setattr(bench_surprise, "load_policy", lambda name: policy)
    report, said = tmp_path / "bench-surprise.json", io.StringIO()
    for _ in range(2):  # the second time there is nothing left to measure
        run_bench(_bench(Console(file=said, width=200), "mine"), report=report)
    return report, drove, said.getvalue()


def test_every_distractor_has_a_row_and_is_driven_by_a_policy_that_doubts(
    measured: tuple[Path, list[DriverSpec], str],
) -> None:
    report, drove, said = measured
    rows = ["undisturbed", *TASK.distractors]
    assert [entry["row"] for entry in json.loads(report.read_text())] == rows
    assert [spec.under.distractor for spec in drove] == ["", *TASK.distractors]
    assert {spec.under.settings for spec in drove} == {("memory.doubt=true",)}
    assert {spec.under.handling for spec in drove} == {"detected"}
    assert "swap-cameras, 2 episodes from seed 7, flagged beyond 0.001 of recorded frames" in said


def test_the_report_keeps_every_episode_and_tables_are_made_of_it(
    measured: tuple[Path, list[DriverSpec], str],
) -> None:
    report, _, _ = measured
    undisturbed, disturbed, *_ = json.loads(report.read_text())
    assert [record["seed"] for record in disturbed["flags"]] == [7, 8]
    assert disturbed["example"]["surprise"]["front"] == [None, 0.2, 2.4, 6.0, 6.0, 2.4, 0.2, 0.2]
    assert surprise_row(disturbed)[1:] == ["2 of 2", "8", "0.500", "0.400", "2 of 2", "1", "300.00"]
    assert surprise_row(undisturbed)[1:] == ["2 of 2", "0", "–", "0.000", "", "", "450.00"]
    assert threshold_row(disturbed)[1:] == ["1.000", "0.500", "0.500"] + ["0.1579"] * 3
    assert (disturbed["detection"]["recall"], disturbed["detection"]["precision"]) == (0.5, 0.4)
    lines = surprise_table(report.parent)
    assert lines[0].startswith("swap-cameras, 2 episodes from seed 7")
    assert any(line.startswith("| occlusion | 2 of 2 | 8 | 0.500 |") for line in lines)
    assert lines[-1] == PICTURE


def test_the_picture_has_a_row_for_each_kind(measured: tuple[Path, list[DriverSpec], str], tmp_path: Path) -> None:
    report, _, _ = measured
    assert draw_surprise(report.parent, tmp_path / "surprise.png")
    with Image.open(tmp_path / "surprise.png") as picture:
        assert picture.width == 1600
        grey = np.asarray(picture.convert("L"))
    light = np.count_nonzero((grey > 225) & (grey < 232), axis=1)  # a shade, on white
    assert (light > 300).any(), "what was disturbed is shaded"
    assert not (light[:300] > 300).any(), "but not of episodes in which nothing was"


def test_without_a_report_the_command_is_named(tmp_path: Path) -> None:
    assert "forcing bench surprise" in surprise_table(tmp_path)[0]
    assert not draw_surprise(tmp_path, tmp_path / "surprise.png")


def test_what_cannot_be_measured_is_refused() -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match=r"does not know what is usual.*forcing calibrate"):
        run_bench(_bench(console, str(SHIPPED / "maze2d-umaze")), report=None)
    with pytest.raises(ValueError, match="swap has no cameras that could be disturbed"):
        run_bench(_bench(console, str(SHIPPED / "maze2d-umaze"), task=find_arm("swap")), report=None)
