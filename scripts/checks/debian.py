"""What is taken from Debian's archive, through the machine's own sources."""

import functools
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

LOADER: Final = b"/lib64/ld-linux-x86-64.so.2\0"
SHORT_LOADER: Final = "ld.so"


class UnavailableError(Exception):
    """What was asked for is not to be had here; the text says why."""


def provide(tool: str, *packages: str) -> bool:
    """Whether `tool` is there, after its packages were installed if it was not and that was possible."""
    if shutil.which(tool) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {', '.join(packages)}", flush=True)
        _update()
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(install, check=False, env=environment, stdout=subprocess.DEVNULL)
    return shutil.which(tool) is not None


def codename() -> str:
    """The suite that this machine runs, such as "bookworm"; an empty string when it is none."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def foreign_kernel(suite: str) -> list[str]:
    """The command that starts another suite's user-mode-linux, fetched once and never installed.

    Its C library may be newer than this machine's, so it comes along. The kernel cannot be started through the
    loader, since it takes the end of its own image for the end of memory in use; so the copy names the loader
    by a path relative to its directory.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swarmcg" / "uml"
    for ready in cache.glob("*/suite"):
        if ready.read_text() == suite:
            return _start(ready.parent)
    return _start(_fetch(suite, cache))


def _start(directory: Path) -> list[str]:
    return ["env", f"--chdir={directory}", f"LD_LIBRARY_PATH={_library(directory)}", "./linux.uml"]


def _library(directory: Path) -> Path:
    """Where the suite's C library was unpacked: below /usr since Debian 13."""
    places = [directory / top / "x86_64-linux-gnu" for top in ("usr/lib", "lib")]
    return next((place for place in places if (place / "libc.so.6").exists()), places[0])


def _fetch(suite: str, cache: Path) -> Path:
    work = cache / f"fetching-{suite}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        archives = download(["user-mode-linux", "libc6"], suite, work)
        for archive in archives:
            _call(["dpkg-deb", "-x", str(archive), str(work / "root")])
        version = next(archive.name for archive in archives if "user-mode" in archive.name).split("_")[1]
        _make_startable(work / "root")
        (work / "root" / "suite").write_text(suite)
        return (work / "root").rename(cache / version)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make_startable(directory: Path) -> None:
    image = (directory / "usr/bin/linux.uml").read_bytes()
    if image.count(LOADER) != 1:
        raise UnavailableError("linux.uml of that suite names no loader that we know")
    kernel = directory / "linux.uml"
    kernel.write_bytes(image.replace(LOADER, SHORT_LOADER.encode().ljust(len(LOADER), b"\0")))
    kernel.chmod(0o755)
    (directory / SHORT_LOADER).symlink_to(
        (_library(directory) / "ld-linux-x86-64.so.2").relative_to(directory)
    )


def download(packages: list[str], suite: str, work: Path) -> list[Path]:
    """The packages' archives from the suite, in the directory, which is made. Raises UnavailableError."""
    for name in ("lists", "archives"):
        (work / name / "partial").mkdir(parents=True, exist_ok=True)
    (work / "suite.sources").write_text(sources_of(suite))
    places = {
        "Dir::Etc::SourceList": work / "suite.sources",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work,
        "Dir::State::Status": "/dev/null",  # what is installed here is no candidate, however new
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in places.items())]
    _call([*apt, "update"])
    _call([*apt, "download", *packages], work)
    return sorted(work.glob("*.deb"))


def _call(command: list[str], directory: Path | None = None) -> None:
    ran = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if ran.returncode:
        raise UnavailableError(
            f"{command[0]} {command[-1]} ended with {ran.returncode}: {ran.stderr.strip()}"
        )


def sources_of(suite: str) -> str:
    """The machine's own sources for its release, with the other suite's name in them. Raises UnavailableError."""
    etc = Path("/etc/apt")
    stanzas = [
        stanza
        for file in sorted(etc.glob("sources.list.d/*.sources"))
        for stanza in re.split(r"\n\s*\n", file.read_text())
    ]
    for file in (etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))):
        if file.exists():
            stanzas += [_stanza(line) for line in file.read_text().splitlines() if line.startswith("deb ")]
    found = renamed(stanzas, codename(), suite)
    if not found:
        raise UnavailableError(
            f"this machine's apt sources name no {codename() or 'Debian'} that {suite} could stand for"
        )
    return "\n\n".join(found)


def renamed(stanzas: list[str], release: str, suite: str) -> list[str]:
    """Those of the stanzas that are of the release, with the suite in the place of all their suites."""
    of_release = re.compile(rf"^Suites:(.*[ \t])?{re.escape(release)}([ \t].*)?$", re.MULTILINE)
    return [of_release.sub(f"Suites: {suite}", stanza) for stanza in stanzas if of_release.search(stanza)]


def _stanza(line: str) -> str:
    """A one-line entry as a stanza: `deb [ signed-by=KEY ] URI SUITE COMPONENT…`."""
    match = re.fullmatch(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.*?)\s*", line)
    if match is None:
        return ""
    options, uri, suite, components = match.groups()
    signed = re.search(r"signed-by=(\S+)", options or "")
    signature = f"\nSigned-By: {signed[1]}" if signed else ""
    return f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {components}{signature}"


@functools.cache
def _update() -> None:
    subprocess.run(["apt-get", "update", "-qq"], check=False)
