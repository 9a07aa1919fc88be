"""What there is to choose from: families and agents, in words."""

from collections.abc import Iterator

from metarl.config.options_text import describe
from metarl.config.registry import Found, Kind, find, names


def listing(kind: Kind) -> str:
    """A line for each registered family or agent: its name, what it is, its variants or presets.

    Imports none of them.
    """
    known = names(kind)
    width = max(map(len, known))
    lines = []
    for name in known:
        found = find(kind, name)
        line = f"{name:{width}}  {found.summary}"
        choices = found.settings.choices()
        if kind == "family" and choices:  # an agent's presets are agents by their own names
            line += f" [{', '.join(choices)}]"
        lines.append(line)
    return "\n".join(lines)


def description(kind: Kind, name: str) -> str:
    """One of them with all its options and what each variant or preset changes; a family's shape.

    Raises:
        MetaRLError: unknown, or a family that cannot be built with its defaults.
    """
    found = find(kind, name)
    lines = [f"{name}: {found.summary}"]
    if kind == "family":
        lines += _shape(found)
    for choice, defaults in found.settings.choices().items():
        changes = [f"{key}={value}" for key, value in defaults.items()]
        text = ", ".join(changes) or "the defaults below"
        lines.append(f"  {found.settings.selector()} {choice}: {text}")
    for key, info in found.settings.model_fields.items():
        lines.append(f"  {kind}.{key}\n      {describe(info)}")
    return "\n".join(lines)


def _shape(found: Found) -> Iterator[str]:
    """The spec of the family with default options; imports torch."""
    spec = found.build(found.settings()).spec
    parts = ", ".join(f"{part} [{width}]" for part, width in spec.observation.items())
    kind = "choices" if spec.discrete else "entries in [−1, 1]"
    goal = f", the first {spec.goal_width} its goal" if spec.goal_width else ""
    closed = " (closed: all hold the same tasks)" if spec.closed else ""
    yield f"  observation  {parts}"
    yield f"  action       {spec.action_width} {kind}"
    yield f"  episode      at most {spec.horizon} steps"
    yield f"  task row     [{spec.task_width}]{goal}"
    yield f"  splits       {', '.join(spec.splits)}{closed}"
