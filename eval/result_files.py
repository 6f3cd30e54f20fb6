"""Reports read back from a folder, and the Markdown that tables of them are made of."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from forcing.eval.report import Report

NOTHING = "–"


def read_report(path: Path) -> Report | None:
    """One evaluation's report, None if the file is not there. Raises ValueError if it is something else."""
    if not path.exists():
        return None
    found = _json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold one report, got {type(found).__name__}")
    return found


def read_reports(results: Path, tasks: Collection[str]) -> Iterator[tuple[Path, Report]]:
    """Every evaluation's report of one of these tasks, files whose names begin with the task's, by name."""
    paths = {path for task in tasks for path in (*results.glob(f"{task}.json"), *results.glob(f"{task}-*.json"))}
    for path in sorted(paths):
        report = read_report(path)
        if report is not None and report.get("task") in tasks:
            yield path, report


def read_entries(path: Path) -> list[Report]:
    """The entries of a bench's report, none if the file is not there or of an older form."""
    found = _json(path) if path.exists() else []
    return [entry for entry in found if isinstance(entry, dict) and "row" in entry and "settings" in entry]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """First column left, the others right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def missing(*commands: str) -> list[str]:
    """What makes the records that are not there."""
    return [f"Not measured yet; `{command}` does." for command in commands]


def number(value: Any, digits: int = 0) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def _json(path: Path) -> Any:
    """Raises ValueError, naming the file, if it is cut off or otherwise no JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
