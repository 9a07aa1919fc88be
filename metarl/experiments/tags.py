"""Names of what is logged, as TensorBoard, Weights & Biases and MLflow group them: group/name."""

from collections.abc import Mapping
from typing import Any

_TAGS = {
    **{name: f"time/{name}" for name in ("iteration", "seconds", "env_steps_per_second")},
    **{name: f"rollout/{name}" for name in ("return", "first_return", "last_return", "success")},
    "validation": "validation/score",
}
_SCORES = {
    "total": "return",
    "first": "first_return",
    "last": "last_return",
    "success": "success",
    "regret": "regret",
}
"""What a summary of scores calls them, and the log of an iteration."""
_GROUPS = {"test": "test", "ood": "test_ood", "train": "test_train"}


def grouped(record: Mapping[str, float]) -> dict[str, float]:
    """The numbers of an iteration's record by tag; ``env_steps``, over which they are drawn, is
    left out.

    Returns are in ``rollout/``, the clock is in ``time/``, the score on validation tasks is
    ``validation/score``, all else is in ``train/``. A name that has a group of its own keeps it.
    """
    return {_tag(name): value for name, value in record.items() if name != "env_steps"}


def _tag(name: str) -> str:
    return _TAGS.get(name, name if "/" in name else f"train/{name}")


def final_scores(result: Mapping[str, Any]) -> dict[str, float]:
    """The best checkpoint's scores, as result.json has them, by tag.

    ``validation/best``, by which it was chosen; of test tasks ``test/return`` (of a trial),
    ``test/first_return`` and ``test/last_return`` (of an episode), where there are such
    ``test/success``, ``test/regret`` and the family's metrics; the same of ood and training tasks
    in ``test_ood/`` and ``test_train/``.
    """
    numbers = {"validation/best": float(result["validation"])}
    for split, scores in result.get("scores", {}).items():
        summary = scores["summary"]
        parts = {tag: summary[name] for name, tag in _SCORES.items() if name in summary}
        for tag, part in (parts | summary["metrics"]).items():
            numbers[f"{_GROUPS[split]}/{tag}"] = part["mean"]["value"]
    return numbers


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration key by key, as on the command line: ``agent.memory_width`` and so on."""
    plain: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            plain |= {f"{key}.{name}": inner for name, inner in flat(value).items()}
        else:
            plain[key] = value
    return plain
