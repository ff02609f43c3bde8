"""One GET at a time, bounded in time and size, over an opener that may bring authentication and proxies.

This module loads urllib and is itself loaded only for a download.
"""

import contextlib
import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from swarmcg.bot_code.patience import TooMuchError, tamed
from swarmcg.errors import BotCodeError, ConfigError

if TYPE_CHECKING:
    from swarmcg.bot_code.attempts import Limits

__all__ = ["Answer", "Deadline", "Passing", "Session", "entry_address"]

_CHUNK: Final = 1 << 16
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_URL_CHARACTERS: Final = "%:/?#[]@!$&'()*+,;=-._~"
_HOST: Final = re.compile(r"(?=.{1,254}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
"""What the codec idna, through which the socket puts every name, and the resolver take (RFC 1035, 2.3.4)."""
_MOST_DIGITS: Final = 18
_NAMES_THE_CALLER: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


class Deadline(NamedTuple):
    """A moment on a clock in seconds, after which nothing goes on."""

    at: float
    clock: Callable[[], float]

    def left(self) -> float:
        """Seconds until then, negative afterwards."""
        return self.at - self.clock()


class Passing(Exception):  # noqa: N818  it is no error yet: it becomes one when no attempt is left
    """A failure that may be gone at the next attempt."""

    def __init__(self, error: BotCodeError) -> None:
        super().__init__(error)
        self.error: Final = error


def entry_address(url: object, bot_id: str) -> str:
    """Where the code for this bot is asked for. Raises ConfigError when the URL cannot be a Swarming
    server's.
    """
    fault = _url_fault(url)
    if fault is not None:
        raise ConfigError(
            "The URL of the Swarming server is unusable",
            value=url,
            cause=fault,
            remedy="Give it as in https://swarming.example.com, without a user; "
            "in the library, an opener of your own can authenticate.",
        )
    return f"{str(url).rstrip('/')}/bot_code?bot_id={urllib.parse.quote(bot_id, safe='')}"


def _url_fault(url: object) -> str | None:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return "it is no text of characters that a URL can hold"
    if "?" in url or "#" in url:
        return "it has a query or a fragment"
    return _target_fault(url)


def _target_fault(url: str) -> str | None:
    """Why nothing can be asked from an address: its scheme or host."""
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  it raises for a port that is none
    except ValueError as e:
        return str(e)
    host = parts.hostname or ""
    faults = {
        "it does not begin with http:// or https://": parts.scheme not in {"http", "https"},
        "it names no host": not host,
        "it holds a user name, which errors and logs would show": "@" in parts.netloc,
        f"{host!r} is no name of a host: that is letters, digits, - and _, up to 63 between two dots": (
            "[" not in parts.netloc and _HOST.fullmatch(host) is None
        ),
    }
    return next((fault for fault, found in faults.items() if found), None)


class Answer:
    """What a server answered: either another place to look, or the body."""

    def __init__(self, response: Any, location: str | None, session: "Session") -> None:
        self._response: Final = response
        self._session: Final = session
        self.location: Final = location

    def body(self) -> Iterator[bytes]:
        """The body, piece by piece. Raises Passing when it breaks off, BotCodeError when it is too big."""
        limit = self._session.limits.max_bytes
        with self._session.network_errors():
            announced = _content_length(self._response)
        received = 0
        while received <= limit and (announced is None or announced <= limit):
            chunk = self._read()
            if not chunk:
                break
            received += len(chunk)
            yield chunk
        else:
            raise self._session.too_big(max(announced or 0, received))
        if announced is not None and received != announced:
            raise self._session.passing(
                f"{received} of {announced} bytes came before the connection was closed"
            )

    def _read(self) -> bytes:
        with self._session.network_errors():
            data: bytes = self._response.read(_CHUNK)
            return data


def _content_length(response: Any) -> int | None:
    """The length that the server announced; None where it did not, or where chunks tell their own.

    Raises ValueError for one with more digits than any length has.
    """
    text = response.headers.get("Content-Length", "")
    chunked = response.headers.get("Transfer-Encoding") is not None
    if chunked or not (text.isascii() and text.isdigit()):
        return None
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"the server announced a length of {len(text)} digits")
    return int(text)


class Session:
    """The requests that together get one bot's code."""

    def __init__(
        self,
        address: str,
        bot_id: str,
        opener: urllib.request.OpenerDirector | None,
        deadline: Deadline,
        limits: "Limits",
    ) -> None:
        self.limits: Final = limits
        self._address: Final = address
        self._bot_id: Final = bot_id
        self._deadline: Final = deadline
        base = urllib.request.build_opener() if opener is None else opener
        self._headers: Final = list(base.addheaders)
        self._opener: Final = tamed(base, self._patience, limits.max_bytes)

    @contextlib.contextmanager
    def get(self, target: str) -> Iterator[Answer]:
        """The answer from an address: a redirect or status 200. Raises Passing or BotCodeError for any
        other.
        """
        with contextlib.closing(self._open(target)) as response:
            if response.status in _REDIRECTS:
                yield Answer(response, self._location(target, response.headers.get("Location")), self)
            elif response.status == http.client.OK:
                yield Answer(response, None, self)
            else:
                raise self._refused(response.status, response.reason)

    def error(self, what: str, **facts: Any) -> BotCodeError:
        """A BotCodeError about the address that was asked first."""
        return BotCodeError(what, path=self._address, **facts)

    def too_big(self, size: int) -> BotCodeError:
        """More bytes came, or were announced, than are allowed."""
        return self.error(
            "The bot code is too big",
            value=size,
            cause=f"{self.limits.max_bytes} bytes are allowed",
            remedy="Check that the URL is the Swarming server's own, or allow more (Limits.max_bytes).",
        )

    def passing(self, cause: str, errno: int | None = None) -> Passing:
        """A failure of the network, or of a server that does not answer as it should."""
        return Passing(
            self.error(
                "The bot code cannot be downloaded",
                errno=errno,
                cause=cause,
                remedy="Check that the server runs, that this host resolves and reaches it, "
                "and the proxies in the environment (http_proxy, https_proxy, no_proxy).",
            )
        )

    @contextlib.contextmanager
    def network_errors(self) -> Iterator[None]:
        """What the network raises inside becomes Passing; a certificate that does not hold is final, and so is an
        answer beyond all bounds.

        http.client raises ValueError for numbers that are none (sizes of chunks), the socket for names that are
        none (those of proxies are looked at nowhere else).
        """
        try:
            yield
        except TooMuchError as e:
            raise self.too_big(e.size) from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            root = e.reason if isinstance(e, urllib.error.URLError) else e
            if isinstance(root, ssl.SSLCertVerificationError):
                raise self._distrusted(root) from e
            raise self._broken(root) from e

    def _broken(self, root: object) -> Passing:
        if isinstance(root, TimeoutError):
            over = self._deadline.left() <= 0
            return self.passing(
                f"it was not complete after {self.limits.total:g} s in all"
                if over
                else "the server fell silent"
            )
        kernel = root.errno if isinstance(root, OSError) and not isinstance(root, ssl.SSLError) else None
        known = kernel is not None and kernel > 0  # the resolver's own codes are negative
        return self.passing(
            "the network failed" if known else f"{root}" or repr(root), kernel if known else None
        )

    def _distrusted(self, root: ssl.SSLCertVerificationError) -> BotCodeError:
        return self.error(
            "The server's certificate is not trusted",
            cause=root.verify_message or str(root),
            remedy="Check the host's clock and CA bundle (SSL_CERT_FILE), or pass an opener of your own.",
        )

    def _open(self, target: str) -> Any:
        request = urllib.request.Request(target)  # noqa: S310  http and https only: checked before
        self._opener.addheaders = [
            (name, value)
            for name, value in self._headers
            if _origin(target) == _origin(self._address) or name.lower() not in _NAMES_THE_CALLER
        ]
        with self.network_errors():
            try:
                return self._opener.open(request, timeout=min(self.limits.connect, self._patience()))
            except urllib.error.HTTPError as e:
                return e

    def _patience(self) -> float:
        """How long the next byte may take. Raises TimeoutError when there is no time left."""
        left = self._deadline.left()
        if left <= 0:
            raise TimeoutError
        return min(left, self.limits.silence)

    def _location(self, here: str, location: str | None) -> str:
        try:
            target, _ = urllib.parse.urldefrag(urllib.parse.urljoin(here, location or ""))
            fault = _target_fault(target)
        except ValueError as e:
            target, fault = "", str(e)
        if location and fault is None and (target.startswith("https:") or here.startswith("http:")):
            return urllib.parse.quote(target, safe=_URL_CHARACTERS)
        rule = "a redirect leads to http or https, and from https to https only"
        raise self.error(
            "The server redirects to where no bot code is taken from",
            value=location,
            cause=f"{rule}; {fault}" if fault else rule,
            remedy="Check that the URL is the Swarming server's own, and what stands before it.",
        )

    def _refused(self, status: int, reason: str) -> Exception:
        cause = f"the server answered {status} {reason}"
        if status >= http.client.INTERNAL_SERVER_ERROR:
            error = self.error(
                "The bot code cannot be downloaded",
                status=status,
                cause=cause,
                remedy="The server has a fault of its own: look at its logs, and try again later.",
            )
            return Passing(error)
        return self.error(
            "The server does not give the bot code", status=status, cause=cause, remedy=self._cure(status)
        )

    def _cure(self, status: int) -> str:
        if status == http.client.UNAUTHORIZED:
            return "Pass an opener that authenticates this host to the server."
        if status == http.client.FORBIDDEN:
            return (
                f"Ask the server's administrators to let this host fetch the code of {self._bot_id!r}: "
                "the id must match a bot group whose authentication this host satisfies."
            )
        if status == http.client.NOT_FOUND:
            return "Check that the URL is the root of a Swarming server."
        return "Check the URL, and the server's logs for this request."


def _origin(address: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, parts.netloc.lower()
