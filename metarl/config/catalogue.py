"""What there is to choose from: families and agents, in words."""

from __future__ import annotations

from collections.abc import Iterator

from metarl.config.options_text import describe
from metarl.config.registry import Found, Kind, find, names


def listing(kind: Kind) -> str:
    """A line for each registered family or agent: its name, its variants, what it is; imports none of them."""
    found = [find(kind, name) for name in names(kind)]
    width = max(len(each.name) for each in found)
    return "\n".join(f"{each.name:{width}}  {each.summary}{_variants(each)}" for each in found)


def description(kind: Kind, name: str) -> str:
    """One of them with all its options; a family also with its shape, its splits and what each variant changes.

    Raises:
        ConfigError: unknown, or a family that cannot be built with its defaults.
    """
    found = find(kind, name)
    lines = [f"{name}: {found.summary}"]
    if kind == "family":
        lines += _shape(found)
    for variant, changes in found.settings.variants.items():
        told = ", ".join(f"{key}={value}" for key, value in changes.items()) or "the defaults below"
        lines.append(f"  variant {variant}: {told}")
    for key, info in found.settings.model_fields.items():
        lines.append(f"  {kind}.{key}\n      {describe(info)}")
    return "\n".join(lines)


def _variants(found: Found) -> str:
    return f" [{', '.join(found.settings.variants)}]" if found.settings.variants else ""


def _shape(found: Found) -> Iterator[str]:
    """The spec of the family as it is without options."""
    spec = found.build(
        found.settings()
    ).spec  # imports torch, which mistakes and listings do without
    parts = ", ".join(f"{part} [{width}]" for part, width in spec.observation.items())
    kind = "choices" if spec.discrete else "entries in [−1, 1]"
    goal = f", the first {spec.goal_width} its goal" if spec.goal_width else ""
    closed = " (closed: all hold the same tasks)" if spec.closed else ""
    yield f"  observation  {parts}"
    yield f"  action       {spec.action_width} {kind}"
    yield f"  episode      at most {spec.horizon} steps"
    yield f"  task row     [{spec.task_width}]{goal}"
    yield f"  splits       {', '.join(spec.splits)}{closed}"
