"""Who may import whom, read off the source; and what must do without heavy libraries.

policy <- datasets (what `ALLOWED` names), server (all but simulators and recordings, journals apart) <- eval (anything)
envs: nothing of ours
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("policy", "envs", "datasets", "server", "eval")
# What a folder may import of ours beside itself.
ALLOWED: dict[str, tuple[str, ...]] = {
    "policy": (),
    "envs": (),
    # Dreaming stands on dynamics, visited places and control that trackers and planners use too (decision 0007).
    "datasets": (
        "forcing.policy.types",
        "forcing.policy.dynamics",
        "forcing.policy.support",
        "forcing.policy.mpc",
        "forcing.policy.world",
    ),
    # What is kept of a session is a recording: one format, read by both (decision 0016).
    "server": ("forcing.policy", "forcing.datasets.journal", "forcing.__version__"),
    "eval": ("forcing.policy", "forcing.envs", "forcing.datasets", "forcing.server", "forcing.__version__"),
}


def imported(source: str) -> Iterator[str]:
    """Dotted names of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def forbidden(folder: str, source: str) -> list[str]:
    """What a module of `folder` imports of ours and must not."""
    allowed = (f"forcing.{folder}", *ALLOWED[folder])
    ours = [name for name in imported(source) if _is_below(name, "forcing")]
    return [name for name in ours if not any(_is_below(name, package) for package in allowed)]


def file_of(name: str) -> Path | None:
    """The file of the module of ours that a dotted name is, or lies in."""
    parts = name.split(".")[1:]
    for end in (len(parts), len(parts) - 1):
        file = ROOT.joinpath(*parts[:end]).with_suffix(".py")
        if end > 0 and file.is_file():
            return file
    return None


def needs(file: Path, seen: set[Path]) -> set[str]:
    """Packages that are not Python's own, which a module imports, directly or through modules of ours."""
    seen.add(file)
    found = set()
    for name in imported(file.read_text()):
        if not _is_below(name, "forcing"):
            found.add(name.partition(".")[0])
            continue
        other = file_of(name)
        if other is not None and other not in seen:
            found |= needs(other, seen)
    return found - sys.stdlib_module_names


def modules(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no modules in {folder}"
    return files


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_imports_in_the_direction_of_the_design(folder: str) -> None:
    found = {str(file.relative_to(ROOT)): forbidden(folder, file.read_text()) for file in modules(folder)}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("folder", "line", "wrong"),
    [
        ("policy", "from forcing.datasets.store import open_store", ["forcing.datasets.store.open_store"]),
        ("policy", "def f():\n    import forcing.server.app", ["forcing.server.app"]),
        ("envs", "from forcing.policy.types import Array", ["forcing.policy.types.Array"]),
        ("datasets", "from forcing.policy.types import Array", []),
        ("datasets", "from forcing.policy import tokens", ["forcing.policy.tokens"]),
        ("datasets", "from forcing import policy", ["forcing.policy"]),
        ("server", "from forcing.policy.controller import Controller\nfrom forcing import __version__", []),
        ("server", "from forcing.eval.tasks import TASKS", ["forcing.eval.tasks.TASKS"]),
        ("eval", "from forcing.envs import maze2d\nfrom forcing.datasets.store import open_store", []),
        ("eval", "from forcing.cli import main", ["forcing.cli.main"]),
    ],
)
def test_an_import_in_the_wrong_direction_would_be_noticed(folder: str, line: str, wrong: list[str]) -> None:
    assert forbidden(folder, line) == wrong


def test_the_map_of_the_house_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = {name.removesuffix(".py").rpartition("/")[2] for name in re.findall(r"`([\w/.]+)`", text)}
    missing = [file.relative_to(ROOT) for folder in FOLDERS for file in modules(folder) if file.stem not in named]
    assert missing == [], "docs/architecture.md says what each module is for"


def test_our_folders_are_no_regular_packages_so_that_other_peoples_datasets_stays_importable() -> None:
    assert [folder for folder in FOLDERS if (ROOT / folder / "__init__.py").exists()] == []


def test_training_needs_torch_numpy_and_safetensors_alone() -> None:
    assert needs(ROOT / "policy/training.py", set()) == {"torch", "numpy", "safetensors"}


def test_the_policy_knows_no_simulator_no_recording_and_no_socket() -> None:
    assert {name for file in modules("policy") for name in needs(file, set())} == {"torch", "numpy", "safetensors"}


def test_the_client_needs_neither_torch_nor_fastapi() -> None:
    assert needs(ROOT / "server/client.py", set()) == {"numpy", "httpx", "msgpack", "websockets"}
    of_ours = [name for name in imported((ROOT / "server/client.py").read_text()) if _is_below(name, "forcing.policy")]
    assert all(_is_below(name, "forcing.policy.types") for name in of_ours)
    check = (
        "import sys, forcing.server.client\n"
        "print('imported', *sorted({'torch', 'fastapi', 'starlette', 'pydantic'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["imported"]
