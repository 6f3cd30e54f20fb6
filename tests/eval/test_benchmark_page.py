"""The page of benchmarks from records made by hand: what is there is shown, what is not is named, prose stays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forcing.eval.benchmark_page import TABLES, write_page
from forcing.eval.maze_tasks import MazeTask
from forcing.eval.published import PUBLISHED
from forcing.eval.tasks import TASKS

PROSE = "# Title\n\nBefore.\n\n<!-- table: {0} -->\nold | table\n<!-- end -->\n\nAfter, with a | b.\n"


def _report(task: str, score: float, sem: float | None = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "task": task,
        "episodes": 2,
        "seed": 7,
        "normalized_mean": score,
        "normalized_sem": sem,
        "success_rate": 1.0,
        "success_interval": [0.342, 1.0],
        "steps_to_goal_mean": 44.4,
        "plan_ms_p50": 12.0,
        "plan_metrics": _figures(cost=60.0),
        "goals": [],
        "episodes_detail": [{"normalized": score - 1}, {"normalized": score + 1}],
        **more,
    }


def _figures(cost: float) -> dict[str, Any]:
    spread = {"mean": 0.11, "p95": 0.22, "max": 0.33}
    part = {
        "joint_jump_m": spread,
        "inner_jump_m": None,
        "wall_depth_m": spread,
        "crossing_share": 0.25,
        "arriving_share": 1.0,
        "predicted_steps_mean": 50.0,
        "prediction_error_abs_mean": 3.0,
        "cost_mean": cost,
    }
    return {"first": part, "all": part, "limit_steps": 43}


def _entry(task: str, row: str, group: str, score: float, **more: Any) -> dict[str, Any]:
    own = {
        "row": row,
        "group": group,
        "settings": [],
        "weights": "abc",
        "passes": 3.0,
        "rows_a_pass": 32,
        "budget": None,
    }
    return {**_report(task, score), **own, "same_as": None, **more}


def _write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(json.dumps(document))


def _page(tmp_path: Path, table: str) -> list[str]:
    """The lines between the marks after writing."""
    page = tmp_path / "page.md"
    page.write_text(PROSE.format(table))
    write_page(page, tmp_path)
    before, _, rest = page.read_text().partition(f"<!-- table: {table} -->\n")
    block, _, after = rest.partition("<!-- end -->\n")
    assert (before, after) == ("# Title\n\nBefore.\n\n", "\nAfter, with a | b.\n")
    assert "old | table" not in block
    return [line for line in block.splitlines() if line]


def _cells(lines: list[str], row: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_any_record_is_left_out_with_the_command_that_makes_it(tmp_path: Path, table: str) -> None:
    lines = _page(tmp_path, table)
    said = [line for line in lines if not line.startswith("|")]
    assert all("Not measured yet; `forcing " in line for line in said)
    assert said


def test_the_main_table_shows_each_controller_share_of_the_limit_and_training_seeds(tmp_path: Path) -> None:
    task = "maze2d-umaze-multi"
    _write(tmp_path, f"{task}.json", _report(task, 168.0, 1.5))
    _write(tmp_path, f"{task}-pd.json", _report(task, 160.0))
    _write(tmp_path, f"{task}-seed1.json", _report(task, 166.0))
    _write(tmp_path, f"{task}-seed2.json", _report(task, 164.0))
    lines = _page(tmp_path, "maze2d")
    umaze_multi = 1
    assert _cells(lines, "**forcing**, as shipped") == ["–", "168.0 ± 1.5", "–", "–", "–", "–"]
    assert _cells(lines, "forcing, PD on the timed plan")[umaze_multi] == "160.0 ± 1.0"
    # 168, 166, 164: mean 166, standard deviation 2, its error 2 / sqrt(3).
    assert _cells(lines, "**forcing**, mean ± s.e. over training seeds")[umaze_multi] == "166.0 ± 1.2 (3)"
    assert _cells(lines, "share of the limit, as shipped")[umaze_multi] == "0.989"  # 168 / 169.9
    assert _cells(lines, "steps to goal, as shipped / limit")[umaze_multi] == "44 / 43"
    # Student's t with 1 degree of freedom: 12.706 standard errors of 1.
    assert _cells(lines, "… as shipped, 95 % over episodes")[umaze_multi] == "155.3 to 180.7"
    assert "Episodes: 2 from seed 7." in lines
    said = "\n".join(lines)
    assert "--policy mpc --data STORE --episodes 100 --seed 1000 --report docs/results/TASK-mpc.json" in said
    assert "docs/results/TASK-seed1.json` does. (TASK: maze2d-umaze-single, maze2d-medium-single" in said


def test_figures_of_plans_stand_beside_the_physical_limit(tmp_path: Path) -> None:
    _write(tmp_path, "maze2d-umaze-multi.json", _report("maze2d-umaze-multi", 168.0))
    lines = _page(tmp_path, "plans")
    expected = ["0.11 (0.22)", "–", "0.25 / 0.25", "0.33", "1.00", "50", "44", "43", "3"]
    assert _cells(lines, "maze2d-umaze-multi") == expected


def test_ogbench_is_shown_goal_by_goal_in_per_cent(tmp_path: Path) -> None:
    task = "ogbench-pointmaze-giant-stitch"
    goals = [{"goal": g, "episodes": 50, "success_rate": 0.98, "success_interval": [0.895, 0.996]} for g in range(1, 6)]
    _write(
        tmp_path, f"{task}.json", _report(task, 98.0, success_rate=0.98, success_interval=[0.954, 0.991], goals=goals)
    )
    lines = _page(tmp_path, "ogbench")
    cells = _cells(lines, "pointmaze-giant-stitch")
    assert cells[:5] == ["98.0 (89.5 to 99.6)"] * 5
    assert cells[5] == "**98.0 (95.4 to 99.1)**"
    assert cells[-1] == "100 (XDiffuser)"
    assert sum("Not measured yet" in line for line in lines) == 5


def _arm(results: Path, name: str, successes: list[bool], **more: Any) -> None:
    task, held = "swap-cameras", float(np.mean(successes))
    report = _report(task, 100 * held, success_rate=held, success_sem=0.1, reached_rate=1.0, seed=50, revision="abc")
    report |= {"policy": "runs/eye", "episodes": len(successes), "act_ms_p50": 2.0, "act_ms_p99": 30.0, "served": True}
    report |= {"distractor": "", "handling": "trusted", "most_steps": None, "command": f"forcing eval {name}"}
    details = [{"seed": 50 + index, "success": success} for index, success in enumerate(successes)]
    (results / f"{name}.json").write_text(json.dumps(report | {"episodes_detail": details} | more))


def test_arms_are_shown_undisturbed_and_disturbed_with_what_that_cost_pair_by_pair(tmp_path: Path) -> None:
    _arm(tmp_path, "swap-cameras", [True, True, True, False])
    _arm(tmp_path, "swap-cameras-seed1", [True, True, True, True], revision="other")
    _arm(tmp_path, "swap-cameras-bag", [True, False, False, True], distractor="bag")
    doubting = {"distractor": "bag", "handling": "detected", "revision": "abc-adjusted-123456"}
    _arm(tmp_path, "swap-cameras-bag-detected", [True, True, True, False], **doubting)
    _arm(tmp_path, "swap-cameras-apart", [False, False], distractor="bag", seed=90)
    lines = _page(tmp_path, "manipulation")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| swap")]
    found = {row[-1].removeprefix("`forcing eval ").removesuffix("`"): row for row in rows}
    assert found["swap-cameras"][:6] == ["swap-cameras", "eye", "undisturbed", "4", "0.75 ± 0.10", "0.34 to 1.00"]
    # Pairs: 0, 1, 1 and -1; their mean 0.25, their deviation 0.957, over the root of 4.
    assert found["swap-cameras-bag"][2:8:5] == ["bag, trusted", "0.25 ± 0.48"]
    assert found["swap-cameras-bag-detected"][2:8:5] == ["bag, detected", "0.00 ± 0.00"]
    assert [found[name][7] for name in ("swap-cameras", "swap-cameras-apart")] == ["–", "–"]
    assert "swap-cameras: 87.5 ± 12.5 % over 2 training seeds." in lines
    assert any("forcing eval swap --policy runs/swap --served" in line for line in lines)


def test_success_in_each_of_the_tasks_that_arms_take_in_turn_stands_below_the_table(tmp_path: Path) -> None:
    def goals(rates: list[float]) -> list[dict[str, Any]]:
        return [{"goal": number, "episodes": 2, "success_rate": rate} for number, rate in enumerate(rates, 1)]

    _arm(tmp_path, "metaworld-seed1", [True, False], task="metaworld", goals=goals([1.0, 0.96, *[0.5] * 6]))
    _arm(tmp_path, "cube-double", [True, False], task="cube-double", goals=goals([1.0, 0.8, 0.6, 0.4, 0.0]))
    _arm(tmp_path, "swap-cameras", [True, False])
    lines = _page(tmp_path, "manipulation")
    below = [line for line in lines if not line.startswith(("|", "- "))]
    assert below == [
        "cube-double: task 1 1.00, task 2 0.80, task 3 0.60, task 4 0.40, task 5 0.00",
        "metaworld-seed1: reach 1.00, push 0.96, pick-place 0.50, drawer-open 0.50, button-press-topdown 0.50, "
        "door-open 0.50, peg-insert-side 0.50, window-open 0.50",
    ]


def test_the_ablation_compares_with_the_recipe_as_it_is_seed_by_seed(tmp_path: Path) -> None:
    def entry(row: str, scores: list[float]) -> dict[str, Any]:
        shared = {"task": "t", "episodes": 2, "seed": 7, "steps": 5000, "command": "forcing bench ablation t"}
        runs = [_report("t", score) | {"nats_per_number": 1.5} for score in scores]
        taken = {"minutes": 2.5, "windows": 300000.0, "parameters": 480000, "settings": []}
        sem = abs(scores[0] - scores[1]) / 2
        means = {"seed_means": scores, "seeds_mean": sum(scores) / 2, "seeds_sem": sem}
        return {**shared, "row": row, "seeds": [0, 1], **means, **taken, "runs": runs}

    _write(tmp_path, "ablation-t.json", [entry("as is", [100.0, 110.0]), entry("recurrent", [90.0, 96.0])])
    lines = _page(tmp_path, "ablation")
    assert "5,000 optimiser steps each, training seeds 0, 1, 2 episodes from seed 7" in lines[0]
    # Less by 10 and 14: 12 ± 2. Each run's episodes are 2 apart: ± 1.
    assert _cells(lines, "recurrent")[:3] == ["93.0 ± 3.0", "1.0", "12.0 ± 2.0"]
    assert _cells(lines, "as is")[:3] == ["105.0 ± 5.0", "1.0", "–"]
    assert _cells(lines, "recurrent")[-4:] == ["1.50", "2.5", "300,000", "0.48"]


def _searched(task: str) -> list[dict[str, Any]]:
    rows = []
    for budget, score in ((1, 150.0), (16, 160.0)):
        for way, more in (("search", 2.0), ("sampling", 0.0)):
            curve = {"budget": budget, "plan_metrics": _figures(cost=100.0 - score / 10)}
            rows.append(_entry(task, f"{way}, {budget} passes", "search", score + more, **curve))
    return rows


def test_planning_rows_stand_under_their_group_and_copies_name_their_original(tmp_path: Path) -> None:
    task = "maze2d-umaze-multi"
    copied = _entry(task, "pursuit of the path", "tracker", 168.0, same_as="as shipped")
    old = {"row": "of an older form", "task": task}
    yardstick = _entry(task, "straight", "yardsticks", 99.0, plan_metrics=None, passes=None, rows_a_pass=None)
    entries = [old, _entry(task, "as shipped", "shipped", 168.0), copied, yardstick, *_searched(task)]
    _write(tmp_path, "bench-plan.json", entries)
    lines = _page(tmp_path, "planning")
    first = [line.split(" |")[0].removeprefix("| ") for line in lines[3:] if line.startswith("| ")]
    named = "pursuit of the path (= as shipped)"
    assert first == ["*shipped*", "as shipped", "*tracker*", named, "*yardsticks*", "straight"]
    assert _cells(lines, "as shipped") == ["168.0 ± 1.0", "1.00", "44", "50", "0.11", "0.25", "3", "32", "12"]
    assert _cells(lines, "straight")[3:8] == ["–"] * 5


def test_search_stands_beside_sampling_of_as_many_passes_and_is_drawn(tmp_path: Path) -> None:
    _write(tmp_path, "bench-plan.json", _searched("maze2d-umaze-multi"))
    lines = _page(tmp_path, "search")
    assert _cells(lines, "1") == ["152.0 ± 1.0", "85", "12", "150.0 ± 1.0", "85", "12"]
    assert _cells(lines, "16")[:2] == ["162.0 ± 1.0", "84"]
    assert lines[-1].endswith("(pictures/search.png)")
    pixels = np.asarray(Image.open(tmp_path / "pictures" / "search.png").convert("RGB"))
    assert pixels.shape[1] == 1600
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    assert {(0xC2, 0x41, 0x0C), (0x1D, 0x4E, 0xD8)} <= colours
    # Nothing is cut off at the right edge.
    assert (pixels[:, -8:] == 255).all()


def test_without_a_curve_nothing_is_drawn(tmp_path: Path) -> None:
    _page(tmp_path, "maze2d")
    assert not (tmp_path / "pictures").exists()


def test_a_mark_that_names_no_table_or_does_not_end_is_refused_and_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text, message in (
        (PROSE.format("maze3d"), "marks a table 'maze3d'; known are maze2d, plans"),
        (PROSE.format("maze2d").replace("<!-- end -->", ""), "needs a line <!-- end --> after it"),
    ):
        page.write_text(text)
        with pytest.raises(ValueError, match=message):
            write_page(page, tmp_path)
        assert page.read_text() == text


def test_every_table_has_its_place_on_the_page_of_benchmarks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert [f"<!-- table: {name} -->" in page for name in TABLES] == [True] * len(TABLES)


def test_figures_of_others_are_known_for_every_maze_and_no_limit_is_below_them() -> None:
    assert set(PUBLISHED) == {name for name, task in TASKS.items() if isinstance(task, MazeTask)}
    for name, known in PUBLISHED.items():
        if name.startswith("maze2d-"):
            assert known.limit is not None
            assert known.limit > known.best


def test_without_reports_the_page_stays_and_a_cut_off_report_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: plans -->\nfigures\n<!-- end -->\n")
    with pytest.raises(ValueError, match="nope must be a folder of reports"):
        write_page(page, tmp_path / "nope")
    (tmp_path / "maze2d-umaze-multi.json").write_text('{"task": "maze2d-')
    with pytest.raises(ValueError, match=r"maze2d-umaze-multi.json is no JSON: Unterminated"):
        write_page(page, tmp_path)
    assert "figures" in page.read_text()


def test_the_page_of_this_project_is_what_its_records_say(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = tmp_path / "benchmarks.md"
    page.write_text((docs / "benchmarks.md").read_text())
    write_page(page, docs / "results")
    assert page.read_text() == (docs / "benchmarks.md").read_text()
