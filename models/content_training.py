"""Trains a content classifier from labelled texts: contenders judged out of fold, the kept one written. The pipeline's side; the shim never imports it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it publishes no types

from features import content as contents
from features.labels import Labelled
from models import content, content_fit
from models.components import Components
from models.content_card import Card
from models.content_fit import Parts, Settings
from models.content_judging import Judged, judge
from models.text_encoder import Encoder
from models.text_terms import Attributes, Cut, Vocabulary, fit_vocabulary, number_edges

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
N_GOLDEN_EVENTS = 32

__all__ = ["Settings", "TrainingRefusedError", "train", "train_labelled"]


class TrainingRefusedError(ValueError):
    """Data that no classifier should be fitted on: names the row or class and what is wrong with it."""


@dataclass(frozen=True)
class _Examples:
    """Events with their columns: ``codes`` int64[n] are positions in ``classes``, len(classes) for out of scope."""

    texts: Sequence[str]
    attributes: Sequence[Attributes | None]
    codes: Codes
    classes: tuple[str, ...]

    def take(self, at: Codes) -> "_Examples":
        return _Examples(
            [self.texts[row] for row in at], [self.attributes[row] for row in at], self.codes[at], self.classes
        )


@dataclass(frozen=True)
class _Outside:
    """Texts of no class; with attributes where the others have them, or having none would tell them apart."""

    texts: Sequence[str]
    attributes: Sequence[Attributes | None] | None


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    folder: Path,
    *,
    settings: Settings,
    seed: int,
    attributes: Sequence[Attributes | None] | None = None,
    out_of_scope: Sequence[str] | None = None,
    out_of_scope_attributes: Sequence[Attributes | None] | None = None,
    trained: Mapping[str, str | float | int] | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
    on_judged: Callable[[Floats], None] = lambda _probabilities: None,
) -> content.Classifier:
    """Train on labelled texts, write the classifier to ``folder``, and return it as loaded from there.

    The folds are blocks of each class's texts in the order given, so that neighbours (paraphrases by one writer,
    events of one hour) stay together: shuffled folds promise what a new writer does not keep. On them the contender is
    chosen, the confidence calibrated and the scope threshold set; then all examples are fitted once. The same examples
    in the same order, settings, seed and libraries give the same bytes. ``trained`` (the window of the data, say) goes
    into the card as it is; ``on_step`` hears (fits done, fits to do), ``on_judged`` the probabilities of the classes,
    float64[n_texts, n_classes], that a classifier which had not seen a text's fold gives it: what a model that learns
    from this classifier's answers must be shown of these texts.

    Raises
    ------
    TrainingRefusedError
        If there are no texts or one class, a text or label is none, a class has too few examples, or there are fewer
        texts or terms than components asked for.
    """
    outside = _Outside(list(out_of_scope or ()), out_of_scope_attributes)
    examples = _examples(texts, labels, attributes, outside, settings)
    cut = Cut(
        max_characters=settings.max_characters,
        pair_span=settings.pair_span,
        min_gram=settings.min_gram,
        max_gram=settings.max_gram,
        number_edges=number_edges(examples.attributes, settings.n_number_bins),
    )
    with threadpool_limits(1):  # the order of a sum, and so its last bits, depends on the number of threads
        judged = _judge(examples, cut, settings, seed, on_step)
        on_judged(judged.probabilities[: len(texts), : len(examples.classes)])
        vocabulary, parts = _fit(examples, cut, settings, seed, n_components=settings.n_components)
    on_step(settings.n_folds + 1, settings.n_folds + 1)
    origin = {**(trained or {}), "n_examples": len(labels), "n_out_of_scope": len(out_of_scope or ()), "seed": seed}
    card = _card(examples, cut, judged, origin, with_column=bool(out_of_scope))
    if settings.n_components:
        card = msgspec.structs.replace(card, n_components=settings.n_components)
    return _write(folder, card, vocabulary, parts, examples)


def train_labelled(
    learned: Labelled,
    folder: Path,
    *,
    settings: Settings,
    seed: int,
    trained: Mapping[str, str | float | int],
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> content.Classifier:
    """Train on labelled texts as `train` does; those without a label are out of scope."""
    known = [row for row, label in enumerate(learned.labels) if label is not None]
    outside = [row for row, label in enumerate(learned.labels) if label is None]
    return train(
        [learned.texts[row] for row in known],
        [label for label in learned.labels if label is not None],
        folder,
        settings=settings,
        seed=seed,
        attributes=[learned.attributes[row] for row in known],
        out_of_scope=[learned.texts[row] for row in outside],
        out_of_scope_attributes=[learned.attributes[row] for row in outside],
        trained=trained,
        on_step=on_step,
    )


def _examples(
    texts: Sequence[str],
    labels: Sequence[str],
    attributes: Sequence[Attributes | None] | None,
    outside: "_Outside",
    settings: Settings,
) -> _Examples:
    facts = [None] * len(texts) if attributes is None else list(attributes)
    if not len(texts) == len(labels) == len(facts):
        raise TrainingRefusedError(
            f"{len(texts)} texts, {len(labels)} labels and {len(facts)} attributes must be as many"
        )
    for name, column in (("texts", texts), ("labels", labels), ("out_of_scope", outside.texts)):
        _refuse_no_text(name, column)
    n_outside = len(outside.texts)
    if 0 < n_outside < settings.n_folds:
        raise TrainingRefusedError(f"out_of_scope: {n_outside} examples are too few for {settings.n_folds} folds")
    classes, codes, counts = np.unique(np.asarray(labels, dtype=object), return_inverse=True, return_counts=True)
    if len(classes) < 2:  # noqa: PLR2004 - there must be something to tell apart
        raise TrainingRefusedError(f"labels: {len(labels)} texts hold {len(classes)} class, two are the least")
    if contents.OUT_OF_SCOPE in classes:
        raise TrainingRefusedError(f"labels: {contents.OUT_OF_SCOPE!r} names what is of no class, it cannot be a class")
    if counts.min() < 2:  # noqa: PLR2004 - one to learn from, one to be judged on
        raise TrainingRefusedError(f"labels: class {classes[counts.argmin()]!r} has one example, two are the least")
    everything = np.concatenate([codes, np.full(n_outside, len(classes))]).astype(np.int64)
    beside = outside.attributes or [None] * n_outside
    return _Examples([*texts, *outside.texts], [*facts, *beside], everything, tuple(classes.tolist()))


def _refuse_no_text(name: str, column: Sequence[object]) -> None:
    for row, value in enumerate(column):
        if not isinstance(value, str) or not value.strip():
            raise TrainingRefusedError(f"{name}[{row}]: {value!r} is no text")
        if not value.isascii() and value != value.encode(errors="replace").decode():
            raise TrainingRefusedError(f"{name}[{row}]: {value!r} is no Unicode text, it holds half a character")


def _judge(examples: _Examples, cut: Cut, settings: Settings, seed: int, on_step: Callable[[int, int], None]) -> Judged:
    """Predict every example by parts that did not see its fold, and judge the contenders on that."""
    fold = _folds(examples.codes, settings.n_folds)
    n_columns = int(examples.codes.max()) + 1
    linear, neural = np.empty((2, len(fold), n_columns))

    def predict(number: int) -> tuple[Codes, Floats, Floats]:
        learn, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        vocabulary, parts = _fit(examples.take(learn), cut, settings, seed)
        unseen = examples.take(held_out)
        rows = content_fit.sparse_rows(Encoder(cut, vocabulary), unseen.texts, unseen.attributes)
        return held_out, content_fit.linear_logits(parts.linear, rows), content_fit.neural_logits(parts.neural, rows)

    with ThreadPoolExecutor(settings.n_threads) as pool:
        for done, (held_out, *logits) in enumerate(pool.map(predict, range(settings.n_folds)), start=1):
            linear[held_out], neural[held_out] = logits
            on_step(done, settings.n_folds + 1)
    return judge(linear, neural, examples.codes, len(examples.classes), settings.max_accuracy_loss_share)


def _folds(codes: Codes, n_folds: int) -> Codes:
    """Return each example's fold: the examples of a class, in their order, cut into blocks."""
    fold = np.empty(len(codes), dtype=np.int64)
    for code in np.unique(codes):
        at = np.flatnonzero(codes == code)
        fold[at] = np.arange(len(at)) * n_folds // len(at)
    return fold


def _fit(
    examples: _Examples, cut: Cut, settings: Settings, seed: int, *, n_components: int = 0
) -> tuple[Vocabulary, Parts]:
    vocabulary = fit_vocabulary(
        cut, examples.texts, examples.attributes, min_documents=settings.min_documents, max_terms=settings.max_terms
    )
    if not vocabulary.terms:
        raise TrainingRefusedError(f"texts: no term is found in {settings.min_documents} texts, nothing to learn from")
    rows = content_fit.sparse_rows(Encoder(cut, vocabulary), examples.texts, examples.attributes)
    linear = content_fit.fit_linear(rows, examples.codes, settings, seed)
    neural = content_fit.fit_neural(rows, examples.codes, settings, seed)
    return vocabulary, Parts(linear, neural, _components(rows, n_components, seed))


def _components(rows: csr_matrix, n_components: int, seed: int) -> Components | None:
    if n_components > min(rows.shape):
        raise TrainingRefusedError(
            f"components: {n_components} are more than {rows.shape[0]} texts with {rows.shape[1]} terms have"
        )
    return content_fit.fit_components(rows, n_components, seed) if n_components else None


def _card(
    examples: _Examples, cut: Cut, judged: Judged, origin: Mapping[str, str | float | int], *, with_column: bool
) -> Card:
    return Card(
        classes=examples.classes,
        out_of_scope_column=with_column,
        cut=cut,
        contender=judged.contender,
        linear_scale=judged.linear_scale,
        neural_scale=judged.neural_scale,
        contest=judged.contest,
        scope=judged.scope,
        trained={**origin, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
        attributes=tuple(sorted({name for facts in examples.attributes for name in facts or ()})),
    )


def _write(folder: Path, card: Card, vocabulary: Vocabulary, parts: Parts, examples: _Examples) -> content.Classifier:
    linear = None if card.linear_scale is None else parts.linear
    neural = None if card.neural_scale is None else parts.neural
    content.save(folder, card, vocabulary, linear, neural, parts.components)
    loaded = content.load(folder)
    golden = examples.take(_golden_rows(examples.texts))
    content.save_golden(folder, loaded, golden.texts, golden.attributes)
    return loaded


def _golden_rows(texts: Sequence[str]) -> Codes:
    """Pick events by their own content, so that the same data give the same golden events in any order."""
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__)[:N_GOLDEN_EVENTS], dtype=np.int64)
