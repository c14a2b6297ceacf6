"""What may be chosen of a stream: how its events are explored, its router trained, judged and watched."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from features.records import Probability

PositiveInt = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration: unknown fields are refused, since most of them are misspelt ones."""


class Exploration(Part, frozen=True, kw_only=True):
    """How a policy spreads its choice, so that the log can answer what other choices would have done.

    ``epsilon`` is the share of events drawn evenly from the eligible (a floor of ``epsilon / n_eligible`` under every
    propensity); ``squarecb`` spreads by predicted value with learning rate ``gamma``, under the same floor.
    ``static_epsilon`` is the floor while the static routes decide.

    ``budget`` is the most expected value that exploring may cost an event, in units of the reward, or ``budget_share``,
    the same as a share of the objective's range: what would cost more is mixed with the greedy choice until it does not.
    Under ``min_propensity`` no eligible candidate's probability falls, unless that floor alone is beyond the budget: the
    decision is then not explored, and its propensity is 1. A budget of 0 explores nothing. The static routes predict no
    loss: their floor is not bounded.
    """

    kind: Literal["none", "epsilon", "squarecb"] = "epsilon"
    epsilon: Probability = 0.05
    gamma: Annotated[float, Meta(gt=0.0)] = 10.0
    static_epsilon: Probability = 0.0
    budget: Annotated[float, Meta(ge=0.0)] | None = None
    budget_share: Probability | None = None
    min_propensity: Probability = 0.0

    def __post_init__(self) -> None:
        """Refuse a budget said twice."""
        if self.budget is not None and self.budget_share is not None:
            raise ValueError(f"budget or budget_share, got both: {self.budget} and {self.budget_share}")

    @property
    def is_bounded(self) -> bool:
        """Whether a budget or a least propensity bounds the spread."""
        return self.budget is not None or self.budget_share is not None or self.min_propensity > 0.0

    def allowance(self, value_range: float) -> float | None:
        """Return the budget in units of the reward, whose ``value_range`` is high - low; None where there is none."""
        return self.budget if self.budget_share is None else self.budget_share * value_range


class Rung(Part, frozen=True, kw_only=True):
    """A step of the canary ladder: its share, and how many decisions it lasts at the least."""

    share: Annotated[float, Meta(gt=0.0, lt=1.0)]
    min_decisions: PositiveInt = 500


class Gate(Part, frozen=True, kw_only=True):
    """How a candidate is judged: offline, then live. Margins are in units of the reward.

    ``mode``: ``enabled`` acts on its verdicts, ``dry_run`` only reports them (a person promotes or withdraws),
    ``disabled`` makes an approved router the champion at once, unproven. ``shadow_decisions`` a challenger scores without
    deciding any before its ladder begins; the last step of the ladder, 100 %, is the promotion itself. A canary that
    nothing decided by ``max_decisions`` or ``deadline_hours`` is withdrawn; none begins within ``cooldown_hours`` of one
    that was withdrawn or rolled back.

    The guardrails say by how much the challenger's arm may do worse: in its share of failures, of outcomes that never
    came, of latencies above the objective's ``sla_latency_ms`` (which may have a weight of 0), and in its mean cost as a
    share of ``cost_limit_usd``, above which a cost counts as that; without such a limit that guardrail is off. Of a sticky key the first ``max_key_decisions`` on each
    rung count: more make every bet smaller, fewer waste decisions.
    """

    mode: Literal["enabled", "dry_run", "disabled"] = "enabled"
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    margin: Annotated[float, Meta(ge=0.0)] = 0.0
    offline_margin: Annotated[float, Meta(ge=0.0)] = 0.0
    shadow_decisions: Annotated[int, Meta(ge=0)] = 0
    min_decisions: PositiveInt = 200
    max_decisions: PositiveInt = 50_000
    max_key_decisions: PositiveInt = 20
    deadline_hours: Annotated[float, Meta(gt=0.0)] = 2_016.0
    cooldown_hours: Annotated[float, Meta(ge=0.0)] = 24.0
    max_failure_rise: Probability = 0.05
    max_unanswered_rise: Probability = 0.05
    max_slow_rise: Probability = 0.05
    cost_limit_usd: Annotated[float, Meta(gt=0.0)] | None = None
    max_cost_rise_share: Probability = 0.05
    evidence_max_age_hours: Annotated[float, Meta(gt=0.0)] = 72.0
    two_person: bool = False
    ladder: tuple[Rung, ...] = (Rung(share=0.01), Rung(share=0.05), Rung(share=0.25), Rung(share=0.5))

    def __post_init__(self) -> None:
        """Refuse a ladder that does not climb."""
        shares = [rung.share for rung in self.ladder]
        if not shares or shares != sorted(set(shares)):
            raise ValueError(f"ladder shares must rise from rung to rung, got {shares}")


FormName = Literal["pooled", "own", "blend", "shared"]


class Training(Part, frozen=True, kw_only=True):
    """How the router of a stream is fitted.

    ``forms`` compete on decisions they have not seen: ``pooled`` has one model of all (event, destination) pairs, ``own``
    one more for every destination with ``min_own_outcomes``, ``blend`` the mean of both; ``shared`` is a forest whose
    trees serve all destinations and whose leaves are each one's own, for logs of a few thousand events. At most ``contest_decisions``
    of the log are used for that, in ``contest_folds`` folds; 0 takes the first form. ``latency_quantiles`` are predicted
    beside the mean where outcomes carry latencies. ``shared_min_events`` is about the least that a leaf of ``shared`` holds,
    and its means are shrunk towards the destination's by ``shared_prior`` outcomes: the noisier single outcomes are, the more
    of both (0/1 successes ask for 10 to 40 events). ``shared_leaves``: ``means`` are what happened in a leaf; ``votes`` say only
    in which order the destinations' means lie there, scaled to the outcomes, so that no rare and expensive event outweighs
    the others: for choices among destinations that take turns, at the price of a coarser estimate. ``shared_pair_trees``: about as
    many trees of each destination's forest say whether it or another one takes less time, or costs less, learned from events
    of which outcomes at both are known (probes; the card says of how many); 0 for none.

    ``n_boosters`` are fitted per head (of ``shared``, of each kind of tree) on different seeds and averaged.
    ``latency_offset`` names the number feature that carries the latency a candidate promises, in minutes: the latency head then learns what comes on top of it.
    ``max_weight`` clips the inverse-propensity weights; at 1 every outcome weighs the same. ``holdout_share`` of the
    log's time, its latest part, is kept from the fit and judges the candidate. ``known_later`` lists what becomes known
    only after a decision (``event.x``): no feature may read it. ``leakage_allowed`` lists columns that may tell the
    outcome as well as they do, such as a promised time.
    """

    min_decisions: PositiveInt = 1_000
    holdout_share: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.2
    rounds: PositiveInt = 200
    n_boosters: PositiveInt = 1
    learning_rate: Share = 0.05
    leaves: Annotated[int, Meta(ge=2)] = 31
    min_leaf: PositiveInt = 50
    feature_share: Share = 1.0
    row_share: Share = 1.0
    l2: Annotated[float, Meta(ge=0.0)] = 0.0
    category_smoothing: Annotated[float, Meta(ge=0.0)] = 10.0
    max_bin: Annotated[int, Meta(ge=2, le=65_535)] = 255
    max_weight: Annotated[float, Meta(ge=1.0)] = 1.0
    forms: Annotated[tuple[FormName, ...], Meta(min_length=1)] = ("pooled", "own", "blend")
    contest_decisions: Annotated[int, Meta(ge=0)] = 10_000
    contest_folds: Annotated[int, Meta(ge=2)] = 3
    min_own_outcomes: PositiveInt = 200
    shared_min_events: Annotated[float, Meta(ge=1.0)] = 2.0
    shared_prior: Annotated[float, Meta(gt=0.0)] = 0.1
    shared_leaves: Literal["means", "votes"] = "means"
    shared_pair_trees: Annotated[int, Meta(ge=0)] = 0
    latency_quantiles: tuple[Annotated[float, Meta(gt=0.0, lt=1.0)], ...] = (0.5, 0.9)
    latency_offset: str | None = None
    seed: int = 0
    threads: PositiveInt = 2
    known_later: tuple[str, ...] = ()
    leakage_allowed: tuple[str, ...] = ()


class Drift(Part, frozen=True, kw_only=True):
    """When the world of a stream has moved away from the one its champion learned, so that the router is fitted anew.

    What was decided within the last ``window_hours``, and after the champion's training, is compared with the training
    window; either must hold ``min_decisions`` in ``min_clusters``. A feature drifts above ``psi`` (.25 is the usual word
    for a major change; Siddiqi, 2006), calibration where predicted and observed success certainly differ by more than
    ``calibration_gap``; ``alpha`` is the chance of a false alarm per look, over all features and over calibration each.
    ``ignored`` columns move by nature (the average of a month, say, in a window of four weeks). Within
    ``cooldown_hours`` of a retraining drift is said but nothing is fitted. ``max_decisions`` of each window are read,
    drawn by a hash.
    """

    enabled: bool = True
    window_hours: Annotated[float, Meta(gt=0.0)] = 672.0
    min_decisions: Annotated[int, Meta(ge=100)] = 500
    min_clusters: Annotated[int, Meta(ge=10)] = 10
    max_decisions: PositiveInt = 20_000
    psi: Annotated[float, Meta(gt=0.0)] = 0.25
    calibration_gap: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.05
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.01
    cooldown_hours: Annotated[float, Meta(ge=0.0)] = 168.0
    ignored: tuple[str, ...] = ()


class Demotion(Part, frozen=True, kw_only=True):
    """When a champion loses its stream to the static routes by itself; by default never.

    It does once the data that it was fitted on end more than ``max_age_hours`` ago, or once the rate of failures among its
    decisions of the last ``window_hours`` is certainly above ``max_failure_rate``; ``alpha`` is the chance of a false
    alarm per look.
    """

    max_age_hours: Annotated[float, Meta(gt=0.0)] | None = None
    max_failure_rate: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None
    window_hours: Annotated[float, Meta(gt=0.0)] = 24.0
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.001


class Live(Part, frozen=True, kw_only=True):
    """What a shim knows of destinations beyond what a request says: their reported states, and averages of their outcomes.

    A state older than ``max_age_seconds`` is treated as missing, whoever told it. Outcomes count for the averages with a
    weight that halves every ``half_life_seconds``.
    """

    max_age_seconds: Annotated[float, Meta(gt=0.0)] = 60.0
    half_life_seconds: Annotated[float, Meta(gt=0.0)] = 60.0
