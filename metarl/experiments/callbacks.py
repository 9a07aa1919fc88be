"""What `train` calls while a run goes on, such as loggers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metarl.experiments.loop import Update

Callback = Callable[[Update], bool | None]
"""Called after every iteration; True ends the training."""


@runtime_checkable
class RunCallback(Protocol):
    """A callback that is also told of the run's beginning and of its end."""

    def begin(self, config: dict[str, Any], folder: Path) -> None:
        """Before the first iteration, and before the first one after a run was resumed.

        Args:
            config: the configuration key by key, as on the command line: ``agent.name`` and so on.
            folder: the run's.
        """

    def __call__(self, update: Update, /) -> bool | None:
        """After every iteration; True ends the training."""

    def end(self, scores: dict[str, float], result: dict[str, Any]) -> None:
        """After the last iteration and its evaluation, before result.json is written.

        A run that is interrupted until then is told of its end when it was resumed.

        Args:
            scores: of the best checkpoint, by `final_scores`: ``test/return`` and so on.
            result: all that result.json will hold.
        """
