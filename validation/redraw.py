"""What a key that was drawn on a lower rung still tells on a higher one: it is drawn again, given what is known of it.

The arm of a key is that of one uniform draw U: challenger where U < share. When a ladder climbs from share s to t, a key

- in the challenger's arm stays there for certain: nothing is drawn, and what it shows from then on does not count;
- in the champion's arm has U >= s, and so joins the challenger with probability (t - s) / (1 - s): a draw like any other,
  of which the key's decisions at t are the unit.

So every counted unit has a probability in (0, 1) that was known before it began, whatever came before, and that is all the
sequence asks. Counting a key as one unit through all rungs would give it two shares; drawing anew on every rung would
send keys back and forth between arms.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """n decisions: which of them count, the unit that each belongs to, and the challenger's probability in that unit."""

    counts: Mask
    unit: Integers
    share: Floats


def redraw(unit: Integers, share: Floats, is_challenger: Mask) -> Redrawn:
    """Return how decisions count that were made, in this order, for ``unit`` (int64[n]) at the rungs' ``share``.

    A decision at a lower share than an earlier one of its unit (a shim that lags behind) tells nothing and does not count.
    """
    pairs, first, group = np.unique(np.column_stack([unit, share]), axis=0, return_index=True, return_inverse=True)
    counts, conditional = np.ones(len(pairs), np.bool_), pairs[:, 1].copy()
    if len(pairs) > len(np.unique(unit)):  # some unit was decided on several rungs
        held: dict[float, tuple[float, bool]] = {}  # by unit: the highest share so far, and the arm at it
        for number in np.argsort(first, kind="stable"):
            name, asked = pairs[number]
            before, is_settled = held.get(name, (0.0, False))
            counts[number] = asked > before and not is_settled
            conditional[number] = (asked - before) / (1.0 - before) if counts[number] else asked
            if asked > before:
                held[name] = (asked, is_settled or bool(is_challenger[first[number]]))
    return Redrawn(counts=counts[group], unit=group.astype(np.int64), share=conditional[group])
