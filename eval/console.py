"""Where tables are printed."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 120
LINE_EVERY_S = 10.0  # where nobody watches a bar


def new_console() -> Console:
    """stdout, as wide as the terminal; wide enough for paths where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def rows_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for the terminal: first column left, the others right."""
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    return table
