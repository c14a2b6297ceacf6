"""Cuts an event's text and attributes into terms, and terms into the sparse TF-IDF vector that training and the shim read alike; numpy only."""

import math
import re
import sys
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

Attribute = str | float | bool | None
Attributes = Mapping[str, Attribute]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Columns = NDArray[np.int64]
Positive = Annotated[int, Meta(ge=1)]

_WORD = re.compile(r"\w+")
_REMEMBERED_WORDS = 16_384
_REMEMBERED_CHARACTERS = 32
_SUBLINEAR = 1.0 + np.log(np.maximum(np.arange(4_096.0), 1.0))  # of counts; none is 0
_START, _END = "^", "$"  # no word holds them, so the borders of a text pair like words
_NEXT, _APART = " ", "~"  # no word holds these either
_NONE = np.empty(0, np.int64)
_NOTHING: dict[str, int] = {}  # of words that make no known pair: never written to


class Cut(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an event is cut: a text is read to ``max_characters``, words less than ``pair_span`` apart make pairs.

    ``number_edges`` holds the inner borders of the bins of each attribute that was a number in training.
    """

    max_characters: Positive = 2_000
    pair_span: Positive = 4
    min_gram: Positive = 2
    max_gram: Positive = 4
    number_edges: dict[str, tuple[float, ...]] = {}

    def blocks(self, text: str, attributes: Attributes | None = None) -> tuple[list[str], list[str], list[str]]:
        """Return the terms of the three blocks, with repetitions: words and pairs, character n-grams, attributes.

        Raises
        ------
        TypeError
            If ``text`` is not text.
        """
        lowered = self.lowered(text)
        grams = chain.from_iterable(map(self.grams, lowered.split()))
        return self.words(lowered), list(grams), self.facts(attributes or {})

    def lowered(self, text: str) -> str:
        """Return what is read of a text, in lower case; raises as `blocks`."""
        if not isinstance(text, str):
            raise TypeError(f"text must be str, got {type(text).__name__}")
        return text[: self.max_characters].lower()

    def words(self, lowered: str) -> list[str]:
        """Return words, neighbours ``a b`` and skipping pairs ``a~b``: a linear model then sees word order a little."""
        words = _WORD.findall(lowered)
        if not words:
            return []
        bordered = [_START, *words, _END]
        terms = words
        for first, left in enumerate(bordered[:-1]):
            # The borders make no pair with each other, or every short text would hold a known term.
            last = len(bordered) - (first == 0)
            near = bordered[first + 1 : min(last, first + self.pair_span)]
            terms += [f"{left}{_APART if gap else _NEXT}{right}" for gap, right in enumerate(near)]
        return terms

    def grams(self, word: str) -> list[str]:
        """Return the n-grams of a word padded by a blank on either side; one shorter than n counts once (scikit-learn's ``char_wb``)."""
        padded = f" {word} "
        grams: list[str] = []
        for size in range(self.min_gram, self.max_gram + 1):
            grams += [padded[at : at + size] for at in range(max(1, len(padded) - size + 1))]
            if len(padded) <= size:
                break
        return grams

    def facts(self, attributes: Attributes) -> list[str]:
        """Return a term per attribute: its value, or the bin of its number. What is missing or not finite says nothing."""
        facts = []
        for name, value in attributes.items():
            if isinstance(value, bool | str):
                facts.append(f"{name}={value}"[: self.max_characters])
            elif value is not None and name in self.number_edges and math.isfinite(value):
                facts.append(f"{name}#{bisect_right(self.number_edges[name], value)}")
        return facts


class Vocabulary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The terms kept of each block and their inverse document frequencies, the most frequent term of all in column 0.

    ``terms`` start with their block: ``w`` word, ``c`` character n-gram, ``a`` attribute.
    """

    terms: tuple[str, ...]
    weights: tuple[float, ...]


class _Word(NamedTuple):
    """A word as pairs read it: its own column, and those of what may come next to it or further apart, by right word."""

    name: str
    column: int | None
    next_to: dict[str, int]
    apart: dict[str, int]


class _Piece(NamedTuple):
    """What stands between two blanks: the known columns of its n-grams, and its words."""

    grams: Columns
    words: tuple[_Word, ...]


class Encoder:
    """Turns an event into its sparse vector: sublinear TF-IDF, each block of unit length, all blocks alike in weight.

    ``weight = (1 + ln count) (1 + ln((1 + n) / (1 + df)))``, as scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``.
    What stands between blanks and was seen lately is remembered, with all that is known of it: looking that up is most of
    the work, and the same few words return.
    """

    def __init__(self, cut: Cut, vocabulary: Vocabulary) -> None:
        """Take the cut and the vocabulary made with it."""
        self.cut = cut
        self.n_columns = len(vocabulary.terms)
        self._weights = np.array(vocabulary.weights, dtype=np.float64)
        self._columns: dict[str, dict[str, int]] = {block: {} for block in BLOCKS}
        for column, term in enumerate(vocabulary.terms):
            self._columns[term[0]][term[1:]] = column
        self._words = _words(self._columns["w"])
        self._start, self._end = self._word(_START), self._word(_END)
        self._remembered: dict[str, _Piece] = {}
        self._rooms: list[Columns] = []  # for threads to write a number per column to, one each at a time
        self._block_weight = 1.0 / math.sqrt(max(1, sum(1 for columns in self._columns.values() if columns)))

    def encode(self, text: str, attributes: Attributes | None = None) -> tuple[Columns, Floats32]:
        """Return the columns and values, each of shape (n_known_terms,), of an event; empty if it holds no known term."""
        pieces = self._read(self.cut.lowered(text))
        words = self._word_columns([word for piece in pieces for word in piece.words])
        grams = [piece.grams for piece in pieces]
        facts = self._fact_columns(attributes) if attributes else []
        told = np.concatenate((_integers(words), *grams, _integers(facts)))
        if not told.size:
            return told, np.empty(0, np.float32)
        first, count = self._count(told)
        columns = told.take(first)
        values = _sublinear(count, len(told))
        values *= self._weights.take(columns)
        start, n_before_facts = 0, first.searchsorted(len(told) - len(facts)) if facts else len(first)
        for stop in (int(first.searchsorted(len(words))), int(n_before_facts), len(first)):
            if stop > start:
                part = values[start:stop]
                part *= self._block_weight / math.sqrt(part.dot(part))
            start = stop
        return columns, values.astype(np.float32)

    def _count(self, told: Columns) -> tuple[Columns, Columns]:
        """Return where in ``told`` each of its columns comes first, rising, and how often each is there."""
        room = self._rooms.pop() if self._rooms else np.empty(self.n_columns, np.int64)
        place = np.arange(len(told))
        room[told[::-1]] = place[::-1]  # what is written last stays
        first_of = room.take(told)
        self._rooms.append(room)
        (first,) = (first_of == place).nonzero()
        return first, np.bincount(first_of).take(first)

    def _read(self, lowered: str) -> list[_Piece]:
        """Return what is known of what stands between the blanks of a text."""
        remembered = self._remembered
        return [remembered.get(text) or self._look_up(text) for text in lowered.split()]

    def _fact_columns(self, attributes: Attributes) -> list[int]:
        known = self._columns["a"]
        return [known[fact] for fact in self.cut.facts(attributes) if fact in known]

    def _look_up(self, text: str) -> _Piece:
        known = self._columns["c"]
        columns = [column for column in map(known.get, self.cut.grams(text)) if column is not None]
        piece = _Piece(_integers(columns), tuple(map(self._word, _WORD.findall(text))))
        if len(text) <= _REMEMBERED_CHARACTERS:
            if len(self._remembered) >= _REMEMBERED_WORDS:
                self._remembered.clear()  # a stranger's words must not fill the memory
            self._remembered[text] = piece
        return piece

    def _word(self, name: str) -> _Word:
        return self._words.get(name) or _Word(name, None, _NOTHING, _NOTHING)

    def _word_columns(self, words: list[_Word]) -> list[int]:
        """Return the columns of `Cut.words` that are known, without writing the many pairs that are not."""
        if not words:
            return []
        columns = [column for _, column, _, _ in words if column is not None]
        span = self.cut.pair_span
        bordered = [self._start, *words, self._end]
        names = [word.name for word in bordered]
        for first, (_, _, next_to, apart) in enumerate(bordered[:-1]):
            if next_to and (right := names[first + 1]) in next_to:
                columns.append(next_to[right])
            if apart:
                for right in names[first + 2 : first + span]:
                    if right in apart:
                        columns.append(apart[right])  # noqa: PERF401 - a comprehension costs more than these two or three
        return columns


def _words(columns: Mapping[str, int]) -> dict[str, _Word]:
    """Return what is known of every word that ``columns`` hold alone or as the left one of a pair, by name."""
    next_to: dict[str, dict[str, int]] = {}
    apart: dict[str, dict[str, int]] = {}
    for term, column in columns.items():
        for separator, pairs in ((_NEXT, next_to), (_APART, apart)):
            left, found, right = term.partition(separator)
            if found:
                pairs.setdefault(left, {})[sys.intern(right)] = column
    names = [sys.intern(name) for name in {*columns, *next_to, *apart} if not {_NEXT, _APART} & {*name}]
    return {
        name: _Word(name, columns.get(name), next_to.get(name, _NOTHING), apart.get(name, _NOTHING)) for name in names
    }


def _integers(told: list[int]) -> Columns:
    """Return int64[n], made the way that costs least."""
    return np.frombuffer(array("q", told), np.int64) if told else _NONE


def _sublinear(count: Columns, n_most: int) -> Floats:
    """Return ``1 + ln count`` of counts up to ``n_most``, which are looked up unless a text is long beyond reason."""
    if n_most < len(_SUBLINEAR):
        return np.asarray(_SUBLINEAR.take(count))
    return np.asarray(1.0 + np.log(count.astype(np.float64)))


BLOCKS = ("w", "c", "a")


def fit_vocabulary(
    cut: Cut, texts: Sequence[str], attributes: Sequence[Attributes | None], *, min_documents: int, max_terms: int
) -> Vocabulary:
    """Keep, of each block, the ``max_terms`` terms found in the most texts, if in ``min_documents`` at least."""
    found: dict[str, Counter[str]] = {block: Counter() for block in BLOCKS}
    for text, facts in zip(texts, attributes, strict=True):
        for counter, terms in zip(found.values(), cut.blocks(text, facts), strict=True):
            counter.update(set(terms))
    kept: list[tuple[int, str]] = []
    for block, counter in found.items():
        ranked = sorted((-n_texts, block + term) for term, n_texts in counter.items() if n_texts >= min_documents)
        kept += ranked[:max_terms]
    kept.sort()
    return Vocabulary(
        terms=tuple(term for _, term in kept),
        weights=tuple(1.0 + math.log((1 + len(texts)) / (1 - negative)) for negative, _ in kept),
    )


def number_edges(attributes: Sequence[Attributes | None], n_bins: int) -> dict[str, tuple[float, ...]]:
    """Return the inner borders of at most ``n_bins`` equally filled bins for every attribute that holds numbers."""
    numbers: dict[str, list[float]] = {}
    for facts in attributes:
        for name, value in (facts or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                numbers.setdefault(name, []).append(float(value))
    inner = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    return {name: tuple(np.unique(np.quantile(held, inner)).tolist()) for name, held in sorted(numbers.items())}
