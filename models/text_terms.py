"""Cuts an event's text and attributes into terms, in training and in the shim alike, and finds the terms worth knowing; numpy only."""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

Attribute = str | float | bool | None
Attributes = Mapping[str, Attribute]
Positive = Annotated[int, Meta(ge=1)]

BLOCKS = ("w", "c", "a")
WORD = re.compile(r"\w+")
START, END = "^", "$"  # no word holds them, so the borders of a text pair like words
NEXT, APART = " ", "~"  # no word holds these either


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
        words = WORD.findall(lowered)
        if not words:
            return []
        bordered = [START, *words, END]
        terms = words
        for first, left in enumerate(bordered[:-1]):
            # The borders make no pair with each other, or every short text would hold a known term.
            last = len(bordered) - (first == 0)
            near = bordered[first + 1 : min(last, first + self.pair_span)]
            terms += [f"{left}{APART if gap else NEXT}{right}" for gap, right in enumerate(near)]
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
