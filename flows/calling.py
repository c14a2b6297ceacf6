"""A call to a server's JSON interface, with a deadline, by the standard library: it works where only the shim is installed."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_MAX_REPLY_BYTES = 16 * 1024 * 1024
_OK = range(200, 300)


class UnreachableError(OSError):
    """A server that did not answer: names its address and why."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered; ``document`` is the JSON, or the text where it is none; names of ``headers`` are lower-case."""

    status: int
    document: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the server did what it was asked."""
        return self.status in _OK


def call(
    method: str, url: str, *, body: object = None, token: str | None = None, timeout_seconds: float = 5.0
) -> Reply:
    """Send ``body`` as JSON and return the reply, whatever its status.

    Raises
    ------
    UnreachableError
        If there is no reply within the deadline.
    ValueError
        If ``url`` is no http or https address.
    """
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"an address must begin with http:// or https://, got {url!r}")
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    path = f"{address.path or '/'}?{address.query}" if address.query else address.path or "/"
    connection = kind(address.hostname, address.port, timeout=timeout_seconds)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Reply(status=response.status, document=_decode(response.read(_MAX_REPLY_BYTES)), headers=told)
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url} does not answer: {error or type(error).__name__}") from None
    finally:
        connection.close()


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")
