import re
from pathlib import Path

import pytest

from serving import settings
from serving.settings import Settings, SettingsError


def test_the_environment_is_read_into_plain_values() -> None:
    found = settings.read({"TURNOUT_HOME": "/data/t", "TURNOUT_PORT": "9000", "TURNOUT_REPLAY": "1"})
    assert (found.spool_path, found.port, found.replay) == (Path("/data/t/spool"), 9000, True)
    assert settings.read({}).on_loopback


@pytest.mark.parametrize(
    ("name", "value"), [("TURNOUT_PORT", "eighty"), ("TURNOUT_REPLAY", "yes"), ("TURNOUT_MEMORY", "-1")]
)
def test_a_value_that_is_none_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} must be .* got '{value}'"):
        settings.read({name: value})


def test_polling_for_longer_than_anybody_can_mean_is_refused() -> None:
    assert settings.read({"TURNOUT_BUSY_POLL_US": "0"}).busy_poll_us == 0
    with pytest.raises(SettingsError, match="TURNOUT_BUSY_POLL_US must be 0 to 10000, got 10001"):
        settings.read({"TURNOUT_BUSY_POLL_US": "10001"})


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "shim.internal", "::"])  # noqa: S104 - what is refused
def test_an_address_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(SettingsError, match="TURNOUT_TOKEN"):
        settings.read({"TURNOUT_HOST": host})
    assert settings.read({"TURNOUT_HOST": host, "TURNOUT_TOKEN": "secret"}).token == "secret"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings(home=Path(), config_path=Path(), host=host).token is None


def test_each_role_may_have_a_token_of_its_own() -> None:
    found = settings.read({"TURNOUT_HOST": "10.0.0.1", "TURNOUT_TOKEN_READ": "r", "TURNOUT_TOKEN_DECIDE": "d"})
    assert found.role_tokens == {"read": "r", "decide": "d"}


def test_durability_is_one_of_three() -> None:
    assert settings.read({}).durable == "answer"
    assert settings.read({"TURNOUT_DURABLE": "batch"}).durable == "batch"
    with pytest.raises(SettingsError, match="TURNOUT_DURABLE must be one of answer, batch, async, got 'never'"):
        settings.read({"TURNOUT_DURABLE": "never"})


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_pause_that_is_none_is_named(seconds: str) -> None:
    with pytest.raises(SettingsError, match="TURNOUT_POLL_SECONDS must be"):
        settings.read({"TURNOUT_POLL_SECONDS": seconds})


def test_workers_have_states_and_spools_of_their_own_and_share_the_overrides() -> None:
    first, second = (settings.read({"TURNOUT_HOME": "/t", "TURNOUT_WORKER": number}) for number in "01")
    assert first.state_path == Path("/t/shim")
    assert second.state_path == Path("/t/shim/worker-1")
    assert first.overrides_path == second.overrides_path
    assert (first.spool_prefix, second.spool_prefix) == ("shim", "shim1")
    assert settings.read({}).shared_port is False


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://127.0.0.1:4222", "must be nats://HOST:PORT or tls://HOST:PORT, got a 'http'"),
        ("nats://", "must be nats://HOST:PORT"),
        ("nats://broker.example:4222", "'broker.example' is not a loopback address"),
    ],
)
def test_a_broker_that_anybody_may_ask_over_is_refused(url: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=f"TURNOUT_NATS_URL.*{re.escape(rule)}"):
        settings.read({"TURNOUT_NATS_URL": url})


def test_a_broker_on_loopback_or_with_a_key_to_it_is_taken_and_its_password_is_not_shown() -> None:
    assert settings.read({}).nats_url is None
    assert settings.read({"TURNOUT_NATS_URL": "nats://localhost:4222"}).nats_url == "nats://localhost:4222"
    guarded = settings.read({"TURNOUT_NATS_URL": "tls://ann:secret@broker.example:4222"})
    assert "secret" not in repr(guarded)
    assert settings.read({"TURNOUT_NATS_URL": "nats://broker.example", "TURNOUT_TOKEN": "t"}).nats_url


def test_the_upstream_is_an_address_and_its_token_is_shown_to_nobody() -> None:
    found = settings.read({"TURNOUT_UPSTREAM": "https://up.internal:8100/", "TURNOUT_UPSTREAM_TOKEN": "secret"})
    assert (found.upstream_url, found.upstream_token) == ("https://up.internal:8100/", "secret")
    assert "secret" not in repr(found)
    assert settings.read({"TURNOUT_UPSTREAM": ""}).upstream_url is None


@pytest.mark.parametrize(
    "url", ["up:8100", "ftp://up", "http://", "http://up:port", "http://up:99999", "http://up/v1", "http://up?a=b", "x"]
)
def test_an_upstream_that_is_no_address_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="TURNOUT_UPSTREAM must be http://HOST:PORT or https://HOST:PORT"):
        settings.read({"TURNOUT_UPSTREAM": url})


def test_secrets_of_an_upstream_are_refused_without_being_repeated() -> None:
    for environment in (
        {"TURNOUT_UPSTREAM": "http://ada:secret@up:8100"},
        {"TURNOUT_UPSTREAM": "http://up", "TURNOUT_UPSTREAM_TOKEN": "secret\r\nhost: x"},
    ):
        with pytest.raises(SettingsError, match="TURNOUT_UPSTREAM_TOKEN") as raised:
            settings.read(environment)
        assert "secret" not in str(raised.value)
