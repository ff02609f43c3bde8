"""How an error is told: on standard error, in up to three lines."""

import contextlib
import sys

from swarmcg.errors import SwarmcgError

__all__ = ["complain"]


def complain(error: SwarmcgError) -> None:
    """Says what failed, why, and the cure. A standard error that is closed or broken hears nothing."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"swarmcg: {error}", file=sys.stderr, flush=True)
