"""The calls to the server: over a connection that is kept, and again and again while the server is away."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import time
import urllib.parse
from typing import Any

LOG = logging.getLogger(__name__)
API = "/swarming/api/v1/bot/"
ATTEMPTS = 30
PERSISTENCE_S = 240.0
LONGEST_PAUSE_S = 10.0
TIMEOUT_S = 60.0
REDIRECTS = 5


class Remote:
    """One server, asked as one bot."""

    def __init__(self, server: str, bot_id: str) -> None:
        self._address = urllib.parse.urlsplit(server).netloc
        self._headers = {"X-Luci-Swarming-Bot-ID": bot_id, "Cookie": "GOOGAPPUID=1"}
        self._bot_id = bot_id
        self._connection = self._new()

    def post(self, name: str, body: dict[str, Any], attempts: int = ATTEMPTS) -> dict[str, Any] | None:
        """The answer; None when the server refused, or could not be reached that often.

        It pays no heed to signals meanwhile: a bot whose server is away is not ended by SIGTERM.
        """
        data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        answer = self._persist("POST", API + name, data, attempts)
        found: dict[str, Any] | None = None if answer is None else json.loads(answer)
        return found

    def ping(self) -> None:
        """Wakes up the network."""
        self._persist("GET", API + "server_ping", None, 1)

    def download(self, version: str, path: str) -> bool:
        """Whether the bot code of a version, or what the server has in its place, is in the file."""
        code = self._persist("GET", f"{API}bot_code/{version}", None, ATTEMPTS)
        if code is None:
            return False
        with open(path, "wb") as file:
            file.write(code)
        return True

    def task_update(
        self,
        task_id: str,
        facts: dict[str, Any],
        output: str = "",
        start: int = 0,
        exit_code: int | None = None,
    ) -> dict[str, Any] | None:
        """What the server says of a task's progress."""
        body = {"id": self._bot_id, "task_id": task_id, **facts}
        if output:
            body.update(output=output, output_chunk_start=start)
        if exit_code is not None:
            body.update(exit_code=exit_code)
        return self.post(f"task_update/{task_id}", body)

    def task_error(self, task_id: str, message: str) -> bool:
        """Whether the server took note that the task could not be run to its end."""
        client_error: dict[str, list[str]] = {"missing_cas": [], "missing_cipd": []}
        body = {"id": self._bot_id, "task_id": task_id, "message": message, "client_error": client_error}
        return (self.post(f"task_error/{task_id}", body) or {}).get("resp") == 1

    def _persist(self, method: str, path: str, data: bytes | None, attempts: int) -> bytes | None:
        end = time.monotonic() + PERSISTENCE_S
        for attempt in range(attempts):
            if attempt:
                time.sleep(min(LONGEST_PAUSE_S, random.random() * 1.5 + 1.5 ** (attempt - 2)))  # noqa: S311
            if time.monotonic() > end:
                break
            try:
                status, answer = self._ask(method, path, data)
            except (OSError, http.client.HTTPException) as e:
                LOG.warning("%s: %r", path, e)
                self._connection.close()
                continue
            if status < 400:  # noqa: PLR2004
                return answer
            LOG.warning("%s: %d %r", path, status, answer[:200])
            if status < 500:  # noqa: PLR2004
                break
        return None

    def _ask(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        headers = self._headers
        if data is not None:
            headers = {**headers, "Content-Type": "application/json; charset=UTF-8"}
        for _ in range(REDIRECTS):
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            found = answer.read()
            if answer.status != 302:  # noqa: PLR2004
                return answer.status, found
            path = answer.headers["Location"]
        raise http.client.HTTPException("too many redirects")

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(OSError):
            self._connection.close()
