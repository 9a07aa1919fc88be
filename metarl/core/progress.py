"""How far long work is, told to whoever listens; nobody listens unless a command does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, float], None]
"""Is told what is done, and which share of all is done already, from 0 to 1."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within, `listener` is told."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listened() -> bool:
    """Whether there is somebody to tell."""
    return _listener.get() is not None


def tell(what: str, share: float) -> None:
    """Say what is done, and which `share` of it is done already."""
    listener = _listener.get()
    if listener is not None:
        listener(what, share)


@contextmanager
def part(what: str, number: int, count: int) -> Iterator[None]:
    """Within, what is told is of part `number`, from 0, of `count` equal ones: it is `what`."""
    outer = _listener.get()
    if outer is None:
        yield
        return

    def tell_of_part(inner: str, share: float) -> None:
        outer(what or inner, (number + share) / count)

    with listening(tell_of_part):
        tell(what, 0.0)
        yield
