"""Builds and runs the machine: scripts/vm --help."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Final

from checks import debian
from checks.vm import box, cache, image, kernel, run
from checks.vm.tier import tier_command

VERBS: Final = {
    "build": "build the image, if it is not in the cache",
    "test": "run tests/systemd in a fresh machine; what else is given goes to pytest",
    "run": "run a command as root in a fresh machine with this checkout in it",
    "shell": "a root shell in a fresh machine",
    "box": "make the Vagrant box that the Vagrantfile looks for",
    "clean": "remove all images and what they were made from",
}


def main() -> int:
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that what was begun is put away
    parser = _parser()
    asked, rest = parser.parse_known_args()
    if rest and asked.verb != "test":
        parser.error(f"unknown: {' '.join(rest)}")
    try:
        return _done(asked, [word for word in rest if word != "--"])
    except debian.UnavailableError as error:
        print(f"scripts/vm: {error}", file=sys.stderr)
        return run.NO_EXIT_STATUS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/vm", description="A throw-away Debian machine in QEMU.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)
        if name != "clean":
            verb.add_argument("--suite", choices=image.SUITES, default="bookworm", help="whose Debian it is")
        if name in {"build", "test", "run", "shell"}:
            verb.add_argument(
                "--kernel",
                choices=kernel.KERNELS,
                default="cloud",
                help="full: Debian's full one, which has soft RDMA devices; test then runs what needs it",
            )
        if name in {"test", "run", "shell"}:
            _add_run_options(verb)
        if name == "test":
            verb.add_argument("--full", action="store_true", help="all tests, not only the smoke selection")
            verb.add_argument(
                "--coverage",
                action="store_true",
                help="measure it, which makes an emulated command take twice as long",
            )
        if name == "run":
            verb.add_argument("command", nargs="+", metavar="-- COMMAND")
    return parser


def _add_run_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--time-limit", type=float, default=run.TIME_LIMIT, metavar="SECONDS")
    verb.add_argument("--results", type=Path, metavar="DIR", help="where results go (.cache/vm/SUITE)")
    verb.add_argument(
        "--append", action="append", default=[], metavar="WORD", help="a word for the kernel's command line"
    )
    verb.add_argument(
        *("--with", "--extra"),
        action="append",
        default=[],
        dest="extra",
        type=Path,
        metavar="PATH",
        help="is put into /opt/swarmcg/extra",
    )


def _done(asked: argparse.Namespace, rest: list[str]) -> int:
    if asked.verb == "clean":
        cache.clear()
        return os.EX_OK
    built = image.build(asked.suite)
    if asked.verb == "box":
        box.pack(built)
        return os.EX_OK
    started = kernel.find(asked.kernel, asked.suite, built)
    if asked.verb == "build":
        return os.EX_OK
    return run.run(
        built,
        _command(asked, rest),
        (asked.results or run.RESULTS / asked.suite).absolute(),
        kernel=started,
        extra=asked.extra,
        options=tuple(asked.append),
        time_limit=asked.time_limit,
        terminal=asked.verb == "shell",
    )


def _command(asked: argparse.Namespace, rest: list[str]) -> list[str]:
    if asked.verb == "test":
        return tier_command(rest, full=asked.full, kernel=asked.kernel, measured=asked.coverage)
    return list(run.SHELL) if asked.verb == "shell" else list(asked.command)


if __name__ == "__main__":
    sys.exit(main())
