"""The table of how often a robot is as near to its plans as their spread says."""

from pathlib import Path

from forcing.eval.bench_spread import HEADER, spread_rows
from forcing.eval.result_files import markdown_table, missing, read_entries

RESULTS = "bench-spread*.json"
PICTURE = "![Shares of outcomes within the intervals, by steps ahead](pictures/spread.png)"


def spread_table(results: Path) -> list[str]:
    """Markdown: a table for each task, from every bench-spread*.json."""
    lines: list[str] = []
    for path in sorted(results.glob(RESULTS)):
        entries = read_entries(path)
        if entries:
            first = entries[0]
            about = (
                f"{first['task']}, {first['episodes']} episodes from seed {first['seed']}, weights {first['weights']}:"
            )
            lines += [about, "", *markdown_table(HEADER, spread_rows(entries)), ""]
    return (
        [*lines, PICTURE] if lines else missing("forcing bench spread --report docs/results/bench-spread-medium.json")
    )
