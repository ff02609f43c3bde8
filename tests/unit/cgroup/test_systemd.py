"""What is said to systemd, as values and to a manager that a thread plays; and whose cures are named."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from jeepney import (
    DBusAddress,
    Message,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)

from swarmcg.cgroup import systemd
from swarmcg.cgroup.systemd import Manager, lack, start_request, transient_scope, unit_is_delegated
from swarmcg.errors import HomeError

JOB: Final = "/org/freedesktop/systemd1/job/7"
OTHER_JOB: Final = "/org/freedesktop/systemd1/job/6"
ANNOUNCER: Final = DBusAddress(
    "/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
)
SOON_S: Final = 60.0
Answers = Callable[[Message], Sequence[Message]]


def removed(job: str, result: str) -> Message:
    return new_signal(ANNOUNCER, "JobRemoved", "uoss", (7, job, "x.scope", result))


def started(call: Message) -> Message:
    return new_method_return(call, "o", (JOB,))


class Played:
    """Serves one connection: authenticates, takes one call, gives the answers, and waits for the end of file."""

    def __init__(self, path: str, answers: Answers | None) -> None:
        self.calls: Final[list[Message]] = []
        self.ended = threading.Event()
        self._answers: Final = answers
        self._listener: Final = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread: Final = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(SOON_S)
            assert self._line(connection).startswith(b"\0AUTH EXTERNAL ")
            connection.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
            assert self._line(connection) == b"BEGIN\r\n"
            parser = Parser()
            while (call := parser.get_next_message()) is None:
                parser.add_data(connection.recv(4096))
            self.calls.append(call)
            if self._answers is None:
                return
            for serial, answer in enumerate(self._answers(call), 1):
                connection.sendall(answer.serialise(serial=serial))
            if connection.recv(1) == b"":
                self.ended.set()

    def _line(self, connection: socket.socket) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = connection.recv(1)
            assert byte, line
            line += byte
        return line

    def close(self) -> None:
        self._thread.join(SOON_S)
        self._listener.close()


@contextlib.contextmanager
def played(tmp_path: Path, answers: Answers | None) -> Iterator[tuple[Manager, Played]]:
    path = str(tmp_path / "private")
    server = Played(path, answers)
    try:
        yield Manager(socket=path, top="/cg/user@7.service", slice="app.slice"), server
    finally:
        server.close()


def refusal(who: Manager, within: float = SOON_S) -> HomeError:
    with pytest.raises(HomeError) as caught:
        transient_scope(who, within=within)
    assert caught.value.remedy
    return caught.value


def test_the_request_is_one_call_for_a_delegated_scope_with_our_pid() -> None:
    name, mode, properties, aux = start_request("swarmcg-7-00.scope", "app.slice", 7).body
    assert (name, mode, aux) == ("swarmcg-7-00.scope", "fail", [])
    told: dict[str, Any] = dict(properties)
    assert told["Delegate"] == ("b", True)
    assert told["PIDs"] == ("au", [7])
    assert told["Slice"] == ("s", "app.slice")


def test_a_scope_is_made_when_its_job_is_done(tmp_path: Path) -> None:
    def answers(call: Message) -> list[Message]:
        return [removed(OTHER_JOB, "failed"), started(call), removed(JOB, "done")]

    with played(tmp_path, answers) as (who, server):
        name = transient_scope(who)
        assert server.ended.wait(SOON_S)  # no connection is left
    (call,) = server.calls
    assert call.body[0] == name
    assert dict(call.body[2])["PIDs"] == ("au", [os.getpid()])


def test_a_job_that_ends_before_its_call_is_answered(tmp_path: Path) -> None:
    with played(tmp_path, lambda call: [removed(JOB, "done"), started(call)]) as (who, _):
        transient_scope(who)


def test_a_job_that_fails(tmp_path: Path) -> None:
    with played(tmp_path, lambda call: [started(call), removed(JOB, "failed")]) as (who, _):
        assert "'failed'" in (refusal(who).cause or "")


def test_a_call_that_is_refused_is_told_in_systemd_s_words(tmp_path: Path) -> None:
    def answers(call: Message) -> list[Message]:
        return [new_error(call, "org.freedesktop.DBus.Error.AccessDenied", "s", ("not for you",))]

    with played(tmp_path, answers) as (who, server):
        assert refusal(who).cause == "org.freedesktop.DBus.Error.AccessDenied: not for you"
        assert server.ended.wait(SOON_S)


def test_a_manager_that_is_silent_is_waited_for_no_longer_than_was_said(tmp_path: Path) -> None:
    with played(tmp_path, lambda call: [started(call)]) as (who, server):
        assert "in time" in refusal(who, within=0.3).reason
        assert server.ended.wait(SOON_S)


def test_a_manager_that_hangs_up(tmp_path: Path) -> None:
    with played(tmp_path, None) as (who, _):
        assert "hung up" in refusal(who).reason


def test_a_manager_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Manager(socket=str(tmp_path / "none"), top="/cg", slice="app.slice")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "enable-linger" in (refusal(nobody).remedy or "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--home" in (refusal(nobody).remedy or "")


@pytest.mark.parametrize("said", [True, False])
def test_a_unit_is_delegated_when_its_manager_says_so(tmp_path: Path, *, said: bool) -> None:
    with played(tmp_path, lambda call: [new_method_return(call, "v", (("b", said),))]) as (who, server):
        assert unit_is_delegated(who, "run-r1.scope") is said
    (call,) = server.calls
    assert call.body == ("org.freedesktop.systemd1.Scope", "Delegate")
    assert systemd.delegate_request("run-r1.scope").header.fields == call.header.fields


def test_a_unit_that_the_manager_does_not_know_or_that_can_hold_no_process(tmp_path: Path) -> None:
    def answers(call: Message) -> list[Message]:
        return [new_error(call, "org.freedesktop.DBus.Error.UnknownObject", "s", ("?",))]

    with played(tmp_path, answers) as (who, _):
        assert not unit_is_delegated(who, "gone.service")
    assert not unit_is_delegated(who, "app.slice")
    assert not unit_is_delegated(who, "gone.service", within=1)


def test_the_manager_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert systemd.manager("/cg").directory == "/cg/system.slice"
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/elsewhere")
    assert systemd.manager("/cg") == Manager(
        socket="/run/elsewhere/systemd/private",
        top="/cg/user.slice/user-7.slice/user@7.service",
        slice="app.slice",
    )
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert systemd.manager("/cg").socket == "/run/user/7/systemd/private"


def test_scopes_of_ours_are_known_by_their_name(tmp_path: Path) -> None:
    who = Manager(socket="", top=str(tmp_path), slice="app.slice")
    assert who.scopes() == []
    for name in (
        "swarmcg-7-0123abcd.scope",
        "swarmcg-bots.service",
        "swarmcg-7-0123abcd.slice",
        "run-r1.scope",
    ):
        (tmp_path / "app.slice" / name).mkdir(parents=True)
    assert who.scopes() == [f"{tmp_path}/app.slice/swarmcg-7-0123abcd.scope"]
    assert systemd._SCOPE.fullmatch(systemd.new_scope_name())


def test_a_scope_gets_what_the_manager_has_and_what_the_slice_was_given_by_hand() -> None:
    who = Manager(socket="", top="/cg", slice="system.slice")
    found = who.offered(frozenset({"cpu", "io", "hugetlb"}), frozenset({"cpu"}))
    assert found == {"cpu", "io"}
    assert "hugetlb" in who.offered(frozenset({"hugetlb"}), frozenset({"hugetlb"}))


def test_what_a_user_manager_was_not_given_is_cured_by_a_drop_in() -> None:
    source = "/cg/user.slice/user-7.slice/user@7.service/app.slice/x.scope"
    found = lack("io", "/cg", source, "/cg/user.slice")
    assert (
        r"'[Service]\nDelegate=cpu cpuset io memory pids\n' > /etc/systemd/system/user@.service.d/"
        in found.remedy
    )
    assert "systemctl restart user@7.service" in found.remedy


def test_what_systemd_does_not_manage_is_cured_by_hand() -> None:
    found = lack("hugetlb", "/cg", "/cg/system.slice/x.scope", "/cg")
    assert "does not manage" in found.why
    assert "for d in /cg /cg/system.slice; do echo +hugetlb > $d/cgroup.subtree_control; done" in found.remedy


def test_what_a_unit_was_not_given_is_cured_by_delegation() -> None:
    assert "Delegate=yes" in lack("io", "/cg", "/cg/system.slice/x.service", "/cg/system.slice").remedy
