"""Turns an event's text and attributes into the sparse TF-IDF vector that training and the shim read alike; numpy only."""

import math
import sys
from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats32
from models.text_terms import APART, BLOCKS, END, NEXT, START, WORD, Attributes, Cut, Vocabulary

Floats = NDArray[np.float64]
Columns = NDArray[np.int64]
T = TypeVar("T")

SUBLINEAR = np.array([1.0 + math.log(max(count, 1)) for count in range(4_096)])  # of counts; none is 0
_REMEMBERED_PIECES = 16_384
_REMEMBERED_CHARACTERS = 32
_NONE = np.empty(0, np.int64)
_NOTHING: dict[str, int] = {}  # of words that make no known pair: never written to


class Word(NamedTuple):
    """A word as pairs read it: its own column, and those of what may come next to it or further apart, by right word."""

    name: str
    column: int | None
    next_to: dict[str, int]
    apart: dict[str, int]


class Piece(NamedTuple):
    """What stands between two blanks: the known columns of its n-grams, and its words."""

    grams: Columns
    words: tuple[Word, ...]


class Remembered(dict[str, T]):
    """What was looked up lately of what stands between blanks, by its text; safe to share between threads."""

    def __init__(self, look_up: Callable[[str], T]) -> None:
        """Remember what ``look_up`` gives."""
        super().__init__()
        self._look_up = look_up

    def __missing__(self, text: str) -> T:
        """Look ``text`` up; what is too long to return is not kept."""
        found = self._look_up(text)
        if len(text) <= _REMEMBERED_CHARACTERS:
            if len(self) >= _REMEMBERED_PIECES:
                self.clear()  # a stranger's words must not fill the memory
            self[text] = found
        return found


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
        self.weights = np.array(vocabulary.weights, dtype=np.float64)
        self._columns: dict[str, dict[str, int]] = {block: {} for block in BLOCKS}
        for column, term in enumerate(vocabulary.terms):
            self._columns[term[0]][term[1:]] = column
        self.words = _words(self._columns["w"])
        self.start, self.end = self._word(START), self._word(END)
        self._remembered = Remembered(self.look_up)
        self._rooms: list[Columns] = []  # for threads to write a number per column to, one each at a time
        self.block_weight = 1.0 / math.sqrt(max(1, sum(1 for columns in self._columns.values() if columns)))

    def encode(self, text: str, attributes: Attributes | None = None) -> tuple[Columns, Floats32]:
        """Return the columns and values, each of shape (n_known_terms,), of an event; empty if it holds no known term."""
        remembered = self._remembered
        pieces = [remembered[piece] for piece in self.cut.lowered(text).split()]
        words = self._word_columns([word for piece in pieces for word in piece.words])
        grams = [piece.grams for piece in pieces]
        facts = self.fact_columns(attributes) if attributes else []
        told = np.concatenate((_integers(words), *grams, _integers(facts)))
        if not told.size:
            return told, np.empty(0, np.float32)
        first, count = self._count(told)
        columns = told.take(first)
        values = _sublinear(count, len(told))
        values *= self.weights.take(columns)
        start, n_before_facts = 0, first.searchsorted(len(told) - len(facts)) if facts else len(first)
        for stop in (int(first.searchsorted(len(words))), int(n_before_facts), len(first)):
            if stop > start:
                part = values[start:stop]
                part *= self.block_weight / math.sqrt(np.add.accumulate(part * part)[-1])  # in the order of C
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

    def fact_columns(self, attributes: Attributes) -> list[int]:
        """Return the columns of those attributes of an event that are known."""
        known = self._columns["a"]
        return [known[fact] for fact in self.cut.facts(attributes) if fact in known]

    def look_up(self, text: str) -> Piece:
        """Return what is known of a text without blanks."""
        known = self._columns["c"]
        columns = [column for column in map(known.get, self.cut.grams(text)) if column is not None]
        return Piece(_integers(columns), tuple(map(self._word, WORD.findall(text))))

    def _word(self, name: str) -> Word:
        return self.words.get(name) or Word(name, None, _NOTHING, _NOTHING)

    def _word_columns(self, words: list[Word]) -> list[int]:
        """Return the columns of `Cut.words` that are known, without writing the many pairs that are not."""
        if not words:
            return []
        columns = [column for _, column, _, _ in words if column is not None]
        span = self.cut.pair_span
        bordered = [self.start, *words, self.end]
        names = [word.name for word in bordered]
        for first, (_, _, next_to, apart) in enumerate(bordered[:-1]):
            if next_to and (right := names[first + 1]) in next_to:
                columns.append(next_to[right])
            if apart:
                for right in names[first + 2 : first + span]:
                    if right in apart:
                        columns.append(apart[right])  # noqa: PERF401 - a comprehension costs more than these two or three
        return columns


def _words(columns: Mapping[str, int]) -> dict[str, Word]:
    """Return what is known of every word that ``columns`` hold alone or as the left one of a pair, by name."""
    next_to: dict[str, dict[str, int]] = {}
    apart: dict[str, dict[str, int]] = {}
    for term, column in columns.items():
        for separator, pairs in ((NEXT, next_to), (APART, apart)):
            left, found, right = term.partition(separator)
            if found:
                pairs.setdefault(left, {})[sys.intern(right)] = column
    names = [sys.intern(name) for name in {*columns, *next_to, *apart} if not {NEXT, APART} & {*name}]
    return {
        name: Word(name, columns.get(name), next_to.get(name, _NOTHING), apart.get(name, _NOTHING)) for name in names
    }


def _integers(told: list[int]) -> Columns:
    """Return int64[n], made the way that costs least."""
    return np.frombuffer(array("q", told), np.int64) if told else _NONE


def _sublinear(count: Columns, n_most: int) -> Floats:
    """Return ``1 + ln count`` of counts up to ``n_most``, which are looked up unless a text is long beyond reason."""
    if n_most < len(SUBLINEAR):
        return np.asarray(SUBLINEAR.take(count))
    return np.array([1.0 + math.log(each) for each in count])
