"""The data files that measured processes leave. Tests kill some of these in the middle of writing theirs."""

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import coverage

_JOURNAL: Final = "-journal"


def name_all(tree: Path, into: Path) -> None:
    """Writes a data file in which each module below the tree was measured and no line of it ran, so that one that
    nobody imports counts, too.
    """
    data = coverage.CoverageData(basename=str(into))
    data.erase()
    data.add_arcs({str(file): [] for file in tree.rglob("*.py")})
    data.write()
    data.close()


def whole(places: Iterable[Path]) -> tuple[list[Path], int]:
    """The data files below these places that were written to their end, and how many others there are."""
    found = [file for place in places for file in place.rglob("data*") if not file.name.endswith(_JOURNAL)]
    good = [file for file in found if _is_whole(file)]
    return good, len(found) - len(good)


def _is_whole(file: Path) -> bool:
    # coverage.py keeps its data in SQLite. A journal beside it tells of a transaction that was not finished.
    if file.with_name(file.name + _JOURNAL).exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as data:
            data.execute("SELECT version FROM coverage_schema")
            checked: tuple[str] = data.execute("PRAGMA quick_check").fetchone()
            return checked == ("ok",)
    except sqlite3.DatabaseError:
        return False
