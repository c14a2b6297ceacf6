"""The offline gate: may this candidate be shown to a reviewer? Pure: a comparison in, a verdict with its reasons out."""

from features.choices import Gate
from features.config import Classifier
from models.backtest import ForecastEvaluation
from models.comparison import Comparison, OfflineVerdict
from models.content_evaluation import ContentEvaluation
from models.evaluation import Refusal

HONEST_COVERAGE = (0.7, 0.9)


def judge(comparison: Comparison, gate: Gate) -> OfflineVerdict:
    """Pass a candidate whose reward is not below the champion's by more than ``gate.offline_margin``, with confidence.

    It fails where the whole interval lies below the margin, or the failure rate certainly rises by more than
    ``gate.max_failure_rise``; a log that cannot support a claim either way is inconclusive, with the figures.
    """
    reward, failures = comparison.difference["reward"], comparison.difference.get("failure_rate")
    if isinstance(reward, Refusal):
        return OfflineVerdict(state="inconclusive", reasons=(f"reward: {reward.reason}: {reward.explanation}",))
    interval = f"reward difference {reward.value:+.4g} in [{reward.low:+.4g}, {reward.high:+.4g}]"
    sample = f"n = {reward.n_decisions:,} decisions in {reward.n_clusters:,} clusters, effective sample size {reward.effective_sample_size:,.0f}"
    reasons = [f"{interval} at {reward.confidence:.0%}; {sample}"]
    if failures is not None and not isinstance(failures, Refusal):
        reasons.append(f"failure rate difference {failures.value:+.4f} in [{failures.low:+.4f}, {failures.high:+.4f}]")
        if failures.low > gate.max_failure_rise:
            reasons.append(f"the failure rate rises by more than {gate.max_failure_rise:g}")
            return OfflineVerdict(state="failed", reasons=tuple(reasons))
    if reward.low > -gate.offline_margin:
        return OfflineVerdict(
            state="passed", reasons=(*reasons, f"the lower bound is above {0.0 - gate.offline_margin:g}")
        )
    if reward.high < -gate.offline_margin:
        return OfflineVerdict(
            state="failed", reasons=(*reasons, f"the upper bound is below {0.0 - gate.offline_margin:g}")
        )
    return OfflineVerdict(state="inconclusive", reasons=(*reasons, f"the interval spans {0.0 - gate.offline_margin:g}"))


def judge_forecaster(evaluation: ForecastEvaluation) -> OfflineVerdict:
    """Pass a forecaster whose error lies below that of every baseline on the same hours, and whose band is honest.

    The band from P10 to P90 promises 80 %; between 70 and 90 % of a few weeks is what an honest one can show.
    """
    baselines = {
        "the same hour last week": evaluation.wape_last_week,
        "the same hour yesterday": evaluation.wape_last_day,
        "the last value": evaluation.wape_last_value,
    }
    beaten_by = [
        f"WAPE {evaluation.wape:.3f} is not below {error:.3f} of {name}"
        for name, error in baselines.items()
        if not evaluation.wape < error
    ]
    coverage = f"the band held {evaluation.p10_p90_coverage:.1%} of {evaluation.n:,} loads"
    low, high = HONEST_COVERAGE
    if not low <= evaluation.p10_p90_coverage <= high:
        beaten_by.append(f"{coverage}, not between {low:.0%} and {high:.0%}")
    if beaten_by:
        return OfflineVerdict(state="failed", reasons=tuple(beaten_by))
    return OfflineVerdict(state="passed", reasons=(f"WAPE {evaluation.wape:.3f} is below every baseline's", coverage))


def judge_classifier(
    evaluation: ContentEvaluation, wanted: Classifier, unserved: tuple[str, ...] = ()
) -> OfflineVerdict:
    """Pass a classifier that reaches the configured accuracy and recall, beats the most frequent class, and serves all streams.

    ``unserved`` says what a stream's features read and the classifier does not have. A recall is asked only of a
    classifier that was shown examples out of scope; to ask it of none fails.
    """
    recall, least = evaluation.out_of_scope_recall, wanted.min_out_of_scope_recall
    figures = f"accuracy {evaluation.accuracy:.3f} on {evaluation.n:,} texts in scope"
    against = list(unserved)
    if evaluation.accuracy < wanted.min_accuracy:
        against.append(f"{figures} is below min_accuracy {wanted.min_accuracy:g}")
    if evaluation.accuracy_low <= evaluation.majority_share:
        share = evaluation.majority_share
        against.append(f"{figures} is not certainly above {share:.3f}, which the most frequent class alone reaches")
    if least and (recall is None or recall < least):
        found = "there is no example out of scope" if recall is None else f"recall {recall:.3f}"
        against.append(f"{found}, min_out_of_scope_recall is {least:g}")
    if against:
        return OfflineVerdict(state="failed", reasons=tuple(against))
    seen = "no example out of scope" if recall is None else f"out-of-scope recall {recall:.3f}"
    return OfflineVerdict(state="passed", reasons=(figures, seen))
