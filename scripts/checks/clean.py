"""A fresh minimal Debian, without Python, pip or git, in which README's two commands have to work.

    scripts/clean-check SUITE [COMMAND …]

Into it go this machine's apt sources (for that suite), pip's configuration and variables, the bundle of certificates,
resolv.conf, and the checkout: nothing else. It is a directory below the cache that is removed afterwards.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from checks import debian

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".cache" / "clean"
SUITES: Final = ("bookworm", "trixie")
COMMANDS: Final = "./scripts/demo && ./scripts/test unit"
CHECKOUT: Final = "/root/swarmcg"
PIP: Final = ("/etc/pip.conf", "/etc/xdg/pip", "~/.pip", "~/.config/pip")
VARIABLES: Final = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy")
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
TIME_LIMIT_S: Final = 1800.0
KILL_S: Final = 10.0
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OWN: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
"""Namespaces that end with this process and with everything in them."""

# In namespaces of its own, which end with it and everything that it started: mounts are not this machine's.
ENTER: Final = """
set -e
mount --bind "$0" "$0" # a root is a mount, which unshare counts on
mount -t proc proc "$0/proc"
mount -t sysfs -o ro sysfs "$0/sys"
mount --rbind /dev "$0/dev"
mount --make-rslave "$0/dev"
mount -t tmpfs tmpfs "$0/dev/shm"
exec chroot "$0" "$@"
"""


def main() -> int:
    """Builds the root, runs the commands in it, and removes it."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _end)
    parser = argparse.ArgumentParser(
        prog="scripts/clean-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=f"instead of {COMMANDS!r}")
    asked = parser.parse_args()
    try:
        return check(asked.suite, shlex.join(asked.command) or COMMANDS)
    except debian.UnavailableError as error:
        print(f"scripts/clean-check: {error}", file=sys.stderr)
        return 2


def _end(number: int, _: object) -> NoReturn:
    """Ends this process, and has the root removed; another signal does not keep it from that."""
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    sys.exit(128 + number)


def check(suite: str, command: str) -> int:
    """The exit status of the command in a fresh root of that suite."""
    if os.geteuid():
        raise debian.UnavailableError("only root may make a root file system; run it with sudo")
    if not debian.provide("mmdebstrap", "mmdebstrap"):
        raise debian.UnavailableError("mmdebstrap is missing; install it")
    sources = debian.sources_of(suite)
    if not sources:
        raise debian.UnavailableError(
            f"this machine's apt sources name no release that {suite} could stand for"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=CACHE) as place:
        root = Path(place, "root")
        _build(suite, root, sources)
        _bring(root, sources)
        return _run(root, command)


def _build(suite: str, root: Path, sources: str) -> None:
    listed = root.with_name(f"{suite}.sources")
    listed.write_text(sources)
    print(f"making a minimal {suite}", flush=True)
    build = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", suite, str(root), str(listed)]
    if contained(build, TIME_LIMIT_S):
        raise debian.UnavailableError("mmdebstrap failed")
    for tool in ("python3", "pip", "git"):
        if shutil.which(tool, path=f"{root}/usr/bin:{root}/usr/local/bin"):
            raise debian.UnavailableError(f"the root is not minimal: it has {tool}")


def _bring(root: Path, sources: str) -> None:
    """What the root is given of this machine."""
    shutil.rmtree(root / "etc/apt/sources.list.d", ignore_errors=True)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    _write(root / "etc/apt/sources.list.d/debian.sources", sources.encode())
    for place in (*PIP, CERTIFICATES, os.environ.get("SSL_CERT_FILE", CERTIFICATES), "/etc/resolv.conf"):
        for file in _files(Path(place).expanduser()):
            _write(root / file.relative_to("/"), file.read_bytes())
    for name in _tracked():
        source, target = ROOT / name, root / CHECKOUT.lstrip("/") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def _files(place: Path) -> Iterator[Path]:
    yield from (
        (file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place] * place.is_file()
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a symbolic link would lead out of the root
    path.write_bytes(content)


def _tracked() -> list[str]:
    """The checkout's files, as they are now: what git knows, and what it would not ignore."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name and os.path.lexists(ROOT / name)]


def _run(root: Path, command: str) -> int:
    passed = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(VARIABLES)]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    inside = ["env", "-i", path, "HOME=/root", "LANG=C.UTF-8", *passed]
    inside += ["bash", "-c", f"cd {CHECKOUT} && {command}"]
    print(f"in it: {command}", flush=True)
    return contained(["sh", "-c", ENTER, str(root), *inside], TIME_LIMIT_S)


def contained(command: Sequence[str], within: float) -> int:
    """The exit status of the command in namespaces of its own, 124 when it took longer. However this ends, nothing
    that it started lives afterwards, nor writes into a root that is being removed.
    """
    entered = subprocess.Popen([*OWN, *command], stdin=subprocess.DEVNULL)
    try:
        return entered.wait(within)
    except subprocess.TimeoutExpired:
        print(f"scripts/clean-check: ended after {within:.0f} s", file=sys.stderr)
        return 124
    finally:
        _end_all(entered)


def _end_all(entered: "subprocess.Popen[bytes]") -> None:
    """Kills process 1 of the namespace, for which unshare(1) waits: it is gone only when all of the others are
    (zap_pid_ns_processes() in kernel/pid_namespace.c, Linux 6.1).
    """
    if entered.poll() is None:
        for pid in Path(f"/proc/{entered.pid}/task/{entered.pid}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            entered.wait(KILL_S)
        entered.kill()
        entered.wait()


if __name__ == "__main__":
    sys.exit(main())
