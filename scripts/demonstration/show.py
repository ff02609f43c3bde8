"""Three bots: one behaves, one eats memory, one daemonizes and forks without end. What becomes of each is shown."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from swarmcg import Config, ExitReport, LinuxResources, Starter, WaitTimeout
from swarmcg.bot import StartedBot
from swarmcg.cgroup.find import find_home
from swarmcg.cli.tables import columns
from swarmcg.resources import plan
from swarmcg.testing import SwarmingServer, Task

MARK: Final = "SWARMCG_DEMO"
LOOK_EVERY_S: Final = 0.5
WITHOUT_LIMITS_S: Final = 4.0  # how long is looked where nothing holds the eater
LONGEST_S: Final = 90.0
GRACE_S: Final = 3.0
DRAIN_S: Final = 60.0

EATER: Final = """
import time
eaten = []
for _ in range(32):  # 256 MiB and no more, should nothing hold it
    eaten.append(bytearray(b"x") * (8 << 20))
    time.sleep(0.1)
time.sleep(60)
"""

BOMBER: Final = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:  # daemonize: a session of its own, and a parent that is gone
    os.setsid()
    if os.fork() == 0:
        for _ in range(200):  # and no more, should nothing hold it
            try:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
            except BlockingIOError:  # the limit of tasks
                time.sleep(0.05)
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


class Part(NamedTuple):
    """One bot of the show: its task, and its limits."""

    bot_id: str
    does: str
    task: Sequence[str]
    limits: str


PARTS: Final = (
    Part(
        "polite",
        "does its task, and is drained while it does",
        ["/bin/sh", "-c", "echo hello from the task; sleep 2"],
        '{"memory": {"limit": 268435456}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 100}}',
    ),
    Part(
        "eater",
        "eats memory past its limit of 64 MiB",
        [sys.executable, "-I", "-c", EATER],
        '{"memory": {"limit": 67108864, "swap": 67108864}, "pids": {"limit": 100},'
        ' "unified": {"memory.oom.group": "1"}}',
    ),
    Part(
        "bomber",
        "ignores SIGTERM, daemonizes, and forks without end",
        [sys.executable, "-I", "-c", BOMBER],
        '{"memory": {"limit": 536870912}, "pids": {"limit": 40}}',
    ),
)


def show(*, limits: bool) -> bool:
    """Runs the show; whether everything ended as it must."""
    with tempfile.TemporaryDirectory(prefix="swarmcg-demo-") as work, _places(work):
        os.environ[MARK] = work
        _plans()
        with SwarmingServer() as server, Starter(server.url, enter_home=True) as starter:
            reports = _run(server, starter, work, limits=limits)
        _print_reports(reports)
        return _prove(reports, work, limits=limits)


@contextlib.contextmanager
def _places(work: str) -> Iterator[None]:
    """State and downloads of the show stay apart from the host's own."""
    ours = {f"SWARMCG_{kind}_DIR": f"{work}/{kind.lower()}" for kind in ("STATE", "CACHE", "RUNTIME")}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _plans() -> None:
    _title("The plan: what the limits of each bot become on this host")
    abilities = find_home(starts=False).abilities()
    rows = [("BOT", "FIELD", "FILE", "VALUE", "ENFORCEABLE")]
    for part in PARTS:
        for row in plan(LinuxResources.from_json(part.limits), abilities).rows:
            verdict = "yes" if row.enforceable else "no"
            rows.append((part.bot_id, row.field, row.file or "-", row.value or "-", verdict))
    _print(rows)


def _run(server: SwarmingServer, starter: Starter, work: str, *, limits: bool) -> list[ExitReport]:
    _title("The bots: downloaded from the embedded server, each started in its slice")
    tasks = {part.bot_id: server.give_task(part.task, bot_id=part.bot_id) for part in PARTS}
    bots = {part.bot_id: _start(starter, part, work, limits=limits) for part in PARTS}
    for part in PARTS:
        bot = bots[part.bot_id]
        print(f"{part.bot_id}: {part.does}\n    pid {bot.pid}, slice {bot.slice}", flush=True)
    for task in tasks.values():
        task.wait_until_running()
    bots["polite"].drain(DRAIN_S)
    _title("Live: polite was told to drain, and finishes its task")
    _watch(bots, limits=limits)
    print("\nterminating what is left: SIGTERM to every process, 3 s later the kill", flush=True)
    for bot in bots.values():
        bot.terminate(GRACE_S)
    reports = [bot.wait() for bot in bots.values()]
    _tell(tasks)
    return reports


def _start(starter: Starter, part: Part, work: str, *, limits: bool) -> StartedBot:
    directory = f"{work}/{part.bot_id}"
    os.mkdir(directory)
    return starter.start(
        Config(
            part.bot_id,
            directory,
            LinuxResources.from_json(part.limits),
            sys.executable,
            env={MARK: work},
            on_unenforceable="refuse" if limits else "report",
        )
    )


def _watch(bots: Mapping[str, StartedBot], *, limits: bool) -> None:
    """Prints what each bot uses: until polite has finished and eater has met its limit, or it takes too long."""
    widths = (10, 12, 8, 12)
    print(_line(("BOT", "MEMORY", "TASKS", "CPU TIME"), widths))
    expected = [bots["polite"], bots["eater"]] if limits else [bots["bomber"]]
    end = time.monotonic() + (LONGEST_S if limits else WITHOUT_LIMITS_S)
    while expected and time.monotonic() < end:
        for bot_id, bot in bots.items():
            print(_line((bot_id, *_usage(bot.slice or "")), widths), flush=True)
        with contextlib.suppress(WaitTimeout):
            expected[0].wait(LOOK_EVERY_S)
            expected.pop(0)


def _usage(directory: str) -> tuple[str, str, str]:
    """Memory, tasks and processor time of a slice, as the kernel counts them now."""
    memory, tasks = _read(f"{directory}/memory.current"), _read(f"{directory}/pids.current")
    usage = next((line for line in _read(f"{directory}/cpu.stat").splitlines()), "")
    seconds = f"{int(usage.split()[1]) / 1e6:.2f} s" if usage else "-"
    size = f"{int(memory) / 2**20:.1f} MiB" if memory else "-"
    gone = not os.path.exists(directory)
    return ("gone", "", "") if gone else (size, tasks or "-", seconds)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _tell(tasks: Mapping[str, Task]) -> None:
    print()
    for bot_id, task in tasks.items():
        said = task.output.decode(errors="replace").strip()
        state = task.state if task.ended else "its bot ended before it"
        print(f"server: task of {bot_id}: {state}" + (f", said {said!r}" if said else ""))


def _print_reports(reports: Sequence[ExitReport]) -> None:
    _title("The exit reports: why each bot ended, on what evidence, and what it used")
    rows = [("BOT", "REASON", "EVIDENCE", "STATUS", "MEMORY PEAK", "TASKS PEAK", "KILLED AT THE END")]
    for report in reports:
        status = f"signal {report.signal}" if report.exit_code is None else f"exit {report.exit_code}"
        peak = report.memory_peak_bytes
        rows.append(
            (
                report.bot_id,
                report.reason,
                report.reason_evidence,
                status,
                "-" if peak is None else f"{peak / 2**20:.1f} MiB",
                "-" if report.pids_peak is None else str(report.pids_peak),
                f"{report.leftovers.count} {' '.join(report.leftovers.names)}".strip(),
            )
        )
    _print(rows)


def _prove(reports: Sequence[ExitReport], work: str, *, limits: bool) -> bool:
    _title("The proof: nothing is left")
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_ours(pid, work)]
    slices = find_home(starts=False).slices()
    print(f"processes with this show's mark in their environment: {len(left)}")
    print(f"slices in the home: {len(slices)}")
    expected = {
        "polite": {"exited"},
        "eater": {"oom-own-limit"},
        "bomber": {"terminated", "killed-after-grace"},
    }
    if not limits:
        expected["eater"] = {"terminated", "killed-after-grace"}
    wrong = [report for report in reports if report.reason not in expected[report.bot_id]]
    for report in wrong:
        print(f"{report.bot_id} ended with {report.reason}, which is not what this shows", file=sys.stderr)
    return not (left or slices or wrong)


def _is_ours(pid: str, work: str) -> bool:
    try:
        return (
            pid != str(os.getpid()) and f"{MARK}={work}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        )
    except OSError:
        return False  # it ended meanwhile, or is another user's


def _title(text: str) -> None:
    print(f"\n# {text}", flush=True)


def _print(rows: Sequence[Sequence[str]]) -> None:
    print("\n".join(columns(rows)), flush=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
