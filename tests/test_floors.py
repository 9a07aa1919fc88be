"""A module imports only from lower floors, and each heavy library has one room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = {
    0: "counters errors returns rng rule stats table",
    1: "adapters.spaces checkpoint find seeds types",
    2: "adapters.lanes adapters.mujoco adapters.registration agents.strategy_settings buffer config distribution "
    "figure log moments perceptron posterior video",
    3: "adapters.batch adapters.workers agent agents.settings env memory recording replay segments timeline",
    4: "adapters.base adapters.shown agents.strategy catalogue ground loading policy rollout session",
    5: "adapters.gymnasium adapters.vector agents.bandits agents.mdps evaluation optim probe skills training",
    6: "adapters.sb3 agents.pearl contract inference offers options repetition run",
    7: "agents.rl2 check comparison curvature film latent_plot",
    8: "adaptation plot usage",
    9: "agents.maml option_plot render",
    10: "cli",
    11: "__init__ __main__ agents.__init__ adapters.__init__",
}
"""Floor → its modules, below `metarl`. A new module goes to the lowest floor that is above all that it imports."""

ROOMS = {
    "ray": ("metarl.cluster",),
    "stable_baselines3": ("metarl.adapters.sb3",),
    "mujoco": ("metarl.adapters.", "metarl_envs."),
    "gymnasium": ("metarl.adapters.", "metarl_envs."),
    "matplotlib": (
        "metarl.figure",
        "metarl.ground",
        "metarl.latent_plot",
        "metarl.option_plot",
        "metarl.plot",
        "metarl.timeline",
    ),
    "PIL": ("metarl.video",),
    "imageio_ffmpeg": ("metarl.video",),
    "typer": ("metarl.cli",),
    "metarl_envs": ("metarl_envs.",),
}
"""Import → the modules, or packages that end in a dot, which may use it. Families come through entry points only."""

FLOOR_OF = {f"metarl.{name}": floor for floor, names in FLOORS.items() for name in names.split()}


def modules(folder: str, package: str) -> dict[str, Path]:
    root = ROOT / folder
    return {".".join((package, *path.relative_to(root).with_suffix("").parts)): path for path in root.rglob("*.py")}


OURS = modules("metarl", "metarl")
EVERYTHING = OURS | modules("envs", "metarl_envs")


def imports(module: str, source: str) -> Iterator[str]:
    """Every module that `source` imports: at the top, inside functions, and for type checkers."""
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
            base = base if node.level else str(node.module)
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                yield inside if inside in EVERYTHING else base


def floor_of(imported: str) -> int | None:
    """None for what is not ours; a package is its __init__."""
    if imported.split(".")[0] != "metarl":
        return None
    return FLOOR_OF[imported if imported in FLOOR_OF else f"{imported}.__init__"]


@pytest.mark.parametrize("module", OURS)
def test_a_module_imports_from_lower_floors_only(module: str):
    assert module in FLOOR_OF, f"give {module} a floor in FLOORS"
    for imported in imports(module, OURS[module].read_text()):
        floor = floor_of(imported)
        assert floor is None or floor < FLOOR_OF[module], f"{module} imports {imported} from floor {floor}"


@pytest.mark.parametrize("module", EVERYTHING)
def test_libraries_stay_in_their_rooms(module: str):
    for imported in imports(module, EVERYTHING[module].read_text()):
        rooms = ROOMS.get(imported.split(".")[0])
        assert rooms is None or any(
            module == room or (room.endswith(".") and module.startswith(room)) for room in rooms
        ), f"{module} imports {imported}"


def test_every_floor_is_furnished_with_modules_that_exist():
    assert set(FLOOR_OF) <= set(OURS)


def test_every_kind_of_import_is_seen():
    """Else the floors would hold by blindness."""
    source = """
import metarl.rng, ray
from metarl import memory
from metarl.agents import settings
from . import settings as relative
from ..types import Spec
if TYPE_CHECKING:
    from metarl.buffer import Rollout
def later():
    from metarl.training import train
"""
    assert sorted(set(imports("metarl.agents.rl2", source))) == [
        "metarl.agents.settings",
        "metarl.buffer",
        "metarl.memory",
        "metarl.rng",
        "metarl.training",
        "metarl.types",
        "ray",
    ]
