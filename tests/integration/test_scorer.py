"""An event's text is scored in C and in numpy to the same bits, and C follows no index that leads outside."""

import gc
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import content, scorer, text_encoder
from models.components import Components
from models.content_card import Card, Contest, Scope
from models.logits import Linear, Neural, add_rows
from models.scorer import CompiledScorer, NumpyScorer, Parts, Scored
from models.text_encoder import Encoder
from models.text_terms import Attributes, Cut, Vocabulary, fit_vocabulary, number_edges
from tests.integration.test_content import WORDS

TEXTS = ("pay the bill", "pay my bill now", "book a table", "book my table", "the table", "a bill, the bill", "x-y")
ATTRIBUTES: tuple[Attributes, ...] = (
    {"region": "eu", "amount": 10.0},
    {"region": "us", "amount": 20.0},
    {"region": "eu", "amount": 30.0, "urgent": True},
) * 3
FACTS = [None, {}, *ATTRIBUTES[:3], {"region": "mars"}, {"amount": 1e9, "urgent": None}]
SCALES = (2.0, 0.37)
compiled_only = pytest.mark.skipif(not scorer.is_compiled(), reason="no compiler at the installation")


def random_parts(n_terms: int, seed: int, *, form: str, n_columns: int, n_components: int, size: float = 1.0) -> Parts:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[np.float32]:
        drawn = size * random.normal(size=shape).astype(np.float32)
        return np.where(random.random(shape) < 0.2, np.float32(0.0), drawn)

    n_inputs, n_hidden = int(random.integers(0, n_terms + 1)), int(random.integers(1, 12))
    neural = Neural(draw(n_inputs, n_hidden), draw(n_hidden), draw(n_hidden, n_columns), draw(n_columns))
    return Parts(
        n_classes=n_columns - int(random.integers(0, 2)) if n_columns > 2 else n_columns,
        n_columns=n_columns,
        linear=None if form == "neural" else Linear(draw(n_terms, n_columns), draw(n_columns)),
        linear_scale=SCALES[0],
        neural=None if form == "linear" else neural,
        neural_scale=SCALES[1],
        components=Components(draw(n_terms, n_components)) if n_components else None,
    )


def bits(said: Scored | None) -> object:
    """What can be told apart of an answer: -0.0 from 0.0 as well."""
    if said is None:
        return None
    numbers = (said.probability, said.evidence, said.outside, *said.components)
    return said.best, said.probabilities.tobytes(), [number.hex() for number in numbers]


@st.composite
def encoders(draw: st.DrawFn) -> Encoder:
    low = draw(st.integers(1, 3))
    cut = Cut(
        max_characters=draw(st.sampled_from([30, 2_000])),
        pair_span=draw(st.integers(1, 5)),
        min_gram=low,
        max_gram=low + draw(st.integers(0, 2)),
        number_edges=number_edges(ATTRIBUTES, 2),
    )
    facts = ATTRIBUTES[: len(TEXTS)] if draw(st.booleans()) else [None] * len(TEXTS)
    found = fit_vocabulary(cut, TEXTS, facts, min_documents=1, max_terms=999)
    kept = np.random.default_rng(draw(st.integers(0, 99))).random(len(found.terms)) < draw(
        st.sampled_from([0.1, 0.6, 1.0])
    )
    kept[0] = True
    some = [(term, weight) for term, weight, keep in zip(found.terms, found.weights, kept, strict=True) if keep]
    return Encoder(cut, Vocabulary(terms=tuple(t for t, _ in some), weights=tuple(w for _, w in some)))


@compiled_only
@given(
    encoder=encoders(),
    texts=st.lists(
        st.lists(st.sampled_from((*WORDS, *TEXTS)), max_size=40).map(" ".join) | st.text(max_size=60), max_size=4
    ),
    facts=st.sampled_from(FACTS),
    form=st.sampled_from(["linear", "neural", "pool"]),
    n_columns=st.integers(2, 19),
    n_components=st.sampled_from([0, 1, 2, 9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_c_says_the_very_bits_that_numpy_says(
    encoder: Encoder,
    texts: list[str],
    facts: Attributes | None,
    form: str,
    n_columns: int,
    n_components: int,
    seed: int,
) -> None:
    parts = random_parts(encoder.n_columns, seed, form=form, n_columns=n_columns, n_components=n_components)
    plain, compiled = NumpyScorer(encoder, parts), CompiledScorer(encoder, parts)
    for text in (*texts, *texts, TEXTS[1]):
        assert bits(compiled.score(text, facts)) == bits(plain.score(text, facts))


@pytest.fixture(name="encoder")
def full_encoder() -> Encoder:
    cut = Cut(number_edges=number_edges(ATTRIBUTES, 2))
    return Encoder(cut, fit_vocabulary(cut, TEXTS, ATTRIBUTES[: len(TEXTS)], min_documents=1, max_terms=999))


@pytest.fixture(name="parts")
def pooled_parts(encoder: Encoder) -> Parts:
    return random_parts(encoder.n_columns, 5, form="pool", n_columns=4, n_components=3)


def every_form(encoder: Encoder, parts: Parts) -> list[scorer.Scorer]:
    return [NumpyScorer(encoder, parts), *([CompiledScorer(encoder, parts)] if scorer.is_compiled() else [])]


def added_plainly(values: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    total = np.zeros(rows.shape[1], np.float32)
    for value, row in zip(values, rows, strict=True):
        total = total + value * row
    return total


@pytest.mark.parametrize("text", [*TEXTS, "the the the bill now", "unheard table"])
def test_every_form_scores_as_the_parts_are_defined(encoder: Encoder, parts: Parts, text: str) -> None:
    columns, values = encoder.encode(text, ATTRIBUTES[2])
    linear, neural, components = parts.linear, parts.neural, parts.components
    assert linear is not None
    assert neural is not None
    assert components is not None
    read = columns < len(neural.hidden_weights)
    hidden = added_plainly(values[read], neural.hidden_weights[columns[read]]) + neural.hidden_intercept
    of_linear = added_plainly(values, linear.weights[columns]) + linear.intercept
    of_neural = added_plainly(np.maximum(hidden, 0), neural.output_weights) + neural.output_intercept
    logits = (np.float32(SCALES[0]) * of_linear).astype(float) + (np.float32(SCALES[1]) * of_neural).astype(float)
    grown = np.array([math.exp(logit - logits.max()) for logit in logits])
    for form in every_form(encoder, parts):
        said = form.score(text, ATTRIBUTES[2])
        assert said is not None
        np.testing.assert_allclose(said.probabilities, (grown / sum(grown.tolist()))[: parts.n_classes], rtol=1e-15)
        assert said.best == logits[: parts.n_classes].argmax()
        assert said.probability == said.probabilities.max()
        assert said.evidence == logits[: parts.n_classes].max()
        assert said.outside == (logits[-1] if parts.n_classes < parts.n_columns else -math.inf)
        placed = added_plainly(values, components.weights[columns])
        assert said.components == tuple(placed.tolist())


@given(n=st.integers(0, 40), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_rows_are_added_one_after_another_whatever_their_shape(n: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values, rows = random.normal(size=n).astype(np.float32), random.normal(size=(n, width)).astype(np.float32)
    expected = added_plainly(values, rows)
    assert add_rows(values, rows).tobytes() == expected.tobytes()


@compiled_only
@example(n_counted=2)
@example(n_counted=1)
@given(n_counted=st.integers(1, 40))
def test_a_count_beyond_the_table_has_its_logarithm_taken(n_counted: int) -> None:
    cut = Cut()
    encoder = Encoder(cut, fit_vocabulary(cut, TEXTS, [None] * len(TEXTS), min_documents=1, max_terms=999))
    parts = random_parts(encoder.n_columns, 1, form="pool", n_columns=3, n_components=1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (text_encoder, scorer):
            patch.setattr(module, "SUBLINEAR", text_encoder.SUBLINEAR[:n_counted])
        short = [bits(form.score("pay pay pay the the bill", None)) for form in every_form(encoder, parts)]
    assert {*map(str, short)} == {str(bits(NumpyScorer(encoder, parts).score("pay pay pay the the bill", None)))}


def test_weights_that_overflow_give_the_same_non_numbers_in_any_form(encoder: Encoder) -> None:
    n_without_number = 0
    for seed in range(40):
        with np.errstate(all="ignore"):
            parts = random_parts(encoder.n_columns, seed, form="pool", n_columns=5, n_components=2, size=1e38)
            said = [form.score("pay the bill", None) for form in every_form(encoder, parts)]
        n_without_number += said[0] is not None and math.isnan(said[0].evidence)
        # The sign of what is no number is the processor's.
        assert len({str(bits(each)) if each and np.isfinite(each.evidence) else str(each) for each in said}) == 1
    assert n_without_number > 3


def test_terms_that_weigh_nothing_are_an_error_in_any_form() -> None:
    encoder = Encoder(Cut(), Vocabulary(terms=("wpay", "wbill"), weights=(0.0, 1.0)))
    for form in every_form(encoder, random_parts(2, 0, form="pool", n_columns=3, n_components=0)):
        with pytest.raises(ZeroDivisionError):
            form.score("pay", None)
        assert form.score("bill", None) is not None


def test_what_is_no_text_is_refused_in_any_form(encoder: Encoder, parts: Parts) -> None:
    for form in every_form(encoder, parts):
        with pytest.raises(TypeError, match="text must be str, got bytes"):
            form.score(b"pay", None)  # type: ignore[arg-type]


def test_threads_that_share_a_scorer_do_not_disturb_each_other(encoder: Encoder, parts: Parts) -> None:
    texts = [*TEXTS, "pay pay the the bill my my"] * 100
    for form in every_form(encoder, parts):
        alone = [bits(form.score(text, None)) for text in texts]
        with ThreadPoolExecutor(4) as threads:
            assert [bits(said) for said in threads.map(lambda text, form=form: form.score(text, None), texts)] == alone


@compiled_only
def test_the_pieces_that_c_is_given_are_remembered_to_a_bound(
    encoder: Encoder, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "_REMEMBERED_PIECES", 3)
    compiled = CompiledScorer(encoder, parts)
    before = [bits(compiled.score(text, None)) for text in TEXTS]
    assert [bits(compiled.score(text, None)) for text in TEXTS] == before
    compiled.score("y" * 33, None)
    assert 0 < len(compiled._remembered) <= 3
    assert "y" * 33 not in compiled._remembered


def test_a_classifier_without_the_c_form_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Cut(number_edges=number_edges(ATTRIBUTES, 2))
    vocabulary = fit_vocabulary(cut, TEXTS, ATTRIBUTES[: len(TEXTS)], min_documents=1, max_terms=999)
    parts = random_parts(len(vocabulary.terms), 9, form="pool", n_columns=3, n_components=2)
    card = Card(
        classes=("bill", "table"),
        out_of_scope_column=True,
        cut=cut,
        contender="pool",
        linear_scale=SCALES[0],
        neural_scale=SCALES[1],
        contest={"pool": Contest(log_loss=0.1, accuracy=1.0)},
        scope=Scope(statistic="margin", threshold=0.0, accuracy_loss_share=0.0, out_of_scope_recall=1.0),
        trained={},
        n_components=2,
    )
    content.save(tmp_path, card, vocabulary, parts.linear, parts.neural, parts.components)
    content.save_golden(tmp_path, content.load(tmp_path), TEXTS, ATTRIBUTES[: len(TEXTS)])
    here = content.load(tmp_path)
    monkeypatch.setattr(scorer, "_scorer", None)
    content.probe(tmp_path)
    without = content.load(tmp_path)
    assert isinstance(without._scorer, NumpyScorer)
    for text in (*TEXTS, "ξψω", "now"):
        one, other = (each.classify(text, ATTRIBUTES[0]) for each in (here, without))
        assert (one.label, one.confidence, one.best_label) == (other.label, other.confidence, other.best_label)
        assert (one.scope_score, one.components) == (other.scope_score, other.components)
        assert one.probabilities.tobytes() == other.probabilities.tobytes()
    with pytest.raises(RuntimeError, match="was not built"):
        CompiledScorer(Encoder(cut, vocabulary), parts)


def test_where_the_c_form_was_not_built_numpy_scores() -> None:
    code = "import sys; sys.modules['models._scorer'] = None; from models import scorer; print(scorer.is_compiled())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


TERMS = 6
SOUND: dict[str, Any] = {
    "idf": np.ones(TERMS),
    "sublinear": np.ones(5),
    "words": np.array([0, 1, -1], np.int32),
    "pairs": np.array([[0, 1, 0, 2], [0, 2, 1, 3]], np.int32),
    "linear": np.ones((TERMS, 3), np.float32),
    "linear_intercept": np.zeros(3, np.float32),
    "hidden": np.ones((4, 2), np.float32),
    "hidden_intercept": np.zeros(2, np.float32),
    "output": np.ones((2, 3), np.float32),
    "output_intercept": np.zeros(3, np.float32),
    "components": np.ones((TERMS, 2), np.float32),
    "n_classes": 2,
    "start": -1,
    "end": 2,
    "span": 4,
    "block_weight": 1.0,
    "linear_scale": 1.0,
    "neural_scale": 1.0,
}


@compiled_only
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("idf", np.ones(TERMS, np.float32), "idf is not of the type"),
        ("idf", np.ones((TERMS, 1)), "idf is not of the type or shape"),
        ("idf", memoryview(bytearray(8 * TERMS + 1))[1:].cast("d"), "idf is not of the type"),
        ("sublinear", np.ones(5, np.int64), "sublinear"),
        ("words", np.array([0, 1, -1]), "words is not of the type"),
        ("words", np.array([0, TERMS, -1], np.int32), "lead outside of the terms"),
        ("words", np.array([0, -2, -1], np.int32), "lead outside of the terms"),
        ("pairs", np.zeros((2, 3), np.int32), "pairs is not of the type or shape"),
        ("pairs", np.array([[0, 1, 0, TERMS]], np.int32), "lead outside of the terms"),
        ("pairs", np.array([[0, 1, 0, -1]], np.int32), "lead outside of the terms"),
        ("pairs", np.array([[-1, 1, 0, 0]], np.int32), "lead outside of the terms"),
        ("pairs", np.array([[0, 1, 2, 0]], np.int32), "lead outside of the terms"),
        ("linear", np.ones((TERMS, 3)), "linear is not of the type"),
        ("linear_intercept", np.zeros(2, np.float32), "linear_intercept"),
        ("hidden_intercept", np.zeros(1, np.float32), "hidden_intercept"),
        ("output", np.ones((3, 3), np.float32), "output is not"),
        ("output", np.ones((2, 2), np.float32), "output is not"),
        ("output_intercept", np.zeros(4, np.float32), "output_intercept"),
        ("components", np.ones(TERMS, np.float32), "components"),
        ("n_classes", 0, "n_classes must be one of 1 to 3, got 0"),
        ("n_classes", 4, "n_classes must be one of 1 to 3, got 4"),
    ],
)
def test_the_c_form_refuses_arrays_that_lead_outside(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scorer._scorer.Scorer(**{**SOUND, name: value})


@compiled_only
def test_the_c_form_refuses_an_array_that_is_not_in_one_piece() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        scorer._scorer.Scorer(**{**SOUND, "linear": np.ones((TERMS, 6), np.float32)[:, ::2]})


def packed(*items: int) -> bytes:
    return np.array(items, np.int32).tobytes()


@compiled_only
@pytest.mark.parametrize(
    ("pieces", "facts", "error"),
    [
        ((packed(0, 1),), packed(0), TypeError),
        ([packed(0, 1), "text"], packed(0), TypeError),
        ([packed(0, 1), packed(0, 1) + b"x"], packed(0), ValueError),
        ([packed(0, 1), b""], packed(0), ValueError),
        ([packed(3, 0, 1)], packed(0), ValueError),
        ([packed(-1, 0, 1)], packed(0), ValueError),
        ([packed(1, 3)], packed(0), ValueError),
        ([packed(1, -2)], packed(0), ValueError),
        ([packed(1, 0, 1, TERMS)], packed(0), ValueError),
        ([packed(1, 0, 1, -1)], packed(0), ValueError),
        ([packed(1, 0, 1)], packed(0, TERMS), ValueError),
        ([packed(1, 0, 1)], packed(2, 0), ValueError),
        ([packed(1, 0, 1)], [1], TypeError),
    ],
)
def test_the_c_form_refuses_pieces_that_lead_outside_and_forgets_them(pieces: Any, facts: Any, error: type) -> None:
    made = scorer._scorer.Scorer(**SOUND)
    fine, out = ([packed(2, 0, 1, 4), packed(1, -1, 5, 4)], packed(0, 3)), np.empty(2)
    before = made.score(*fine, out)
    assert before is not None
    assert before[0] == 0  # the first of equals
    with pytest.raises(error):
        made.score(pieces, facts, out)
    assert made.score(*fine, out) == before
    assert made.score([], packed(0), out) is None


@compiled_only
def test_the_c_form_refuses_a_place_for_probabilities_of_another_size() -> None:
    made, readonly = scorer._scorer.Scorer(**SOUND), np.empty(2)
    with pytest.raises(ValueError, match="2 classes do not take 24 bytes"):
        made.score([], packed(0), np.empty(3))
    readonly.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        made.score([], packed(0), readonly)
    with pytest.raises(TypeError, match="got 1"):
        made.score([])  # type: ignore[call-arg]


@compiled_only
def test_an_event_scored_while_another_ones_answer_is_made_disturbs_neither() -> None:
    """Making an answer may collect garbage, whose finalizer may score: by itself, or by letting another thread run."""
    # Python keeps small tuples ready: only a large one can begin a collection.
    place = np.arange(TERMS * 25, dtype=np.float32).reshape(TERMS, 25)
    made = scorer._scorer.Scorer(**{**SOUND, "components": place})
    first, second, out = [packed(2, 0, 1, 4)], [packed(1, 1, 5, 5, 2)], np.empty(2)
    expected = [made.score(pieces, packed(0), out) for pieces in (first, second)]
    nested: list[object] = []
    facts = packed(0)

    class Litter:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nested.append(made.score(second, facts, np.empty(2)))

    before = gc.get_threshold()
    try:
        for n_allocations in range(1, 9):  # before the answer's
            gc.collect()
            Litter()
            gc.set_threshold(n_allocations)
            said = made.score(first, facts, out)
            gc.set_threshold(*before)
            assert said == expected[0]
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert nested == expected[1:] * 8
