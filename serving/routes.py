"""Everything that can be asked of a shim: one table of routes, with who may ask and what is said. What is not here is denied."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from features.cloudevents import DecisionRequest
from features.records import Decision, Outcome
from serving import inference, parcel
from serving.access import Role
from serving.answer import Answer
from serving.live import StateReport
from serving.overrides import StopRequest
from serving.page import LedgerPage

Method = Literal["GET", "POST", "DELETE"]
Name = Literal[
    "decide", "show_decision", "report", "adopt", "show_model", "show_forecast", "report_states", "list_states",
    "list_overrides", "set_override", "clear_override",
    "show_ledger", "fetch_bundle",
    "live", "ready", "status", "metrics", "openapi",
    "describe_server", "describe_model", "model_ready", "infer",
]  # fmt: skip

JSON = "application/json"
TEXT = "text/plain"


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path. ``role`` may ask it, None is everybody.

    ``takes`` and ``gives`` are the types of the bodies, None where the body is JSON of no fixed shape (``gives``) or there
    is none (``takes``); ``batch`` tells that an array of them is understood as well. ``query`` names what the query may
    hold, each with whether it must be there.
    """

    method: Method
    path: str
    name: Name
    role: Role | None
    summary: str
    status: int = 200
    takes: Any = None
    gives: Any = None
    batch: bool = False
    tagged: bool = False
    kind: str = JSON
    query: tuple[tuple[str, bool], ...] = ()

    @property
    def pattern(self) -> tuple[str, ...]:
        """The parts of the path, ``*`` where anything may stand."""
        return tuple("*" if part.startswith("{") else part for part in self.path.split("/")[1:])

    @property
    def parameter(self) -> str | None:
        """The name of what stands at ``*``."""
        return next((part[1:-1] for part in self.path.split("/") if part.startswith("{")), None)


_CLEARING = (("kind", True), ("stream", False), ("actor", False), ("reason", False))

TABLE: tuple[Route, ...] = (
    Route(method="POST", path="/v1/decisions", name="decide", role="decide", takes=DecisionRequest, gives=Answer,
          batch=True, summary="Where should this event go?"),
    Route(method="GET", path="/v1/decisions/{decision_id}", name="show_decision", role="read", gives=Decision,
          summary="A recent decision, as it was logged"),
    Route(method="POST", path="/v1/outcomes", name="report", role="report", takes=Outcome, batch=True, status=202,
          summary="What became of a decision"),
    Route(method="POST", path="/v1/fallbacks", name="adopt", role="report", takes=Decision, batch=True, status=202,
          summary="What a client decided while no shim answered"),
    Route(method="POST", path="/v1/states", name="report_states", role="report", takes=StateReport, batch=True, status=202,
          summary="How a destination is now"),
    Route(method="GET", path="/v1/states", name="list_states", role="read", summary="What is known of destinations now"),
    Route(method="GET", path="/v1/models/{name}/current", name="show_model", role="read", tagged=True,
          query=(("wait", False),), summary="What is served of a model; ?wait=SECONDS where it is the caller's already"),
    Route(method="GET", path="/v1/forecast/{series}", name="show_forecast", role="read", tagged=True,
          summary="The released forecast of a series"),
    Route(method="GET", path="/v1/ledger", name="show_ledger", role="read", tagged=True, gives=LedgerPage,
          query=(("after", False), ("wait", False)),
          summary="The ledger past generation ?after=N, as it lies there; ?wait=SECONDS where it is the caller's already"),
    Route(method="GET", path="/v1/bundles/{digest}", name="fetch_bundle", role="read", kind=parcel.CONTENT_TYPE,
          summary="A bundle that the ledger names, as a tar"),
    Route(method="GET", path="/v1/overrides", name="list_overrides", role="read", summary="The overrides in force"),
    Route(method="POST", path="/v1/overrides", name="set_override", role="operate", takes=StopRequest, status=201,
          summary="Stop the AI on one stream, or on all"),
    Route(method="DELETE", path="/v1/overrides", name="clear_override", role="operate", query=_CLEARING,
          summary="Take a stop back"),
    Route(method="GET", path="/health/live", name="live", role=None, summary="The process answers"),
    Route(method="GET", path="/health/ready", name="ready", role=None, summary="The shim takes requests"),
    Route(method="GET", path="/status", name="status", role="read", summary="The whole state of the shim"),
    Route(method="GET", path="/metrics", name="metrics", role="read", kind=TEXT, summary="Prometheus' text format"),
    Route(method="GET", path="/openapi.json", name="openapi", role="read", summary="This interface as an OpenAPI document"),
    Route(method="GET", path="/v2", name="describe_server", role="read", gives=inference.ServerMetadata,
          summary="Open Inference Protocol: the server"),
    Route(method="GET", path="/v2/health/live", name="live", role=None, summary="Open Inference Protocol: the process answers"),
    Route(method="GET", path="/v2/health/ready", name="ready", role=None, summary="Open Inference Protocol: requests are taken"),
    Route(method="GET", path="/v2/models/{stream}", name="describe_model", role="read", gives=inference.ModelMetadata,
          summary="Open Inference Protocol: the current router of a stream"),
    Route(method="GET", path="/v2/models/{stream}/ready", name="model_ready", role="read",
          summary="Open Inference Protocol: a router is served"),
    Route(method="POST", path="/v2/models/{stream}/infer", name="infer", role="decide", takes=inference.InferenceRequest,
          gives=inference.InferenceResponse, summary="Open Inference Protocol: score a matrix; nothing is decided or logged"),
)  # fmt: skip

# What a probe asks: it must hear how the shim is, however busy that may be.
PUBLIC_PATHS = frozenset(route.path for route in TABLE if route.role is None)


def by_path() -> Iterator[tuple[tuple[str, ...], list[Route]]]:
    """Yield each pattern with its routes."""
    grouped: dict[tuple[str, ...], list[Route]] = {}
    for route in TABLE:
        grouped.setdefault(route.pattern, []).append(route)
    yield from grouped.items()
