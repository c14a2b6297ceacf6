"""Training a content classifier: against scikit-learn as the oracle, deterministic, calibrated, refusing what cannot be learned."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import hstack
from scipy.sparse import random as sparse_random
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from benchmarks import content as benchmark
from models import content, content_fit, content_training
from models.content_judging import choose_scope, judge
from models.content_training import Settings, TrainingRefusedError, train
from models.logits import softmax
from models.text_encoder import Encoder
from models.text_terms import Attributes, Cut, fit_vocabulary

SETTINGS = Settings(n_epochs=30, n_hidden=8, batch_size=16, max_accuracy_loss_share=0.02)
VERBS = {
    "pay": ("pay", "settle", "transfer money for", "clear"),
    "book": ("book", "reserve", "hold", "arrange"),
    "cancel": ("cancel", "drop", "call off", "undo"),
}
THINGS = ("my order", "the table", "a room", "the invoice", "this trip", "our seats", "the parcel", "that ticket")


def examples(seed: int = 0, n_each: int = 40) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for label, verbs in VERBS.items():
        for _ in range(n_each):
            polite = rng.choice(["please", "could you", "i want to", "now"])
            texts.append(f"{polite} {rng.choice(verbs)} {rng.choice(THINGS)}")
            labels.append(label)
    return texts, labels


OUTSIDE = [
    f"how {what} is the {thing}" for what in ("tall", "old", "far") for thing in ("moon", "tower", "sea", "hill")
]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_it_learns_the_classes_and_what_is_out_of_scope(tmp_path: Path) -> None:
    texts, labels = examples()
    classifier = train(texts, labels, tmp_path, settings=SETTINGS, seed=0, out_of_scope=OUTSIDE)
    unseen, truth = examples(seed=1)
    said = [classifier.classify(text) for text in unseen]
    assert np.mean([answer.label == label for answer, label in zip(said, truth, strict=True)]) > 0.9
    foreign = [
        classifier.classify(text).label for text in ("how wide is the tower", "how deep is the sea", "how high is it")
    ]
    assert foreign == [None] * 3
    assert classifier.card.scope.accuracy_loss_share <= SETTINGS.max_accuracy_loss_share
    content.probe(tmp_path)


def test_the_same_data_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    texts, labels = examples()
    for name, n_threads in (("one", 1), ("two", 2)):
        train(texts, labels, tmp_path / name, settings=replace(SETTINGS, n_threads=n_threads), seed=3)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    train(texts, labels, tmp_path / "three", settings=SETTINGS, seed=4)
    assert digests(tmp_path / "three") != digests(tmp_path / "one")


def test_linear_parts_fitted_at_the_same_time_do_not_disturb_each_other() -> None:
    rows = sparse_random(4_000, 8_000, 0.01, format="csr", dtype=np.float32, random_state=0)
    codes = np.random.default_rng(0).integers(0, 30, 4_000)
    alone = content_fit.fit_linear(rows, codes, SETTINGS, 0)
    with ThreadPoolExecutor(4) as pool:
        for fitted in pool.map(lambda _: content_fit.fit_linear(rows, codes, SETTINGS, 0), range(4)):
            np.testing.assert_array_equal(fitted.weights, alone.weights)
            np.testing.assert_array_equal(fitted.intercept, alone.intercept)


def test_the_encoder_agrees_with_scikit_learns_vectorizer() -> None:
    texts, _ = examples()
    texts += ["Ünïcode  straße\tand a tab", "x", "a a a a b", "don't_stop 3.14!"]
    cut = Cut()
    vocabulary = fit_vocabulary(cut, texts, [None] * len(texts), min_documents=2, max_terms=10**6)
    ours = content_fit.sparse_rows(Encoder(cut, vocabulary), texts, [None] * len(texts))
    oracles = (
        ("w", TfidfVectorizer(analyzer=lambda text: cut.blocks(text)[0], sublinear_tf=True, min_df=2)),
        ("c", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2)),
    )
    rows = [oracle.fit_transform(texts) for _, oracle in oracles]
    names = [block + term for block, oracle in oracles for term in oracle.get_feature_names_out()]
    assert sorted(names) == sorted(vocabulary.terms)
    theirs = (hstack(rows) * np.sqrt(0.5)).tocsc()[:, [names.index(term) for term in vocabulary.terms]]
    assert abs(ours - theirs).max() < 1e-6


@pytest.mark.parametrize("n_classes", [2, 3])
def test_both_parts_agree_with_scikit_learns_own_scores(n_classes: int) -> None:
    texts, labels = examples()
    texts, labels = texts[: 40 * n_classes], labels[: 40 * n_classes]
    codes = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    cut = Cut()
    encoder = Encoder(cut, fit_vocabulary(cut, texts, [None] * len(texts), min_documents=2, max_terms=10**6))
    rows = content_fit.sparse_rows(encoder, texts, [None] * len(texts))

    machine = LinearSVC(C=SETTINGS.svm_c, tol=SETTINGS.svm_tolerance, random_state=0).fit(rows, codes)
    linear = content_fit.fit_linear(rows, codes, SETTINGS, 0)
    decided = machine.decision_function(rows)
    ours = np.array([linear.score(*encoder.encode(text)) for text in texts])
    np.testing.assert_allclose(
        ours[:, 1] - ours[:, 0] if n_classes == 2 else ours, decided, atol=2e-3
    )  # half precision
    np.testing.assert_allclose(ours, content_fit.linear_logits(linear, rows), atol=1e-5)

    neural = content_fit.fit_neural(rows, codes, SETTINGS, 0)
    network = MLPClassifier((8,), alpha=SETTINGS.l2, batch_size=16, learning_rate_init=2e-3, random_state=0)
    for _ in range(SETTINGS.n_epochs):
        network.partial_fit(rows * np.float32(2), codes, classes=np.unique(codes))
    logits = np.array([neural.score(*encoder.encode(text)) for text in texts], dtype=np.float64)
    np.testing.assert_allclose(softmax(logits), network.predict_proba(rows * np.float32(2)), atol=2e-3)
    np.testing.assert_allclose(logits.tolist(), content_fit.neural_logits(neural, rows), atol=1e-5)


def test_components_span_what_the_texts_differ_by_most(tmp_path: Path) -> None:
    texts, labels = examples()
    classifier = train(texts, labels, tmp_path, settings=replace(SETTINGS, n_components=5), seed=0)
    cut = classifier.card.cut
    encoder = Encoder(cut, fit_vocabulary(cut, texts, [None] * len(texts), min_documents=2, max_terms=20_000))
    rows = content_fit.sparse_rows(encoder, texts, [None] * len(texts)).toarray().astype(float)
    axes = np.linalg.svd(rows)[2][:5]
    placed = np.array([classifier.classify(text).components for text in texts])
    np.testing.assert_allclose(np.abs((rows @ axes.T)[:, 0]), np.abs(placed[:, 0]), atol=2e-3)
    # Later axes may be turned among those of about their length; what they span together may not.
    np.testing.assert_allclose(placed @ placed.T, rows @ axes.T @ axes @ rows.T, atol=0.03)
    content.probe(tmp_path)


def test_components_change_nothing_else_of_a_classifier(tmp_path: Path) -> None:
    texts, labels = examples()
    for name, n_components in (("with", 5), ("again", 5), ("without", 0)):
        settings = replace(SETTINGS, n_components=n_components)
        train(texts, labels, tmp_path / name, settings=settings, seed=3)
    assert digests(tmp_path / "with") == digests(tmp_path / "again")
    with_, without = digests(tmp_path / "with"), digests(tmp_path / "without")
    assert with_.keys() - without.keys() == {"components.json"}
    assert {name for name in without if with_[name] != without[name]} == {"card.json", "golden.json"}
    with pytest.raises(TrainingRefusedError, match="components: 121 are more than 120 texts with"):
        train(texts, labels, tmp_path / "many", settings=replace(SETTINGS, n_components=121), seed=3)


def test_attributes_are_learned_where_the_text_says_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 100, 200)
    labels = ["large" if amount > 50 else "small" for amount in amounts]
    facts = [{"amount": float(amount), "urgent": bool(rng.integers(2))} for amount in amounts]
    classifier = train(["an order"] * 200, labels, tmp_path, settings=SETTINGS, seed=0, attributes=facts)
    assert classifier.classify("an order", {"amount": 90.0}).best_label == "large"
    assert classifier.classify("an order", {"amount": 10.0}).best_label == "small"


def test_confidence_is_calibrated_on_texts_with_known_chances(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [f"case {word}" for word in rng.choice(["alpha", "beta", "gamma"], 900)]
    chance = {"case alpha": 0.9, "case beta": 0.7, "case gamma": 0.5}
    labels = ["yes" if rng.uniform() < chance[text] else "no" for text in texts]
    classifier = train(texts, labels, tmp_path, settings=replace(SETTINGS, max_accuracy_loss_share=0.0), seed=0)
    yes = classifier.card.classes.index("yes")
    for text, expected in chance.items():
        assert classifier.classify(text).probabilities[yes] == pytest.approx(expected, abs=0.12)


def test_what_is_told_of_training_texts_was_said_without_having_seen_them(tmp_path: Path) -> None:
    """Labels by chance: learned by heart the classifier is right on nearly all of these texts, unseen on a third."""
    rng = np.random.default_rng(0)
    texts = [f"alpha{number} beta{number}" for number in rng.permutation(1_000)[:240]]
    labels = rng.choice(["x", "y", "z"], len(texts)).tolist()
    heard: list[np.ndarray] = []
    settings = replace(SETTINGS, min_documents=1)
    classifier = train(texts, labels, tmp_path, settings=settings, seed=0, out_of_scope=OUTSIDE, on_judged=heard.append)
    (told,) = heard
    assert told.shape == (240, 3)
    assert (told.sum(axis=1) <= 1 + 1e-9).all()
    codes = np.unique(labels, return_inverse=True)[1]
    assert (
        np.mean([classifier.classify(text).best_label == label for text, label in zip(texts, labels, strict=True)])
        > 0.9
    )
    assert np.mean(told.argmax(axis=1) == codes) < 0.45


def test_the_input_is_left_as_it_was(tmp_path: Path) -> None:
    texts, labels = examples()
    facts = [{"n": 1.0}] * len(texts)
    before = (list(texts), list(labels), [dict(fact) for fact in facts])
    train(texts, labels, tmp_path, settings=SETTINGS, seed=0, attributes=facts)
    assert (texts, labels, facts) == before


@pytest.mark.parametrize(
    ("texts", "labels", "outside", "message"),
    [
        ([], [], None, "0 texts hold 0 class"),
        (["a b", "c d"], ["x", "x"], None, "2 texts hold 1 class"),
        (["a b", "c d", "e f"], ["x", "x", "y"], None, "class 'y' has one example"),
        (["a b", None], ["x", "y"], None, r"texts\[1\]: None is no text"),
        (["a b", "  "], ["x", "y"], None, r"texts\[1\]: '  ' is no text"),
        (["a b", "\ud800"], ["x", "y"], None, "half a character"),
        (["a b", "c d"], ["x", float("nan")], None, r"labels\[1\]: nan is no text"),
        (["a b", "c d"], ["x"], None, "2 texts, 1 labels"),
        (["a b"] * 4, ["x", "y"] * 2, ["z"], "1 examples are too few for 4 folds"),
        (["ab", "cd", "ef", "gh"], ["x", "y"] * 2, None, "no term is found in 2 texts"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_name(
    tmp_path: Path, texts: list[str], labels: list[str], outside: list[str] | None, message: str
) -> None:
    settings = replace(SETTINGS, pair_span=1)
    with pytest.raises(TrainingRefusedError, match=message):
        train(texts, labels, tmp_path, settings=settings, seed=0, out_of_scope=outside)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_folds": 1}, "n_folds"), ({"max_accuracy_loss_share": 1.0}, "max_accuracy"), ({"min_gram": 5}, "min_gram")],
)
def test_a_setting_that_no_training_could_honour_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**change)  # type: ignore[arg-type]


def test_the_folds_are_blocks_of_each_class_in_order() -> None:
    codes = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    assert content_training._folds(codes, 2).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_the_better_contender_is_kept_and_a_pool_must_earn_its_place() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 600)
    truth = np.eye(3)[codes]
    good, bad = truth + 0.5 * rng.normal(size=(600, 3)), rng.normal(size=(600, 3))
    assert judge(good, bad, codes, 3, 0.0).contender == "linear"
    assert judge(bad, good, codes, 3, 0.0).contender == "neural"
    other = truth + 0.5 * rng.normal(size=(600, 3))
    assert judge(good, other, codes, 3, 0.0).contender == "pool"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_the_threshold_gives_up_no_more_right_answers_than_allowed(share: float) -> None:
    rng = np.random.default_rng(1)
    codes = np.append(rng.integers(0, 3, 500), np.full(50, 3))
    logits = 3 * np.eye(4)[codes] + rng.normal(size=(550, 4))
    scope = choose_scope(logits, codes, 3, share)
    assert scope.accuracy_loss_share <= share
    assert scope.accuracy_loss_share > share - 1 / 250
    assert scope.out_of_scope_recall is not None


def test_more_allowed_loss_never_finds_less_out_of_scope() -> None:
    rng = np.random.default_rng(2)
    codes = np.append(rng.integers(0, 3, 500), np.full(50, 3))
    logits = 2 * np.eye(4)[codes] + rng.normal(size=(550, 4))
    recalls = [choose_scope(logits, codes, 3, share).out_of_scope_recall for share in (0.0, 0.01, 0.02, 0.1)]
    assert recalls == sorted(recalls)  # type: ignore[type-var]


def test_the_benchmark_trains_on_one_folder_and_reports_on_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, seed in (("train", 0), ("test", 1)):
        texts, labels = examples(seed)
        splits = [part] * len(texts) + [f"oos_{part}"] * len(OUTSIDE)
        frame = pd.DataFrame({"split": splits, "text": texts + OUTSIDE, "intent": labels + ["oos"] * len(OUTSIDE)})
        (tmp_path / part).mkdir()
        frame.to_parquet(tmp_path / part / "clinc150.parquet")
        pd.DataFrame({"text": texts, "intent": labels}).to_parquet(tmp_path / part / f"banking77_{part}.parquet")
    assert benchmark.main(["--train", str(tmp_path / "train"), "--test", str(tmp_path / "test")]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["clinc150"]["in_scope_accuracy"] > 0.8
    assert said["clinc150"]["oos_recall"] > 0.8
    assert said["banking77"]["accuracy"] > 0.8
    assert said["us_per_event"] > 0


def test_with_test_files_every_labelled_row_counts_whatever_its_split(tmp_path: Path) -> None:
    for part in ("train", "test"):
        rows = [
            ("train", "a", "x"),
            ("val", "b", "y"),
            ("oos_test", "c", "oos"),
            ("test", "d", "x"),
            ("test", "e", None),
        ]
        (tmp_path / part).mkdir()
        pd.DataFrame(rows, columns=["split", "text", "intent"]).to_parquet(tmp_path / part / "clinc150.parquet")
        for number in (1, 2):
            file = tmp_path / part / f"banking77_{number}.parquet"
            pd.DataFrame({"text": ["a", "b"], "intent": ["x", "y"]}).to_parquet(file)
    given = tmp_path / "train", tmp_path / "test", SETTINGS, 0
    clinc, banking = benchmark.clinc_task(*given), benchmark.banking_task(*given)
    assert clinc is not None
    assert banking is not None
    assert clinc.train["text"].tolist() == clinc.test["text"].tolist() == ["a", "b", "c", "d"]
    assert (len(banking.train), len(banking.test)) == (4, 4)
    own = benchmark.clinc_task(tmp_path / "train", None, SETTINGS, 0)
    assert own is not None
    assert (own.train["text"].tolist(), own.test["text"].tolist()) == (["a"], ["b"])
    assert benchmark.clinc_task(tmp_path, None, SETTINGS, 0) is None


def test_out_of_scope_examples_carry_their_attributes(tmp_path: Path) -> None:
    """Else having none at all would be what tells them apart."""
    texts, labels = examples(n_each=12)
    facts: list[Attributes] = [{"shop": "no"}] * len(texts)
    outside: list[Attributes] = [{"shop": "no"}] * len(OUTSIDE)
    given = {"settings": SETTINGS, "seed": 0, "attributes": facts, "out_of_scope": OUTSIDE}
    with_them = train(texts, labels, tmp_path / "with", out_of_scope_attributes=outside, **given)  # type: ignore[arg-type]
    assert with_them.card.attributes == ("shop",)
    bare, shown = (with_them.classify(texts[0], facts).scope_score for facts in (None, {"shop": "no"}))
    train(texts, labels, tmp_path / "without", **given)  # type: ignore[arg-type]
    without = content.load(tmp_path / "without")
    bare_without, shown_without = (without.classify(texts[0], facts).scope_score for facts in (None, {"shop": "no"}))
    assert shown - bare < shown_without - bare_without


def test_the_benchmark_says_that_there_are_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--data", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
