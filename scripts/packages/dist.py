"""The wheel and the source archive, below dist/. The same commit gives the same bytes.

    scripts/dist [--check]

With --check both are built again and compared, and installed by pip and by pipx into places of their own.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from checks import wheels

ROOT: Final = Path(__file__).resolve().parents[2]
DIST: Final = ROOT / "dist"


def main() -> int:
    """Builds, and checks if that was asked for."""
    parser = argparse.ArgumentParser(
        prog="scripts/dist", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="build twice, compare, install by pip and pipx")
    asked = parser.parse_args()
    os.environ.setdefault(
        "SOURCE_DATE_EPOCH", _output(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]).strip()
    )
    made = build(DIST)
    for file in made:
        print(f"{_digest(file)}  {file.relative_to(ROOT)}", flush=True)
    return check(made) if asked.check else 0


def build(into: Path) -> list[Path]:
    """The wheel and the archive, made by the project's own build system in an environment of its own."""
    with tempfile.TemporaryDirectory(prefix="swarmcg-dist-") as place:
        subprocess.run([*wheels.PIP, "install", "--target", f"{place}/tools", "hatchling"], check=True)
        command = [sys.executable, "-m", "hatchling", "build", "--directory", f"{place}/made"]
        tools = os.environ | {"PYTHONPATH": f"{place}/tools"}
        subprocess.run(command, cwd=ROOT, env=tools, check=True, stdout=subprocess.DEVNULL)
        into.mkdir(exist_ok=True)
        return [file.replace(into / file.name) for file in sorted(Path(place, "made").iterdir())]


def check(made: list[Path]) -> int:
    """Whether a second build gives the same bytes, and whether both install; says what does not."""
    troubles = []
    with tempfile.TemporaryDirectory(prefix="swarmcg-dist-") as place:
        again = build(Path(place, "again"))
        troubles += [
            f"{one.name} differs" for one, other in zip(made, again, strict=True) if _differ(one, other)
        ]
        for number, file in enumerate(made):
            environment = Path(place, f"venv-{number}")
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            subprocess.run([environment / "bin/python", "-m", "pip", "install", "--quiet", file], check=True)
            print(f"pip install {file.name}: {_version(environment / 'bin/swarmcg')}", flush=True)
        subprocess.run([*wheels.PIP, "install", "--target", f"{place}/tools", "pipx"], check=True)
        homes = {"PIPX_HOME": f"{place}/pipx", "PIPX_BIN_DIR": f"{place}/bin", "PYTHONPATH": f"{place}/tools"}
        pipx = [sys.executable, "-m", "pipx", "install", "--quiet", "--python", sys.executable, str(made[-1])]
        subprocess.run(pipx, env=os.environ | homes, check=True, stdout=subprocess.DEVNULL)
        print(f"pipx install {made[-1].name}: {_version(Path(place, 'bin/swarmcg'))}", flush=True)
    print("\n".join(troubles or ["two builds are the same"]))
    return int(bool(troubles))


def _differ(one: Path, other: Path) -> bool:
    return _digest(one) != _digest(other)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _version(command: Path) -> str:
    return _output([str(command), "--version"]).strip()


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
