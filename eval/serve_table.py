"""The table of one control step against a server."""

import json
from pathlib import Path

from forcing.eval.bench_serve import cells
from forcing.eval.result_files import markdown_table, missing

COMMAND = "forcing bench serve --policy maze2d-medium --report docs/results/bench-serve.json"
HEADER = ["", "p50 / p99 / p99.9, ms", "late", "actions/s", "hold", "passes/s", "cores", "MB"]


def serve_table(results: Path) -> list[str]:
    """Markdown, from bench-serve.json."""
    path = results / "bench-serve.json"
    if not path.exists():
        return missing(COMMAND)
    return markdown_table(HEADER, [cells(row) for row in json.loads(path.read_text())["rows"]])
