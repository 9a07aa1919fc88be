"""A worker process: a family, and an agent that acts as the driver's does."""

import os
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError

from metarl.collect.messages import Message, pack, unpack
from metarl.collect.pool import Worker
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError, one_line
from metarl.core.family import UsesThreads
from metarl.experiments.building import build
from metarl.experiments.user_code import CodeCopy, unpack_code

_FETCH_SECONDS = 60.0  # for what the driver sends beside a job


@dataclass(frozen=True)
class Setup:
    """What a worker makes its family and its agent of."""

    tree: dict[str, Any]
    """A configuration, as plain values."""
    code: list[CodeCopy] = field(default_factory=list)
    """The user's own files that it names."""


class Actor:
    """A worker process: a family, and an agent that acts as the driver's does."""

    def __init__(self, threads: int, cores: int, directory: str):
        torch.set_num_threads(threads)
        self._cores = cores
        self._setup = self._state = -1
        with suppress(OSError):  # another machine may not have it
            os.chdir(directory)

    def versions(self) -> dict[str, str]:
        """Of what numbers depend on."""
        return own_versions()

    def run(
        self,
        setup: tuple[int, Sequence[Any]],
        state: tuple[int, Sequence[Any]],
        job: Message,
    ) -> tuple[bool, Message]:
        """(True, the result), or (False, the error and its traceback)."""
        try:
            self._prepare(*setup)
            number, references = state
            if number != self._state:
                self._agent.warm_start(unpack(_fetch(references[0])))
                self._state = number
            return True, pack(unpack(job).run(self._agent, self._worker))
        except Exception as error:
            return False, _packed_error(error)

    def _prepare(self, number: int, references: Sequence[Any]) -> None:
        """Family and agent of a setup, unless they are here already."""
        if number == self._setup:
            return
        setup: Setup = unpack(_fetch(references[0]))
        family, self._agent = build(parse(unpack_code(setup.tree, setup.code)))
        if isinstance(family, UsesThreads):
            family.threads = self._cores
        self._worker = Worker(family)
        self._setup, self._state = number, -1


def _fetch(reference: Any) -> Message:
    """What the driver has put there."""
    try:
        message: Message = ray.get(reference, timeout=_FETCH_SECONDS)
    except GetTimeoutError:
        raise MetaRLError(
            f"collector ray: the worker on {socket.gethostname()} cannot reach the program that "
            f"asks it within {_FETCH_SECONDS:g} s; see ray status, and the address that the "
            "program's machine joined with (ray start --node-ip-address)"
        ) from None
    return message


def _packed_error(error: Exception) -> Message:
    text = traceback.format_exc()
    try:
        packed = pack((error, text))
        unpack(packed)
    except Exception:  # an error of somebody else's may not travel
        packed = pack((MetaRLError(one_line(error)), text))
    return packed


def own_versions() -> dict[str, str]:
    names = ("metarl-torch", "torch", "numpy")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in names}
