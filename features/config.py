"""``turnout.toml``: streams, destinations, objectives, rules, static routes and gates, read once and checked whole."""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from features import limits, toml_lines
from features.limits import LimitDefinition
from features.objective import Objective
from features.records import Event, Identifier, Mode, Probability, Scalar
from features.vector import FeatureDefinitions, FeatureSet

T = TypeVar("T")

PositiveInt = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]
ClassifierName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]{0,31}\Z")]  # it becomes part of a model's name


class ConfigurationError(ValueError):
    """A configuration that cannot be used: names the file, the line, the field and the rule."""


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration: unknown fields are refused, since most of them are misspelt ones."""


class Destination(Part, frozen=True, kw_only=True):
    """Where an event may go. ``attributes`` are features that do not change; ``region`` is what residency rules read."""

    region: str | None = None
    attributes: dict[str, Scalar] = {}


class Rule(Part, frozen=True, kw_only=True):
    """A hard rule: events that carry ``label`` may go only to what is allowed here."""

    name: str
    label: str
    allow: tuple[str, ...] = ()
    allow_regions: tuple[str, ...] = ()


class StaticRoutes(Part, frozen=True, kw_only=True):
    """The rule that stands before and behind every model: an ordered list of destinations.

    ``routes`` maps the value of the event attribute ``by`` to its order; ``default`` serves the rest, and completes
    every route. A destination in neither comes last, in the order of the candidates.
    """

    by: str | None = None
    routes: dict[str, tuple[str, ...]] = {}
    default: tuple[str, ...] = ()

    def order(self, event: Event) -> tuple[str, ...]:
        """Return the destinations for ``event``, most wanted first."""
        specific = self.routes.get(str(event.attributes.get(self.by)), ()) if self.by else ()
        return specific + self.default


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

    share: Share
    min_decisions: PositiveInt = 500


class Gate(Part, frozen=True, kw_only=True):
    """How a candidate is judged: offline, then live. Margins are in units of the reward.

    Of a sticky key the first ``max_key_decisions`` on each rung count: more make every bet smaller, fewer waste decisions.
    """

    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    margin: Annotated[float, Meta(ge=0.0)] = 0.0
    offline_margin: Annotated[float, Meta(ge=0.0)] = 0.0
    min_decisions: PositiveInt = 200
    max_decisions: PositiveInt = 50_000
    max_key_decisions: PositiveInt = 20
    max_failure_rise: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.05
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
    beside the mean where outcomes carry latencies.

    ``n_boosters`` are fitted per head on different seeds and averaged. ``latency_offset`` names the number feature that
    carries the latency a candidate promises, in minutes: the latency head then learns what comes on top of it.
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


def classifier_model(name: str) -> str:
    """Return the name under which the ledger releases the classifier ``[classifiers.NAME]``."""
    return f"classifier.{name}"


class Stream(Part, frozen=True, kw_only=True):
    """One kind of event: where it may go, what is known of it, what its outcome is worth, how its router is judged.

    ``types`` are the CloudEvents types that belong to it. ``cluster`` says which decisions share fate, for intervals:
    those of one ``decision``, one ``key`` or one ``day`` (in the features' zone). ``text_field`` names the text in an
    event's data, ``content`` the classifier that reads it for the features.
    """

    types: tuple[str, ...]
    destinations: tuple[Identifier, ...]
    objective: Objective
    static: StaticRoutes = StaticRoutes()
    features: FeatureDefinitions = FeatureDefinitions()
    exploration: Exploration = Exploration()
    limits: tuple[LimitDefinition, ...] = ()
    gate: Gate = Gate()
    training: Training = Training()
    drift: Drift = Drift()
    mode: Mode = "off"
    refusal: str | None = None
    text_field: str | None = None
    content: str | None = None
    sticky: bool = False
    cluster: Literal["decision", "key", "day"] = "decision"

    def classifier_in(self, models: Mapping[str, str]) -> str | None:
        """Return the digest that ``models``, as the ledger names them, give the classifier; None where no feature reads one."""
        return models.get(classifier_model(self.content)) if self.content and self.features.content_names else None


class Forecast(Part, frozen=True, kw_only=True):
    """The demand to forecast: a table of hourly loads, and how its forecaster is judged.

    ``loads`` is a CSV or Parquet file with the columns series, hour (UTC) and load, beside the configuration unless
    absolute. ``zone`` and ``holidays`` are those of the people whose habits make the load. The last ``holdout_days``
    judge the forecaster, which is not fitted on them.
    """

    loads: str
    zone: str = "UTC"
    holidays: Literal["none", "us"] = "none"
    holdout_days: PositiveInt = 28
    seed: int = 0


class Classifier(Part, frozen=True, kw_only=True):
    """What texts mean: a table of labelled ones, and how the classifier learned from it is judged.

    ``labels`` is a CSV, Parquet or JSON Lines file with the columns text, label and ``attributes`` (named as those of
    the events), beside the configuration unless absolute. Rows labelled ``out_of_scope`` are of no class. The last
    ``holdout_share`` of each class judges the classifier, which is not fitted on it. ``max_accuracy_loss_share`` of the
    events in scope may be answered "out of scope" though their class was right.
    """

    labels: str
    attributes: tuple[Identifier, ...] = ()
    out_of_scope: str | None = None
    holdout_share: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.2
    min_accuracy: Probability = 0.8
    min_out_of_scope_recall: Probability = 0.0
    max_accuracy_loss_share: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.005
    seed: int = 0
    threads: PositiveInt = 2


class Configuration(Part, frozen=True, kw_only=True):
    """A whole ``turnout.toml``, checked."""

    streams: dict[Identifier, Stream]
    destinations: dict[Identifier, Destination]
    rules: tuple[Rule, ...] = ()
    forecast: Forecast | None = None
    classifiers: dict[ClassifierName, Classifier] = {}

    def __post_init__(self) -> None:
        """Refuse names that lead nowhere."""
        for name, stream in self.streams.items():
            self._check_stream(name, stream)
        for number, rule in enumerate(self.rules):
            for destination in rule.allow:
                self._known(destination, f"rules[{number}].allow")
        claimed: dict[str, str] = {}
        for name, stream in self.streams.items():
            for event_type in stream.types:
                if (other := claimed.setdefault(event_type, name)) != name:
                    raise ValueError(f"streams.{name}.types: {event_type!r} belongs to stream {other!r} already")

    def _check_stream(self, name: str, stream: Stream) -> None:
        for destination in stream.destinations:
            self._known(destination, f"streams.{name}.destinations")
        for destination in stream.static.default:
            self._known(destination, f"streams.{name}.static.default")
        for key, route in stream.static.routes.items():
            for destination in route:
                self._known(destination, f"streams.{name}.static.routes.{key}")
        self._check_guards(name, stream)
        self._check_content(name, stream)
        try:
            limits.check(stream.limits, destinations=stream.destinations, numbers=stream.features.numbers)
        except ValueError as error:
            raise ValueError(f"streams.{name}.limits{error}") from None
        if stream.exploration.min_propensity * len(stream.destinations) > 1.0:
            least, n = stream.exploration.min_propensity, len(stream.destinations)
            raise ValueError(f"streams.{name}.exploration.min_propensity: {n} destinations cannot have {least:g} each")

    def _check_guards(self, name: str, stream: Stream) -> None:
        listed = {"training.leakage_allowed": stream.training.leakage_allowed, "drift.ignored": stream.drift.ignored}
        for field, columns in listed.items():
            for column in columns:
                if column not in stream.features.numbers | stream.features.categories:
                    raise ValueError(f"streams.{name}.{field}: {column!r} is no feature of the stream")
        for known in stream.training.known_later:
            space, _, attribute = known.partition(".")
            if space not in ("event", "candidate", "state") or not attribute:
                raise ValueError(
                    f"streams.{name}.training.known_later: {known!r} is not event.x, candidate.x or state.x"
                )

    def _check_content(self, name: str, stream: Stream) -> None:
        if stream.content is not None and stream.content not in self.classifiers:
            raise ValueError(
                f"streams.{name}.content: classifier {stream.content!r} is not configured under [classifiers]"
            )
        if stream.content is not None and not stream.text_field:
            raise ValueError(f"streams.{name}.content: text_field must say which text {stream.content!r} reads")
        if stream.content is None and (read := sorted(stream.features.content_names)):
            raise ValueError(f"streams.{name}.features: content.{read[0]} needs content, the name of a classifier")

    def _known(self, destination: str, field: str) -> None:
        if destination not in self.destinations:
            raise ValueError(f"{field}: destination {destination!r} is not configured under [destinations]")

    @property
    def revision(self) -> str:
        """A name for exactly this configuration; every decision carries it."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    def stream_of(self, event_type: str) -> str | None:
        """Return the stream that ``event_type`` belongs to, or None."""
        return next((name for name, stream in self.streams.items() if event_type in stream.types), None)

    def feature_set(self, stream: str) -> FeatureSet:
        """Compile the features of ``stream``."""
        attributes: Mapping[str, Mapping[str, Scalar]] = {
            name: destination.attributes for name, destination in self.destinations.items()
        }
        return FeatureSet(self.streams[stream].features, attributes)


def load(path: Path) -> Configuration:
    """Read and check ``path``.

    Raises
    ------
    ConfigurationError
        Naming the file, the line where it can be told, the field and what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, name=str(path))


def parse(text: str, *, name: str = "turnout.toml") -> Configuration:
    """Check the configuration in ``text``; ``name`` stands in its errors. Raises as `load` does."""
    try:
        return _convert(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    except _FieldError as error:
        message, field = error.args
        line = toml_lines.line_of(text, field)
        raise ConfigurationError(
            f"{name}:{line}: {field}: {message}" if line else f"{name}: {field}: {message}"
        ) from None


class _FieldError(Exception):
    """What is wrong, and the dotted path of the field."""


def _convert(tables: dict[str, Any]) -> Configuration:
    """Convert the named tables one by one first: errors in the whole do not tell the name of a table."""
    for table, kind in (("streams", Stream), ("destinations", Destination), ("classifiers", Classifier)):
        for key, fields in dict(tables.get(table, {})).items():
            _convert_part(fields, kind, f"{table}.{key}")
    return _convert_part(tables, Configuration, "")


def _convert_part(fields: Any, kind: type[T], path: str) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        message, field = toml_lines.explain(str(error))
        raise _FieldError(message, ".".join(filter(None, [path, field])) or "turnout.toml") from None
