"""The rooms of the package import downward only, and import little."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

import swarmcg

PACKAGE: Final = Path(swarmcg.__file__).parent

# From the top to the ground. A room imports itself, rooms of lower lines, and the keeper.
ORDER: Final = (
    {"cli"},
    {"agent"},
    {"doctor", "drone", "starter"},
    {"elsewhere"},
    {"bot_code", "supervisor"},
    {"journal", "ladder", "report_file", "verdict", "workplace"},
    {"cgroup"},
    {"resources"},
    {"bot"},
    {"fields"},
    {"errors", "flock", "journald", "places", "plain_files"},
)
LEVEL: Final = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
# Each costs whoever imports the package tens of milliseconds, so it is imported where it is used.
SLOW: Final = {"asyncio", "psutil", "pyroute2", "urllib.request", "urllib.error", "http.client"}
# The agent lives on asyncio; the others are themselves imported where they are used.
MAY_BE_SLOW: Final = {"agent", "bot_code", "testing"}
SLOW_MODULES: Final = {
    f"cgroup/network/{name}.py" for name in ("messages", "nft", "program", "refusal", "shaping")
}


def modules(room: str = "") -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def shown(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


def run_time(node: ast.AST, *, inside_functions: bool) -> Iterator[ast.AST]:
    """The nodes that run, at import or also when functions are called; never those for type checkers."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
        return
    yield node
    is_typing = (
        isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    children = node.orelse if is_typing else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
    for child in children:
        yield from run_time(child, inside_functions=inside_functions)


def imports(module: Path, *, inside_functions: bool) -> set[str]:
    names = set()
    for node in run_time(ast.parse(module.read_text()), inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(module: Path) -> set[str]:
    names = imports(module, inside_functions=True)
    return {name.split(".")[1] for name in names if name.startswith("swarmcg.")} - {"__version__"}


def is_one_of(name: str, packages: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", modules(), ids=shown)
def test_a_room_imports_only_itself_and_lower_rooms(module: Path) -> None:
    room = room_of(module)
    above_all = -1
    level = LEVEL.get(room, above_all)
    lower = {other for other in LEVEL if LEVEL[other] > level}
    assert rooms_imported(module) <= lower | {room, "keeper"}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(module) for module in modules()} <= LEVEL.keys() | {"__init__", "keeper", "testing"}


@pytest.mark.parametrize("module", modules("keeper"), ids=shown)
def test_the_keeper_imports_the_standard_library_and_itself(module: Path) -> None:
    allowed = sys.stdlib_module_names | {"swarmcg.keeper"}
    assert {name for name in imports(module, inside_functions=True) if not is_one_of(name, allowed)} == set()


@pytest.mark.parametrize("module", modules(), ids=shown)
def test_slow_modules_are_imported_where_they_are_used(module: Path) -> None:
    if room_of(module) not in MAY_BE_SLOW and shown(module) not in SLOW_MODULES:
        names = imports(module, inside_functions=False)
        assert {name for name in names if is_one_of(name, SLOW)} == set()


def loaded_by(statement: str, *options: str) -> set[str]:
    """What a fresh interpreter has loaded after the statement and had not before it."""
    program = f"""
import sys
sys.path.append({str(PACKAGE.parent)!r})
before = set(sys.modules)
{statement}
print(*sorted(set(sys.modules) - before))
"""
    command = [sys.executable, "-I", *options, "-c", program]
    # Without COVERAGE_*: what coverage.py imports for itself would hide what we do.
    return set(subprocess.run(command, env={}, check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import swarmcg") - {"typing"} <= {"swarmcg", *loaded_by("import typing")}


def test_who_limits_no_packets_never_loads_what_speaks_netlink() -> None:
    """Everything that starts, supervises and ends bots, with the functions that they call for packets."""
    rooms = "swarmcg.starter, swarmcg.supervisor.service, swarmcg.supervisor.heir, swarmcg.cgroup.network"
    commands = ", ".join(f"swarmcg.cli.{verb}" for verb in ("run", "bot", "explain", "clean"))
    loaded = loaded_by(f"import {rooms}, {commands}")
    assert "swarmcg.cgroup.network" in loaded
    assert {name for name in loaded if is_one_of(name, {"pyroute2", "asyncio"})} == set()


def test_the_keeper_runs_without_site_packages_and_loads_no_other_room() -> None:
    loaded = loaded_by("import swarmcg.keeper.__main__", "-S")
    ours = {name for name in loaded if is_one_of(name, {"swarmcg"})}
    assert {name for name in ours if not is_one_of(name, {"swarmcg.keeper"})} == {"swarmcg"}
    assert {name for name in loaded - ours if not is_one_of(name, sys.stdlib_module_names)} == set()
