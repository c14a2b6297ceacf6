"""What a text is about beside its class: its place on the axes along which the texts that were learned from differ most; numpy alone.

The axes are the leading right singular vectors of the texts' TF-IDF rows, ``rows = U S V'``, and a text's components are
``row V``: texts that share no word lie close where their words occur beside the same others. No label is read, so the
components of the texts that were learned from mean what those of new ones mean. Misleads where one word stands for many
things, and where the axes of the many texts are not those that the outcomes depend on. Source: Deerwester, Dumais, Furnas,
Landauer and Harshman, "Indexing by latent semantic analysis", 1990.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from models import arrays
from models.arrays import Floats32
from models.logits import ON_DISK, add_rows
from models.text_encoder import Columns


@dataclass(frozen=True)
class Components:
    """The axes: ``weights`` float32[n_terms, n_components], the greatest first."""

    FILE: ClassVar = "components.json"

    weights: Floats32

    def place(self, columns: Columns, values: Floats32) -> Floats32:
        """Return float32[n_components] for one sparse event."""
        return add_rows(values, self.weights.take(columns, axis=0))

    @classmethod
    def load(cls, folder: Path, n_terms: int, n_components: int) -> Self:
        """Return the axes in ``folder``, or raise ContractMismatchError if they cannot be read or do not fit."""
        file = folder / cls.FILE
        (weights,) = arrays.read(file, "weights")
        arrays.expect(file, "weights", weights, (n_terms, n_components))
        return cls(weights)

    def save(self, folder: Path) -> None:
        """Write the array."""
        arrays.write(folder / self.FILE, {"weights": self.weights.astype(ON_DISK)})
