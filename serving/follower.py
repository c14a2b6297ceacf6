"""Follows the ledger: takes what is new, refuses what is older or broken, and keeps the last good release whatever happens."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from msgspec import structs

from models.releases.entry import Entry, Recorded
from serving import served
from serving.plan import Plan
from serving.served import Served, Standing, UnreadableStateError
from serving.shelf import CLASSIFIER, FORECASTER, RejectedError, Shelf
from serving.view import Classifier, ForecastView, Model, ReleaseView, StreamView, digest_of

MAX_FAULTS = 3  # a model that raises this often is condemned
_RETRY_SECONDS = 30.0  # before what was rejected is tried again under the same head
_LOGGER = logging.getLogger("turnout.shim")
_JITTER_SHARE = 0.2  # so that many shims do not ask at once


class Head(Protocol):
    """A ledger, as far as a follower reads it; ``models.releases.ledger.Ledger`` is one."""

    def head(self) -> Recorded | None:
        """Return the newest generation, None while there is none."""


class Follower:
    """Keeps ``view`` at the newest release that can be served.

    A thread of its own reads the ledger and loads; the view is swapped by one assignment, and whoever holds the old one
    finishes with it. Streams are accepted one by one: a bad canary of one stream does not hold back the rollback of
    another. What was rejected keeps the stream's last good release, less what has been revoked.
    """

    def __init__(self, *, plan: Plan, ledger: Head, shelf: Shelf, state_path: Path, poll_seconds: float = 1.0) -> None:
        """Follow ``ledger`` for the streams of ``plan``; nothing is read or served yet."""
        self._plan = plan
        self._ledger = ledger
        self._shelf = shelf
        self._state_path = state_path
        self._poll_seconds = poll_seconds
        self._served = Served()
        self._view = ReleaseView()
        self._rejections: dict[str, str] = {}
        self._faults: Counter[str] = Counter()
        self._retry_at = 0.0
        self._swap = threading.Lock()
        self._woken = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def view(self) -> ReleaseView:
        """What is served now."""
        return self._view

    def rejections(self) -> dict[str, str]:
        """Return what is not served, and why."""
        condemned = {f"condemned {digest[:12]}": reason for digest, reason in self._served.condemned.items()}
        return self._rejections | condemned

    def restore(self) -> None:
        """Serve the last good release from the shim's own disk, or as much of it as is whole; needs nothing else to be up."""
        try:
            self._served = served.read(self._state_path)
        except UnreadableStateError as error:
            self._rejections["state"] = f"{error}; starting from the static routes"
            return
        streams, rejections = {}, {}
        for name, standing in self._served.streams.items():
            if name in self._plan.streams:
                streams[name], rejections[name] = self._restore_stream(name, standing)
        forecast, rejections[FORECASTER] = self._load_forecast(self._served.models, None)
        self._rejections = {what: why for what, why in rejections.items() if why}
        view = ReleaseView(
            generation=self._served.generation, head=self._served.head, streams=streams, forecast=forecast
        )
        revoked = self._served.entry.revoked if self._served.entry else ()
        self._view = view.without({*revoked, *self._served.condemned})

    def start(self) -> None:
        """Follow in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following; a load under way is let finish, for a second."""
        self._stopping = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def wake(self) -> None:
        """Read the ledger now."""
        self._woken.set()

    def poll(self) -> None:
        """Read the ledger's head once and serve what is new in it."""
        try:
            recorded = self._ledger.head()
        except (OSError, ValueError, LookupError) as error:
            self._rejections["ledger"] = str(error)
            return
        self._rejections.pop("ledger", None)
        if recorded is None:
            if self._served.generation:
                self._rejections["ledger"] = f"holds nothing; keeping generation {self._served.generation}"
            return
        if reason := self._refusal(recorded):
            self._rejections["ledger"] = reason
        elif recorded.hash != self._served.head or (self._rejections and time.monotonic() >= self._retry_at):
            self._take(recorded)

    def report_fault(self, digest: str, reason: str) -> None:
        """Count a model that raised on an event; after `MAX_FAULTS` it is served no more, on this shim."""
        self._faults[digest] += 1
        if self._faults[digest] < MAX_FAULTS:
            return
        with self._swap:
            condemned = {**self._served.condemned, digest: f"raised {MAX_FAULTS} times, last: {reason}"}
            self._served = structs.replace(self._served, condemned=condemned)
            self._view = self._view.without({digest})
        self._save()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.poll()
            except Exception as error:  # what nobody thought of must not end the following
                _LOGGER.exception("the ledger's head cannot be taken")
                self._rejections["follower"] = f"{type(error).__name__}: {error}"
            jitter = random.uniform(1 - _JITTER_SHARE, 1 + _JITTER_SHARE)  # noqa: S311 - no secret
            self._woken.wait(self._poll_seconds * jitter)
            self._woken.clear()

    def _refusal(self, recorded: Recorded) -> str | None:
        generation = recorded.entry.generation
        if generation < self._served.generation:
            return f"generation {generation} is below {self._served.generation}, which was served"
        if generation == self._served.generation and recorded.hash != self._served.head:
            return f"generation {generation} has another hash than the one that was served"
        return None

    def _take(self, recorded: Recorded) -> None:
        """Load what the entry names and swap; a stream that cannot be loaded stays what it was."""
        entry = recorded.entry
        streams, standings, rejections = dict(self._view.streams), dict(self._served.streams), {}
        for name in sorted(entry.streams.keys() & self._plan.streams.keys()):
            try:
                streams[name], unread = self._load_stream(name, entry)
            except RejectedError as error:
                rejections[name] = f"generation {entry.generation}: {error}"
                continue
            if unread:
                rejections[f"{name}: {CLASSIFIER}"] = f"generation {entry.generation}: {unread}"
            standings[name] = Standing(
                generation=entry.generation,
                release=entry.streams[name],
                previous=digest_of(streams[name].previous),
                classifier=digest_of(streams[name].classifier),
            )
        forecast, failure = self._load_forecast(entry.models, self._view.forecast)
        if failure:
            rejections[FORECASTER] = failure
        view = ReleaseView(generation=entry.generation, head=recorded.hash, streams=streams, forecast=forecast)
        models = {FORECASTER: forecast.digest} if forecast else {}
        self._rejections = rejections
        self._adopt(recorded, view, standings, models)
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _adopt(
        self, recorded: Recorded, view: ReleaseView, standings: dict[str, Standing], models: dict[str, str]
    ) -> None:
        with self._swap:
            self._view = view.without({*recorded.entry.revoked, *self._served.condemned})
            self._served = structs.replace(
                self._served,
                generation=recorded.entry.generation,
                head=recorded.hash,
                entry=recorded.entry,
                streams=standings,
                models=models,
            )
        if self._save():
            self._shelf.keep_only(self._served.digests())

    def _load_stream(self, name: str, entry: Entry) -> tuple[StreamView, str]:
        """Return the stream as the entry has it, and what keeps its classifier back; the old one then stays in force."""
        release = entry.streams[name]
        before = self._view.streams.get(name, StreamView(mode="off"))
        loaded = {model.digest: model for _, model in before.models()}
        if before.previous is not None:
            loaded[before.previous.digest] = before.previous

        def load(digest: str | None) -> Model | None:
            if digest is None or digest in self._served.condemned:
                return None
            return loaded.get(digest) or self._shelf.router(digest, self._plan.streams[name])

        replaced = before.champion is not None and before.champion.digest != release.champion
        previous = before.champion if replaced else before.previous
        classifier, failure = self._load_classifier(
            name, self._plan.streams[name].stream.classifier_in(entry.models), before
        )
        view = StreamView(
            mode=release.mode,
            generation=entry.generation,
            champion=load(release.champion) or (previous if release.champion else None),
            challenger=load(release.canary),
            challenger_share=release.canary_share,
            shadow=load(release.shadow),
            previous=previous,
            classifier=classifier,
        )
        return view, failure

    def _load_classifier(self, name: str, digest: str | None, before: StreamView) -> tuple[Classifier | None, str]:
        if digest is None or digest in self._served.condemned:
            return None, ""
        if before.classifier is not None and before.classifier.digest == digest:
            return before.classifier, ""
        try:
            return self._shelf.classifier(digest, self._plan.streams[name]), ""
        except RejectedError as error:
            return before.classifier, str(error)

    def _restore_stream(self, name: str, standing: Standing) -> tuple[StreamView, str]:
        """Return as much of the stream as stands, the previous champion in place of a broken one; and what was wrong."""
        release, failures = standing.release, []

        def load(digest: str | None) -> Model | None:
            if digest is None or digest in self._served.condemned:
                return None
            try:
                return self._shelf.router(digest, self._plan.streams[name])
            except RejectedError as error:
                failures.append(str(error))
                return None

        champion, previous = load(release.champion), load(standing.previous)
        classifier, failure = self._load_classifier(name, standing.classifier, StreamView(mode="off"))
        failures += [f"{CLASSIFIER}: {failure}"] if failure else []
        view = StreamView(
            mode=release.mode,
            generation=standing.generation,
            champion=champion or (previous if release.champion else None),
            challenger=load(release.canary),
            challenger_share=release.canary_share,
            shadow=load(release.shadow),
            previous=previous,
            classifier=classifier,
        )
        return view, "; ".join(failures)

    def _load_forecast(
        self, models: Mapping[str, str], current: ForecastView | None
    ) -> tuple[ForecastView | None, str]:
        digest = models.get(FORECASTER)
        if digest is None or (current is not None and current.digest == digest):
            return (current if digest else None), ""
        try:
            return self._shelf.forecast(digest), ""
        except RejectedError as error:
            return current, str(error)

    def _save(self) -> bool:
        try:
            served.write(self._state_path, self._served)
        except OSError as error:
            self._rejections["state"] = f"{self._state_path.name} cannot be written: {error.strerror}"
            return False
        return True
