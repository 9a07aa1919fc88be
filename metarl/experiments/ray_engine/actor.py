"""A worker process: a family, and an agent that acts as the driver's does."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import ray
import torch

from metarl.collect.messages import Message, pack, unpack
from metarl.collect.pool import Worker
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError, one_line
from metarl.core.family import UsesThreads
from metarl.experiments.building import build
from metarl.experiments.user_code import CodeCopy, unpack_code


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
                self._agent.warm_start(unpack(ray.get(references[0])))
                self._state = number
            return True, pack(unpack(job).run(self._agent, self._worker))
        except Exception as error:
            return False, _packed_error(error)

    def _prepare(self, number: int, references: Sequence[Any]) -> None:
        """Family and agent of a setup, unless they are here already."""
        if number == self._setup:
            return
        setup: Setup = unpack(ray.get(references[0]))
        family, self._agent = build(parse(unpack_code(setup.tree, setup.code)))
        if isinstance(family, UsesThreads):
            family.threads = self._cores
        self._worker = Worker(family)
        self._setup, self._state = number, -1


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
