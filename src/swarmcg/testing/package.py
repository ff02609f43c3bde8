"""Packs the bots of this package for a server.

``python -m swarmcg.testing.package URL FILE`` writes the stock-shaped bot for the server at the URL into a file,
and prints ``VERSION=FILE``, as the server's ``--zip`` and ``update`` take it.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["STOCK_PACE", "Pace", "Package", "main", "small_bot_version", "small_bot_zip", "stock_shaped_bot"]

_MAIN: Final = "import sys\n\nfrom small_bot import main\n\nsys.exit(main(sys.argv))\n"
_STOCK_MAIN: Final = (
    "import sys\n\nfrom swarmcg.testing.stock_shaped.entry import main\n\nsys.exit(main(sys.argv))\n"
)
_STOCK_MODULES: Final = ("__init__", "client", "entry", "isolated", "leader", "processes", "runner")


class Package(NamedTuple):
    """A bot package, in the order in which :meth:`SwarmingServer.publish` takes it."""

    zip: bytes
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """How long a stock-shaped bot takes for what the stock bot takes long for, in seconds."""

    output_s: float = 0.2
    """Between two updates of a task that writes."""
    quiet_s: float = 0.5
    """Between two updates of one that does not."""
    before_handler_s: float = 0.0
    """From the start until SIGTERM is handled."""
    restart_s: float = 0.1
    """Before it goes on as another version."""
    second_bot_s: float = 300.0
    """How long a second bot in a work directory waits before it would reboot the host."""


STOCK_PACE: Final = Pace(output_s=10.0, quiet_s=30.0, before_handler_s=3.0, restart_s=2.0)
"""As the stock bot; tests want it quicker."""


def stock_shaped_bot(url: str, *, note: str = "", pace: Pace = Pace()) -> Package:
    """A bot of the stock bot's shape (see :mod:`swarmcg.testing.stock_shaped`) for the server at the URL, to
    be run as ``PYTHON WORKDIR/swarming_bot.zip start_bot`` by Python >= 3.8.

    The same arguments give the same bytes; another note gives another version of the same bot.
    """
    members = {"__main__.py": _STOCK_MAIN, "swarmcg/__init__.py": "", "swarmcg/testing/__init__.py": ""}
    members["swarmcg/testing/small_bot.py"] = _source("small_bot.py")
    for name in _STOCK_MODULES:
        members[f"swarmcg/testing/stock_shaped/{name}.py"] = _source("stock_shaped", f"{name}.py")
    config = {"server": url, "note": note, **dataclasses.asdict(pace)}
    digest = hashlib.sha256(json.dumps([members, config]).encode()).hexdigest()
    members["config/config.json"] = json.dumps({**config, "version": digest})
    return Package(_packed(members), digest)


def small_bot_zip(url: str) -> bytes:
    """A zip with the small bot for the server at the URL, to be run as ``PYTHON ZIP start_bot`` by Python >=
    3.8.

    The same URL gives the same bytes.
    """
    config = {"server": url, "version": small_bot_version(url)}
    return _packed(
        {"__main__.py": _MAIN, "small_bot.py": _source("small_bot.py"), "config.json": json.dumps(config)}
    )


def small_bot_version(url: str) -> str:
    """The version that this bot reports: a SHA-256 over what is packed, and as with the stock bot not that of
    the zip.
    """
    return hashlib.sha256(f"{url}\0{_MAIN}\0{_source('small_bot.py')}".encode()).hexdigest()


def _packed(members: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _source(*names: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), *names), encoding="utf-8") as file:
        return file.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m swarmcg.testing.package``: see above."""
    parser = argparse.ArgumentParser(
        prog="python -m swarmcg.testing.package",
        description="Packs a bot of the stock bot's shape for a server, and prints VERSION=FILE.",
    )
    parser.add_argument("url", metavar="URL", help="the server's, as in http://127.0.0.1:8123")
    parser.add_argument("file", metavar="FILE", help="the zip to write")
    parser.add_argument("--note", default="", help="any text; another one makes another version")
    parser.add_argument("--stock-pace", action="store_true", help="as slow as the stock bot")
    asked = parser.parse_args(arguments)
    package = stock_shaped_bot(
        asked.url.rstrip("/"), note=asked.note, pace=STOCK_PACE if asked.stock_pace else Pace()
    )
    try:
        with open(asked.file, "wb") as file:
            file.write(package.zip)
    except OSError as e:
        parser.error(f"{asked.file}: {e.strerror}")
    print(f"{package.version}={asked.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
