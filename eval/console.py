"""Where tables are printed."""

import sys

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120


def new_console() -> Console:
    """stdout, as wide as the terminal; wide enough for paths where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
