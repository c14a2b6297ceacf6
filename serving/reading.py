"""What a stream's classifiers say of an event: the one in force, for the log, and those that routers pin, for their scores."""

from typing import Self

from msgspec import Struct

from features.content import Content
from features.records import Event
from serving.view import Classifier


class Fault(Struct, frozen=True, kw_only=True):
    """A model that failed on an event. ``raised`` tells an exception of its own from a prediction that is no number."""

    digest: str
    reason: str
    raised: bool


class Reading(Struct, frozen=True, kw_only=True):
    """What one classifier said of an event. ``digest`` is None, and so is ``content``, where none is there or it failed."""

    digest: str | None = None
    content: Content | None = None
    fault: Fault | None = None

    @classmethod
    def of(cls, event: Event, classifier: Classifier | None) -> Self:
        """Ask ``classifier``; a classifier may fail in any way, the event must not."""
        if classifier is None:
            return cls()
        try:
            return cls(digest=classifier.digest, content=classifier.reader.read(event))
        except Exception as error:  # noqa: BLE001 - see above
            reason = f"classifier raised {type(error).__name__}: {error}"
            return cls(fault=Fault(digest=classifier.digest, reason=reason, raised=True))
