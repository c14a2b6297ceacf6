"""What operators ask of the stop switch, from their requests to its journal."""

from urllib.parse import parse_qs

import msgspec

from serving.messages import Request, Response, as_json, read_body
from serving.overrides import StopRequest
from serving.problems import Problem
from serving.shim import Shim

_STOP_REQUEST = msgspec.json.Decoder(StopRequest)


def show(shim: Shim) -> Response:
    """Return the overrides in force."""
    shim.overrides.refresh()
    return as_json(shim.overrides.in_force(shim.clock.now()))


def put(shim: Shim, request: Request) -> Response:
    """Put the override in force that the request wishes.

    Raises
    ------
    Problem
        400 or 422, naming the field.
    """
    wish = read_body(request, _STOP_REQUEST)
    now = shim.clock.now()
    _check_stream(shim, wish.stream)
    if wish.expires_at is not None and wish.expires_at <= now:
        raise Problem(422, f"expires_at must lie ahead of {now.isoformat()}", "$.expires_at")
    override = wish.override(now)
    shim.overrides.refresh()
    saved = shim.overrides.set(override)
    return as_json({"override": override, "saved": saved}, 201)


def clear(shim: Shim, request: Request) -> Response:
    """Take back the override that the request's query names; raises as `put`."""
    wish = {name: values[-1] for name, values in parse_qs(request.query).items()}
    if (kind := wish.get("kind")) != "stop":
        raise Problem(422, f"kind must be 'stop', got {kind!r}", "kind")
    stream = wish.get("stream")
    _check_stream(shim, stream)
    shim.overrides.refresh()
    cleared = shim.overrides.clear(
        kind, stream, actor=wish.get("actor", "unnamed"), reason=wish.get("reason", ""), at=shim.clock.now()
    )
    return as_json({"cleared": cleared})


def _check_stream(shim: Shim, stream: str | None) -> None:
    known = shim.plan.streams
    if stream is not None and stream not in known:
        raise Problem(422, f"stream {stream!r} is not configured, known are {', '.join(known)}", "stream")
