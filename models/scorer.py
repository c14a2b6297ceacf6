"""What scores an event's text: one call of C where a compiler was, the same sums in numpy where none was.

Both add in the same order and so give the same bits; only where nothing is in C the exponential is numpy's own, whose
last bit may differ (models/elementary.py).
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models import elementary
from models.arrays import Floats32
from models.components import Components
from models.logits import Linear, Neural
from models.text_encoder import SUBLINEAR, Columns, Encoder, Remembered
from models.text_terms import Attributes

try:
    from models import _scorer
except ImportError:  # no compiler at the installation
    _scorer = None  # type: ignore[assignment]  # looked at before every use

Floats = NDArray[np.float64]
Integers32 = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What an event's vector is given to: logits are ``linear_scale * linear + neural_scale * neural``, float64[n_columns].

    The first ``n_classes`` columns are classes, one that follows is out of scope.
    """

    n_classes: int
    n_columns: int
    linear: Linear | None
    linear_scale: float
    neural: Neural | None
    neural_scale: float
    components: Components | None


class Scored(NamedTuple):
    """What the parts say of one event.

    ``best`` is the column of the most probable class and ``probability`` its probability, ``evidence`` the greatest logit of
    a class, ``outside`` that of out of scope, -inf without such a column. ``probabilities`` are those of the classes.
    """

    probabilities: Floats
    best: int
    probability: float
    evidence: float
    outside: float
    components: tuple[float, ...]


class Scorer(Protocol):
    """Scores events; safe to share between threads."""

    def score(self, text: str, attributes: Attributes | None) -> Scored | None:
        """Return what is said of an event, None if it holds no known term; raises as `Cut.lowered`."""


def fastest(encoder: Encoder, parts: Parts) -> Scorer:
    """Return the fastest form that is to be had here."""
    return NumpyScorer(encoder, parts) if _scorer is None else CompiledScorer(encoder, parts)


def is_compiled() -> bool:
    """Tell whether the C form was built when Turnout was installed."""
    return _scorer is not None


class NumpyScorer:
    """The form in numpy."""

    def __init__(self, encoder: Encoder, parts: Parts) -> None:
        """Score by ``parts`` what ``encoder`` encodes."""
        self._encoder = encoder
        self._parts = parts

    def score(self, text: str, attributes: Attributes | None) -> Scored | None:
        """Return what is said of an event, as `Scorer.score`."""
        columns, values = self._encoder.encode(text, attributes)
        if not columns.size:
            return None
        n_classes, components = self._parts.n_classes, self._parts.components
        logits = self._logits(columns, values)
        probabilities = _softmax(logits)[:n_classes]
        best = int(probabilities.argmax())
        return Scored(
            probabilities,
            best,
            float(probabilities[best]),
            float(np.maximum.reduce(logits[:n_classes])),
            float(logits[n_classes]) if len(logits) > n_classes else -np.inf,
            () if components is None else tuple(components.place(columns, values).tolist()),
        )

    def _logits(self, columns: Columns, values: Floats32) -> Floats:
        linear, neural = self._parts.linear, self._parts.neural
        of_linear = 0.0 if linear is None else self._parts.linear_scale * linear.score(columns, values)
        of_neural = 0.0 if neural is None else self._parts.neural_scale * neural.score(columns, values)
        return np.add(of_linear, of_neural, dtype=np.float64)


def _softmax(logits: Floats) -> Floats:
    """Return `models.logits.softmax` of one row, added up in the order of C."""
    grown = elementary.exp(logits - np.maximum.reduce(logits))
    grown /= np.add.accumulate(grown)[-1]
    return grown


class CompiledScorer:
    """The form in C: Python looks up what stands between blanks and remembers it as C reads it."""

    def __init__(self, encoder: Encoder, parts: Parts) -> None:
        """Hand ``parts`` over, and what ``encoder`` knows of words.

        Raises
        ------
        RuntimeError
            If the C form was not built.
        ValueError
            If the arrays do not fit together.
        """
        if not is_compiled():
            raise RuntimeError("the C form was not built: there was no compiler when Turnout was installed")
        self._encoder = encoder
        self._n_classes = parts.n_classes
        self._places, words, pairs = _number_words(encoder)
        self._remembered = Remembered(self._pack)
        self._compiled = _scorer.Scorer(
            idf=encoder.weights,
            sublinear=SUBLINEAR,
            words=words,
            pairs=pairs,
            **_arrays(parts, encoder.n_columns),
            n_classes=parts.n_classes,
            start=self._place(encoder.start.name),
            end=self._place(encoder.end.name),
            span=encoder.cut.pair_span,
            block_weight=encoder.block_weight,
            linear_scale=parts.linear_scale,
            neural_scale=parts.neural_scale,
        )

    def score(self, text: str, attributes: Attributes | None) -> Scored | None:
        """Return what is said of an event, as `Scorer.score`."""
        remembered = self._remembered
        pieces = [remembered[piece] for piece in self._encoder.cut.lowered(text).split()]
        facts = _packed((), self._encoder.fact_columns(attributes)) if attributes else _NO_FACTS
        probabilities = np.empty(self._n_classes)
        said = self._compiled.score(pieces, facts, probabilities)
        return None if said is None else Scored(probabilities, *said)

    def _place(self, word: str) -> int:
        return self._places.get(word, -1)

    def _pack(self, text: str) -> bytes:
        piece = self._encoder.look_up(text)
        return _packed([self._place(word.name) for word in piece.words], piece.grams.tolist())


def _packed(words: Sequence[int], columns: Sequence[int]) -> bytes:
    """Return what C reads of a piece, or of facts: int32s, how many words, the words, the columns."""
    return array("i", (len(words), *words, *columns)).tobytes()


_NO_FACTS = _packed((), ())


def _number_words(encoder: Encoder) -> tuple[dict[str, int], Integers32, Integers32]:
    """Return the number of every word that is known alone or in a pair, their columns, and ``left, right, is_apart, column`` of pairs.

    The columns are int32[n_words], -1 for a word that is known in pairs alone; the pairs are int32[n_pairs, 4].
    """
    places = {name: place for place, name in enumerate(encoder.words)}
    pairs = [
        (place, places.setdefault(right, len(places)), is_apart, column)
        for place, word in enumerate(encoder.words.values())
        for is_apart, rights in enumerate((word.next_to, word.apart))
        for right, column in rights.items()
    ]
    columns = np.full(len(places), -1, np.int32)
    for place, word in enumerate(encoder.words.values()):
        columns[place] = -1 if word.column is None else word.column
    return places, columns, np.array(pairs, np.int32).reshape(-1, 4)


def _arrays(parts: Parts, n_terms: int) -> dict[str, Floats32]:
    """Return the arrays of all parts by their names in C; a part that is not there has no rows, and intercepts of 0."""
    nothing = np.zeros(parts.n_columns, np.float32)
    linear = parts.linear or Linear(np.empty((0, parts.n_columns), np.float32), nothing)
    neural = parts.neural or Neural(
        np.empty((0, 0), np.float32), nothing[:0], np.empty((0, parts.n_columns), np.float32), nothing
    )
    components = parts.components or Components(np.empty((n_terms, 0), np.float32))
    arrays = {
        "linear": linear.weights,
        "linear_intercept": linear.intercept,
        "hidden": neural.hidden_weights,
        "hidden_intercept": neural.hidden_intercept,
        "output": neural.output_weights,
        "output_intercept": neural.output_intercept,
        "components": components.weights,
    }
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
