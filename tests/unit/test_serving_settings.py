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


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "shim.internal", "::"])  # noqa: S104 - what is refused
def test_an_address_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(SettingsError, match="TURNOUT_TOKEN"):
        settings.read({"TURNOUT_HOST": host})
    assert settings.read({"TURNOUT_HOST": host, "TURNOUT_TOKEN": "secret"}).token == "secret"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings(home=Path(), config_path=Path(), host=host).token is None
