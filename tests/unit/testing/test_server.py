"""The embedded server, asked over HTTP as a bot would ask it."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from swarmcg.testing import Event, SwarmingServer, small_bot_version, small_bot_zip

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
    post(server, f"task_update/{task.id}", exit_code=-15, canceled=True)
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
        ("nothing", {}),
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


def test_the_command_tells_its_url_then_what_happens_and_ends(tmp_path: Any) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "swarmcg.testing.server",
        "--task",
        "echo done",
        "--then-terminate",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        (tmp_path / "bot.zip").write_bytes(small_bot_zip(url))
        bot = [sys.executable, tmp_path / "bot.zip", "start_bot"]
        subprocess.run(bot, env=os.environ | {"SWARMING_BOT_ID": "b"}, check=True, timeout=30)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "done\n" in told
    assert told.endswith("b: bot_shutdown The server asked for it\n")
