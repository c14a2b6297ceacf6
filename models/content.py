"""The content classifier: an event's text and attributes to a class, its confidence, or "out of scope"; scored with numpy alone.

A classifier on disk is a folder of ``card.json``, ``vocabulary.json``, ``golden.json`` and a JSON file of arrays per part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from features import content as contents
from features.content import Content
from features.records import Event
from models.card import CARD_FILE, ContractMismatchError
from models.components import Components
from models.logits import Linear, Neural
from models.router import GOLDEN_FILE, ProbeError
from models.text_terms import BLOCKS, Attribute, Attributes, Columns, Cut, Encoder, Floats32, Vocabulary

Floats = NDArray[np.float64]
Contender = Literal["linear", "neural", "pool"]
Statistic = Literal["probability", "evidence", "margin"]

KIND = "classifier"
VOCABULARY_FILE = "vocabulary.json"
_GOLDEN_TOLERANCE = 1e-4  # float32 sums may differ by their order in another build of numpy


class Contest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a contender reached on folds that it did not see: mean negative log likelihood and share answered right."""

    log_loss: float
    accuracy: float


class Scope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an event is in scope: its ``statistic`` is at least ``threshold``.

    ``probability`` is that of the best class; ``evidence`` the best class's logit; ``margin`` the best class's logit
    above that of the out-of-scope class. The shares are what the choice gave on folds not seen (recall is None
    without examples out of scope).
    """

    statistic: Statistic
    threshold: float
    accuracy_loss_share: float
    out_of_scope_recall: float | None


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a classifier is: classes in column order, how text is cut, what is pooled, when it abstains, where it was learned.

    Logits are ``linear_scale * linear + neural_scale * neural``; a scale of None means that this part is not there.
    ``out_of_scope_column`` says that a last column, after ``classes``, was learned from examples out of scope.
    ``attributes`` are those of an event that are read beside its text. ``n_components`` is not written where there are
    none, so that a shim which knows of none reads the card.
    """

    classes: Annotated[tuple[str, ...], Meta(min_length=2)]
    out_of_scope_column: bool
    cut: Cut
    contender: Contender
    linear_scale: float | None
    neural_scale: float | None
    contest: dict[Contender, Contest]
    scope: Scope
    trained: dict[str, str | float | int]
    attributes: tuple[str, ...] = ()
    n_components: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    kind: Literal["classifier"] = "classifier"

    @property
    def n_columns(self) -> int:
        """Return the number of logits: the classes, and out of scope where it was learned."""
        return len(self.classes) + self.out_of_scope_column


class Classified(Struct, frozen=True, eq=False):
    """The answer for one event.

    ``label`` is None for out of scope. ``confidence`` is the probability that the answer is right: the label's own, or
    for out of scope one minus the best class's. ``probabilities`` float64[n_classes] in the card's order add up to
    one, less what out of scope takes; ``scope_score`` is what the card's threshold was compared with (-inf if the
    event holds nothing known). ``components`` are empty where the card has none, zeros where nothing is known.
    """

    label: str | None
    confidence: float
    best_label: str
    probabilities: Floats
    scope_score: float
    components: tuple[float, ...] = ()


class GoldenEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event and what the classifier said of it when it was made."""

    text: str
    attributes: dict[str, Attribute]
    label: str | None
    confidence: float
    components: tuple[float, ...] = ()


class Classifier:
    """A loaded classifier; safe to share between threads."""

    def __init__(
        self,
        card: Card,
        vocabulary: Vocabulary,
        linear: Linear | None,
        neural: Neural | None,
        components: Components | None = None,
    ) -> None:
        """Take a card, its vocabulary, the parts that the card gives a scale, and the components if it has any."""
        self.card = card
        self._encoder = Encoder(card.cut, vocabulary)
        self._linear = linear
        self._neural = neural
        self._components = components
        self.classes = card.classes
        self.n_components = card.n_components or 0
        self._columns = contents.columns_of(card.classes)

    def read(self, event: Event) -> Content | None:
        """Return what the features of ``event`` hold of its content, None if it has no text: the one way, in serving and elsewhere."""
        if event.text is None or not event.text.strip():
            return None
        said = self.classify(event.text, {name: event.attributes.get(name) for name in self.card.attributes})
        return Content(
            label=said.label,
            confidence=said.confidence,
            probabilities=said.probabilities,
            columns=self._columns,
            components=said.components,
        )

    def classify(self, text: str, attributes: Attributes | None = None) -> Classified:
        """Classify one event. A text longer than the card's ``max_characters`` is read to that length.

        Raises
        ------
        TypeError
            If ``text`` is not text.
        """
        columns, values = self._encoder.encode(text, attributes)
        if not columns.size:
            nowhere = (0.0,) * self.n_components
            return Classified(None, 1.0, self.card.classes[0], np.zeros(len(self.card.classes)), -np.inf, nowhere)
        logits = self._logits(columns, values)
        n_classes = len(self.card.classes)
        probabilities = _softmax(logits)[:n_classes]
        best = int(probabilities.argmax())
        label, probability = self.card.classes[best], float(probabilities[best])
        score = self._scope_score(logits, probability)
        placed = () if self._components is None else tuple(self._components.place(columns, values).tolist())
        if score < self.card.scope.threshold:
            return Classified(None, 1.0 - probability, label, probabilities, score, placed)
        return Classified(label, probability, label, probabilities, score, placed)

    def _scope_score(self, logits: Floats, probability: float) -> float:
        """Return `scope_scores` of one row."""
        statistic, n_classes = self.card.scope.statistic, len(self.card.classes)
        if statistic == "probability":
            return probability
        evidence = float(np.maximum.reduce(logits[:n_classes]))
        return evidence - float(logits[n_classes]) if statistic == "margin" else evidence

    def _logits(self, columns: Columns, values: Floats32) -> Floats:
        linear, neural = self.card.linear_scale, self.card.neural_scale
        of_linear = 0.0 if self._linear is None or linear is None else linear * self._linear.score(columns, values)
        of_neural = 0.0 if self._neural is None or neural is None else neural * self._neural.score(columns, values)
        return np.add(of_linear, of_neural, dtype=np.float64)


def _softmax(logits: Floats) -> Floats:
    """Return `models.logits.softmax` of one row, without what shaping it as a table costs."""
    grown: Floats = logits - np.maximum.reduce(logits)
    np.exp(grown, out=grown)
    grown /= np.add.reduce(grown)
    return grown


def scope_scores(statistic: Statistic, logits: Floats, probabilities: Floats, n_classes: int) -> Floats:
    """Return float64[n]: how much each row looks in scope. ``margin`` reads the column after the classes."""
    best: Floats = (probabilities if statistic == "probability" else logits)[:, :n_classes].max(axis=1)
    return best - logits[:, n_classes] if statistic == "margin" else best


def save(
    folder: Path,
    card: Card,
    vocabulary: Vocabulary,
    linear: Linear | None,
    neural: Neural | None,
    components: Components | None = None,
) -> None:
    """Write a classifier's files, the same bytes for the same parts."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in (linear, neural, components):
        if part is not None:
            part.save(folder)
    (folder / VOCABULARY_FILE).write_bytes(msgspec.json.encode(vocabulary))
    (folder / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card)))


def read_card(folder: Path) -> Card:
    """Read the card alone.

    Raises
    ------
    ContractMismatchError
        If it is not there, or is none.
    """
    try:
        return msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError) as error:
        raise ContractMismatchError(f"{CARD_FILE} cannot be read: {error}") from None


def load(folder: Path) -> Classifier:
    """Load a classifier.

    Raises
    ------
    ContractMismatchError
        If a file cannot be read, or card, vocabulary and arrays do not fit together.
    """
    card = read_card(folder)
    try:
        vocabulary = msgspec.json.decode((folder / VOCABULARY_FILE).read_bytes(), type=Vocabulary)
    except (OSError, msgspec.MsgspecError) as error:
        raise ContractMismatchError(f"{VOCABULARY_FILE} cannot be read: {error}") from None
    _check(card, vocabulary)
    n_terms = len(vocabulary.terms)
    linear = None if card.linear_scale is None else Linear.load(folder, n_terms, card.n_columns)
    neural = None if card.neural_scale is None else Neural.load(folder, n_terms, card.n_columns)
    components = Components.load(folder, n_terms, card.n_components) if card.n_components else None
    return Classifier(card, vocabulary, linear, neural, components)


def _check(card: Card, vocabulary: Vocabulary) -> None:
    if len(vocabulary.terms) != len(vocabulary.weights) or not vocabulary.terms:
        raise ContractMismatchError(
            f"{VOCABULARY_FILE} holds {len(vocabulary.terms)} terms and {len(vocabulary.weights)} weights"
        )
    if strays := [term for term in vocabulary.terms if term[:1] not in BLOCKS]:
        raise ContractMismatchError(
            f"{VOCABULARY_FILE}: {strays[0]!r} is of no block, terms start with one of {', '.join(BLOCKS)}"
        )
    if card.linear_scale is None and card.neural_scale is None:
        raise ContractMismatchError(f"{CARD_FILE}: linear_scale and neural_scale are both null, one must be a number")
    if card.scope.statistic == "margin" and not card.out_of_scope_column:
        raise ContractMismatchError(f"{CARD_FILE}: the margin needs an out-of-scope column, the card has none")


def save_golden(
    folder: Path, loaded: Classifier, texts: Sequence[str], attributes: Sequence[Attributes | None]
) -> None:
    """Keep what ``loaded`` says of some events, for every later holder of these bytes to check."""
    golden = []
    for text, facts in zip(texts, attributes, strict=True):
        said = loaded.classify(text, facts)
        golden.append(
            GoldenEvent(
                text=text,
                attributes=dict(facts or {}),
                label=said.label,
                confidence=said.confidence,
                components=said.components,
            )
        )
    (folder / GOLDEN_FILE).write_bytes(msgspec.json.encode(golden))


def probe(folder: Path) -> None:
    """Load the classifier in ``folder`` and check it against its golden events.

    Raises
    ------
    ProbeError
        Naming the first event that differs.
    """
    golden = msgspec.json.decode((folder / GOLDEN_FILE).read_bytes(), type=list[GoldenEvent])
    loaded = load(folder)
    for row, event in enumerate(golden):
        said = loaded.classify(event.text, event.attributes)
        if said.label != event.label or abs(said.confidence - event.confidence) > _GOLDEN_TOLERANCE:
            raise ProbeError(
                f"golden event {row} should be {event.label!r} ({event.confidence}), "
                f"the classifier says {said.label!r} ({said.confidence})"
            )
        n_said, n_known = len(said.components), len(event.components)
        if n_said != n_known or not np.allclose(said.components, event.components, rtol=0.0, atol=_GOLDEN_TOLERANCE):
            raise ProbeError(
                f"golden event {row} should lie at {event.components}, the classifier says {said.components}"
            )
