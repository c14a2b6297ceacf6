import io
import json
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import config, spool
from features.clock import ReplayClock
from features.records import Candidate, Decision, Event, Outcome
from models.releases import bundle, transitions
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving import routes
from serving.access import ROLES, Role
from serving.case import Question
from serving.decider import decide_statically
from serving.handler import Handler
from serving.intake import MAX_BATCH
from serving.memory import DecisionMemory
from serving.messages import Request, Response
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.recorder import Recorder
from serving.settings import Settings
from serving.shelf import Series
from serving.shim import Shim
from serving.view import ForecastView, ReleaseView

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
JSON = {"content-type": "application/json"}
PLAN = Plan.of(
    config.parse("""
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { static_epsilon = 0.5 }
features = { numbers = { weight = "event.weight", depth = "state.queue_depth" } }

[destinations]
a = { region = "eu" }
b = { region = "us" }

[[rules]]
name = "residency"
label = "personal"
allow_regions = ["eu"]
""")
)


class FakeReleases:
    """Releases that never change."""

    def __init__(self, view: ReleaseView) -> None:
        self.view = view
        self.rejected: dict[str, str] = {}

    def report_fault(self, digest: str, reason: str) -> None:
        raise AssertionError(f"{digest}: {reason}")

    def rejections(self) -> dict[str, str]:
        return self.rejected


@dataclass
class FakeMirror:
    """A mirror that fails, or not."""

    failure: str


def handler(folder: Path, view: ReleaseView | None = None, **options: Any) -> Handler:
    shim = Shim(
        plan=PLAN,
        clock=ReplayClock(at=AT),
        releases=FakeReleases(view or ReleaseView()),
        overrides=OverrideJournal(folder / "overrides.journal"),
        recorder=Recorder(folder / "spool"),
        memory=DecisionMemory(1_000),
    )
    return Handler(shim, Settings(home=folder, config_path=folder, **options))


@pytest.fixture
def shim(tmp_path: Path) -> Handler:
    return handler(tmp_path)


def event(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"e{number}", "source": "/shop", "type": "shop.order", **fields}


def outcome(**fields: Any) -> dict[str, Any]:
    return {"decision_id": "d1", "served": "a", "observed_at": "2026-11-24T12:00:00Z", "success": True, **fields}


def post(
    shim: Handler, path: str, document: Any, headers: Mapping[str, str] = JSON, *, query: str = ""
) -> tuple[int, Any]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read(shim.handle(Request("POST", path, query, headers, body)))


def read(response: Response) -> tuple[int, Any]:
    return response.status, json.loads(response.body) if response.body else None


def ask(shim: Handler, method: str, path: str, **fields: Any) -> Response:
    return shim.handle(Request(method, path, **fields))


def records(folder: Path) -> list[Any]:
    lines = [line.payload for path in spool.segments(folder / "spool") for line in spool.read_lines(path)]
    return [msgspec.json.decode(line or b"", type=Decision | Outcome) for line in lines]


def test_a_decision_is_logged_as_it_was_answered(shim: Handler, tmp_path: Path) -> None:
    status, told = post(shim, "/v1/decisions", {"event": event(data={"weight": 2})})
    (logged,) = records(tmp_path)
    assert status == 200
    assert told["destinations"][0] == logged.assigned
    assert sorted(told["destinations"]) == ["a", "b"]
    assert (told["decision_id"], told["propensity"]) == (logged.decision_id, logged.propensity)
    assert logged.numbers == ((2.0, None), (2.0, None))
    assert logged.decided_at == AT
    assert logged.latency_us > 0


def test_an_event_may_come_as_a_bare_cloudevent_structured_or_binary(shim: Handler, tmp_path: Path) -> None:
    structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
    binary = {"ce-specversion": "1.0", "ce-id": "e2", "ce-source": "/shop", "ce-type": "shop.order"}
    assert post(shim, "/v1/decisions", event(1, data={"weight": 2}), structured)[0] == 200
    assert post(shim, "/v1/decisions", {"weight": 2}, JSON | binary)[0] == 200
    assert post(shim, "/v1/decisions", [event(3), event(4)], structured)[0] == 200
    assert [logged.event_id for logged in records(tmp_path)] == ["e1", "e2", "e3", "e4"]
    assert records(tmp_path)[0].numbers == records(tmp_path)[1].numbers


def test_a_redelivered_event_receives_its_logged_decision(shim: Handler, tmp_path: Path) -> None:
    told = [post(shim, "/v1/decisions", {"event": event(number)})[1] for number in range(20)]
    again = [post(shim, "/v1/decisions", {"event": event(number)})[1] for number in range(20)]
    assert len(records(tmp_path)) == 20
    assert [answer.pop("repeated") for answer in again] == [True] * 20
    assert again == told
    assert len({answer["destinations"][0] for answer in told}) == 2


def test_a_restart_forgets_no_decision(tmp_path: Path) -> None:
    first = handler(tmp_path)
    told = [post(first, "/v1/decisions", {"event": event(n), "decision_id": f"own-{n}"})[1] for n in range(20)]
    post(first, "/v1/outcomes", outcome())
    second = handler(tmp_path)
    second._shim.warm()
    for number, answer in enumerate(told):
        _, again = post(second, "/v1/decisions", {"event": event(number)})
        assert again == answer | {"repeated": True}
        assert read(ask(second, "GET", f"/v1/decisions/own-{number}"))[1]["event_id"] == f"e{number}"
    assert len(records(tmp_path)) == 21


def test_policy_beats_memory(shim: Handler, tmp_path: Path) -> None:
    told = [post(shim, "/v1/decisions", {"event": event(number)})[1] for number in range(20)]
    number = next(number for number, answer in enumerate(told) if answer["destinations"][0] == "b")
    _, again = post(shim, "/v1/decisions", {"event": event(number, dataclassification="personal")})
    assert again["destinations"] == ["a"]
    assert "repeated" not in again
    assert len(records(tmp_path)) == 21


def test_a_batch_is_answered_in_its_order_and_a_bad_event_costs_only_itself(shim: Handler, tmp_path: Path) -> None:
    events = [event(1), event(2, type="unheard"), event(1), event(3, dataclassification="unheard")]
    status, told = post(shim, "/v1/decisions", [{"event": one} for one in events])
    assert status == 200
    assert told[0] == told[2]
    assert told[1]["problem"]["path"] == "$.event.type"
    assert told[3]["problem"]["excluded"] == dict.fromkeys("ab", "no rule mentions the label 'unheard'")
    assert [logged.event_id for logged in records(tmp_path)] == ["e1"]


def test_an_event_twice_in_a_batch_is_decided_once(shim: Handler, tmp_path: Path) -> None:
    _, told = post(shim, "/v1/decisions", [{"event": event(), "decision_id": name} for name in ("first", "second")])
    assert [answer["decision_id"] for answer in told] == ["first", "first"]
    assert len(records(tmp_path)) == 1


def test_a_clients_own_decision_id_is_kept_and_found(shim: Handler) -> None:
    _, told = post(shim, "/v1/decisions", {"event": event(), "decision_id": "mine"})
    assert told["decision_id"] == "mine"
    assert read(ask(shim, "GET", "/v1/decisions/mine"))[1]["event_id"] == "e1"
    _, made = post(shim, "/v1/decisions", {"event": event(2)})
    assert read(ask(shim, "GET", f"/v1/decisions/{made['decision_id']}"))[1]["event_id"] == "e2"
    assert ask(shim, "GET", "/v1/decisions/other").status == 404


def test_outcomes_are_accepted_one_by_one_in_batches_and_as_cloudevents(shim: Handler, tmp_path: Path) -> None:
    structured = {"content-type": "application/cloudevents+json"}
    binary = JSON | {"ce-specversion": "1.0", "ce-type": "turnout.outcome", "ce-id": "o", "ce-source": "/s"}
    wrapped = {"specversion": "1.0", "id": "o", "source": "/s", "type": "turnout.outcome", "data": outcome(attempt=3)}
    assert post(shim, "/v1/outcomes", outcome()) == (202, {"accepted": 1, "idempotency_keys": ["d1/1/a"]})
    assert post(shim, "/v1/outcomes", [outcome(idempotency_key="k"), outcome(attempt=2)])[1]["accepted"] == 2
    assert post(shim, "/v1/outcomes", wrapped, structured)[0] == 202
    assert post(shim, "/v1/outcomes", outcome(attempt=4), binary)[0] == 202
    assert [logged.attempt for logged in records(tmp_path)] == [1, 1, 2, 3, 4]
    assert post(shim, "/v1/outcomes", wrapped | {"type": "turnout.decision"}, structured)[0] == 422


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("/v1/decisions", b"{", 400, None),
        ("/v1/decisions", b"\xff", 400, None),
        ("/v1/decisions", b"", 400, None),
        ("/v1/decisions", b"[]", 422, "$"),
        ("/v1/decisions", b'{"event": NaN}', 400, None),
        ("/v1/decisions", {"event": event(data={"weight": "heavy"})}, 422, "event.weight"),
        ("/v1/decisions", {"event": event(data={"weight": 10**400})}, 422, "$"),
        ("/v1/decisions", json.dumps({"event": event(data={"w": 0})}).encode().replace(b"0}", b"1e999}"), 422, "$.event.data[...]"),
        ("/v1/decisions", json.dumps({"event": event()}).encode().replace(b'"id"', b'"id": "x", "id"'), 422, None),
        ("/v1/decisions", b'{"event": ' + b"[" * 100_000, 422, "$.event"),
        ("/v1/decisions", json.dumps({"event": event(x=0)}).encode().replace(b"0}", b"[" * 100_000), 422, None),
        ("/v1/decisions", {"event": event(id="")}, 422, "$.event.id"),
        ("/v1/decisions", {"event": event(specversion="2.0")}, 422, "$.event"),
        ("/v1/decisions", {"event": event(time="2026-11-24T12:00:00")}, 422, "$.event.time"),
        ("/v1/decisions", {"event": event(), "candidate": []}, 422, "$"),
        ("/v1/decisions", {"event": event(), "candidates": []}, 422, "$.candidates"),
        ("/v1/decisions", {"event": event(), "candidates": [{"destination": "a"}] * 2}, 422, "$.candidates[1].destination"),
        ("/v1/decisions", [{"event": event()}, {"event": event(id=3)}], 422, "$[1].event.id"),
        ("/v1/decisions", [{"event": event()}] * (MAX_BATCH + 1), 422, "$"),
        ("/v1/outcomes", outcome(latency_ms=-1), 422, "$.latency_ms"),
        ("/v1/outcomes", outcome(observed_at="2026-11-24T12:00:00"), 422, "$.observed_at"),
        ("/v1/outcomes", [outcome(), outcome(observed_at="2026-11-24T12:00:00")], 422, "$[1].observed_at"),
        ("/v1/overrides", {"kind": "stop", "actor": "ada"}, 422, "$"),
        ("/v1/overrides", {"kind": "stop", "actor": "ada", "reason": "r", "stream": "other"}, 422, "stream"),
    ],
)  # fmt: skip
def test_s01_s04_s05_what_is_wrong_is_said_with_its_place(
    shim: Handler, tmp_path: Path, path: str, body: Any, status: int, where: str | None
) -> None:
    found, problem = post(shim, path, body)
    assert (found, problem["status"], problem.get("path")) == (status, status, where)
    assert problem["detail"]
    assert not records(tmp_path)


def test_a_state_without_a_zone_is_refused(shim: Handler) -> None:
    state = {"observed_at": "2026-11-24T12:00:00"}
    _, problem = post(shim, "/v1/decisions", {"event": event(), "candidates": [{"destination": "a", "state": state}]})
    assert problem["path"] == "$.candidates[0].state.observed_at"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/xml", "application/jsonx"])
def test_s01_another_content_type_is_refused(shim: Handler, kind: str) -> None:
    for path in ("/v1/decisions", "/v1/outcomes", "/v1/overrides"):
        assert post(shim, path, {"event": event()}, {"content-type": kind})[0] == 415


@pytest.mark.parametrize(
    ("twice", "refused"),
    [
        ('{"a":1,"a":1}', True),
        ('{"a" :1,"a": 1}', True),
        ('{"a":{"b":1,"b":1}}', True),
        ('{"\\u0061":1,"a":1}', True),
        ('{"a":"\\":","a":1}', True),
        ('{"a":1,"a":"\\u003a"}', True),
        ('{"a":1,"b":{"a":1},"c":[{"a":1},{"a":":::"}]}', False),
        ('{"a\\"":1,"a":1}', False),
    ],
)
def test_s05_duplicate_keys_are_refused_however_they_are_written(shim: Handler, twice: str, refused: bool) -> None:  # noqa: FBT001
    body = json.dumps({"event": event(extension="here")}).replace('"here"', twice).encode()
    assert post(shim, "/v1/decisions", body)[0] == (422 if refused else 200)


def test_s18_every_other_path_and_method_is_denied(shim: Handler) -> None:
    for path in (
        "/",
        "",
        "/v1",
        "/v1/decisions/",
        "/v1//decisions",
        "/v1/../metrics",
        "/v1/decisions/a/b",
        "/V1/decisions",
    ):
        assert ask(shim, "GET", path).status == 404, path
    response = ask(shim, "PATCH", "/v1/overrides")
    assert response.status == 405
    assert ("allow", "DELETE, GET, HEAD, POST") in response.headers
    assert ask(shim, "GET", "/v1/decisions").status == 405
    assert ask(shim, "GET", "/v1%2Fdecisions").status == 404


PUBLIC = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")


def test_s18_with_a_token_every_route_but_health_asks_for_it(tmp_path: Path) -> None:
    shim = handler(tmp_path, token="open-sesame")
    paths = ["/nowhere", *("/" + "/".join(parts).replace("*", "x") for parts in shim.paths.patterns)]
    for path in set(paths).difference(PUBLIC):
        for given_token in ("", "Bearer wrong", "open-sesame", "Bearer \xff", "bearer open-sesame"):
            for method in ("GET", "POST", "DELETE", "PUT"):
                response = ask(shim, method, path, headers={"authorization": given_token})
                assert response.status == 401, path
                assert ("www-authenticate", "Bearer") in response.headers
    assert ask(shim, "GET", "/status", headers={"authorization": "Bearer open-sesame"}).status == 200
    assert [ask(shim, "GET", path).status for path in PUBLIC] == [200] * 4


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8100", 200),
        ("127.0.0.1", 200),
        ("[::1]:8100", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil:1", 403),
    ],
)
def test_s18_without_a_token_only_loopback_names_are_served(shim: Handler, host: str, status: int) -> None:
    assert ask(shim, "GET", "/status", headers={"host": host}).status == status


def test_a_stop_decides_at_once_and_until_it_is_taken_back(shim: Handler) -> None:
    stop = {"kind": "stop", "actor": "ada", "reason": "drill", "stream": "orders"}
    status, told = post(shim, "/v1/overrides", stop)
    assert (status, told["saved"]) == (201, True)
    stopped = [post(shim, "/v1/decisions", {"event": event(number)})[1] for number in range(20)]
    assert {(answer["reason"], answer["propensity"]) for answer in stopped} == {
        ("override: stopped by ada: drill", 1.0)
    }
    assert [override["reason"] for override in read(ask(shim, "GET", "/v1/overrides"))[1]] == ["drill"]
    cleared = read(ask(shim, "DELETE", "/v1/overrides", query="kind=stop&stream=orders&actor=bo"))[1]["cleared"]
    assert cleared["actor"] == "ada"
    assert read(ask(shim, "DELETE", "/v1/overrides", query="kind=stop&stream=orders"))[1]["cleared"] is None
    assert post(shim, "/v1/decisions", {"event": event(99)})[1]["reason"] == "static: mode off"
    assert ask(shim, "DELETE", "/v1/overrides", query="kind=pin").status == 422


def test_a_stop_that_is_over_before_it_begins_is_refused(shim: Handler) -> None:
    stop = {"kind": "stop", "actor": "ada", "reason": "drill", "expires_at": "2026-11-24T12:00:00Z"}
    assert post(shim, "/v1/overrides", stop)[1]["path"] == "$.expires_at"


def test_time_is_taken_from_a_request_under_replay_alone(shim: Handler, tmp_path: Path) -> None:
    replayed = {"turnout-time": "2013-09-01T05:00:00-04:00"}
    assert post(shim, "/v1/decisions", {"event": event()}, JSON | replayed)[0] == 400
    replaying = handler(tmp_path / "replay", replay=True)
    post(replaying, "/v1/decisions", {"event": event()}, JSON | {"turnout-time": "2030-01-01T00:00:00Z"})
    post(replaying, "/v1/decisions", {"event": event(2)}, JSON | replayed)
    assert [logged.decided_at for logged in records(tmp_path / "replay")] == [
        datetime(2030, 1, 1, tzinfo=UTC),
        datetime(2013, 9, 1, 9, tzinfo=UTC),
    ]
    assert replaying._shim.clock.now() == datetime(2030, 1, 1, tzinfo=UTC)
    for wrong in ("yesterday", "2013-09-01T05:00:00", "0001-01-01T00:00:00+14:00", ""):
        assert post(replaying, "/v1/outcomes", outcome(), JSON | {"turnout-time": wrong})[0] == 400


def test_the_current_model_has_a_tag_that_spares_sending_it_again(tmp_path: Path) -> None:
    shim = handler(tmp_path, ReleaseView(generation=3, head="c0ffee"))
    first = ask(shim, "GET", "/v1/models/router/current")
    tag = dict(first.headers)["etag"]
    assert json.loads(first.body)["generation"] == 3
    for known in (tag, f'"other", W/{tag}', "*"):
        again = ask(shim, "GET", "/v1/models/router/current", headers={"if-none-match": known})
        assert (again.status, again.body, dict(again.headers)["etag"]) == (304, b"", tag)
    changed = handler(tmp_path, ReleaseView(generation=4, head="c0ffee"))
    assert ask(changed, "GET", "/v1/models/router/current", headers={"if-none-match": tag}).status == 200
    assert ask(shim, "GET", "/v1/models/forecaster/current").status == 404
    assert ask(shim, "GET", "/v1/models/nothing/current").status == 404


def test_the_forecast_of_a_series_is_answered(tmp_path: Path) -> None:
    series = Series(hours=("2026-11-24T13:00:00Z",), p10=(1.0,), p50=(2.0,), p90=(3.0,))
    forecast = ForecastView(digest="f" * 64, at="2026-11-24T12:00:00Z", series={"EWR east": series})
    shim = handler(tmp_path, ReleaseView(forecast=forecast))
    assert read(ask(shim, "GET", "/v1/forecast/EWR%20east"))[1]["p50"] == [2.0]
    assert ask(shim, "GET", "/v1/forecast/JFK").status == 404
    assert read(ask(shim, "GET", "/v1/models/forecaster/current"))[1]["digest"] == "f" * 64
    assert ask(handler(tmp_path), "GET", "/v1/forecast/JFK").status == 404


def test_i11_a_disk_that_refuses_costs_the_log_and_not_the_event(
    shim: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Sequence[bytes]) -> list[int]:
        shim._shim.recorder.failure = "No space left on device"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shim._shim.recorder, "append_lines", refuse)
    told = [post(shim, "/v1/decisions", {"event": event(number)})[1] for number in range(10)]
    assert {(answer["destinations"][0], answer["propensity"], answer["logged"]) for answer in told} == {
        ("a", 1.0, False)
    }
    assert {answer["reason"] for answer in told} == {"static: not logged, the disk refuses"}
    response = shim.handle(Request("POST", "/v1/outcomes", "", JSON, json.dumps(outcome()).encode()))
    assert response.status == 503
    assert ("retry-after", "1") in response.headers
    assert "No space" in read(ask(shim, "GET", "/health/ready"))[1]["problems"][0]
    assert b'turnout_unlogged_decisions_total{stream="orders"} 10.0' in ask(shim, "GET", "/metrics").body
    assert b"turnout_degraded 1.0" in ask(shim, "GET", "/metrics").body
    monkeypatch.undo()
    assert "repeated" not in post(shim, "/v1/decisions", {"event": event(1)})[1]


def test_the_status_tells_what_was_rejected(shim: Handler) -> None:
    shim._shim.releases.rejected = {"orders": "generation 4: c0ffee: card.json: expected SHA-256 …"}  # type: ignore[attr-defined]
    status = read(ask(shim, "GET", "/status"))[1]
    assert status["problems"][0].startswith("release: orders: generation 4")
    assert status["streams"]["orders"]["mode"] == "off"
    assert read(ask(shim, "GET", "/health/ready"))[1]["status"] == "degraded"


def test_a_draining_shim_is_live_and_not_ready(shim: Handler) -> None:
    shim.draining = True
    assert [ask(shim, "GET", path).status for path in PUBLIC] == [200, 503] * 2


def test_metrics_count_decisions_by_arm(shim: Handler) -> None:
    for number in range(3):
        post(shim, "/v1/decisions", {"event": event(number)})
    post(shim, "/v1/decisions", {"event": event(0)})
    post(shim, "/v1/outcomes", [outcome(), outcome(status="lost")])
    ask(shim, "GET", "/nowhere")
    text = ask(shim, "GET", "/metrics").body
    assert b'turnout_decisions_total{arm="static",mode="off",stream="orders"} 3.0' in text
    assert b'turnout_repeated_decisions_total{stream="orders"} 1.0' in text
    assert b'turnout_outcomes_total{status="lost"} 1.0' in text
    assert b'turnout_problems_total{status="404"} 1.0' in text


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
instants = st.sampled_from(["2026-11-24T12:00:00Z", "2026-11-24T12:00:00", "", "x", 5])
states = st.dictionaries(st.sampled_from(["observed_at", "queue_depth", "healthy", "measures"]), scalars | instants)
candidates = st.fixed_dictionaries(
    {"destination": st.sampled_from(["a", "b", "c", "", 3])},
    optional={"state": states, "attributes": st.dictionaries(st.sampled_from(["weight"]), scalars)},
)
events = st.fixed_dictionaries(
    {
        "specversion": st.just("1.0"),
        "id": st.text(max_size=3),
        "source": st.text(max_size=3),
        "type": st.just("shop.order"),
    },
    optional={
        "time": instants,
        "partitionkey": scalars,
        "dataclassification": st.sampled_from(["personal", "personal, unheard", ",", None]),
        "data": st.dictionaries(st.sampled_from(["weight", "x"]), documents),
        "y": documents,
    },
)
questions = st.fixed_dictionaries(
    {"event": events}, optional={"candidates": st.lists(candidates, max_size=3), "decision_id": scalars}
)
outcomes = st.fixed_dictionaries(
    {"decision_id": st.text(max_size=3), "served": st.text(max_size=3), "observed_at": instants},
    optional={"success": scalars, "latency_ms": scalars, "attempt": scalars, "status": scalars},
)
bodies = st.one_of(
    st.binary(max_size=80),
    st.one_of(questions, outcomes, st.lists(questions, max_size=3), documents).map(
        lambda document: json.dumps(document).encode("utf-8", "surrogatepass")
    ),
)
segments = st.sampled_from(
    ["v1", "decisions", "outcomes", "overrides", "models", "router", "current", "..", "%00", "%ff", "é"]
)
header_names = st.sampled_from(
    ["content-type", "host", "authorization", "turnout-time", "ce-specversion", "ce-id", "if-none-match"]
)
header_values = st.sampled_from(["application/json", "application/cloudevents+json", "localhost", "1.0", "\xff", ""])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "\x00"]),
    path=st.sampled_from(["/v1/decisions", "/v1/outcomes", "/v1/overrides"])
    | st.lists(segments).map(lambda p: "/" + "/".join(p)),
    query=st.sampled_from(["", "kind=stop", "kind=stop&stream=%ff", "&&=", "kind"]),
    headers=st.just(JSON) | st.dictionaries(header_names, header_values),
    body=bodies,
)
def test_s01_no_request_whatever_raises_or_is_an_internal_error(
    shim: Handler, method: str, path: str, query: str, headers: dict[str, str], body: bytes
) -> None:
    response = shim.handle(Request(method, path, query, headers, body))
    assert response.status in {200, 201, 202, 304, 400, 403, 404, 405, 415, 422}
    if response.body and dict(response.headers)["content-type"] != "text/plain; version=0.0.4; charset=utf-8":
        assert not math.isnan(len(json.loads(response.body, parse_constant=pytest.fail)))


def test_s18_every_route_opens_to_its_role_alone(tmp_path: Path) -> None:
    tokens: dict[Role, str] = {role: f"{role}-token" for role in ROLES}
    shim = handler(tmp_path, role_tokens=tokens)
    for route in routes.TABLE:
        path = "/" + "/".join(route.pattern).replace("*", "x")
        for role, token in tokens.items():
            status = ask(shim, route.method, path, headers={"authorization": f"Bearer {token}"}).status
            assert (status == 403) == (route.role not in (None, role)), (path, role)
        assert (ask(shim, route.method, path).status == 401) == (route.role is not None)


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PUT", "get", ""])
def test_s18_odd_methods_are_refused_with_what_is_allowed(shim: Handler, method: str) -> None:
    response = ask(shim, method, "/v1/decisions")
    assert (response.status, dict(response.headers)["allow"]) == (405, "POST")


def test_head_is_answered_wherever_get_is(shim: Handler) -> None:
    assert ask(shim, "HEAD", "/status").status == 200
    assert ask(shim, "HEAD", "/v1/decisions").status == 405


def test_no_secret_is_in_an_error_a_log_or_a_representation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shim = handler(tmp_path, token="open-sesame", role_tokens={"read": "read-sesame"})
    said = [ask(shim, "GET", "/status", headers={"authorization": "Bearer near-sesame"}).body]
    shim._shim.plan = None  # type: ignore[assignment] # so that something breaks
    broken = ask(shim, "GET", "/status", headers={"authorization": "Bearer open-sesame"})
    assert broken.status == 500
    said += [broken.body, caplog.text.encode(), repr(shim._settings).encode()]
    assert not any(b"sesame" in text for text in said)


def test_without_a_router_the_inference_protocol_says_that_none_is_there(shim: Handler) -> None:
    assert read(ask(shim, "GET", "/v2"))[1]["name"] == "turnout"
    for path in ("/v2/models/orders", "/v2/models/orders/ready", "/v2/models/other"):
        assert ask(shim, "GET", path).status == 404
    body = {"inputs": []}
    assert post(shim, "/v2/models/orders/infer", body)[0] == 404
    assert post(shim, "/v2/models/orders/infer", b"{")[0] == 400
    assert post(shim, "/v2/models/orders/infer", body, {"content-type": "text/plain"})[0] == 415


def test_s14_a_wall_clock_that_jumps_costs_no_decision_and_no_memory(shim: Handler) -> None:
    clock = shim._shim.clock
    assert isinstance(clock, ReplayClock)
    told = {}
    for number, jump in enumerate((timedelta(0), timedelta(days=-400), timedelta(days=4_000), timedelta(0))):
        clock.at = AT + jump
        told[number] = post(shim, "/v1/decisions", {"event": event(number)})[1]
        assert told[number]["decided_at"] == (AT + jump).isoformat().replace("+00:00", "Z")
    assert len({answer["decision_id"] for answer in told.values()}) == 4
    for number, answer in told.items():
        assert post(shim, "/v1/decisions", {"event": event(number)})[1] == answer | {"repeated": True}


def test_s03_an_unknown_destination_is_answered_around_and_named_in_the_log(shim: Handler, tmp_path: Path) -> None:
    asked = {"event": event(), "candidates": [{"destination": "a"}, {"destination": "nowhere"}]}
    assert post(shim, "/v1/decisions", asked)[1]["destinations"] == ["a"]
    assert records(tmp_path)[0].excluded == {"nowhere": "not a destination of the stream"}


def test_s17_what_is_stale_is_served_and_said(shim: Handler) -> None:
    releases = shim._shim.releases
    assert isinstance(releases, FakeReleases)
    releases.rejected = {"ledger": "cannot be read"}
    assert post(shim, "/v1/decisions", {"event": event()})[0] == 200
    status, told = read(ask(shim, "GET", "/health/ready"))
    assert (status, told["status"]) == (200, "degraded")
    assert "cannot be read" in told["problems"][0]


def fallback(decision_id: str, identity: str = "e1", **changed: Any) -> dict[str, Any]:
    made = decide_statically(
        Question(
            event=Event(id=identity, source="/shop", type="shop.order", stream="orders"),
            candidates=(Candidate(destination="a"), Candidate(destination="b")),
        ),
        PLAN.streams["orders"],
        at=AT,
        decision_id=decision_id,
        revision=PLAN.revision,
        reason="the shim did not answer",
        first=("b",),
    )
    return msgspec.to_builtins(made) | changed


def test_what_a_client_decided_alone_is_logged_once_and_is_what_the_event_gets_when_it_comes_again(
    shim: Handler, tmp_path: Path
) -> None:
    adopt = lambda *made: shim.handle(Request("POST", "/v1/fallbacks", "", JSON, json.dumps(made).encode()))  # noqa: E731
    first = adopt(fallback("mine"), fallback("mine"), fallback("other", "e2"))
    assert (first.status, json.loads(first.body)) == (202, {"accepted": 2})
    assert json.loads(adopt(fallback("mine")).body) == {"accepted": 0}
    question = {"event": {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "shop.order"}}
    told = json.loads(shim.handle(Request("POST", "/v1/decisions", "", JSON, json.dumps(question).encode())).body)
    assert (told["decision_id"], told["destinations"][0], told["repeated"]) == ("mine", "b", True)
    again = json.loads(adopt(fallback("later")).body)
    assert again == {"accepted": 1}  # it was carried out as well: the log holds both
    told = json.loads(shim.handle(Request("POST", "/v1/decisions", "", JSON, json.dumps(question).encode())).body)
    assert told["decision_id"] == "mine"
    shown = shim.handle(Request("GET", "/v1/decisions/later"))
    assert json.loads(shown.body)["assigned"] == "b"
    lines = [line.payload for path in spool.segments(tmp_path / "spool") for line in spool.read_lines(path)]
    assert [msgspec.json.decode(line or b"", type=Decision).decision_id for line in lines] == ["mine", "other", "later"]


@pytest.mark.parametrize(
    "changed",
    [
        {"arm": "champion"},
        {"propensity": 0.5},
        {"generation": 3},
        {"stream": "unheard"},
        {"decided_at": "2026-11-24T12:00:00"},
    ],
)
def test_a_decision_that_no_client_can_have_made_is_refused(shim: Handler, changed: dict[str, Any]) -> None:
    body = json.dumps(fallback("mine", **changed)).encode()
    response = shim.handle(Request("POST", "/v1/fallbacks", "", JSON, body))
    assert response.status == 422
    assert shim.handle(Request("GET", "/v1/decisions/mine")).status == 404


def test_the_ledger_is_told_past_a_generation_tagged_and_may_be_waited_for(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    by = Attribution(actor="ada", reason="drill", at=AT)
    ledger.append(transitions.genesis(streams={"orders": "off"}, by=by), expected_head="")
    shim = handler(tmp_path)
    told = ask(shim, "GET", "/v1/ledger")
    assert (told.status, told.wait_seconds) == (200, 0.0)
    assert (tmp_path / "ledger" / "00000001.json").read_bytes() in told.body
    tag = dict(told.headers)["etag"]
    again = ask(shim, "GET", "/v1/ledger", query="after=0&wait=7", headers={"if-none-match": tag})
    assert (again.status, again.wait_seconds) == (304, 7.0)
    past = ask(shim, "GET", "/v1/ledger", query="after=1&wait=7", headers={"if-none-match": tag})
    assert (past.status, past.wait_seconds, json.loads(past.body)["entries"]) == (200, 0.0, [])


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=1.5", "after=%C2%B2", "after=123456789", "wait=61"])
def test_a_generation_or_a_time_that_is_none_is_named(shim: Handler, query: str) -> None:
    status, told = read(ask(shim, "GET", "/v1/ledger", query=query))
    assert (status, told["path"]) == (422, query.partition("=")[0])


def test_a_bundle_that_the_ledger_names_is_sent_as_a_tar(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.txt").write_text("tree")
    digest = Store(tmp_path / "store").put(tmp_path / "made", digest=bundle.seal(tmp_path / "made", kind="router"))
    shim, ledger = handler(tmp_path), Ledger(tmp_path / "ledger")
    assert ask(shim, "GET", f"/v1/bundles/{digest}").status == 404
    by = Attribution(actor="ada", reason="drill", at=AT)
    ledger.append(transitions.genesis(streams={"orders": "off"}, by=by), expected_head="")
    history = ledger.history()
    entry = transitions.release_model(history, name="forecaster", digest=digest, by=by)
    ledger.append(entry, expected_head=history.hash)
    told = ask(shim, "GET", f"/v1/bundles/{digest}")
    assert (told.status, told.headers) == (200, (("content-type", "application/x-tar"),))
    with tarfile.open(fileobj=io.BytesIO(told.body)) as archive:
        assert archive.getnames() == ["manifest.json", "model.txt"]
    (tmp_path / "store" / digest).chmod(0o700)


def test_what_keeps_a_mirror_from_being_one_is_a_problem(shim: Handler) -> None:
    shim._shim.mirror = FakeMirror("http://up:8100: cannot be reached")
    assert read(ask(shim, "GET", "/status"))[1]["problems"] == ["mirror: http://up:8100: cannot be reached"]
    assert read(ask(shim, "GET", "/health/ready"))[1]["status"] == "degraded"
    shim._shim.mirror = FakeMirror("")
    assert read(ask(shim, "GET", "/status"))[1]["problems"] == []


LIVE_PLAN = Plan.of(
    config.parse("""
[live]
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
objective = { success = 1.0 }
features = { numbers = { depth = "state.queue_depth", errors = "state.error_rate" } }
[destinations]
a = {}
b = {}
""")
)


@pytest.fixture
def live_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handler:
    monkeypatch.setattr("tests.unit.test_handler.PLAN", LIVE_PLAN)
    monkeypatch.setattr("serving.live.LOOK_SECONDS", 0.0)
    return handler(tmp_path)


def test_reported_states_and_outcomes_stand_in_the_features(live_shim: Handler, tmp_path: Path) -> None:
    status, told = post(live_shim, "/v1/states", [{"destination": "a", "state": {"queue_depth": 4.0}}])
    assert (status, told) == (202, {"accepted": 1})
    assert post(live_shim, "/v1/outcomes", outcome(served="b", success=False))[0] == 202
    assert post(live_shim, "/v1/decisions", {"event": event()})[0] == 200
    (decision,) = [record for record in records(tmp_path) if isinstance(record, Decision)]
    assert decision.numbers == ((4.0, None), (None, 1.0))
    assert decision.state_age_ms == 0.0
    known = json.loads(ask(live_shim, "GET", "/v1/states").body)
    assert known["a"]["queue_depth"] == 4.0


def test_an_unhealthy_destination_gets_nothing_whoever_said_so(live_shim: Handler) -> None:
    post(live_shim, "/v1/states", {"destination": "a", "state": {"healthy": False}})
    assert post(live_shim, "/v1/decisions", {"event": event()})[1]["destinations"] == ["b"]


@pytest.mark.parametrize(
    ("report", "status", "told"),
    [
        ({"destination": "c", "state": {}}, 422, "destination 'c' is not configured"),
        ({"destination": "a", "state": {"error_rate": 2.0}}, 422, "<= 1.0"),
        ({"destination": "a", "state": {"observed_at": "2026-11-24T12:00:00"}}, 422, "RFC 3339"),
        ({"destination": "a"}, 422, "state"),
        ({"destination": "a", "state": {}, "depth": 1}, 422, "depth"),
        ([], 422, "a batch must hold"),
    ],
)
def test_a_state_that_is_wrong_is_refused_by_name(live_shim: Handler, report: Any, status: int, told: str) -> None:
    found, problem = post(live_shim, "/v1/states", report)
    assert found == status
    assert told in problem["detail"]


def test_where_live_state_is_not_configured_reporting_it_says_so(shim: Handler) -> None:
    status, problem = post(shim, "/v1/states", {"destination": "a", "state": {}})
    assert status == 422
    assert "[live]" in problem["detail"]
