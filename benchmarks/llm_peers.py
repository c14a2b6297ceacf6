"""What routing of prompts is measured against: plain models of the same prompts, fitted on the same rows."""

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks.llm_prompts import Floats, Prompts

# Of words, pairs of words and character n-grams, with C of .1, 1 and 10, the best on the rows that are learned from.
TFIDF_GRAMS = (2, 5)
TFIDF_TERMS = 50_000
TFIDF_C = 0.1
RIDGE_ALPHA = 10.0
PSEUDO_PROMPTS = 10.0  # of the overall mean, beside a subject's own


def _vectorizer() -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=TFIDF_GRAMS, sublinear_tf=True, min_df=2, max_features=TFIDF_TERMS
    )


def predict_tfidf(train: Prompts, test: Prompts) -> Floats:
    """Return each model's chance to be right, float64[n_test, k], by one logistic regression per model over TF-IDF."""
    vectorizer = _vectorizer()
    known, asked = vectorizer.fit_transform(train.texts), vectorizer.transform(test.texts)
    columns = []
    for right in train.quality.T > 0.5:  # noqa: PLR2004 - right or wrong
        machine = LogisticRegression(C=TFIDF_C, max_iter=500).fit(known, right)
        columns.append(machine.predict_proba(asked)[:, list(machine.classes_).index(True)])
    return np.column_stack(columns)


def predict_ridge(train: Prompts, test: Prompts, fact: str) -> Floats:
    """Return each model's quality, float64[n_test, k], by ridge regressions over TF-IDF and the values of ``fact``."""
    vectorizer, values = _vectorizer(), np.unique(train.facts[fact])
    rows = [
        hstack([texts, csr_matrix((prompts.facts[fact][:, np.newaxis] == values).astype(np.float64))]).tocsr()
        for prompts, texts in (
            (train, vectorizer.fit_transform(train.texts)),
            (test, vectorizer.transform(test.texts)),
        )
    ]
    predicted: Floats = Ridge(alpha=RIDGE_ALPHA, solver="lsqr").fit(rows[0], train.quality).predict(rows[1])
    return predicted


def predict_means(train: Prompts, test: Prompts, fact: str, pseudo: float = 0.0) -> Floats:
    """Return each model's mean quality among the training prompts of the same ``fact``, float64[n_test, k].

    ``pseudo`` prompts of the overall mean are counted in; a value never seen has that mean.
    """
    overall = train.quality.mean(axis=0)
    means = {}
    for value in np.unique(train.facts[fact]):
        own = train.quality[train.facts[fact] == value]
        means[value] = (own.sum(axis=0) + pseudo * overall) / (len(own) + pseudo)
    return np.array([means.get(value, overall) for value in test.facts[fact]])
