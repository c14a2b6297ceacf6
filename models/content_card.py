"""A content classifier's card: what it is, how text is cut, what is pooled, when it abstains, where it was learned."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from models.card import read_card_of
from models.text_terms import Cut

Contender = Literal["linear", "neural", "pool"]
Statistic = Literal["probability", "evidence", "margin"]


class Contest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a contender reached on folds that it did not see: mean negative log likelihood and share answered right."""

    log_loss: float
    accuracy: float


class Scope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an event is in scope: its ``statistic`` is at least ``threshold``.

    ``probability`` is that of the best class; ``evidence`` the best class's logit; ``margin`` the best class's logit
    above that of the out-of-scope class. The shares are what the choice gave on folds not seen (recall is None
    without examples out of scope).
    """

    statistic: Statistic
    threshold: float
    accuracy_loss_share: float
    out_of_scope_recall: float | None


class Card(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a classifier is: classes in column order, how text is cut, what is pooled, when it abstains, where it was learned.

    Logits are ``linear_scale * linear + neural_scale * neural``; a scale of None means that this part is not there.
    ``out_of_scope_column`` says that a last column, after ``classes``, was learned from examples out of scope.
    ``attributes`` are those of an event that are read beside its text. ``n_components`` is not written where there are
    none, so that a shim which knows of none reads the card.
    """

    classes: Annotated[tuple[str, ...], Meta(min_length=2)]
    out_of_scope_column: bool
    cut: Cut
    contender: Contender
    linear_scale: float | None
    neural_scale: float | None
    contest: dict[Contender, Contest]
    scope: Scope
    trained: dict[str, str | float | int]
    attributes: tuple[str, ...] = ()
    n_components: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    kind: Literal["classifier"] = "classifier"

    @property
    def n_columns(self) -> int:
        """Return the number of logits: the classes, and out of scope where it was learned."""
        return len(self.classes) + self.out_of_scope_column


def read_card(folder: Path) -> Card:
    """Read the card alone.

    Raises
    ------
    ContractMismatchError
        If it is not there, or is none.
    """
    return read_card_of(folder, Card)
