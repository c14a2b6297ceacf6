"""Limits from the configuration to the decision: fitted beside a trained router, sealed, judged, served, held under drift."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from features import choices, config, ingestion
from features.clock import ReplayClock
from features.config import Configuration
from features.records import Candidate, Decision, Event, Outcome
from flows import retrain
from flows import settings as environment
from flows.wiring import Wiring
from models import evidence, pricing, router, tariff
from models.budget import BudgetError
from models.card import ContractMismatchError
from models.evidence import Circumstances
from models.releases.store import Store
from models.tariff import Tariff
from serving.case import Question
from serving.debts import Debts
from serving.decider import decide
from serving.plan import Plan
from serving.shelf import RejectedError, Shelf
from serving.view import Model, StreamView
from validation import gate

Floats = NDArray[np.float64]

AT = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("large", "middle", "free")
USD = {"large": 0.004, "middle": 0.001, "free": 0.0}
PER_EVENT = 0.0009
CONFIGURATION = """
[destinations.large]
[destinations.middle]
[destinations.free]

[streams.asks]
types = ["ask"]
destinations = ["large", "middle", "free"]
static = { default = ["free"] }
objective = { success = 1.0, window_minutes = 60.0 }

[streams.asks.exploration]
epsilon = 0.05
static_epsilon = 0.9

[streams.asks.features]
numbers = { hardness = "event.hardness", usd = "candidate.usd" }

[streams.asks.training]
min_decisions = 500
rounds = 60
leaves = 15
min_leaf = 20
threads = 1
holdout_share = 0.5

[[streams.asks.limits]]
resource = "usd"
per_event = 0.0009
price = "usd"

[[streams.asks.limits]]
destination = "middle"
share = 0.3
"""


def chance(destination: str, hardness: float) -> float:
    """How likely an answer is right: the large model hardly minds what is hard, the free one does."""
    return {"large": 0.97 - 0.1 * hardness, "middle": 0.95 - 0.4 * hardness, "free": 0.92 - 0.75 * hardness}[
        destination
    ]


def play(
    configuration: Configuration,
    n: int,
    view: StreamView,
    *,
    hardness: Callable[[np.random.Generator], float],
    seed: int,
) -> list[tuple[Decision, Outcome]]:
    """Let ``n`` questions be decided under ``view``, one a minute, the debts kept as the shim keeps them."""
    rng, plan, debts = np.random.default_rng(seed), Plan.of(configuration), Debts()
    candidates = tuple(Candidate(destination=name, attributes={"usd": USD[name]}) for name in NAMES)
    told = []
    for number in range(n):
        at, hard = AT + timedelta(minutes=number), hardness(rng)
        event = Event(id=f"{seed}-{number}", source="desk", type="ask", stream="asks", attributes={"hardness": hard})
        decided = decide(
            Question(event=event, candidates=candidates),
            plan.streams["asks"],
            view,
            None,
            at=at,
            decision_id=f"d-{seed}-{number}",
            revision=plan.revision,
            debts=debts.of("asks"),
        )
        if decided.debt is not None:
            debts.set("asks", *decided.debt)
        name = decided.decision.assigned
        outcome = Outcome(
            decision_id=decided.decision.decision_id,
            served=name,
            observed_at=at + timedelta(seconds=5),
            success=bool(rng.uniform() < chance(name, hard)),
            cost_usd=USD[name],
        )
        told.append((decided.decision, outcome))
    return told


def easy(rng: np.random.Generator) -> float:
    return float(rng.beta(2, 4))


def harder(rng: np.random.Generator) -> float:
    return float(rng.beta(3, 3))


def wire(home: Path, text: str, told: list[tuple[Decision, Outcome]]) -> Wiring:
    home.mkdir(parents=True)
    (home / "turnout.toml").write_text(text)
    chosen = environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")})
    made = Wiring(settings=chosen, clock=ReplayClock(at=AT))
    made.clock.advance(told[-1][1].observed_at)  # type: ignore[attr-defined]  # a ReplayClock
    log = home / "log.jsonl"
    log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for pair in told for record in pair))
    ingestion.ingest(made.warehouse, [log], made.configuration, now=made.now)
    return made


@pytest.fixture(scope="module")
def past() -> list[tuple[Decision, Outcome]]:
    return play(config.parse(CONFIGURATION), 8_000, StreamView(mode="off"), hardness=easy, seed=1)


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory, past: list[tuple[Decision, Outcome]]) -> Wiring:
    return wire(tmp_path_factory.mktemp("limits") / "home", CONFIGURATION, past)


def fit(wired: Wiring) -> retrain.Candidate:
    source = wired.snapshot()
    rows = retrain.read_rows(wired, "asks", source)
    return retrain.fit_candidate(wired, "asks", retrain.read_log(wired, "asks", source, rows))


@pytest.fixture(scope="module")
def candidate(wired: Wiring) -> retrain.Candidate:
    return fit(wired)


def priced(candidate: retrain.Candidate) -> Tariff:
    found = tariff.load(candidate.folder, candidate.router.card)
    assert found is not None
    return found


def test_the_prices_are_sealed_with_the_router_and_rest_on_decisions_of_neither_training_nor_judgement(
    wired: Wiring, candidate: retrain.Candidate
) -> None:
    manifest = wired.store.put(candidate.folder, digest=candidate.digest) and wired.store.verify(candidate.digest)
    assert tariff.PRICES_FILE in manifest.files
    fitted = priced(candidate).listed.fitted
    assert str(candidate.router.card.trained["until"]) < str(fitted["since"])
    assert str(fitted["until"]) < str(candidate.holdout.decided_at.min())
    assert fitted["n_decisions"] == pytest.approx(0.15 * 8_000, rel=0.01)


def test_the_candidate_is_judged_at_its_prices_and_the_evidence_says_what_it_would_use(
    wired: Wiring, candidate: retrain.Candidate, tmp_path: Path
) -> None:
    compared = retrain.compare_candidate(wired, "asks", candidate)
    usd, middle = compared.use["usd"], compared.use["share of middle"]
    assert (usd.at_most, middle.at_most) == (PER_EVENT, 0.3)
    assert usd.candidate == pytest.approx(PER_EVENT, rel=0.1)  # unpaced, and priced on 1,200 decisions
    assert middle.candidate <= 0.3 * 1.1
    assert usd.champion == 0.0  # the static route is the free one
    assert compared.load_shares["large"][1] < 0.25 < _greedy_share(candidate, "large")
    verdict = gate.judge(compared, wired.configuration.streams["asks"].gate)
    circumstances = Circumstances(
        stream="asks",
        candidate_digest=candidate.digest,
        champion_digest=None,
        baseline_generation=0,
        policy_revision="",
        created_at="",
        data={},
        batch={},
    )
    evidence.write(tmp_path, compared, verdict, candidate.router.card, circumstances)
    line = "usd: at most 0.0009 per event; the candidate would use 0.000"
    assert line in evidence.summary(compared, verdict, circumstances)
    assert line in (tmp_path / evidence.PAGE_FILE).read_text()
    assert b'"at_most": 0.0009' in (tmp_path / evidence.REPORT_FILE).read_bytes()
    assert evidence.metrics(compared)["use_share_of_middle"] == middle.candidate


def _greedy_share(candidate: retrain.Candidate, name: str) -> float:
    log = candidate.holdout
    chosen = pricing.greedy(log, candidate.router.score_log(log.numbers, log.categories), None)
    return float(chosen[log.destination.codes == log.destination.values.index(name)].sum() / log.n_decisions)


def test_a_champion_is_judged_at_its_own_prices(candidate: retrain.Candidate) -> None:
    own = priced(candidate)
    loaded = router.load(candidate.folder)
    compared = retrain.comparison.compare(
        candidate.holdout, loaded, loaded, tariff=own, champion_tariff=own, exploration=choices.Exploration()
    )
    assert compared.disagreement_rate == 0.0
    unpriced = retrain.comparison.compare(candidate.holdout, loaded, loaded, tariff=own)
    assert unpriced.disagreement_rate > 0.1
    assert unpriced.use["usd"].champion > 1.5 * PER_EVENT


def test_limits_hold_within_two_per_cent_on_events_that_have_drifted_and_what_paces_them_is_the_debt(
    candidate: retrain.Candidate,
) -> None:
    configuration = config.parse(CONFIGURATION)
    held = Model(candidate.digest, router.load(candidate.folder), tariff=priced(candidate))
    told = play(configuration, 12_000, StreamView(mode="on", champion=held), hardness=harder, seed=2)
    use = np.array([[USD[d.assigned], d.assigned == "middle"] for d, _ in told])
    assert use[:, 0].mean() == pytest.approx(PER_EVENT, rel=0.02)
    assert use[:, 1].mean() <= 0.3 * 1.02
    listed = priced(candidate).listed
    slow = (
        msgspec.structs.replace(e, limit=msgspec.structs.replace(e.limit, pace_events=10**9)) for e in listed.limits
    )
    unpaced = Tariff(msgspec.structs.replace(listed, limits=tuple(slow)), candidate.router.card.numbers)
    adrift = Model(candidate.digest, held.router, tariff=unpaced)
    told = play(configuration, 3_000, StreamView(mode="on", champion=adrift), hardness=harder, seed=2)
    assert np.mean([USD[d.assigned] for d, _ in told]) > 1.1 * PER_EVENT


def test_a_limit_that_nobody_can_meet_is_refused_with_the_least_possible(
    tmp_path: Path, past: list[tuple[Decision, Outcome]]
) -> None:
    text = CONFIGURATION.replace("per_event = 0.0009", "per_event = 0.00001")  # exploring alone uses 8e-5
    tight = wire(tmp_path / "home", text, past[:4_000])
    with pytest.raises(BudgetError, match=r"usd: at most 1e-05 per event cannot be met .*the least is 8\.3\d+e-05"):
        fit(tight)


def test_a_predicted_cost_is_limited_without_being_weighed(
    tmp_path: Path, past: list[tuple[Decision, Outcome]]
) -> None:
    text = CONFIGURATION.replace('resource = "usd"', 'resource = "cost_usd"').replace('price = "usd"\n', "")
    made = wire(tmp_path / "home", text, past[:4_000])
    fitted = fit(made)
    assert "cost_usd" in fitted.router.card.heads
    compared = retrain.compare_candidate(made, "asks", fitted)
    assert compared.use["cost_usd"].candidate == pytest.approx(PER_EVENT, rel=0.2)  # priced on 600 decisions


def test_a_price_feature_that_tells_nothing_or_pays_back_is_refused_by_name(candidate: retrain.Candidate) -> None:
    log, limits = candidate.holdout, config.parse(CONFIGURATION).streams["asks"].limits
    for price, words in ((np.nan, "'usd' never tells a number"), (-1.0, "'usd' falls to -1, below 0")):
        spoiled = log.numbers.copy()
        spoiled[:, 1] = price
        with pytest.raises(BudgetError, match=words):
            pricing.price(candidate.router, _with_numbers(log, spoiled), limits, choices.Exploration())


def _with_numbers(log: retrain.DecisionLog, numbers: Floats) -> retrain.DecisionLog:
    changed = log.take(np.ones(log.n_decisions, bool))
    object.__setattr__(changed, "numbers", numbers)
    return changed


def test_the_shim_serves_a_router_with_its_prices_and_refuses_prices_that_do_not_fit(
    tmp_path: Path, candidate: retrain.Candidate
) -> None:
    store, plan = Store(tmp_path / "store"), Plan.of(config.parse(CONFIGURATION)).streams["asks"]
    store.put(candidate.folder, digest=candidate.digest)
    shelf = Shelf(tmp_path / "shim", store, try_out=lambda _: None)
    served = shelf.router(candidate.digest, plan)
    assert served.tariff is not None
    assert served.tariff.listed == priced(candidate).listed
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in candidate.folder.iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    content = (wrong / tariff.PRICES_FILE).read_text()
    (wrong / tariff.PRICES_FILE).write_text(content.replace('"price": "usd"', '"price": "eur"'))
    digest = retrain.bundle.seal(wrong, kind="router")
    store.put(wrong, digest=digest)
    with pytest.raises(RejectedError, match="the limit on usd reads 'eur', which is no number feature"):
        shelf.router(digest, plan)
    with pytest.raises(ContractMismatchError):
        tariff.load(wrong, candidate.router.card)


def test_a_holdout_of_one_day_cannot_price_and_judge(candidate: retrain.Candidate) -> None:
    log = candidate.holdout.take(np.ones(candidate.holdout.n_decisions, bool))
    object.__setattr__(log, "cluster", np.zeros(log.n_decisions, np.int64))
    with pytest.raises(BudgetError, match=r"limits need a part of the holdout of their own: .* share a cluster"):
        pricing.divide(log)


def test_without_limits_there_are_no_prices(tmp_path: Path, past: list[tuple[Decision, Outcome]]) -> None:
    text = CONFIGURATION[: CONFIGURATION.index("[[streams.asks.limits]]")]
    free = wire(tmp_path / "home", text, past[:2_000])
    fitted = fit(free)
    assert not (fitted.folder / tariff.PRICES_FILE).exists()
    assert retrain.compare_candidate(free, "asks", fitted).use == {}
