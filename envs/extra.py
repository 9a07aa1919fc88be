"""What families share that need an extra package."""

from importlib import import_module
from types import ModuleType

from metarl.adapters.gymnasium import GymnasiumFamily
from metarl.core.errors import MetaRLError, install_command
from metarl_envs.extra_config import ExtraConfig


class ExtraFamily(GymnasiumFamily):
    """A family of environments from another package, which is imported as late as possible."""

    def __init__(self, config: ExtraConfig):
        self.config = config
        self.workers = config.workers


def package(name: str, extra: str) -> ModuleType:
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
