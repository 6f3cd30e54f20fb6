"""The tables of what faulty sensors cost, and of how well a state is known from them."""

from pathlib import Path

from forcing.eval.bench_faults import HEADER as FAULTS_HEADER
from forcing.eval.bench_faults import faults_rows
from forcing.eval.bench_filter import HEADER as FILTER_HEADER
from forcing.eval.bench_filter import filter_row
from forcing.eval.report import Report
from forcing.eval.result_files import markdown_table, missing, read_entries

FAULTS = "bench-faults*.json"
COMMAND = "forcing bench faults --report docs/results/bench-faults-medium.json"
PICTURE = "![Scores by severity of noise, gaps, delay and spikes](pictures/faults.png)"


def faults_table(results: Path) -> list[str]:
    """Markdown: a table for each task, from every bench-faults*.json."""
    lines: list[str] = []
    for path in sorted(results.glob(FAULTS)):
        entries = read_entries(path)
        if entries:
            lines += [_about(entries[0], "episodes"), "", *markdown_table(FAULTS_HEADER, faults_rows(entries)), ""]
    return [*lines, PICTURE] if lines else missing(COMMAND)


def filter_table(results: Path) -> list[str]:
    """Markdown: a table for each task, from every bench-filter*.json."""
    lines: list[str] = []
    for path in sorted(results.glob("bench-filter*.json")):
        entries = read_entries(path)
        if entries:
            rows = [filter_row(entry) for entry in entries]
            lines += [_about(entries[0], "drives"), "", *markdown_table(FILTER_HEADER, rows), ""]
    return lines[:-1] or missing("forcing bench filter --report docs/results/bench-filter-medium.json")


def _about(entry: Report, what: str) -> str:
    return f"{entry['task']}, {entry['episodes']} {what} from seed {entry['seed']}, weights {entry['weights']}:"
