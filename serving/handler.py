"""Requests in, responses out, whatever carries them: an exhaustive table of routes, and nothing beside it."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from features import clock
from features.clock import ReplayClock
from models.releases.ledger import Ledger
from models.releases.store import Store
from serving import inference, intake, inventory, metrics, openapi, parcel, problems, routes, stops
from serving.access import Door, Role
from serving.intake import Form
from serving.messages import Request, Response, as_awaited, as_json, as_tagged, generation_after, read_body
from serving.offer import Offer
from serving.paths import Paths
from serving.plan import StreamPlan
from serving.problems import Problem
from serving.settings import Settings
from serving.shim import Shim
from serving.view import Model

REPLAY_HEADER = "turnout-time"
_ENCODER = msgspec.json.Encoder()
_Answer = Callable[[Request, str], Response]
_LOGGER = logging.getLogger("turnout.shim")


class _Bound(NamedTuple):
    """A route of the table with what answers it."""

    answer: _Answer
    role: Role | None


class Handler:
    """Answers requests for one shim. It never raises: what it cannot answer, it answers with a problem document."""

    def __init__(self, shim: Shim, settings: Settings) -> None:
        """Answer for ``shim``; ``settings`` say which tokens open it, and whether requests may bring their own time."""
        self._shim = shim
        self._settings = settings
        self._door = Door(host=settings.host, master=settings.token, tokens=settings.role_tokens)
        self._offer = Offer(Ledger(settings.ledger_path), Store(settings.store_path))
        self.draining = False
        answers: Mapping[routes.Name, _Answer] = {
            "decide": self._decide,
            "show_decision": self._show_decision,
            "report": self._report,
            "adopt": self._adopt,
            "report_states": self._report_states,
            "list_states": self._list_states,
            "show_model": self._show_model,
            "show_forecast": self._show_forecast,
            "show_ledger": self._show_ledger,
            "fetch_bundle": self._fetch_bundle,
            "list_overrides": self._list_overrides,
            "set_override": self._set_override,
            "clear_override": self._clear_override,
            "live": self._live,
            "ready": self._ready,
            "status": self._status,
            "metrics": self._metrics,
            "openapi": self._openapi,
            "describe_server": self._describe_server,
            "describe_model": self._describe_model,
            "model_ready": self._model_ready,
            "infer": self._infer,
        }
        self.paths: Paths[_Bound] = Paths(
            {
                pattern: {route.method: _Bound(answers[route.name], route.role) for route in of_path}
                for pattern, of_path in routes.by_path()
            }
        )

    def handle(self, request: Request) -> Response:
        """Return the response to ``request``."""
        try:
            answer, argument = request.opened or self.open(request)
            return answer(request, argument)
        except Problem as problem:
            return self.refuse(problem)
        except Exception as error:  # one bad request must cost nobody else anything
            _LOGGER.exception("%r %r", request.method, request.path)
            return self.refuse(Problem(500, f"internal error: {type(error).__name__}"))

    def preview(self, request: Request) -> Problem | None:
        """Return why ``request`` would be refused whatever its body, so that none need be waited for."""
        try:
            self.open(request)
        except Problem as problem:
            return problem
        return None

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

    def open(self, request: Request) -> tuple[_Answer, str]:
        """Return what answers a request, and what stands in its path where the route has ``*``: its head alone decides that.

        Whoever has no token hears nothing of which paths there are.

        Raises
        ------
        Problem
            401, 403, 404 or 405.
        """
        found, argument = self.paths.find(request.path)
        bound = found.get(request.method)
        if bound is not None:
            if not request.trusted:
                self._door.admit(request.headers, bound.role)
            return bound.answer, argument
        if not request.trusted:
            self._door.admit_anyone(request.headers)
        if not found:
            raise Problem(404, f"there is no {request.path}")
        allowed = {"allowed": sorted(found)}
        raise Problem(405, f"{request.method} is not for {request.path}", extensions=allowed)

    def form_of(self, request: Request) -> Form | None:
        """Return the form of an admitted request for decisions which the fast path may take, None for any other request."""
        asks = request.opened is not None and request.opened[0] == self._decide
        return intake.form_of(request.headers) if asks and REPLAY_HEADER not in request.headers else None

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
        at = self._instant(request)
        form = intake.form_of(request.headers)
        told = None if form is None else self._shim.answer(request.body, at, is_bare=form == "event")
        if told is not None:
            return Response(200, told, recorded=True)
        requests, batch = intake.decision_requests(request.headers, request.body)
        answers = self._shim.decide(requests, at)
        if batch:
            each = [{"problem": a.document()} if isinstance(a, Problem) else a for a in answers]
            return Response(200, _ENCODER.encode(each), recorded=True)
        (answer,) = answers
        if isinstance(answer, Problem):
            raise answer
        return Response(200, _ENCODER.encode(answer), recorded=True)

    def _report(self, request: Request, _: str) -> Response:
        self._instant(request)  # a replayed outcome moves the clock as well
        keys = self._shim.accept(intake.outcomes(request.headers, request.body))
        told = {"accepted": len(keys), "idempotency_keys": keys}
        return Response(202, _ENCODER.encode(told), recorded=True)

    def _adopt(self, request: Request, _: str) -> Response:
        self._instant(request)
        n_new = self._shim.adopt(intake.fallbacks(request.headers, request.body))
        return Response(202, _ENCODER.encode({"accepted": n_new}), recorded=True)

    def _report_states(self, request: Request, _: str) -> Response:
        at = self._instant(request)
        reports = intake.states(request.headers, request.body)
        if self._shim.plan.configuration.live is None:
            raise Problem(422, "live state is not configured: turnout.toml has no [live]")
        for report in reports:
            if not self._shim.live.knows(report.destination):
                raise Problem(422, f"destination {report.destination!r} is not configured", "$.destination")
        self._shim.live.report(reports, at)
        return as_json({"accepted": len(reports)}, 202)

    def _list_states(self, _: Request, __: str) -> Response:
        return as_json(self._shim.live.states(self._shim.clock.now()))

    def _show_decision(self, _: Request, decision_id: str) -> Response:
        decision = self._shim.decision(decision_id)
        if decision is None:
            raise Problem(404, f"no recent decision has the id {decision_id!r}")
        return Response(200, _ENCODER.encode(decision), recorded=True)

    def _show_model(self, request: Request, name: str) -> Response:
        return as_awaited(request, inventory.current_model(self._shim.releases.view, name))

    def _show_forecast(self, request: Request, series: str) -> Response:
        return as_tagged(request, inventory.forecast(self._shim.releases.view, series))

    def _show_ledger(self, request: Request, _: str) -> Response:
        # Those who wait are called when another release is served: the follower makes a view of every head it takes.
        return as_awaited(request, self._offer.page(generation_after(request)))

    def _fetch_bundle(self, _: Request, digest: str) -> Response:
        return Response(200, self._offer.bundle(digest), (("content-type", parcel.CONTENT_TYPE),))

    def _list_overrides(self, _: Request, __: str) -> Response:
        return stops.show(self._shim)

    def _set_override(self, request: Request, _: str) -> Response:
        return stops.put(self._shim, request)

    def _clear_override(self, request: Request, _: str) -> Response:
        return stops.clear(self._shim, request)

    def _live(self, _: Request, __: str) -> Response:
        return as_json({"status": "live"})

    def _ready(self, _: Request, __: str) -> Response:
        if self.draining:
            raise Problem(503, "draining")
        problems_found = inventory.problems(self._shim)
        return as_json({"status": "degraded" if problems_found else "ready", "problems": problems_found})

    def _status(self, _: Request, __: str) -> Response:
        return as_json(inventory.status(self._shim, self._shim.clock.now()))

    def _metrics(self, _: Request, __: str) -> Response:
        recorder = self._shim.recorder
        self._shim.fast_path.tell()
        body = self._shim.metrics.render(
            generation=self._shim.releases.view.generation,
            degraded=bool(inventory.problems(self._shim)),
            n_refused=recorder.n_refused,
            n_shed=recorder.n_shed,
            engines=inventory.engines(self._shim.releases.view),
            fast=inventory.fast_streams(self._shim),
        )
        return Response(200, body, (("content-type", metrics.CONTENT_TYPE),))

    def _openapi(self, _: Request, __: str) -> Response:
        return Response(200, openapi.document())

    def _describe_server(self, _: Request, __: str) -> Response:
        return as_json(inference.ServerMetadata(name="turnout", version=openapi.version()))

    def _describe_model(self, _: Request, stream: str) -> Response:
        return as_json(inference.metadata(*self._current(stream)))

    def _model_ready(self, _: Request, stream: str) -> Response:
        self._current(stream)
        return as_json({"name": stream, "ready": True})

    def _infer(self, request: Request, stream: str) -> Response:
        return as_json(inference.infer(read_body(request, inference.REQUESTS), *self._current(stream)))

    def _current(self, stream: str) -> tuple[StreamPlan, Model]:
        """Return the champion of a stream, which is the protocol's model of that name."""
        view = self._shim.releases.view.streams.get(stream)
        if stream not in self._shim.plan.streams or view is None or view.champion is None:
            raise Problem(404, f"no router is released for a stream {stream!r}")
        return self._shim.plan.streams[stream], view.champion
