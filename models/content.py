"""The content classifier: an event's text and attributes to a class, its confidence, or "out of scope"; scored with numpy alone, or in C.

A classifier on disk is a folder of ``card.json``, ``vocabulary.json``, ``golden.json`` and a JSON file of arrays per part.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features import content as contents
from features.content import Content
from features.records import Event
from models import scorer
from models.card import CARD_FILE, ContractMismatchError
from models.components import Components
from models.content_card import Card, Statistic, read_card
from models.logits import Linear, Neural
from models.router import GOLDEN_FILE, ProbeError
from models.scorer import Parts, Scored
from models.text_encoder import Encoder
from models.text_terms import BLOCKS, Attribute, Attributes, Vocabulary

Floats = NDArray[np.float64]
KIND = "classifier"
VOCABULARY_FILE = "vocabulary.json"
_GOLDEN_TOLERANCE = 1e-4  # older releases were made with sums of float32 in another order


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
        self._scorer = scorer.fastest(Encoder(card.cut, vocabulary), _parts(card, linear, neural, components))
        self.classes = card.classes
        self.n_components = card.n_components or 0
        self.attributes = card.attributes
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
        said = self._scorer.score(text, attributes)
        if said is None:
            nowhere = (0.0,) * self.n_components
            return Classified(None, 1.0, self.card.classes[0], np.zeros(len(self.card.classes)), -np.inf, nowhere)
        probabilities, best, probability, *_, placed = said
        label, score = self.card.classes[best], self._scope_score(said)
        if score < self.card.scope.threshold:
            return Classified(None, 1.0 - probability, label, probabilities, score, placed)
        return Classified(label, probability, label, probabilities, score, placed)

    def _scope_score(self, said: Scored) -> float:
        """Return `scope_scores` of one event."""
        if self.card.scope.statistic == "probability":
            return said.probability
        return said.evidence - said.outside if self.card.scope.statistic == "margin" else said.evidence


def _parts(card: Card, linear: Linear | None, neural: Neural | None, components: Components | None) -> Parts:
    """Return the parts that the card gives a scale."""
    return Parts(
        n_classes=len(card.classes),
        n_columns=card.n_columns,
        linear=None if card.linear_scale is None else linear,
        linear_scale=card.linear_scale or 0.0,
        neural=None if card.neural_scale is None else neural,
        neural_scale=card.neural_scale or 0.0,
        components=components,
    )


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
