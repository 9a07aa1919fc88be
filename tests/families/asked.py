"""A family that writes down which splits it was asked for."""

from pathlib import Path

from needle import Needle

from metarl import Rng, Tasks


class Asked(Needle):
    """One arm pays; a line a call in a file, which all processes share."""

    class Settings(Needle.Settings):
        """Where, and what goes wrong."""

        log: Path
        """The file."""
        broken: str = ""
        """The split that has no tasks."""

    def __init__(self, options: Settings) -> None:
        super().__init__(options)
        self.options = options

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        with self.options.log.open("a") as file:
            file.write(f"{split}\n")
        if split == self.options.broken:
            raise ValueError(f"no tasks of {split}")
        return super().tasks(split, count, rng)
