"""The tables of how well a policy finds frames that are disturbed."""

from pathlib import Path

from forcing.eval.bench_surprise import HEADER, OTHERS, surprise_row, threshold_row, title_of
from forcing.eval.result_files import markdown_table, missing, read_entries

RESULTS = "bench-surprise*.json"
PICTURE = "![Surprise of both cameras over an episode under each distractor](pictures/surprise.png)"
COMMAND = "forcing bench surprise --report docs/results/bench-surprise.json"


def surprise_table(results: Path) -> list[str]:
    """Markdown: for each bench-surprise*.json what was found, and what other thresholds would have."""
    lines: list[str] = []
    for path in sorted(results.glob(RESULTS)):
        entries = read_entries(path)
        if entries:
            lines += [f"{title_of(entries[0])}, weights {entries[0]['weights']}:", ""]
            lines += [*markdown_table(HEADER, map(surprise_row, entries)), "", "The same scores at other thresholds:"]
            lines += ["", *markdown_table(OTHERS, map(threshold_row, entries)), ""]
    return [*lines, PICTURE] if lines else missing(COMMAND)
