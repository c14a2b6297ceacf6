"""A configuration is read whole or refused: by file, line, field and rule."""

import re
from pathlib import Path

import pytest

from features import config
from features.choices import Gate, Rung
from features.config import ConfigurationError, StaticRoutes
from features.records import Event

GOOD = """\
[destinations.card]
region = "eu"
attributes = { fee = 0.3 }

[destinations.bank]

[[rules]]
name = "residency"
label = "eu-only"
allow_regions = ["eu"]

[streams.orders]
types = ["shop.order"]
destinations = ["card", "bank"]
mode = "observe"

[streams.orders.objective]
success = 1.0
window_minutes = 30

[streams.orders.static]
by = "country"
default = ["card"]
routes = { NO = ["bank"] }

[streams.orders.features]
numbers = { amount = "event.amount" }
"""


def _replaced(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_a_good_configuration_is_read_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(GOOD)
    read = config.load(path)
    orders = read.streams["orders"]
    assert (orders.mode, orders.objective.window_minutes, orders.destinations) == ("observe", 30.0, ("card", "bank"))
    assert [rung.share for rung in orders.gate.ladder] == [0.01, 0.05, 0.25, 0.5]
    assert (read.destinations["card"].region, read.rules[0].name) == ("eu", "residency")
    assert read.forecast is None


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('mode = "observe"', 'mod = "observe"', 15, "streams.orders.mod: Object contains unknown field `mod`"),
        ('mode = "observe"', 'mode = "maybe"', 15, "streams.orders.mode: Invalid enum value 'maybe'"),
        ("success = 1.0", 'success = "much"', 18, "streams.orders.objective.success: Expected `float`, got `str`"),
        (
            "window_minutes = 30",
            "window_minutes = 0",
            19,
            "streams.orders.objective.window_minutes: Expected `float` > 0.0",
        ),
        ("success = 1.0", "low = 2.0", 17, "low must be below high"),
        ('types = ["shop.order"]', "", 12, "streams.orders: Object missing required field `types`"),
        ('["card", "bank"]', '["card", "cash"]', 14, "destination 'cash' is not configured under [destinations]"),
        ('default = ["card"]', 'default = ["cash"]', 23, "streams.orders.static.default: destination 'cash'"),
        ('{ NO = ["bank"] }', '{ NO = ["cash"] }', 24, "streams.orders.static.routes.NO: destination 'cash'"),
        ('"event.amount"', '"event.amount +"', 27, "cannot read expression"),
        ('label = "eu-only"', "", 7, "Object missing required field `label`"),
        ('allow_regions = ["eu"]', 'allow = ["cash"]', 10, "destination 'cash'"),
        ('region = "eu"', "region = 7", 2, "destinations.card.region: Expected `str | null`, got `int`"),
    ],
)
def test_what_is_wrong_is_named_by_line_field_and_rule(old: str, new: str, line: int, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.parse(_replaced(old, new))
    message = str(caught.value)
    assert message.startswith(f"turnout.toml:{line}: ")
    assert said in message


LIMITS = """
[[streams.orders.limits]]
resource = "usd"
per_event = 0.0003
price = "amount"

[[streams.orders.limits]]
destination = "bank"
share = 0.2
"""


def test_limits_are_read_with_what_they_are_on() -> None:
    usd, bank = config.parse(GOOD + LIMITS).streams["orders"].limits
    assert (usd.name, usd.at_most, usd.head) == ("usd", 0.0003, None)
    assert (bank.name, bank.at_most, bank.head) == ("share of bank", 0.2, None)
    predicted = config.parse(GOOD + LIMITS.replace('price = "amount"', "").replace('"usd"', '"cost_usd"'))
    assert predicted.streams["orders"].limits[0].head == "cost_usd"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("per_event = 0.0003", "per_event = -1.0", "Expected `float` >= 0.0"),
        ("per_event = 0.0003", "per_event = inf", "per_event must be finite, got inf"),
        ("per_event = 0.0003", "", "a limit has resource and per_event, or destination and share, got resource, price"),
        ("share = 0.2", "share = 1.2", "Expected `float` <= 1.0"),
        ("share = 0.2", "share = 0.2\nper_event = 1.0", "got per_event, destination, share"),
        ("share = 0.2", "share = 0.2\npace_events = 0", "pace_events: Expected `int` >= 1"),
        ('"bank"', '"cash"', "limits[1].destination: 'cash' is not a destination of the stream"),
        ('"amount"', '"event.amount"', "limits[0].price: 'event.amount' is not a number feature of the stream"),
        ('price = "amount"', "", "limits[0].price: 'usd' is not predicted (cost_usd, latency_ms are): name the number"),
        ('price = "amount"', 'prize = "amount"', "unknown field `prize`"),
        (
            "share = 0.2",
            'share = 0.2\n[[streams.orders.limits]]\ndestination = "bank"\nshare = 0.1',
            "limits[2]: 'share of bank' is limited already",
        ),
        (
            "share = 0.2",
            'share = 0.2\n[[streams.orders.limits]]\ndestination = "card"\nshare = 0.7',
            "the shares of all destinations sum to 0.9, every event goes somewhere",
        ),
    ],
)
def test_limits_that_lead_nowhere_are_refused_by_name(old: str, new: str, said: str) -> None:
    assert LIMITS.count(old) == 1, old
    with pytest.raises(ConfigurationError) as caught:
        config.parse(GOOD + LIMITS.replace(old, new))
    message = str(caught.value)
    assert said in message
    assert "streams.orders.limits" in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("budget = 0.1\nbudget_share = 0.1", "budget or budget_share, got both: 0.1 and 0.1"),
        ("budget = -0.1", "Expected `float` >= 0.0"),
        ("budget_share = 1.1", "Expected `float` <= 1.0"),
        ("min_propensity = 0.6", "exploration.min_propensity: 2 destinations cannot have 0.6 each"),
    ],
)
def test_an_exploration_budget_that_is_none_is_refused(fields: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.parse(f"{GOOD}\n[streams.orders.exploration]\n{fields}\n")
    assert said in str(caught.value)


def test_toml_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"broken\.toml: .*line 2"):
        config.parse("[streams]\nx = = 1\n", name="broken.toml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml: cannot be read: No such file"):
        config.load(tmp_path / "absent.toml")


def test_a_type_belongs_to_one_stream() -> None:
    twice = GOOD + '\n[streams.returns]\ntypes = ["shop.order"]\ndestinations = ["card"]\nobjective = {}\n'
    with pytest.raises(ConfigurationError, match=r"'shop\.order' belongs to stream 'orders' already"):
        config.parse(twice)


@pytest.mark.parametrize("shares", [[], [0.5, 0.1], [0.1, 0.1]])
def test_a_ladder_climbs(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="ladder shares must rise from rung to rung"):
        Gate(ladder=tuple(Rung(share=share) for share in shares))


def test_a_revision_names_exactly_what_is_configured() -> None:
    read = config.parse(GOOD)
    assert read.revision == config.parse("# a comment\n" + GOOD).revision
    assert read.revision != config.parse(_replaced("window_minutes = 30", "window_minutes = 31")).revision


def test_a_type_leads_to_its_stream_or_nowhere() -> None:
    read = config.parse(GOOD)
    assert read.stream_of("shop.order") == "orders"
    assert read.stream_of("shop.refund") is None


def test_features_read_the_configured_attributes() -> None:
    assert config.parse(GOOD).feature_set("orders").number_names == ("amount",)


@pytest.mark.parametrize(
    ("attributes", "order"),
    [({"country": "NO"}, ("bank", "card")), ({"country": "SE"}, ("card",)), ({}, ("card",))],
)
def test_static_routes_are_by_attribute_then_default(attributes: dict[str, str], order: tuple[str, ...]) -> None:
    static = config.parse(GOOD).streams["orders"].static
    event = Event(id="e", source="s", type="shop.order", stream="orders", attributes=dict(attributes))
    assert static.order(event) == order
    assert StaticRoutes(default=("card",)).order(event) == ("card",)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            '[streams.orders.training]\nleakage_allowed = ["fee"]',
            "streams.orders.training.leakage_allowed: 'fee' is no feature",
        ),
        ('[streams.orders.drift]\nignored = ["fee"]', "streams.orders.drift.ignored: 'fee' is no feature"),
        (
            '[streams.orders.training]\nknown_later = ["refund"]',
            "known_later: 'refund' is not event.x, candidate.x or state.x",
        ),
        ("[streams.orders.drift]\npsi = 0.0", "streams.orders.drift.psi: Expected `float` > 0.0"),
    ],
)
def test_what_the_guards_are_told_must_name_what_there_is(table: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        config.parse(f"{GOOD}\n{table}\n")


def test_columns_that_are_features_may_be_listed_for_the_guards() -> None:
    lists = '[streams.orders.training]\nleakage_allowed = ["amount"]\nknown_later = ["event.refund"]'
    read = config.parse(f'{GOOD}\n{lists}\n[streams.orders.drift]\nignored = ["destination"]\n')
    assert read.streams["orders"].drift.ignored == ("destination",)
