"""The shim's environment, read once per process and passed down as plain values."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from features.home import Home


class SettingsError(ValueError):
    """An environment that cannot be used: names the variable, its value and the rule."""


@dataclass(frozen=True, kw_only=True)
class Settings(Home):
    """Where the shim listens, where its things are, and how much it holds. Every path lies under ``home``.

    ``replay`` lets requests carry their own instant in the header ``turnout-time``. ``fsync`` makes an accepted record
    outlive a power cut, not only the process. ``memory_decisions`` is how many decisions are remembered, so that a
    redelivered event receives the one it had.
    """

    host: str = "127.0.0.1"
    port: int = 8100
    token: str | None = None
    replay: bool = False
    fsync: bool = False
    memory_decisions: int = 200_000
    max_body_bytes: int = 4 * 1024 * 1024
    poll_seconds: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an address that others can reach and that no token guards."""
        if not self.token and not self.on_loopback:
            raise SettingsError(f"TURNOUT_HOST {self.host!r} is not a loopback address: set TURNOUT_TOKEN")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the shim."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def state_path(self) -> Path:
        """What the shim itself must not forget: releases served, overrides."""
        return self.home / "shim"


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process.

    ``TURNOUT_HOME``, ``TURNOUT_CONFIG``, ``TURNOUT_HOST``, ``TURNOUT_PORT``, ``TURNOUT_TOKEN``, ``TURNOUT_REPLAY`` and
    ``TURNOUT_FSYNC`` (1 is on), ``TURNOUT_MEMORY``, ``TURNOUT_MAX_BODY_BYTES``.

    Raises
    ------
    SettingsError
        Naming the variable.
    """
    return Settings(
        home=Path(environment.get("TURNOUT_HOME", ".turnout")).absolute(),
        config_path=Path(environment.get("TURNOUT_CONFIG", "turnout.toml")).absolute(),
        host=environment.get("TURNOUT_HOST", "127.0.0.1"),
        port=_count(environment, "TURNOUT_PORT", 8100),
        token=environment.get("TURNOUT_TOKEN") or None,
        replay=_switch(environment, "TURNOUT_REPLAY"),
        fsync=_switch(environment, "TURNOUT_FSYNC"),
        memory_decisions=_count(environment, "TURNOUT_MEMORY", 200_000),
        max_body_bytes=_count(environment, "TURNOUT_MAX_BODY_BYTES", 4 * 1024 * 1024),
    )


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise SettingsError(f"{name} must be a whole number, got {text!r}")
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "0")
    if text not in ("0", "1", ""):
        raise SettingsError(f"{name} must be 0 or 1, got {text!r}")
    return text == "1"
