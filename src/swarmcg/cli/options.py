"""The flags that several verbs share, beside the limits."""

import tomllib
from argparse import Namespace

from swarmcg.bot import GRACE_INTERVAL, default_policy
from swarmcg.cli import sizes
from swarmcg.cli.parser import Parser, UsageError
from swarmcg.errors import ResourcesError
from swarmcg.resources import LinuxResources
from swarmcg.resources.toml import from_toml

__all__ = ["add_environment", "add_home", "add_policy", "add_unenforceable", "base_resources", "of_file"]


def add_policy(parser: Parser) -> None:
    """How the slice's life ends, and what happens when a limit cannot be had."""
    parser.add_argument(
        "--grace",
        metavar="TIME",
        default=f"{GRACE_INTERVAL:g}",
        help="between SIGTERM and the kill: seconds, or 90s, 3m (default: %(default)s)",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write the exit report there, as one JSON object: a file, /dev/stderr, /dev/fd/N",
    )
    add_unenforceable(
        parser,
        "what to do when a limit cannot be enforced: fail, or start and report it (default: %(default)s)",
    )


def add_unenforceable(parser: Parser, text: str) -> None:
    """What happens when a limit cannot be had."""
    parser.add_argument(
        "--on-unenforceable", choices=("refuse", "report"), default=default_policy(), help=text
    )


def add_environment(parser: Parser) -> None:
    """What is added to the environment (see :func:`swarmcg.cli.environment.added`)."""
    parser.add_argument(
        "-e", "--env", metavar="NAME[=VALUE]", action="append", default=[], help="set a variable"
    )
    parser.add_argument(
        "--env-file", metavar="FILE", action="append", default=[], help="variables, one a line"
    )


def add_home(parser: Parser) -> None:
    """Where slices are."""
    parser.add_argument(
        "--home", metavar="DIR", help="the cgroup below which slices are made, else one is found"
    )


def base_resources(asked: Namespace) -> LinuxResources:
    """What ``--resources`` holds. Raises UsageError when it cannot be read, or is wrong."""
    if asked.resources is None:
        return LinuxResources()
    text = _read(asked.resources)
    is_toml = asked.resources.endswith(".toml")
    try:
        return from_toml(text, sizes.host_memory) if is_toml else LinuxResources.from_json(text)
    except ResourcesError as e:
        if not is_toml and _is_toml(text):
            raise UsageError(
                "--resources is TOML, but not by its name",
                path=asked.resources,
                cause="what does not end in .toml is read as JSON, and so is standard input",
                remedy="Give it in a file whose name ends in .toml.",
            ) from None
        raise of_file(e, asked.resources) from None


def of_file(error: ResourcesError, file: str) -> UsageError:
    """The error, told of the file of ``--resources`` that it is about."""
    return UsageError(
        f"--resources {file}: {error.what}",
        path=error.path,
        value=error.value,
        cause=error.cause,
        remedy=error.remedy,
    )


def _is_toml(text: bytes) -> bool:
    """Whether it is a TOML file that says something; no JSON object is one."""
    try:
        return bool(tomllib.loads(text.decode()))
    except (ValueError, RecursionError):
        return False


_MOST_BYTES = 16 << 20


def _read(path: str) -> bytes:
    try:
        if path == "-":
            with open(0, "rb", closefd=False) as f:
                text = f.read(_MOST_BYTES + 1)
        else:
            with open(path, "rb") as f:
                text = f.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as e:
        raise UsageError(
            "--resources cannot be read",
            path=path,
            errno=e.errno if isinstance(e, OSError) else None,
            cause=None if isinstance(e, OSError) else str(e),
            remedy="Name a file that can be read, or - for standard input.",
        ) from e
    if len(text) > _MOST_BYTES:
        raise UsageError(
            "--resources is too large",
            path=path,
            cause=f"more than {_MOST_BYTES} bytes",
            remedy="Name an OCI file.",
        )
    return text
