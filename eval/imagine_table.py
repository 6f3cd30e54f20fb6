"""The table of what networks imagine beyond the length of their training."""

from pathlib import Path

from forcing.eval.bench_imagine import HEADER, drift_row, title_of, verdict
from forcing.eval.result_files import markdown_table, missing, read_entries

RESULTS = "bench-imagine*.json"
PICTURE = "![Errors of imagined episodes, by steps imagined](pictures/imagine.png)"


def imagine_table(results: Path) -> list[str]:
    """Markdown: a table for each bench-imagine*.json, and how Diffusion Forcing compares with the better baseline."""
    lines: list[str] = []
    for path in sorted(results.glob(RESULTS)):
        entries = read_entries(path)
        if entries:
            said = verdict(entries)
            lines += [f"{title_of(entries[0])}:", "", *markdown_table(HEADER, map(drift_row, entries)), ""]
            lines += [] if said is None else [f"{said}.", ""]
    if not lines:
        return missing("forcing bench imagine --policy A --policy B --policy C --data RECORDING --report FILE")
    return [*lines, PICTURE]
