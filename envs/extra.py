"""What families share that need an extra package."""

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
    """A family of environments from another package, which is imported as late as possible."""

    def __init__(self, config: ExtraConfig) -> None:
        self.config = config
        self.workers = config.workers


def package(name: str, extra: str) -> Any:
    """The module called `name`, of a package that our extra `extra` installs.

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
    """Renders MuJoCo without a screen too, and frees OpenGL before the process ends."""

    _renders = False

    def render(self) -> Any:
        """A picture.

        Raises:
            MetaRLError: there is no OpenGL to render with.
        """
        default = "glfw" if os.environ.get("DISPLAY") else "egl"
        backend = os.environ.setdefault("MUJOCO_GL", default)
        try:
            picture = self.env.render()
        except Exception as error:  # missing libraries raise errors of many kinds
            raise MetaRLError(
                f"MUJOCO_GL={backend} renders no picture ({one_line(error)}): install an OpenGL "
                "library (Debian: apt install --no-install-recommends libegl1 libgl1), or set "
                "another MUJOCO_GL"
            ) from error
        if not self._renders:
            self._renders = True
            # registered after EGL's own end, and so called before it
            atexit.register(self.env.close)
        return picture
