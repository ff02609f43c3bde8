"""The keeper is small: the standard library, and little of that."""

import subprocess
import sys
from pathlib import Path

import swarmcg

PACKAGE = Path(swarmcg.__file__).parent
# The installation's own interpreter: while coverage is measured, sys.executable is a script that brings coverage along.
INTERPRETER = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
PROGRAM = """
import runpy, sys
sys.argv = ["keeper"]
runpy.run_path({path!r}, run_name="keeper")
print(*sorted(sys.modules))
"""
HEAVY = {
    "subprocess",
    "threading",
    "asyncio",
    "logging",
    "dataclasses",
    "inspect",
    "msgspec",
    "psutil",
}


def loaded() -> set[str]:
    program = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})" + PROGRAM.format(
        path=str(PACKAGE / "keeper" / "__main__.py")
    )
    done = subprocess.run(
        [INTERPRETER, "-I", "-S", "-c", program], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_the_keeper_runs_on_the_standard_library_alone() -> None:
    ours = {name for name in loaded() if name.split(".")[0] == "swarmcg"}
    assert ours == {
        "swarmcg",
        *(f"swarmcg.keeper{name}" for name in ("", ".keeper", ".refusal", ".spawn", ".wire")),
    }
    others = {name.split(".")[0] for name in loaded()} - {"swarmcg"}
    assert others <= set(sys.stdlib_module_names) | {"__main__", "__mp_main__"}


def test_it_loads_nothing_heavy() -> None:
    assert loaded() & HEAVY == set()
