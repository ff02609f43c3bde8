"""What goes to systemd's journal, byte for byte, with a datagram socket in its place."""

import array
import contextlib
import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg import journald
from swarmcg.journald import Journald, about, encode


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.bind(str(tmp_path / "socket"))
        taker.settimeout(10)
        yield taker


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.journald")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = Journald(str(tmp_path / "socket"))
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def test_a_field_is_a_line() -> None:
    assert encode({"MESSAGE": "a=b", "PRIORITY": "6"}) == b"MESSAGE=a=b\nPRIORITY=6\n"


def test_a_value_with_newlines_goes_with_its_length() -> None:
    assert encode({"A": "x\ny", "B": ""}) == b"A\n" + struct.pack("<Q", 3) + b"x\ny\nB=\n"


def test_any_bytes_pass() -> None:
    assert encode({"A": os.fsdecode(b"\xff\x00\n")}) == b"A\n\3\0\0\0\0\0\0\0\xff\x00\n\n"
    assert encode({"A": "é"}) == "A=é\n".encode()


def test_a_record_about_a_bot_names_it_and_its_life(journal: socket.socket, log: logging.Logger) -> None:
    log.info("started: %d", 7, extra=about("bot\n1", "0123"))
    assert journal.recv(4096) == encode(
        {
            "MESSAGE": "started: 7",
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "swarmcg",
            "SWARMCG_BOT": "bot\n1",
            "SWARMCG_INCARNATION": "0123",
        }
    )


@pytest.mark.parametrize(("level", "number"), [(logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)])
def test_levels_are_the_journal_s(
    journal: socket.socket, log: logging.Logger, level: int, number: int
) -> None:
    log.log(level, "x")
    assert f"PRIORITY={number}\n".encode() in journal.recv(4096)


def test_what_is_longer_than_a_datagram_goes_by_a_sealed_file(
    journal: socket.socket, log: logging.Logger
) -> None:
    text = "x" * (4 << 20)
    log.info("%s", text)
    data, controls, _, _ = journal.recvmsg(16, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(controls[0][2])
    with open(fds[0], "rb") as f:
        f.seek(0)
        assert (data, f.read()) == (
            b"",
            encode({"MESSAGE": text, "PRIORITY": "6", "SYSLOG_IDENTIFIER": "swarmcg"}),
        )
        assert fcntl.fcntl(f, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE


def test_a_journal_that_is_not_there_is_no_trouble(log: logging.Logger) -> None:
    log.info("nobody hears")


def test_a_journal_that_takes_nothing_in_holds_nobody_up(journal: socket.socket, log: logging.Logger) -> None:
    before = time.monotonic(), time.thread_time()
    for _ in range(1000):  # net.unix.max_dgram_qlen is 10 or 512
        log.info("x")
    # One of them may wait for a second, asleep, and none of the hundreds after it.
    assert time.monotonic() - before[0] < 100
    assert time.thread_time() - before[1] < 1
    assert journal.recv(64)


def test_a_journal_that_takes_in_again_is_told_again(journal: socket.socket, log: logging.Logger) -> None:
    for _ in range(1000):
        log.info("x")
    journal.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            journal.recv(64)
    log.info("again")
    assert b"MESSAGE=again" in journal.recv(64)


def test_a_command_s_output_goes_as_a_stream_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "stdout")
    monkeypatch.setattr(journald, "_STREAM", path)
    assert journald.stream("x") is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        fd = journald.stream("bot\n1")
        assert fd is not None
        os.write(fd, b"hello\n")
        os.close(fd)
        with listener.accept()[0] as taken:
            assert b"".join(iter(lambda: taken.recv(64), b"")) == b"bot 1\n\n6\n0\n0\n0\n0\nhello\n"
