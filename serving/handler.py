"""Requests in, responses out, whatever carries them: an exhaustive table of routes, and nothing beside it."""

import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qs, unquote

import msgspec

from features import clock
from features.clock import ReplayClock
from serving import intake, inventory, metrics, problems
from serving.overrides import StopRequest
from serving.problems import Problem
from serving.settings import Settings
from serving.shim import Shim

JSON = "application/json"
REPLAY_HEADER = "turnout-time"
_ENCODER = msgspec.json.Encoder()
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True)
class Request:
    """A request of any transport. Header names are in lower case; ``path`` is as sent, without the query."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """What to send back."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("content-type", JSON),)


_STOP_REQUEST = msgspec.json.Decoder(StopRequest)
_Route = Callable[[Request, str], Response]
_LOGGER = logging.getLogger("turnout.shim")


class Handler:
    """Answers requests for one shim. It never raises: what it cannot answer, it answers with a problem document."""

    def __init__(self, shim: Shim, settings: Settings) -> None:
        """Answer for ``shim``; ``settings`` say which token opens it, and whether requests may bring their own time."""
        self._shim = shim
        self._settings = settings
        self._authorization = f"Bearer {settings.token}".encode() if settings.token else None
        self._hosts = _LOOPBACK_NAMES | {settings.host}
        self.draining = False
        self._routes: Mapping[tuple[str, ...], Mapping[str, _Route]] = {
            ("v1", "decisions"): {"POST": self._decide},
            ("v1", "decisions", "*"): {"GET": self._show_decision},
            ("v1", "outcomes"): {"POST": self._report},
            ("v1", "models", "*", "current"): {"GET": self._show_model},
            ("v1", "forecast", "*"): {"GET": self._show_forecast},
            ("v1", "overrides"): {
                "GET": self._list_overrides,
                "POST": self._set_override,
                "DELETE": self._clear_override,
            },
            ("health", "live"): {"GET": self._live},
            ("health", "ready"): {"GET": self._ready},
            ("status",): {"GET": self._status},
            ("metrics",): {"GET": self._metrics},
        }

    def handle(self, request: Request) -> Response:
        """Return the response to ``request``."""
        try:
            if not request.path.startswith("/health/"):
                self._admit(request)
            route, argument = self._find_route(request)
            return route(request, argument)
        except Problem as problem:
            return self.refuse(problem)
        except Exception as error:  # one bad request must cost nobody else anything
            _LOGGER.exception("%s %s", request.method, request.path)
            return self.refuse(Problem(500, f"internal error: {type(error).__name__}"))

    def refuse(self, problem: Problem) -> Response:
        """Return ``problem`` as a response, counted."""
        self._shim.metrics.count_problem(problem.status)
        headers = [("content-type", problems.CONTENT_TYPE)]
        if problem.status == 401:  # noqa: PLR2004 - RFC 9110 wants the scheme named
            headers.append(("www-authenticate", "Bearer"))
        elif problem.status == 503:  # noqa: PLR2004 - RFC 9110's "come back later"
            headers.append(("retry-after", "1"))
        elif problem.status in (408, 413):  # the rest of the body is on its way: nobody will read it
            headers.append(("connection", "close"))
        elif allowed := problem.extensions.get("allowed"):
            headers.append(("allow", ", ".join(allowed)))
        return Response(problem.status, problem.body(), tuple(headers))

    def _find_route(self, request: Request) -> tuple[_Route, str]:
        """Return the route of a path, and what stands in the path where the route has ``*``."""
        parts = tuple(request.path.split("/"))[1:]
        if "%" in request.path:
            parts = tuple(map(unquote, parts))
        for pattern in (parts, (*parts[:-1], "*"), (*parts[:-2], "*", *parts[-1:])):
            methods = self._routes.get(pattern)
            if methods is None:
                continue
            if request.method not in methods:
                allowed = {"allowed": sorted(methods)}
                raise Problem(405, f"{request.method} is not for {request.path}", extensions=allowed)
            argument = next((part for part, name in zip(parts, pattern, strict=True) if name == "*"), "")
            return methods[request.method], argument
        raise Problem(404, f"there is no {request.path}")

    def _admit(self, request: Request) -> None:
        """Refuse whoever lacks the token; without one, whoever calls this machine by a foreign name (a web page may)."""
        if self._authorization is not None:
            given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._authorization):
                raise Problem(401, "the request needs the token: authorization: Bearer …")
            return
        host = request.headers.get("host", "localhost")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._hosts:
            raise Problem(403, f"the host {host!r} is not this shim's")

    def _instant(self, request: Request) -> datetime:
        """Return the instant of the request: its own under replay, else the clock's."""
        text = request.headers.get(REPLAY_HEADER)
        if text is None:
            return self._shim.clock.now()
        if not self._settings.replay:
            raise Problem(400, f"{REPLAY_HEADER} is read by a shim that was started for replay", REPLAY_HEADER)
        try:
            at = clock.utc(datetime.fromisoformat(text))
        except (ValueError, OverflowError) as error:
            raise Problem(400, f"{REPLAY_HEADER} must be an RFC 3339 instant: {error}", REPLAY_HEADER) from None
        if isinstance(self._shim.clock, ReplayClock):
            self._shim.clock.advance(at)
        return at

    def _decide(self, request: Request, _: str) -> Response:
        requests, batch = intake.decision_requests(request.headers, request.body)
        answers = self._shim.decide(requests, self._instant(request))
        if batch:
            return _json([{"problem": a.document()} if isinstance(a, Problem) else a for a in answers])
        (answer,) = answers
        if isinstance(answer, Problem):
            raise answer
        return _json(answer)

    def _report(self, request: Request, _: str) -> Response:
        self._instant(request)  # a replayed outcome moves the clock as well
        keys = self._shim.accept(intake.outcomes(request.headers, request.body))
        return _json({"accepted": len(keys), "idempotency_keys": keys}, 202)

    def _show_decision(self, _: Request, decision_id: str) -> Response:
        decision = self._shim.decision(decision_id)
        if decision is None:
            raise Problem(404, f"no recent decision has the id {decision_id!r}")
        return _json(decision)

    def _show_model(self, request: Request, name: str) -> Response:
        return _tagged(request, inventory.current_model(self._shim.releases.view, name))

    def _show_forecast(self, request: Request, series: str) -> Response:
        return _tagged(request, inventory.forecast(self._shim.releases.view, series))

    def _list_overrides(self, _: Request, __: str) -> Response:
        return _json(self._shim.overrides.in_force(self._shim.clock.now()))

    def _set_override(self, request: Request, _: str) -> Response:
        if (kind := intake.media_type(request.headers)) != JSON:
            raise Problem(415, f"content-type must be {JSON}, got {kind!r}")
        wish = intake.strict(_STOP_REQUEST, request.body)
        now = self._shim.clock.now()
        self._check_stream(wish.stream)
        if wish.expires_at is not None and wish.expires_at <= now:
            raise Problem(422, f"expires_at must lie ahead of {now.isoformat()}", "$.expires_at")
        override = wish.override(now)
        saved = self._shim.overrides.set(override)
        return _json({"override": override, "saved": saved}, 201)

    def _clear_override(self, request: Request, _: str) -> Response:
        wish = {name: values[-1] for name, values in parse_qs(request.query).items()}
        if (kind := wish.get("kind")) != "stop":
            raise Problem(422, f"kind must be 'stop', got {kind!r}", "kind")
        self._check_stream(wish.get("stream"))
        cleared = self._shim.overrides.clear(
            kind,
            wish.get("stream"),
            actor=wish.get("actor", "unnamed"),
            reason=wish.get("reason", ""),
            at=self._shim.clock.now(),
        )
        return _json({"cleared": cleared})

    def _check_stream(self, stream: str | None) -> None:
        known = self._shim.plan.streams
        if stream is not None and stream not in known:
            raise Problem(422, f"stream {stream!r} is not configured, known are {', '.join(known)}", "stream")

    def _live(self, _: Request, __: str) -> Response:
        return _json({"status": "live"})

    def _ready(self, _: Request, __: str) -> Response:
        if self.draining:
            raise Problem(503, "draining")
        problems_found = inventory.problems(self._shim)
        return _json({"status": "degraded" if problems_found else "ready", "problems": problems_found})

    def _status(self, _: Request, __: str) -> Response:
        return _json(inventory.status(self._shim, self._shim.clock.now()))

    def _metrics(self, _: Request, __: str) -> Response:
        generation, degraded = self._shim.releases.view.generation, bool(inventory.problems(self._shim))
        body = self._shim.metrics.render(
            generation=generation, degraded=degraded, engines=inventory.engines(self._shim.releases.view)
        )
        return Response(200, body, (("content-type", metrics.CONTENT_TYPE),))


def _json(document: object, status: int = 200) -> Response:
    return Response(status, _ENCODER.encode(document))


def _tagged(request: Request, document: object) -> Response:
    """Answer with an entity tag, or with 304 where the caller has that very document already."""
    body = _ENCODER.encode(document)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    known = [name.strip().removeprefix("W/") for name in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(304, b"", (("etag", tag),))
    return Response(200, body, (("content-type", JSON), ("etag", tag), ("cache-control", "no-cache")))
