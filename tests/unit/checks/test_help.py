"""Every script says what it is for, and does nothing else then."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

SCRIPTS: Final = Path(__file__).resolve().parents[3] / "scripts"
QUICKLY_S: Final = 60  # a bound for a busy machine: each takes less than a second


@pytest.mark.parametrize(
    "script",
    [path for path in sorted(SCRIPTS.iterdir()) if path.is_file() and os.access(path, os.X_OK)],
    ids=lambda path: path.name,
)
def test_help_is_printed_and_nothing_is_done(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [script, "--help"],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=QUICKLY_S,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert f"scripts/{script.name}" in done.stdout.splitlines()[0]
    assert list(tmp_path.iterdir()) == []
