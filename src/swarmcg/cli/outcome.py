"""What a report means to whoever called: an exit status, and a few lines for people."""

from collections.abc import Iterator
from typing import Final

from swarmcg.bot import ExitReport
from swarmcg.errors import SwarmcgError, from_dict

__all__ = ["OUR_FAILURE", "lines", "status", "trouble_after", "want_of_memory"]

OUR_FAILURE: Final = 125
"""As docker has it, and env(1)."""
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def status(report: ExitReport) -> int:
    """The exit status as a shell gives it: the command's own, or 128 and the signal; ours when nobody saw it."""
    if report.exit_code is not None:
        return report.exit_code
    return OUR_FAILURE if report.signal is None else 128 + report.signal


def trouble_after(report: ExitReport, trouble: SwarmcgError) -> SwarmcgError:
    """What went wrong after the command's end, and how that was: our exit status will be that of our failure."""
    if report.exit_code is not None:
        how = f" with exit code {report.exit_code}"
    else:
        how = "" if report.signal is None else f" by signal {report.signal}"
    what = f"The command ended{how}, but {trouble.what[:1].lower()}{trouble.what[1:]}"
    return from_dict({**trouble.to_dict(), "what": what})


def want_of_memory(report: ExitReport) -> str | None:
    """What to say of a command that was killed for want of memory: its status 137 alone does not tell; else None."""
    if not report.reason.startswith("oom-"):
        return None
    said = f"killed for want of memory ({report.reason})"
    limit = report.limits.get("memory.max")
    return f"memory limit {limit}: {said}" if report.reason == "oom-own-limit" and limit else said


def lines(report: ExitReport) -> Iterator[tuple[str, str]]:
    """Names and values, of what is known only."""
    yield "id", report.bot_id
    yield "incarnation", report.incarnation
    evidence = "" if report.reason_evidence == "none" else f" (evidence: {report.reason_evidence})"
    yield "reason", report.reason + evidence
    for name, value in _known(report):
        if value is not None:
            yield name, value
    if report.leftovers.count:
        yield "killed at the end", f"{report.leftovers.count} ({', '.join(report.leftovers.names)})"
    if report.limits:
        yield "limits", ", ".join(f"{file} {value}" for file, value in sorted(report.limits.items()))
    if report.unenforced:
        yield "not in force", ", ".join(row.field for row in report.unenforced)


def _known(report: ExitReport) -> Iterator[tuple[str, str | None]]:
    yield "exit code", _text(report.exit_code)
    yield "signal", _text(report.signal)
    yield "started", report.started_at
    yield "duration", _seconds(report.duration_s)
    yield "processor time", _seconds(_sum(report.cpu.user_s, report.cpu.system_s))
    yield "memory peak", _size(report.memory_peak_bytes)
    yield "swap peak", _size(report.swap_peak_bytes)
    yield "tasks peak", _text(report.pids_peak)
    yield "read", _size(report.io.read_bytes)
    yield "written", _size(report.io.write_bytes)
    yield "killed for memory", _text(report.oom_kills or None)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f} s"


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _size(count: int | None) -> str | None:
    if count is None:
        return None
    power = min((max(count, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{count / 1024**power:.4g} {_UNITS[power]}"
