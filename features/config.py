"""``turnout.toml``: streams, destinations, objectives, rules, static routes and gates, read once and checked whole."""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from features import limits, toml_lines
from features.choices import Demotion, Drift, Exploration, Gate, Live, Part, PositiveInt, Training
from features.definitions import FeatureDefinitions
from features.limits import LimitDefinition
from features.objective import Objective
from features.records import Event, Identifier, Mode, Probability, Scalar
from features.vector import FeatureSet

T = TypeVar("T")

ClassifierName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]{0,31}\Z")]  # it becomes part of a model's name


class ConfigurationError(ValueError):
    """A configuration that cannot be used: names the file, the line, the field and the rule."""


class Destination(Part, frozen=True, kw_only=True):
    """Where an event may go. ``attributes`` are features that do not change; ``region`` is what residency rules read.

    ``capacity_per_hour`` is what it can take of one stream's events, where that is known: the load shift is held to it.
    """

    region: str | None = None
    capacity_per_hour: Annotated[float, Meta(gt=0.0)] | None = None
    attributes: dict[str, Scalar] = msgspec.field(default_factory=dict)


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
    routes: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    default: tuple[str, ...] = ()

    def order(self, event: Event) -> tuple[str, ...]:
        """Return the destinations for ``event``, most wanted first."""
        specific = self.routes.get(str(event.attributes.get(self.by)), ()) if self.by else ()
        return specific + self.default


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
    demotion: Demotion = Demotion()
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
    events in scope may be answered "out of scope" though their class was right. ``components`` axes of the texts are kept
    beside the classes: a router reads ``content.component_1`` and so on, what an event is about within its class.
    """

    labels: str
    attributes: tuple[Identifier, ...] = ()
    out_of_scope: str | None = None
    holdout_share: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.2
    min_accuracy: Probability = 0.8
    min_out_of_scope_recall: Probability = 0.0
    max_accuracy_loss_share: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.005
    components: Annotated[int, Meta(ge=0, le=1_000)] = 0
    seed: int = 0
    threads: PositiveInt = 2


class Configuration(Part, frozen=True, kw_only=True):
    """A whole ``turnout.toml``, checked. Without ``live`` only what a request itself says of destinations is used."""

    streams: dict[Identifier, Stream]
    destinations: dict[Identifier, Destination]
    rules: tuple[Rule, ...] = ()
    forecast: Forecast | None = None
    live: Live | None = None
    classifiers: dict[ClassifierName, Classifier] = msgspec.field(default_factory=dict)

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
