"""Retrain: closed outcomes in, a judged and registered candidate out; or the reason why there is none."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features import known_at, sources, training_log
from features.decision_log import DecisionLog
from features.history import TrainingRows
from features.training_log import TrainingLog
from features.warehouse import Source
from flows import examination, pinning, provenance
from flows.publishing import publish
from flows.wiring import Wiring, wire
from models import comparison, compiling, evidence, fit, pricing, router, tariff
from models.comparison import Comparison, OfflineVerdict
from models.evidence import Circumstances
from models.findings import NOTHING_FOUND, Findings
from models.fit import Subject
from models.mlmodel import Interface
from models.registered import unverified
from models.releases import bundle
from models.router import Router
from validation import batch, gate, leakage
from validation.batch import BatchVerdict
from validation.leakage import LeakageVerdict, Screened
from validation.trust import STATIC, Approval

CANDIDATE_MODEL = "router-candidate"
_LOGGER = logging.getLogger("turnout.retrain")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A fitted router, sealed: its folder, digest, and the later slice of the log that judges it."""

    folder: Path
    digest: str
    router: Router
    holdout: DecisionLog


def read_rows(wired: Wiring, stream: str, source: Source) -> TrainingRows:
    """Return what may be trained on, without its vectors: closed, explored, of the stream's present feature set."""
    configured = wired.configuration.streams[stream]
    return training_log.read_plain(source, stream, configured, as_of=wired.now, content=wired.classifier(stream))


def validate_rows(wired: Wiring, stream: str, rows: TrainingRows) -> BatchVerdict:
    """Return Great Expectations' verdict on the batch, and build its pages."""
    configured = wired.configuration.streams[stream]
    expectations = batch.Expectations(min_rows=configured.training.min_decisions, destinations=configured.destinations)
    return batch.judge(rows, expectations, docs_folder=wired.settings.data_docs_path)


def read_log(wired: Wiring, stream: str, source: Source, rows: TrainingRows) -> TrainingLog:
    """Return the log with its vectors: what is fitted on, where forms compete, and the later part that judges."""
    return training_log.read(source, wired.configuration.streams[stream], rows)


def screen_log(wired: Wiring, stream: str, source: Source, rows: TrainingRows, log: TrainingLog) -> LeakageVerdict:
    """Return whether any feature knows what came after its decision; a sample of the log bears the screen."""
    configured = wired.configuration.streams[stream]
    features, training = configured.features, configured.training
    return leakage.judge(
        Screened.of(log.training, features),
        known_at=known_at.read(source, stream, rows.table, features),
        known_later=sources.columns_reading(features, training.known_later),
        allowed={*training.leakage_allowed, *sources.innocent_columns(features), training.latency_offset},
    )


def fit_candidate(wired: Wiring, stream: str, log: TrainingLog) -> Candidate:
    """Fit on the earlier part of the log and seal the bytes; the later part is kept to judge them.

    Where the stream has limits, the first of the later part prices them: decisions that the router was not trained on, as
    late as can be had, and none of those that judge it. The prices are sealed with the router.

    Raises
    ------
    BudgetError
        Naming a limit that cannot be met, and the least that any choice would use.
    """
    configured = wired.configuration.streams[stream]
    training_log.give_back()  # of the rows that were planned with: a fit needs the room
    window = log.training.decided_at
    folder = wired.workspace(f"router-{stream}-{wired.now:%Y%m%dT%H%M%S}")
    subject = Subject(
        stream=stream,
        feature_set=configured.features.version,
        objective=configured.objective,
        destinations=configured.destinations,
        settings=configured.training,
        trained={"since": str(window.min()), "until": str(window.max())},
        limited=frozenset(limit.head for limit in configured.limits if limit.head is not None),
    )
    fitted, holdout = fit.learn(log.training, configured.features, folder, subject, sample=log.sample), log.holdout
    if configured.limits:
        priced_on, holdout = pricing.divide(holdout)
        tariff.write(folder, pricing.price(fitted, priced_on, configured.limits, configured.exploration))
    for file, reason in compiling.compile_router(folder, fitted.card).items():
        _LOGGER.warning("%s is left to LightGBM to score: %s", file, reason)
    return Candidate(
        folder=folder,
        digest=bundle.seal(folder, kind="router", pins=pinning.pins(wired, stream)),
        router=fitted,
        holdout=holdout,
    )


def compare_candidate(wired: Wiring, stream: str, candidate: Candidate) -> Comparison:
    """Evaluate the sealed bytes against the live champion on the slice that neither was fitted on."""
    sealed, opponent = router.load(candidate.folder), examination.find_opponent(wired, stream, candidate.holdout)
    return comparison.compare(
        opponent.holdout,
        sealed,
        opponent.champion,
        tariff=tariff.load(candidate.folder, sealed.card),
        champion_tariff=opponent.tariff,
        exploration=wired.configuration.streams[stream].exploration,
    )


def examine_candidate(wired: Wiring, stream: str, log: TrainingLog, candidate: Candidate) -> Findings:
    """Return what the reviewer is shown beside the comparison, found on the slice that judged it."""
    sealed = router.load(candidate.folder)
    judged = replace(log, holdout=candidate.holdout)
    return examination.examine(wired, stream, judged, sealed, tariff.load(candidate.folder, sealed.card))


def register_candidate(
    wired: Wiring,
    stream: str,
    candidate: Candidate,
    compared: Comparison,
    verdict: OfflineVerdict,
    quality: BatchVerdict,
    found: Findings = NOTHING_FOUND,
) -> int:
    """Log bundle and evidence to MLflow, register the version, and tag it with all that promotion will check."""
    champion = wired.live(stream).champion
    circumstances = Circumstances(
        stream=stream,
        candidate_digest=candidate.digest,
        champion_digest=champion,
        baseline_generation=wired.generation,
        policy_revision=wired.configuration.revision,
        created_at=wired.now.isoformat(),
        data={"holdout_since": str(compared.since), "holdout_until": str(compared.until), **provenance.data(wired)},
        code=provenance.code(),
        batch={"state": quality.state, "suite": quality.suite_digest},
    )
    folder = wired.workspace(f"evidence-{candidate.digest[:12]}")
    digest = evidence.write(folder, compared, verdict, candidate.router.card, circumstances, found)
    approval = Approval(
        kind="router",
        stream=stream,
        digest=candidate.digest,
        evidence=digest,
        evidence_at=circumstances.created_at,
        baseline=champion or STATIC,
        verdict=verdict.state,
        author=unverified(wired.actor),
        approver="",
    )
    return wired.registry.log_candidate(
        CANDIDATE_MODEL,
        candidate.folder,
        folder,
        metrics=evidence.metrics(compared),
        params={name: str(value) for name, value in candidate.router.card.trained.items()},
        tags={**evidence.tags(compared, found), **approval.tags()},
        description=evidence.summary(compared, verdict, circumstances, found),
        interface=interface_of(candidate),
    )


def interface_of(candidate: Candidate) -> Interface:
    """Return what the router reads and says, with the first candidate of the holdout as the example."""
    card, holdout = candidate.router.card, candidate.holdout
    numbers = {
        name: None if np.isnan(cell) else float(cell)
        for name, cell in zip(card.numbers, holdout.numbers[0], strict=True)
    }
    categories = {
        name: column.values[column.codes[0]] if column.codes[0] >= 0 else None
        for name, column in zip(card.categories, holdout.categories, strict=True)
    }
    return Interface(
        inputs={**dict.fromkeys(card.numbers, "number"), **dict.fromkeys(card.categories, "category")},
        outputs=dict.fromkeys(("value", *card.outputs), "number"),
        example={**numbers, **categories},
    )


_read = task(cache_policy=NO_CACHE)(read_rows)
_validate = task(cache_policy=NO_CACHE)(validate_rows)
_load = task(cache_policy=NO_CACHE)(read_log)
_screen = task(cache_policy=NO_CACHE)(screen_log)
_fit = task(cache_policy=NO_CACHE)(fit_candidate)
_compare = task(cache_policy=NO_CACHE)(compare_candidate)
_examine = task(cache_policy=NO_CACHE)(examine_candidate)
_register = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(register_candidate)


@flow(name="retrain-all")
def retrain_all(as_of: str | None = None) -> dict[str, Any]:
    """Retrain the router of every stream, one after the other; returns each one's state."""
    streams = wire(as_of).configuration.streams
    return publish("retrain-all", {"state": "done", **{stream: retrain(stream, as_of)["state"] for stream in streams}})


@flow(name="retrain")
def retrain(stream: str, as_of: str | None = None) -> dict[str, Any]:
    """Retrain the router of ``stream`` on what is closed by ``as_of`` (RFC 3339; default now); register what passed the gate.

    Returns a report: ``state`` is ``registered``, ``not_registered`` or ``skipped``, with the reasons and the figures.
    """
    wired = wire(as_of)
    source = wired.snapshot()
    rows = _read(wired, stream, source)
    quality = _validate(wired, stream, rows)
    if quality.state != "passed":
        return publish("retrain", {"state": "skipped", "stream": stream, "reasons": quality.failures})
    log = _load(wired, stream, source, rows)
    screened = _screen(wired, stream, source, rows, log)
    if screened.state != "passed":
        return publish("retrain", {"state": "skipped", "stream": stream, "reasons": screened.reasons})
    del rows  # the log says it all
    candidate = _fit(wired, stream, log)
    compared = _compare(wired, stream, candidate)
    verdict = gate.judge(compared, wired.configuration.streams[stream].gate)
    report = {"stream": stream, "digest": candidate.digest, "reasons": verdict.reasons, **evidence.metrics(compared)}
    if verdict.state != "passed":
        return publish("retrain", {"state": "not_registered", **report})
    found = _examine(wired, stream, log, candidate)
    version = _register(wired, stream, candidate, compared, verdict, quality, found)
    return publish("retrain", {"state": "registered", "version": version, **report})
