"""The evidence a reviewer reads of a classifier: a report as JSON and HTML, and how far its confidence can be trusted."""

import hashlib
import html
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.figure import Figure

from models.comparison import OfflineVerdict
from models.content_card import Card
from models.content_evaluation import ContentEvaluation
from models.evidence import PAGE_FILE, REPORT_FILE


def write_evidence(
    folder: Path, evaluation: ContentEvaluation, verdict: OfflineVerdict, card: Card, circumstances: Mapping[str, str]
) -> str:
    """Write report, page and plot to ``folder``; return the SHA-256 of the report."""
    held = {
        "schema": 1,
        "verdict": verdict,
        "circumstances": circumstances,
        "evaluation": evaluation,
        "trained": card.trained,
        "contest": card.contest,
        "scope": card.scope,
    }
    report = msgspec.json.format(msgspec.json.encode(held, order="sorted"))
    (folder / REPORT_FILE).write_bytes(report)
    page = f"<!doctype html><meta charset=utf-8><title>Classifier</title><pre>{html.escape(summary(evaluation, verdict))}</pre>"
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    _draw(evaluation).savefig(folder / "calibration.png", dpi=110, metadata={"Software": None})
    return hashlib.sha256(report).hexdigest()


def metrics(evaluation: ContentEvaluation) -> dict[str, float]:
    """Return the evaluation's figures by name; what there is none of is left out."""
    held = msgspec.to_builtins(evaluation)
    return {name: float(value) for name, value in held.items() if isinstance(value, int | float)}


def summary(evaluation: ContentEvaluation, verdict: OfflineVerdict) -> str:
    """Return the version's description in Markdown."""
    recall, changed = evaluation.out_of_scope_recall, evaluation.changed_share
    rows = {
        "in-scope accuracy": f"{evaluation.accuracy:.1%}, at least {evaluation.accuracy_low:.1%} (95 %)",
        "out-of-scope recall": "no example" if recall is None else f"{recall:.1%}",
        "always the most frequent class": f"{evaluation.majority_share:.1%}",
        "calibration error": f"{evaluation.calibration_error:.1%}",
        "answers otherwise than the released one": "none is released" if changed is None else f"{changed:.1%}",
    }
    texts = f"{evaluation.n:,} texts in scope and {evaluation.n_out_of_scope:,} out of scope"
    lines = [
        f"**{verdict.state.upper()}** on {texts} that it was not fitted on.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        *(f"- {reason}" for reason in verdict.reasons),
        "",
        *(f"- {c.n} x `{c.label}` taken for `{c.answer}`" for c in evaluation.confusions[:5]),
    ]
    return "\n".join(lines)


def _draw(evaluation: ContentEvaluation) -> Figure:
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    confidence, share, _ = np.array(evaluation.calibration).T
    axes.plot([0, 1], [0, 1], color="0.7", lw=1)
    axes.plot(confidence, share, "o-")
    axes.set(xlabel="confidence", ylabel="share right", title="calibration, by tenths")
    return figure
