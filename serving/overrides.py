"""Operators' overrides in a journal of the shim's own: in force at once, with everything else down, and after a restart."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from features import spool
from features.records import Identifier, Override


class StopRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator's wish to stop the AI on one stream, or on all."""

    kind: Literal["stop"]
    actor: Identifier
    reason: Identifier
    stream: Identifier | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None

    def override(self, at: datetime) -> Override:
        """Return the override that the wish is when it is heard at ``at``."""
        return Override(
            kind=self.kind,
            actor=self.actor,
            reason=self.reason,
            created_at=at,
            stream=self.stream,
            expires_at=self.expires_at,
        )


class _Set(Struct, frozen=True, tag_field="action", tag="set"):
    """An override was set; it replaces the one of the same kind and stream."""

    override: Override


class _Cleared(Struct, frozen=True, kw_only=True, tag_field="action", tag="cleared"):
    """An override was taken back."""

    kind: str
    stream: str | None
    actor: str
    reason: str
    at: datetime


_LINES: msgspec.json.Decoder[_Set | _Cleared] = msgspec.json.Decoder(_Set | _Cleared)


class OverrideJournal:
    """The overrides in force, kept in a file of checksummed lines that is only ever appended to.

    ``n_damaged_lines`` counts lines that could not be read at the start: what the sound ones say holds, and the status
    raises an alarm. ``failure`` says why the last change could not be written; it is in force all the same, until the
    process ends.
    """

    n_damaged_lines: int = 0
    failure: str | None = None

    def __init__(self, path: Path) -> None:
        """Read ``path``, which need not exist."""
        self._path = path
        self._overrides: dict[tuple[str, str | None], Override] = {}
        self._ends_torn = False
        self._n_read = 0
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since, by this process or by another worker of the same shim."""
        try:
            if self._path.stat().st_size <= self._n_read:
                return
            with self._path.open("rb") as journal:
                journal.seek(self._n_read)
                content = journal.read()
        except FileNotFoundError:
            return
        except OSError as error:
            self.failure = f"journal cannot be read: {error.strerror}"
            return
        # A last line without its end may be another's that is being written; at the start it is one that a crash tore.
        whole = content if not self._n_read else content[: content.rfind(b"\n") + 1]
        self._n_read += len(whole)
        self._read(whole)

    @property
    def is_any(self) -> bool:
        """Whether there is any override, in force or not."""
        return bool(self._overrides)

    def stop_for(self, stream: str, at: datetime) -> Override | None:
        """Return the stop in force for ``stream`` at ``at``: the one for all streams, else its own."""
        if not self._overrides:
            return None
        for scope in (None, stream):
            stop = self._overrides.get(("stop", scope))
            if stop is not None and _in_force(stop, at):
                return stop
        return None

    def in_force(self, at: datetime) -> list[Override]:
        """Return every override in force at ``at``, oldest first."""
        return sorted((o for o in self._overrides.values() if _in_force(o, at)), key=lambda o: o.created_at)

    def set(self, override: Override) -> bool:
        """Put ``override`` in force and tell whether it was written down (and so survives a restart)."""
        self._overrides[override.kind, override.stream] = override
        return self._append(_Set(override))

    def clear(self, kind: str, stream: str | None, *, actor: str, reason: str, at: datetime) -> Override | None:
        """Take back the override of ``kind`` and ``stream``; return it, or None if there was none."""
        override = self._overrides.pop((kind, stream), None)
        if override is not None:
            self._append(_Cleared(kind=kind, stream=stream, actor=actor, reason=reason, at=at))
        return override

    def _read(self, content: bytes) -> None:
        self._ends_torn = bool(content) and not content.endswith(b"\n")
        for raw in filter(None, content.splitlines()):
            payload = spool.decode_line(raw)
            try:
                line = _LINES.decode(payload or b"")
            except msgspec.MsgspecError:
                self.n_damaged_lines += 1
                continue
            if isinstance(line, _Set):
                self._overrides[line.override.kind, line.override.stream] = line.override
            else:
                self._overrides.pop((line.kind, line.stream), None)

    def _append(self, line: _Set | _Cleared) -> bool:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as journal:
                # A line of its own, whatever a crash in the middle of an earlier one left behind.
                written = journal.write(b"\n" * self._ends_torn + spool.encode_line(msgspec.json.encode(line)))
                journal.flush()
                os.fsync(journal.fileno())
                if journal.tell() - written == self._n_read:  # nobody wrote in between
                    self._n_read += written
        except OSError as error:
            self.failure = f"journal cannot be written: {error.strerror}"
            self._ends_torn = True
            return False
        self.failure = None
        self._ends_torn = False
        return True


def _in_force(override: Override, at: datetime) -> bool:
    return override.expires_at is None or at < override.expires_at
