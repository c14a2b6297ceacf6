from typing import Any

from numpy.typing import NDArray

class Masks:
    def __init__(
        self,
        n_features: int,
        n_trees: int,
        width: int,
        link: int,
        parameter: float,
        divisor: float,
        columns: NDArray[Any],
        thresholds: NDArray[Any],
        lookup: NDArray[Any],
        values: NDArray[Any],
        masks: NDArray[Any],
    ) -> None: ...
    def score(self, matrix: NDArray[Any], out: NDArray[Any], raw_score: bool, /) -> None: ...

def apply(name: str, values: NDArray[Any], /) -> None: ...
