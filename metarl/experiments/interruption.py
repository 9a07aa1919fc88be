"""Signals that end a training: what was finished is kept."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 20.0
"""Seconds: batch systems kill 30 after they asked to end."""

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
Handler = Callable[[int, FrameType | None], None]


@contextmanager
def on_signals(handler: Handler) -> Iterator[None]:
    """Call `handler` where Ctrl-C, SIGTERM or SIGHUP arrives.

    Not where it is ignored, as SIGHUP below nohup, nor in a thread, which gets no signals.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _ENDING:
            number = getattr(signal, name)
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ending(number: int) -> BaseException:
    """What Python raises after Ctrl-C, and an exit code that shells know for other signals."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


class Abandoned(BaseException):
    """What is under way is given up."""


class Interruption:
    """The first signal asks the training to end when its iteration is finished.

    After `grace` seconds, or at a second signal, the iteration is given up.
    """

    def __init__(self, grace: float):
        self.grace = grace
        self.signal: int | None = None
        """The first one that came."""
        self._may_abandon = False
        self._too_late = False
        self._reminder: threading.Timer | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are for this object."""
        with on_signals(self._receive):
            try:
                yield
            finally:
                if self._reminder is not None:
                    self._reminder.cancel()

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """What may be given up in the middle: it raises `Abandoned`.

        Everything else is finished, such as the writing of a checkpoint.
        """
        before, self._may_abandon = self._may_abandon, True
        try:
            if self._too_late:
                raise Abandoned
            yield
        finally:
            self._may_abandon = before

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            name = signal.Signals(number).name
            line = f"metarl: {name}: finishing the iteration, for at most {self.grace:g} s\n"
            os.write(2, line.encode())  # a handler may not print: it may have interrupted a print
            self._reminder = threading.Timer(self.grace, _send_to_main_thread, [number])
            self._reminder.daemon = True
            self._reminder.start()
            return
        self._too_late = True
        if self._may_abandon:
            raise Abandoned


def _send_to_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)  # which also wakes it from waiting
