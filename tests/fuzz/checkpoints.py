"""Checkpoints that nobody wrote: damaged bytes, and contents of another form.

`PROPERTIES` maps a name to a function without arguments that draws examples and raises for the
first one that breaks the promise. Damaged bytes are refused in a line, or what is loaded is what
was written. A content of another form is refused, or it is an agent that acts and goes on learning.
"""

from __future__ import annotations

import copy
import io
import os
import tempfile
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.evaluation.meta_test import evaluate
from metarl.experiments import archive, checkpoints
from metarl.experiments.building import Loaded, load, world_of
from metarl.experiments.card import export
from metarl.experiments.loop import learn
from metarl.experiments.runs import train

AGENTS: dict[str, dict[str, Any]] = {
    "rl2": {"memory_width": 4, "trials": 4, "normalize_obs": True, "normalize_reward": True},
    "dac": {"trials": 4, "options": 2, "sub_hidden_sizes": [4]},
    "maml": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [4]},
    "pearl": {"tasks": 2, "updates": 2, "hidden_sizes": [4], "encoder_sizes": [4], "capacity": 50},
}
FOLDER = Path(tempfile.gettempdir()) / f"metarl-fuzz-{os.getpid()}"


@cache
def run_of(agent: str) -> Path:
    """A run of that agent."""
    small = {
        "agent": {"name": agent, **AGENTS[agent]},
        "family": {"name": "point", "horizon": 4},
        "episodes": 2,
        "iterations": 2,
        "train_tasks": 3,
        "validation_tasks": 2,
        "test_tasks": 2,
    }
    folder = FOLDER / agent
    train(parse(small), folder, quiet=True)
    export(folder, folder / "agent.zip")
    return folder


@cache
def bytes_of(agent: str, exported: bool) -> bytes:
    file = "agent.zip" if exported else "checkpoints/latest.pt"
    return (run_of(agent) / file).read_bytes()


@cache
def content_of(agent: str, exported: bool) -> dict[str, Any]:
    path = run_of(agent) / ("agent.zip" if exported else "checkpoints/latest.pt")
    return archive.read_archive(path) if exported else checkpoints.load(path)


def attempt(file: Path) -> Loaded | None:
    """What is loaded; None where that is refused in short lines."""
    try:
        return load(file)
    except MetaRLError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.isprintable() and len(line) < 600 for line in lines), lines
        return None


agents = st.sampled_from(sorted(AGENTS))


# -------------------------------------------------------------------------------------------------
# Damaged bytes


@given(agent=agents, exported=st.booleans(), where=st.floats(0, 1), bit=st.integers(0, 7))
def flips(agent: str, exported: bool, where: float, bit: int) -> None:
    """One bit of a file is another."""
    data = bytearray(bytes_of(agent, exported))
    data[min(int(where * len(data)), len(data) - 1)] ^= 1 << bit
    unchanged_or_refused(agent, exported, bytes(data))


@given(agent=agents, exported=st.booleans(), where=st.floats(0, 1))
def truncations(agent: str, exported: bool, where: float) -> None:
    """A file ends early."""
    data = bytes_of(agent, exported)
    kept = data[: int(where * len(data))]
    file = FOLDER / "truncated.pt"
    file.write_bytes(kept)
    assert kept == data or attempt(file) is None


def unchanged_or_refused(agent: str, exported: bool, data: bytes) -> None:
    file = FOLDER / "damaged.pt"
    file.write_bytes(data)
    loaded = attempt(file)
    if loaded is None:
        return
    file.write_bytes(bytes_of(agent, exported))
    whole = load(file)
    assert loaded.config == whole.config
    assert (loaded.spec, loaded.counters) == (whole.spec, whole.counters)
    pairs = zip(
        tree_leaves(loaded.agent.state_dict()), tree_leaves(whole.agent.state_dict()), strict=True
    )
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


# -------------------------------------------------------------------------------------------------
# Contents of another form


def others(value: Any) -> st.SearchStrategy[Any]:
    """What might stand in the place of `value`."""
    anything: list[Any] = [
        None,
        True,
        -1,
        10**30,
        1e300,
        float("nan"),
        "",
        "x",
        [],
        {},
        [1],
        {"a": 1},
    ]
    anything += [torch.zeros(()), torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)]
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        anything += [
            value.unsqueeze(0)[:0],
            value.unsqueeze(0),
            value.repeat(2, *[1] * (value.dim() - 1)) if value.dim() else value,
            value.double(),
            value.long(),
            value > 0,
            torch.full_like(value, float("nan"))
            if value.is_floating_point()
            else -value.long() - 1,
            torch.full_like(value, 1e38) if value.is_floating_point() else value.long() + 10**12,
            value.to_sparse() if value.dim() else value,
            value.tolist(),
        ]
    elif isinstance(value, dict):
        anything += [{**value, "more": 1}, list(value), dict(list(value.items())[1:])]
    elif isinstance(value, str):
        anything += [value + "x", "a.py:B", "os:system", "rl2", "maml", "point"]
    elif isinstance(value, int | float):
        anything += [value + 1, -value, str(value), value * 1000]
    return st.sampled_from(anything)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested dicts and lists."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    for key, value in items:
        found += places(value, (*path, key))
    return found


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """`tree` with another value at `path`; without it, where that is `Ellipsis`."""
    if not path:
        return value
    tree = list(tree) if isinstance(tree, tuple) else copy.copy(tree)
    if value is ... and len(path) == 1:
        del tree[path[0]]
    else:
        tree[path[0]] = changed(tree[path[0]], path[1:], value)
    return tree


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@given(data=st.data(), agent=agents, exported=st.booleans(), count=st.integers(1, 2))
def contents(data: Any, agent: str, exported: bool, count: int) -> None:
    """Some parts are missing or something else."""
    content = content_of(agent, exported)
    config = content["config"]
    for _ in range(count):
        if not isinstance(content, dict) or not content:
            break
        path = data.draw(st.sampled_from(places(content)))
        value = data.draw(st.one_of(others(at(content, path)), st.just(...)))
        content = changed(content, path, value)
    works_or_refused(content, exported, config)


def works_or_refused(content: Any, exported: bool, config: object) -> None:
    file = FOLDER / "crafted.pt"
    file.unlink(missing_ok=True)
    if exported:
        tensors: dict[str, torch.Tensor] = {}
        try:
            head = archive._without_tensors(content, "", tensors)
            parts = {
                archive.AGENT: archive._json(head),
                archive.WEIGHTS: archive.save_tensors(tensors),
            }
        except Exception:  # it could not be written by anybody
            return
        with zipfile.ZipFile(file, "w") as written:
            for name, part in parts.items():
                written.writestr(name, part)
    else:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        file.write_bytes(buffer.getvalue())
    loaded = attempt(file)
    if loaded is None or content["config"] is not config:  # others may ask for more than there is
        return
    with suppress(MetaRLError):
        family = loaded.family()
        evaluate(loaded.agent, family, loaded.protocol(tasks=2, episodes=2))
        next(learn(loaded.agent, world_of(loaded.config, family), Rng(0), iterations=1))


PROPERTIES = {"flips": flips, "truncations": truncations, "contents": contents}
