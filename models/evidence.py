"""The evidence a reviewer reads: a report as JSON and HTML, plots, and a model card, all from one comparison."""

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models import evidence_page, plots
from models.card import Card, Contest, Head
from models.comparison import Comparison, Judgement, OfflineVerdict
from models.evaluation import Refusal
from models.findings import NOTHING_FOUND, Findings, Slice

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
CARD_FILE = "model_card.md"

_UNITS = {"reward": "units of the reward", "failure_rate": "share of decisions", "latency_minutes": "minutes"}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Under which this candidate was made: what a reviewer would ask first."""

    stream: str
    candidate_digest: str
    champion_digest: str | None
    baseline_generation: int
    policy_revision: str
    created_at: str
    data: Mapping[str, Any]
    batch: Mapping[str, Any]
    code: str = ""


def write(
    folder: Path,
    comparison: Comparison,
    verdict: OfflineVerdict,
    card: Card,
    circumstances: Circumstances,
    found: Findings = NOTHING_FOUND,
) -> str:
    """Write report, page, plots and model card to ``folder``; return the SHA-256 of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    report = msgspec.json.format(
        msgspec.json.encode(
            {
                "schema": 1,
                "verdict": asdict(verdict),
                "circumstances": asdict(circumstances),
                "comparison": _plain(comparison),
                "findings": asdict(found),
                "card": card,
            },
            enc_hook=_encode,
            order="sorted",
        )
    )
    (folder / REPORT_FILE).write_bytes(report)
    for name, figure in plots.figures(comparison).items():
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
    (folder / CARD_FILE).write_text(_model_card(comparison, verdict, card, circumstances, found), encoding="utf-8")
    (folder / PAGE_FILE).write_text(_page(folder, comparison, verdict, circumstances, found), encoding="utf-8")
    return hashlib.sha256(report).hexdigest()


def metrics(comparison: Comparison) -> dict[str, float]:
    """Return the comparison's figures by flat names, for the run's metrics."""
    figures = {"disagreement_rate": comparison.disagreement_rate, "n_decisions": float(comparison.n_decisions)}
    for name, use in comparison.use.items():
        figures[f"use_{re.sub(r'[^A-Za-z0-9]+', '_', name)}"] = use.candidate
    for name, judgement in comparison.difference.items():
        if not isinstance(judgement, Refusal):
            figures |= {
                f"{name}_difference": judgement.value,
                f"{name}_difference_low": judgement.low,
                f"{name}_difference_high": judgement.high,
                f"{name}_effective_sample_size": judgement.effective_sample_size,
            }
    return figures


def tags(comparison: Comparison, found: Findings) -> dict[str, str]:
    """Return the tags that say the least a reviewer must know, for lists of versions."""
    reward = comparison.difference.get("reward")
    told = {"turnout.disagreement": f"{comparison.disagreement_rate:.1%}", "turnout.harmed_slices": str(found.harmed)}
    if reward is not None and not isinstance(reward, Refusal):
        told["turnout.gain"] = f"{reward.value:+.4g} [{reward.low:+.4g}, {reward.high:+.4g}]"
    beyond = [shift["destination"] for shift in found.load_shift if shift["verdict"] == "beyond"]
    if any(shift["verdict"] != "unknown" for shift in found.load_shift):
        told["turnout.beyond_capacity"] = ", ".join(beyond) or "none"
    if found.drift:
        told["turnout.drift"] = str(found.drift["state"])
    return told


def summary(
    comparison: Comparison, verdict: OfflineVerdict, circumstances: Circumstances, found: Findings = NOTHING_FOUND
) -> str:
    """Return the version's description: Markdown, readable in two minutes."""
    champion = (circumstances.champion_digest or "the static routes")[: 12 if circumstances.champion_digest else None]
    sample = f"{comparison.n_decisions:,} decisions in {comparison.n_clusters:,} clusters"
    lines = [
        f"**{verdict.state.upper()}** offline for stream `{circumstances.stream}`, against `{champion}`.",
        "",
        "| candidate - champion | difference | 95 % interval | candidate | champion |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in _rows(comparison)),
        "",
        f"{sample}, {_minute(comparison.since)} to {_minute(comparison.until)} UTC; choices differ on {comparison.disagreement_rate:.1%}.",
        "",
        *(f"- {reason}" for reason in verdict.reasons),
        *(f"- {line}" for line in _use_lines(comparison)),
        *_found_lines(found),
    ]
    return "\n".join(lines)


def _minute(instant: np.datetime64) -> str:
    return str(instant.astype("datetime64[m]")).replace("T", " ")


def _found_lines(found: Findings) -> list[str]:
    """Say where it loses, what the whole load would do, and whether the world moved, each in a few lines."""
    lines: list[str] = []
    if found.slices:
        lines += [
            "",
            f"**Where it loses**, of {len(found.slices)} slice{'' if len(found.slices) == 1 else 's'} ({found.harmed} with the whole interval below 0):",
            "",
        ]
        lines += [f"- {_slice(worst)}" for worst in found.regressions[:3]] or ["- nowhere"]
    if found.load_words:
        lines += ["", "**Load**", "", *(f"- {words}" for words in found.load_words[:4])]
    if found.drift:
        moved = found.drift_words or ("the features of the holdout are spread as those it was fitted on",)
        lines += [
            "",
            f"**Drift**: {found.drift['state'].replace('_', ' ')}",
            "",
            *(f"- {words}" for words in moved[:3]),
        ]
    return lines


def _slice(part: Slice) -> str:
    where = f"{part.feature} = {part.value}"
    return f"{where}: {part.difference:+.4g} [{part.low:+.4g}, {part.high:+.4g}] on {part.n_decisions:,} decisions"


def _use_lines(comparison: Comparison) -> list[str]:
    """Say what would be used of each limit, which the shim keeps to by pacing the price."""
    return [
        f"{name}: at most {use.at_most:g} per event; the candidate would use {use.candidate:.4g} "
        f"({_relative(use.candidate, use.at_most)}), the champion {use.champion:.4g}"
        for name, use in comparison.use.items()
    ]


def _relative(use: float, at_most: float) -> str:
    return f"{use / at_most - 1.0:+.1%}" if at_most else "nothing is allowed"


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, difference in comparison.difference.items():
        label = f"{name} ({_UNITS[name]})"
        if isinstance(difference, Refusal):
            rows.append((label, "refused", difference.explanation, "", ""))
            continue
        own = (_value(comparison.candidate[name]), _value(comparison.champion[name]))
        rows.append((label, f"{difference.value:+.4g}", f"[{difference.low:+.4g}, {difference.high:+.4g}]", *own))
    return rows


def _value(judgement: Judgement) -> str:
    return "refused" if isinstance(judgement, Refusal) else f"{judgement.value:.4g}"


def _page(
    folder: Path, comparison: Comparison, verdict: OfflineVerdict, circumstances: Circumstances, found: Findings
) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(comparison))
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in (*verdict.reasons, *_use_lines(comparison)))
    facts = "".join(f"<tr><td>{k}</td><td>{html.escape(str(v))}</td></tr>" for k, v in asdict(circumstances).items())
    images = "".join(
        f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode((folder / name).read_bytes()).decode()}">'
        for name in ("difference.png", "calibration.png", "load.png")
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Gate report</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}}
td,th{{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:left}}img{{max-width:100%}}</style>
<h1>{html.escape(verdict.state)}</h1><ul>{reasons}</ul>
<table><tr><th>candidate - champion<th>difference<th>95 % interval<th>candidate<th>champion</tr>{cells}</table>
{evidence_page.found(found)}{images}<h2>Circumstances</h2><table>{facts}</table></html>"""


def _model_card(
    comparison: Comparison, verdict: OfflineVerdict, card: Card, circumstances: Circumstances, found: Findings
) -> str:
    heads = "\n".join(f"- `{name}`: {_describe(head)}" for name, head in card.heads.items())
    trained = "\n".join(f"- {name}: {value}" for name, value in card.trained.items())
    return f"""# Router for `{card.stream}`

{summary(comparison, verdict, circumstances, found)}

## Heads

{heads}

## Form

{_describe_contest(card.contest)}

## Learned from

{trained}

## Reads

{len(card.numbers)} numbers ({", ".join(card.numbers)}) and {len(card.categories)} categories ({", ".join(card.categories)}).

## Mind

Only outcomes of the destinations that were assigned are known; what others would have done is estimated, with the
logged propensities. The holdout is later than all that the router has seen, and nothing was refitted on it.
"""


def _describe(head: Head) -> str:
    parts = [f"mean of {len(head.files)} booster(s), within [{head.low:.4g}, {head.high:.4g}]"]
    if head.own:
        parts.append(f"{head.own_share:.0%} from boosters of {len(head.own)} destination(s) of their own")
    if head.offset:
        parts.append(f"on top of `{head.offset}`")
    if head.scaling:
        parts.append(f"log-odds times {head.scaling.slope:.3f} plus {head.scaling.intercept:.3f}")
    return ", ".join(parts)


def _describe_contest(contest: Contest | None) -> str:
    """Return what the forms were worth on decisions they had not seen; the reviewer sees how close it was."""
    if contest is None:
        return "The configured form; none competed."
    if contest.refusal:
        return f"`{contest.chosen}`, since the log cannot tell: {contest.refusal}."
    rows = [
        f"| {name} | {form.value:.4g} | [{form.low:.4g}, {form.high:.4g}] |" for name, form in contest.forms.items()
    ]
    told = f"`{contest.chosen}`, by what each would have earned on {contest.n_decisions:,} decisions it had not seen:"
    return "\n".join([told, "", "| form | value | 95 % interval |", "|---|---|---|", *rows])


def _plain(comparison: Comparison) -> dict[str, Any]:
    return {name: getattr(comparison, name) for name in comparison.__dataclass_fields__}


def _encode(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.floating | np.integer):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a report")
