"""A request and a response, whatever carries them, and what of the two is the same for many routes."""

import hashlib
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec

from serving import intake
from serving.problems import Problem

T = TypeVar("T")

JSON = "application/json"
MAX_WAIT_SECONDS = 60.0  # less than any connection is kept for
_GENERATION_DIGITS = 8
_ENCODER = msgspec.json.Encoder()
_JSON_HEADERS = (("content-type", JSON),)


class Request(NamedTuple):
    """A request of any transport. Header names are in lower case; ``path`` is as sent, without the query.

    ``trusted`` says that the transport has let in none but the shim's own user, who has every role. ``opened`` is what
    `Handler.open` made of a request with the very same head, None where it was not asked.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    trusted: bool = False
    opened: "tuple[Callable[[Request, str], Response], str] | None" = None


class Response(NamedTuple):
    """What to send back; to a HEAD everything but the body.

    ``recorded`` tells that it rests on the log: it must not leave before what the recorder holds is written.
    ``wait_seconds`` is how long the caller would rather wait than hear it, for another release to be served.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = _JSON_HEADERS
    recorded: bool = False
    wait_seconds: float = 0.0


def read_body(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """Return what ``decoder`` reads of a body that must be JSON and say so.

    Raises
    ------
    Problem
        400, 415 or 422.
    """
    if (kind := intake.media_type(request.headers)) != JSON:
        raise Problem(415, f"content-type must be {JSON}, got {kind!r}")
    return intake.strict(decoder, request.body)


def as_json(document: object, status: int = 200) -> Response:
    """Answer with a document in JSON."""
    return Response(status, _ENCODER.encode(document))


def wait_seconds(request: Request) -> float:
    """Return how long the caller would wait for another release: ``?wait=SECONDS``.

    Raises
    ------
    Problem
        422 for none that is sensible.
    """
    text = parse_qs(request.query).get("wait", ["0"])[-1]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds <= MAX_WAIT_SECONDS:
        raise Problem(422, f"wait must be 0 to {MAX_WAIT_SECONDS:g} seconds, got {text!r}", "wait")
    return seconds


def generation_after(request: Request) -> int:
    """Return the generation beyond which the caller asks: ``?after=N``.

    Raises
    ------
    Problem
        422 for none.
    """
    text = parse_qs(request.query).get("after", ["0"])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= _GENERATION_DIGITS):
        raise Problem(422, f"after must be a generation, got {text!r}", "after")
    return int(text)


def as_awaited(request: Request, document: object) -> Response:
    """Answer as `as_tagged`, and let wait for another release who has the document already and wishes to; raises as `wait_seconds`."""
    seconds = wait_seconds(request)
    response = as_tagged(request, document)
    return response._replace(wait_seconds=seconds) if response.status == HTTPStatus.NOT_MODIFIED else response


def as_tagged(request: Request, document: object) -> Response:
    """Answer with an entity tag, or with 304 where the caller has that very document already."""
    body = _ENCODER.encode(document)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    known = [name.strip().removeprefix("W/") for name in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(304, b"", (("etag", tag),))
    return Response(200, body, (("content-type", JSON), ("etag", tag), ("cache-control", "no-cache")))
