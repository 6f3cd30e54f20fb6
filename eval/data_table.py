"""The tables of windows out of recordings."""

import json
from pathlib import Path

from forcing.eval.bench_data import COLUMNS, TITLES, cells, larger_line
from forcing.eval.result_files import markdown_table, missing

COMMAND = "forcing bench data --larger-mb 700 --report docs/results/bench-data.json"


def data_table(results: Path) -> list[str]:
    """Markdown, from bench-data.json."""
    path = results / "bench-data.json"
    if not path.exists():
        return missing(COMMAND)
    report = json.loads(path.read_text())
    lines: list[str] = []
    for kind, title in TITLES.items():
        rows = [cells(row, report["rows"]) for row in report["rows"] if row["kind"] == kind]
        lines += [*markdown_table([title, *COLUMNS[1:]], rows), ""]
    return [*lines, larger_line(report["larger"])] if report["larger"] else lines[:-1]
