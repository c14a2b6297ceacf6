"""The one place where everything is wired: settings, configuration, clock, warehouse, ledger, store and registry."""

import getpass
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from features import clock, config, snapshot
from features.clock import Clock, ReplayClock, SystemClock
from features.config import Configuration
from features.snapshot import Snapshot
from features.warehouse import Warehouse
from flows import settings as environment
from flows.calling import call
from flows.settings import Settings
from models.registered import GUARD_HEADER, UnguardedRegistryError
from models.registry import Registry
from models.releases import transitions
from models.releases.entry import Entry, Recorded, StreamRelease
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a flow works with. Nothing is opened before it is first used."""

    settings: Settings
    clock: Clock
    actor: str = field(default_factory=getpass.getuser)
    remark: str = ""

    @cached_property
    def configuration(self) -> Configuration:
        """The checked turnout.toml."""
        return config.load(self.settings.config_path)

    @cached_property
    def warehouse(self) -> Warehouse:
        """The warehouse; it locks per transaction, so keeping it is free."""
        return Warehouse(self.settings.warehouse_path)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of generations."""
        return Ledger(self.settings.ledger_path)

    @cached_property
    def store(self) -> Store:
        """The release store."""
        return Store(self.settings.store_path)

    @cached_property
    def registry(self) -> Registry:
        """MLflow."""
        return Registry(self.settings.tracking_uri)

    @cached_property
    def vouched(self) -> frozenset[str]:
        """The models whose approvers MLflow vouches for: none unless the settings say that it knows its users.

        Raises
        ------
        UnguardedRegistryError
            If it should and does not: then any client may have written any name.
        UnreachableError
            If it does not answer.
        """
        if not self.settings.knows_approvers:
            return frozenset()
        reply = call("GET", f"{self.settings.tracking_uri.rstrip('/')}/version")
        models = frozenset(filter(None, reply.headers.get(GUARD_HEADER.lower(), "").split(",")))
        if not models:
            raise UnguardedRegistryError(
                f"TURNOUT_MLFLOW_AUTH is true, but MLflow at {self.settings.tracking_uri} does not stamp who approves: "
                "start it with --app-name turnout"
            )
        return models

    @property
    def now(self) -> datetime:
        """The present instant, by the one clock."""
        return self.clock.now()

    @property
    def generation(self) -> int:
        """The ledger's generation, 0 before the first."""
        head = self.ledger.head()
        return head.entry.generation if head else 0

    def live(self, stream: str) -> StreamRelease:
        """Return what the ledger says of ``stream``; before it says anything, the configured mode without a model."""
        head = self.ledger.head()
        released = head.entry.streams.get(stream) if head else None
        return released or StreamRelease(mode=self.configuration.streams[stream].mode)

    def canary(self, stream: str) -> str:
        """Return the digest of the stream's canary.

        Raises
        ------
        ValueError
            If it has none.
        """
        digest = self.live(stream).canary
        if digest is None:
            raise ValueError(f"stream {stream!r} has no canary")
        return digest

    def released(self, model: str) -> str | None:
        """Return the digest that is released of a model that is no router."""
        head = self.ledger.head()
        return head.entry.models.get(model) if head else None

    def classifier(self, stream: str) -> str | None:
        """Return the digest of the classifier that is released for ``stream``; None where none is, or no feature reads one."""
        head = self.ledger.head()
        return self.configuration.streams[stream].classifier_in(head.entry.models if head else {})

    def standing_since(self, stream: str, role: Literal["canary", "shadow"], digest: str | None) -> Recorded | None:
        """Return the entry from which ``digest`` has been the stream's ``role`` without interruption; None where it is not."""
        since = None
        for recorded in self.ledger.entries():
            release = recorded.entry.streams.get(stream)
            if release is None or getattr(release, role) != digest:
                since = None
            elif since is None:
                since = recorded
        return since if digest is not None else None

    def append(self, propose: Callable[..., Entry], *, reason: str, evidence: Mapping[str, str], **choices: Any) -> int:
        """Append what ``propose`` (one of `models.releases.transitions`) makes of the history; return its generation.

        Raises
        ------
        LedgerConflictError
            If another came first; nothing was changed.
        TransitionError
            If what stands does not allow it; nothing was changed.
        """
        history = self.ledger.history()
        by = self._attribution(reason, evidence)
        if history.head is None:
            begun = self._genesis()
            propose(history.after(Recorded(begun, "")), by=by, **choices)  # what is refused begins no ledger
            self.ledger.append(begun, expected_head="")
            history = self.ledger.history()
        entry = propose(history, by=by, **choices)
        self.ledger.append(entry, expected_head=history.hash)
        self._announce(entry.generation)
        return entry.generation

    def _announce(self, generation: int) -> None:
        """Wake the shims that listen to the broker; they look at the ledger by themselves as well."""
        if self.settings.nats_url is not None:
            from features import jetstream  # noqa: PLC0415 - an extra

            jetstream.announce(self.settings.nats_url, jetstream.RELEASED, str(generation).encode())

    def propose(
        self, propose: Callable[..., Entry], *, reason: str, evidence: Mapping[str, str], **choices: Any
    ) -> Entry:
        """Return what `append` would append now; raises ``TransitionError`` as it does, and writes nothing."""
        history = self.ledger.history()
        if history.head is None:
            history = history.after(Recorded(self._genesis(), ""))
        return propose(history, by=self._attribution(reason, evidence), **choices)

    def _attribution(self, reason: str, evidence: Mapping[str, str]) -> Attribution:
        said = f"{reason}; {self.remark}" if self.remark else reason
        return Attribution(actor=self.actor, reason=said, at=self.now, evidence=evidence)

    def _genesis(self) -> Entry:
        modes = {name: stream.mode for name, stream in self.configuration.streams.items()}
        return transitions.genesis(
            streams=modes, by=Attribution(actor=self.actor, reason="the first generation", at=self.now)
        )

    def snapshot(self) -> Snapshot:
        """Write and return a fresh snapshot: what reads for long must not hold the warehouse."""
        return snapshot.write(self.warehouse, self.settings.snapshot_path, now=self.now)

    def workspace(self, name: str) -> Path:
        """Return a folder for intermediate files of one run."""
        folder = self.settings.home / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def wire(
    as_of: str | None = None, *, settings: Settings | None = None, actor: str | None = None, remark: str | None = None
) -> Wiring:
    """Return the wiring of this process; ``as_of`` (RFC 3339) replays an instant of the past.

    ``actor`` is who acts, by default who runs the process, and ``remark`` what they add to the reason of all they record.

    Raises
    ------
    ValueError
        If ``as_of`` is no instant with a zone.
    """
    replayed = None if as_of is None else ReplayClock(at=clock.utc(datetime.fromisoformat(as_of)))
    return Wiring(
        settings=settings or environment.read(),
        clock=replayed or SystemClock(),
        actor=actor or runner(),
        remark=remark or "",
    )


def runner() -> str:
    """Return who runs this process."""
    return getpass.getuser()
