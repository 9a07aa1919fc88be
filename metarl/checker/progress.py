"""Which rule is looked at now, on the screen."""

import threading
import time

EVERY = 10.0  # seconds between two lines


class Progress:
    """A live bar in a terminal; elsewhere a line every ten seconds. Both on stderr."""

    def __init__(self, name: str):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._name = name
        self._console = Console(stderr=True, highlight=False)
        columns = (BarColumn(20), TextColumn("{task.description}"), TimeElapsedColumn())
        self._live = self._console.is_terminal
        self._bar = Bar(*columns, console=self._console, transient=True, disable=not self._live)
        self._task = self._bar.add_task("", total=1.0)
        self._rule = ""
        self._share = 0.0
        self._over = threading.Event()
        self._lines = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> "Progress":
        self._bar.start()
        if not self._live:
            self._lines.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._bar.stop()

    def show(self, rule: str, share: float) -> None:
        """The rule that is looked at now; `share` of all, from 0 to 1, were before it."""
        self._rule, self._share = rule, share
        self._bar.update(self._task, completed=share, description=rule)

    def _print_lines(self) -> None:
        began = time.monotonic()
        while not self._over.wait(EVERY):
            seconds = time.monotonic() - began
            text = f"{self._share:4.0%}  {self._name}: {self._rule}  {seconds:.0f} s"
            self._console.print(text, soft_wrap=True)
