"""`forcing WORDS` in the process of the tests, and what it said."""

import io
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

import forcing.cli as cli

WIDTH = 200  # of its tables, so that no line is broken


class Said(NamedTuple):
    """What a command left with: its exit code and its lines."""

    code: int
    out: str
    err: str


def call(*words: object) -> Said:
    """Words that are strings are split as a shell does. An error that the command lets through is raised."""
    out, err = io.StringIO(), io.StringIO()
    arguments = [part for word in words for part in (shlex.split(word) if isinstance(word, str) else [str(word)])]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["forcing", *arguments])
        patch.setattr("forcing.eval.console.WIDTH_WITHOUT_TERMINAL", WIDTH)
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert isinstance(left.value.code, int)
    return Said(left.value.code, out.getvalue(), err.getvalue())
