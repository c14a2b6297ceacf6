"""Cuts an event's text and attributes into terms, and terms into the sparse TF-IDF vector that training and the shim read alike; numpy only."""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

Attribute = str | float | bool | None
Attributes = Mapping[str, Attribute]
Floats32 = NDArray[np.float32]
Columns = NDArray[np.int64]
Positive = Annotated[int, Meta(ge=1)]

_WORD = re.compile(r"\w+")
_REMEMBERED_WORDS = 16_384
_REMEMBERED_CHARACTERS = 32
_START, _END = "^", "$"  # no word holds them, so the borders of a text pair like words
_NEXT, _APART = " ", "~"  # no word holds these either
_Pairs = dict[str, dict[str, int]]


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
        for first, left in enumerate(bordered):
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


class Encoder:
    """Turns an event into its sparse vector: sublinear TF-IDF, each block of unit length, all blocks alike in weight.

    ``weight = (1 + ln count) (1 + ln((1 + n) / (1 + df)))``, as scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``.
    The n-grams of words seen lately are remembered: looking them up is most of the work, and the same few words return.
    """

    def __init__(self, cut: Cut, vocabulary: Vocabulary) -> None:
        """Take the cut and the vocabulary made with it."""
        self.cut = cut
        self.n_columns = len(vocabulary.terms)
        self._weights = np.array(vocabulary.weights, dtype=np.float64)
        self._columns: dict[str, dict[str, int]] = {block: {} for block in BLOCKS}
        for column, term in enumerate(vocabulary.terms):
            self._columns[term[0]][term[1:]] = column
        self._grams: dict[str, tuple[int, ...]] = {}
        self._pairs = _pairs(self._columns["w"])
        self._block_weight = 1.0 / math.sqrt(max(1, sum(1 for columns in self._columns.values() if columns)))

    def encode(self, text: str, attributes: Attributes | None = None) -> tuple[Columns, Floats32]:
        """Return the columns and values, each of shape (n_known_terms,), of an event; empty if it holds no known term."""
        lowered = self.cut.lowered(text)
        _, grams, facts = self._columns.values()
        counts = (
            Counter(self._word_columns(lowered)),
            Counter([column for word in lowered.split() for column in self._gram_columns(word, grams)]),
            _count(map(facts.get, self.cut.facts(attributes))) if attributes else Counter[int](),
        )
        n_known = sum(map(len, counts))
        columns = np.fromiter(chain.from_iterable(counts), dtype=np.int64, count=n_known)
        count = np.fromiter(chain.from_iterable(block.values() for block in counts), dtype=np.float64, count=n_known)
        values = (1.0 + np.log(count)) * self._weights[columns]
        start = 0
        for block in counts:
            part = values[start : start + len(block)]
            if block:
                part *= self._block_weight / math.sqrt(part @ part)
            start += len(block)
        return columns, values.astype(np.float32)

    def _word_columns(self, lowered: str) -> list[int]:
        """Return the columns of `Cut.words` that are known, without writing the many pairs that are not."""
        words = _WORD.findall(lowered)
        known, (neighbours, apart) = self._columns["w"], self._pairs
        columns = [known[word] for word in words if word in known]
        bordered = [_START, *words, _END]
        for first, left in enumerate(bordered[:-1] if words else ()):
            following, right = neighbours.get(left), bordered[first + 1]
            if following is not None and right in following:
                columns.append(following[right])
            following = apart.get(left)
            if following is not None:
                near = bordered[first + 2 : first + self.cut.pair_span]
                columns += [following[right] for right in near if right in following]
        return columns

    def _gram_columns(self, word: str, known: Mapping[str, int]) -> tuple[int, ...]:
        columns = self._grams.get(word)
        if columns is None:
            columns = tuple([column for column in map(known.get, self.cut.grams(word)) if column is not None])
            if len(word) <= _REMEMBERED_CHARACTERS:
                if len(self._grams) >= _REMEMBERED_WORDS:
                    self._grams.clear()  # a stranger's words must not fill the memory
                self._grams[word] = columns
        return columns


def _pairs(columns: Mapping[str, int]) -> tuple[_Pairs, _Pairs]:
    """Return the columns of the known pairs, by left and right word: of neighbours, and of words further apart."""
    pairs: tuple[_Pairs, _Pairs] = {}, {}
    for term, column in columns.items():
        for separator, known in zip((_NEXT, _APART), pairs, strict=True):
            left, found, right = term.partition(separator)
            if found:
                known.setdefault(left, {})[right] = column
    return pairs


def _count(columns: Iterable[int | None]) -> Counter[int]:
    """Count what is known, in the order in which it is met first."""
    return Counter([column for column in columns if column is not None])


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
