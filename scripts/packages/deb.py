"""A Debian package that carries a private virtual environment: it needs no network to be installed.

    scripts/deb [--suite SUITE] [--version VERSION] [--check]

prints the path of the package below dist/. The same checkout and wheels give the same bytes.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

from checks import debian, wheels
from checks.vm import image, run as vm

ROOT: Final = Path(__file__).resolve().parents[2]
DIST: Final = ROOT / "dist"
PARTS: Final = ROOT / "packaging"
HOME: Final = Path("usr/lib/swarmcg")
CHECK: Final = ROOT / "packaging" / "debian" / "check"
EXTRA: Final = f"{vm.PLACE}/extra"

SUMMARY: Final = "runs each bot of a lab host in a cgroup of its own"
MAINTAINER: Final = "swarmcg maintainers <maintainers@swarmcg.invalid>"  # no address takes mail for it
CONTROL: Final = """\
Package: swarmcg
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: python{python}, systemd
Section: admin
Priority: optional
Description: {summary}
 Starts Swarming bots, or any command, each in a cgroup of its own made from an
 OCI LinuxResources, lets it drain, terminates it, kills the whole cgroup at the
 end of a grace period, and reports why it ended and what it used.
 .
 Its Python packages lie in a private environment below /usr/lib/swarmcg.
"""
PROGRAM: Final = """\
#!/usr/lib/swarmcg/bin/python3 -I
import sys

from swarmcg.cli.main import main

sys.exit(main())
"""


def main() -> int:
    """Builds the package, and with --check installs it in a fresh machine."""
    parser = argparse.ArgumentParser(
        prog="scripts/deb", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suite", choices=tuple(wheels.PYTHON), default=debian.codename(), help="for whose Python"
    )
    parser.add_argument("--version", help="the package's version (default: the project's, and the suite)")
    parser.add_argument(
        "--check", action="store_true", help="install, use, upgrade and remove it in a virtual machine"
    )
    asked = parser.parse_args()
    try:
        version = asked.version or f"{_project()['version']}-1~{asked.suite}"
        package = build(asked.suite, version)
        print(package.relative_to(ROOT), flush=True)
        return check(asked.suite, package) if asked.check else 0
    except debian.UnavailableError as error:
        print(f"scripts/deb: {error}", file=sys.stderr)
        return 2


def build(suite: str, version: str) -> Path:
    """The package's file. Raises debian.UnavailableError."""
    DIST.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="swarmcg-deb-") as place:
        tree, stock = Path(place, "tree"), Path(place, "wheels")
        for directory in (tree, stock):
            directory.mkdir(mode=0o755)
        _fill(tree, stock, suite)
        _describe(tree, suite, version)
        _set_times(tree)
        made = DIST / f"swarmcg_{version}_{_architecture()}.deb"
        os.environ["SOURCE_DATE_EPOCH"] = str(_epoch())  # dpkg-deb writes times of its own
        _run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(made)])
        return made


def check(suite: str, package: Path) -> int:
    """Its life in a fresh machine of the suite: the exit status of packaging/debian/check there."""
    newer = build(suite, f"{_project()['version']}-2~{suite}")
    try:
        files = [package, newer, CHECK]
        place = f"{EXTRA}/{CHECK.name}"
        command = ["sh", place, *(f"{EXTRA}/{file.name}" for file in (package, newer))]
        return vm.run(image.build(suite), command, vm.RESULTS / f"deb-{suite}", extra=files)
    finally:
        newer.unlink()


def _fill(tree: Path, stock: Path, suite: str) -> None:
    """The environment, the program, the units."""
    site = tree / HOME / "lib" / f"python{wheels.PYTHON[suite]}" / "site-packages"
    wheels.download(suite, _project()["dependencies"], stock)
    pip = [*wheels.PIP]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(stock), str(ROOT)])
    install = [
        *pip,
        "install",
        "--no-index",
        "--no-compile",
        "--find-links",
        str(stock),
        "--target",
        str(site),
    ]
    _run([*install, *wheels.target(suite), "swarmcg"])
    shutil.rmtree(site / "bin", ignore_errors=True)
    interpreter = f"/usr/bin/python{wheels.PYTHON[suite]}"
    (tree / HOME / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nexecutable = {interpreter}\n"
    )
    (tree / HOME / "bin").mkdir()
    (tree / HOME / "bin" / "python3").symlink_to(interpreter)
    _put(tree / "usr/bin/swarmcg", PROGRAM.encode(), 0o755)
    for source, target in (("systemd", "usr/lib/systemd/system"), ("tmpfiles.d", "usr/lib/tmpfiles.d")):
        for part in sorted((PARTS / source).iterdir()):
            _put(tree / target / part.name, part.read_bytes())


def _describe(tree: Path, suite: str, version: str) -> None:
    """What dpkg is told, and what a Debian package has to say of itself."""
    documents = tree / "usr/share/doc/swarmcg"
    _put(documents / "copyright", (PARTS / "debian" / "copyright").read_bytes())
    _put(documents / "changelog.gz", gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))
    size = sum(file.lstat().st_size for file in tree.rglob("*") if file.is_file()) // 1024
    control = CONTROL.format(
        version=version,
        architecture=_architecture(),
        maintainer=MAINTAINER,
        size=size,
        python=wheels.PYTHON[suite],
        summary=SUMMARY,
    )
    _put(tree / "DEBIAN" / "control", control.encode())
    for script in ("postinst", "prerm", "postrm"):
        _put(tree / "DEBIAN" / script, (PARTS / "debian" / script).read_bytes(), 0o755)


def _put(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def _set_times(tree: Path) -> None:
    """One time and one set of rights for everything, so that the same content is the same package."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (_epoch(), _epoch()), follow_symlinks=False)


def _epoch() -> int:
    """When the checkout's last commit was made; with SOURCE_DATE_EPOCH, what that says."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    return int(told or _run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]))


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _architecture() -> str:
    return _run(["dpkg", "--print-architecture"]).strip()


def _run(command: list[str]) -> str:
    try:
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise debian.UnavailableError(f"{command[0]} is missing; install it") from error
    if ran.returncode:
        raise debian.UnavailableError(f"{command[0]} ended with {ran.returncode}:\n{ran.stderr.strip()}")
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
