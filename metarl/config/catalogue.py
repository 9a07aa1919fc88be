"""What there is to choose from: families and agents, in words."""

from collections.abc import Iterator

from metarl.config.options_text import describe
from metarl.config.registry import Found, Kind, find, names
from metarl.core.texts import fold


def listing(kind: Kind, width: int | None = None) -> str:
    """A line for each registered family or agent: its name, what it is, its variants or presets.

    Lines longer than `width` are folded. Imports none of them.
    """
    known = names(kind)
    column = max(map(len, known))
    lines = []
    for name in known:
        found = find(kind, name)
        line = f"{name:{column}}  {found.summary}"
        choices = found.settings.choices()
        if kind == "family" and choices:  # an agent's presets are agents by their own names
            line += f" [{', '.join(choices)}]"
        lines.append(fold(line, width, column + 2))
    return "\n".join(lines)


def description(kind: Kind, name: str, width: int | None = None) -> str:
    """One of them with all its options and what each variant or preset changes; a family's shape.

    Lines longer than `width` are folded.

    Raises:
        MetaRLError: unknown, or a family that cannot be built with its defaults.
    """
    found = find(kind, name)
    lines = [fold(f"{name}: {found.summary}", width, 2)]
    if kind == "family":
        lines += [fold(line, width, 15) for line in _shape(found)]
    for choice, defaults in found.settings.choices().items():
        changes = [f"{key}={value}" for key, value in defaults.items()]
        text = ", ".join(changes) or "the defaults below"
        lines.append(fold(f"  {found.settings.selector()} {choice}: {text}", width, 4))
    for key, info in found.settings.model_fields.items():
        lines += [f"  {kind}.{key}", fold(f"      {describe(info)}", width, 6)]
    return "\n".join(lines)


def _shape(found: Found) -> Iterator[str]:
    """The spec of the family with default options; imports torch."""
    spec = found.build(found.settings()).spec
    goal = f", the first {spec.goal_width} its goal" if spec.goal_width else ""
    closed = " (closed: all hold the same tasks)" if spec.closed else ""
    yield f"  observation  {spec.observation_words}"
    yield f"  action       {spec.action_words}"
    yield f"  episode      at most {spec.horizon} steps"
    yield f"  task row     [{spec.task_width}]{goal}"
    yield f"  splits       {', '.join(spec.splits)}{closed}"
