"""Packs the small bot for a server."""

import hashlib
import io
import json
import os
import zipfile
from typing import Final

__all__ = ["small_bot_version", "small_bot_zip"]

_MAIN: Final = "import sys\n\nfrom small_bot import main\n\nsys.exit(main(sys.argv))\n"


def small_bot_zip(url: str) -> bytes:
    """A zip with the small bot for the server at the URL, to be run as ``PYTHON ZIP start_bot`` by Python >=
    3.8.

    The same URL gives the same bytes.
    """
    config = {"server": url, "version": small_bot_version(url)}
    members = {"__main__.py": _MAIN, "small_bot.py": _source(), "config.json": json.dumps(config)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def small_bot_version(url: str) -> str:
    """The version that this bot reports: a SHA-256 over what is packed, and as with the stock bot not that of
    the zip.
    """
    return hashlib.sha256(f"{url}\0{_MAIN}\0{_source()}".encode()).hexdigest()


def _source() -> str:
    with open(os.path.join(os.path.dirname(__file__), "small_bot.py"), encoding="utf-8") as file:
        return file.read()
