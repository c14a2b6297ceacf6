"""Prompts that several language models have answered: read from files, split, cut into what a router may know of them."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

N_TENTHS_LEARNED = 6  # of a set without a test file: the other four tenths were looked at for no choice
_FACTS = ("subject", "task_name", "metric")


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts:
    """n prompts: the text, what is said beside it, and how well each of k models answered.

    ``facts`` are named columns of n strings (the subject, the task, how it is scored); ``quality`` float64[n, k] lies
    in [0, 1]; ``is_held_out`` bool[n] says which rows an honest split keeps for the test, by their ids alone.
    """

    texts: tuple[str, ...]
    facts: dict[str, NDArray[np.object_]]
    models: tuple[str, ...]
    quality: Floats
    is_held_out: Mask

    def take(self, rows: Mask | Integers) -> "Prompts":
        """Return these prompts (mask or indices)."""
        at = np.arange(len(self.texts))[rows]
        return replace(
            self,
            texts=tuple(self.texts[row] for row in at),
            facts={name: column[at] for name, column in self.facts.items()},
            quality=self.quality[at],
            is_held_out=self.is_held_out[at],
        )


def read_prompts(folder: Path, pattern: str) -> dict[str, Prompts]:
    """Return the prompts of every file that ``pattern`` finds, by set: ``mmlu`` of ``routellm_mmlu_1``, ``nine`` of any of nine models."""
    found: dict[str, list[Prompts]] = {}
    for path in sorted(folder.glob(pattern)):
        source, name, *_ = path.stem.split("_")
        found.setdefault("nine" if source == "llmrouter9" else name, []).append(_read(path))
    return {kind: join(parts) for kind, parts in found.items()}


def join(parts: Sequence[Prompts]) -> Prompts:
    """Return the prompts of all ``parts``, with the facts that every one of them has.

    Raises
    ------
    ValueError
        If they were not answered by the same models.
    """
    if strangers := [part.models for part in parts if part.models != parts[0].models]:
        raise ValueError(f"models must be {parts[0].models} throughout, got {strangers[0]}")
    shared = [name for name in parts[0].facts if all(name in part.facts for part in parts)]
    return Prompts(
        texts=tuple(text for part in parts for text in part.texts),
        facts={name: np.concatenate([part.facts[name] for part in parts]) for name in shared},
        models=parts[0].models,
        quality=np.concatenate([part.quality for part in parts]),
        is_held_out=np.concatenate([part.is_held_out for part in parts]),
    )


def _read(path: Path) -> Prompts:
    """Read one file.

    Raises
    ------
    ValueError
        If a quality is not a number in [0, 1], or fewer than two models answered.
    """
    rows = pd.read_parquet(path)
    text = "prompt" if "prompt" in rows else "query"
    facts = [name for name in _FACTS if name in rows]
    models = [str(name) for name in rows if name not in ("event_id", text, *facts)]
    quality = rows[models].to_numpy(np.float64)
    if len(models) < 2:  # noqa: PLR2004 - there must be something to choose from
        raise ValueError(f"{path.name}: {models} are too few models to choose from")
    if not ((quality >= 0.0) & (quality <= 1.0)).all():
        raise ValueError(f"{path.name}: {', '.join(models)} must hold numbers in [0, 1]")
    return Prompts(
        texts=tuple(rows[text].astype(str)),
        facts={name: rows[name].astype(str).to_numpy(dtype=object) for name in facts},
        models=tuple(models),
        quality=quality,
        is_held_out=np.array([_tenth(str(name)) >= N_TENTHS_LEARNED for name in rows["event_id"]], dtype=np.bool_),
    )


def _tenth(event_id: str) -> int:
    return int(hashlib.sha256(f"dev:{event_id}".encode()).hexdigest()[:8], 16) % 10


SHAPE_NAMES = (
    "characters",
    "words",
    "first_line",
    "mean_line",
    "longest_line",
    "shortest_line",
    "line_spread",
    "lines",
    "word_length",
    "longest_word",
    "different_share",
    "short_share",
    "capital_share",
    "with_digit_share",
    "digits",
    "digit_share",
    "upper_share",
    "mark_share",
    "mathematical_share",
    "foreign",
    "commas",
    "stops",
    "quotes",
    "apostrophes",
    "hyphens",
    "dollars",
    "per_cents",
    "brackets",
    "blanks",
    "questions",
    "negations",
)
_NEGATION = re.compile(r"\b(?:not|except|least|false|never|no)\b", re.IGNORECASE)
_MATHEMATICAL = frozenset("=+^*/<>\\$|_{}")


def measure_shapes(texts: Sequence[str]) -> Floats:
    """Return float64[n, n_shape_names]: lengths, counts and shares, none of which reads a word but the negations."""
    return np.array([_shape(text) for text in texts]).reshape(len(texts), len(SHAPE_NAMES))


def _shape(text: str) -> tuple[float, ...]:
    words = text.split() or [""]
    lines = [len(line) for line in text.split("\n")]
    length = max(len(text), 1)
    n_digits = sum(map(str.isdigit, text))
    return (
        *(float(np.log1p(size)) for size in (len(text), len(words), lines[0], np.mean(lines), max(lines), min(lines))),
        float(np.log1p(np.std(lines))),
        len(lines),
        *_word_shape(words),
        float(np.log1p(n_digits)),
        n_digits / length,
        sum(map(str.isupper, text)) / length,
        sum(not c.isalnum() and not c.isspace() for c in text) / length,
        sum(c in _MATHEMATICAL for c in text) / length,
        sum(not c.isascii() for c in text),
        *(text.count(mark) for mark in (",", ".", '"', "'", "-", "$", "%", "(", "__", "?")),
        len(_NEGATION.findall(text)),
    )


def _word_shape(words: Sequence[str]) -> tuple[float, ...]:
    """Return mean and greatest length, and the shares of different, short and capital words and of those with a digit."""
    sizes = [len(word) for word in words]
    n_words = len(words)
    return (
        float(np.mean(sizes)),
        max(sizes),
        len(set(words)) / n_words,
        sum(size <= 3 for size in sizes) / n_words,  # noqa: PLR2004 - of up to three letters
        sum(word[:1].isupper() for word in words) / n_words,
        sum(any(map(str.isdigit, word)) for word in words) / n_words,
    )
