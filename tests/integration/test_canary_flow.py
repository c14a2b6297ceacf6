"""A live canary from the warehouse to the ledger: every way that it climbs, wins, waits or ends."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from features import ingestion
from features.clock import ReplayClock
from features.records import Decision, Outcome
from flows import canary, demote, retrain, shadow
from flows import settings as environment
from flows.wiring import Wiring
from models import router
from models.releases import transitions
from serving.view import Model, StreamView

Play = Callable[..., list[tuple[Decision, Outcome]]]
Told = Sequence[tuple[Decision, Outcome]]
GATE = """
[streams.orders.gate]
ladder = [{ share = 0.3, min_decisions = 200 }, { share = 0.6, min_decisions = 200 }]
min_decisions = 100
"""


def home_of(folder: Path, text: str, *, at: datetime) -> Wiring:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "turnout.toml").write_text(text)
    chosen = environment.read({"TURNOUT_HOME": str(folder), "TURNOUT_CONFIG": str(folder / "turnout.toml")})
    return Wiring(settings=chosen, clock=ReplayClock(at=at))


def take_in(wired: Wiring, told: Told, name: str) -> None:
    """Let the world be as it was when the last outcome of ``told`` came, all windows closed."""
    log = wired.settings.home / f"{name}.jsonl"
    log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for pair in told for record in pair))
    wired.clock.advance(told[-1][0].decided_at + timedelta(hours=2))  # type: ignore[attr-defined]  # a ReplayClock
    ingestion.ingest(wired.warehouse, [log], wired.configuration, now=wired.now)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, tiny_text: str, play: Play) -> Path:
    """A router that knows when the bank fails, sealed."""
    wired = home_of(tmp_path_factory.mktemp("learned"), tiny_text, at=datetime(2026, 1, 1, tzinfo=UTC))
    take_in(wired, play(wired.configuration, 700), "history")
    source = wired.snapshot()
    rows = retrain.read_rows(wired, "orders", source)
    return retrain.fit_candidate(wired, "orders", retrain.read_log(wired, "orders", source, rows)).folder


class Canary:
    """A stream with a router on its ladder, whose decisions are played."""

    def __init__(self, folder: Path, text: str, fitted: Path, play: Play, *, share: float = 0.3) -> None:
        self.began_at = datetime(2026, 2, 1, tzinfo=UTC)
        self.wired, self._play, self.n_played = home_of(folder, text, at=self.began_at), play, 0
        self.digest = self.wired.store.put(fitted)
        self.model = Model(self.digest, router.load(self.wired.store.path(self.digest)))
        self.wired.append(
            transitions.start_canary, stream="orders", digest=self.digest, share=share, reason="approved", evidence={}
        )

    def play(self, n: int, *, n_keys: int = 0) -> list[tuple[Decision, Outcome]]:
        live = self.wired.live("orders")
        view = StreamView(
            mode="canary",
            generation=self.wired.generation,
            challenger=self.model if live.canary else None,
            challenger_share=live.canary_share,
        )
        self.n_played += 1
        begin = max(self.wired.now, self.began_at)
        return self._play(self.wired.configuration, n, view=view, seed=self.n_played, begin=begin, n_keys=n_keys)

    def step(self, told: Told) -> dict[str, object]:
        take_in(self.wired, told, f"part-{self.n_played}")
        return canary.act(self.wired, "orders", canary.look(self.wired, "orders"), dry_run=False)


@pytest.fixture
def begun(tmp_path: Path, tiny_text: str, fitted: Path, play: Play) -> Callable[..., Canary]:
    return lambda extra="", **choices: Canary(tmp_path, tiny_text + GATE + extra, fitted, play, **choices)


def test_a_better_challenger_is_promoted_on_what_the_warehouse_says(begun: Callable[..., Canary]) -> None:
    live = begun()
    told = live.step(live.play(900))
    assert told["state"] == "promote", told
    assert live.wired.live("orders").champion == live.digest
    assert "0 of" in str(told["compliance"])


def test_a_sticky_canary_climbs_and_every_key_is_counted_by_what_its_rung_drew(begun: Callable[..., Canary]) -> None:
    live = begun("alpha = 0.000001\n")
    text = live.wired.settings.config_path.read_text().replace('mode = "off"', 'mode = "off"\nsticky = true')
    live.wired = home_of(live.wired.settings.home, text, at=live.wired.now)
    climbed = live.step(live.play(300, n_keys=60))
    assert (climbed["state"], climbed["share"]) == ("advanced", 0.6)
    take_in(live.wired, live.play(400, n_keys=60), "second")
    seen = canary.look(live.wired, "orders")
    assert set(seen.log.on_rung.round(9)) == {0.3, 0.6}
    assert set(seen.log.share.round(9)) == {0.3, round((0.6 - 0.3) / (1 - 0.3), 9)}
    assert seen.verdict.n_units > 60
    assert seen.gate.max_unit_size == 20
    assert seen.verdict.estimate > 0.0


def worse(told: Told) -> list[tuple[Decision, Outcome]]:
    """Let everything fail that the challenger decided."""
    return [
        (made, msgspec.structs.replace(outcome, success=False) if made.arm == "challenger" else outcome)
        for made, outcome in told
    ]


def test_p03_p16_a_challenger_that_fails_is_rolled_back_and_the_next_one_waits_for_the_cool_down(
    begun: Callable[..., Canary],
) -> None:
    live = begun("cooldown_hours = 12.0\n")
    told = live.step(worse(live.play(600)))
    assert told["state"] == "rollback"
    assert live.wired.live("orders").canary is None
    until = canary.cools_until(live.wired, "orders")
    assert until == live.wired.now + timedelta(hours=12)
    live.wired.clock.advance(until)  # type: ignore[attr-defined]  # a ReplayClock
    assert canary.cools_until(live.wired, "orders") is None


def test_p05_outcomes_that_go_missing_in_one_arm_never_pass(begun: Callable[..., Canary]) -> None:
    live = begun("max_unanswered_rise = 1.0\n")
    told = [
        (made, msgspec.structs.replace(outcome, status="lost", success=None, latency_ms=None))
        if made.arm == "static" and number % 2
        else (made, outcome)
        for number, (made, outcome) in enumerate(live.play(900))
    ]
    told_of = live.step(told)
    assert told_of["state"] == "inconclusive"
    assert "outcomes go missing in the champion's arm" in str(told_of["alerts"])


def test_p04_outcomes_that_come_late_in_one_arm_are_told_apart(begun: Callable[..., Canary]) -> None:
    live = begun()
    told = [
        (made, msgspec.structs.replace(outcome, observed_at=made.decided_at + timedelta(minutes=50)))
        if made.arm == "challenger"
        else (made, outcome)
        for made, outcome in live.play(900)
    ]
    told_of = live.step(told)
    assert told_of["state"] == "inconclusive"
    assert "outcomes come late in the challenger's arm" in str(told_of["alerts"])


def test_p04_what_is_still_open_is_not_judged_nor_what_came_after_it(begun: Callable[..., Canary]) -> None:
    live = begun()
    told = live.play(300)
    silent = [record for number, pair in enumerate(told) for record in (pair[:1] if number == 250 else pair)]
    log = live.wired.settings.home / "part.jsonl"
    log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in silent))
    live.wired.clock.advance(told[-1][1].observed_at)  # type: ignore[attr-defined]  # a ReplayClock
    ingestion.ingest(live.wired.warehouse, [log], live.wired.configuration, now=live.wired.now)
    assert canary.look(live.wired, "orders").verdict.n_decisions == 250


def test_a_decision_that_broke_the_rules_ends_the_canary_at_once(begun: Callable[..., Canary]) -> None:
    live = begun()
    told = live.play(20)
    at = next(number for number, (made, _) in enumerate(told) if made.arm == "challenger")
    made, outcome = told[at]
    told[at] = (msgspec.structs.replace(made, excluded={made.assigned: "residency"}), outcome)
    ended = live.step(told)
    assert ended["state"] == "rollback"
    assert "policy: 1 decisions went where the rules forbid" in str(ended["reasons"])
    assert "1 of" in str(ended["compliance"])


def test_a_canary_past_its_deadline_is_withdrawn(begun: Callable[..., Canary]) -> None:
    live = begun("deadline_hours = 1.0\nalpha = 0.000001\n")
    told = live.step(live.play(100))
    assert told["state"] == "rollback"
    assert "the deadline has passed" in str(told["reasons"])


@pytest.mark.parametrize("mode", ["dry_run", "disabled"])
def test_a_gate_that_is_not_enabled_tells_only_or_lets_everything_pass(begun: Callable[..., Canary], mode: str) -> None:
    live = begun(f'mode = "{mode}"\n')
    before = live.wired.generation
    told = live.step(live.play(900) if mode == "dry_run" else worse(live.play(900)))
    if mode == "dry_run":
        assert (told["state"], live.wired.generation) == ("promote", before)
    else:
        assert live.wired.live("orders").champion == live.digest
        head = live.wired.ledger.head()
        assert head is not None
        assert head.entry.reason == "the gate is disabled: promoted unproven"


def test_a_slow_and_a_dear_challenger_are_rolled_back(begun: Callable[..., Canary]) -> None:
    live = begun("cost_limit_usd = 1.0\nmax_failure_rise = 1.0\nalpha = 0.000001\n")
    text = live.wired.settings.config_path.read_text().replace("success = 1.0", "success = 1.0\nsla_latency_ms = 500.0")
    live.wired = home_of(live.wired.settings.home, text, at=live.wired.now)
    told = [
        (
            made,
            msgspec.structs.replace(outcome, latency_ms=900.0, cost_usd=0.9) if made.arm == "challenger" else outcome,
        )
        for made, outcome in live.play(900)
    ]
    ended = live.step(told)
    assert ended["state"] == "rollback"
    assert "slow rises by more than 0.05" in str(ended["reasons"])
    assert "cost rises by more than 0.05" in str(ended["reasons"])


def test_nothing_wins_that_a_destination_cannot_take(begun: Callable[..., Canary]) -> None:
    live = begun()
    text = live.wired.settings.config_path.read_text()
    text = text.replace("[destinations.bank]\n", "[destinations.bank]\ncapacity_per_hour = 2.0\n")
    live.wired = home_of(live.wired.settings.home, text, at=live.wired.now)
    told = live.step(live.play(900))  # 60 events an hour, about half of them for the bank
    assert told["state"] == "held"
    assert "at 100 % destination bank gets" in str(told["overload"])
    assert live.wired.live("orders").canary == live.digest
    text = text.replace("capacity_per_hour = 2.0", "capacity_per_hour = 2000.0")
    wired = home_of(live.wired.settings.home, text, at=live.wired.now)
    assert canary.act(wired, "orders", canary.look(wired, "orders"), dry_run=False)["state"] == "promote"


def test_a_shadow_is_observed_first_and_told_what_it_would_have_brought(
    tmp_path: Path, tiny_text: str, fitted: Path, play: Play
) -> None:
    text = tiny_text.replace('mode = "off"', 'mode = "observe"') + GATE + "shadow_decisions = 400\n"
    wired = home_of(tmp_path, text, at=datetime(2026, 2, 1, tzinfo=UTC))
    digest = wired.store.put(fitted)
    said = {"version": "router/1 of now", "approver": "ada"}
    wired.append(transitions.release_shadow, stream="orders", digest=digest, reason="approved by ada", evidence=said)
    since = shadow.approved(wired, "orders")
    assert since is not None
    model = Model(digest, router.load(wired.store.path(digest)))
    view = StreamView(mode="observe", generation=wired.generation, shadow=model)
    take_in(wired, play(wired.configuration, 300, view=view, begin=wired.now, seed=1), "first")
    told = shadow.advance(wired, "orders", since, dry_run=False)
    assert (told["state"], told["n_decisions"]) == ("observing", 300)
    assert 0.0 < told["agreement_share"] < 1.0
    assert told["difference"].startswith("+")
    take_in(wired, play(wired.configuration, 200, view=view, begin=wired.now, seed=2), "second")
    assert shadow.advance(wired, "orders", since, dry_run=True)["state"] == "observing"
    assert shadow.advance(wired, "orders", since, dry_run=False)["state"] == "canary_begun"
    live, head = wired.live("orders"), wired.ledger.head()
    assert (live.canary, live.canary_share, live.shadow) == (digest, 0.3, None)
    assert head is not None
    assert head.entry.evidence == said


def test_a_shadow_that_nobody_approved_is_left_alone(tmp_path: Path, tiny_text: str, fitted: Path) -> None:
    wired = home_of(tmp_path, tiny_text, at=datetime(2026, 2, 1, tzinfo=UTC))
    digest = wired.store.put(fitted)
    wired.append(transitions.release_shadow, stream="orders", digest=digest, reason="a look", evidence={})
    assert shadow.approved(wired, "orders") is None


@pytest.mark.parametrize("dry_run", [True, False])
def test_p17_a_champion_that_fails_gives_its_stream_back_to_the_static_routes(
    begun: Callable[..., Canary], play: Play, *, dry_run: bool
) -> None:
    live = begun("[streams.orders.demotion]\nmax_failure_rate = 0.5\nwindow_hours = 1000.0\n")
    wired = live.wired
    wired.append(transitions.promote, stream="orders", reason="for the test", evidence={})
    view = StreamView(mode="on", generation=wired.generation, champion=live.model)
    told = play(wired.configuration, 300, view=view, begin=wired.now, seed=1)
    take_in(wired, told, "good")
    assert demote.find_faults(wired, "orders") == ()
    told = play(wired.configuration, 300, view=view, begin=wired.now, seed=2)
    take_in(wired, [(made, msgspec.structs.replace(outcome, success=False)) for made, outcome in told], "bad")
    found = demote.find_faults(wired, "orders")
    assert "fails too often" in found[0]
    before = wired.generation
    ended = demote.act(wired, "orders", found, dry_run=dry_run)
    assert (ended["state"], wired.generation - before) == ("demoted", 0 if dry_run else 1)
    assert (wired.live("orders").champion is None) is not dry_run
    if not dry_run:
        assert canary.cools_until(wired, "orders") is not None
        assert demote.find_faults(wired, "orders") == ()


def test_a_champion_is_stale_once_its_data_are_too_old(begun: Callable[..., Canary]) -> None:
    live = begun("[streams.orders.demotion]\nmax_age_hours = 2000.0\n")
    live.wired.append(transitions.promote, stream="orders", reason="for the test", evidence={})
    assert demote.find_faults(live.wired, "orders") == ()
    live.wired.clock.advance(live.wired.now + timedelta(hours=2_000))  # type: ignore[attr-defined]  # a ReplayClock
    assert demote.find_faults(live.wired, "orders")[0].startswith("stale")
