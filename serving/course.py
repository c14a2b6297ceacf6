"""A stream as the fast path decides it: its configuration, its features and its release, in the form that C reads.

A stream has a course where everything about it is ordinary: all models learned from the classifier that is in force. All others
are decided by the whole path alone.
"""

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
import numpy as np

from features import cloudevents
from features.content import CATEGORY
from features.definitions import space_of
from features.expressions import compile_expression
from features.records import Event
from serving import course_content
from serving.course_content import Said
from serving.course_models import Role, role_of
from serving.debts import Debts
from serving.live import STATE
from serving.plan import StreamPlan
from serving.proposals import DECIDING_MODES
from serving.view import Classifier, StreamView, digest_of

MAX_DESTINATIONS: Final = 128  # and candidates: with more, numpy adds a distribution in another order

# Their places are the numbers by which C knows them.
SPACES: Final = ("event", "candidate", "destination", "state", "measure", "time", "content", "expression")
EXPLORING: Final = ("none", "epsilon", "squarecb")

_STATE: Final = (*STATE, "healthy")

Column = tuple[int, bytes]  # the space, and the name in it or where a space numbers its cells that number
Instants = list[tuple[str, str]]  # (zone, name) of everything that is read of the time, in the order C is told of it
_encode = msgspec.json.encode


class Course(NamedTuple):
    """What C reads, by name; texts are UTF-8, those called ``_text`` JSON, float64s and int32s as the machine has them.

    ``orders`` are the static routes' orders by the places of ``destinations``: the default, that of an event without the
    attribute ``by``, and that of each of ``routes``. ``constants`` hold each destination's own attributes, one for every
    number and then operand, ``constant_texts`` the same in JSON for the numbers. ``champion`` and ``challenger`` are the
    roles that decide, by their place, -1 where there is none. ``mask`` returns for a data classification each destination's
    rule, ``compute`` the columns that are expressions. ``classify`` is asked with a JSON array of the event's text and its
    attributes called ``read``, and gives (the numbers that are read of its answer, the class, that in JSON), None where it has
    none; it is None where nothing of the event's content is read. A state older than ``max_age_seconds`` is missing;
    ``measures`` are the measures that are read, in the order of their cells. ``allowance`` is negative where exploring has no
    budget. ``keys`` are what metrics count the decisions of each arm under.
    """

    name: bytes
    name_text: bytes
    mode: bytes
    destinations: tuple[bytes, ...]
    destination_texts: tuple[bytes, ...]
    by: bytes
    routes: tuple[bytes, ...]
    orders: tuple[bytes, ...]
    text_field: bytes
    numbers: tuple[Column, ...]
    categories: tuple[Column, ...]
    operands: tuple[Column, ...]
    constants: bytes
    constant_texts: tuple[bytes, ...]
    category_texts: tuple[bytes, ...]
    feature_set: bytes
    exploring: int
    epsilon: float
    gamma: float
    value_range: float
    static_epsilon: float
    is_bounded: int
    allowance: float
    min_propensity: float
    roles: tuple[Role, ...]
    champion: int
    challenger: int
    champion_digest: bytes
    challenger_digest: bytes
    share: float
    is_sticky: int
    generation: bytes
    static_reason: bytes
    tail: bytes
    keys: tuple[tuple[str, str, str], ...]
    max_age_seconds: float
    measures: tuple[str, ...]
    mask: Callable[[str], tuple[bytes | None, ...]]
    compute: Callable[[memoryview, int], bytes] | None
    read: tuple[bytes, ...]
    classify: Callable[[bytes], Said | None] | None


def course_of(
    plan: StreamPlan,
    view: StreamView,
    *,
    revision: str,
    instants: Instants,
    max_age_seconds: float,
    debts: Debts,
) -> Course | None:
    """Return the course of a stream under ``view``, None where it is not ordinary.

    What it reads of the time joins ``instants``; what its models owe is among ``debts``.
    """
    stream, features = plan.stream, plan.features
    models = () if view.mode == "off" else tuple(view.models())
    names = stream.destinations
    if not 1 <= len(set(names)) == len(names) <= MAX_DESTINATIONS:
        return None
    value_range = stream.objective.high - stream.objective.low
    allowance = stream.exploration.allowance(value_range)
    classifier = view.classifier if features.content_names else None
    if features.content_names and any(digest_of(model.classifier) != digest_of(classifier) for _, model in models):
        return None
    roles = [role_of(name, model, plan, debts) for name, model in models]
    places = {role: place for place, (role, _) in enumerate(models)} if view.mode in DECIDING_MODES else {}
    try:
        numbers, operands = (_columns(plan, columns, instants) for columns in (features.numbers, features.operands))
        categories = _columns(plan, features.categories, instants)
        constants, texts = _constants(plan)
    except _NotOrdinaryError:
        return None
    if None in roles:
        return None
    return Course(
        name=plan.name.encode(),
        name_text=_encode(plan.name),
        mode=view.mode.encode(),
        destinations=tuple(name.encode() for name in names),
        destination_texts=tuple(map(_encode, names)),
        by=(stream.static.by or "").encode(),
        routes=tuple(value.encode() for value in stream.static.routes),
        orders=_orders(plan),
        text_field=(stream.text_field or "").encode(),
        numbers=numbers,
        categories=categories,
        operands=operands,
        constants=constants,
        constant_texts=texts,
        category_texts=_category_texts(plan),
        feature_set=features.version.encode(),
        exploring=EXPLORING.index(stream.exploration.kind),
        epsilon=stream.exploration.epsilon,
        gamma=stream.exploration.gamma,
        value_range=value_range,
        static_epsilon=stream.exploration.static_epsilon,
        is_bounded=stream.exploration.is_bounded,
        allowance=-1.0 if allowance is None else allowance,
        min_propensity=stream.exploration.min_propensity,
        roles=tuple(role for role in roles if role is not None),
        champion=places.get("champion", -1),
        challenger=places.get("challenger", -1) if view.mode == "canary" else -1,
        champion_digest=(digest_of(view.champion) or "").encode(),
        challenger_digest=(digest_of(view.challenger) or "").encode(),
        share=view.challenger_share,
        is_sticky=stream.sticky,
        generation=str(view.generation).encode(),
        static_reason=f"static: {'no champion' if view.mode in DECIDING_MODES else f'mode {view.mode}'}".encode(),
        tail=_tail(view, revision, classifier),
        keys=tuple((plan.name, view.mode, arm) for arm in ("static", "champion", "challenger")),
        max_age_seconds=max_age_seconds,
        measures=_measures(plan),
        mask=_mask(plan),
        compute=_compute(plan),
        read=() if classifier is None else tuple(name.encode() for name in classifier.reader.attributes),
        classify=None if classifier is None else course_content.ask(plan, classifier.reader),
    )


class _NotOrdinaryError(Exception):
    """A column that the fast path does not read."""


def _columns(plan: StreamPlan, columns: Sequence[tuple[str, str]], instants: Instants) -> tuple[Column, ...]:
    return tuple([_column(plan, space, name, instants) for space, name in columns])


def _column(plan: StreamPlan, space: str, name: str, instants: Instants) -> Column:
    if space not in SPACES or (space == "state" and name not in _STATE):
        raise _NotOrdinaryError
    where = name
    if space == "state":
        where = str(_STATE.index(name))
    if space == "time":
        instant = (plan.features.zone.key, name)
        if instant not in instants:
            instants.append(instant)
        where = str(instants.index(instant))
    if space == "content":
        where = str(course_content.numbers(plan).index(name)) if name != CATEGORY else "0"
    return SPACES.index(space), where.encode()


def _measures(plan: StreamPlan) -> tuple[str, ...]:
    columns = (*plan.features.numbers, *plan.features.operands)
    return tuple(dict.fromkeys(name for space, name in columns if space == "measure"))


def _compute(plan: StreamPlan) -> Callable[[memoryview, int], bytes] | None:
    """Return what evaluates the stream's expressions, one after the other, for all candidates of an event."""
    expressions = [compile_expression(text) for space, text in plan.features.numbers if space == "expression"]
    places = {name: place for place, name in enumerate(plan.features.operands)}
    if not expressions:
        return None

    def compute(operands: memoryview, n: int) -> bytes:
        table = np.frombuffer(operands).reshape(n, len(places)).copy()

        def read(space: str, name: str) -> np.typing.NDArray[np.float64]:
            return table[:, places[space_of(space, name), name]] if name else np.empty(n)

        return np.concatenate([evaluate(read) for evaluate in expressions]).tobytes()

    return compute


def _constants(plan: StreamPlan) -> tuple[bytes, tuple[bytes, ...]]:
    """Return every destination's own numbers as float64s, and those that are features in JSON."""
    columns = (*plan.features.numbers, *plan.features.operands)
    values: list[float] = []
    texts: list[bytes] = []
    for destination in plan.stream.destinations:
        attributes = plan.features.destinations.get(destination, {})
        for place, (space, name) in enumerate(columns):
            value = attributes.get(name) if space == "destination" else None
            if isinstance(value, str):  # an error, which the whole path tells
                raise _NotOrdinaryError
            number = math.nan if value is None else float(value)
            if place < len(plan.features.numbers):
                texts.append(_encode(number if math.isfinite(number) else None))
                number = number if math.isfinite(number) else math.nan
            values.append(number)
    return struct.pack(f"{len(values)}d", *values), tuple(texts)


def _category_texts(plan: StreamPlan) -> tuple[bytes, ...]:
    """Return what every destination itself says in each category column, in JSON; null for the other columns."""
    return tuple(
        _encode(plan.features.destination_category(destination, name) if space == "destination" else None)
        for destination in plan.stream.destinations
        for space, name in plan.features.categories
    )


def _orders(plan: StreamPlan) -> tuple[bytes, ...]:
    static, places = plan.stream.static, {name: place for place, name in enumerate(plan.stream.destinations)}
    absent = static.routes.get(str(None), ()) if static.by else ()
    orders = (static.default, absent + static.default, *(route + static.default for route in static.routes.values()))
    known = ([places[name] for name in order if name in places] for order in orders)
    return tuple([struct.pack(f"{len(order)}i", *order) for order in known])


def _tail(view: StreamView, revision: str, classifier: Classifier | None) -> bytes:
    told = {
        "generation": view.generation,
        "champion": digest_of(view.champion),
        "challenger": digest_of(view.challenger),
        "shadow": digest_of(view.shadow),
        "policy_revision": revision,
        "content": digest_of(classifier),
    }
    return b"," + _encode({name: value for name, value in told.items() if value is not None})[1:-1]


def _mask(plan: StreamPlan) -> Callable[[str], tuple[bytes | None, ...]]:
    @lru_cache(1024)
    def mask(classification: str) -> tuple[bytes | None, ...]:
        event = Event(id="-", source="-", type="-", stream=plan.name, labels=cloudevents.labels_of(classification))
        rules = (plan.forbidden(event, name) for name in plan.stream.destinations)
        return tuple([None if rule is None else _encode(rule) for rule in rules])

    return mask
