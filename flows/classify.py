"""Classify: labelled texts in, a judged and registered classifier out; or the reason why there is none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from rich.console import Console
from rich.progress import Progress

from features import content as contents
from features import labels
from features.config import Classifier as Configured
from features.config import ConfigurationError, classifier_model
from features.labels import Labelled
from flows import pinning
from flows.publishing import publish
from flows.wiring import Wiring, wire
from models import content, content_evaluation, content_evidence, content_training
from models.comparison import OfflineVerdict
from models.content import Classifier
from models.content_evaluation import ContentEvaluation
from models.mlmodel import Interface
from models.registered import unverified
from models.releases import bundle
from validation import gate
from validation.trust import STATIC, Approval

CANDIDATE_MODEL = "classifier-candidate"
MODEL = "classifier"  # in the registry; the ledger releases each under its own name, classifier.NAME


@dataclass(frozen=True, kw_only=True)
class ClassifierCandidate:
    """A fitted classifier, sealed: its folder, digest, and how it did on texts that it was not fitted on."""

    folder: Path
    digest: str
    classifier: Classifier
    evaluation: ContentEvaluation


def read_labels(wired: Wiring, name: str) -> Labelled:
    """Return the labelled texts of the classifier ``name``.

    Raises
    ------
    ConfigurationError
        If no such classifier is configured.
    LabelsError
        If they are not fit to learn from.
    """
    configured = _configured(wired, name)
    return labels.read(wired.settings.config_path.parent / configured.labels, configured)


def fit_candidate(wired: Wiring, name: str, labelled: Labelled) -> ClassifierCandidate:
    """Fit on the earlier part of every class, seal the bytes, and judge those on the later part."""
    configured = _configured(wired, name)
    learned, holdout = labelled.split(configured.holdout_share)
    folder = wired.workspace(f"classifier-{name}-{wired.now:%Y%m%dT%H%M%S}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"classifier {name}", total=None)
        fitted = content_training.train_labelled(
            learned,
            folder,
            settings=content_training.Settings(
                max_accuracy_loss_share=configured.max_accuracy_loss_share,
                n_components=configured.components,
                n_threads=configured.threads,
            ),
            seed=configured.seed,
            trained={"classifier": name},
            on_step=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    digest = bundle.seal(folder, kind=content.KIND)
    live = wired.released(classifier_model(name))
    released = None if live is None else content.load(wired.store.path(live))
    evaluation = content_evaluation.evaluate(fitted, holdout, released)
    return ClassifierCandidate(folder=folder, digest=digest, classifier=fitted, evaluation=evaluation)


def judge_candidate(wired: Wiring, name: str, candidate: ClassifierCandidate) -> OfflineVerdict:
    """Return the gate's verdict; a classifier that lacks a class which a stream's features read fails."""
    reasons = pinning.unserved(wired, name, candidate.classifier.card)
    return gate.judge_classifier(candidate.evaluation, _configured(wired, name), reasons)


def register_candidate(wired: Wiring, name: str, candidate: ClassifierCandidate, verdict: OfflineVerdict) -> int:
    """Log bundle and evidence to MLflow and register the version with all that its release will check."""
    baseline = wired.released(classifier_model(name)) or STATIC
    folder = wired.workspace(f"evidence-{candidate.digest[:12]}")
    circumstances = {"classifier": name, "digest": candidate.digest, "released": baseline, "at": wired.now.isoformat()}
    card = candidate.classifier.card
    digest = content_evidence.write_evidence(folder, candidate.evaluation, verdict, card, circumstances)
    approval = Approval(
        kind=classifier_model(name),
        stream="",
        digest=candidate.digest,
        evidence=digest,
        evidence_at=circumstances["at"],
        baseline=baseline,
        verdict=verdict.state,
        author=unverified(wired.actor),
        approver="",
    )
    return wired.registry.log_candidate(
        CANDIDATE_MODEL,
        candidate.folder,
        folder,
        metrics=content_evidence.metrics(candidate.evaluation),
        params={key: str(value) for key, value in card.trained.items()},
        tags=approval.tags(),
        description=f"Classifier `{name}`: {content_evidence.summary(candidate.evaluation, verdict)}",
        interface=Interface(
            inputs={labels.TEXT: "category", **dict.fromkeys(card.attributes, "category")},
            outputs={contents.CATEGORY: "category", "confidence": "number"},
        ),
    )


def _configured(wired: Wiring, name: str) -> Configured:
    known = wired.configuration.classifiers
    if name not in known:
        found = ", ".join(known) or "none"
        raise ConfigurationError(f"{wired.settings.config_path}: classifiers: no classifier {name!r}, found {found}")
    return known[name]


_read = task(cache_policy=NO_CACHE)(read_labels)
_fit = task(cache_policy=NO_CACHE)(fit_candidate)
_judge = task(cache_policy=NO_CACHE)(judge_candidate)
_register = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(register_candidate)


@flow(name="classify")
def classify(name: str, as_of: str | None = None) -> dict[str, Any]:
    """Fit the classifier ``name`` on its labelled texts, judge it on the later ones, and register what passed.

    Returns a report: ``state`` is ``registered`` or ``not_registered``, with the reasons and the figures.
    """
    wired = wire(as_of)
    candidate = _fit(wired, name, _read(wired, name))
    verdict = _judge(wired, name, candidate)
    figures = content_evidence.metrics(candidate.evaluation)
    report = {"classifier": name, "digest": candidate.digest, "reasons": verdict.reasons, **figures}
    if verdict.state != "passed":
        return publish("classify", {"state": "not_registered", **report})
    return publish("classify", {"state": "registered", "version": _register(wired, name, candidate, verdict), **report})
