"""OpenGL where there may be no screen. Imports no torch and no MuJoCo."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from metarl.core.errors import FamilyError, one_line


@contextmanager
def offscreen() -> Iterator[str]:
    """A place to draw in, which gives the name of MuJoCo's OpenGL back end: that of MUJOCO_GL.

    Where MUJOCO_GL is not set, this sets it: to EGL on Linux without a display, else to GLFW.

    Raises:
        FamilyError: whatever goes wrong inside: something that is needed to draw is not installed.
    """
    if not os.environ.get("MUJOCO_GL"):
        has_display = sys.platform != "linux" or os.environ.get("DISPLAY")
        os.environ["MUJOCO_GL"] = "glfw" if has_display else "egl"
    back_end = os.environ["MUJOCO_GL"]
    try:
        yield back_end
    except Exception as error:  # missing libraries show as errors of many kinds, by back end
        raise FamilyError(
            f"no picture can be drawn: {one_line(error)}; install what is missing: for MuJoCo with "
            f"MUJOCO_GL={back_end} an OpenGL library (on Debian: "
            "apt install --no-install-recommends libegl1 libgl1), or choose another MUJOCO_GL"
        ) from error
