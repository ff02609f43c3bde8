"""Starts one command inside its cgroup: fork, join, exec. Only for processes with a single thread.

The child joins its cgroup by writing ``0`` to ``cgroup.procs`` before it does anything else, so every process
that it ever makes is born inside. Python code runs in the forked child, which is sound only because no other
thread can have held a lock at the time of the fork. A step that fails comes back by name and errno over a
pipe that exec closes.

``clone3(CLONE_INTO_CGROUP)`` would be faster, but kills the child before its first instruction when caller
and target have seen different numbers of ``cgroup.kill`` writes (Linux 6.1 and 6.18); joining by
``cgroup.procs`` cannot meet that.
"""

import os
import resource
import signal
import sys

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Birth", "Order", "birth", "executed", "ignored_signals", "start_time"]

_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)  # what Python ignores at its start (Python/pylifecycle.c)
_PROCESSORS = range(os.sysconf("SC_NPROCESSORS_CONF"))  # what the host can ever have; it is fixed at boot

PF_FORKNOEXEC = 0x40
"""Forked but never executed a program (include/linux/sched.h); cleared by exec before it closes descriptors.
"""


class Order:
    """What to start, and how its process differs from the keeper.

    ``stdio`` are descriptors for 0, 1 and 2, or None to inherit them. ``service`` starts a session of its own
    with every signal at its default and the CPU affinity that the cpuset allows; without it
    the process stays in the caller's session and only what Python changed (SIGPIPE, SIGXFSZ, the signal mask)
    is put back, as exec would have it. ``open_files`` is the soft RLIMIT_NOFILE that the caller raised for itself
    and the child must not have.
    """

    def __init__(
        self,
        argv: "Sequence[str]",
        env: "Mapping[str, str]",
        *,
        procs: int,
        cwd: str | None = None,
        stdio: "tuple[int, int, int] | None" = None,
        service: bool = True,
        mask: "Sequence[int]" = (),
        oom_score_adj: int | None = None,
        open_files: int | None = None,
    ) -> None:
        self.argv = list(argv)
        self.env = dict(env)
        self.procs = procs
        self.cwd = cwd
        self.stdio = stdio
        self.service = service
        self.mask = mask
        self.oom_score_adj = oom_score_adj
        self.open_files = open_files


class Birth:
    """A child between fork and exec: held at the gate until :meth:`release`, its troubles readable from
    ``errors``.
    """

    def __init__(self, pid: int, errors: int, gate: int) -> None:
        self.pid = pid
        self.errors = errors
        self._gate = gate

    def release(self) -> None:
        """Lets the child go on to exec; without it the child ends when the gate is closed."""
        try:
            os.write(self._gate, b"1")
        except BrokenPipeError:
            pass  # the child failed an earlier step or was killed: errors tells
        finally:
            os.close(self._gate)

    def trouble(self) -> "tuple[str, int] | None":
        """The step that failed and its errno, or None when the program was executed. Blocks until either is
        known.
        """
        said = os.read(self.errors, 512)
        os.close(self.errors)
        if said:
            step, _, number = said.decode().partition(" ")
            return step, int(number)
        return None if executed(self.pid) else ("killed before exec", 0)


def birth(order: Order, ignored: "Sequence[int]") -> Birth:
    """Forks a child that joins its cgroup and waits at the gate. Raises OSError of fork(2) or pipe(2).

    ``ignored`` are the signals that this process ignores: a service gets them at their defaults.
    """
    reset = ignored if order.service else _PYTHONS
    fds = [*os.pipe()]
    try:
        fds += os.pipe()
        pid = os.fork()
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    errors, tell, gate, release = fds
    if pid == 0:
        os.close(release)
        _become(order, gate, tell, reset)
    os.close(tell)
    os.close(gate)
    return Birth(pid, errors, release)


def _become(order: Order, gate: int, tell: int, reset: "Sequence[int]") -> None:
    """In the child: every step up to exec, in order. Never returns."""
    step = "join"
    try:
        for name, act in _STEPS:
            step = name
            act(order)
        step = "signals"
        _signals(reset, order.mask)
        step = "gate"
        if os.read(gate, 1) == b"1":
            step = "exec"
            _execute(order)
    except OSError as e:
        os.write(tell, f"{step} {e.errno or 0}".encode())
    except BaseException as e:  # noqa: BLE001  whatever it is, the parent's code must not run in the child
        os.write(tell, f"{step}:{type(e).__name__} 0".encode())
    finally:
        os._exit(127)


def _execute(order: Order) -> None:
    # With a slash execvpe would do the same, by a longer way: every page that a forked child touches is copied first.
    if "/" in order.argv[0]:
        os.execve(order.argv[0], order.argv, order.env)
    os.execvpe(order.argv[0], order.argv, order.env)


def _join(order: Order) -> None:
    os.write(order.procs, b"0")


def _session(order: Order) -> None:
    if order.service:
        os.setsid()


def _affinity(order: Order) -> None:
    # An affinity that the parent inherited outlives the cpuset: ask for all, the kernel cuts it to what is
    # allowed.
    if order.service:
        os.sched_setaffinity(0, _PROCESSORS)


def _oom_score(order: Order) -> None:
    if order.oom_score_adj is None:
        return
    fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)  # its end closes it
    # A bot must not be spared as its keeper is. A user's manager gives 100 or 200, below which its user may not go.
    if int(os.read(fd, 16)) < order.oom_score_adj:
        os.write(fd, b"%d" % order.oom_score_adj)


def _open_files(order: Order) -> None:
    if order.open_files is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (order.open_files, hard))


def _stdio(order: Order) -> None:
    for target, fd in enumerate(order.stdio or ()):
        os.dup2(fd, target, inheritable=True)


def _directory(order: Order) -> None:
    if order.cwd is not None:
        os.chdir(order.cwd)


def _signals(reset: "Sequence[int]", mask: "Sequence[int]") -> None:
    signal.set_wakeup_fd(-1)
    for number in reset:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ignored_signals() -> "list[int]":
    """The signals that this process ignores: exec puts handlers back to the default, and leaves these."""
    with open("/proc/self/status", "rb") as f:
        mask = next(int(line.split()[1], 16) for line in f if line.startswith(b"SigIgn:"))
    return [number for number in signal.valid_signals() if mask >> (number - 1) & 1]


_STEPS = (
    ("join", _join),
    ("setsid", _session),
    ("sched_setaffinity", _affinity),
    ("oom_score_adj", _oom_score),
    ("setrlimit", _open_files),
    ("chdir", _directory),
    ("stdio", _stdio),
)


def _stat(pid: int) -> "list[bytes]":
    """The fields of /proc/PID/stat from the state (field 3 of proc(5), element 0) to the start time (element 19)."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).rpartition(b") ")[2].split(b" ", 20)
    finally:
        os.close(fd)


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; with the pid it names a process for good."""
    return int(_stat(pid)[19])


def executed(pid: int) -> bool:
    """Whether the process has executed a program since it was forked; True also for one that is gone
    altogether.
    """
    try:
        return not int(_stat(pid)[6]) & PF_FORKNOEXEC
    except (FileNotFoundError, ProcessLookupError):
        return True
