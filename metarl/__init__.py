"""Meta-reinforcement learning on PyTorch: agents that adapt to a new task in a few episodes.

The public names are listed once, in `__init__.pyi`; each is imported when it is first used, so that
``import metarl`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
