"""Getting a bot's code, from a real server on loopback that can be made to misbehave."""

import contextlib
import errno
import hashlib
import io
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from swarmcg.bot_code import Limits, fetch, install
from swarmcg.bot_code.cache import Cache
from swarmcg.errors import BotCodeError, ConfigError
from swarmcg.testing import SwarmingServer, faults

VERSION = "bot_code/"  # the call for the zip itself


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def get(url: str, cache: Path, clock: Clock | None = None, **limits: Any) -> str:
    clock = clock or Clock()
    return fetch(
        url, "bot/1 ü", cache, limits=Limits(**limits), clock=clock, wait=clock.wait, chance=lambda: 1.0
    )


def refusal(server: SwarmingServer, cache: Path, **limits: Any) -> BotCodeError:
    """The error of a download that must fail, with nothing left in the cache."""
    with pytest.raises(BotCodeError) as caught:
        get(server.url, cache, **limits)
    assert caught.value.path is not None
    assert caught.value.path.startswith(f"{server.url}/bot_code?bot_id=")
    assert caught.value.cause is not None or caught.value.errno is not None
    assert caught.value.remedy is not None
    assert stored(cache) == []
    return caught.value


def stored(cache: Path) -> list[str]:
    return sorted(os.listdir(cache / "bot_code")) if (cache / "bot_code").exists() else []


def packed(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.py", text)
    return buffer.getvalue()


def test_the_zip_is_fetched_whole_and_named_by_its_digest(server: SwarmingServer, tmp_path: Path) -> None:
    path = Path(get(server.url, tmp_path))
    assert path.read_bytes() == server.zip
    assert path == tmp_path / "bot_code" / f"{hashlib.sha256(server.zip).hexdigest()}.zip"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_the_id_is_escaped(server: SwarmingServer, tmp_path: Path) -> None:
    get(server.url + "/", tmp_path)
    assert server.requests[0] == ("GET", "/bot_code?bot_id=bot%2F1%20%C3%BC")


def test_a_known_version_is_not_downloaded_again(server: SwarmingServer, tmp_path: Path) -> None:
    first = get(server.url, tmp_path)
    assert get(server.url, tmp_path) == first
    assert server.downloads() == 1


def test_a_new_version_is_downloaded(server: SwarmingServer, tmp_path: Path) -> None:
    first = get(server.url, tmp_path)
    server.publish(packed(__main__="print('new')"), "a" * 64)
    assert Path(get(server.url, tmp_path)).read_bytes() == server.zip
    assert Path(first).exists()


def test_an_address_that_does_not_name_its_content_is_downloaded_each_time(
    server: SwarmingServer, tmp_path: Path
) -> None:
    server.publish(packed(__main__="1"), "live")
    get(server.url, tmp_path)
    server.zip = packed(__main__="2")
    assert Path(get(server.url, tmp_path)).read_bytes() == server.zip


def test_a_damaged_cache_entry_is_replaced(server: SwarmingServer, tmp_path: Path) -> None:
    path = Path(get(server.url, tmp_path))
    path.write_bytes(server.zip[:-1] + b"x")
    assert Path(get(server.url, tmp_path)).read_bytes() == server.zip
    assert server.downloads() == 2


@pytest.mark.parametrize("damage", [b"", b"../../etc/passwd", b"\0" * 64, b"f" * 64])
def test_a_damaged_note_of_what_was_seen_is_replaced(
    server: SwarmingServer, tmp_path: Path, damage: bytes
) -> None:
    get(server.url, tmp_path)
    [note] = (tmp_path / "bot_code").glob("*.seen")
    note.write_bytes(damage)
    assert Path(get(server.url, tmp_path)).read_bytes() == server.zip
    assert note.read_bytes() != damage


def test_server_errors_are_tried_again_with_growing_waits(
    server: SwarmingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("bot_code", faults.status(503), times=2)
    server.fail(VERSION, faults.status(500), times=2)
    clock = Clock()
    with caplog.at_level(logging.INFO, "swarmcg.bot_code"):
        get(server.url, tmp_path, clock)
    assert clock.waits == [1.0, 2.0, 4.0, 8.0]
    begun, *failed = caplog.messages
    assert begun.startswith(f"downloading {server.url}/bot_code?")
    assert [text.partition(" failed")[0] for text in failed] == [f"attempt {n} of 5" for n in (1, 2, 3, 4)]
    assert "503" in failed[0]


def test_the_wait_is_bounded_and_spread(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail("bot_code", faults.status(503), times=3)
    clock = Clock()
    limits = Limits(longest_wait=3.0)
    fetch(server.url, "b", tmp_path, limits=limits, clock=clock, wait=clock.wait, chance=lambda: 0.0)
    assert clock.waits == [0.5, 1.0, 1.5]


def test_the_attempts_are_bounded(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail("bot_code", faults.status(503), times=9)
    error = refusal(server, tmp_path, attempts=3)
    assert (error.status, len(server.requests)) == (503, 3)
    assert "3 attempts" in str(error)


def test_waiting_counts_against_the_total_time(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail("bot_code", faults.status(503), times=9)
    clock = Clock()
    with pytest.raises(BotCodeError):
        get(server.url, tmp_path, clock, total=10.0, attempts=100)
    assert clock.waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 429])
@pytest.mark.parametrize("call", ["bot_code", VERSION])
def test_a_refusal_is_final(server: SwarmingServer, tmp_path: Path, code: int, call: str) -> None:
    server.fail(call, faults.status(code))
    error = refusal(server, tmp_path)
    assert error.status == code
    assert str(code) in str(error)


def test_a_status_that_is_no_answer_is_final(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail("bot_code", faults.status(204))
    assert refusal(server, tmp_path).status == 204


def test_403_names_the_id_and_whom_to_ask(server: SwarmingServer, tmp_path: Path) -> None:
    server.forbid("bot/1 ü")
    error = refusal(server, tmp_path)
    assert error.remedy is not None
    assert "'bot/1 ü'" in error.remedy


@pytest.mark.parametrize(
    "fault",
    [faults.cut(0), faults.cut(100), faults.reset, faults.wrong_length(+10)],
    ids=["nothing", "cut", "reset", "longer"],
)
def test_a_transfer_that_breaks_off_is_tried_again(
    server: SwarmingServer, tmp_path: Path, fault: faults.Fault
) -> None:
    server.fail(VERSION, fault)
    assert Path(get(server.url, tmp_path)).read_bytes() == server.zip
    server.publish(server.zip, "b" * 64)
    server.fail(VERSION, fault, times=5)
    with pytest.raises(BotCodeError, match="5 attempts"):
        get(server.url, tmp_path)


@pytest.mark.parametrize(
    "fault", [faults.half_a_zip, faults.wrong_length(-10)], ids=["half a zip", "shorter"]
)
def test_a_zip_that_is_not_whole_is_refused(
    server: SwarmingServer, tmp_path: Path, fault: faults.Fault
) -> None:
    server.fail(VERSION, fault)
    assert "no complete zip" in str(refusal(server, tmp_path))


def test_a_zip_with_a_wrong_checksum_is_refused(server: SwarmingServer, tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("__main__.py", "print('here')")
    server.zip = whole.getvalue().replace(b"here", b"HERE")
    assert "checksum of '__main__.py'" in str(refusal(server, tmp_path))


def test_a_zip_that_python_cannot_run_is_refused(server: SwarmingServer, tmp_path: Path) -> None:
    server.zip = packed(something="1")
    assert "__main__.py" in str(refusal(server, tmp_path))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2], ids=["lzma", "bzip2"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_zip_compressed_as_python_imports_nothing_is_refused(
    server: SwarmingServer, tmp_path: Path, method: int, damaged: bool
) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as archive:
        archive.writestr("__main__.py", "print('a bot')" * 100)
    content = bytearray(whole.getvalue())
    if damaged:
        stream = content.index(b"__main__.py") + len("__main__.py")
        content[stream + 4 : stream + 30] = b"\xff" * 26
    server.zip = bytes(content)
    assert "imports nothing" in str(refusal(server, tmp_path))


def test_a_zip_that_takes_more_memory_than_there_is_is_refused(
    server: SwarmingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(zipfile.ZipFile, "testzip", refuse)
    assert "more memory than there is" in str(refusal(server, tmp_path))


def test_a_page_of_a_portal_is_refused(server: SwarmingServer, tmp_path: Path) -> None:
    server.zip = b"<html>Log in</html>"
    assert "portal" in str(refusal(server, tmp_path))


@settings(max_examples=60)
@given(st.data())
def test_no_damage_to_a_zip_ends_in_another_error(data: st.DataObject) -> None:
    whole = bytearray(packed(__main__="print('a bot')" * 20, other="x = 1"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with_temporary_cache(bytes(whole))


def with_temporary_cache(content: bytes) -> None:
    import tempfile  # noqa: PLC0415  a fixture would be shared by all examples

    with tempfile.TemporaryDirectory() as directory:
        try:
            path = Cache(directory, 8, 1 << 20).store([content], source="http://x", target=None)
        except BotCodeError:
            assert os.listdir(f"{directory}/bot_code") == []
        else:
            assert Path(path).read_bytes() == content


def test_a_zip_is_not_read_past_its_size_limit(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail(VERSION, faults.endless)
    assert "too big" in str(refusal(server, tmp_path, max_bytes=200_000))


def test_an_announced_size_over_the_limit_is_enough(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail(VERSION, faults.wrong_length(1 << 40))
    error = refusal(server, tmp_path)
    assert error.value == (1 << 40) + len(server.zip)


def test_a_zip_of_exactly_the_size_limit_is_taken(server: SwarmingServer, tmp_path: Path) -> None:
    assert get(server.url, tmp_path, max_bytes=len(server.zip))
    assert "too big" in str(refusal(server, tmp_path / "other", max_bytes=len(server.zip) - 1))


def test_a_zip_that_unpacks_to_too_much_is_refused(server: SwarmingServer, tmp_path: Path) -> None:
    server.zip = packed(__main__="#" * 100_000)
    assert "unpacks to 100000 bytes" in str(refusal(server, tmp_path, max_unpacked_bytes=99_999))


@contextlib.contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """The URL of a server that sends this to whoever asks, as long as it is taken."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    for piece in pieces:
                        connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def redirect_to(location: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Content-Length: " + b"1" * 4400, b"xx"),
        (b"Content-Length: " + b"1" * 19, b"xx"),
        (b"Transfer-Encoding: chunked", b"-5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"-1\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"f" * 100 + b"\r\nhello"),
        (b"Transfer-Encoding: chunked", b"x\r\nhello"),
    ],
    ids=["4400 digits", "19 digits", "chunk -5", "chunk -1", "chunk of 100 digits", "chunk x"],
)
def test_a_size_that_is_none_is_a_network_error(tmp_path: Path, header: bytes, body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n" + body
    with answering(answer) as url, pytest.raises(BotCodeError, match="5 attempts") as caught:
        get(url, tmp_path)
    assert caught.value.what == "The bot code cannot be downloaded"
    assert len(str(caught.value)) < 1000
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["a chunk without end", "chunks of one byte"],
)
def test_no_more_than_the_limit_comes_into_memory(tmp_path: Path, head: bytes) -> None:
    chunks = b"1\r\nx\r\n" * (1 << 17)
    tracemalloc.start()
    try:
        with answering(head, *[chunks] * 64) as url, pytest.raises(BotCodeError, match="too big") as caught:
            get(url, tmp_path, max_bytes=3 << 20)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value.value, int)
    assert 3 << 20 < caught.value.value <= 6 << 20
    assert most < 24 << 20
    assert stored(tmp_path) == []


@pytest.mark.parametrize("head", [False, True], ids=["body", "headers"])
def test_the_total_time_holds_against_a_drip(server: SwarmingServer, tmp_path: Path, head: bool) -> None:
    server.fail(VERSION, faults.drip(0.02, head=head), times=5)
    with pytest.raises(BotCodeError, match=r"not complete after 0\.3 s in all"):
        fetch(server.url, "b", tmp_path, limits=Limits(total=0.3))
    assert stored(tmp_path) == []


def test_silence_is_tried_again_before_the_total_time_is_over(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail(VERSION, faults.silence)
    limits = Limits(silence=0.1, first_wait=0.01)
    assert fetch(server.url, "b", tmp_path, limits=limits)
    server.fail("bot_code", faults.silence)
    with pytest.raises(BotCodeError, match="fell silent"):
        fetch(server.url, "b", tmp_path, limits=Limits(silence=0.1, attempts=1))


def test_redirects_in_a_circle_end(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail("bot_code", faults.redirect("/bot_code?bot_id=b"), times=100)
    assert "circle" in str(refusal(server, tmp_path))
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "", "http://[", "javascript:1"]
)
def test_a_redirect_leads_nowhere_but_to_http(server: SwarmingServer, tmp_path: Path, location: str) -> None:
    server.fail("bot_code", faults.redirect(location))
    error = refusal(server, tmp_path)
    assert "redirects to where no bot code is taken from" in str(error)
    assert error.value == location


@pytest.mark.parametrize(
    "host",
    [
        "a..b",
        ".a",
        "a" * 64 + ".example",
        "%E9.b",
        "a%2eb",
        "é.example",
        "u:p@b",
        "b:99999",
        "b:x",
        "a" * 63 + ".b" * 100,
    ],
)
def test_a_redirect_leads_nowhere_but_to_a_host(tmp_path: Path, host: str) -> None:
    with answering(redirect_to(f"http://{host}/x")) as url, pytest.raises(BotCodeError) as caught:
        get(url, tmp_path)
    assert "redirects to where no bot code is taken from" in str(caught.value)
    assert caught.value.value == f"http://{host}/x".encode().decode("latin-1")


def test_an_old_version_redirects_on_to_the_live_one(server: SwarmingServer, tmp_path: Path) -> None:
    server.fail("bot_code", faults.redirect("/swarming/api/v1/bot/bot_code/" + "0" * 64))
    assert Path(get(server.url, tmp_path)).read_bytes() == server.zip
    get(server.url, tmp_path)
    assert server.downloads() == 2


def test_a_server_that_is_not_there_is_told_with_its_errno(tmp_path: Path) -> None:
    with SwarmingServer() as gone:
        url = gone.url
    with pytest.raises(BotCodeError) as caught:
        get(url, tmp_path)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.remedy is not None
    assert "proxies" in caught.value.remedy


def test_a_name_that_does_not_resolve_is_a_network_error(tmp_path: Path) -> None:
    with pytest.raises(BotCodeError, match="5 attempts") as caught:
        get("http://no-such-host.invalid", tmp_path)
    assert caught.value.errno is None  # the resolver's code is no errno


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host", "file:///x", "host:80", "http://", "http://u:p@host", "http://host/?a=1", "http://host/#x",
     "http://host:99999", "http://ho st", "http://host\n", "http://[::1", "https://hö", 7, None,
     "http://a..b", "http://" + "a" * 64, "http://a%2eb"],
)  # fmt: skip
def test_an_unusable_url_is_an_error_before_anything_is_asked(url: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="URL of the Swarming server is unusable") as caught:
        get(url, tmp_path)
    assert caught.value.value == url
    assert caught.value.cause
    assert stored(tmp_path) == []


def test_an_impossible_id_is_an_error_before_anything_is_asked(
    server: SwarmingServer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        fetch(server.url, "", tmp_path)
    assert server.requests == []


@pytest.mark.parametrize("name", ["connect", "total", "attempts", "max_bytes", "kept"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_must_be_above_zero(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


class Guest(urllib.request.BaseHandler):
    """Authentication as a user would bring it."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        request.add_unredirected_header("X-guest", "yes")
        return request


def seen_headers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415  only looked into

    seen: list[tuple[str, dict[str, str]]] = []
    parse = BaseHTTPRequestHandler.parse_request

    def parsing(self: BaseHTTPRequestHandler) -> bool:
        good = parse(self)
        seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        return good

    monkeypatch.setattr(BaseHTTPRequestHandler, "parse_request", parsing)
    return seen


def test_an_opener_of_the_users_is_used_and_left_as_it_is(
    server: SwarmingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_headers(monkeypatch)
    opener = urllib.request.build_opener(Guest)
    opener.addheaders = [("Authorization", "Bearer x")]
    fetch(server.url, "b", tmp_path, opener=opener)
    assert all(headers["x-guest"] == "yes" and headers["authorization"] for _, headers in seen)
    assert len(seen) == 2
    with opener.open(f"{server.url}/bot_code?bot_id=b") as answer:  # it still follows redirects itself
        assert answer.read() == server.zip


def test_credentials_of_the_opener_do_not_follow_to_another_host(
    server: SwarmingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_headers(monkeypatch)
    opener = urllib.request.build_opener()
    opener.addheaders = [("Authorization", "Bearer x"), ("X-Agent", "y")]
    with SwarmingServer() as other:
        server.fail("bot_code", faults.redirect(f"{other.url}/bot_code?bot_id=b"))
        fetch(server.url, "b", tmp_path, opener=opener)
    assert ["authorization" in headers for _, headers in seen] == [True, False, False]
    assert all("x-agent" in headers for _, headers in seen)


def test_the_proxies_of_the_environment_are_used(
    server: SwarmingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(BotCodeError) as caught:
        get("http://swarming.invalid", tmp_path)
    assert caught.value.status == 404  # the answer of the proxy, which is none
    assert server.requests == [("GET", "http://swarming.invalid/bot_code?bot_id=bot%2F1%20%C3%BC")]


def test_a_cache_that_others_may_write_to_is_refused(server: SwarmingServer, tmp_path: Path) -> None:
    get(server.url, tmp_path)
    (tmp_path / "bot_code").chmod(0o777)
    with pytest.raises(BotCodeError, match="could put code of their own there") as caught:
        get(server.url, tmp_path)
    assert "chmod 755" in str(caught.value)


def test_a_cache_that_is_no_directory_is_told(server: SwarmingServer, tmp_path: Path) -> None:
    (tmp_path / "bot_code").write_text("")
    with pytest.raises(BotCodeError) as caught:
        get(server.url, tmp_path)
    assert caught.value.errno == errno.EEXIST


def test_the_umask_does_not_hide_the_cache(server: SwarmingServer, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        path = Path(get(server.url, tmp_path / "cache"))
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)]
    assert modes == [0o644, 0o755, 0o755]


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "Ctrl-C"]
)
@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_no_partial_file_is_left_when_storing_fails(
    server: SwarmingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, call: str
) -> None:
    (tmp_path / "bot_code").mkdir()

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises((BotCodeError, KeyboardInterrupt)) as caught:
        get(server.url, tmp_path)
    assert stored(tmp_path) == []
    if isinstance(caught.value, BotCodeError):
        assert caught.value.errno == errno.ENOSPC
        assert str(tmp_path / "bot_code") in str(caught.value.remedy)


def test_a_write_that_the_kernel_refuses_leaves_nothing(server: SwarmingServer, tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "from swarmcg.bot_code import fetch\n"
        "from swarmcg.errors import BotCodeError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    fetch(sys.argv[1], 'b', sys.argv[2])\n"
        "except BotCodeError as e:\n    print(e.errno)\n"
    )
    command = [sys.executable, "-c", program, server.url, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == str(errno.EFBIG)
    assert stored(tmp_path) == []


def published(server: SwarmingServer, cache: Path, count: int, age: float, **limits: Any) -> list[Path]:
    paths = []
    for number in range(count):
        server.publish(packed(__main__=str(number)), f"{number:064x}")
        paths.append(Path(get(server.url, cache, **limits)))
        at = time.time() - age + number
        os.utime(paths[-1], (at, at))
    return paths


def test_the_oldest_zips_are_pruned(server: SwarmingServer, tmp_path: Path) -> None:
    paths = published(server, tmp_path, 5, age=7200, kept=2)
    assert [path.exists() for path in paths] == [False, False, False, True, True]
    assert sum(name.endswith(".seen") for name in stored(tmp_path)) == 2


def test_what_was_used_lately_is_not_pruned(server: SwarmingServer, tmp_path: Path) -> None:
    assert all(path.exists() for path in published(server, tmp_path, 4, age=600, kept=1))


def test_use_makes_a_zip_recent(server: SwarmingServer, tmp_path: Path) -> None:
    [old] = published(server, tmp_path, 1, age=7200, kept=1)
    get(server.url, tmp_path)
    server.publish(packed(__main__="new"), "f" * 64)
    get(server.url, tmp_path, kept=1)
    assert old.exists()


def test_what_another_process_is_about_to_use_is_not_pruned(server: SwarmingServer, tmp_path: Path) -> None:
    [old] = published(server, tmp_path, 1, age=7200)
    holder = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print(flush=True); input()"
    )
    command = [sys.executable, "-c", holder, str(old)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server.publish(packed(__main__="new"), "e" * 64)
        get(server.url, tmp_path, kept=1)
        assert old.exists()
        process.communicate(b"\n")
    server.publish(packed(__main__="newer"), "f" * 64)
    get(server.url, tmp_path, kept=1)
    assert not old.exists()


def test_files_that_a_killed_process_left_are_removed_in_time(server: SwarmingServer, tmp_path: Path) -> None:
    (tmp_path / "bot_code").mkdir()
    old, new = (tmp_path / "bot_code" / f".incoming-{name}" for name in ("old", "new"))
    old.write_text("x")
    new.write_text("x")
    os.utime(old, (0, 0))
    get(server.url, tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_many_at_once_share_one_cache(server: SwarmingServer, tmp_path: Path) -> None:
    paths: list[str] = []
    threads = [threading.Thread(target=lambda: paths.append(get(server.url, tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [paths[0]] * 8
    assert len(stored(tmp_path)) == 2


def zip_at(path: Path) -> Path:
    path.write_bytes(packed(__main__="1"))
    return path


def test_install_copies_and_never_links(tmp_path: Path) -> None:
    source = zip_at(tmp_path / "source.zip")
    work = tmp_path / "work"
    work.mkdir()
    final = Path(install(source, work))
    assert final == work / "swarming_bot.zip"
    assert final.read_bytes() == source.read_bytes()
    assert final.stat().st_nlink == 1
    final.write_bytes(b"rewritten by the bot")
    assert source.read_bytes() != final.read_bytes()
    assert os.listdir(work) == ["swarming_bot.zip"]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("break_it", ["shutil.copyfileobj", "os.replace"])
def test_an_install_that_fails_leaves_the_directory_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_it: str
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "swarming_bot.zip").write_text("earlier")
    monkeypatch.setattr(break_it, full_disk)
    with pytest.raises(BotCodeError) as caught:
        install(zip_at(tmp_path / "source.zip"), work)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(work) == ["swarming_bot.zip"]
    assert (work / "swarming_bot.zip").read_text() == "earlier"


@pytest.mark.parametrize("missing", ["source.zip", "work"])
def test_install_names_what_is_missing(tmp_path: Path, missing: str) -> None:
    if missing == "work":
        zip_at(tmp_path / "source.zip")
    else:
        (tmp_path / "work").mkdir()
    with pytest.raises(BotCodeError) as caught:
        install(tmp_path / "source.zip", tmp_path / "work")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.path is not None
    assert missing in caught.value.path


def test_loading_the_module_does_not_load_urllib() -> None:
    program = "import sys, swarmcg.bot_code; print('urllib.request' in sys.modules, 'zipfile' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert told.stdout.split() == ["False", "False"]
