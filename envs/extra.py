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


def package(name: str, needed_by: type[ExtraConfig]) -> ModuleType:
    """The module called `name`, of the package that these settings name.

    Raises:
        MetaRLError: the package is not installed.
    """
    root = needed_by.package
    try:
        import_module(root)
    except ModuleNotFoundError as error:
        if error.name != root:
            raise
        command = install_command(needed_by.extra)
        raise MetaRLError(f"the package {root} is missing: {command}") from None
    return import_module(name)
