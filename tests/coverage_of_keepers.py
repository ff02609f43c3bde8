"""A pytest plugin for runs under coverage.py: measures helpers that are started without site-packages, too.

A process started with `-I -S` never meets coverage's own .pth file, and the keeper's environment is a short list. While
coverage is measured, `sys.executable` is a script that for such a process, and for no other, leaves out the -S and
tells coverage's settings. Nothing of this is known to the code under test.
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = """#!/bin/sh
if [ "$1 $2" = "-I -S" ]; then
    shift 2
    set -- -I "$@"
    export COVERAGE_PROCESS_CONFIG={settings}
fi
exec {python} "$@"
"""


@pytest.fixture(scope="session", autouse=True)
def measured_helpers() -> Iterator[None]:
    """Have helpers measured, if this run is."""
    settings = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if settings is None:
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="swarmcg-python-") as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        script = Path(place, "python")
        script.write_text(SCRIPT.format(python=shlex.quote(sys.executable), settings=shlex.quote(settings)))
        for path in (Path(place), script):
            path.chmod(0o755)  # some tests run it as another user
        patch.setattr(sys, "executable", str(script))
        yield
