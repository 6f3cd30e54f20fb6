import json
from pathlib import Path

from PIL import Image
from rich.console import Console

from forcing.eval.demo import run_demo
from forcing.eval.tasks import find_maze


def test_the_demo_drives_over_http_scores_and_draws(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    run_demo(
        find_maze("maze2d-umaze-single"),
        episodes=1,
        seed=2,
        out=tmp_path / "out",
        command="forcing demo",
        console=console,
    )
    said = console.export_text()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["task"], report["policy"], report["episodes"]) == ("maze2d-umaze-single", "maze2d-umaze", 1)
    assert report["command"] == "forcing demo"
    assert "at http://127.0.0.1:" in said
    assert "straight" in said
    for name in ("report.json", "episode-000.png", "episodes.png", "denoising.gif"):
        assert str(tmp_path / "out" / name) in said
    with Image.open(tmp_path / "out" / "denoising.gif") as animation:
        assert getattr(animation, "n_frames", 1) > 10
