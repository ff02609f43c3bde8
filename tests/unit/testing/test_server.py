"""The embedded server, asked over HTTP as a bot would ask it."""

import base64
import contextlib
import gzip
import http.client
import io
import json
import os
import socket
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swarmcg.testing import Event, SwarmingServer, faults, small_bot_version, small_bot_zip

API = "/swarming/api/v1/bot/"


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    with SwarmingServer(sleep=7) as running:
        yield running
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def get(server: SwarmingServer, path: str) -> bytes:
    with urllib.request.urlopen(server.url + path) as answer:
        found: bytes = answer.read()
        return found


def post(server: SwarmingServer, call: str, **body: Any) -> dict[str, Any]:
    about = {"dimensions": {"id": ["b"]}, "version": server.version}
    request = urllib.request.Request(server.url + API + call, json.dumps(about | body).encode())
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def encoded(output: bytes) -> str:
    return base64.b64encode(output).decode()


def test_the_code_is_behind_a_redirect_to_its_version(server: SwarmingServer) -> None:
    for path in (
        "/bot_code?bot_id=b",
        API + "bot_code",
        API + "bot_code/old",
        f"{API}bot_code/{server.version}?x=1",
    ):
        assert get(server, path) == server.zip
    assert server.downloads() == 6
    assert server.requests[1] == ("GET", f"{API}bot_code/{server.version}")


def test_what_a_bot_asks_besides_is_answered(server: SwarmingServer) -> None:
    assert get(server, API + "server_ping")
    config = json.loads(get(server, "/auth/api/v1/server/oauth_config"))
    assert config.keys() == {"client_id", "client_not_so_secret", "primary_url"}
    token = post(server, "oauth_token")
    assert token == {"service_account": "none", "access_token": None, "expiry": 0}
    assert post(server, "id_token")["id_token"] is None


def test_a_handshake_tells_the_live_version_and_the_hooks(server: SwarmingServer) -> None:
    server.configure("# hooks")
    answer = post(server, "handshake")
    assert answer["bot_version"] == server.version
    assert answer["bot_config"] == "# hooks"
    assert answer["bot_group_cfg"] == {"dimensions": {"pool": ["default"]}}
    assert answer["session"]
    assert server.wait_for_event("bot_connected", "b", 0) == Event("b", "bot_connected", "")


def test_polls_are_answered_in_order_of_urgency(server: SwarmingServer) -> None:
    assert post(server, "poll") == {"cmd": "sleep", "duration": 7}
    task = server.give_task(["true"], grace_period=3)
    server.give_task(["other"], bot_id="somebody else")
    server.restart("b", "why")
    server.terminate("b")
    assert post(server, "poll") == {"cmd": "bot_restart", "message": "why"}
    assert post(server, "poll")["cmd"] == "terminate"
    manifest = post(server, "poll")["manifest"]
    assert (manifest["task_id"], manifest["command"], manifest["grace_period"]) == (task.id, ["true"], 3)
    assert manifest["host"] == server.url
    assert post(server, "poll")["cmd"] == "sleep"


def test_a_bot_of_another_version_is_told_to_update(server: SwarmingServer) -> None:
    server.publish(server.zip, "new")
    assert post(server, "poll", version="old") == {"cmd": "update", "version": "new"}


def test_a_task_is_followed_to_its_end(server: SwarmingServer) -> None:
    task = server.give_task(["echo"])
    with pytest.raises(TimeoutError):
        task.wait_until_running(0)
    post(server, "poll")
    task.wait_until_running(0)
    call = f"task_update/{task.id}"
    assert post(server, call, output=encoded(b"abc")) == {"ok": True, "must_stop": False}
    with pytest.raises(TimeoutError, match="RUNNING"):
        task.wait(0)
    post(server, call, output=encoded(b"DE"), output_chunk_start=3, exit_code=4)
    assert (task.wait(0), task.output, task.exit_code) == ("COMPLETED", b"abcDE", 4)


def test_a_task_that_runs_is_cancelled_through_its_bot(server: SwarmingServer) -> None:
    task = server.give_task(["sleep"])
    post(server, "poll")
    server.cancel(task)
    assert post(server, f"task_update/{task.id}")["must_stop"] is True
    post(server, f"task_update/{task.id}", exit_code=-15)
    assert task.wait(0) == "KILLED"


def test_a_task_that_waits_is_cancelled_at_once(server: SwarmingServer) -> None:
    task = server.give_task(["sleep"])
    server.cancel(task)
    assert task.wait(0) == "CANCELED"
    assert post(server, "poll")["cmd"] == "sleep"


def test_a_task_that_took_too_long_is_told_apart(server: SwarmingServer) -> None:
    task = server.give_task(["sleep"])
    post(server, "poll")
    post(server, f"task_update/{task.id}", exit_code=-9, hard_timeout=True)
    assert task.wait(0) == "TIMED_OUT"


def test_a_task_that_was_cancelled_before_its_command_began_says_so(server: SwarmingServer) -> None:
    task = server.give_task(["sleep"])
    post(server, "poll")
    server.cancel(task)
    post(server, f"task_update/{task.id}", exit_code=-1, canceled=True)
    assert task.wait(0) == "CANCELED"


def test_a_poll_that_is_asked_again_gets_the_same_task(server: SwarmingServer) -> None:
    task, other = server.give_task(["sleep"]), server.give_task(["other"])
    first = post(server, "poll", request_uuid="1")
    assert post(server, "poll", request_uuid="1") == first
    assert (task.state, other.state) == ("RUNNING", "PENDING")


@pytest.mark.parametrize("call", ["poll", "handshake"])
def test_a_bot_that_begins_anew_has_lost_its_task(server: SwarmingServer, call: str) -> None:
    task = server.give_task(["sleep"])
    post(server, "poll", request_uuid="1")
    post(server, call, request_uuid="2")
    assert task.wait(0) == "BOT_DIED"


def test_an_error_that_comes_late_does_not_change_how_a_task_ended(server: SwarmingServer) -> None:
    task = server.give_task(["true"])
    post(server, "poll")
    post(server, f"task_update/{task.id}", exit_code=0)
    post(server, f"task_error/{task.id}", message="late")
    assert (task.state, task.error) == ("COMPLETED", "late")


def test_bots_are_known_by_what_they_did_last(server: SwarmingServer) -> None:
    def seen() -> list[tuple[str, str, str]]:
        return [(bot.bot_id, bot.version, bot.state) for bot in server.bots]

    assert seen() == []
    post(server, "handshake", version="1")
    assert seen() == [("b", "1", "idle")]
    task = server.give_task(["true"])
    post(server, "poll")
    assert seen() == [("b", server.version, f"running {task.id}")]
    post(server, f"task_update/{task.id}", exit_code=0)
    assert seen() == [("b", server.version, "idle")]
    post(server, "event", event="bot_shutdown")
    assert seen() == [("b", server.version, "left")]


def test_a_host_can_be_rebooted(server: SwarmingServer) -> None:
    server.reboot("b", "now")
    assert post(server, "poll") == {"cmd": "host_reboot", "message": "now"}


def test_a_manifest_has_the_fields_that_the_stock_bot_wants_and_no_others(server: SwarmingServer) -> None:
    server.give_task(["true"])
    manifest = post(server, "poll")["manifest"]
    assert set(manifest) == {
        "bot_id", "bot_authenticated_as", "bot_dimensions", "caches", "cas_input_root", "cipd_input", "command",
        "dimensions", "env", "env_prefixes", "grace_period", "hard_timeout", "host", "io_timeout", "outputs",
        "realm", "relative_cwd", "resultdb", "secret_bytes", "service_accounts", "task_id",
    }  # fmt: skip
    assert manifest["task_id"].endswith("1")
    assert manifest["service_accounts"]["system"] == {"service_account": "none"}


def test_a_bot_may_name_itself_in_a_header_or_not_at_all(server: SwarmingServer) -> None:
    for headers, name in (({"X-Luci-Swarming-Bot-ID": "from header"}, "from header"), ({}, "unknown")):
        request = urllib.request.Request(server.url + API + "event", b'{"event": "here"}', headers)
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b"{}"
        assert server.events[-1] == Event(name, "here", "")


def test_a_call_that_nobody_knows_is_answered_and_noted(server: SwarmingServer) -> None:
    for path in (API + "rbe/session/create", "/ereporter2/api/v1/on_error"):
        with urllib.request.urlopen(server.url + path, b"") as answer:
            assert answer.read() == b"{}"
        assert server.events[-1] == Event("unknown", "unknown_call", path)


def test_a_package_that_is_kept_can_be_had_and_be_made_live(server: SwarmingServer) -> None:
    first = server.version
    server.keep(b"second", "2")
    assert (server.version, server.versions) == (first, [first, "2"])
    assert get(server, API + "bot_code/2") == b"second"
    assert get(server, API + "bot_code/2?x=1") == server.zip != b"second"
    server.publish(None, "2")
    assert get(server, API + "bot_code") == b"second"
    with pytest.raises(KeyError):
        server.publish(None, "3")
    assert server.version == "2"


@pytest.mark.parametrize("how", ["query", "header"])
def test_a_bot_that_may_not_have_the_code_is_told_in_text(server: SwarmingServer, how: str) -> None:
    server.forbid("b&c")
    asked = urllib.request.Request(server.url + "/bot_code")
    if how == "header":
        asked.add_header("X-Luci-Swarming-Bot-ID", "b&c")
    else:
        asked = urllib.request.Request(server.url + "/bot_code?bot_id=b%26c")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked)
    with caught.value as error:
        assert (error.code, error.headers["Content-Type"]) == (403, "text/plain")


def test_one_connection_serves_many_calls(server: SwarmingServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        addresses = set()
        for call in ("handshake", "poll", "poll"):
            connection.request("POST", API + call, json.dumps({"dimensions": {"id": ["b"]}}))
            addresses.add(connection.sock.getsockname())
            answer = connection.getresponse()
            assert (answer.version, answer.getheader("Content-Length")) == (11, str(len(answer.read())))
        connection.request("GET", API + "nothing")
        assert connection.getresponse().read() == b'{"error": "not found"}\n'
        connection.request("GET", API + "bot_code")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (302, b"")
        addresses.add(connection.sock.getsockname())
        assert len(addresses) == 1


def test_a_fault_ends_its_connection(server: SwarmingServer) -> None:
    server.fail("poll", faults.status(500))
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", API + "poll", b"{}")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (500, "close")


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_body_may_be_compressed(
    server: SwarmingServer, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = pack(b'{"dimensions": {"id": ["packed"]}}')
    request = urllib.request.Request(server.url + API + "handshake", body, {"Content-Encoding": encoding})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["session"] == "session-packed"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "gzip"}, 400),
        ({"Content-Encoding": "br"}, 415),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "9" * 12}, 413),
    ],
)
def test_a_body_that_cannot_be_had_is_refused(
    server: SwarmingServer, headers: dict[str, str], status: int
) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", API + "poll", b"{}", headers)
        assert connection.getresponse().status == status


def test_an_aborted_task_keeps_its_message(server: SwarmingServer) -> None:
    task = server.give_task(["sleep"])
    post(server, "poll")
    assert post(server, f"task_error/{task.id}", message="aborted") == {"resp": 1}
    assert (task.wait(0), task.error) == ("BOT_DIED", "aborted")


def test_a_bot_that_leaves_takes_its_task_with_it(server: SwarmingServer) -> None:
    task = server.give_task(["sleep"])
    post(server, "poll")
    assert post(server, "event", event="bot_shutdown", message="bye") == {}
    assert task.wait(0) == "BOT_DIED"
    assert server.events[-1] == Event("b", "bot_shutdown", "bye")


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("task_update/1", {}),
        ("poll", {"dimensions": {}}),
        ("handshake", {"dimensions": 3}),
        ("task_update/0000000000000011", {"output": "not base64!"}),
        ("task_update/0000000000000011", {"output_chunk_start": -1}),
        ("task_update/0000000000000011", {"output_chunk_start": 1 << 60}),
    ],
)
def test_what_makes_no_sense_is_answered_400(server: SwarmingServer, call: str, body: dict[str, Any]) -> None:
    server.give_task(["true"])
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server, call, **body)
    with caught.value as error:
        assert error.code == 400


def test_an_unknown_page_is_answered_404(server: SwarmingServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, "/else")
    with caught.value as error:
        assert error.code == 404


def test_waiting_for_what_does_not_happen_ends(server: SwarmingServer) -> None:
    with pytest.raises(TimeoutError, match="no bot_shutdown of b"):
        server.wait_for_event("bot_shutdown", "b", 0.01)


def test_it_ends_while_clients_hold_connections(server: SwarmingServer) -> None:
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with SwarmingServer() as other, socket.create_connection(address):
        idle = socket.create_connection(("127.0.0.1", int(other.url.rpartition(":")[2])))
        other.give_task(["true"])
        post(other, "poll")  # its thread came after the one of the idle connection
    with idle:
        assert idle.recv(1) == b""


def test_the_small_bot_is_packed_the_same_each_time() -> None:
    packed = small_bot_zip("http://host:1")
    assert packed == small_bot_zip("http://host:1")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        config = json.loads(archive.read("config.json"))
    assert config == {"server": "http://host:1", "version": small_bot_version("http://host:1")}
    assert small_bot_version("http://host:2") != config["version"]
