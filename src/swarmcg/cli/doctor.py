"""``swarmcg doctor``: what this host can do, what is missing, what that means, and what mends it."""

import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import msgspec

from swarmcg.cli import options
from swarmcg.cli.parser import Parser
from swarmcg.cli.tables import printable, table
from swarmcg.doctor.check import Check, State, warn
from swarmcg.doctor.judge import judge
from swarmcg.doctor.look import look

__all__ = ["FAILURE", "USAGE", "main"]

FAILURE: Final = 2
USAGE: Final = 2

_EPILOG: Final = """\
Changes nothing, needs no root, and never waits for long. A check says fail where bots cannot be started or a
promise would be broken, warn where they can and something is lacking.

--self-test starts canaries in slices of their own, as a bot would be: they fork, daemonize, eat memory, ignore
SIGTERM. It proves within a minute that limits and kill work on this very host, and leaves nothing.

exit status: 0 when no check fails, else 1; 2 when the call makes no sense.

examples:
  swarmcg doctor
  swarmcg doctor --self-test
  swarmcg doctor --json | jq '.[] | select(.state != "ok")'"""

_ORDER: Final[tuple[State, ...]] = ("fail", "warn", "ok")
_COLOURS: Final[dict[State, str]] = {"fail": "\x1b[1;31m", "warn": "\x1b[33m", "ok": "\x1b[32m"}
_PLAIN: Final = "\x1b[0m"


def main(words: Sequence[str]) -> int:
    """See :class:`swarmcg.cli.main.Verb`."""
    asked = _parser().parse_args(words)
    checks = judge(look(asked.home))
    if asked.self_test:
        checks += _self_test(asked.home)
    if asked.json:
        print(msgspec.json.format(msgspec.json.encode(checks), indent=2).decode())
    elif sys.stdout is not None:
        _print(checks, sys.stdout)
    return int(any(check.state == "fail" for check in checks))


def _parser() -> Parser:
    parser = Parser(
        "swarmcg doctor", "Says what this host can do, what is missing, and what mends it.", _EPILOG
    )
    parser.add_argument("--json", action="store_true", help="a list of objects instead of text")
    parser.add_argument(
        "--self-test", action="store_true", help="start canaries, and prove that limits and kill work"
    )
    options.add_home(parser)
    return parser


def _self_test(home: str | None) -> list[Check]:
    if sys.platform != "linux":
        why = f"not proven: canaries are started in cgroups, and {sys.platform} has none"
        return [warn("selftest.start", why, "Run it on a Linux host with cgroup v2.")]
    from swarmcg.doctor.selftest import self_test  # noqa: PLC0415  Linux only

    return self_test(home)


def _print(checks: Sequence[Check], out: TextIO) -> None:
    """The worst first. At a terminal for people, else a line a check, its fields apart by tabs."""
    ranked = sorted(checks, key=lambda check: _ORDER.index(check.state))
    if not out.isatty():
        head = ("STATE", "CHECK", "WHY", "REMEDY")
        table(head, ((c.state, c.check, c.why, c.remedy or "") for c in ranked), out)
        return
    width = max(len(check.check) for check in ranked)
    remedies = [check.remedy for check in ranked]
    for check, following in zip(ranked, [*remedies[1:], None], strict=True):
        print(f"{_coloured(check.state)}  {check.check.ljust(width)}  {printable(check.why)}", file=out)
        if (
            check.remedy is not None and check.remedy != following
        ):  # one for several stands below the last of them
            print(f"      {' ' * width}  -> {printable(check.remedy)}", file=out)
    print(_sum(checks), file=out)


def _coloured(state: State) -> str:
    text = state.ljust(4)
    return text if os.environ.get("NO_COLOR") else f"{_COLOURS[state]}{text}{_PLAIN}"


def _sum(checks: Sequence[Check]) -> str:
    counts = {state: sum(check.state == state for check in checks) for state in _ORDER}
    return f"{len(checks)} checks: {counts['fail']} fail, {counts['warn']} warn, {counts['ok']} ok"
