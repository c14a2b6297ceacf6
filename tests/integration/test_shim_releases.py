import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features import config
from features.vector import CategoryColumn
from models import compiling, engine, fit, router
from models.releases import bundle, transitions
from models.releases.entry import Entry
from models.releases.history import History
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving import probe, server
from serving.asgi import Application
from serving.messages import Request
from serving.plan import Plan
from serving.probe import ProbeFailedError
from serving.settings import Settings
from serving.shelf import RejectedError, Shelf

BY = Attribution(actor="ada", reason="drill", at=datetime(2026, 11, 24, tzinfo=UTC))
JSON = {"content-type": "application/json"}
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { epsilon = 0.1 }
features = { numbers = { weight = "event.weight", depth = "state.queue_depth" } }

[destinations]
a = {}
b = {}
"""
PLAN = Plan.of(config.parse(CONFIGURATION))


def train(folder: Path, *, favours: str, stream: str = "orders", feature_set: str | None = None) -> str:
    """Train a router that prefers one destination and return its bundle's digest."""
    random = np.random.default_rng(5)
    numbers, codes = random.normal(size=(1_200, 2)), random.integers(0, 2, 1_200)
    success = random.random(1_200) < np.where(codes == "ab".index(favours), 0.9, 0.1)
    examples = fit.Examples(
        number_names=("weight", "depth"),
        category_names=("destination",),
        numbers=numbers,
        categories=[CategoryColumn(codes, ("a", "b"))],
        success=success.astype(float),
        latency_ms=np.full(1_200, np.nan),
        cost_usd=np.full(1_200, np.nan),
        propensity=np.full(1_200, 0.5),
    )
    of = PLAN.streams["orders"]
    subject = fit.Subject(
        stream=stream,
        feature_set=feature_set or of.features.version,
        objective=of.stream.objective,
        destinations=of.stream.destinations,
        settings=msgspec.structs.replace(of.stream.training, rounds=20, threads=1),
        trained={},
    )
    fit.train(examples, folder, subject)
    return bundle.seal(folder, kind="router")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    for favours in "ab":
        train(root / favours, favours=favours)
    return root


class Home:
    """A shim's home with a store and a ledger that a pipeline would write."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        (root / "turnout.toml").write_text(CONFIGURATION)
        self.settings = Settings(home=root / "home", config_path=root / "turnout.toml", poll_seconds=0.05)
        self.store = Store(self.settings.store_path)
        self.ledger = Ledger(self.settings.ledger_path)
        self.append(lambda _: transitions.genesis(streams={"orders": "off"}, by=BY))

    def append(self, make: Callable[[History], Entry]) -> None:
        history = self.ledger.history()
        self.ledger.append(make(history), expected_head=history.hash)

    def promote(self, digest: str) -> int:
        self.append(lambda history: transitions.start_canary(history, stream="orders", digest=digest, share=0.5, by=BY))
        self.append(lambda history: transitions.promote(history, stream="orders", by=BY))
        return self.ledger.history().generation

    def shelf(self) -> Shelf:
        return Shelf(self.settings.state_path, self.store)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path / "shim")
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o700)  # releases are read-only, and pytest tidies up


def decide(application: Application, identity: str) -> dict[str, object]:
    event = {"specversion": "1.0", "id": identity, "source": "/shop", "type": "shop.order", "data": {"weight": 1.0}}
    body = json.dumps({"event": event}).encode()
    response = application.handler.handle(Request("POST", "/v1/decisions", "", JSON, body))
    assert response.status == 200, response.body
    return dict(json.loads(response.body))


def problems(application: Application) -> str:
    response = application.handler.handle(Request("GET", "/status"))
    return " ".join(json.loads(response.body)["problems"])


def poll(application: Application) -> None:
    application.handler._shim.releases.poll()  # type: ignore[attr-defined]


def edited(source: Path, target: Path, edit: Callable[[str], str]) -> str:
    """Copy a bundle with its model's text edited, sealed as if it were whole."""
    shutil.copytree(source, target)
    path = target / "success_probability_0.txt"
    path.write_text(edit(path.read_text()))
    return bundle.seal(target, kind="router")


def nudge_a_leaf(text: str) -> str:
    """Change one digit of the first leaf's value; the length, which LightGBM checks, stays."""
    start = text.index("leaf_value=") + len("leaf_value=")
    digit = start + text[start:].index(".") + 1
    return text[:digit] + ("1" if text[digit] != "1" else "2") + text[digit + 1 :]


def test_a_promoted_router_decides_and_a_rollback_puts_the_other_back(home: Home, trained: Path) -> None:
    digests = {name: home.store.put(trained / name) for name in "ab"}
    application = server.build(home.settings)
    assert decide(application, "e0")["reason"] == "static: mode off"
    for name in "ab":
        generation = home.promote(digests[name])
        poll(application)
        told = [decide(application, f"{name}{number}") for number in range(30)]
        assert {(answer["generation"], answer["digest"], answer["arm"]) for answer in told} == {
            (generation, digests[name], "champion")
        }
        assert sum(answer["destinations"][0] == name for answer in told) > 20  # type: ignore[index]
    home.append(lambda history: transitions.rollback(history, stream="orders", by=BY))
    poll(application)
    assert decide(application, "later")["digest"] == digests["a"]


def test_s06_swaps_under_load_fail_no_request_and_every_answer_is_of_one_release(home: Home, trained: Path) -> None:
    digests = [home.store.put(trained / name) for name in "ab"]
    application = server.build(home.settings)
    follower = application.handler._shim.releases
    released = {home.promote(digests[0]): digests[0]}
    poll(application)
    follower.start()  # type: ignore[attr-defined]
    told, n_swaps = [], 0
    give_up_at = time.monotonic() + 60
    while n_swaps < 20 and time.monotonic() < give_up_at:
        told.append(decide(application, f"e{len(told)}"))
        if told[-1]["generation"] == max(released) and len(told) % 10 == 0:
            other = digests[n_swaps % 2 == 0]
            home.append(lambda history, to=other: transitions.rollback(history, stream="orders", to=to, by=BY)) if (
                n_swaps > 1
            ) else home.promote(other)
            released[home.ledger.history().generation] = other
            n_swaps += 1
    follower.stop()  # type: ignore[attr-defined]
    assert n_swaps == 20
    seen = {(answer["generation"], answer["digest"]) for answer in told}
    # Between the two generations of a promotion, the canary's: nothing else may be seen.
    assert {(generation, digest) for generation, digest in seen if generation in released} <= set(released.items())
    assert len(seen) >= 20


def test_s07_the_last_good_release_decides_at_the_start_with_store_and_ledger_gone(home: Home, trained: Path) -> None:
    digest = home.store.put(trained / "a")
    home.promote(digest)
    poll(server.build(home.settings))
    for folder in (home.settings.ledger_path, home.settings.store_path):
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o700)
        shutil.rmtree(folder)
    application = server.build(home.settings)
    assert decide(application, "e1")["digest"] == digest
    poll(application)
    assert decide(application, "e2")["digest"] == digest
    assert "holds nothing" in problems(application)


def test_s08_a_damaged_copy_is_fetched_again_and_without_a_store_the_static_routes_decide(
    home: Home, trained: Path
) -> None:
    digest = home.store.put(trained / "a")
    home.promote(digest)
    poll(server.build(home.settings))
    copy = home.settings.state_path / "bundles" / digest / "success_probability_0.txt"

    def damage() -> None:
        copy.chmod(0o600)
        copy.write_text(copy.read_text()[:-400])

    damage()
    assert decide(server.build(home.settings), "e1")["digest"] == digest
    damage()
    home.store.path(digest).chmod(0o700)
    shutil.rmtree(home.store.path(digest))
    application = server.build(home.settings)
    assert decide(application, "e2")["reason"] == "static: no champion"
    assert "holds no release" in problems(application)


def assert_refused(home: Home, good: Path, folder: Path, bad: str, words: str) -> None:
    """Release ``good`` and then the ``bad`` bytes in ``folder``: the shim stays with the first, and says one of ``words`` of the other."""
    digest = home.store.put(good)
    home.promote(digest)
    application = server.build(home.settings)
    poll(application)
    home.store.put(folder)
    home.promote(bad)
    poll(application)
    assert decide(application, "e1")["digest"] == digest
    told = problems(application)
    assert bad[:12] in told
    assert any(word in told for word in words.split("|")), told


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text[: len(text) // 2], "killed the probe|LightGBMError"),
        (lambda text: text.replace("num_leaves=", "num_leaves=9"), "killed the probe|LightGBMError|golden"),
        (nudge_a_leaf, "golden row"),
    ],
    ids=["truncated", "mutated", "same length"],
)
def test_a_router_whose_bytes_are_bad_dies_in_the_child_and_not_here(
    home: Home, trained: Path, tmp_path: Path, edit: Callable[[str], str], words: str
) -> None:
    bad = edited(trained / "b", tmp_path / "bad", edit)
    assert_refused(home, trained / "a", tmp_path / "bad", bad, words)


def test_a_router_made_for_something_else_is_a_contract_mismatch(home: Home, tmp_path: Path) -> None:
    for number, options in enumerate(({"stream": "refunds"}, {"feature_set": "older"})):
        digest = train(tmp_path / str(number), favours="a", **options)
        home.store.put(tmp_path / str(number))
        with pytest.raises(RejectedError, match="contract mismatch"):
            home.shelf().router(digest, PLAN.streams["orders"])


def test_a_bundle_of_another_kind_is_no_router(home: Home, tmp_path: Path) -> None:
    series = {"hours": ["2026-11-24T13:00:00Z"], "p10": [1.0], "p50": [2.0], "p90": [3.0]}
    for name, document in (
        ("good", {"at": "2026-11-24T12:00:00Z", "series": {"JFK": series}}),
        ("bad", {"at": "2026-11-24T12:00:00Z", "series": {"JFK": series | {"p90": []}}}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "forecast.json").write_text(json.dumps(document))
    good, bad = (bundle.seal(tmp_path / name, kind="forecaster") for name in ("good", "bad"))
    for name in ("good", "bad"):
        home.store.put(tmp_path / name)
    assert home.shelf().forecast(good).series["JFK"].p90 == (3.0,)  # type: ignore[attr-defined]
    with pytest.raises(RejectedError, match="equally many"):
        home.shelf().forecast(bad)
    with pytest.raises(RejectedError, match="is a forecaster, not a router"):
        home.shelf().router(good, PLAN.streams["orders"])
    with pytest.raises(RejectedError, match="holds no release"):
        home.shelf().forecast("0" * 64)


def test_a_router_is_tried_out_once(home: Home, trained: Path) -> None:
    tried: list[Path] = []
    digest = home.store.put(trained / "a")
    for _ in range(3):
        shelf = Shelf(home.settings.state_path, home.store, try_out=tried.append)
        assert shelf.router(digest, PLAN.streams["orders"]).digest == digest
    assert len(tried) == 1
    shelf.keep_only([])
    assert not list((home.settings.state_path / "bundles").glob("[0-9a-f]*"))


def test_a_probe_that_hangs_is_given_up(trained: Path) -> None:
    with pytest.raises(ProbeFailedError, match="no answer within"):
        probe.try_out(trained / "a", timeout_seconds=0.01)


def test_s09_a_router_that_raises_on_predict_is_condemned_after_three_events(
    home: Home, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.promote(home.store.put(trained / "a"))
    application = server.build(home.settings)
    poll(application)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(router.Router, "score_matrix", fail)
    reasons = [decide(application, f"e{number}")["reason"] for number in range(4)]
    assert [str(reason)[:16] for reason in reasons] == ["static: fallback"] * 3 + ["static: no champ"]
    assert "oops" in problems(application)
    monkeypatch.undo()
    poll(application)
    assert decide(server.build(dataclasses.replace(home.settings)), "later")["reason"] == "static: no champion"


def compiled(source: Path, target: Path, edit: Callable[[bytes], bytes] = bytes) -> str:
    """Copy a bundle, make its tables, edit them, and seal it as the publisher does."""
    shutil.copytree(source, target)
    assert compiling.compile_router(target, router.read_card(target)) == {}
    path = target / "success_probability_0.masks"
    path.write_bytes(edit(path.read_bytes()))
    return bundle.seal(target, kind="router")


def served(application: Application) -> str:
    response = application.handler.handle(Request("GET", "/metrics"))
    return next(line for line in response.body.decode().splitlines() if line.startswith("turnout_engine{"))


def test_tables_serve_where_they_are_and_decide_as_lightgbm_does(home: Home, trained: Path, tmp_path: Path) -> None:
    application = server.build(home.settings)
    told = []
    for digest in (home.store.put(trained / "a"), compiled(trained / "a", tmp_path / "a")):
        if (tmp_path / "a").exists() and digest not in home.store.digests():
            home.store.put(tmp_path / "a")
        generation = home.promote(digest)
        poll(application)
        answers = [decide(application, f"{generation}-{number}") for number in range(5)]
        assert {answer["digest"] for answer in answers} == {digest}
        told.append(served(application))
    fastest = "c" if engine.is_compiled() else "numpy"
    assert told == [
        f'turnout_engine{{engine="{form}",role="champion",stream="orders"}} 1.0' for form in ("booster", fastest)
    ]
    rows = np.array([[0.1, np.nan, 0.0], [-3.0, 2.0, 1.0], [np.nan, np.nan, np.nan]])
    by_tables, by_lightgbm = (router.load(folder).score_matrix(rows) for folder in (tmp_path / "a", trained / "a"))
    assert by_tables.value.tobytes() == by_lightgbm.value.tobytes()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda data: data[:-1], "would end at byte|expected"),
        (lambda data: data[:24] + b"\xff" + data[25:], "reads 255 features"),
        (lambda data: data[: 24 + 80 + 24] + b"\x01\x01" + data[24 + 80 + 26 :], "outside|by LightGBM"),
        (lambda data: data[:-4_000] + b"\0" * 4_000, "golden row"),
    ],
    ids=["cut", "head", "column", "masks"],
)
def test_edited_tables_are_refused_in_the_child_and_the_last_good_release_stays(
    home: Home, trained: Path, tmp_path: Path, edit: Callable[[bytes], bytes], words: str
) -> None:
    bad = compiled(trained / "b", tmp_path / "bad", edit)
    assert_refused(home, trained / "a", tmp_path / "bad", bad, words)
