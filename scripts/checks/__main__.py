"""Runs the parts that were asked for, all of them even when one fails, and closes with a table."""

import argparse
import compileall
import signal
import sys
import time
from dataclasses import dataclass

from checks.parts import PARTS, ROOT, Outcome, Settings, in_ci


@dataclass(frozen=True, slots=True)
class Line:
    part: str
    outcome: Outcome
    seconds: float


def main() -> int:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that what was made is removed
    names, pytest_options = _arguments(sys.argv[1:])
    settings = Settings(pytest_options=tuple(pytest_options))
    # Thousands of interpreters are started, some where they must not write: none shall have to compile.
    compileall.compile_dir(ROOT / "src", quiet=1)
    lines: list[Line] = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        ran = frozenset(line.part for line in lines if line.outcome.state == "passed")
        began = time.monotonic()
        outcome = PARTS[name](settings, ran)
        if outcome.state == "cannot run" and in_ci():
            outcome = Outcome("failed", f"with CI=true every part has to run; {outcome.why}")
        lines.append(Line(name, outcome, time.monotonic() - began))
    _print_table(lines)
    return int(any(line.outcome.state == "failed" for line in lines))


def _arguments(words: list[str]) -> tuple[list[str], list[str]]:
    ours, theirs = words, list[str]()
    if "--" in words:
        cut = words.index("--")
        ours, theirs = words[:cut], words[cut + 1 :]
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Runs the parts named, or all that this machine can run. What follows -- goes to pytest.",
        epilog="With CI=true a part that cannot run is a failure.",
    )
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    asked = parser.parse_args(ours).part
    return [name for name in PARTS if not asked or name in asked], theirs


def _print_table(lines: list[Line]) -> None:
    print()
    for line in lines:
        print(f"{line.part:10} {line.outcome.state:10} {line.seconds:7.1f} s  {line.outcome.why}".rstrip())
    print(f"{'together':10} {'':10} {sum(line.seconds for line in lines):7.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
