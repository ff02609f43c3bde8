"""The home: the cgroup below which slices are made, what it can give them, and what it takes to share it."""

import contextlib
import errno
import fcntl
import functools
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from swarmcg.cgroup import device_filter, devices, protection, systemd
from swarmcg.cgroup.enclosing import slices_inside
from swarmcg.cgroup.files import cgroup_errors, read_value, write_line
from swarmcg.cgroup.hierarchy import CONTROLLERS, Hierarchy
from swarmcg.cgroup.home_lock import locked, looking, tidy
from swarmcg.cgroup.names import is_slice_name, new_incarnation, slice_name
from swarmcg.cgroup.slice import MODE, Slice, _HomeVanished
from swarmcg.errors import CgroupError
from swarmcg.flock import WITHIN_S
from swarmcg.resources import Abilities, DeviceControl, Lack
from swarmcg.resources.abilities import UNSEEN
from swarmcg.resources.looks import EVERY_LOOK, Look

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Home", "is_marked"]

_MADE: Final = MODE | stat.S_ISVTX
"""The sticky bit says that a home was made on demand, from the first: who is killed after mkdir(2) leaves none that
nobody removes. It has no other meaning where nobody else may write, and needs no rights to attributes.
"""
_TRIES: Final = 16
_Seen = TypeVar("_Seen")


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """A place for slices. ``ours`` says that the directory is swarmcg's own, made on demand and removed when
    empty; ``to_come`` that it is a scope which systemd makes once something is started.

    May be used by several processes at once: making and sweeping exclude each other by the home's lock. It is held
    shared while a slice is made, or looked at by its known path; exclusive while ownerless ones are looked for, so
    that one in the making is not taken for one of them.
    """

    path: str
    hierarchy: Hierarchy
    ours: bool
    to_come: bool = False

    def abilities(
        self,
        *,
        besides: Collection[str] = (),
        at: Collection[Look] = EVERY_LOOK,
    ) -> Abilities:
        """What a slice made here can be given, without changing anything.

        ``besides`` are paths of slices that will be given something else than they have now. Nobody looks at what is
        not named in ``at``: that is then as where it is not known.
        """
        offered = self._offered()
        return Abilities(
            mode=self.hierarchy.mode,
            controllers=offered,
            lacking=self._lacking(offered),
            files=self._files() if "files" in at else None,
            kernel=_kernel(),
            page_size=os.sysconf("SC_PAGE_SIZE"),
            hugepages=devices.hugepages() if "hugepages" in at else frozenset(),
            disks=devices.disks(self.hierarchy.mount) if "disks" in at else None,
            cpus=self._list("cpuset.cpus.effective") if "cpusets" in at else None,
            mems=self._list("cpuset.mems.effective") if "cpusets" in at else None,
            granted=self.granted(besides=besides) if "protection" in at else {},
            devices=self._device_control() if "devices" in at else UNSEEN,
        )

    def _device_control(self) -> DeviceControl:
        return device_filter.control(list(_down(self.hierarchy.mount or "", self._source())))

    def _source(self) -> str:
        """The directory whose cgroup.controllers says what may be enabled for slices."""
        return os.path.dirname(self.path) if self.ours else self.path

    def _offered(self) -> frozenset[str]:
        if self.hierarchy.mode != "unified":
            return frozenset()
        if self.to_come:
            who = systemd.manager(self.hierarchy.mount or "")
            offered = who.offered(
                _words(f"{who.top}/cgroup.controllers"), _words(f"{who.directory}/cgroup.subtree_control")
            )
            return offered & set(CONTROLLERS)
        with cgroup_errors("The controllers of the home cannot be read", self._source()):
            return frozenset(read_value(f"{self._source()}/cgroup.controllers").split()) & set(CONTROLLERS)

    def _lacking(self, offered: frozenset[str]) -> Mapping[str, Lack]:
        top = self.hierarchy.mount if self.hierarchy.mode == "unified" else None
        if top == self._source():
            there = offered
        else:
            there = frozenset() if top is None else _words(f"{top}/cgroup.controllers")
        return {name: self._lack(name, there, top or "") for name in CONTROLLERS if name not in offered}

    def _lack(self, controller: str, there: frozenset[str], top: str) -> Lack:
        """Why it is not offered here, where ``there`` are those of the top."""
        if controller not in there:
            return self.hierarchy.lack(controller)
        lacking = next(
            (
                d
                for d in _down(top, self._source())
                if controller not in _words(f"{d}/cgroup.subtree_control")
            ),
            self._source(),
        )
        if self.hierarchy.systemd:
            return systemd.lack(controller, top, self._source(), lacking)
        return Lack(
            why=f"{lacking} does not hand the {controller} controller down",
            remedy=f"echo +{controller} > {lacking}/cgroup.subtree_control",
        )

    def _files(self) -> frozenset[str] | None:
        """The files of a slice that exists here, or None when there is none to look at."""
        for path in self.slices():
            with contextlib.suppress(OSError):
                return frozenset(os.listdir(path))
        return None

    def _list(self, name: str) -> str | None:
        with contextlib.suppress(OSError):
            return read_value(f"{self._source()}/{name}") or None
        return None

    def granted(
        self, names: Iterable[str] = protection.PROTECTIONS, *, besides: Collection[str] = ()
    ) -> Mapping[str, int]:
        """What every cgroup from the top down to the home grants of memory.low and memory.min, less what its
        slices have of that: beyond the sum the kernel gives each of them only a part.

        A directory of ours is kept at the sum of its slices and the top has no limit, so neither counts.
        """
        if self.hierarchy.mount is None or self.hierarchy.mode != "unified":
            return {}
        ancestors = list(_down(self.hierarchy.mount, self._source()))[1:]
        found: dict[str, int] = {}
        for name in names:
            values = [_bytes(f"{directory}/{name}") for directory in ancestors]
            known = [value for value in values if value is not None]
            if known:
                taken = protection.total(self.slices(), name, besides=besides)
                found[name] = int(max(0, min(known) - taken))
        return found

    def prepare(self) -> Abilities:
        """Makes the home, hands every offered controller down, and looks what a slice has there.

        Controllers stay enabled: others may use them by then. Raises CgroupError or HomeError.
        """
        for _ in range(_TRIES):
            try:
                return self._prepared()
            except FileNotFoundError:
                pass  # the last bot of another process took it along
            except CgroupError as e:
                if not self.ours or e.errno != errno.ENOENT:
                    raise
        raise self._vanishing()

    def _prepared(self) -> Abilities:
        self._make()
        made = self._which()
        refused = self._enable()
        with cgroup_errors("The home cannot be looked into", self.path):
            found = self.abilities()
        with self._reserved(fcntl.LOCK_SH):
            files = self._probe()
            if self._which() != made:  # what was found was so in one that is gone, or is not enabled yet
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        controllers = found.controllers - refused.keys()
        lacking = {**found.lacking, **refused}
        return msgspec.structs.replace(found, controllers=controllers, lacking=lacking, files=files)

    def _make(self) -> None:
        if not self.ours:
            return
        with (
            cgroup_errors("The home for slices could not be made", self.path),
            contextlib.suppress(FileExistsError),
        ):
            os.mkdir(self.path, _MADE)

    def _which(self) -> int | None:
        """Tells a home of ours from one that another process made in its place. cgroup2 gives no number again soon:
        they are handed out in a circle (__kernfs_new_node() in fs/kernfs/dir.c).
        """
        return os.stat(self.path).st_ino if self.ours else None

    def _enable(self) -> dict[str, Lack]:
        """Enables what is offered in every directory that hands controllers to slices; why some were refused."""
        refused: dict[str, Lack] = {}
        for directory in (self._source(), self.path) if self.ours else (self.path,):
            for name in sorted(self._offered() - _words(f"{directory}/cgroup.subtree_control")):
                try:
                    write_line(f"{directory}/cgroup.subtree_control", f"+{name}")
                except OSError as e:
                    refused[name] = _refusal(directory, name, e)
        return refused

    def _probe(self) -> frozenset[str]:
        # Named as a slice, so that clean finds it if we are killed in between.
        path = f"{self.path}/{slice_name('probe', new_incarnation())}"
        with cgroup_errors("No cgroup can be made in the home", path):
            os.mkdir(path)
            try:
                return frozenset(os.listdir(path))
            finally:
                os.rmdir(path)

    def create(self, name: str, intent: dict[str, Any]) -> Slice:
        """Makes a slice of this name, and the home again if it was swept meanwhile. Raises CgroupError."""
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError, _HomeVanished), self._reserved(fcntl.LOCK_SH):
                return self._enabled(Slice.create(f"{self.path}/{name}", intent))
            self._make()
        raise self._vanishing()

    def _enabled(self, made: Slice) -> Slice:
        """Controllers for a slice of a home that another process may have made since, and not have enabled them yet.

        Afterwards, since no home goes that has a slice; what is enabled reaches the slices that are there.
        """
        if self.ours:
            try:
                self._enable()
            except BaseException:
                made.discard()
                raise
        return made

    def _vanishing(self) -> CgroupError:
        return CgroupError(
            "The slice could not be made",
            path=self.path,
            cause=f"the home vanished {_TRIES} times while it was made",
            remedy="See what removes it, and name another home with --home.",
        )

    def slices(self) -> list[str]:
        """The paths of all slices that exist here now, owned or not, by name."""
        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        return [f"{self.path}/{name}" for name in names if is_slice_name(name)]

    def inside(self) -> list["Home"]:
        """The homes that what lives in the slices here has made in them, to any depth; outer ones first."""
        paths = dict.fromkeys(
            os.path.dirname(inner) for path in self.slices() for inner in slices_inside(path)
        )
        return [Home(path=path, hierarchy=self.hierarchy, ours=True) for path in paths]

    def ownerless(self, within: float = WITHIN_S) -> Iterator[Slice]:
        """Takes over, one by one, every slice whose owner is gone. Each belongs to the caller, who closes it.

        Raises OSError when the home cannot be opened, or somebody holds its lock for longer than ``within`` seconds.
        """
        return self._looks(Slice.adopt, within)

    def abandoned(self) -> Iterator[str]:
        """The paths of slices whose owner is gone. Takes none over: who takes them over at the same time, or starts
        a bot, waits for each look and misses nothing.

        Raises OSError when the home cannot be opened, or somebody holds its lock for too long.
        """
        return self._looks(lambda path: path if Slice.is_unowned(path) else None, WITHIN_S)

    def _looks(self, look: Callable[[str], _Seen | None], within: float) -> Iterator[_Seen]:
        """What a look at each slice finds while nobody makes one or takes one over; the lock is let go in between."""
        for path in self.slices():
            found = None
            with contextlib.suppress(FileNotFoundError), looking(self.path, fcntl.LOCK_EX, within):
                found = look(path)
            if found is not None:
                yield found

    def unowned(self, paths: Iterable[str]) -> frozenset[str]:
        """Those of these slices, all of which have recorded their intent, whose owner is gone. Takes none over, and
        disturbs nobody: who makes a slice has locked it by then, and who takes one over waits for this look.

        Raises OSError when the home cannot be opened, or somebody holds its lock for too long.
        """
        with looking(self.path, fcntl.LOCK_SH):
            return frozenset(path for path in paths if Slice.is_unowned(path))

    def protect(self, path: str, name: str, value: str) -> str:
        """Gives a slice memory.low or memory.min, and every level of ours what that takes to count; what the slice's
        file shows then.

        Raises OSError when the kernel refuses, CgroupError when somebody holds the home's lock for too long, or has
        taken what was left of another's home since the plan was made.
        """
        with self.protecting(path) as put:
            return put(name, value)

    @contextlib.contextmanager
    def protecting(self, path: str) -> Iterator[Callable[[str, str], str]]:
        """:meth:`protect` of one slice, for several values under one lock of the home."""
        with self._reserved(fcntl.LOCK_EX):
            # What others' slices have counts for a home of ours alone.
            home, slices = (self.path, self.slices()) if self.ours else (None, ())

            def put(name: str, value: str) -> str:
                self._check_granted(path, name, value)
                return protection.put(home, slices, path, name, value)

            yield put

    def _check_granted(self, path: str, name: str, value: str) -> None:
        left = self.granted((name,), besides=(path,)).get(name)
        wanted = protection.wanted(value)
        if left is None or wanted is None or wanted <= max(left, protection.amount(f"{path}/{name}")):
            return
        raise CgroupError(
            f"{name} cannot be given to the slice",
            path=self.path,
            value=value,
            cause=f"the home has {left} bytes left of it beside its other slices",
            remedy=f"Raise {name} of the home and of every cgroup above it, or ask for less.",
        )

    def settle(self, within: float = WITHIN_S) -> bool:
        """After a slice went: takes its memory protection back, or removes what was made for an empty home.

        Raises nothing. Whether all is done: what is not, for want of descriptors say, or since somebody holds the
        home's lock for longer than ``within`` seconds, is left to whoever comes next, the caller maybe.
        """
        with contextlib.suppress(OSError, CgroupError):
            return self._settled(within)
        return False

    def _settled(self, within: float) -> bool:
        if self.ours and self._removed():  # before any look, since it takes no descriptor
            return True
        if not self.slices():
            return tidy(self.path) and (not self.ours or self._removed())
        if self.ours:
            self._take_protection_back(within)
        return True

    def _removed(self) -> bool:
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _take_protection_back(self, within: float) -> None:
        for name in protection.PROTECTIONS:
            file = f"{self.path}/{name}"
            if protection.amount(file):
                with locked(self.path, fcntl.LOCK_EX, within):
                    write_line(file, protection.shown(protection.total(self.slices(), name)))

    @contextlib.contextmanager
    def _reserved(self, how: int) -> Iterator[None]:
        """Holds the lock, for a start: raises CgroupError when somebody else does for too long."""
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(locked(self.path, how))
            except FileNotFoundError:
                raise
            except BlockingIOError as e:
                raise CgroupError(
                    "The home is in use",
                    path=self.path,
                    errno=e.errno,
                    cause="another process of its user, or root's, has held its lock for too long",
                    remedy="See who holds it, and end that: lslocks.",
                ) from e
            except OSError:
                with cgroup_errors("No cgroup can be made in the home", self.path):
                    raise
            yield


def is_marked(path: str) -> bool:
    """Whether this home was made on demand, by whichever process."""
    with contextlib.suppress(OSError):
        return bool(os.stat(path).st_mode & stat.S_ISVTX)
    return False


def _refusal(directory: str, name: str, error: OSError) -> Lack:
    why = f"{directory}/cgroup.subtree_control refuses +{name}: {error.strerror}"
    if error.errno == errno.EBUSY:
        return Lack(
            why=f"{why}, because {directory} holds processes itself",
            remedy="Move them into a leaf of it first.",
        )
    return Lack(
        why=why, remedy="See that this process may write there and that no realtime task is in the way."
    )


def _down(top: str, bottom: str) -> Iterator[str]:
    """The directories from the top down to the bottom, both included."""
    yield top
    path = top
    for part in os.path.relpath(bottom, top).split("/"):
        if part != ".":
            path = f"{path}/{part}"
            yield path


def _words(path: str) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset(read_value(path).split())
    return frozenset()


def _bytes(path: str) -> int | None:
    """A size in bytes; None for ``max`` and for what is absent."""
    with contextlib.suppress(OSError, ValueError):
        return int(read_value(path))
    return None


@functools.cache
def _kernel() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)
