"""Fits the parts of a content classifier with scikit-learn and hands them over as arrays. The pipeline's side; the shim never imports it."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from models.arrays import Floats32
from models.components import Components
from models.logits import ON_DISK, Linear, Neural
from models.text_encoder import Encoder
from models.text_terms import Attributes

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

# liblinear draws from one generator per process and seeds it anew for each fit: two at once would disturb each other.
_LIBLINEAR = Lock()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a classifier is trained.

    Terms and ``svm_c`` lie on the plateau that blocked cross-validation on CLINC150's training split found; the
    neural part is sized to train in seconds, larger ones gained little beside the linear part.

    ``max_accuracy_loss_share`` is the share of all in-scope events that the scope threshold may take from the right
    answers; ``max_terms`` holds per block of terms; ``n_components`` are kept of the texts, none if 0. More than ``n_threads`` fits never run at once.
    """

    max_characters: int = 2_000
    pair_span: int = 4
    min_gram: int = 2
    max_gram: int = 4
    min_documents: int = 2
    max_terms: int = 20_000
    n_number_bins: int = 8
    svm_c: float = 3.0
    svm_tolerance: float = 1e-2
    n_inputs: int = 8_000
    n_hidden: int = 128
    n_epochs: int = 8
    batch_size: int = 200
    learning_rate: float = 2e-3
    l2: float = 1e-5
    input_gain: float = 2.0
    n_folds: int = 4
    n_threads: int = 2
    max_accuracy_loss_share: float = 0.005
    n_components: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training could honour, naming the setting."""
        if self.n_folds < 2:  # noqa: PLR2004 - one fold has nothing to be judged on
            raise ValueError(f"n_folds must be at least 2, got {self.n_folds}")
        if not 0 <= self.max_accuracy_loss_share < 1:
            raise ValueError(f"max_accuracy_loss_share must lie in [0, 1), got {self.max_accuracy_loss_share}")
        if not 1 <= self.min_gram <= self.max_gram:
            raise ValueError(f"min_gram must lie in [1, max_gram], got {self.min_gram} with {self.max_gram}")


@dataclass(frozen=True)
class Parts:
    """Both parts, fitted on the same examples."""

    linear: Linear
    neural: Neural
    components: Components | None = None


def sparse_rows(encoder: Encoder, texts: Sequence[str], attributes: Sequence[Attributes | None]) -> csr_matrix:
    """Return the events' vectors, float32[n, n_terms], by the encoder that the shim uses."""
    encoded = [encoder.encode(text, facts) for text, facts in zip(texts, attributes, strict=True)]
    starts = np.concatenate([[0], np.cumsum([columns.size for columns, _ in encoded])])
    columns = np.concatenate([columns for columns, _ in encoded])
    values = np.concatenate([values for _, values in encoded])
    matrix = csr_matrix((values, columns, starts), shape=(len(encoded), encoder.n_columns))
    matrix.sort_indices()
    return matrix


def fit_linear(rows: csr_matrix, codes: Codes, settings: Settings, seed: int) -> Linear:
    """Fit a linear support vector machine, each class against the rest, and round its weights to half precision."""
    machine = LinearSVC(C=settings.svm_c, tol=settings.svm_tolerance, random_state=seed)
    with _LIBLINEAR:
        machine.fit(rows, codes)
    weights, intercept = _both_classes(machine.coef_.T), _both_classes(machine.intercept_[None])[0]
    return Linear(np.ascontiguousarray(_rounded(weights)), intercept.astype(np.float32))


def fit_neural(rows: csr_matrix, codes: Codes, settings: Settings, seed: int) -> Neural:
    """Fit a perceptron with one hidden layer over the first ``n_inputs`` columns, the most frequent terms.

    Rows of unit length are too short for a fresh layer to move on: they are grown by ``input_gain``, which the
    weights then take over.
    """
    inputs = rows[:, : settings.n_inputs] * np.float32(settings.input_gain)
    network = MLPClassifier(
        hidden_layer_sizes=(settings.n_hidden,),
        alpha=settings.l2,
        batch_size=min(settings.batch_size, len(codes)),
        learning_rate_init=settings.learning_rate,
        random_state=seed,
    )
    classes = np.unique(codes)
    for _ in range(settings.n_epochs):
        network.partial_fit(inputs, codes, classes=classes)
    hidden, output = network.coefs_
    hidden_intercept, output_intercept = network.intercepts_
    return Neural(
        _rounded(hidden * settings.input_gain),
        hidden_intercept.astype(np.float32),
        _both_classes(output).astype(np.float32),
        _both_classes(output_intercept[None])[0].astype(np.float32),
    )


def fit_components(rows: csr_matrix, n_components: int, seed: int) -> Components:
    """Find the axes of ``rows`` by randomized range finding (Halko, Martinsson and Tropp, 2011), rounded to half precision."""
    found = TruncatedSVD(n_components, random_state=seed).fit(rows)
    return Components(np.ascontiguousarray(_rounded(found.components_.T)))


def _rounded(weights: NDArray[np.floating]) -> Floats32:
    """Return what will be read from disk, so that what is judged is what is scored."""
    return weights.astype(ON_DISK).astype(np.float32)


def _both_classes(last: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a column per class: of two classes scikit-learn keeps the second's score alone."""
    return np.hstack([-last, last]) / 2 if last.shape[1] == 1 else last


def linear_logits(part: Linear, rows: csr_matrix) -> Floats:
    """Return float64[n, n_columns]."""
    logits: Floats = np.asarray(rows @ part.weights + part.intercept, dtype=np.float64)
    return logits


def neural_logits(part: Neural, rows: csr_matrix) -> Floats:
    """Return float64[n, n_columns]."""
    inputs = rows[:, : len(part.hidden_weights)]
    hidden = np.maximum(inputs @ part.hidden_weights + part.hidden_intercept, 0.0)
    logits: Floats = np.asarray(hidden @ part.output_weights + part.output_intercept, dtype=np.float64)
    return logits
