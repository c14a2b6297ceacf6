"""What routing of prompts came to: measures with intervals, the table, and the part of the final object."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lightgbm
import numpy as np
import sklearn
from rich.table import Table

from benchmarks.llm_metrics import Floats, Integers, bootstrap, measures

PRODUCT = "product"
TFIDF = "TF-IDF, logistic regression"
PER_TASK = "best per task"
MEASURES = ("apgr", "cpt50", "cpt80")
BOOTSTRAP_SEED = 0
# Ong et al., RouteLLM: Learning to Route LLMs with Preference Data, 2024, tables 2 and 3, GPT-4 beside Mixtral: APGR and
# CPT(50 %) / CPT(80 %) in per cent, over all prompts; the second line learned from about 1,500 labels of MMLU as well.
PUBLISHED = {
    "mmlu": (
        "Arena alone: BERT .502 (49.4 / 77.8), causal LLM .499 (48.9 / 77.9), MF .524 (45.0 / 76.9), SW .473 (55.8 / 80.3)\n"
        "with gold labels: BERT .572 (41.3 / 72.2), causal LLM .600 (35.5 / 70.3), MF .597 (35.5 / 71.4), SW .603 (35.4 / 71.6)"
    ),
    "gsm8k": (
        "Arena alone: BERT .438 (58.8 / 83.8), causal LLM .461 (56.1 / 83.6), MF .475 (53.6 / 85.2), SW .475 (54.4 / 82.1)\n"
        "with a judge's labels: BERT .531 (44.8 / 79.1), causal LLM .622 (33.6 / 63.3), MF .565 (38.8 / 72.6), SW .568 (41.2 / 72.2)"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """One set's part of the final object, and its table."""

    name: str
    summary: Mapping[str, object]
    table: Table


def judge_pair(name: str, predicted: Mapping[str, Sequence[Floats]], quality: Floats, n_learned: int) -> Report:
    """Judge rankings of prompts by the gain that is expected of the strong model, in the mean over seeds.

    ``predicted`` float64[n, 2] per method and seed; the strong model is the one of the greater mean ``quality``.
    """
    strong = int(quality.mean(axis=0).argmax())
    gains = {method: [each[:, strong] - each[:, 1 - strong] for each in seeds] for method, seeds in predicted.items()}

    def judge(rows: Integers) -> Floats:
        weak_right, strong_right = quality[rows, 1 - strong], quality[rows, strong]
        found = np.array(
            [
                np.mean([measures(gain[rows], weak_right, strong_right) for gain in each], axis=0)
                for each in gains.values()
            ]
        )
        return np.stack([found, found - found[list(gains).index(TFIDF)]])

    found = judge(np.arange(len(quality)))
    low, high = bootstrap(judge, len(quality), BOOTSTRAP_SEED)
    n_seeds = len(gains[PRODUCT])
    table = Table(
        title=f"{name}: learned from {n_learned:,} prompts, tested on {len(quality):,}, mean of {n_seeds} seed(s), 95 % intervals",
        caption=f"published: {PUBLISHED.get(name.split('_', maxsplit=1)[0], 'nothing')}\n{versions()}",
    )
    for heading in ("method", "APGR", "CPT(50 %)", "CPT(80 %)", "APGR - TF-IDF's"):
        table.add_column(heading)
    for at, method in enumerate(gains):
        ends = partial(_interval, low, high)
        shares = (f"{100 * found[0, at, m]:.1f} {ends((0, at, m), 1, 100)}" for m in (1, 2))
        difference = "" if method == TFIDF else f"{found[1, at, 0]:+.3f} {ends((1, at, 0), 3)}"
        table.add_row(method, f"{found[0, at, 0]:.3f} {ends((0, at, 0), 3)}", *shares, difference)
    return Report(
        name=name, summary=_summarise(list(gains), found, low, high, len(quality), n_learned, n_seeds), table=table
    )


def _summarise(
    methods: list[str], found: Floats, low: Floats, high: Floats, n_test: int, n_learned: int, n_seeds: int
) -> dict[str, object]:
    at = methods.index(PRODUCT)
    return {
        **_named(found[0, at]),
        "intervals": {name: _ends(low, high, (0, at, m)) for m, name in enumerate(MEASURES)},
        "apgr_over_tfidf": {"value": _rounded(found[1, at, 0]), "interval": _ends(low, high, (1, at, 0))},
        "peers": {method: _named(found[0, other]) for other, method in enumerate(methods) if other != at},
        "n_train": n_learned,
        "n_test": n_test,
        "seeds": n_seeds,
    }


def judge_many(name: str, predicted: Mapping[str, Sequence[Floats]], quality: Floats, n_learned: int) -> Report:
    """Judge choices of one model among many by the mean ``quality`` of what each prompt's best prediction answers."""
    row = np.arange(len(quality))
    earned = np.array([quality[row, seeds[0].argmax(axis=1)] for seeds in predicted.values()])
    methods = list(predicted)

    def judge(rows: Integers) -> Floats:
        means = earned[:, rows].mean(axis=1)
        return np.stack([means, means - means[methods.index(PER_TASK)]])

    found = judge(row)
    low, high = bootstrap(judge, len(quality), BOOTSTRAP_SEED)
    table = Table(
        title=f"{name}: learned from {n_learned:,} prompts, tested on {len(quality):,}, 95 % intervals",
        caption=versions(),
    )
    for heading in ("choice", "quality", "- best per task"):
        table.add_column(heading)
    for at, method in enumerate(methods):
        cells = (f"{found[kind, at]:{'+' * kind}.4f} {_interval(low, high, (kind, at), 4)}" for kind in (0, 1))
        table.add_row(method, *cells)
    at = methods.index(PRODUCT)
    summary = {
        "score": _rounded(found[0, at]),
        "best_per_task": _rounded(found[0, methods.index(PER_TASK)]),
        "score_over_best_per_task": {"value": _rounded(found[1, at]), "interval": _ends(low, high, (1, at))},
        "peers": {method: _rounded(found[0, other]) for other, method in enumerate(methods) if other != at},
        "n_train": n_learned,
        "n_test": len(quality),
    }
    return Report(name=name, summary=summary, table=table)


def versions() -> str:
    """Return the versions that the figures belong to."""
    return f"Python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}, LightGBM {lightgbm.__version__}"


def _named(found: Floats) -> dict[str, float]:
    return {name: _rounded(value) for name, value in zip(MEASURES, found, strict=True)}


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _ends(low: Floats, high: Floats, at: tuple[int, ...]) -> tuple[float, float]:
    return _rounded(low[at]), _rounded(high[at])


def _interval(low: Floats, high: Floats, at: tuple[int, ...], digits: int, scale: float = 1.0) -> str:
    return f"[{scale * low[at]:.{digits}f}, {scale * high[at]:.{digits}f}]"
