"""What an event says, as the fast path hears of it: a classifier asked by what stands in the request."""

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from features.records import Event
from serving.plan import StreamPlan
from serving.view import Reader

Said = tuple[bytes, bytes, bytes]  # float64s, the class, and that in JSON
_SCALARS = msgspec.json.Decoder(list[Any])


def numbers(plan: StreamPlan) -> tuple[str, ...]:
    """Return the numbers that are read of an event's content, in the order C is told of them."""
    columns = (*plan.features.numbers, *plan.features.operands)
    return tuple(dict.fromkeys(name for space, name in columns if space == "content"))


def ask(plan: StreamPlan, reader: Reader) -> Callable[[bytes], Said | None]:
    """Return what reads an event as the whole path has it read, by what stands of it in the request."""
    names, attributes = numbers(plan), reader.attributes

    def classify(asked: bytes) -> Said | None:
        text, *values = _SCALARS.decode(asked)
        facts = dict(zip(attributes, values, strict=True))
        content = reader.read(Event(id="-", source="-", type="-", stream=plan.name, text=text, attributes=facts))
        if content is None:
            return None
        label = content.category()
        return struct.pack(f"{len(names)}d", *map(content.number, names)), label.encode(), msgspec.json.encode(label)

    return classify
