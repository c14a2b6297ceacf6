"""What a classifier said of an event, as plain data: the space ``content`` of the features."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CATEGORY = "class"
OUT_OF_SCOPE = "out of scope"  # the value of ``content.class`` for an event of no class
PROBABILITY_PREFIX = "probability_"
_COMPONENT_PREFIX = "component_"
_COMPONENT = re.compile(_COMPONENT_PREFIX + "([1-9][0-9]{0,3})")
_PLAIN_NUMBERS = ("confidence", "in_scope")


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """The answer of a classifier for one event.

    ``label`` is None for out of scope, ``confidence`` the probability that this answer is right. ``probabilities``
    float64[n_classes] run in the classifier's order, ``columns`` gives the column of each slug. ``components`` say what
    the text is about beside its class, if the classifier has any.
    """

    label: str | None
    confidence: float
    probabilities: NDArray[np.float64]
    columns: Mapping[str, int]
    components: Sequence[float] = ()

    def number(self, name: str) -> float:
        """Return ``content.NAME`` as a number: ``confidence``, ``in_scope`` (1 or 0), ``probability_SLUG``, ``component_N``; NaN for what there is not."""
        if name == "confidence":
            return self.confidence
        if name == "in_scope":
            return float(self.label is not None)
        if name.startswith(_COMPONENT_PREFIX):
            place = int(name.removeprefix(_COMPONENT_PREFIX))
            return self.components[place - 1] if place <= len(self.components) else float("nan")
        column = self.columns.get(name.removeprefix(PROBABILITY_PREFIX))
        return float("nan") if column is None else float(self.probabilities[column])

    def category(self) -> str:
        """Return ``content.class``."""
        return OUT_OF_SCOPE if self.label is None else self.label


def slug(label: str) -> str:
    """Return how a class is written in an expression: lower case, every run of other characters than a-z and 0-9 as one ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def columns_of(classes: Sequence[str]) -> dict[str, int]:
    """Return the column of every slug that names exactly one class."""
    slugs = [slug(label) for label in classes]
    shared = Counter(slugs)
    return {name: column for column, name in enumerate(slugs) if name and shared[name] == 1}


def is_number(name: str) -> bool:
    """Tell whether ``content.NAME`` may be read as a number; whether the class or component exists is for `strangers` to say."""
    wanted = name.removeprefix(PROBABILITY_PREFIX)
    return name in _PLAIN_NUMBERS or bool(_component(name)) or (wanted != name and wanted == slug(wanted) != "")


def strangers(names: Collection[str], classes: Sequence[str], n_components: int = 0) -> tuple[str, ...]:
    """Return why a classifier of ``classes`` and components cannot give each of ``names``; nothing if it gives them all."""
    slugs = Counter(map(slug, classes))
    reasons = []
    for name in sorted(names):
        wanted = name.removeprefix(PROBABILITY_PREFIX)
        if wanted != name and slugs[wanted] != 1:
            found = f"{slugs[wanted]} classes are" if slugs[wanted] else "no class is"
            reasons.append(f"content.{name}: {found} written {wanted!r}")
        if _component(name) > n_components:
            reasons.append(f"content.{name}: the classifier has {n_components} components")
    return tuple(reasons)


def _component(name: str) -> int:
    """Return which component ``name`` means, counted from one; 0 if it means none."""
    found = _COMPONENT.fullmatch(name)
    return int(found[1]) if found else 0
