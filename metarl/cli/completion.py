"""What a shell offers for the word that is being typed.

Imports no torch, and nothing of ours before it is asked.
"""

from collections.abc import Iterable
from glob import escape
from pathlib import Path


def families(incomplete: str) -> list[str]:
    """Families by name, and paths."""
    from metarl.config.registry import names

    return _beginning(incomplete, names("family"))


def agents(incomplete: str) -> list[str]:
    """Agents by name, and paths."""
    from metarl.config.registry import names

    return _beginning(incomplete, names("agent"))


def families_and_agents(incomplete: str) -> list[str]:
    """Both, and paths."""
    from metarl.config.registry import names

    return _beginning(incomplete, names("family") + names("agent"))


def configurations(incomplete: str) -> list[str]:
    """Shipped configurations by name, and paths."""
    from metarl.config.files import shipped

    return _beginning(incomplete, shipped())


def several_agents(incomplete: str) -> list[str]:
    """The last of several agents or runs, which commas part."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{found}" for found in agents(last)]


def _beginning(incomplete: str, known: Iterable[str]) -> list[str]:
    """Those of the `known` words and of the paths here that begin so."""
    paths = Path().glob(f"{escape(incomplete)}*") if incomplete[:1] not in ("/", "~") else ()
    found = [f"{path}/" if path.is_dir() else str(path) for path in paths]
    return [word for word in known if word.startswith(incomplete)] + sorted(found)
