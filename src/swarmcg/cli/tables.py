"""Rows as text: aligned columns for people at a terminal, tab-separated lines for everything else."""

from collections.abc import Iterable, Sequence
from typing import Final, TextIO

__all__ = ["columns", "printable", "table"]

_GAP: Final = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[str]], out: TextIO | None) -> None:
    """Prints the rows under their head, in the way that suits where they go."""
    if out is None:
        return  # there is no output, as after >&-
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    print("\n".join(columns(lines) if out.isatty() else map("\t".join, lines)), file=out)


def columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which every column but the last is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return [line.rstrip() for line in padded]


def printable(text: str) -> str:
    """Text from outside without anything that a terminal would obey or a line could break at."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )
