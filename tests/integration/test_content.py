"""The content classifier as the shim holds it: cut, encode, score, abstain, refuse what does not fit."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.records import Event
from models import arrays, content, text_encoder
from models.card import ContractMismatchError
from models.components import Components
from models.content_card import Card, Contest, Scope
from models.logits import Linear, Neural, softmax
from models.releases import bundle
from models.router import ProbeError
from models.text_encoder import Encoder
from models.text_terms import Attribute, Attributes, Cut, Vocabulary, fit_vocabulary, number_edges

TEXTS = ("pay the bill", "pay my bill now", "book a table", "book my table", "the table", "a bill")
ATTRIBUTES: list[Attributes] = [
    {"region": "eu", "amount": 10.0},
    {"region": "eu", "amount": 20.0},
    {"region": "us", "amount": 30.0},
] * 2
CUT = Cut(number_edges=number_edges(ATTRIBUTES, 2))
VOCABULARY = fit_vocabulary(CUT, TEXTS, ATTRIBUTES, min_documents=1, max_terms=10_000)


def card(**changes: object) -> Card:
    values: dict[str, object] = {
        "classes": ("bill", "table"),
        "out_of_scope_column": True,
        "cut": CUT,
        "contender": "pool",
        "linear_scale": 2.0,
        "neural_scale": 0.5,
        "contest": {"pool": Contest(log_loss=0.1, accuracy=1.0)},
        "scope": Scope(statistic="margin", threshold=0.0, accuracy_loss_share=0.0, out_of_scope_recall=1.0),
        "trained": {"seed": 0},
    }
    return Card(**(values | changes))  # type: ignore[arg-type]


def parts(n_inputs: int = 20) -> tuple[Linear, Neural]:
    """A linear part that reads "bill" and "table", and a small random neural part."""
    rng = np.random.default_rng(0)
    weights = np.zeros((len(VOCABULARY.terms), 3), dtype=np.float32)
    weights[VOCABULARY.terms.index("wbill"), 0] = 9.0
    weights[VOCABULARY.terms.index("wtable"), 1] = 9.0
    linear = Linear(weights, np.array([0.0, 0.0, 0.5], dtype=np.float32))
    neural = Neural(
        (0.1 * rng.normal(size=(n_inputs, 4))).astype(np.float16).astype(np.float32),
        np.zeros(4, dtype=np.float32),
        (0.1 * rng.normal(size=(4, 3))).astype(np.float32),
        np.zeros(3, dtype=np.float32),
    )
    return linear, neural


@pytest.fixture(name="folder")
def saved(tmp_path: Path) -> Path:
    content.save(tmp_path, card(), VOCABULARY, *parts())
    content.save_golden(tmp_path, content.load(tmp_path), TEXTS, ATTRIBUTES)
    return tmp_path


def test_an_event_is_given_its_class_and_what_is_foreign_is_out_of_scope(folder: Path) -> None:
    classifier = content.load(folder)
    assert classifier.classify("the bill").label == "bill"
    assert classifier.classify("one TABLE, please").label == "table"
    foreign = classifier.classify("now")
    assert foreign.label is None
    assert foreign.scope_score < classifier.card.scope.threshold


def test_confidence_is_that_of_the_answer(folder: Path) -> None:
    classifier = content.load(folder)
    for text in (*TEXTS, "now", "my"):
        said = classifier.classify(text)
        best = said.probabilities.max()
        assert said.confidence == pytest.approx(best if said.label else 1 - best)


@pytest.mark.parametrize("text", ["", "   ", "ξψω", "\ud800"])
def test_an_event_with_nothing_known_is_certainly_out_of_scope(folder: Path, text: str) -> None:
    said = content.load(folder).classify(text)
    assert (said.label, said.confidence, said.scope_score) == (None, 1.0, -np.inf)
    assert not said.probabilities.any()


@given(text=st.text(max_size=80), amount=st.floats() | st.none() | st.text(max_size=5) | st.booleans())
def test_any_text_and_attribute_gives_a_finite_answer(text: str, amount: Attribute) -> None:
    said = content.Classifier(card(), VOCABULARY, *parts()).classify(text, {"amount": amount, "region": "eu"})
    assert said.label in {"bill", "table", None}
    assert 0.0 <= said.confidence <= 1.0
    assert np.isfinite(said.probabilities).all()
    assert said.probabilities.sum() <= 1 + 1e-9


def test_a_text_of_a_million_characters_is_read_to_the_bound(folder: Path) -> None:
    classifier = content.load(folder)
    long = "bill " * 200_000
    assert classifier.classify(long).confidence == classifier.classify(long[: CUT.max_characters]).confidence
    columns, _ = Encoder(CUT, VOCABULARY).encode("x" * CUT.max_characters + " bill")
    assert not columns.size


@pytest.mark.parametrize("text", [None, 7, b"bill", ["bill"]])
def test_what_is_no_text_is_refused_by_its_type(folder: Path, text: object) -> None:
    with pytest.raises(TypeError, match=f"text must be str, got {type(text).__name__}"):
        content.load(folder).classify(text)  # type: ignore[arg-type]


def test_the_pool_adds_the_scaled_logits_of_both_parts() -> None:
    linear, neural = parts()
    columns, values = Encoder(CUT, VOCABULARY).encode("pay the bill", {"region": "eu"})
    dense = np.zeros(len(VOCABULARY.terms))
    dense[columns] = values
    hidden = np.maximum(dense[:20] @ neural.hidden_weights.astype(float) + neural.hidden_intercept, 0)
    logits = 2.0 * (dense @ linear.weights.astype(float) + linear.intercept)
    logits += 0.5 * (hidden @ neural.output_weights + neural.output_intercept)
    truth = np.exp(logits) / np.exp(logits).sum()
    said = content.Classifier(card(), VOCABULARY, linear, neural).classify("pay the bill", {"region": "eu"})
    np.testing.assert_allclose(said.probabilities, truth[:2], atol=1e-6)
    assert said.scope_score == pytest.approx(logits[:2].max() - logits[2], abs=1e-5)


def test_each_statistic_of_scope_is_what_its_name_says() -> None:
    logits = np.array([[1.0, 3.0, 2.0]])
    probabilities = softmax(logits)
    assert content.scope_scores("evidence", logits, probabilities, 2) == [3.0]
    assert content.scope_scores("margin", logits, probabilities, 2) == [1.0]
    assert content.scope_scores("probability", logits, probabilities, 2) == [probabilities[0, 1]]


def test_words_are_paired_across_gaps_and_with_the_borders() -> None:
    words, _, _ = Cut(pair_span=3).blocks("Pay the bill")
    assert sorted(words) == sorted(
        ["pay", "the", "bill", "^ pay", "^~the", "pay the", "pay~bill", "the bill", "the~$", "bill $"]
    )


def test_attributes_become_values_and_bins_and_what_is_missing_says_nothing() -> None:
    cut = Cut(number_edges={"amount": (10.0, 20.0)})
    facts: Attributes = {"amount": 15, "region": "eu", "urgent": True, "gone": None, "unknown": 3.0}
    assert cut.blocks("", facts)[2] == ["amount#1", "region=eu", "urgent=True"]
    assert cut.blocks("", {"amount": float("nan")})[2] == []


def _dense_oracle(cut: Cut, vocabulary: Vocabulary, text: str, facts: Attributes | None) -> np.ndarray:
    """The vector as its definition says it, term by term."""
    dense = np.zeros(len(vocabulary.terms))
    n_blocks = len({term[0] for term in vocabulary.terms})
    for block, terms in zip("wca", cut.blocks(text, facts), strict=True):
        part = np.zeros(len(vocabulary.terms))
        for column, term in enumerate(vocabulary.terms):
            if term[0] == block and (count := terms.count(term[1:])):
                part[column] = (1 + np.log(count)) * vocabulary.weights[column]
        dense += part / (np.linalg.norm(part) * n_blocks**0.5) if part.any() else 0.0
    return dense


@given(
    words=st.lists(
        st.sampled_from(["pay", "the", "bill", "ab", "a", "pay~the", "^", "$", "table!", "x y"]), max_size=9
    ),
    span=st.integers(1, 5),
    grams=st.sampled_from([(1, 1), (1, 3), (2, 4), (4, 4)]),
)
def test_what_is_encoded_is_what_the_cut_says(words: list[str], span: int, grams: tuple[int, int]) -> None:
    """The shim's shortcuts (pairs never written, n-grams remembered) against the definition, twice for the memory."""
    cut = Cut(pair_span=span, min_gram=grams[0], max_gram=grams[1])
    vocabulary = fit_vocabulary(
        cut, ["pay the bill", "the table x", "a ab pay"], [None] * 3, min_documents=1, max_terms=999
    )
    encoder, text = Encoder(cut, vocabulary), " ".join(words)
    for _ in range(2):
        columns, values = encoder.encode(text)
        dense = np.zeros(len(vocabulary.terms))
        dense[columns] = values
        assert len(set(columns.tolist())) == len(columns)
        np.testing.assert_allclose(dense, _dense_oracle(cut, vocabulary, text, None), atol=1e-6)


def _encoded_plainly(cut: Cut, vocabulary: Vocabulary, text: str, facts: Attributes | None) -> tuple[list[int], bytes]:
    """Columns and the bytes of their values, block by block and term by term: in this order floats are added up."""
    column_of = {term: column for column, term in enumerate(vocabulary.terms)}
    columns: list[int] = []
    values = [np.empty(0)]
    for block, terms in zip("wca", cut.blocks(text, facts), strict=True):
        count = Counter(column_of[block + term] for term in terms if block + term in column_of)
        if count:
            columns += count
            part = np.array([1.0 + math.log(n) for n in count.values()]) * np.array(vocabulary.weights)[[*count]]
            n_blocks = len({term[0] for term in vocabulary.terms})
            values.append(part * (1.0 / math.sqrt(n_blocks) / math.sqrt(np.cumsum(part * part)[-1])))
    return columns, np.concatenate(values).astype(np.float32).tobytes()


WORDS = (
    "pay",
    "the",
    "bill",
    "ab",
    "a",
    "book",
    "table",
    "now",
    "unheard",
    "pay~the",
    "^",
    "$",
    "table!",
    "x-y",
    "the\u00a0bill",
)


@given(
    words=st.lists(st.sampled_from((*WORDS, *TEXTS)), max_size=30),
    span=st.integers(1, 5),
    grams=st.sampled_from([(1, 1), (1, 3), (2, 4), (4, 4)]),
    facts=st.sampled_from([None, *ATTRIBUTES, {"region": "mars"}]),
    table=st.sampled_from([2, 4_096]),
)
@example(words=["pay my bill now"], span=4, grams=(2, 4), facts=None, table=4_096)
def test_what_is_encoded_fast_has_the_bits_of_what_is_encoded_plainly(
    words: list[str], span: int, grams: tuple[int, int], facts: Attributes | None, table: int
) -> None:
    cut = Cut(pair_span=span, min_gram=grams[0], max_gram=grams[1], number_edges=CUT.number_edges)
    vocabulary = fit_vocabulary(cut, TEXTS, ATTRIBUTES, min_documents=1, max_terms=999)
    encoder, text = Encoder(cut, vocabulary), " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "SUBLINEAR", text_encoder.SUBLINEAR[:table])
        for _ in range(2):
            columns, values = encoder.encode(text, facts)
            assert (columns.tolist(), values.tobytes()) == _encoded_plainly(cut, vocabulary, text, facts)


@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12),
    statistic=st.sampled_from(["probability", "margin", "evidence"]),
)
def test_scope_is_told_by_the_statistic_that_the_card_names(words: list[str], statistic: str) -> None:
    linear, neural = parts()
    scope = Scope(statistic=statistic, threshold=0.0, accuracy_loss_share=0.0, out_of_scope_recall=None)  # type: ignore[arg-type]
    classifier = content.Classifier(card(scope=scope), VOCABULARY, linear, neural)
    columns, values = Encoder(CUT, VOCABULARY).encode(" ".join(words))
    if columns.size:
        logits = (2.0 * linear.score(columns, values)).astype(float) + 0.5 * neural.score(columns, values)
        said = classifier.classify(" ".join(words))
        expected = content.scope_scores(scope.statistic, logits[None], softmax(logits[None]), 2)
        assert said.scope_score == pytest.approx(expected[0], rel=1e-12)
        assert said.best_label == card().classes[logits[:2].argmax()]


def test_threads_that_share_an_encoder_do_not_disturb_each_other() -> None:
    encoder, texts = Encoder(CUT, VOCABULARY), [*TEXTS, "pay pay the the bill my my"] * 200
    alone = [(columns.tolist(), values.tobytes()) for columns, values in map(encoder.encode, texts)]
    with ThreadPoolExecutor(4) as threads:
        found = [(columns.tolist(), values.tobytes()) for columns, values in threads.map(encoder.encode, texts)]
    assert found == alone
    assert 1 <= len(encoder._rooms) <= 4


def test_the_words_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "_REMEMBERED_PIECES", 3)
    encoder = Encoder(CUT, VOCABULARY)
    before = [values.tolist() for _, values in map(encoder.encode, TEXTS)]
    assert before == [values.tolist() for _, values in map(encoder.encode, TEXTS)]
    encoder.encode("y" * 33)
    assert 0 < len(encoder._remembered) <= 3
    assert "y" * 33 not in encoder._remembered


def test_every_block_weighs_alike() -> None:
    columns, values = Encoder(CUT, VOCABULARY).encode("pay the bill", {"region": "eu", "amount": 1.0})
    blocks = np.array([VOCABULARY.terms[column][0] for column in columns])
    for block in "wca":
        assert (values[blocks == block] ** 2).sum() == pytest.approx(1 / 3, rel=1e-5)


def test_the_vocabulary_keeps_the_most_frequent_terms_first() -> None:
    kept = fit_vocabulary(CUT, ["b a", "b a", "b c", "d"], [None] * 4, min_documents=2, max_terms=2)
    assert [term for term in kept.terms if term[0] == "w"] == ["w^ b", "wb"]
    assert list(kept.weights) == sorted(kept.weights)


def test_saving_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    content.save(again, card(), VOCABULARY, *parts())
    for file in again.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_the_golden_events_hold_for_the_bytes_they_were_made_of(folder: Path) -> None:
    content.probe(folder)
    _edit_array(folder, "linear", "weights", lambda weights: weights[:, ::-1])
    with pytest.raises(ProbeError, match="golden event 0 should be 'bill'"):
        content.probe(folder)


def _save_with_components(folder: Path) -> Components:
    weights = np.random.default_rng(1).normal(size=(len(VOCABULARY.terms), 3)).astype(np.float16).astype(np.float32)
    components = Components(weights)
    content.save(folder, card(n_components=3), VOCABULARY, *parts(), components)
    content.save_golden(folder, content.load(folder), TEXTS, ATTRIBUTES)
    return components


def test_components_are_where_the_event_lies_on_the_axes(tmp_path: Path) -> None:
    weights = _save_with_components(tmp_path).weights
    columns, values = Encoder(CUT, VOCABULARY).encode("pay the bill", {"region": "eu"})
    dense = np.zeros(len(VOCABULARY.terms))
    dense[columns] = values
    classifier = content.load(tmp_path)
    said = classifier.classify("pay the bill", {"region": "eu"})
    np.testing.assert_allclose(said.components, dense @ weights, atol=1e-6)
    assert classifier.classify("ξψω").components == (0.0, 0.0, 0.0)
    read = classifier.read(event("pay the bill"))
    assert read is not None
    assert read.number("component_2") == classifier.classify("pay the bill").components[1]
    assert classifier.n_components == 3


def test_a_classifier_without_components_is_written_as_before(folder: Path) -> None:
    assert "n_components" not in json.loads((folder / "card.json").read_text())
    assert "components" not in json.loads((folder / "golden.json").read_text())[0]
    assert not (folder / "components.json").exists()
    classifier = content.load(folder)
    assert classifier.n_components == 0
    assert classifier.classify("pay the bill").components == classifier.classify("ξψω").components == ()


def test_components_that_do_not_fit_or_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    _save_with_components(tmp_path)
    content.probe(tmp_path)
    _edit_array(tmp_path, "components", "weights", lambda weights: weights[:, ::-1])
    with pytest.raises(ProbeError, match="golden event 0 should lie at"):
        content.probe(tmp_path)
    _edit_card(tmp_path, n_components=2)
    with pytest.raises(ContractMismatchError, match=r"components\.json: weights has the shape"):
        content.load(tmp_path)
    _edit_card(tmp_path, n_components=0)
    with pytest.raises(ContractMismatchError, match="n_components"):
        content.load(tmp_path)
    (tmp_path / "components.json").unlink()
    _edit_card(tmp_path, n_components=3)
    with pytest.raises(ContractMismatchError, match=r"components\.json cannot be read"):
        content.load(tmp_path)


def _edit_card(folder: Path, **changes: object) -> None:
    file = folder / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _edit_array(folder: Path, part: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    file = folder / f"{part}.json"
    names = tuple(json.loads(file.read_text()))
    held = dict(zip(names, arrays.read(file, *names), strict=True))
    arrays.write(file, {**held, name: change(held[name])})


def _edit_json(file: Path, name: str, **changes: object) -> None:
    held = json.loads(file.read_text())
    held[name] |= changes
    file.write_text(json.dumps(held))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / "card.json").unlink(), "card.json"),
        (lambda at: (at / "card.json").write_text("{"), "cannot be read"),
        (lambda at: _edit_card(at, kind="router"), "cannot be read"),
        (lambda at: _edit_card(at, out_of_scope_column=False), "the margin needs an out-of-scope column"),
        (lambda at: _edit_card(at, linear_scale=None, neural_scale=None), "both null"),
        (
            lambda at: _edit_card(at, classes=["a", "b", "c"]),
            r"shape \(\d+, 3\), card and vocabulary make it \(\d+, 4\)",
        ),
        (lambda at: (at / "vocabulary.json").write_text('{"terms": ["wa"], "weights": []}'), "1 terms and 0 weights"),
        (lambda at: (at / "vocabulary.json").write_text('{"terms": ["qa"], "weights": [1]}'), "'qa' is of no block"),
        (lambda at: (at / "neural.json").write_bytes(b"\x93NUMPY"), "neural.json cannot be read"),
        (lambda at: (at / "neural.json").unlink(), "neural.json cannot be read"),
        (lambda at: _edit_array(at, "linear", "weights", lambda a: a.astype(np.float64)), "linear.json cannot be read"),
        (lambda at: _edit_array(at, "linear", "intercept", lambda a: a * np.float32(np.nan)), "must be finite"),
        (lambda at: _edit_array(at, "neural", "output_weights", lambda a: a[1:]), "output_weights has the shape"),
        (lambda at: _edit_json(at / "linear.json", "weights", dtype="object"), "linear.json cannot be read"),
        (lambda at: _edit_json(at / "linear.json", "weights", shape=[-1, -3]), "bytes are not float16"),
        (lambda at: _edit_json(at / "linear.json", "weights", shape=[2**62, 2**62]), "bytes are not float16"),
        (lambda at: _edit_json(at / "linear.json", "weights", data="no base64!"), "linear.json cannot be read"),
        (lambda at: _edit_json(at / "linear.json", "intercept", data="AAAA"), "3 bytes are not float32"),
        (lambda at: (at / "linear.json").write_text("{}"), "must hold weights, intercept, it holds nothing"),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused_by_the_file(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(ContractMismatchError, match=message):
        content.load(folder)


def test_a_folder_is_text_alone_and_so_may_be_a_release(folder: Path) -> None:
    digest = bundle.seal(folder, kind=content.KIND)
    assert bundle.verify(folder, digest).kind == "classifier"


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 100),
)
def test_arrays_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: type, seed: int
) -> None:
    file = tmp_path_factory.mktemp("arrays") / "some.json"
    array = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    arrays.write(file, {"some": array})
    (read,) = arrays.read(file, "some")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.float32


def test_a_part_without_a_scale_is_not_read(folder: Path) -> None:
    shutil.copytree(folder, folder / "linear")
    _edit_card(folder / "linear", neural_scale=None, contender="linear")
    (folder / "linear" / "neural.json").unlink()
    assert content.load(folder / "linear").classify("the bill").label == "bill"


def test_the_shim_scores_without_the_pipelines_packages() -> None:
    code = (
        "import sys; from models import content; print([m for m in ('sklearn','scipy','pandas') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_vocabulary_is_refused_where_a_term_is_empty(folder: Path) -> None:
    (folder / "vocabulary.json").write_bytes(b'{"terms": [""], "weights": [1]}')
    with pytest.raises(ContractMismatchError, match="'' is of no block"):
        content.load(folder)


def test_an_encoder_of_one_block_gives_it_all_the_weight() -> None:
    encoder = Encoder(Cut(), Vocabulary(terms=("wpay",), weights=(1.5,)))
    columns, values = encoder.encode("pay pay pay")
    assert (columns.tolist(), values.tolist()) == ([0], [1.0])


def event(text: str | None, **attributes: Attribute) -> Event:
    return Event(id="e", source="s", type="t", stream="orders", text=text, attributes=attributes)


def test_what_the_features_read_is_what_was_classified() -> None:
    classifier = content.Classifier(card(attributes=("region",)), VOCABULARY, *parts())
    read, said = (
        classifier.read(event("pay the bill", region="eu", amount=99.0)),
        classifier.classify("pay the bill", {"region": "eu"}),
    )
    assert read is not None
    assert (read.label, read.confidence, read.number("confidence")) == ("bill", said.confidence, said.confidence)
    assert read.number("probability_table") == said.probabilities[1]
    foreign = classifier.read(event("now"))
    assert foreign is not None
    assert (foreign.category(), foreign.number("in_scope")) == ("out of scope", 0.0)


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_an_event_without_text_has_no_content(text: str | None) -> None:
    assert content.Classifier(card(), VOCABULARY, *parts()).read(event(text)) is None
