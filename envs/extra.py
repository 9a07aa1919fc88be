"""What the families share that need a package which metarl itself does not ask for."""

from __future__ import annotations

import atexit
import os
from importlib import import_module
from typing import Any

import gymnasium

from metarl.adapters.gymnasium import GymnasiumFamily
from metarl.config.registry import one_line
from metarl.core.errors import MetaRLError, install_command
from metarl_envs.extra_config import ExtraConfig


class ExtraFamily(GymnasiumFamily):
    """A family of environments from another package, which is imported when it is needed and not before."""

    def __init__(self, config: ExtraConfig) -> None:
        self.config = config
        self.workers = config.workers


def package(name: str, extra: str) -> Any:
    """The module called `name`, of a package that our extra `extra` brings.

    Raises:
        MetaRLError: the package is not installed.
    """
    root = name.partition(".")[0]
    try:
        import_module(root)
    except ModuleNotFoundError as error:
        if error.name != root:
            raise
        raise MetaRLError(f"the package {root} is missing: {install_command(extra)}") from None
    return import_module(name)


class Pictures(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Draws MuJoCo without a screen too, where Gymnasium would look for one, and lets go of OpenGL before it ends."""

    _draws = False

    def render(self) -> Any:
        """A picture.

        Raises:
            MetaRLError: there is nothing to draw with.
        """
        os.environ.setdefault("MUJOCO_GL", "glfw" if os.environ.get("DISPLAY") else "egl")
        try:
            picture = self.env.render()
        except Exception as error:  # missing libraries show as errors of many kinds, by back end
            raise MetaRLError(
                f"no picture can be drawn with MUJOCO_GL={os.environ['MUJOCO_GL']} ({one_line(error)}): install an OpenGL "
                "library (on Debian: apt install --no-install-recommends libegl1 libgl1), or choose another MUJOCO_GL"
            ) from error
        if not self._draws:
            self._draws = True
            atexit.register(
                self.env.close
            )  # after EGL has registered its own end, and so before it
        return picture
