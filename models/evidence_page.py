"""What was found of a candidate as parts of its HTML report: slices, cases, load and drift; everything is escaped."""

import html
from collections.abc import Iterable, Sequence

from models.findings import Findings

_N_FEATURES = 8


def found(findings: Findings) -> str:
    """Return the sections, "" for what there is nothing of."""
    return "".join((_load(findings), _slices(findings), _cases(findings), _drift(findings)))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table; every cell is text, whatever it holds."""
    head = "".join(f"<th>{html.escape(column)}" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(_text(cell))}' for cell in row)}" for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _load(findings: Findings) -> str:
    if not findings.load_shift:
        return ""
    words = "".join(f"<li>{html.escape(line)}" for line in findings.load_words)
    columns = ("destination", "today_share", "full_share", "ratio", "capacity_ratio", "verdict")
    rows = ([shift[column] for column in columns] for shift in findings.load_shift)
    heads = ("destination", "share today", "share at 100 %", "load in today's", "capacity in today's", "verdict")
    return f"<h2>Load at 100 %</h2><ul>{words}</ul>{table(heads, rows)}"


def _slices(findings: Findings) -> str:
    if not findings.slices:
        return ""
    ordered = sorted(findings.slices, key=lambda part: part.difference)
    rows = ((p.feature, p.value, p.n_decisions, p.difference, f"[{p.low:+.4g}, {p.high:+.4g}]") for p in ordered)
    told = f"{len(ordered)} slices, worst first; {findings.harmed} lose with their whole 95 % interval. One in twenty misses by chance."
    heads = ("feature", "value", "decisions", "gain in reward", "95 % interval")
    return f"<h2>Value per slice</h2><p>{told}</p>{table(heads, rows)}"


def _cases(findings: Findings) -> str:
    if not findings.disagreements:
        return ""
    rows = (
        (
            case.at,
            ", ".join(f"{name} {value}" for name, value in list(case.features.items())[:_N_FEATURES]),
            f"{case.champion} ({case.champion_value:.4g})",
            f"{case.candidate} ({case.candidate_value:.4g})",
            f"{case.assigned}: {case.reward:.4g}",
            case.decision_id,
        )
        for case in findings.disagreements
    )
    told = "Where it expects most from choosing otherwise, and least; in brackets what the candidate expects of either."
    heads = ("at", "event", "champion chose", "candidate chooses", "what was done, and brought", "decision")
    return f"<h2>Cases</h2><p>{told}</p>{table(heads, rows)}"


def _drift(findings: Findings) -> str:
    if not findings.drift:
        return ""
    words = "".join(f"<li>{html.escape(line)}" for line in findings.drift_words)
    moved = [
        (feature["column"], feature["psi"], feature["drifted"]) for feature in findings.drift["features"][:_N_FEATURES]
    ]
    state = html.escape(str(findings.drift["state"]))
    return f"<h2>Drift between what it was fitted on and the holdout: {state}</h2><ul>{words}</ul>" + (
        table(("feature", "population stability index", "drifted"), moved) if moved else ""
    )


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
