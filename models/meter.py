"""What each candidate would use of every resource that a stream limits; numpy only, one arithmetic for shim and evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.limits import LimitDefinition
from features.vector import CategoryColumn
from models.card import ContractMismatchError, HeadName

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Heads = Mapping[HeadName, Floats] | Mapping[str, Floats]


@dataclass(frozen=True)
class Meter:
    """Reads the use of ``limits`` from a candidate's name, number features (in the order of ``numbers``) and predictions.

    Use is never negative. What a number feature does not tell is taken for ``most``, float64[n_resources]: the most that
    was seen when the limits were priced. Without ``most`` it stays NaN.

    Raises
    ------
    ContractMismatchError
        If a limit reads a feature that is not in ``numbers``.
    """

    limits: tuple[LimitDefinition, ...]
    numbers: tuple[str, ...]
    most: Floats | None = None
    _columns: tuple[int | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Find the columns once: every event is metered."""
        for limit in self.limits:
            if limit.price is not None and limit.price not in self.numbers:
                raise ContractMismatchError(
                    f"the limit on {limit.name} reads {limit.price!r}, which is no number feature"
                )
        columns = (None if limit.price is None else self.numbers.index(limit.price) for limit in self.limits)
        object.__setattr__(self, "_columns", tuple(columns))

    def event(self, destinations: Sequence[str], numbers: Floats, heads: Heads) -> Floats:
        """Return the use of each candidate of one event, float64[n_resources, n]; ``numbers`` float64[n, n_numbers]."""
        return self._use(lambda name: np.array([each == name for each in destinations]), numbers, heads)

    def log(self, destination: CategoryColumn, numbers: Floats, heads: Heads) -> Floats:
        """Return the use of each row of a log, float64[n_resources, n_rows], to the same bits as `event` by event."""

        def is_at(name: str) -> Mask:
            known = destination.values.index(name) if name in destination.values else -2  # -1 is a missing one
            return np.equal(destination.codes, known)

        return self._use(is_at, numbers, heads)

    def _use(self, is_at: Callable[[str], Mask], numbers: Floats, heads: Heads) -> Floats:
        use = np.empty((len(self.limits), len(numbers)))
        for place, (limit, column) in enumerate(zip(self.limits, self._columns, strict=True)):
            if limit.destination is not None:
                use[place] = is_at(limit.destination)
            elif column is not None:
                use[place] = numbers[:, column]
            else:
                use[place] = _predicted(limit, heads)
        if self.most is not None:
            use = np.where(np.isnan(use), self.most[:, np.newaxis], use)
        return np.maximum(use, 0.0)  # NaN passes


def _predicted(limit: LimitDefinition, heads: Heads) -> Floats:
    for name, predicted in heads.items():
        if name == limit.head:
            return predicted
    raise ContractMismatchError(
        f"the limit on {limit.name} needs a router that predicts it, this one predicts {', '.join(heads)}"
    )
