"""The shim's environment, read once per process and passed down as plain values."""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from features.home import Home
from serving.access import ROLES, Role
from serving.limits import Limits

MAX_BUSY_POLL_US = 10_000
Durability = Literal["answer", "batch", "async"]


class SettingsError(ValueError):
    """An environment that cannot be used: names the variable, its value and the rule."""


@dataclass(frozen=True, kw_only=True)
class Settings(Home):
    """Where the shim listens, where its things are, and how much it holds. Every path lies under ``home``.

    ``token`` opens every route, ``role_tokens`` those of a role each. ``replay`` lets requests carry their own instant in
    the header ``turnout-time``. ``durable`` says when a record is written: before its answer leaves (``answer``), likewise
    but with those of the next milliseconds (``batch``), or soon after it (``async``). ``fsync`` makes what is written
    outlive a power cut, not only the process. ``memory_decisions`` is how many decisions are remembered, so that a
    redelivered event receives the one it had. ``socket_path`` is where frames are taken besides, ``nats_url`` the broker
    over which requests are answered besides (user and password may stand in it), ``worker`` which of
    several processes this is, on a port that they share (``shared_port``). ``upstream_url`` is the shim whose ledger and
    store are copied into ``home``, which is then nobody else's to write; ``upstream_token`` one of its tokens of role ``read``.
    ``busy_poll_us`` is how long sockets are polled after an answer, where that pays (`serving.polling`); 0 is never.
    """

    host: str = "127.0.0.1"
    port: int = 8100
    token: str | None = field(default=None, repr=False)
    role_tokens: Mapping[Role, str] = field(default_factory=dict, repr=False)
    replay: bool = False
    durable: Durability = "answer"
    fsync: bool = False
    memory_decisions: int = 200_000
    limits: Limits = field(default_factory=Limits)
    poll_seconds: float = 1.0
    socket_path: Path | None = None
    nats_url: str | None = field(default=None, repr=False)
    worker: int = 0
    shared_port: bool = False
    upstream_url: str | None = None
    upstream_token: str | None = field(default=None, repr=False)
    busy_poll_us: int = 100

    def __post_init__(self) -> None:
        """Refuse an address that others can reach and that no token guards, and what else nobody can mean."""
        if not self.token and not self.role_tokens and not self.on_loopback:
            raise SettingsError(f"TURNOUT_HOST {self.host!r} is not a loopback address: set TURNOUT_TOKEN")
        if self.nats_url is not None:
            _check_broker(self.nats_url, guarded=bool(self.token or self.role_tokens))
        if self.upstream_url is not None:
            _check_upstream(self.upstream_url)
        if not re.fullmatch(r"[!-~]*", self.upstream_token or ""):
            raise SettingsError("TURNOUT_UPSTREAM_TOKEN must be printable ASCII without a space")
        if not 0 <= self.busy_poll_us <= MAX_BUSY_POLL_US:
            raise SettingsError(f"TURNOUT_BUSY_POLL_US must be 0 to {MAX_BUSY_POLL_US}, got {self.busy_poll_us}")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the shim."""
        return _is_loopback(self.host)

    @property
    def state_path(self) -> Path:
        """What this process must not forget: releases served, what is owed. Each worker has its own."""
        return self.home / "shim" / f"worker-{self.worker}" if self.worker else self.home / "shim"

    @property
    def overrides_path(self) -> Path:
        """The operators' journal, which all workers share."""
        return self.home / "shim" / "overrides.journal"

    @property
    def mirror_path(self) -> Path:
        """Where what is copied of another shim arrives; all workers share it, and one of them copies."""
        return self.home / "shim" / "mirror"

    @property
    def spool_prefix(self) -> str:
        """What the names of this process's segments begin with."""
        return f"shim{self.worker}" if self.worker else "shim"


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process.

    ``TURNOUT_HOME``, ``TURNOUT_CONFIG``, ``TURNOUT_HOST``, ``TURNOUT_PORT``, ``TURNOUT_SOCKET``, ``TURNOUT_NATS_URL``,
    ``TURNOUT_TOKEN`` and
    ``TURNOUT_TOKEN_DECIDE``, ``_REPORT``, ``_OPERATE``, ``_READ``, ``TURNOUT_DURABLE``, ``TURNOUT_REPLAY`` and
    ``TURNOUT_FSYNC`` (1 is on), ``TURNOUT_MEMORY``, ``TURNOUT_MAX_BODY_BYTES``, ``TURNOUT_MAX_IN_FLIGHT``,
    ``TURNOUT_MAX_CONNECTIONS``, ``TURNOUT_POLL_SECONDS`` (between two looks at the ledger),
    ``TURNOUT_UPSTREAM`` and ``TURNOUT_UPSTREAM_TOKEN``, ``TURNOUT_BUSY_POLL_US``; ``TURNOUT_WORKER`` is set by the supervisor of several.

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
        role_tokens={role: token for role in ROLES if (token := environment.get(f"TURNOUT_TOKEN_{role.upper()}"))},
        replay=_switch(environment, "TURNOUT_REPLAY"),
        durable=_durability(environment),
        fsync=_switch(environment, "TURNOUT_FSYNC"),
        memory_decisions=_count(environment, "TURNOUT_MEMORY", 200_000),
        limits=_limits(environment),
        poll_seconds=_seconds(environment, "TURNOUT_POLL_SECONDS", 1.0),
        socket_path=Path(path).absolute() if (path := environment.get("TURNOUT_SOCKET")) else None,
        nats_url=environment.get("TURNOUT_NATS_URL") or None,
        worker=_count(environment, "TURNOUT_WORKER", 0),
        shared_port="TURNOUT_WORKER" in environment,
        upstream_url=environment.get("TURNOUT_UPSTREAM") or None,
        upstream_token=environment.get("TURNOUT_UPSTREAM_TOKEN") or None,
        busy_poll_us=_count(environment, "TURNOUT_BUSY_POLL_US", 100),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_broker(url: str, *, guarded: bool) -> None:
    """Refuse what is no broker's address, and one on which anybody may ask."""
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise SettingsError(f"TURNOUT_NATS_URL must be nats://HOST:PORT or tls://HOST:PORT, got a {parts.scheme!r}")
    if not guarded and not parts.username and not _is_loopback(parts.hostname):
        rule = "name a user and password in it, or set TURNOUT_TOKEN"
        raise SettingsError(f"TURNOUT_NATS_URL {parts.hostname!r} is not a loopback address: {rule}")


def _check_upstream(url: str) -> None:
    """Refuse what is no address of a shim; what is wrong is said without repeating a password."""
    rule = "TURNOUT_UPSTREAM must be http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError as error:
        raise SettingsError(f"{rule}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{rule}, got a user or password in it: set TURNOUT_UPSTREAM_TOKEN")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        raise SettingsError(f"{rule}, got {url!r}")


def _limits(environment: Mapping[str, str]) -> Limits:
    usual = Limits()
    return Limits(
        max_body_bytes=_count(environment, "TURNOUT_MAX_BODY_BYTES", usual.max_body_bytes),
        max_in_flight=_count(environment, "TURNOUT_MAX_IN_FLIGHT", usual.max_in_flight),
        max_connections=_count(environment, "TURNOUT_MAX_CONNECTIONS", usual.max_connections),
    )


def _durability(environment: Mapping[str, str]) -> Durability:
    text = environment.get("TURNOUT_DURABLE", "answer")
    for known in get_args(Durability):
        if text == known:
            return known  # type: ignore[no-any-return] # mypy does not see through get_args
    raise SettingsError(f"TURNOUT_DURABLE must be one of {', '.join(get_args(Durability))}, got {text!r}")


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise SettingsError(f"{name} must be a whole number, got {text!r}")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < math.inf:
        raise SettingsError(f"{name} must be a number of seconds above 0, got {text!r}")
    return seconds


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "0")
    if text not in ("0", "1", ""):
        raise SettingsError(f"{name} must be 0 or 1, got {text!r}")
    return text == "1"
