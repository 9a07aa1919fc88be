"""Pictures for TensorBoard of a run that ends: how its best agent adapts, and what it does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from metarl.core.errors import note, one_line
from metarl.core.family import Drawable, HasFrames, make_env
from metarl.experiments.events import picture_events

if TYPE_CHECKING:
    from metarl.experiments.loop import Update


class RunPictures:
    """A `RunCallback` that draws when the run was evaluated.

    What draws is imported then: a training has no use for its 30 MB.
    """

    def begin(self, config: dict[str, Any], folder: Path) -> None:
        """Remember where the run is."""
        self._folder = folder

    def __call__(self, update: Update, /) -> None:
        """While it learns nothing is drawn."""

    def end(self, scores: dict[str, float], result: dict[str, Any]) -> None:
        """Draw the adaptation, and the trial on the first test task where it can be seen.

        A rollout that cannot be drawn is told in a line: the run ends as without it.

        Raises:
            CheckpointError: the disk refuses.
        """
        if "scores" not in result:
            return
        from metarl.viz.adaptation import adaptation_figure, scores_by_split
        from metarl.viz.curves import named, read_config
        from metarl.viz.style import figure_bytes

        family = named(read_config(self._folder).family)
        figure, _ = adaptation_figure(scores_by_split(result), family)
        pictures = {"pictures/adaptation": figure_bytes(figure, "png")}
        try:
            rollout = _draw_rollout(self._folder)
        except Exception as error:  # of a user's family, or of a machine without OpenGL
            note(f"TensorBoard gets no picture of a rollout: {one_line(error)}")
            rollout = None
        if rollout is not None:
            pictures["pictures/rollout"] = rollout
        picture_events(self._folder, pictures, result["last"]["env_steps"])


def _draw_rollout(run: Path) -> bytes | None:
    """A .png of what `metarl render RUN` draws; None of a family that has no look."""
    from metarl.experiments.building import load
    from metarl.viz.rendering import render

    family = load(run).family()
    if not isinstance(family, Drawable) and not isinstance(make_env(family, 1), HasFrames):
        return None
    with TemporaryDirectory() as folder:
        return render(str(run), Path(folder) / "rollout.png").read_bytes()
