"""docs/your-robot.md, typed through as written: the shell's lines and the control loop, but for training's minutes."""

import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import forcing.cli as cli
from forcing.policy.policy import load_policy
from forcing.server.serve import serving

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/your-robot.md").read_text()
SAMPLE = ROOT / "tests/datasets/samples/lerobot-v3-image"
SERVE, ADDRESS = "forcing serve --policy runs/arm --port 8000", "http://127.0.0.1:8000"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _lines() -> Iterator[str]:
    for block in _blocks(""):
        yield from block.splitlines()


def _forcing(line: str) -> tuple[int, str]:
    """Exit code of a command in this process, and all that it says."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code, said.getvalue()


@contextmanager
def _served(line: str) -> Iterator[str]:
    """The address of what the page serves, on a free port."""
    assert line == SERVE
    with serving([load_policy("runs/arm")]) as url:
        yield url


def test_the_page_can_be_typed_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    typed = []
    for line in _lines():
        program, *arguments = shlex.split(line)
        if program == "mkdir":
            assert arguments == ["-p", "data"]
            (tmp_path / "data").mkdir()
        elif program == "cp":
            assert arguments[0] == "-r"
            shutil.copytree(arguments[1], arguments[2])
        elif line != SERVE:
            assert program == "forcing"
            code, said = _forcing(line.replace("--minutes 1", "--steps 3"))
            assert code == 0, (line, said)
        typed.append(line)
    assert typed[-1] == SERVE
    (loop,) = _blocks("python")
    assert ADDRESS in loop
    shown = io.StringIO()
    with _served(SERVE) as url, redirect_stdout(shown):
        exec(compile(loop.replace(ADDRESS, url), "docs/your-robot.md", "exec"), {})
    assert [line.split()[0] for line in shown.getvalue().splitlines()] == [str(step) for step in range(20)]


def test_the_pages_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
