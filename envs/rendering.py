"""Rendering MuJoCo without a display: which OpenGL works here, and settings that software renderers can keep up with.

MuJoCo reads MUJOCO_GL when it is imported, and a backend that does not work may end the process. So each is tried once,
in a process of its own. Knows nothing of scenes; frames are the same to the bit from either backend.
"""

import atexit
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BACKENDS = ("egl", "osmesa")
PACKAGES = "libegl1 libgl1-mesa-dri libopengl0 (EGL), or libosmesa6 (OSMesa)"
TIMEOUT_S = 60.0

_TRIAL = """
import os, mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 1 1 1'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(data)
frame = renderer.render()
os._exit(0 if frame.any() else 3)
"""


def use_headless() -> str:
    """The backend that MuJoCo renders with from now on, "egl" or "osmesa"; that of MUJOCO_GL if it is set.

    Sets MUJOCO_GL, for processes started from here too; where mujoco is imported already, it reads it once more.
    Raises RuntimeError naming the Debian packages if none works.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    failures = {}
    for backend in (asked,) if asked else BACKENDS:
        failure = _failure(backend)
        if failure is None:
            _choose(backend)
            return backend
        failures[backend] = failure
    told = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
    unset = f"unset MUJOCO_GL, which is {asked!r}, or " if asked else ""
    raise RuntimeError(f"no OpenGL renders without a display here ({told}); {unset}install Debian's {PACKAGES}")


@contextmanager
def without_display() -> Iterator[None]:
    """Where MUJOCO_GL is not set, libraries imported meanwhile look for no OpenGL, and warn of no missing display.

    mujoco itself is imported before, as ever. Raises RuntimeError if MUJOCO_GL names what is not here, which not even
    importing it survives.
    """
    try:
        importlib.import_module("mujoco")
    except (AttributeError, ImportError, RuntimeError) as error:  # of PyOpenGL, and of mujoco
        if "MUJOCO_GL" not in os.environ:
            raise
        raise RuntimeError(
            f"mujoco cannot be imported with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}); unset it, or install "
            f"Debian's {PACKAGES}"
        ) from error
    if "MUJOCO_GL" in os.environ:
        yield
        return
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]


def render_fast(model: Any) -> None:
    """Drops shadows and antialiasing from what a MuJoCo model's renderers will draw; those made before keep theirs.

    They cost a software renderer ten times what the rest does.
    """
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0


@dataclass(frozen=True, slots=True)
class Lookout:
    """Where pictures are taken from: at `at` [3] in m, from so far away in m, azimuth and elevation in degrees, as
    MuJoCo has them."""

    at: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


class View:
    """Pictures of a simulation for people, [240, 240, 3]; whatever is simulated may become another between them."""

    SIZE = 240  # pixels

    def __init__(self, lookout: Lookout, render_mode: str | None) -> None:
        """render_mode: rgb_array, or none where no picture will be asked for. Raises ValueError for another,
        RuntimeError if nothing renders here."""
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be rgb_array or none, got {render_mode!r}")
        if render_mode is not None:
            use_headless()
        self._lookout, self._mode = lookout, render_mode
        self._model: Any = None
        self._renderer: Any = None

    def of(self, model: Any, data: Any) -> NDArray[np.uint8]:
        """model, data: MuJoCo's. Raises ValueError if no render_mode was asked for."""
        if self._mode is None:
            raise ValueError("render_mode must be rgb_array to render, got none")
        import mujoco

        if model is not self._model:
            self.close()
            render_fast(model)
            whole = model.vis.global_
            whole.offwidth, whole.offheight = max(whole.offwidth, self.SIZE), max(whole.offheight, self.SIZE)
            self._model, self._renderer = model, mujoco.Renderer(model, self.SIZE, self.SIZE)
            atexit.register(self.close)  # OpenGL ends with the process, and renderers left then complain
        camera = mujoco.MjvCamera()
        camera.lookat[:], camera.distance = self._lookout.at, self._lookout.distance
        camera.azimuth, camera.elevation = self._lookout.azimuth, self._lookout.elevation
        self._renderer.update_scene(data, camera)
        picture: NDArray[np.uint8] = self._renderer.render().copy()
        return picture

    def close(self) -> None:
        """Ends rendering; another picture begins anew."""
        atexit.unregister(self.close)
        if self._renderer is not None:
            self._renderer.close()
        self._model = self._renderer = None


def _choose(backend: str) -> None:
    os.environ["MUJOCO_GL"] = backend
    contexts: Any = sys.modules.get("mujoco.gl_context")
    if contexts is not None and backend != contexts._MUJOCO_GL:
        importlib.reload(contexts)


@cache
def _failure(backend: str) -> str | None:
    """Why frames cannot be rendered with it, in a line; None if they can."""
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no frame in {TIMEOUT_S:.0f} s"
    if trial.returncode == 0:
        return None
    said, *_ = trial.stderr.split("Exception ignored in")  # what half a renderer adds when it is removed
    return next(iter(said.strip().splitlines()[-1:]), f"the process ended with {trial.returncode}")
