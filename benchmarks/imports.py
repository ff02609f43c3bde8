"""What it costs to import the package, and to call the command."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Row, median_ms

__all__ = ["rows"]

ROUNDS = 15


def rows() -> Iterator[Row]:
    """Interpreters with and without the import, and the command."""
    bare = median_ms(lambda: _python("pass"), ROUNDS)
    ours = median_ms(lambda: _python("import swarmcg"), ROUNDS)
    yield Row("import swarmcg, what it adds to an interpreter", max(0.0, ours - bare), None, "", "60 ms")
    command = Path(sys.executable).with_name("swarmcg")
    version = median_ms(
        lambda: subprocess.run([command, "--version"], check=True, stdout=subprocess.DEVNULL), ROUNDS
    )
    yield Row("swarmcg --version", version, bare, "an empty interpreter", "150 ms")


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
