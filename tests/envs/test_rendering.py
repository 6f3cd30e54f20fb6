"""Headless rendering: whichever backend works here is found; where none does, the error names what to install."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import mujoco
import pytest

from forcing.envs import rendering
from forcing.envs.fetch import Fetch
from forcing.envs.rendering import Lookout, View, render_fast, use_headless, without_display

SAID = "Traceback\nImportError: no lib\nException ignored in: <function Renderer.__del__>\nAttributeError: '_context'\n"
# Draws one half of the view white and leaves the other black.
HALF = """
import mujoco, numpy as np
{first}
from forcing.envs.rendering import use_headless
print(use_headless())
model = mujoco.MjModel.from_xml_string(
    "<mujoco><visual><global orthographic='true' fovy='2'/></visual><worldbody>"
    "<camera name='above' pos='0 0 5' orthographic='true' fovy='2'/>"
    "<geom type='box' size='1 2 .1' pos='1 0 0' material='m'/></worldbody>"
    "<asset><material name='m' emission='1' rgba='1 1 1 1'/></asset></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data, camera="above")
    frame = renderer.render()
print(int(frame[:, :7].max()), int(frame[:, 9:].min()))
"""


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """MUJOCO_GL as if nobody had set it, and put back afterwards; backends are tried afresh."""
    monkeypatch.setenv("MUJOCO_GL", "kept")
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(rendering, "_failure", rendering._failure.__wrapped__)
    monkeypatch.delitem(sys.modules, "mujoco.gl_context", raising=False)
    return monkeypatch


def trials(monkeypatch: pytest.MonkeyPatch, working: tuple[str, ...]) -> list[str]:
    """What is tried from now on, on a machine where those backends render."""
    tried: list[str] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> SimpleNamespace:
        tried.append(env["MUJOCO_GL"])
        worked = env["MUJOCO_GL"] in working
        return SimpleNamespace(returncode=0 if worked else 1, stderr="" if worked else SAID)

    monkeypatch.setattr("forcing.envs.rendering.subprocess.run", run)
    return tried


@pytest.mark.parametrize("first", ["", "import mujoco.gl_context"], ids=["asked first", "mujoco imported before"])
def test_what_is_found_renders_even_if_mujoco_was_imported_before_or_nothing_works_and_the_error_says_so(
    first: str,
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    run = subprocess.run([sys.executable, "-c", HALF.format(first=first)], capture_output=True, text=True, env=env)
    if run.returncode == 0:
        backend, halves = run.stdout.splitlines()
        assert backend in ("egl", "osmesa")
        assert halves == "0 255"
    else:
        assert "libegl1 libgl1-mesa-dri libopengl0" in run.stderr.splitlines()[-1]
        assert "libosmesa6" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("working", "found", "expected"),
    [(("egl", "osmesa"), "egl", ["egl"]), (("osmesa",), "osmesa", ["egl", "osmesa"])],
)
def test_egl_is_preferred_to_osmesa(
    untouched: pytest.MonkeyPatch, working: tuple[str, ...], found: str, expected: list[str]
) -> None:
    tried = trials(untouched, working)
    assert use_headless() == found
    assert tried == expected
    assert os.environ["MUJOCO_GL"] == found


def test_where_neither_works_the_error_names_debians_packages_and_what_each_said(
    untouched: pytest.MonkeyPatch,
) -> None:
    trials(untouched, ())
    with pytest.raises(RuntimeError) as caught:
        use_headless()
    assert str(caught.value) == (
        "no OpenGL renders without a display here (egl: ImportError: no lib; osmesa: ImportError: no lib); "
        "install Debian's libegl1 libgl1-mesa-dri libopengl0 (EGL), or libosmesa6 (OSMesa)"
    )
    assert "MUJOCO_GL" not in os.environ


def test_a_backend_that_is_asked_for_is_the_only_one_tried(untouched: pytest.MonkeyPatch) -> None:
    tried = trials(untouched, ("egl", "osmesa"))
    untouched.setenv("MUJOCO_GL", "osmesa")
    assert use_headless() == "osmesa"
    assert tried == ["osmesa"]


def test_a_backend_that_is_asked_for_and_does_not_work_is_named(untouched: pytest.MonkeyPatch) -> None:
    trials(untouched, ("egl",))
    untouched.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(RuntimeError, match=r"\(osmesa: ImportError: no lib\); unset MUJOCO_GL, which is 'osmesa', or "):
        use_headless()


def test_a_backend_that_hangs_is_given_up(untouched: pytest.MonkeyPatch) -> None:
    untouched.setattr(rendering, "_TRIAL", "import time; time.sleep(60)")
    untouched.setattr(rendering, "TIMEOUT_S", 0.2)
    with pytest.raises(RuntimeError, match="egl: no frame in 0 s; osmesa: no frame in 0 s"):
        use_headless()


def test_a_process_that_ends_without_a_word_is_told_by_its_code(untouched: pytest.MonkeyPatch) -> None:
    untouched.setattr(rendering, "_TRIAL", "import os; os._exit(3)")
    with pytest.raises(RuntimeError, match="egl: the process ended with 3; osmesa: the process ended with 3"):
        use_headless()


def test_without_a_display_opengl_is_off_meanwhile_and_as_before_afterwards(untouched: pytest.MonkeyPatch) -> None:
    with without_display():
        assert os.environ["MUJOCO_GL"] == "disable"
    assert "MUJOCO_GL" not in os.environ
    untouched.setenv("MUJOCO_GL", "egl")
    with without_display():
        assert os.environ["MUJOCO_GL"] == "egl"


def test_a_wrong_mujoco_gl_is_told_where_mujoco_cannot_even_be_imported() -> None:
    script = "from forcing.envs.rendering import without_display\nwith without_display(): pass"
    env = {**os.environ, "MUJOCO_GL": "nonsense"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert run.stderr.splitlines()[-1] == (
        "RuntimeError: mujoco cannot be imported with MUJOCO_GL=nonsense (invalid value for environment variable "
        "MUJOCO_GL: nonsense); unset it, or install Debian's libegl1 libgl1-mesa-dri libopengl0 (EGL), or libosmesa6 "
        "(OSMesa)"
    )


def test_rendering_fast_drops_shadows_and_antialiasing() -> None:
    import mujoco

    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples) != (0, 0)
    render_fast(model)
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples) == (0, 0)


def _ball(x: float) -> tuple[Any, Any]:
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody><geom size='.2' pos='{x} 0 0' rgba='1 1 1 1'/><light pos='0 0 3'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_a_view_shows_where_things_are_of_one_simulation_after_another() -> None:
    """From behind y, at what is within a metre of the middle: x goes to the right."""
    view = View(Lookout(at=(0, 0, 0), distance=2.0, azimuth=90.0, elevation=0.0), "rgb_array")
    sides = []
    for x in (-0.4, 0.4):
        picture = view.of(*_ball(x))
        assert picture.shape == (240, 240, 3)
        lit = picture.max(axis=2) > 60
        sides.append((bool(lit[:, :110].any()), bool(lit[:, 130:].any())))
    view.close()
    assert sides == [(True, False), (False, True)]


def test_a_mode_that_is_none_is_refused_and_without_one_nothing_is_rendered() -> None:
    lookout = Lookout(at=(0, 0, 0), distance=1.0, azimuth=0.0, elevation=0.0)
    with pytest.raises(ValueError, match="render_mode must be rgb_array or none, got 'human'"):
        View(lookout, "human")
    with pytest.raises(ValueError, match="render_mode must be rgb_array to render, got none"):
        Fetch().render()
