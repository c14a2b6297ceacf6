from typing import Any, Self

from numpy.typing import NDArray

class Scorer:
    def __new__(
        cls,
        idf: NDArray[Any],
        sublinear: NDArray[Any],
        words: NDArray[Any],
        pairs: NDArray[Any],
        linear: NDArray[Any],
        linear_intercept: NDArray[Any],
        hidden: NDArray[Any],
        hidden_intercept: NDArray[Any],
        output: NDArray[Any],
        output_intercept: NDArray[Any],
        components: NDArray[Any],
        n_classes: int,
        start: int,
        end: int,
        span: int,
        block_weight: float,
        linear_scale: float,
        neural_scale: float,
    ) -> Self: ...
    def score(
        self, pieces: list[bytes], facts: bytes, probabilities: NDArray[Any], /
    ) -> tuple[int, float, float, float, tuple[float, ...]] | None: ...
