"""Prints the table of figures: ``python -m benchmarks [limits update | start kill imports]``."""

import argparse
import os
import platform
import sys

from benchmarks import imports, kill, limits, start, update
from benchmarks.measuring import Row, table

GROUPS = {
    "start": start.rows,
    "kill": kill.rows,
    "imports": imports.rows,
    "limits": limits.rows,
    "update": update.rows,
}
ON_ANY_HOST = ("start", "kill", "imports")


def main() -> int:
    """Measures what was asked for, or what needs no limits."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("group", nargs="*", choices=[*GROUPS, []], metavar="GROUP", help=", ".join(GROUPS))
    asked = parser.parse_args().group or ON_ANY_HOST
    load = os.getloadavg()[0]
    print(
        f"Linux {platform.release()}, {os.cpu_count()} processors, load {load:.1f} at the start\n", flush=True
    )
    rows: list[Row] = []
    for group in asked:
        rows.extend(GROUPS[group]())
    print(table(rows))
    if "kill" in asked:
        theirs, ours = kill.survivors()
        print(f"\nOf {kill.PROCESSES} processes, half of them daemonized:")
        print(f"psutil's walk of the tree leaves {theirs}, ours leaves {ours}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
