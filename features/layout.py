"""Where the columns of a feature vector come from: cells are gathered space by space, and then put in their own order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Self

Row = tuple[Any, ...]  # cells of one candidate, not checked yet


@dataclass(frozen=True)
class Layout:
    """Columns that are names, each of a space.

    ``gathered`` is every (space, name) in the order they are gathered in, ``names`` the same by space, ``order`` says of
    each column which of the gathered it is.
    """

    gathered: tuple[tuple[str, str], ...]
    names: Mapping[str, tuple[str, ...]]
    order: tuple[int, ...]

    @classmethod
    def of(cls, columns: Sequence[tuple[str, str]], spaces: Sequence[str]) -> Self:
        """Lay out ``columns``, (space, name) each, to be gathered in the order of ``spaces``."""
        places = sorted(range(len(columns)), key=lambda column: spaces.index(columns[column][0]))
        return cls(
            gathered=tuple(columns[place] for place in places),
            names={space: tuple(name for of, name in columns if of == space) for space in spaces},
            order=tuple(sorted(range(len(places)), key=places.__getitem__)),
        )

    @property
    def is_in_order(self) -> bool:
        """Tell whether columns are gathered in their own order."""
        return self.order == tuple(range(len(self.order)))

    def arranger(self) -> Callable[[Row], Row]:
        """Return what puts a gathered row in order."""
        return tuple if self.is_in_order else itemgetter(*self.order)  # of at least two, so that it makes a tuple


def field_reader(names: Sequence[str]) -> Callable[[object], Row]:
    """Return what reads the fields ``names`` of an object."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple([getattr(record, name) for name in names])
