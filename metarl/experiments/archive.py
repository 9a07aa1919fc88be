"""A trained agent as one file that is opened anywhere, without executing anything.

A zip file of three parts::

    agent.json            the configuration, the shape of its observations and actions, its state
                          (without the tensors)
    weights.safetensors   the tensors of its state, by name
    card.json             what it was trained for and how well it did, for readers

An agent that acts through pretrained options has those of each run as option-0.zip …
"""

import io
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from metarl.core.errors import DISTRIBUTION, CheckpointError, ConfigError

FORMAT = 1
"""Incremented when files of earlier versions can no longer be read."""

AGENT, WEIGHTS, CARD = "agent.json", "weights.safetensors", "card.json"
_TENSOR = "$tensor"
_WRITTEN = (1980, 1, 1, 0, 0, 0)  # the same agent is the same file


def archive_bytes(
    content: Mapping[str, Any],
    state: Mapping[str, Any],
    card: Mapping[str, Any],
    options: list[bytes],
) -> bytes:
    """The file of an agent: its `content` as JSON has it, its acting `state`, and its card.

    Raises:
        ConfigError: the state holds something that is neither plain nor a tensor.
    """
    tensors: dict[str, Tensor] = {}
    plain = _without_tensors(state, "", tensors)
    head = {"format": FORMAT, "metarl": version(DISTRIBUTION), **content, "agent": plain}
    parts = {
        AGENT: _json(head),
        WEIGHTS: save_tensors(tensors),
        CARD: _json(card),
        **{f"option-{place}.zip": data for place, data in enumerate(options)},
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _WRITTEN), data)
    return file.getvalue()


def is_archive(path: Path) -> bool:
    """Whether the file is such a one, or lies in one."""
    return _has(path, AGENT)


def is_sb3_model(path: Path) -> bool:
    """Whether the file is one of Stable-Baselines3."""
    return _has(path, "data", "policy.pth")


def _has(path: Path, *parts: str) -> bool:
    try:
        return set(parts) <= set(_open(path).namelist())
    except Exception:  # whatever reading another file leads to
        return False


def read_archive(path: Path) -> dict[str, Any]:
    """The content of such a file, with its state under "agent".

    Raises:
        CheckpointError: it is damaged, or of another format.
    """
    try:
        with _open(path) as archive:
            if archive.testzip() is not None:  # a part that is not what was written
                raise zipfile.BadZipFile
            content = json.loads(archive.read(AGENT))
            if int(content["format"]) == FORMAT:
                tensors = load_tensors(archive.read(WEIGHTS))
                content["agent"] = _with_tensors(content["agent"], tensors)
    except Exception as error:  # whatever reading another file leads to
        raise CheckpointError(
            f"{path} is truncated, damaged or no exported agent ({type(error).__name__}); "
            "export it again"
        ) from None
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}, written by metarl {content.get('metarl')}; "
            f"this is metarl {version(DISTRIBUTION)} with format {FORMAT}"
        )
    return dict(content)


def _open(path: Path) -> zipfile.ZipFile:
    """The file, or a file in one: agent.zip/option-0.zip."""
    if path.is_file() or path == path.parent:
        return zipfile.ZipFile(path)
    return zipfile.ZipFile(io.BytesIO(_open(path.parent).read(path.name)))


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _without_tensors(tree: object, place: str, tensors: dict[str, Tensor]) -> object:
    """`tree` with the names of its tensors, which are put into `tensors`."""
    if isinstance(tree, Tensor):
        tensors[place] = tree.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: place}
    if isinstance(tree, dict):
        return {
            key: _without_tensors(value, f"{place}/{key}".lstrip("/"), tensors)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [_without_tensors(x, f"{place}/{i}", tensors) for i, x in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise ConfigError(
        f"export: {place} of the agent's acting_state is {type(tree).__name__}; "
        "let it hold tensors, numbers, texts, lists and dicts"
    )


def _with_tensors(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse."""
    if isinstance(tree, list):
        return [_with_tensors(x, tensors) for x in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {_TENSOR}:
        return tensors[tree[_TENSOR]]
    return {key: _with_tensors(value, tensors) for key, value in tree.items()}
